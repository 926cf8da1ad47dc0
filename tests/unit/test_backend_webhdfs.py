"""What only a server of our own can answer: standby, old and forbidding NameNodes, and how often they are asked."""

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from hdfs_fuse import errors
from hdfs_fuse.backend.base import SpaceUsage
from hdfs_fuse.backend.webhdfs import WebHdfs

Answer = tuple[int, object]

STATUS: Answer = (200, {"FsStatus": {"capacity": 1000, "used": 200, "remaining": 700}})
NO_QUOTA: Answer = (200, {"QuotaUsage": {"spaceQuota": -1, "spaceConsumed": 0, "quota": -1}})


def refusal(java_class: str, message: str, status: int = 403) -> Answer:
    return status, {"RemoteException": {"exception": "X", "javaClassName": java_class, "message": message}}


STANDBY = refusal("org.apache.hadoop.ipc.StandbyException", "Operation category READ is not supported in state standby")
NO_SUCH_OPERATION = refusal("java.lang.IllegalArgumentException", "Invalid value for webhdfs parameter", 400)


class NameNode:
    """A web server that answers each operation as told.

    Attributes:
        address: base URL.
        answers: by operation; "jmx" for the bean.
        asked: how often each was asked.
        users: who asked.
        excluded: DataNodes that it was not to choose; the operation is answered as `NAME elsewhere` then.
    """

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = {"GETSTATUS": STATUS, "GETQUOTAUSAGE": NO_QUOTA, **answers}
        self.asked: Counter[str] = Counter()
        self.users: set[str] = set()
        self.excluded: set[str] = set()
        namenode = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self._answer()

            def _answer(self) -> None:
                url = urlsplit(self.path)
                query = parse_qs(url.query)
                operation = "jmx" if url.path == "/jmx" else query["op"][0]
                operation += " elsewhere" if "excludedatanodes" in query else ""
                namenode.asked[operation] += 1
                namenode.users.update(query.get("user.name", []))
                namenode.excluded.update(query.get("excludedatanodes", []))
                status, body = namenode.answers[operation]
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def start() -> Iterator[Callable[..., NameNode]]:
    started: list[NameNode] = []

    def make(**answers: Answer) -> NameNode:
        started.append(NameNode(**answers))
        return started[-1]

    yield make
    for namenode in started:
        namenode.stop()


def test_without_a_quota_the_clusters_space_counts(
    start: Callable[..., NameNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "alice")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # must not be looked at
    namenode = start()
    assert WebHdfs([namenode.address]).space("/dir") == SpaceUsage(1000, 200, 700)
    assert namenode.users == {"alice"}


@pytest.mark.parametrize(
    ("quota", "consumed", "expected"),
    [
        (500, 100, SpaceUsage(500, 100, 400)),
        (5000, 100, SpaceUsage(5000, 100, 700)),  # no more than the cluster has
        (500, 600, SpaceUsage(500, 600, 0)),  # a quota may be set below what is there
        (0, 0, SpaceUsage(0, 0, 0)),
    ],
)
def test_a_space_quota(start: Callable[..., NameNode], quota: int, consumed: int, expected: SpaceUsage) -> None:
    namenode = start(GETQUOTAUSAGE=(200, {"QuotaUsage": {"spaceQuota": quota, "spaceConsumed": consumed}}))
    web = WebHdfs([namenode.address])
    assert web.space("/dir") == web.space("/dir") == expected
    assert namenode.asked["GETQUOTAUSAGE"] == 2


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ({"quota": 10, "spaceQuota": -1}, SpaceUsage(1000, 200, 700, max_names=10, used_names=4)),
        ({"quota": 10, "spaceQuota": 500}, SpaceUsage(500, 100, 400, max_names=10, used_names=4)),
        ({"quota": 2, "spaceQuota": -1}, SpaceUsage(1000, 200, 700, max_names=2, used_names=4)),
        ({"quota": (1 << 63) - 1, "spaceQuota": -1}, SpaceUsage(1000, 200, 700)),  # what the root has
    ],
)
def test_a_name_quota(start: Callable[..., NameNode], quota: dict[str, int], expected: SpaceUsage) -> None:
    usage = {"QuotaUsage": {"fileAndDirectoryCount": 4, "spaceConsumed": 100, **quota}}
    assert WebHdfs([start(GETQUOTAUSAGE=(200, usage)).address]).space("/dir") == expected


def test_a_directory_without_a_quota_is_not_walked_again_soon(start: Callable[..., NameNode]) -> None:
    namenode = start()
    web = WebHdfs([namenode.address])
    for _ in range(3):
        web.space("/dir")
    assert (namenode.asked["GETQUOTAUSAGE"], namenode.asked["GETSTATUS"]) == (1, 3)
    web.space("/other")
    assert namenode.asked["GETQUOTAUSAGE"] == 2


def test_the_active_namenode_answers(start: Callable[..., NameNode]) -> None:
    standby, active = start(GETSTATUS=STANDBY, GETQUOTAUSAGE=STANDBY), start()
    web = WebHdfs(["http://127.0.0.1:1", standby.address, active.address])
    assert web.space("/dir").capacity_bytes == 1000
    assert standby.asked["GETSTATUS"] == 1


def test_namenodes_before_3_4_publish_their_capacity_elsewhere(start: Callable[..., NameNode]) -> None:
    bean = {"CapacityTotal": 9, "CapacityUsed": 4, "CapacityRemaining": 5, "FSState": "Operational"}
    namenode = start(GETSTATUS=NO_SUCH_OPERATION, GETQUOTAUSAGE=NO_SUCH_OPERATION, jmx=(200, {"beans": [bean]}))
    assert WebHdfs([namenode.address]).space("/dir") == SpaceUsage(9, 4, 5)
    nothing = start(GETSTATUS=NO_SUCH_OPERATION, jmx=(200, {"beans": []}))
    with pytest.raises(errors.UnsupportedError):
        WebHdfs([nothing.address]).space("/dir")


def test_kerberos_is_named(start: Callable[..., NameNode]) -> None:
    html: Answer = (401, b"<html>Authentication required</html>")
    namenode = start(GETSTATUS=html, jmx=html)
    with pytest.raises(errors.UnsupportedError, match="Kerberos"):
        WebHdfs([namenode.address]).space("/dir")


@pytest.mark.parametrize("answer", [(200, b"not json"), (404, b"<html>"), (200, {"Else": 1})])
def test_a_server_that_is_something_else(start: Callable[..., NameNode], answer: Answer) -> None:
    namenode = start(GETSTATUS=answer, jmx=answer)
    with pytest.raises(errors.UnsupportedError, match="unexpected answer"):
        WebHdfs([namenode.address]).space("/dir")


def test_refusals_come_through(start: Callable[..., NameNode]) -> None:
    denied = refusal("org.apache.hadoop.security.AccessControlException", "Permission denied: user=alice")
    namenode = start(GETQUOTAUSAGE=denied)
    with pytest.raises(errors.PermissionDeniedError):
        WebHdfs([namenode.address]).space("/dir")


@pytest.mark.parametrize("addresses", [[], ["http://127.0.0.1:1"]])
def test_nobody_answers(addresses: list[str]) -> None:
    with pytest.raises(errors.UnavailableError, match=r"dfs\.namenode\.http-address"):
        WebHdfs(addresses).space("/dir")


@pytest.mark.parametrize(
    ("scheme", "node"),
    [
        ("http", {"infoAddr": "10.0.0.1:{port}", "infoSecureAddr": "10.0.0.1:0"}),
        ("https", {"infoAddr": "10.0.0.1:0", "infoSecureAddr": "10.0.0.1:{port}"}),
    ],
)
def test_a_datanode_that_refuses_is_excluded_by_its_transfer_address(
    start: Callable[..., NameNode], scheme: str, node: dict[str, str]
) -> None:
    """The NameNode knows it by address; the redirect has its name."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        known = {key: value.format(port=port) for key, value in node.items()}
        live = {"LocalHost:9866": {**known, "xferaddr": "10.0.0.1:9866", "lastContact": 0}}
        namenode = start(
            jmx=(200, {"beans": [{"LiveNodes": json.dumps(live)}]}),
            CREATE=(200, {"Location": f"{scheme}://localhost:{port}/webhdfs/v1/file?op=CREATE"}),
        )
        stored = f"{namenode.address}/webhdfs/v1/file?op=STORE"
        namenode.answers |= {"CREATE elsewhere": (200, {"Location": stored}), "STORE": (201, b"")}
        WebHdfs([namenode.address]).put("/file", iter([b"content"]), 7, 0o644, replication=None)
    assert namenode.excluded == {"10.0.0.1:9866"}
    assert namenode.asked["STORE"] == 1
