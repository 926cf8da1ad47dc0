"""Fixtures of the CSI tests: the driver's processes, and paths as a kubelet would make them."""

import json
import socket
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hdfs_native
import pytest
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.mounter.supervisor import stats_path

from tests.csi.driver import DriverProcess, bounded
from tests.support.local_hdfs import LocalHdfs

MOUNT = csi.VolumeCapability(
    mount=csi.VolumeCapability.MountVolume(),
    access_mode=csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
)


@pytest.fixture(scope="session")
def socket_directory() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes, and pytest's own paths are long."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        yield Path(directory)


@pytest.fixture
def area(hdfs: LocalHdfs) -> Iterator[str]:
    """Path of an empty HDFS directory of this test alone, writable by everybody; short, as volume ids need it."""
    path = f"/csi-{uuid.uuid4().hex[:8]}"
    hdfs.webhdfs("PUT", path, "MKDIRS", permission="777")
    yield path
    hdfs.webhdfs("DELETE", path, "DELETE", recursive="true")


def put(hdfs: LocalHdfs, path: str, data: bytes) -> None:
    """Write a file that everybody may read; parents must exist, a file that is there is replaced."""
    client = hdfs_native.Client(hdfs.uri)
    with client.create(path, hdfs_native.WriteOptions(permission=0o644, overwrite=True, create_parent=False)) as file:
        file.write(data)


def read_file(hdfs: LocalHdfs, path: str) -> bytes:
    """The whole content of a file."""
    with hdfs_native.Client(hdfs.uri).read(path) as file:
        return file.read()


@pytest.fixture(scope="session")
def controller(hdfs: LocalHdfs, socket_directory: Path) -> Iterator[DriverProcess]:
    """A running `hdfs-csi controller`, shared by all tests."""
    with DriverProcess("controller", socket_directory, hdfs.environment) as running:
        yield running


@pytest.fixture
def node(hdfs: LocalHdfs, tmp_path: Path) -> Iterator[DriverProcess]:
    """A running `hdfs-csi node` of this test alone; what it left mounted is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hdfs-csi-") as directory:
        options = [
            "--node-id",
            "node-1",
            "--runtime-dir",
            str(tmp_path / "run"),
            "--cache-dir",
            str(tmp_path / "cache"),
        ]
        process = DriverProcess("node", Path(directory), hdfs.environment, *options)
        process.start()
        try:
            yield process
        finally:
            _clean_up(process, tmp_path)


@dataclass(frozen=True)
class Pod:
    """Where a kubelet would stage a volume and publish it.

    Attributes:
        staging: exists, as CSI asks.
        target: does not exist; its parent does.
    """

    staging: Path
    target: Path

    def stage(self, volume: csi.Volume) -> csi.NodeStageVolumeRequest:
        return csi.NodeStageVolumeRequest(
            volume_id=volume.volume_id,
            staging_target_path=str(self.staging),
            volume_capability=MOUNT,
            volume_context=volume.volume_context,
        )

    def publish(self, volume: csi.Volume, *, readonly: bool = False) -> csi.NodePublishVolumeRequest:
        return csi.NodePublishVolumeRequest(
            volume_id=volume.volume_id,
            staging_target_path=str(self.staging),
            target_path=str(self.target),
            volume_capability=MOUNT,
            volume_context=volume.volume_context,
            readonly=readonly,
        )

    def unpublish(self, volume: csi.Volume) -> csi.NodeUnpublishVolumeRequest:
        return csi.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=str(self.target))

    def unstage(self, volume: csi.Volume) -> csi.NodeUnstageVolumeRequest:
        return csi.NodeUnstageVolumeRequest(volume_id=volume.volume_id, staging_target_path=str(self.staging))


@dataclass(frozen=True)
class MountLine:
    """A line of mountinfo.

    Attributes:
        point: where.
        device: `major:minor`; of a FUSE mount the minor number names its connection.
    """

    point: str
    device: str


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """Paths of one volume on a node."""
    staging = tmp_path / "plugins" / "globalmount"
    staging.mkdir(parents=True)
    target = tmp_path / "pods" / "volume"
    target.mkdir(parents=True)
    return Pod(staging, target / "mount")


def mounts_below(directory: Path) -> list["MountLine"]:
    """What is mounted below `directory`, the last mounted first; nothing of it is touched."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    mounts = [MountLine(fields[4], fields[2]) for line in reversed(lines) if (fields := line.split())]
    return [mount for mount in mounts if mount.point.startswith(f"{directory}/")]


def daemon_pid(directory: Path, pod: Pod) -> int:
    """The process that serves the volume staged for `pod`, from the statistics that it offers."""
    (device,) = {
        mount.device for mount in mounts_below(directory) if mount.point.startswith(str(pod.staging.resolve()))
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(stats_path(str(directory / "run"), device))
        with connection.makefile("rb") as answer:
            return int(json.load(answer)["pid"])


def remove_mount(mount: "MountLine") -> None:
    """Unmount, dead or hung as it may be: its connection first, so that nobody waits for it for ever."""
    abort = Path(f"/sys/fs/fuse/connections/{mount.device.partition(':')[2]}/abort")
    if abort.exists():
        abort.write_text("1", encoding="ascii")
    bounded("umount", "-l", mount.point)


def _clean_up(process: DriverProcess, directory: Path) -> None:
    """Remove what a test left mounted, without asking the driver, which may be what is broken."""
    for mount in mounts_below(directory):
        remove_mount(mount)
    process.__exit__()
    print(process.log())  # shown when the test failed
