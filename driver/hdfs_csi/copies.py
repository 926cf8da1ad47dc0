"""Copies of directories within one filesystem: they go on in the background, and each call looks how far they are.

A copy that was cut short is gone on with: a file that is complete has the time of the one that it was copied from,
which it gets last.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.errors import BackendError, HdfsFuseError, NotFoundError, UnsupportedError
from hdfs_fuse.hidden import is_hidden

from hdfs_csi.errors import VolumeBusyError
from hdfs_csi.filesystems import Client

log = logging.getLogger(__name__)

# How long a call waits for a copy before it tells how far that is, in seconds: the external-provisioner waits 15.
PATIENCE_S = 10.0
# Files at once. Each that is written ends with half a second of waiting (hdfs-native, FileWriter.close).
_THREADS = 32
# A copy that is told to end looks every so many bytes whether it is.
_CHUNK_BYTES = 1 << 20
_END_PATIENCE_S = 30.0


class _EndedError(HdfsFuseError):
    """The copy is not wanted any more."""


class _Copy:
    """One copy, in a thread of its own and some for files."""

    def __init__(self, client: Client, source: str, target: str) -> None:
        self._client = client
        self._source, self._target = source, target
        self._mutex = threading.Lock()
        self._files = self._bytes = 0
        self.is_ending = threading.Event()
        self.done = threading.Event()
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name="copy", daemon=True).start()

    @property
    def progress(self) -> str:
        """What has been copied."""
        return f"{self._files} files, {self._bytes / 2**30:.1f} GiB"

    def _run(self) -> None:
        try:
            with ThreadPoolExecutor(_THREADS, "copy-file") as pool:
                self._copy_tree(pool)
        except BaseException as e:  # noqa: BLE001  # whoever looks at the copy gets it
            self.error = e
        finally:
            self.done.set()

    def _copy_tree(self, pool: ThreadPoolExecutor) -> None:
        running: set[Future[None]] = set()
        try:
            for source, target, status in self._walk():
                if len(running) >= 2 * _THREADS:
                    ended, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        future.result()
                running.add(pool.submit(self._copy_file, source, target, status))
            for future in running:
                future.result()
        except BaseException:
            self.is_ending.set()
            raise

    def _walk(self) -> Iterator[tuple[str, str, FileStatus]]:
        """Files that are to be copied, with their path there; directories are made on the way."""
        directories = [(self._source, self._target)]
        while directories:
            source, target = directories.pop()
            for entry in self._client.list(source):
                self._check()
                below = f"{source}/{entry.name}", f"{target}/{entry.name}"
                if entry.kind is FileKind.DIRECTORY:
                    self._client.make_directory(below[1], entry.mode)
                    self._client.copy_attributes(*below)
                    directories.append(below)
                elif entry.kind is FileKind.FILE and not is_hidden(entry.name):
                    yield *below, entry

    def _copy_file(self, source: str, target: str, status: FileStatus) -> None:
        self._check()
        if not self._is_copied(target, status):
            self._copy_content(source, target, status)
            self._client.copy_attributes(source, target)
            self._copy_xattrs(source, target)
            self._client.set_times(target, mtime_ms=status.mtime_ms, atime_ms=status.atime_ms or None)
        with self._mutex:
            self._files += 1

    def _is_copied(self, target: str, status: FileStatus) -> bool:
        try:
            found = self._client.status(target)
        except NotFoundError:
            return False
        return (found.length_bytes, found.mtime_ms) == (status.length_bytes, status.mtime_ms)

    def _copy_content(self, source: str, target: str, status: FileStatus) -> None:
        writer = self._client.create(target, mode=status.mode, overwrite=True)
        reader = self._client.open(source)
        try:
            waiting = bytearray()
            for chunk in reader.stream(0, status.length_bytes):
                waiting += chunk
                if len(waiting) >= _CHUNK_BYTES:
                    self._write(writer.write, waiting)
            self._write(writer.write, waiting)
        finally:
            reader.close()
        writer.close()
        if (found := self._client.status(target).length_bytes) != status.length_bytes:
            raise BackendError(f"{target}: {found} of {status.length_bytes} bytes were copied")

    def _write(self, write: Callable[[bytes], object], waiting: bytearray) -> None:
        self._check()
        write(bytes(waiting))
        with self._mutex:
            self._bytes += len(waiting)
        waiting.clear()

    def _copy_xattrs(self, source: str, target: str) -> None:
        try:
            found = self._client.xattrs(source)
        except UnsupportedError as e:
            log.warning("extended attributes are not copied path=%s error=%s", source, e)
            return
        for name, value in found.items():
            self._client.set_xattr(target, name, value)

    def _check(self) -> None:
        if self.is_ending.is_set():
            raise _EndedError("the copy was ended")


class Copies:
    """What is being copied. Safe in any number of threads, but for two calls for one volume."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        """Let each call wait `patience_s` seconds."""
        self._patience_s = patience_s
        self._copies: dict[str, _Copy] = {}

    def run(self, key: str, client: Client, source: str, target: str) -> None:
        """Have the directory `target` hold what `source` holds; files that were copied already are kept.

        Args:
            key: name of the copy, for the calls that ask again.
            client: of the filesystem.
            source: a directory that does not change meanwhile, such as a snapshot.
            target: a directory.

        Raises:
            VolumeBusyError: not yet; the message says how far it is. HdfsFuseError: why it could not go on.
        """
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = _Copy(client, source, target)
        if not copy.done.wait(self._patience_s):
            raise VolumeBusyError(f"{target}: is being copied from {source}; so far {copy.progress}; ask again later")
        del self._copies[key]
        if copy.error is not None:
            raise copy.error
        log.info("copied source=%s target=%s progress=%s", source, target, copy.progress)

    def end(self, key: str) -> None:
        """Have a copy write nothing any more."""
        copy = self._copies.pop(key, None)
        if copy is not None:
            copy.is_ending.set()
            copy.done.wait(_END_PATIENCE_S)
