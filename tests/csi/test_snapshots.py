"""Snapshots and what is made from them: views for readers, copies for writers; and what keeps what from going."""

import os
import random
from typing import Any

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.pods import Pod
from tests.csi.volumes import GIB, Mode, capability, capacity, create, names, put, read_at_once, status
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

MIB = 1 << 20
READERS = [capability(Mode.MULTI_NODE_READER_ONLY)]
CONTENT = random.Random(7).randbytes(3 * MIB + 5)


@pytest.fixture
def volume(controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str) -> csi.Volume:
    """A volume with a few files."""
    made: csi.Volume = controller.client.call(create("source", base, capacity_range=capacity(GIB))).volume
    hdfs.webhdfs("PUT", f"{area}/volumes/source/deep/empty", "MKDIRS", permission="750")
    for name, content in (("large", CONTENT), ("deep/small", b"small"), ("empty", b"")):
        put(hdfs, f"{area}/volumes/source/{name}", content)
    return made


def snapshot(volume: csi.Volume, name: str = "snap-1", **more: Any) -> csi.CreateSnapshotRequest:
    return csi.CreateSnapshotRequest(source_volume_id=volume.volume_id, name=name, **more)


def from_snapshot(found: csi.Snapshot) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=found.snapshot_id))


def from_volume(volume: csi.Volume) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume.volume_id))


def remove_snapshot(found: csi.Snapshot) -> csi.DeleteSnapshotRequest:
    return csi.DeleteSnapshotRequest(snapshot_id=found.snapshot_id)


def remove(volume: csi.Volume) -> csi.DeleteVolumeRequest:
    return csi.DeleteVolumeRequest(volume_id=volume.volume_id)


def made(controller: DriverProcess, request: csi.CreateVolumeRequest) -> csi.Volume:
    """The volume, when its content has been copied: as the external-provisioner asks, again and again."""
    while True:
        call = controller.client.start(request)
        if call.exception() is None:
            volume: csi.Volume = call.result().volume
            return volume
        assert call.code() is StatusCode.ABORTED, call.details()


# ---- snapshots


def test_a_snapshot_comes_and_goes(controller: DriverProcess, hdfs: LocalHdfs, area: str, volume: csi.Volume) -> None:
    found = controller.client.call(snapshot(volume)).snapshot
    assert (found.source_volume_id, found.ready_to_use, found.size_bytes) == (volume.volume_id, True, len(CONTENT) + 5)
    assert found.creation_time.seconds > 0
    assert controller.client.call(snapshot(volume)).snapshot == found
    assert controller.client.call(csi.GetSnapshotRequest(snapshot_id=found.snapshot_id)).snapshot == found
    assert names(hdfs, f"{area}/volumes/source/.snapshot/snap-1") == {"large", "deep", "empty"}

    code, message = controller.client.refused(remove(volume))
    assert (code, "snap-1" in message) == (StatusCode.FAILED_PRECONDITION, True)
    for _ in range(2):
        controller.client.call(remove_snapshot(found))
    assert names(hdfs, f"{area}/volumes/source/.snapshot") == set()
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/snapshots") == set()
    assert controller.client.refused(csi.GetSnapshotRequest(snapshot_id=found.snapshot_id))[0] is StatusCode.NOT_FOUND
    controller.client.call(remove(volume))
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}


def test_one_name_is_one_snapshot(controller: DriverProcess, base: str, volume: csi.Volume) -> None:
    controller.client.call(snapshot(volume))
    other = controller.client.call(create("other", base)).volume
    code, message = controller.client.refused(snapshot(other))
    assert (code, "#source" in message) == (StatusCode.ALREADY_EXISTS, True)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (csi.CreateSnapshotRequest(name="x"), StatusCode.INVALID_ARGUMENT),
        (csi.CreateSnapshotRequest(source_volume_id="hdfs://127.0.0.1:1/a#b"), StatusCode.INVALID_ARGUMENT),
        (
            csi.CreateSnapshotRequest(source_volume_id="hdfs://127.0.0.1:1/a#b", name="a\x01"),
            StatusCode.INVALID_ARGUMENT,
        ),
        (csi.CreateSnapshotRequest(source_volume_id="my-data", name="x"), StatusCode.NOT_FOUND),
        (
            csi.CreateSnapshotRequest(source_volume_id="hdfs://127.0.0.1:1/a#b", name="x", parameters={"a": "b"}),
            StatusCode.INVALID_ARGUMENT,
        ),
        (csi.DeleteSnapshotRequest(), StatusCode.INVALID_ARGUMENT),
        (csi.GetSnapshotRequest(), StatusCode.INVALID_ARGUMENT),
        (csi.GetSnapshotRequest(snapshot_id="my-snapshot"), StatusCode.NOT_FOUND),
        (csi.ListSnapshotsRequest(), StatusCode.UNIMPLEMENTED),
    ],
)
def test_what_is_refused(controller: DriverProcess, request_: Any, expected: StatusCode) -> None:
    assert controller.client.refused(request_)[0] is expected


def test_what_is_not_there(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, volume: csi.Volume
) -> None:
    gone = csi.Volume(volume_id=f"{base}#gone")
    assert controller.client.refused(snapshot(gone))[0] is StatusCode.NOT_FOUND
    # A volume that somebody removed in HDFS: no record of a snapshot stays.
    hdfs.webhdfs("DELETE", f"{area}/volumes/source", "DELETE", recursive="true")
    assert controller.client.refused(snapshot(volume))[0] is StatusCode.NOT_FOUND
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/snapshots") == set()
    controller.client.call(csi.DeleteSnapshotRequest(snapshot_id="never-was"))
    for source in (
        csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=f"{base}@gone")),
        csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id="nonsense")),
        from_volume(gone),
    ):
        assert controller.client.refused(create("new", base, volume_content_source=source))[0] is StatusCode.NOT_FOUND
    code, _ = controller.client.refused(create("new", base, volume_content_source=csi.VolumeContentSource()))
    assert code is StatusCode.INVALID_ARGUMENT
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == {"source.json"}


def test_lists(listing_controller: DriverProcess, base: str, volume: csi.Volume) -> None:
    client = listing_controller.client
    other = client.call(create("other", base)).volume
    of_source = [client.call(snapshot(volume, f"snap-{number}")).snapshot for number in range(3)]
    of_other = [client.call(snapshot(other, "other-1")).snapshot]

    def listed(**request: Any) -> list[csi.Snapshot]:
        found, token = [], ""
        while True:
            page = client.call(csi.ListSnapshotsRequest(max_entries=2, starting_token=token, **request))
            found += [entry.snapshot for entry in page.entries]
            token = page.next_token
            if not token:
                return found

    assert listed() == of_other + of_source
    assert listed(source_volume_id=volume.volume_id) == of_source
    assert listed(source_volume_id=other.volume_id) == of_other
    assert listed(snapshot_id=of_source[1].snapshot_id) == [of_source[1]]
    refused = {"max_entries": -1}, {"starting_token": "nonsense"}
    codes = [client.refused(csi.ListSnapshotsRequest(**request))[0] for request in refused]
    assert codes == [StatusCode.INVALID_ARGUMENT, StatusCode.ABORTED]
    nowhere: list[dict[str, str]] = [
        {"snapshot_id": f"{base}@gone"},
        {"snapshot_id": "x"},
        {"source_volume_id": "data"},
    ]
    for nothing in nowhere:
        assert listed(**nothing) == []


# ---- volumes for readers


def test_readers_of_a_snapshot_see_it_at_once(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, volume: csi.Volume
) -> None:
    found = controller.client.call(snapshot(volume)).snapshot
    put(hdfs, f"{area}/volumes/source/large", b"changed")
    request = create("view", base, volume_capabilities=READERS, volume_content_source=from_snapshot(found))
    view = controller.client.call(request).volume
    assert controller.client.call(request).volume == view
    assert view.content_source == from_snapshot(found)
    assert view.volume_context["uri"] == f"{base}/source/.snapshot/snap-1"
    assert read_at_once(hdfs, f"{area}/volumes/source/.snapshot/snap-1/large") == CONTENT
    assert status(hdfs, f"{area}/volumes/view") is None

    code, message = controller.client.refused(remove_snapshot(found))
    assert (code, "#view" in message) == (StatusCode.FAILED_PRECONDITION, True)
    for refused in (
        csi.ControllerExpandVolumeRequest(volume_id=view.volume_id, capacity_range=capacity(GIB)),
        csi.ControllerModifyVolumeRequest(volume_id=view.volume_id, mutable_parameters={"replication": "1"}),
        snapshot(view, "of-a-view"),
        create("of-a-view", base, volume_content_source=from_volume(view)),
    ):
        assert controller.client.refused(refused)[0] is StatusCode.INVALID_ARGUMENT
    # Others may not take it for their own: for writers it would be something else.
    assert controller.client.refused(create("view", base, volume_content_source=from_snapshot(found)))[0] is (
        StatusCode.ALREADY_EXISTS
    )
    for _ in range(2):
        controller.client.call(remove(view))
    controller.client.call(remove_snapshot(found))
    assert names(hdfs, f"{area}/volumes/source") == {"large", "deep", "empty"}


def test_readers_of_a_volume_see_it_as_it_was(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, volume: csi.Volume
) -> None:
    request = create("view", base, volume_capabilities=READERS, volume_content_source=from_volume(volume))
    view = controller.client.call(request).volume
    put(hdfs, f"{area}/volumes/source/large", b"changed")
    assert read_at_once(hdfs, f"{view.volume_context['uri'].removeprefix(hdfs.uri)}/large") == CONTENT
    code, _ = controller.client.refused(remove(volume))
    assert code is StatusCode.FAILED_PRECONDITION
    controller.client.call(remove(view))
    assert names(hdfs, f"{area}/volumes/source/.snapshot") == set()
    controller.client.call(remove(volume))


def test_a_pod_reads_a_snapshot(
    controller: DriverProcess, node: DriverProcess, base: str, volume: csi.Volume, pod: Pod
) -> None:
    found = controller.client.call(snapshot(volume)).snapshot
    request = create("view", base, volume_capabilities=READERS, volume_content_source=from_snapshot(found))
    view = controller.client.call(request).volume
    node.client.call(pod.stage(view, READERS[0]))
    node.client.call(pod.publish(view, READERS[0]))
    assert (pod.target / "large").read_bytes() == CONTENT
    assert os.listdir(pod.target / "deep" / "empty") == []
    node.client.call(pod.unpublish(view))
    node.client.call(pod.unstage(view))


# ---- volumes for writers


@pytest.mark.parametrize("of_snapshot", [True, False])
def test_writers_get_a_copy(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, volume: csi.Volume, of_snapshot: bool
) -> None:
    hdfs.webhdfs("PUT", f"{area}/volumes/source/large", "SETOWNER", owner="alice", group="data")
    hdfs.webhdfs("PUT", f"{area}/volumes/source/large", "SETPERMISSION", permission="640")
    value = '"labelled"'
    hdfs.webhdfs(
        "PUT",
        f"{area}/volumes/source/large",
        "SETXATTR",
        **{"xattr.name": "user.note", "xattr.value": value, "flag": "CREATE"},
    )
    source = from_volume(volume)
    if of_snapshot:
        source = from_snapshot(controller.client.call(snapshot(volume)).snapshot)
    request = create("copy", base, capacity_range=capacity(2 * GIB), volume_content_source=source)
    copy = made(controller, request)
    assert (copy.content_source, copy.capacity_bytes) == (source, 2 * GIB)
    assert controller.client.call(request).volume == copy
    copied, original = hdfs.fetch(f"{area}/volumes/copy"), hdfs.fetch(f"{area}/volumes/source")
    assert copied == original == {"large": CONTENT, "empty": b"", "deep/small": b"small"}
    for path in ("large", "deep/small", "deep/empty"):
        one, other = (status(hdfs, f"{area}/volumes/{name}/{path}") for name in ("copy", "source"))
        assert one is not None
        assert other is not None
        keys = ["owner", "group", "permission", "replication"]
        assert [one[key] for key in keys] == [other[key] for key in keys]
        if path != "deep/empty":
            assert one["modificationTime"] == other["modificationTime"]
    quoted = hdfs.webhdfs("GET", f"{area}/volumes/copy", "GETQUOTAUSAGE")["QuotaUsage"]
    assert quoted["spaceQuota"] == 2 * GIB
    # Nothing is left of the copying, and nothing depends on the source.
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/making") == set()
    if of_snapshot:
        controller.client.call(csi.DeleteSnapshotRequest(snapshot_id=source.snapshot.snapshot_id))
    controller.client.call(remove(volume))
    assert controller.client.call(request).volume == copy
    assert controller.client.refused(create("second", base, volume_content_source=source))[0] is StatusCode.NOT_FOUND
    controller.client.call(remove(copy))
    assert names(hdfs, f"{area}/volumes") == {".hdfs-csi"}


def test_a_source_that_does_not_fit(
    controller: DriverProcess, hdfs: LocalHdfs, area: str, base: str, volume: csi.Volume
) -> None:
    for sizes in (capacity(MIB), capacity(0, MIB)):
        request = create("copy", base, capacity_range=sizes, volume_content_source=from_volume(volume))
        assert controller.client.refused(request)[0] is StatusCode.OUT_OF_RANGE
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == {"source.json"}


def test_another_filesystem(controller: DriverProcess, base: str, volume: csi.Volume) -> None:
    request = create("copy", "hdfs://127.0.0.1:1/elsewhere", volume_content_source=from_volume(volume))
    code, message = controller.client.refused(request)
    assert (code, "is on" in message) == (StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("kill", [True, False])
def test_a_copy_that_was_cut_short_goes_on(
    hdfs: LocalHdfs, area: str, base: str, volume: csi.Volume, socket_directory: Any, kill: bool
) -> None:
    directory = socket_directory / "cut"
    directory.mkdir(exist_ok=True)
    for number in range(60):
        put(hdfs, f"{area}/volumes/source/deep/{number}", bytes([number]))
    making = f"{area}/volumes/.hdfs-csi/making"
    request = create("copy", base, volume_content_source=from_volume(volume))
    with DriverProcess("controller", directory, hdfs.environment) as controller:
        running = controller.client.start(request)
        wait_until(lambda: status(hdfs, f"{making}/copy/deep") is not None, "it copies")
        if kill:
            controller.restart(kill=True)
            assert running.exception() is not None
            copy = made(controller, request)
            assert hdfs.fetch(f"{area}/volumes/copy") == hdfs.fetch(f"{area}/volumes/source")
        else:
            running.exception()
            copy = csi.Volume(volume_id=f"{base}#copy")
        controller.client.call(remove(copy))
    assert names(hdfs, making) == set()
    assert names(hdfs, f"{area}/volumes/.hdfs-csi/volumes") == {"source.json"}
    assert not any(name.startswith("for-") for name in names(hdfs, f"{area}/volumes/source/.snapshot"))
