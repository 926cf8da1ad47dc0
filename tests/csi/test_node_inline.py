"""Inline ephemeral volumes on `hdfs-csi node`: an existing path for one pod, gone with it whatever state it is in."""

import os
import signal
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded
from tests.csi.pods import Pod, mounts_below, read, serving_pid, write
from tests.csi.volumes import CONTENT, Mode, capability, changed, names, status
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity

NOBODY = 65534
TOGETHER = capability(Mode.SINGLE_NODE_MULTI_WRITER)  # what a kubelet says of inline volumes
PREFIX = "csi.storage.k8s.io/"


@pytest.fixture
def volume(volume: csi.Volume, area: str) -> csi.Volume:
    """As the kubelet names it: `csi-` and what no other pod of the node has."""
    volume.volume_id = area.strip("/")
    return volume


def inline_folders(directory: Path) -> list[str]:
    folder = directory / "run" / "inline"
    return os.listdir(folder) if folder.exists() else []


def served_by(directory: Path, pod: Pod) -> ProcessIdentity:
    """The daemon of an inline volume."""
    return ProcessIdentity.of(serving_pid(directory, pod.target.parent))


def test_whole_life(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    for _ in range(2):
        node.client.call(pod.publish_inline(volume, TOGETHER))
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    refused = bounded("touch", "new", directory=pod.target)
    assert b"Read-only file system" in refused.stderr
    assert len({mount.device for mount in mounts_below(tmp_path)}) == 1
    assert "pod=research/trainer-0" in node.daemon.log.read_text(encoding="utf-8")
    (space,) = node.client.call(pod.stats(volume)).usage
    assert space.total > 0
    assert not node.client.call(
        csi.NodeGetVolumeHealthRequest(volume_id=volume.volume_id)
    ).volume_health.health_statuses

    for _ in range(2):
        node.client.call(pod.unpublish(volume))
    assert (mounts_below(tmp_path), inline_folders(tmp_path), pod.target.exists()) == ([], [], False)
    assert status(hdfs, f"{area}/data.bin") is not None  # the pod's volume goes, not the data


def test_one_that_is_writable(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    volume.volume_context["readOnly"] = "false"
    node.client.call(pod.publish_inline(volume, TOGETHER))
    write(pod.target / "new", CONTENT, uid=NOBODY)
    node.client.call(pod.unpublish(volume), timeout_s=90)
    assert names(hdfs, area) == {"data.bin", "new"}
    # The pod's own flag wins.
    node.client.call(pod.publish_inline(volume, TOGETHER, readonly=True))
    assert b"Read-only file system" in bounded("touch", "newer", directory=pod.target).stderr
    node.client.call(pod.unpublish(volume))
    assert (mounts_below(tmp_path), inline_folders(tmp_path)) == ([], [])


def test_a_group(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    group = capability(Mode.SINGLE_NODE_MULTI_WRITER, volume_mount_group="2000")
    node.client.call(pod.publish_inline(volume, group))
    assert bounded("stat", "--format=%g", "data.bin", directory=pod.target).stdout == b"2000\n"


def test_each_pod_has_a_mount_of_its_own(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    other = Pod(pod.staging, pod.target.with_name("other"))
    second = csi.Volume(volume_id="csi-second", volume_context=volume.volume_context)
    node.client.call(pod.publish_inline(volume, TOGETHER))
    node.client.call(other.publish_inline(second, TOGETHER))
    assert len({mount.device for mount in mounts_below(tmp_path)}) == 2
    node.client.call(pod.unpublish(volume))
    assert read(other.target / "data.bin") == CONTENT
    node.client.call(other.unpublish(second))
    assert (mounts_below(tmp_path), inline_folders(tmp_path)) == ([], [])


@pytest.mark.parametrize("kill", [False, True])
def test_it_survives_a_restart_of_the_node_service(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path, kill: bool
) -> None:
    node.client.call(pod.publish_inline(volume, TOGETHER))
    node.restart(kill=kill)
    assert read(pod.target / "data.bin") == CONTENT
    node.client.call(pod.publish_inline(volume, TOGETHER))
    assert len({mount.device for mount in mounts_below(tmp_path)}) == 1
    node.restart(kill=kill)
    node.client.call(pod.unpublish(volume))
    assert (mounts_below(tmp_path), inline_folders(tmp_path)) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_it_leaves_with_a_dead_or_hung_daemon(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path, number: signal.Signals
) -> None:
    node.client.call(pod.publish_inline(volume, TOGETHER))
    daemon = served_by(tmp_path, pod)
    daemon.send(number)
    try:
        node.client.call(pod.unpublish(volume), timeout_s=60)
        assert (mounts_below(tmp_path), inline_folders(tmp_path), pod.target.exists()) == ([], [], False)
    finally:
        daemon.send(signal.SIGCONT)
    assert daemon.wait_gone(20)


def test_a_dead_one_is_repaired_by_publishing(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.publish_inline(volume, TOGETHER))
    daemon = served_by(tmp_path, pod)
    daemon.send(signal.SIGKILL)
    assert daemon.wait_gone(10)
    node.client.call(pod.publish_inline(volume, TOGETHER), timeout_s=60)
    assert read(pod.target / "data.bin") == CONTENT


@pytest.mark.parametrize("which", ["staged", "target", "both", "record"])
def test_it_leaves_whatever_somebody_removed(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path, which: str
) -> None:
    node.client.call(pod.publish_inline(volume, TOGETHER))
    daemon = served_by(tmp_path, pod)
    (folder,) = (tmp_path / "run" / "inline").iterdir()
    for name, path in (("target", pod.target), ("staged", folder / "mount")):
        if which in {name, "both"}:
            assert bounded("umount", str(path)).returncode == 0
    if which == "record":
        (folder / "volume.json").write_bytes(b"{")
    node.client.call(pod.unpublish(volume), timeout_s=60)
    assert (mounts_below(tmp_path), pod.target.exists()) == ([], False)
    assert inline_folders(tmp_path) == []
    assert daemon.wait_gone(20)


def test_one_that_can_not_be_mounted_leaves_nothing(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    hdfs.webhdfs("PUT", f"{area}/private", "MKDIRS", permission="700")
    uri = volume.volume_context["uri"]
    for attributes, expected in (
        ({"uri": f"{uri}/missing"}, StatusCode.NOT_FOUND),
        ({"uri": f"{uri}/data.bin"}, StatusCode.INVALID_ARGUMENT),
        ({"uri": f"{uri}/private", "user": "bob"}, StatusCode.PERMISSION_DENIED),
        ({"uri": "hdfs://127.0.0.1:1/", "callDeadlineSeconds": "5"}, StatusCode.UNAVAILABLE),
    ):
        broken = csi.Volume(volume_id="csi-broken", volume_context=attributes)
        code, message = node.client.refused(pod.publish_inline(broken, TOGETHER), timeout_s=60)
        assert code is expected, message
        assert (mounts_below(tmp_path), inline_folders(tmp_path), pod.target.exists()) == ([], [], False)
    nowhere = Pod(pod.staging, pod.target / "too" / "deep")
    code, _ = node.client.refused(nowhere.publish_inline(volume, TOGETHER))
    assert (code, mounts_below(tmp_path), inline_folders(tmp_path)) == (StatusCode.FAILED_PRECONDITION, [], [])


def test_what_is_refused(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    uri = volume.volume_context["uri"]
    for attributes, word in (
        ({}, "uri: missing"),
        ({"uri": "file:///etc"}, "hdfs://"),
        ({"uri": uri, "readonly": "false"}, "did you mean 'readOnly'"),
        ({"uri": uri, "onDelete": "delete"}, "unknown key 'onDelete'"),
        ({"uri": uri, "readOnly": "no"}, "readOnly: given 'no'"),
        ({"uri": uri, "readOnly": "false", "backend": "pyarrow"}, "pyarrow"),
    ):
        bad = csi.Volume(volume_id="csi-bad", volume_context=attributes)
        code, message = node.client.refused(pod.publish_inline(bad, TOGETHER))
        assert (code, word in message) == (StatusCode.INVALID_ARGUMENT, True), message
    request = pod.publish_inline(volume, TOGETHER)
    block = csi.VolumeCapability(block=csi.VolumeCapability.BlockVolume(), access_mode=TOGETHER.access_mode)
    for field in ("volume_id", "target_path", "volume_capability"):
        assert node.client.refused(changed(request, field))[0] is StatusCode.INVALID_ARGUMENT
    assert node.client.refused(changed(request, volume_capability=block))[0] is StatusCode.INVALID_ARGUMENT
    # Whose volumes are staged says so by `ephemeral` being absent or "false".
    for value in ("false", "True", ""):
        context = {**request.volume_context, f"{PREFIX}ephemeral": value}
        code, message = node.client.refused(changed(request, volume_context=context))
        assert (code, "staging_target_path" in message) == (StatusCode.FAILED_PRECONDITION, True)
    # Only inline volumes have this one.
    volume.volume_context["readOnly"] = "false"
    assert node.client.refused(pod.stage(volume))[0] is StatusCode.INVALID_ARGUMENT
    assert (mounts_below(tmp_path), inline_folders(tmp_path)) == ([], [])


def test_another_volume_at_the_same_target(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    node.client.call(pod.publish_inline(volume, TOGETHER))
    other = csi.Volume(volume_id="csi-other", volume_context=volume.volume_context)
    different = csi.Volume(volume_id=volume.volume_id, volume_context={**volume.volume_context, "uid": "7"})
    writable = csi.Volume(volume_id=volume.volume_id, volume_context={**volume.volume_context, "readOnly": "false"})
    for refused in (other, different, writable):
        assert node.client.refused(pod.publish_inline(refused, TOGETHER))[0] is StatusCode.ALREADY_EXISTS
    assert read(pod.target / "data.bin") == CONTENT
