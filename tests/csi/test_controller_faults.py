"""Each call of the controller while the NameNode is in safe mode or restarts: nothing half-done, and then done."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.volumes import GIB, Mode, capability, capacity, create
from tests.support.local_hdfs import LocalHdfs

READER = capability(Mode.MULTI_NODE_READER_ONLY)
BASE = "/volumes"


@pytest.fixture(scope="module")
def hdfs() -> Iterator[LocalHdfs]:
    with LocalHdfs(datanodes=1, properties={"dfs.namenode.safemode.extension": "0"}) as running:
        yield running


@pytest.fixture(scope="module")
def controller(hdfs: LocalHdfs) -> Iterator[DriverProcess]:
    """Whose calls to HDFS may take a few seconds only."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        options = ["--hdfs-deadline-seconds", "4"]
        with DriverProcess("controller", Path(directory), hdfs.environment, *options) as running:
            yield running


@pytest.fixture
def source(hdfs: LocalHdfs, controller: DriverProcess) -> Iterator[csi.Snapshot]:
    """A volume `old`, a snapshot of it, and at the end nothing."""
    controller.client.call(create("old", f"{hdfs.uri}{BASE}", capacity_range=capacity(GIB)))
    request = csi.CreateSnapshotRequest(source_volume_id=f"{hdfs.uri}{BASE}#old", name="kept")
    yield controller.client.call(request).snapshot
    for name in ("view", "copy", "new"):
        controller.client.call(csi.DeleteVolumeRequest(volume_id=f"{hdfs.uri}{BASE}#{name}"))
    for name in ("kept", "second"):
        controller.client.call(csi.DeleteSnapshotRequest(snapshot_id=f"{hdfs.uri}{BASE}@{name}"))
    controller.client.call(csi.DeleteVolumeRequest(volume_id=f"{hdfs.uri}{BASE}#old"))
    assert tree(hdfs) == {f"{BASE}/.hdfs-csi": {"making", "snapshots", "volumes"}}


def of_snapshot(snapshot: csi.Snapshot) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=snapshot.snapshot_id))


CALLS: dict[str, Callable[[str, csi.Snapshot], Any]] = {
    "create": lambda base, _: create("new", base, capacity_range=capacity(GIB)),
    "copy": lambda base, s: create("copy", base, volume_content_source=of_snapshot(s)),
    "view": lambda base, s: create("view", base, volume_capabilities=[READER], volume_content_source=of_snapshot(s)),
    "expand": lambda base, _: csi.ControllerExpandVolumeRequest(
        volume_id=f"{base}#old", capacity_range=capacity(2 * GIB)
    ),
    "modify": lambda base, _: csi.ControllerModifyVolumeRequest(
        volume_id=f"{base}#old", mutable_parameters={"replication": "2"}
    ),
    "snapshot": lambda base, _: csi.CreateSnapshotRequest(source_volume_id=f"{base}#old", name="second"),
    "delete snapshot": lambda _, s: csi.DeleteSnapshotRequest(snapshot_id=s.snapshot_id),
}


def tree(hdfs: LocalHdfs) -> dict[str, set[str]]:
    """What stands below the base path, by directory; empty ones left out."""
    found, directories = {}, [BASE]
    while directories:
        directory = directories.pop()
        entries = hdfs.webhdfs("GET", directory, "LISTSTATUS")["FileStatuses"]["FileStatus"]
        if directory != BASE and entries:
            found[directory] = {entry["pathSuffix"] for entry in entries}
        directories += [f"{directory}/{e['pathSuffix']}" for e in entries if e["type"] == "DIRECTORY"]
    return found


def finish(controller: DriverProcess, request: Any) -> Any:
    """The answer that a CO gets at last."""
    while True:
        call = controller.client.start(request)
        if call.exception() is None:
            return call.result()
        assert call.code() in (StatusCode.ABORTED, StatusCode.UNAVAILABLE, StatusCode.FAILED_PRECONDITION), (
            call.details()
        )


@pytest.mark.parametrize("name", CALLS)
def test_safe_mode(hdfs: LocalHdfs, controller: DriverProcess, source: csi.Snapshot, name: str) -> None:
    request, before = CALLS[name](f"{hdfs.uri}{BASE}", source), tree(hdfs)
    hdfs.dfsadmin("-safemode", "enter")
    try:
        code, message = controller.client.refused(request)
        assert (code, "safe mode" in message.lower()) == (StatusCode.FAILED_PRECONDITION, True)
        assert tree(hdfs) == before
    finally:
        hdfs.dfsadmin("-safemode", "leave")
    finish(controller, request)
    assert tree(hdfs) != before or name in ("expand", "modify")


@pytest.mark.parametrize("name", CALLS)
def test_the_namenode_restarts(hdfs: LocalHdfs, controller: DriverProcess, source: csi.Snapshot, name: str) -> None:
    request = CALLS[name](f"{hdfs.uri}{BASE}", source)
    hdfs.kill_namenode()
    call = controller.client.start(request)
    try:
        error = call.exception()
        assert isinstance(error, grpc.RpcError)
        assert call.code() is StatusCode.UNAVAILABLE, call.details()
    finally:
        hdfs.start_namenode()
    finish(controller, request)
