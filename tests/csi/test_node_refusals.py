"""`hdfs-csi node` on its socket, with real mounts of a real HDFS: bad requests and their exact codes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess
from tests.csi.pods import Pod, mounts_below, read
from tests.csi.volumes import CONTENT, MOUNT, changed
from tests.support.local_hdfs import LocalHdfs

# ---- what is refused


def test_another_volume_at_the_same_staging_path(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    node.client.call(pod.stage(volume))
    other = csi.Volume(volume_id="other", volume_context=volume.volume_context)
    changed = csi.Volume(volume_id=volume.volume_id, volume_context={**volume.volume_context, "uid": "7"})
    for refused in (other, changed):
        code, message = node.client.refused(pod.stage(refused))
        assert (code, volume.volume_id in message) == (StatusCode.ALREADY_EXISTS, True)
    assert node.client.refused(pod.publish(other))[0] is StatusCode.FAILED_PRECONDITION
    # It is not staged there, so there is nothing to do, and the one that is stays.
    node.client.call(pod.unstage(other))
    node.client.call(pod.publish(volume))
    assert read(pod.target / "data.bin") == CONTENT


def test_another_volume_at_the_same_target(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    hdfs.webhdfs("PUT", f"{area}/below", "MKDIRS")
    other = csi.Volume(volume_id="other", volume_context={"uri": f"{hdfs.uri}{area}/below"})
    (tmp_path / "second").mkdir()
    second = Pod(tmp_path / "second", pod.target)
    node.client.call(pod.stage(volume))
    node.client.call(second.stage(other))
    node.client.call(pod.publish(volume))
    assert node.client.refused(second.publish(other))[0] is StatusCode.ALREADY_EXISTS
    assert read(pod.target / "data.bin") == CONTENT


def test_publishing_what_is_not_staged(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    code, message = node.client.refused(pod.publish(volume))
    assert (code, "not staged" in message) == (StatusCode.FAILED_PRECONDITION, True)
    request = pod.publish(volume)
    request.staging_target_path = ""
    assert node.client.refused(request)[0] is StatusCode.FAILED_PRECONDITION


def test_undoing_what_was_never_done(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    pod.staging.rmdir()
    node.client.call(pod.unstage(volume))


def test_a_volume_that_can_not_be_mounted_leaves_nothing(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    uri = volume.volume_context["uri"]
    cases = {
        f"{uri}/missing": StatusCode.NOT_FOUND,
        f"{uri}/data.bin": StatusCode.INVALID_ARGUMENT,
        "hdfs://127.0.0.1:1/": StatusCode.UNAVAILABLE,
    }
    for bad, expected in cases.items():
        attributes = {"uri": bad, "callDeadlineSeconds": "5"}
        broken = csi.Volume(volume_id="broken", volume_context=attributes)
        code, message = node.client.refused(pod.stage(broken), timeout_s=60)
        assert code is expected, message
        assert list(pod.staging.iterdir()) == []
    hdfs.webhdfs("PUT", f"{area}/private", "MKDIRS", permission="700")
    secret = csi.Volume(volume_id="secret", volume_context={"uri": f"{uri}/private", "user": "bob"})
    code, message = node.client.refused(pod.stage(secret))
    assert code is StatusCode.PERMISSION_DENIED, message
    assert mounts_below(tmp_path) == []


def bad_requests(pod: Pod, volume: csi.Volume) -> Iterator[tuple[str, Any]]:
    stage, publish = pod.stage(volume), pod.publish(volume)
    for field in ("volume_id", "staging_target_path", "volume_capability"):
        yield field, changed(stage, field)
    for field in ("volume_id", "target_path", "volume_capability"):
        yield field, changed(publish, field)
    for field in ("volume_id", "target_path"):
        yield field, changed(pod.unpublish(volume), field)
    for field in ("volume_id", "staging_target_path"):
        yield field, changed(pod.unstage(volume), field)
    yield "volume_id", changed(stage, volume_id="x" * 129)
    yield "staging_target_path", changed(stage, staging_target_path="relative/path")
    yield "target_path", changed(publish, target_path="relative/path")
    yield "target_path", changed(publish, target_path="/a/../b")
    yield "target_path", changed(pod.unpublish(volume), target_path="/")
    yield "staging_target_path", changed(stage, staging_target_path="/" + "x" * 4095)
    block = csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=MOUNT.access_mode)
    yield "block", changed(stage, volume_capability=block)
    yield "block", changed(publish, volume_capability=block)
    yield "access mode", changed(stage, volume_capability=csi.VolumeCapability(mount=MOUNT.mount))
    yield (
        "uri",
        csi.NodeStageVolumeRequest(volume_id="x", staging_target_path=str(pod.staging), volume_capability=MOUNT),
    )
    for attributes, word in (
        ({"uri": "file:///etc"}, "hdfs://"),
        ({"uri": "hdfs://n/a", "readaheadbytes": "1"}, "did you mean 'readAheadBytes'"),
        ({"uri": "hdfs://n/a", "onDelete": "delete"}, "unknown key 'onDelete'"),
        ({"uri": "hdfs://n/a", "umask": "9"}, "umask: given '9'"),
        ({"uri": "hdfs://n/" + "a" * 4096}, "4096"),
    ):
        yield word, pod.stage(csi.Volume(volume_id="x", volume_context=attributes))


def test_bad_requests_are_refused(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    for word, request in bad_requests(pod, volume):
        code, message = node.client.refused(request)
        assert (code, word in message) == (StatusCode.INVALID_ARGUMENT, True), f"{request}: {message}"
    assert list(pod.staging.iterdir()) == []


def test_parents_are_the_business_of_the_co(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    missing = Pod(pod.staging.with_name("missing"), pod.target)
    assert node.client.refused(missing.stage(volume))[0] is StatusCode.FAILED_PRECONDITION
    node.client.call(pod.stage(volume))
    nowhere = Pod(pod.staging, pod.target / "too" / "deep")
    assert node.client.refused(nowhere.publish(volume))[0] is StatusCode.FAILED_PRECONDITION


def test_one_operation_a_volume_at_a_time(hdfs: LocalHdfs, pod: Pod, node: DriverProcess, volume: csi.Volume) -> None:
    # A listener that never answers, as a hung NameNode: the mount waits for it and holds the volume.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        hung = csi.Volume(
            volume_id="hung", volume_context={"uri": f"hdfs://127.0.0.1:{port}/", "callDeadlineSeconds": "8"}
        )
        first, message = node.client.hold(pod.stage(hung))
        assert "hung" in message
        # Other volumes don't wait for it.
        other = Pod(pod.staging.with_name("other"), pod.target)
        other.staging.mkdir()
        node.client.call(other.stage(volume), timeout_s=30)
        node.client.call(other.unstage(volume), timeout_s=30)
        error = first.exception()
    assert error is not None
    assert first.code() is StatusCode.UNAVAILABLE
    assert list(pod.staging.iterdir()) == []
