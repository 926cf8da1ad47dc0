"""Who is compared: client libraries without a mount, our mount, rclone's, and local copies of the same files.

Each has a client process (worker.py) that does the jobs. A contender knows how to become cold, how to come back with
only its cache on disk, and which process serves it.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from hdfs_fuse.config import CacheConfig, MountConfig, StagingConfig
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.mounter import Mounter
from hdfs_fuse.mounter.supervisor import Supervisor, stats_path

from tests.perf import jobs
from tests.perf.observe import Memory, Peak, daemon_statistics, memory_of
from tests.support.dataset import GIB
from tests.support.processes import dying_with_parent

RAW, RAW_ARROW = "hdfs-native", "pyarrow"
MOUNT, MOUNT_ARROW = "mount", "mount, pyarrow"
RCLONE, LOCAL = "rclone", "local disk"

# Larger than every data set here, so that nothing is evicted unless a workload asks for it.
_AMPLE_BYTES = 64 * GIB


class ContenderError(RuntimeError):
    """A contender could not do what it was asked; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a job took.

    Attributes:
        answer: of the client.
        daemon_cpu_s: processor time of the serving process; 0 without one.
        daemon_anonymous_bytes, daemon_resident_bytes: the most memory that process had meanwhile.
        hdfs_bytes, read_bytes: what the daemon says it read from HDFS and answered; None where it does not say.
    """

    answer: jobs.Answer
    daemon_cpu_s: float
    daemon_anonymous_bytes: int
    daemon_resident_bytes: int
    hdfs_bytes: int | None
    read_bytes: int | None


class Worker:
    """A client process."""

    def __init__(self, kind: str, root: str, environment: Mapping[str, str]) -> None:
        """Start `worker.py KIND ROOT`."""
        self._process = subprocess.Popen(
            dying_with_parent([sys.executable, "-m", "tests.perf.worker", kind, root]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def do(self, job: jobs.AnyJob) -> jobs.Answer:
        """Have it do `job`.

        Raises:
            ContenderError: it failed.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(f"the client ended with status {self._process.wait()}")
        answer = msgspec.json.decode(line, type=jobs.Answer)
        if answer.error:
            raise ContenderError(answer.error)
        return answer

    def kill_nowait(self) -> None:
        """Begin to end it. One that hangs in a mount ends when the mount does."""
        self._process.kill()

    def close(self) -> None:
        """End it."""
        self.kill_nowait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()


class Contender:
    """One way to read the data set. Close it to end and remove whatever it made.

    Attributes:
        name: in the report.
        has_pages: whether the kernel keeps pages of what was read.
        has_cache: whether there is a cache on disk.
        can_write: whether files can be made.
        mount_s: how long each mount took, so far.
        idle: memory of the serving process after each mount, so far.
    """

    def __init__(self, name: str, kind: str, root: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.has_pages = kind == "files"
        self.has_cache = False
        self.can_write = True
        self.mount_s: list[float] = []
        self.idle: list[Memory] = []
        self._kind, self._root, self._environment = kind, root, environment
        self._worker: Worker | None = None

    def do(self, job: jobs.AnyJob) -> Use:
        """Do `job`, and say what it took."""
        self._worker = self._worker or Worker(self._kind, self._root, self._environment)
        before = self._statistics()
        with Peak(self.pid) as peak:
            try:
                answer = self._worker.do(job)
            except ContenderError as e:
                raise ContenderError(f"{self.name}: {type(job).__name__}: {e}") from e
        after = self._statistics()
        return Use(
            answer,
            peak.cpu_s,
            peak.anonymous,
            peak.resident,
            after["hdfs_bytes"] - before["hdfs_bytes"] if after else None,
            after["read_bytes"] - before["read_bytes"] if after else None,
        )

    @property
    def pid(self) -> int | None:
        """The process that serves it; None without one."""
        return None

    def _statistics(self) -> dict[str, int]:
        """The counters of its daemon; empty where there are none."""
        return {}

    def become_cold(self, paths: Sequence[str], cache_bytes: int = _AMPLE_BYTES) -> None:
        """Forget everything that was read.

        Args:
            paths: what is going to be read.
            cache_bytes: size of the new cache, where there is one.
        """

    def remount(self, *, drop_disk_pages: bool) -> None:
        """Keep only the cache on disk, with `drop_disk_pages` not even the kernel's pages of that."""

    def drop_pages(self, paths: Sequence[str]) -> None:
        """Have the kernel forget the pages that were read; the cache stays."""
        if self.has_pages:
            self.do(jobs.Drop(list(paths)))

    def close(self) -> None:
        """End whatever runs."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class Client(Contender):
    """A client library, by itself. It keeps its connection to the NameNode, as a daemon does."""


class Local(Contender):
    """Copies on a local disk. Cold means that the kernel reads them from the disk."""

    def __init__(self, directory: Path) -> None:
        super().__init__(LOCAL, "files", str(directory), {})

    def become_cold(self, paths: Sequence[str], cache_bytes: int = _AMPLE_BYTES) -> None:  # noqa: ARG002
        """See Contender."""
        self.drop_pages(paths)


class Mounted(Contender, ABC):
    """A FUSE mount with a cache on disk."""

    def __init__(self, name: str, directory: Path) -> None:
        """Mount below `directory`, which is made."""
        self._mountpoint = directory / "mount"
        self._cache = directory / "cache"
        self._cache_bytes = _AMPLE_BYTES
        super().__init__(name, "files", str(self._mountpoint), {})
        self.has_cache = True
        self._mountpoint.mkdir(parents=True)

    @abstractmethod
    def _mount(self) -> None:
        """Mount, and return when it is mounted."""

    @abstractmethod
    def _unmount(self) -> None:
        """Unmount, by force; return when its process has ended."""

    def _mount_timed(self) -> None:
        started = time.perf_counter()
        self._mount()
        # The first answer of the mount belongs to it: rclone's mount is there before it has spoken to HDFS.
        os.stat(self._mountpoint)
        self.mount_s.append(time.perf_counter() - started)
        assert self.pid is not None
        self.idle.append(memory_of(self.pid))

    def become_cold(self, paths: Sequence[str], cache_bytes: int = _AMPLE_BYTES) -> None:  # noqa: ARG002
        """See Contender."""
        self._unmount()
        lay_aside(self._cache)
        self._cache.mkdir()
        self._cache_bytes = cache_bytes
        self._mount_timed()

    def remount(self, *, drop_disk_pages: bool) -> None:
        """See Contender."""
        self._unmount()
        if drop_disk_pages:
            drop_pages_below(self._cache)
        self._mount_timed()

    def close(self) -> None:
        """See Contender."""
        # The mount in between: a client that hangs in it ends only then, and is not to complain of its end.
        if self._worker is not None:
            self._worker.kill_nowait()
        self._unmount()
        super().close()
        shutil.rmtree(self._cache, ignore_errors=True)


class OurMount(Mounted):
    """The product, mounted as the CSI node service does."""

    def __init__(self, name: str, directory: Path, supervisor: Supervisor, config: MountConfig) -> None:
        """Mount `config` with a cache below `directory`."""
        super().__init__(name, directory)
        self._supervisor = supervisor
        self._mounter = Mounter(supervisor)
        self.can_write = config.backend != "pyarrow"
        if self.can_write:
            staging = StagingConfig(directory=str(directory / "staging"))
            config = msgspec.structs.replace(config, read_only=False, staging=staging)
        self._config = config
        self._stats_socket = ""
        self._pid: int | None = None

    @property
    def pid(self) -> int | None:
        """See Contender."""
        return self._pid

    def _statistics(self) -> dict[str, int]:
        return daemon_statistics(self._stats_socket) if self._stats_socket else {}

    def _mount(self) -> None:
        cache = CacheConfig(directory=str(self._cache), size_bytes=self._cache_bytes)
        self._mounter.mount(msgspec.structs.replace(self._config, cache=cache), str(self._mountpoint))
        entry = mounts.find(str(self._mountpoint))
        assert entry is not None
        self._stats_socket = stats_path(self._supervisor.runtime_dir, entry.device)
        self._pid = self._statistics()["pid"]

    def _unmount(self) -> None:
        self._pid, self._stats_socket = None, ""
        self._mounter.unmount(str(self._mountpoint), force=True)


class Rclone(Mounted):
    """`rclone mount`, with its full cache."""

    def __init__(self, directory: Path, uri: str, user: str) -> None:
        """Mount `uri`, as `user` of HDFS."""
        super().__init__(RCLONE, directory)
        authority, _, path = uri.removeprefix("hdfs://").partition("/")
        self._log = directory / "rclone.log"
        # An empty --config keeps the user's own configuration out of it.
        self._command = [
            *("rclone", "mount", f":hdfs:/{path}", str(self._mountpoint), "--config", ""),
            *("--hdfs-namenode", authority, "--hdfs-username", user),
            *("--vfs-cache-mode", "full", "--cache-dir", str(self._cache), "--log-file", str(self._log)),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """See Contender."""
        return self._process.pid if self._process else None

    def _mount(self) -> None:
        # Not through setpriv: the pid is to be rclone's own.
        self._process = subprocess.Popen(self._command, start_new_session=True, stdin=subprocess.DEVNULL)
        while mounts.find(str(self._mountpoint)) is None:
            if self._process.poll() is not None:
                raise ContenderError(f"rclone ended with {self._process.returncode}:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.002)

    def _unmount(self) -> None:
        mounts.unmount(str(self._mountpoint), force=True)
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
            self._process.kill()
            self._process.wait()
            self._process = None
            # Once more: one that had not got so far may have mounted in between.
            mounts.unmount(str(self._mountpoint), force=True)


# Larger files are few, and removed at once: they would fill the disk.
SMALL_BYTES = 1 << 20


def lay_aside(directory: Path) -> None:
    """Empty the place of a directory without deleting its small files before all is measured.

    For some minutes after a file was deleted, ext4 looks at its inode again for each new one (recently_deleted in
    fs/ext4/ialloc.c). After thousands of deletions a new file took 1 ms of processor time instead of 0.05, and whoever
    was measured next paid for it.
    """
    for parent, _, names in os.walk(directory):
        for path in (os.path.join(parent, name) for name in names):
            if os.lstat(path).st_size > SMALL_BYTES:
                os.unlink(path)
    if directory.exists():
        directory.rename(directory.with_name(f"{directory.name}-{secrets.token_hex(4)}"))


def drop_pages_below(directory: Path) -> None:
    """Have the kernel forget the pages of all files below `directory`, after they are safe on the disk.

    More precise than /proc/sys/vm/drop_caches, which would also take the DataNode's pages, and everybody else's.
    """
    for parent, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
