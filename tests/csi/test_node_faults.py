"""`hdfs-csi node` on its socket, with real mounts of a real HDFS: in every state that a kubelet may find them."""

import os
import signal
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, bounded
from tests.csi.pods import Pod, daemon_pid, kill_daemon, mounts_below, read
from tests.csi.volumes import CONTENT
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until


@pytest.fixture(params=["node", "mounter"])
def supervised_by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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
