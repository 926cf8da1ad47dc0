"""The node's staging directory: the bytes of files that are being changed, until HDFS has them.

    DIRECTORY/<random>/lock     held with flock by the daemon whose folder this is
    DIRECTORY/<random>/<n>      a staged file: sparse, each byte at its place in the file

Everything here blocks. Bounded by the bytes that all daemons of the node have staged together.
"""

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import secrets
import shutil
from collections.abc import Iterator

from hdfs_fuse.config import StagingConfig
from hdfs_fuse.errors import HdfsFuseError, NoSpaceError, UnavailableError
from hdfs_fuse.extents import Extents

logger = logging.getLogger(__name__)

_LOCK = "lock"
# How many bytes a daemon may stage before it looks again at what the node has staged: at most this many, and a fourth
# of the room that was left, so that several daemons together go beyond the bound by less than that.
_LOOK_AGAIN_BYTES = 64 << 20

# fallocate(2), which the standard library has without its flags.
_KEEP_SIZE, _PUNCH_HOLE = 0x01, 0x02
_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class StagingArea:
    """The folder of one daemon in the node's staging directory. Safe in any number of threads."""

    def __init__(self, config: StagingConfig) -> None:
        """Make the folder, and remove those of daemons that are gone.

        Raises:
            UnavailableError: the directory can't be used.
        """
        self._directory = config.directory
        self._size_bytes = config.size_bytes
        self._folder = os.path.join(config.directory, secrets.token_hex(8))
        self._next = 0
        self._allowance_bytes = 0
        try:
            os.makedirs(config.directory, mode=0o700, exist_ok=True)
            with _alone(config.directory):
                self._remove_abandoned()
                os.mkdir(self._folder, mode=0o700)
                self._lock_fd = os.open(os.path.join(self._folder, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise UnavailableError(f"staging directory {config.directory}: {e.strerror}; choose another one") from e

    def _remove_abandoned(self) -> None:
        """What a daemon that died had staged was never acknowledged, or its failure was: nobody waits for it."""
        for name in os.listdir(self._directory):
            folder = os.path.join(self._directory, name)
            with contextlib.suppress(OSError), _lock_of(folder):
                logger.warning("removing what a daemon that died has left staged in %s", folder)
                shutil.rmtree(folder)

    def create(self) -> "StagedFile":
        """A new, empty staged file."""
        self._next += 1
        return StagedFile(self, os.path.join(self._folder, str(self._next)))

    def reserve(self, size_bytes: int) -> None:
        """Make sure that so many more bytes may be staged.

        Raises:
            NoSpaceError: the node's bound is reached.
        """
        if size_bytes > self._allowance_bytes:
            room_bytes = self._size_bytes - self.used_bytes()
            if size_bytes > room_bytes:
                raise NoSpaceError(
                    f"staging directory {self._directory}: {size_bytes} more bytes do not fit into the bound of "
                    f"{self._size_bytes}"
                )
            self._allowance_bytes = max(size_bytes, min(room_bytes // 4, _LOOK_AGAIN_BYTES))
        self._allowance_bytes -= size_bytes

    def used_bytes(self) -> int:
        """Bytes that all daemons of the node have staged, in blocks of the disk."""
        return sum(size_bytes for folder in _entries(self._directory) for size_bytes in _sizes(folder))

    def close(self) -> None:
        """Remove the folder with what is left in it."""
        if self._lock_fd >= 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock_fd)
            self._lock_fd = -1


class StagedFile:
    """Bytes of one file, each at its place in it. For one thread at a time.

    Attributes:
        path: of the staged file; it appears with the first bytes.
        extents: which bytes are here.
    """

    def __init__(self, area: StagingArea, path: str) -> None:
        """A file of `area`; see StagingArea.create."""
        self._area = area
        self.path = path
        self.extents = Extents()
        self._fd = -1

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Stage bytes from `start` on; all of them or none.

        Raises:
            NoSpaceError: the bound is reached, or the disk is full.
        """
        self._area.reserve(len(data))
        with _translated(self.path):
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            at, view = start, memoryview(data)
            while view:
                count = os.pwrite(self._fd, view, at)
                at, view = at + count, view[count:]
        self.extents.add(start, start + len(data))

    def read(self, start: int, stop: int) -> bytes:
        """Staged bytes [start, stop)."""
        with _translated(self.path):
            data = os.pread(self._fd, stop - start, start)
        if len(data) != stop - start:
            raise UnavailableError(f"{self.path}: {len(data)} of {stop - start} staged bytes at {start}")
        return data

    def cut(self, length: int) -> None:
        """Forget the bytes from `length` on."""
        self.extents.cut(length)
        if self._fd >= 0:
            with _translated(self.path):
                os.ftruncate(self._fd, length)

    def discard(self, stop: int) -> None:
        """Forget the bytes before `stop`, and give their room back where the disk can (it knows holes)."""
        self.extents.discard(stop)
        if self._fd >= 0 and _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, 0, stop) != 0:
            logger.debug("%s: no holes: %s", self.path, os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        """Remove the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Wait for daemons that start or clean up: a folder that is not locked yet looks like one whose daemon is gone."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _lock_of(folder: str) -> Iterator[None]:
    """Hold the lock of a folder whose daemon is gone; BlockingIOError when it is not."""
    fd = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        error: type[HdfsFuseError] = NoSpaceError if e.errno in (errno.ENOSPC, errno.EDQUOT) else UnavailableError
        raise error(f"staged file {path}: {e.strerror}") from e


def _entries(directory: str) -> list[str]:
    try:
        return [os.path.join(directory, name) for name in os.listdir(directory)]
    except OSError:  # a folder that has just been removed, or a file
        return []


def _sizes(folder: str) -> Iterator[int]:
    for path in _entries(folder):
        with contextlib.suppress(FileNotFoundError):
            yield os.lstat(path).st_blocks * 512
