"""Errors, logs, locks and the socket of the driver, with services of the test's own."""

import inspect
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import hdfs_fuse.errors
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc import StatusCode
from hdfs_csi import errors, logs
from hdfs_csi.identity import Identity
from hdfs_csi.locks import VolumeLocks
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.server import Server, remove_stale_socket, snake_case, socket_path
from hdfs_fuse.errors import BusyError, HdfsFuseError, InvalidArgumentError, NotFoundError, UnavailableError

from tests.csi.client import CsiClient


class Node:
    """Stands in for the node service: the RPC tells it what to do by the volume's id."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def node_stage_volume(self, request: csi.NodeStageVolumeRequest) -> csi.NodeStageVolumeResponse:
        if request.volume_id == "unknown":
            raise ZeroDivisionError("holds hunter2")
        if request.volume_id == "known":
            raise NotFoundError("x" * 10_000)
        if request.volume_id == "slow":
            self.entered.set()
            assert self.leave.wait(30)
        return csi.NodeStageVolumeResponse()


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        yield f"{directory}/csi.sock"


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def client(path: str, node: Node) -> Iterator[CsiClient]:
    server = Server(f"unix://{path}", [Identity("hdfs.csi.dev"), node], threads=4)
    server.start()
    client = CsiClient(path)
    yield client
    node.leave.set()
    client.close()
    server.stop(5)


# ---- errors


def all_errors() -> list[type[HdfsFuseError]]:
    found = [c for m in (errors, hdfs_fuse.errors) for _, c in inspect.getmembers(m, inspect.isclass)]
    return sorted(
        {c for c in found if issubclass(c, HdfsFuseError) and c is not HdfsFuseError}, key=lambda c: c.__name__
    )


@pytest.mark.parametrize("error", all_errors())
def test_every_exception_has_a_code_of_its_own(error: type[HdfsFuseError]) -> None:
    # Subclasses would inherit one, but each of ours is meant to be decided on.
    assert error in errors._STATUS
    assert errors.status_of(error("x")) is errors._STATUS[error]
    assert errors._STATUS[error] not in {StatusCode.OK, StatusCode.UNKNOWN}
    # Of that a CO takes it that the plugin never has the RPC.
    assert (errors._STATUS[error] is StatusCode.UNIMPLEMENTED) == (error is errors.NotOfferedError)


def test_what_is_unknown_is_internal() -> None:
    assert errors.status_of(ValueError("x")) is StatusCode.INTERNAL
    assert errors.status_of(HdfsFuseError("x")) is StatusCode.INTERNAL


def test_an_unknown_error_is_logged_once_with_its_place_and_without_its_text(
    client: CsiClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        code, message = client.refused(csi.NodeStageVolumeRequest(volume_id="unknown"))
    assert code is StatusCode.INTERNAL
    assert message.startswith("ZeroDivisionError; see the driver's log, request ")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert __file__ in record.getMessage()
    assert "hunter2" not in record.getMessage()


def test_a_known_error_is_one_line_and_its_message_is_bounded(
    client: CsiClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        code, message = client.refused(csi.NodeStageVolumeRequest(volume_id="known"))
    assert (code, len(message)) == (StatusCode.NOT_FOUND, 2000)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


def test_rpcs_without_a_method_are_unimplemented(client: CsiClient) -> None:
    for request in (csi.NodeUnstageVolumeRequest(), csi.CreateVolumeRequest(), csi.GetSnapshotRequest()):
        assert client.refused(request)[0] is StatusCode.UNIMPLEMENTED


def test_a_process_that_can_not_serve_says_so(path: str) -> None:
    server = Server(f"unix://{path}", [Identity("hdfs.csi.dev", lambda: "/dev/fuse is missing")])
    server.start()
    client = CsiClient(path)
    assert client.refused(csi.ProbeRequest()) == (StatusCode.FAILED_PRECONDITION, "/dev/fuse is missing")
    client.close()
    server.stop(1)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a..b", "a_b", "x" * 64, "ä"])
def test_driver_names(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="driver name"):
        Identity(name)


def test_every_rpc_has_a_method_name() -> None:
    names = {m.name for s in csi.DESCRIPTOR.services_by_name.values() for m in s.methods}
    assert len({snake_case(name) for name in names}) == len(names)
    assert snake_case("NodeGetVolumeStats") == "node_get_volume_stats"


# ---- stopping


def test_calls_that_run_may_end(path: str, node: Node) -> None:
    server = Server(f"unix://{path}", [node])
    server.start()
    client = CsiClient(path)
    running = client.start(csi.NodeStageVolumeRequest(volume_id="slow"))
    assert node.entered.wait(30)
    stopper = threading.Thread(target=server.stop, args=(30,))
    stopper.start()
    node.leave.set()
    assert running.result() == csi.NodeStageVolumeResponse()
    stopper.join(30)
    client.close()
    assert not stopper.is_alive()
    assert not os.path.exists(path)


# ---- the socket


@pytest.mark.parametrize("endpoint", ["unix:///x/y", "unix:/x/y"])
def test_endpoints_of_unix_sockets(tmp_path: Path, endpoint: str) -> None:
    assert socket_path(endpoint.replace("/x/y", f"{tmp_path}/s")) == f"{tmp_path}/s"


@pytest.mark.parametrize("endpoint", ["", "/x", "tcp://localhost:1", "unix://", "unix://x", "unix:x"])
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"unix:///path/to/csi\.sock"):
        socket_path(endpoint)


def test_only_a_socket_that_nobody_listens_on_is_removed(path: str) -> None:
    remove_stale_socket(path)

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    remove_stale_socket(path)
    assert not os.path.lexists(path)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        # With a full backlog too.
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
            for _ in range(2):
                with pytest.raises(BusyError, match="another process listens"):
                    remove_stale_socket(path)
    os.unlink(path)

    Path(path).write_text("precious", encoding="ascii")
    with pytest.raises(BusyError, match="no socket"):
        remove_stale_socket(path)
    assert Path(path).read_text(encoding="ascii") == "precious"


# ---- secrets


def secret_fields(
    message: Descriptor, above: tuple[Descriptor, ...] = ()
) -> Iterator[tuple[Descriptor, FieldDescriptor]]:
    for field in message.fields:
        if field.GetOptions().Extensions[logs._CSI_SECRET]:
            yield message, field
        elif field.message_type is not None and field.message_type not in above:
            yield from secret_fields(field.message_type, (*above, message))


def test_every_secret_field_of_the_protocol_is_stripped() -> None:
    found = {
        (m, f)
        for s in csi.DESCRIPTOR.services_by_name.values()
        for rpc in s.methods
        for m, f in secret_fields(rpc.input_type)
    }
    assert len(found) > 10
    for descriptor, field in found:
        # Several: to change a map while going through it left some out.
        keys = [f"password{number}" for number in range(8)]
        message = getattr(csi, descriptor.name)(**{field.name: dict.fromkeys(keys, "hunter2")})
        text = logs.describe(message)
        assert "hunter2" not in text
        assert text.count("***stripped***") == len(keys)
        assert "hunter2" in str(message)  # only the text is changed


def test_tokens_of_service_accounts_are_stripped() -> None:
    context = {"csi.storage.k8s.io/serviceAccount.tokens": '{"": {"token": "hunter2"}}', "uri": "hdfs://nn/a"}
    text = logs.describe(csi.NodePublishVolumeRequest(volume_id="v", volume_context=context))
    assert "hunter2" not in text
    assert "hdfs://nn/a" in text


# ---- locks


def test_locks_refuse_and_forget() -> None:
    locks = VolumeLocks(2)
    with locks.hold("a"), locks.hold("b"):
        with pytest.raises(errors.VolumeBusyError, match="'a'"), locks.hold("a"):
            pass
        with pytest.raises(UnavailableError, match="2 operations are running already"), locks.hold("c"):
            pass
        # The refused one has not released it.
        with pytest.raises(errors.VolumeBusyError), locks.hold("a"):
            pass
    with pytest.raises(ZeroDivisionError), locks.hold("a"):
        raise ZeroDivisionError
    with locks.hold("a"):
        pass
    assert locks._held == set()
