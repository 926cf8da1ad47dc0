"""Paths as a kubelet would make them, the requests that it would send, and what is mounted there."""

import json
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.mounter.supervisor import stats_path

from tests.csi.driver import bounded
from tests.csi.volumes import MOUNT
from tests.support.daemons import questions_of
from tests.support.processes import Daemon, ProcessIdentity


@dataclass(frozen=True)
class Pod:
    """Where a kubelet would stage a volume and publish it.

    Attributes:
        staging: exists, as CSI asks.
        target: does not exist; its parent does.
    """

    staging: Path
    target: Path

    def stage(self, volume: csi.Volume, capability: csi.VolumeCapability = MOUNT) -> csi.NodeStageVolumeRequest:
        return csi.NodeStageVolumeRequest(
            volume_id=volume.volume_id,
            staging_target_path=str(self.staging),
            volume_capability=capability,
            volume_context=volume.volume_context,
        )

    def publish(
        self, volume: csi.Volume, capability: csi.VolumeCapability = MOUNT, *, readonly: bool = False
    ) -> csi.NodePublishVolumeRequest:
        return csi.NodePublishVolumeRequest(
            volume_id=volume.volume_id,
            staging_target_path=str(self.staging),
            target_path=str(self.target),
            volume_capability=capability,
            volume_context=volume.volume_context,
            readonly=readonly,
        )

    def publish_inline(
        self, volume: csi.Volume, capability: csi.VolumeCapability = MOUNT, *, readonly: bool = False
    ) -> csi.NodePublishVolumeRequest:
        """What a kubelet sends for a volume that stands in a pod alone, where CSIDriver has `podInfoOnMount`."""
        pod_info = {"ephemeral": "true", "pod.name": "trainer-0", "pod.namespace": "research", "pod.uid": "1-2-3"}
        return csi.NodePublishVolumeRequest(
            volume_id=volume.volume_id,
            target_path=str(self.target),
            volume_capability=capability,
            volume_context={**volume.volume_context, **{f"csi.storage.k8s.io/{k}": v for k, v in pod_info.items()}},
            readonly=readonly,
        )

    def stats(self, volume: csi.Volume, path: Path | None = None) -> csi.NodeGetVolumeStatsRequest:
        return csi.NodeGetVolumeStatsRequest(
            volume_id=volume.volume_id, volume_path=str(path or self.target), staging_target_path=str(self.staging)
        )

    def health(self, volume: csi.Volume) -> csi.NodeGetVolumeHealthRequest:
        return csi.NodeGetVolumeHealthRequest(
            volume_id=volume.volume_id, volume_publish_path=str(self.target), staging_target_path=str(self.staging)
        )

    def unpublish(self, volume: csi.Volume) -> csi.NodeUnpublishVolumeRequest:
        return csi.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=str(self.target))

    def unstage(self, volume: csi.Volume) -> csi.NodeUnstageVolumeRequest:
        return csi.NodeUnstageVolumeRequest(volume_id=volume.volume_id, staging_target_path=str(self.staging))


def make_pod(directory: Path) -> Pod:
    """Make the directories that a kubelet makes, below `directory`."""
    staging, target = directory / "plugins" / "globalmount", directory / "pods" / "volume"
    staging.mkdir(parents=True)
    target.mkdir(parents=True)
    return Pod(staging, target / "mount")


@dataclass(frozen=True)
class MountLine:
    """A line of mountinfo.

    Attributes:
        point: where.
        device: `major:minor`; of a FUSE mount the minor number names its connection.
        is_read_only: whether this mount refuses changes, whatever others of the same device do.
    """

    point: str
    device: str
    is_read_only: bool


def mounts_below(directory: Path) -> list["MountLine"]:
    """What is mounted below `directory`, the last mounted first; nothing of it is touched."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    mounts = [
        MountLine(fields[4], fields[2], "ro" in fields[5].split(","))
        for line in reversed(lines)
        if (fields := line.split())
    ]
    return [mount for mount in mounts if mount.point.startswith(f"{directory}/")]


def daemon_pid(directory: Path, pod: Pod) -> int:
    """The process that serves the volume staged for `pod`."""
    return serving_pid(directory, pod.staging)


def serving_pid(directory: Path, path: Path) -> int:
    """The process that serves what is mounted at or below `path`, from the statistics that it offers."""
    (device,) = {mount.device for mount in mounts_below(directory) if mount.point.startswith(str(path.resolve()))}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(stats_path(str(directory / "run"), device))
        with connection.makefile("rb") as answer:
            return int(json.load(answer)["pid"])


def kill_daemon(directory: Path, pod: Pod) -> None:
    """End the process that serves the volume staged for `pod`, as a crash does."""
    identity = ProcessIdentity.of(daemon_pid(directory, pod))
    identity.send(signal.SIGKILL)
    assert identity.wait_gone(10)


def children(node: Daemon) -> int:
    """How many questions to mounts the node service has left behind: programs that have not ended."""
    assert node.identity is not None
    return len(questions_of(node.identity.pid))


def remove_mount(mount: "MountLine") -> None:
    """Unmount, dead or hung as it may be: its connection first, so that nobody waits for it for ever."""
    abort = Path(f"/sys/fs/fuse/connections/{mount.device.partition(':')[2]}/abort")
    if abort.exists():
        abort.write_text("1", encoding="ascii")
    bounded("umount", "-l", mount.point)


def read(path: Path, uid: int | None = None) -> bytes:
    done = bounded("cat", path.name, directory=path.parent, uid=uid)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def write(path: Path, data: bytes, uid: int | None = None) -> None:
    """Replace the content of a file, as a pod's shell would."""
    done = bounded("sh", "-c", 'cat > "$0"', path.name, directory=path.parent, uid=uid, stdin=data)
    assert done.returncode == 0, done.stderr.decode()
