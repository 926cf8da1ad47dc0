"""What NameNodes say of themselves: standby, in safe mode, silent, or something else."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hdfs_csi.health import Problem, cluster_problem
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.backend import namenodes
from hdfs_fuse.backend.namenodes import NameNodeState
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, InvalidArgumentError, MountError, UnavailableError, UnsupportedError

SYSTEM = {"FSState": "Operational", "NumLiveDataNodes": 3, "CapacityTotal": 9}


class NameNode:
    """A web server that shows two beans."""

    def __init__(self, state: str, system: object = SYSTEM, http_status: int = 200) -> None:
        beans = {"NameNodeStatus": [{"State": state, "Host": "x"}], "FSNamesystemState": [system] if system else []}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = json.dumps({"beans": beans[self.path.rpartition("=")[2]]}).encode()
                data = data if http_status == 200 else b"<html>Authentication required</html>"
                self.send_response(http_status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HADOOP_CONF_DIR", "HADOOP_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    started: list[NameNode] = []

    def make(*arguments: object, **details: object) -> str:
        started.append(NameNode(*arguments, **details))  # type: ignore[arg-type]
        return started[-1].address

    yield make
    for namenode in started:
        namenode.stop()


def nameservice(*addresses: str) -> MountConfig:
    properties = {"dfs.ha.namenodes.ns": ",".join(f"nn{n}" for n in range(len(addresses)))}
    for number, address in enumerate(addresses):
        properties[f"dfs.namenode.rpc-address.ns.nn{number}"] = "127.0.0.1:8020"
        properties[f"dfs.namenode.http-address.ns.nn{number}"] = address
    return MountConfig(uri="hdfs://ns/data", hadoop_properties=properties)


def test_the_active_one_counts(start: Callable[..., str]) -> None:
    active = start("active")
    config = nameservice("127.0.0.1:1", start("standby", {**SYSTEM, "NumLiveDataNodes": 0}), active)
    assert namenodes.ask(config, deadline_s=5) == NameNodeState(f"http://{active}", "active", False, 3)


def test_safe_mode(start: Callable[..., str]) -> None:
    config = nameservice(start("active", {"FSState": "safeMode", "NumLiveDataNodes": 0}))
    state = namenodes.ask(config, deadline_s=5)
    assert (state.in_safe_mode, state.live_datanodes) == (True, 0)


def test_none_is_active(start: Callable[..., str]) -> None:
    first = start("standby")
    state = namenodes.ask(nameservice(first, start("observer"), "127.0.0.1:1"), deadline_s=5)
    assert (state.address, state.role) == (f"http://{first}", "standby")


def test_nobody_answers() -> None:
    # A listener that never answers, as a hung NameNode.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=rf"{address}: timed out; http://127\.0\.0\.1:1: .*refused"):
            namenodes.ask(nameservice(address, "127.0.0.1:1"), deadline_s=0.2)


def test_something_else_answers(start: Callable[..., str]) -> None:
    for address in (start("active", http_status=401), start("active", None), start("active", {"Else": 1})):
        with pytest.raises(UnsupportedError, match=address):
            namenodes.ask(nameservice(address), deadline_s=5)
    with pytest.raises(InvalidArgumentError, match="names no host"):
        namenodes.ask(MountConfig(uri="hdfs:///data"), deadline_s=5)


@pytest.mark.parametrize(
    ("state", "failure", "reason"),
    [
        (NameNodeState("nn", "active", False, 1), None, None),
        (NameNodeState("nn", "active", False, 1), MountError("slow"), "HdfsUnavailable"),
        (NameNodeState("nn", "active", True, 1), None, "NameNodeSafeMode"),
        (NameNodeState("nn", "active", True, 0), None, "NoDataNodes"),
        (NameNodeState("nn", "standby", True, 0), MountError("slow"), "NameNodeStandby"),
        # Whoever answers the mount is not in the configuration that the web servers come from.
        (NameNodeState("nn", "standby", True, 0), None, None),
    ],
)
def test_what_it_means_for_a_volume(state: NameNodeState, failure: HdfsFuseError | None, reason: str | None) -> None:
    found = cluster_problem(state, MountConfig(uri="hdfs://ns/data"), failure)
    assert (found and found.reason) == reason
    if isinstance(found, Problem):
        assert found.status == (csi.DEGRADED if reason == "NameNodeSafeMode" else csi.INACCESSIBLE)
