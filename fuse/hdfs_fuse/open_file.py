"""An open file: one version, and its connection to the filesystem. Without trio: loader processes use it too."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hdfs_fuse.backend.base import FileReader, FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.content import LoadCancelledError
from hdfs_fuse.errors import HdfsFuseError
from hdfs_fuse.metrics import Metrics

# How long a load waits for another one's open of the same file, in seconds, before it opens the file itself: that open
# may hang in a client that has been given up.
_PATIENCE_S = 1.0


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
        self._opening = threading.Lock()
        self._reader: FileReader | None = None
        self._is_closed = False

    def open(self) -> FileReader:
        """The reader, opened at the first call; blocks.

        Raises:
            PermissionDeniedError: this identity may not read the file. FileChangedError: it is another version now.
            LoadCancelledError: it has been closed; who waits for a load of this handle asks again with his own.
        """
        if (opened := self._opened()) is not None:
            return opened  # without the wait behind an open that hangs
        is_first = self._opening.acquire(timeout=_PATIENCE_S)
        try:
            return self._opened() or self._install(self._backend.open(self.path, self.status))
        finally:
            if is_first:
                self._opening.release()

    def _opened(self) -> FileReader | None:
        if self._is_closed:
            raise LoadCancelledError(f"{self.path}: closed")
        return self._reader

    def _install(self, reader: FileReader) -> FileReader:
        with self._mutex:
            if self._is_closed or self._reader is not None:
                reader.close()
            else:
                self._reader = reader
            opened = self._opened()
            assert opened is not None
            return opened

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
        with self._mutex:
            self._is_closed = True
            if self._reader is not None:
                self._reader.close()
