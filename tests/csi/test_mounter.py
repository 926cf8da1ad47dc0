"""`hdfs-csi mounter`: a process without privileges keeps the daemons of the mounts that `hdfs-csi node` makes."""

import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi

from tests.csi.driver import DriverProcess, MounterProcess
from tests.csi.pods import Pod, daemon_pid, kill_daemon, make_pod, mounts_below, read, remove_mount, write
from tests.csi.volumes import CONTENT, names
from tests.support.local_hdfs import LocalHdfs
from tests.support.processes import ProcessIdentity
from tests.support.waiting import wait_until

NOBODY = 65534


@pytest.fixture
def supervised_by() -> str:
    return "mounter"


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_daemons_have_no_privileges(
    mounter: MounterProcess, node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    status = status_of(daemon_pid(tmp_path, pod))
    assert {status[kind] for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert "serving" in mounter.daemon.log_tail(60)
    assert read(pod.target / "data.bin") == CONTENT


@pytest.fixture
def of_nobody(hdfs: LocalHdfs) -> Iterator[tuple[MounterProcess, Path]]:
    """A mounter of a user that owns nothing but a directory."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as name:
        directory = Path(name)
        os.chown(directory, NOBODY, NOBODY)
        process = MounterProcess(directory, directory / "run", hdfs.environment, uid=NOBODY)
        process.start()
        try:
            yield process, directory
        finally:
            for mount in mounts_below(directory):
                remove_mount(mount)
            process.daemon.stop(grace_s=40)
            print(process.daemon.log_tail(60))


def test_a_mounter_that_is_not_root(
    of_nobody: tuple[MounterProcess, Path], hdfs: LocalHdfs, area: str, volume: csi.Volume
) -> None:
    mounter, directory = of_nobody
    pod = make_pod(directory)
    options = [
        *("--node-id", "node-1", "--mounter-endpoint", mounter.endpoint, "--runtime-dir", str(directory / "run")),
        *("--cache-dir", str(directory / "cache"), "--staging-dir", str(directory / "staging")),
    ]
    with (
        tempfile.TemporaryDirectory(prefix="hdfs-csi-") as node_directory,
        DriverProcess("node", Path(node_directory), hdfs.environment, *options) as node,
    ):
        node.client.call(pod.stage(volume))
        node.client.call(pod.publish(volume))
        assert status_of(daemon_pid(directory, pod))["Uid"].split() == [str(NOBODY)] * 4
        assert read(pod.target / "data.bin") == CONTENT
        write(pod.target / "checkpoint", CONTENT, uid=1000)
        assert read(pod.target / "checkpoint") == CONTENT
        node.client.call(pod.unpublish(volume))
        node.client.call(pod.unstage(volume))
    assert names(hdfs, area) == {"data.bin", "checkpoint"}
    assert mounts_below(directory) == []
    assert os.listdir(directory / "run") == []


def test_without_a_mounter(
    mounter: MounterProcess, node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    mounter.daemon.stop()
    code, message = node.client.refused(csi.ProbeRequest())
    assert (code, "is `hdfs-csi mounter` running?" in message) == (StatusCode.FAILED_PRECONDITION, True)
    code, message = node.client.refused(pod.stage(volume))
    assert (code, "is `hdfs-csi mounter` running?" in message) == (StatusCode.UNAVAILABLE, True)
    assert mounts_below(tmp_path) == []
    assert list(pod.staging.iterdir()) == []
    mounter.start()
    node.client.call(csi.ProbeRequest())
    node.client.call(pod.stage(volume))


def test_daemons_outlive_a_mounter_that_is_killed(
    mounter: MounterProcess, node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    """As long as its container is not what is killed."""
    other = make_pod(tmp_path / "other")
    node.client.call(pod.stage(volume))
    node.client.call(pod.publish(volume))
    identity = ProcessIdentity.of(daemon_pid(tmp_path, pod))
    mounter.daemon.kill()
    assert read(pod.target / "data.bin") == CONTENT
    write(pod.target / "new", CONTENT)
    mounter.start()
    second = csi.Volume(volume_id="other", volume_context=volume.volume_context)
    node.client.call(other.stage(second))
    node.client.call(pod.unpublish(volume))
    node.client.call(pod.unstage(volume))
    assert not identity.alive()
    assert len(mounts_below(tmp_path)) == 1


def test_a_daemon_that_dies_is_noticed(
    mounter: MounterProcess, node: DriverProcess, pod: Pod, volume: csi.Volume, tmp_path: Path
) -> None:
    node.client.call(pod.stage(volume))
    pid = daemon_pid(tmp_path, pod)
    kill_daemon(tmp_path, pod)
    wait_until(lambda: f"(pid {pid}) ended with status -{signal.SIGKILL}" in mounter.daemon.log_tail(60), "it is told")
    assert not os.path.exists(f"/proc/{pid}")  # reaped


def test_many_volumes_at_once(mounter: MounterProcess, node: DriverProcess, volume: csi.Volume, tmp_path: Path) -> None:
    pods = [make_pod(tmp_path / str(number)) for number in range(12)]

    def use(number: int) -> None:
        own = csi.Volume(volume_id=f"volume-{number}", volume_context=volume.volume_context)
        node.client.call(pods[number].stage(own), timeout_s=60)
        node.client.call(pods[number].publish(own), timeout_s=60)
        assert read(pods[number].target / "data.bin") == CONTENT
        node.client.call(pods[number].unpublish(own), timeout_s=60)
        node.client.call(pods[number].unstage(own), timeout_s=60)

    with ThreadPoolExecutor(len(pods)) as pool:
        list(pool.map(use, range(len(pods))))
    assert mounts_below(tmp_path) == []
    assert "ended with status" not in mounter.daemon.log.read_text(encoding="utf-8")


def test_one_mounter_a_socket(hdfs: LocalHdfs, mounter: MounterProcess, tmp_path: Path) -> None:
    second = MounterProcess(tmp_path, tmp_path / "run", hdfs.environment, endpoint=mounter.endpoint)
    second.daemon.start()
    try:
        wait_until(lambda: not second.daemon.running, "it ends")
        assert "another process listens" in second.daemon.log_tail(60)
    finally:
        second.daemon.stop()
