"""`hdfs-csi node` on its socket: real mounts of a real HDFS, in every state that a kubelet may find them."""

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.conftest import MOUNT, Pod, daemon_pid, mounts_below, put
from tests.csi.driver import DriverProcess, bounded, hdfs_csi, wait_until
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity

Mode = csi.VolumeCapability.AccessMode

NOBODY = 65534

# Longer than a block of the cache's smallest size, so that more than one request is needed.
CONTENT = bytes(range(256)) * 1024


@pytest.fixture
def volume(hdfs: LocalHdfs, area: str) -> csi.Volume:
    """A static volume: an existing path with one file in it, in small blocks."""
    put(hdfs, f"{area}/data.bin", CONTENT)
    return csi.Volume(volume_id="my-data", volume_context={"uri": f"{hdfs.uri}{area}", "blockSizeBytes": "64Ki"})


def read(path: Path, uid: int | None = None) -> bytes:
    done = bounded("cat", path.name, directory=path.parent, uid=uid)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# ---- the life of a volume


def test_whole_life_of_a_dynamic_volume(
    controller: DriverProcess, node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, tmp_path: Path
) -> None:
    created = csi.CreateVolumeRequest(
        name="pvc-1", volume_capabilities=[MOUNT], parameters={"uri": f"{hdfs.uri}{area}/volumes", "mode": "0755"}
    )
    volume = controller.client.call(created).volume
    put(hdfs, f"{area}/volumes/pvc-1/data.bin", CONTENT)

    for _ in range(2):
        node.client.call(pod.stage(volume))
    for _ in range(2):
        node.client.call(pod.publish(volume))
    assert read(pod.target / "data.bin") == CONTENT
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    assert bounded("ls", directory=pod.target, uid=NOBODY).stdout == b"data.bin\n"
    refused = bounded("touch", str(pod.target / "new"))
    assert b"Read-only file system" in refused.stderr

    for _ in range(2):
        node.client.call(pod.unpublish(volume))
    assert not pod.target.exists()
    for _ in range(2):
        node.client.call(pod.unstage(volume))
    assert list(pod.staging.iterdir()) == []
    assert mounts_below(tmp_path) == []
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert (
        hdfs.webhdfs("GET", f"{area}/volumes", "LISTSTATUS")["FileStatuses"]["FileStatus"][0]["pathSuffix"]
        == ".hdfs-csi"
    )


def test_whole_life_of_a_static_volume(
    controller: DriverProcess, node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume, readonly=True))
    assert read(pod.target / "data.bin", uid=NOBODY) == CONTENT
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))

    # An administrator's mistake: the data of a volume that nobody made stays.
    controller.client.call(csi.DeleteVolumeRequest(volume_id=volume.volume_id))
    assert hdfs.webhdfs("GET", f"{area}/data.bin", "GETFILESTATUS")["FileStatus"]["length"] == len(CONTENT)


def test_attributes_reach_the_mount(
    node: DriverProcess, hdfs: LocalHdfs, area: str, pod: Pod, volume: csi.Volume
) -> None:
    hdfs.webhdfs("PUT", f"{area}/data.bin", "SETPERMISSION", permission="644")
    volume.volume_context.update({"uid": "1234", "gid": "2345", "umask": "044"})
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    assert bounded("stat", "--format=%u %g %a", str(pod.target / "data.bin")).stdout == b"1234 2345 600\n"


def test_several_pods_share_one_mount(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    other = Pod(pod.staging, pod.target.with_name("other"))
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    node.client.call(other.publish(volume, readonly=True))
    assert len({mount.device for mount in mounts_below(tmp_path)}) == 1

    node.client.call(pod.unpublish(volume))
    assert read(other.target / "data.bin") == CONTENT
    node.client.call(other.unpublish(volume))
    node.client.call(pod.unstage(volume))


def test_a_file_that_is_open_does_not_keep_the_volume(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    pid = daemon_pid(tmp_path, pod)
    left_open = os.open(pod.target / "data.bin", os.O_RDONLY)
    try:
        node.client.call(pod.unpublish(volume), timeout_s=30)
        node.client.call(pod.unstage(volume), timeout_s=30)
        assert mounts_below(tmp_path) == []
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the daemon has ended")
        with pytest.raises(OSError, match="not connected"):
            os.read(left_open, 1)
    finally:
        with contextlib.suppress(OSError):
            os.close(left_open)


def test_paths_through_a_symlink(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    # /var/lib/kubelet is a symlink on some nodes; mountinfo has the name behind it.
    (tmp_path / "link").symlink_to(tmp_path)
    linked = Pod(tmp_path / "link" / "plugins" / "globalmount", tmp_path / "link" / "pods" / "volume" / "mount")
    for _ in range(2):
        node.client.call(linked.stage(volume))
        node.client.call(linked.publish(volume))
    assert len(mounts_below(tmp_path)) == 2
    node.client.call(linked.unpublish(volume))
    node.client.call(linked.unstage(volume))
    assert mounts_below(tmp_path) == []


# ---- what goes wrong with mounts


def test_a_killed_daemon_is_repaired_by_staging_again(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    kill_daemon(tmp_path, pod)

    node.client.call(pod.stage(volume), timeout_s=60)
    node.client.call(pod.publish(volume), timeout_s=60)
    assert read(pod.target / "data.bin") == CONTENT
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert mounts_below(tmp_path) == []


def test_a_killed_daemon_is_repaired_by_publishing(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    kill_daemon(tmp_path, pod)
    node.client.call(pod.publish(volume), timeout_s=60)
    assert read(pod.target / "data.bin") == CONTENT


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_volumes_leave_with_a_dead_or_hung_daemon(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path, number: signal.Signals
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    pid = daemon_pid(tmp_path, pod)
    identity = ProcessIdentity.of(pid)
    identity.send(number)
    try:
        node.client.call(pod.unpublish(volume), timeout_s=30)
        node.client.call(pod.unstage(volume), timeout_s=30)
        assert mounts_below(tmp_path) == []
        assert list(pod.staging.iterdir()) == []
    finally:
        identity.send(signal.SIGCONT)
    assert identity.wait_gone(20)


def test_a_hung_daemon_is_replaced(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    node.client.call(pod.stage(volume))
    identity = ProcessIdentity.of(daemon_pid(tmp_path, pod))
    identity.send(signal.SIGSTOP)
    try:
        node.client.call(pod.stage(volume), timeout_s=60)
        node.client.call(pod.publish(volume), timeout_s=60)
        assert read(pod.target / "data.bin") == CONTENT
    finally:
        identity.send(signal.SIGCONT)
    assert identity.wait_gone(20)


@pytest.mark.parametrize("kill", [False, True])
def test_mounts_survive_a_restart_of_the_node_service(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path, kill: bool
) -> None:
    node.client.call(pod.stage(volume))
    pid = daemon_pid(tmp_path, pod)
    node.restart(kill=kill)
    node.client.call(pod.publish(volume))
    assert daemon_pid(tmp_path, pod) == pid
    with (pod.target / "data.bin").open("rb") as file:
        node.restart(kill=kill)
        assert file.read() == CONTENT
    node.client.call(pod.publish(volume))
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the daemon has ended")


def test_a_mount_that_somebody_removed_is_made_again(
    node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    (mount,) = mounts_below(tmp_path)
    assert bounded("umount", mount.point).returncode == 0
    node.client.call(pod.publish(volume))
    assert read(pod.target / "data.bin") == CONTENT


def test_something_foreign_is_left_alone(node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path) -> None:
    node.client.call(pod.stage(volume))
    pod.target.mkdir()
    assert bounded("mount", "-t", "tmpfs", "tmpfs", str(pod.target)).returncode == 0
    try:
        assert node.client.refused(pod.publish(volume))[0] is StatusCode.ALREADY_EXISTS
        code, message = node.client.refused(pod.unpublish(volume))
        assert (code, "tmpfs" in message) == (StatusCode.INTERNAL, True)
        assert len(mounts_below(tmp_path)) == 2
    finally:
        bounded("umount", str(pod.target))


def test_files_in_an_unmounted_target_are_not_removed(node: DriverProcess, pod: Pod, volume: csi.Volume) -> None:
    pod.target.mkdir()
    (pod.target / "precious").write_bytes(b"x")
    assert node.client.refused(pod.unpublish(volume))[0] is StatusCode.FAILED_PRECONDITION
    assert (pod.target / "precious").exists()


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


def changed(request: Any, field: str = "", **values: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    if field:
        copy.ClearField(field)
    for name in values:
        copy.ClearField(name)
    copy.MergeFrom(type(request)(**values))
    return copy


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
        first = node.client.start(pod.stage(hung))
        code = StatusCode.OK
        while code is not StatusCode.ABORTED:
            assert not first.done(), node.log()
            code, message = node.client.refused(pod.stage(hung))
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


# ---- the rest


def test_the_node_says_who_it_is(node: DriverProcess) -> None:
    info = node.client.call(csi.NodeGetInfoRequest())
    assert (info.node_id, info.max_volumes_per_node, info.HasField("accessible_topology")) == ("node-1", 0, False)
    capabilities = node.client.call(csi.NodeGetCapabilitiesRequest()).capabilities
    assert [c.rpc.type for c in capabilities] == [csi.NodeServiceCapability.RPC.STAGE_UNSTAGE_VOLUME]
    assert node.client.call(csi.ProbeRequest()).ready.value
    assert node.client.call(csi.GetPluginInfoRequest()).name == "hdfs.csi.dev"
    for request in (csi.NodeGetVolumeStatsRequest(), csi.NodeExpandVolumeRequest(), csi.CreateVolumeRequest()):
        assert node.client.refused(request)[0] is StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], b"Missing option '--node-id'"),
        (["--node-id", "x" * 257], b"256 bytes"),
        (["--node-id", "n", "--driver-name", "-bad-"], b"driver name"),
        (["--node-id", "n", "--endpoint", "tcp://0.0.0.0:1"], b"unix:///path/to/csi.sock"),
        (["--node-id", "n", "--endpoint", "unix:///no/such/dir/csi.sock"], b"is no directory"),
        (["--node-id", "n", "--endpoint", "unix:///" + "x" * 120], b"107 bytes"),
        (["--node-id", "n", "--hadoop-conf-dir", "/no/such/dir"], b"does not exist"),
    ],
)
def test_options_that_can_not_work(tmp_path: Path, options: list[str], message: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        defaults = ["--endpoint", f"unix://{directory}/csi.sock", "--runtime-dir", str(tmp_path)]
        done = bounded(hdfs_csi(), "node", *defaults, *options, timeout_s=60)
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert b"Traceback" not in done.stderr


def kill_daemon(directory: Path, pod: Pod) -> None:
    identity = ProcessIdentity.of(daemon_pid(directory, pod))
    identity.send(signal.SIGKILL)
    assert identity.wait_gone(10)
