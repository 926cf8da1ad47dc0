"""One volume as a pod on this node sees it: the kubelet's calls, timed readings, checksums, statistics, the end."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.supervisor import stats_path

from tests.csi.driver import DriverProcess
from tests.support.dataset import MIB, DataFile
from tests.support.processes import ProcessIdentity

# A kubelet's own deadline for CSI calls (csiTimeout) is two minutes.
_CALL_TIMEOUT_S = 120.0
# So that a hung mount ends the demo instead of hanging it; sha256sum needs seconds.
_COMMAND_TIMEOUT_S = 600

# What Kubernetes makes of ReadOnlyMany and of ReadWriteMany.
READERS, WRITERS = (
    csi.VolumeCapability(
        mount=csi.VolumeCapability.MountVolume(), access_mode=csi.VolumeCapability.AccessMode(mode=mode)
    )
    for mode in (
        csi.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY,
        csi.VolumeCapability.AccessMode.MULTI_NODE_MULTI_WRITER,
    )
)


class PodError(RuntimeError):
    """What the pod sees is not what it must see; the message says what."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How long reading some files took.

    Attributes:
        files: how many.
        size_bytes: of all of them.
        duration_s: from the first open to the last close.
    """

    files: int
    size_bytes: int
    duration_s: float

    @property
    def rate(self) -> str:
        """Megabytes a second for large files, files a second for small ones."""
        if self.size_bytes / self.files >= MIB:
            return f"{self.size_bytes / 1e6 / self.duration_s:,.0f} MB/s"
        return f"{self.files / self.duration_s:,.0f} files/s"


class Pod:
    """A volume that is staged on the node and published to one pod.

    Attributes:
        target: where the pod sees it.
    """

    def __init__(
        self, directory: Path, name: str, volume: csi.Volume, capability: csi.VolumeCapability, node: DriverProcess
    ) -> None:
        """Make the directories that a kubelet would make, below `directory`."""
        self._volume = volume
        self._capability = capability
        self._node = node
        self._run_directory = directory / "run"
        self._staging = directory / "plugins" / name / "globalmount"
        self._staging.mkdir(parents=True)
        self.target = directory / "pods" / name / "mount"
        self.target.parent.mkdir(parents=True)

    def stage(self) -> float:
        """NodeStageVolume; returns its duration in seconds."""
        return self._call(
            csi.NodeStageVolumeRequest(
                volume_id=self._volume.volume_id,
                staging_target_path=str(self._staging),
                volume_capability=self._capability,
                volume_context=self._volume.volume_context,
            )
        )

    def publish(self) -> float:
        """NodePublishVolume; returns its duration in seconds."""
        return self._call(
            csi.NodePublishVolumeRequest(
                volume_id=self._volume.volume_id,
                staging_target_path=str(self._staging),
                target_path=str(self.target),
                volume_capability=self._capability,
                volume_context=self._volume.volume_context,
            )
        )

    def unpublish(self) -> None:
        """NodeUnpublishVolume."""
        self._call(csi.NodeUnpublishVolumeRequest(volume_id=self._volume.volume_id, target_path=str(self.target)))
        if mounts.find(str(self.target)) is not None:
            raise PodError(f"{self.target} is still mounted after NodeUnpublishVolume")

    def unstage(self) -> None:
        """NodeUnstageVolume."""
        self._call(
            csi.NodeUnstageVolumeRequest(volume_id=self._volume.volume_id, staging_target_path=str(self._staging))
        )
        if any(entry.mountpoint.startswith(f"{self._staging}/") for entry in mounts.entries()):
            raise PodError(f"something is still mounted below {self._staging} after NodeUnstageVolume")

    def _call(self, request: Message) -> float:
        started = time.perf_counter()
        self._node.client.call(request, _CALL_TIMEOUT_S)
        return time.perf_counter() - started

    def read(self, files: Sequence[DataFile], threads: int) -> Reading:
        """Open, read to the end and close `files`, `threads` at once.

        Raises:
            PodError: a file's length is not what it must be.
        """
        started = time.perf_counter()
        run_threads([partial(self._read_all, files[i::threads]) for i in range(threads)])
        return Reading(len(files), sum(file.size_bytes for file in files), time.perf_counter() - started)

    def _read_all(self, files: Sequence[DataFile]) -> None:
        buffer = bytearray(MIB)
        for file in files:
            descriptor = os.open(self.target / file.path, os.O_RDONLY)
            try:
                size = 0
                while count := os.readv(descriptor, [buffer]):
                    size += count
            finally:
                os.close(descriptor)
            if size != file.size_bytes:
                raise PodError(f"{file.path}: {size} bytes read, {file.size_bytes} expected")

    def verify(self, checksums: Mapping[str, str], uid: int | None = None) -> str:
        """Have sha256sum read all files and compare.

        Args:
            checksums: SHA-256 by relative path.
            uid: user and group to read as; None is this process's.

        Returns:
            What was found, in words.

        Raises:
            PodError: a file is missing, unreadable or has other bytes; names the first ones.
        """
        done = self._run(
            "sha256sum", "--check", "--strict", "--quiet",
            stdin="".join(f"{digest}  {path}\n" for path, digest in checksums.items()).encode(),
            uid=uid,
        )  # fmt: skip
        if done.returncode or done.stdout:
            said = "\n".join((done.stdout + done.stderr).decode(errors="replace").splitlines()[:5])
            raise PodError(f"checksums differ at {self.target} (sha256sum ended with {done.returncode}):\n{said}")
        return f"all {len(checksums)} files have the right bytes"

    def save(self, name: str, data: bytes, uid: int) -> float:
        """Write a file as training programs write checkpoints: under another name, synced, and renamed.

        Returns:
            How long it took, in seconds.

        Raises:
            PodError: it could not be written.
        """
        started = time.perf_counter()
        script = 'cat > "$0.tmp" && sync "$0.tmp" && mv "$0.tmp" "$0"'
        done = self._run("sh", "-c", script, name, stdin=data, uid=uid)
        if done.returncode:
            raise PodError(f"{name} can't be written at {self.target}: {done.stderr.decode(errors='replace')}")
        return time.perf_counter() - started

    def _run(self, *command: str, stdin: bytes, uid: int | None) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the volume."""
        identity = [] if uid is None else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        # The volume is entered as root: nobody else may pass the temporary directory above it, as with a kubelet's.
        place = ["timeout", "-k", "5", str(_COMMAND_TIMEOUT_S), "env", "-C", str(self.target), *identity]
        return subprocess.run([*place, *command], input=stdin, capture_output=True, check=False)

    def statistics(self) -> dict[str, Any]:
        """What the mount's daemon counts (metrics.py)."""
        entry = mounts.find(str(self.target))
        if entry is None:
            raise PodError(f"{self.target} is not mounted")
        return daemon_statistics(self._run_directory, entry.device)


def run_threads(calls: Sequence[Callable[[], None]]) -> None:
    """Make all calls, each in a thread; the first error is raised.

    After an error, or a signal, nobody waits for the other threads: they may hang in a mount, until it is ended.
    """
    pool = ThreadPoolExecutor(len(calls))
    try:
        for future in [pool.submit(call) for call in calls]:
            future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def daemon_statistics(run_directory: Path, device: str) -> dict[str, Any]:
    """The statistics of the mount with that device number."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(stats_path(str(run_directory), device))
        with connection.makefile("rb") as answer:
            return dict(json.load(answer))


def end_mounts(directory: Path) -> None:
    """Unmount everything below `directory`, dead or hung as it may be, and wait for the daemons' end."""
    found = [entry for entry in reversed(mounts.entries()) if entry.mountpoint.startswith(f"{directory}/")]
    daemons = []
    for device in {entry.device for entry in found}:
        try:
            daemons.append(ProcessIdentity.of(daemon_statistics(directory / "run", device)["pid"]))
        except (OSError, ValueError):
            continue  # dead: its mount is all that is left
    for entry in found:
        mounts.unmount(entry.mountpoint, force=True)
    for daemon in daemons:
        if not daemon.wait_gone(10):
            daemon.send(signal.SIGKILL)
