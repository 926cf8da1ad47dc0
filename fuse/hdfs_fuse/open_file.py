"""An open file, and what the readers of all files share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hdfs_fuse.backend.base import FileReader, FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.blocks import LoadCancelledError
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError
from hdfs_fuse.metrics import Metrics

# A block can fail to be had because its load was cancelled, or its file was damaged, in between; not for ever.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Shared:
    """What all readers of a mount use.

    Attributes:
        cluster: name of the filesystem, part of the cache's keys.
        config: read-ahead and streams.
        cache: the mount's blocks.
        calls: for reads that go to the filesystem directly.
        metrics: what is counted.
    """

    cluster: str
    config: MountConfig
    cache: BlockCache
    calls: Calls
    metrics: Metrics

    def count(self, is_hit: bool, size_bytes: int) -> None:
        """Count a block or small file that an open file came to."""
        if is_hit:
            self.metrics.hit_count += 1
            self.metrics.cache_bytes += size_bytes
        else:
            self.metrics.miss_count += 1


class OpenFile:
    """One version of a file and its connection to the filesystem, opened when it is first needed. Thread-safe.

    Attributes:
        path: absolute, in the filesystem.
        status: what the version was when it was looked up.
    """

    def __init__(self, backend: ResilientBackend, path: str, status: FileStatus, metrics: Metrics) -> None:
        self._backend = backend
        self.path = path
        self.status = status
        self._metrics = metrics
        self._mutex = threading.Lock()
        self._reader: FileReader | None = None
        self._is_closed = False

    def open(self) -> FileReader:
        """The reader, opened at the first call; blocks.

        Raises:
            PermissionDeniedError: this identity may not read the file. FileChangedError: it is another version now.
            LoadCancelledError: it has been closed; who waits for a load of this handle asks again with his own.
        """
        with self._mutex:
            if self._is_closed:
                raise LoadCancelledError(f"{self.path}: closed")
            if self._reader is None:
                self._reader = self._backend.open(self.path, self.status)
            return self._reader

    def stream(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes [start, stop) as they arrive; blocks."""
        with self._until_closed():
            for chunk in self.open().stream(start, stop):
                self._metrics.hdfs_bytes += len(chunk)
                yield chunk

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop); blocks."""
        with self._until_closed():
            data = self.open().read(start, stop)
        self._metrics.hdfs_bytes += len(data)
        return data

    @contextmanager
    def _until_closed(self) -> Iterator[None]:
        """Errors of a closed file are no news of the file."""
        try:
            yield
        except HdfsFuseError as e:
            if self._is_closed and not isinstance(e, LoadCancelledError):
                raise LoadCancelledError(f"{self.path}: closed") from e
            raise

    def close(self) -> None:
        """Free the connection. Loads that are still running end by themselves, or when their connection breaks."""
        self._is_closed = True
        if self._reader is not None:
            self._reader.close()
