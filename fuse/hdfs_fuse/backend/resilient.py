"""A backend that outlives its client: repeats what is safe, reopens readers, throws away clients that hang.

Owns the client object that the factory makes. Sets no deadlines, since a call in a thread can't be cancelled: whoever
waits sets one and calls `discard_client` when it passes. Every repetition ends before the budget, which is smaller
than that deadline.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from hdfs_fuse import errors
from hdfs_fuse.backend.base import Backend, FileKind, FileReader, FileStatus, FileWriter, Policies, SpaceUsage
from hdfs_fuse.backend.retry import Retries

R = TypeVar("R")

_TRANSIENT = (errors.UnavailableError, errors.BackendError)
_TRANSIENT_READ = (*_TRANSIENT, errors.ShortReadError)

# Longer than the 0.5 s after which hdfs-native's writers close in the background, with room for a busy NameNode.
_SETTLE_S = 3.0

# A client younger than this share of the deadline is not the one that the caller waited for.
_DISCARD_AGE_SHARE = 0.9

# Makes unsigned byte order the signed one in which HDFS lists (DFSUtilClient.compareBytes).
_SIGNED = bytes(value ^ 0x80 for value in range(256))


class Version(NamedTuple):
    """What tells one content of a path from another."""

    mtime_ms: int
    length_bytes: int


class ResilientBackend:
    """base.Backend over a backend that may fail; safe in any number of threads.

    Attributes:
        retries: the policy, with its count of failures.
        reopened: readers that had to be opened again.
        discarded: clients thrown away.
    """

    def __init__(
        self,
        factory: Callable[[], Backend],
        *,
        budget_s: float,
        deadline_s: float,
        verify_above_bytes: int = 0,
        settle_s: float = _SETTLE_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the first client.

        Args:
            factory: makes a client; must not block on the network.
            budget_s: no repetition starts later than this after the start of a call, in seconds.
            deadline_s: how long callers wait for a call before they give it up; above budget_s.
            verify_above_bytes: longer files are looked up after the open, so that bytes of two versions never meet in
                what is read by several opens. A file read in one go needs no such check.
            settle_s: how long to wait for bytes that the file should have, in seconds.
            sleep: waits between attempts; tests pass their own.
            clock: seconds, monotonic; tests pass their own.

        Raises:
            Whatever `factory` raises.
        """
        if not 0 <= budget_s < deadline_s:
            raise errors.InvalidArgumentError(f"budget_s: given {budget_s}, accepted is less than {deadline_s}")
        self._factory = factory
        self._deadline_s = deadline_s
        self._verify_above_bytes = verify_above_bytes
        self.retries = Retries(budget_s, settle_s, sleep, clock)
        self.reopened = 0
        self.discarded = 0
        self._lock = threading.Lock()
        self._client: Backend | None = factory()
        self._made_at = clock()
        self._closed = False

    def client(self) -> Backend:
        """The present client, made anew if the last one was thrown away."""
        client = self._client
        if client is not None:
            return client
        with self._lock:
            if self._closed:
                raise errors.UnavailableError("the backend is closed")
            if self._client is None:
                self._client, self._made_at = self._factory(), self.retries.clock()
            return self._client

    def discard_client(self, waited_s: float | None = None) -> None:
        """Let the next call make a new client; to be called by whoever gave up a call. Never blocks.

        Many callers give up at about the same time, and all but the first find a client that they never waited for:
        one that is younger than their wait is kept. Threads that hang in the old client keep it alive until they end.

        Args:
            waited_s: how long the caller waited, in seconds; None is the deadline.
        """
        age_needed_s = (self._deadline_s if waited_s is None else waited_s) * _DISCARD_AGE_SHARE
        with self._lock:
            if self._client is not None and self.retries.clock() - self._made_at >= age_needed_s:
                self._client = None
                self.discarded += 1

    def status(self, path: str) -> FileStatus:
        """See base.Backend."""
        return self._repeatable("status", path, lambda client: client.status(path))

    def list(self, path: str) -> Iterator[FileStatus]:
        """See base.Backend. A listing that breaks goes on behind the last name where names come in HDFS's order."""
        started, last, ordered = self.retries.clock(), None, True
        entries = self.client().list(path)
        while True:
            try:
                for entry in entries:
                    key = _order(entry.name)
                    ordered = ordered and (last is None or key > last)
                    last = key
                    yield entry
                self.retries.succeeded()
            except _TRANSIENT as e:
                if not ordered:
                    raise
                entries = self._list_behind(path, last, e, started)
                started = self.retries.clock()
            else:
                return

    def _list_behind(
        self, path: str, last: bytes | None, failure: errors.HdfsFuseError, started: float
    ) -> Iterator[FileStatus]:
        def attempt() -> Iterator[FileStatus]:
            entries = iter(self.client().list(path))
            if last is not None:
                entries = (entry for entry in entries if _order(entry.name) > last)
            first = next(entries, None)  # the request is sent with the first step
            return iter(()) if first is None else chain([first], entries)

        return self.retries.repeat(f"list {path}", failure, started, attempt)

    def open(self, path: str, expected: FileStatus | None = None) -> "ResilientReader":
        """See base.Backend.

        Args:
            path: the file.
            expected: what `status` said of it. None asks, which costs a second call.

        Raises:
            FileChangedError: the file is no longer `expected`; ask for its status again.
        """
        if expected is None:
            expected = self.status(path)
        if expected.kind is FileKind.DIRECTORY:
            raise errors.IsDirectoryError(f"{path}: is a directory")
        return self.open_version(path, Version(expected.mtime_ms, expected.length_bytes))

    def open_version(self, path: str, version: Version) -> "ResilientReader":
        """Open a file that is to be `version`; see `open`."""
        raw = self._repeatable("open", path, lambda client: client.open(path))
        if raw.length_bytes != version.length_bytes or version.length_bytes > self._verify_above_bytes:
            # After the open: had the file been replaced before it, this would show.
            try:
                self.check_version(path, version)
            except errors.HdfsFuseError:
                raw.close()
                raise
        return ResilientReader(self, path, version, raw)

    def check_version(self, path: str, version: Version) -> None:
        """Ask whether `path` is still `version`.

        Raises:
            FileChangedError: it is another one, or gone.
        """
        try:
            found = self.status(path)
        except errors.NotFoundError as e:
            raise errors.FileChangedError(f"{path}: was removed") from e
        if (found.mtime_ms, found.length_bytes) != version:
            raise errors.FileChangedError(
                f"{path}: was modified at {version.mtime_ms} ms with {version.length_bytes} bytes, "
                f"now at {found.mtime_ms} ms with {found.length_bytes}"
            )

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend; never repeated, since whoever asks has an answer of his own."""
        return self.client().space(path)

    def make_directory(self, path: str, mode: int) -> None:
        """See base.Backend."""

        def again() -> None:
            try:
                found = self.client().status(path)
            except errors.NotFoundError:
                self.client().make_directory(path, mode)
            else:
                if found.kind is not FileKind.DIRECTORY:
                    raise errors.AlreadyExistsError(f"{path}: is a file")

        self._change("make directory", path, lambda: self.client().make_directory(path, mode), again)

    def check_write(self, path: str) -> None:
        """See base.Backend; never repeated, since whoever asks has an answer of his own."""
        self.client().check_write(path)

    def create_directory(self, path: str, mode: int) -> None:
        """See base.Backend. An attempt whose answer was lost may be what is there already: that is success."""

        def again() -> None:
            with contextlib.suppress(errors.AlreadyExistsError):
                self.client().create_directory(path, mode)

        self._change("create directory", path, lambda: self.client().create_directory(path, mode), again)

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """See base.Backend."""

        def again() -> None:
            found = self.client().status(path)
            if owner not in (None, found.owner) or group not in (None, found.group):
                self.client().set_owner(path, owner, group)

        self._change("set owner", path, lambda: self.client().set_owner(path, owner, group), again)

    def copy_attributes(self, source: str, target: str) -> None:
        """See base.Backend."""

        def copy() -> None:
            self.client().copy_attributes(source, target)

        self._change("copy attributes", target, copy, copy)

    def move_to_trash(self, path: str) -> None:
        """See base.Backend. What is gone at a second attempt the first has moved."""

        def again() -> None:
            with contextlib.suppress(errors.NotFoundError):
                self.client().move_to_trash(path)

        self._change("move to trash", path, lambda: self.client().move_to_trash(path), again)

    def create(self, path: str, *, mode: int, overwrite: bool) -> FileWriter:
        """See base.Backend. Repeated only where it overwrites: else the first attempt may be what is there."""

        def create() -> FileWriter:
            return self.client().create(path, mode=mode, overwrite=overwrite)

        return self._change("create", path, create, create) if overwrite else create()

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, alone: bool) -> None:
        """See base.Backend. Not repeated: `chunks` can be had once."""
        self.client().put(path, chunks, length_bytes, mode, alone=alone)

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:
        """See base.Backend. Not repeated: `chunks` can be had once."""
        self.client().extend(path, chunks, length_bytes)

    def append(self, path: str) -> FileWriter:
        """See base.Backend. Not repeated: an attempt whose answer was lost holds the lease."""
        return self.client().append(path)

    def recover_lease(self, path: str) -> bool:
        """See base.Backend."""
        return self._repeatable("recover lease", path, lambda client: client.recover_lease(path))

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """See base.Backend; also done when an answer was lost, the source is gone and the target there."""

        def again() -> None:
            try:
                self.client().rename(source, target, overwrite=overwrite)
            except errors.NotFoundError:
                self.client().status(target)

        self._change("rename", source, lambda: self.client().rename(source, target, overwrite=overwrite), again)

    def set_mode(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._repeatable("set mode", path, lambda client: client.set_mode(path, mode))

    def set_times(self, path: str, *, mtime_ms: int | None, atime_ms: int | None) -> None:
        """See base.Backend."""
        self._repeatable("set times", path, lambda client: client.set_times(path, mtime_ms=mtime_ms, atime_ms=atime_ms))

    def xattrs(self, path: str) -> dict[str, bytes]:
        """See base.Backend; never repeated: programs ask for these in passing, and the way to ask may be closed."""
        return self.client().xattrs(path)

    def xattr_names(self, path: str) -> Sequence[str]:
        """See base.Backend; never repeated, as `xattrs`."""
        return self.client().xattr_names(path)

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """See base.Backend."""
        self._repeatable("set xattr", path, lambda client: client.set_xattr(path, name, value))

    def remove_xattr(self, path: str, name: str) -> None:
        """See base.Backend; done also when an answer was lost and there is none of that name."""

        def again() -> None:
            with contextlib.suppress(errors.NoAttributeError):
                self.client().remove_xattr(path, name)

        self._change("remove xattr", path, lambda: self.client().remove_xattr(path, name), again)

    def policies(self, path: str) -> Policies:
        """See base.Backend; never repeated, as `xattrs`."""
        return self.client().policies(path)

    def delete(self, path: str, *, recursive: bool) -> bool:
        """See base.Backend; True also when an answer was lost and the path is gone."""

        def again() -> bool:
            try:
                self.client().status(path)
            except errors.NotFoundError:
                return True
            return self.client().delete(path, recursive=recursive)

        return self._change("delete", path, lambda: self.client().delete(path, recursive=recursive), again)

    def close(self) -> None:
        """See base.Backend; readers that are open go on."""
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def _repeatable(self, operation: str, path: str, call: Callable[[Backend], R]) -> R:
        """What changes nothing, or has the same effect twice, is simply repeated."""
        return self._change(operation, path, lambda: call(self.client()), lambda: call(self.client()))

    def _change(self, operation: str, path: str, first: Callable[[], R], again: Callable[[], R]) -> R:
        """Call `first`; when it failed and may or may not have had its effect, `again`, which looks first."""
        started = self.retries.clock()
        try:
            result = first()
        except _TRANSIENT as e:
            return self.retries.repeat(f"{operation} {path}", e, started, again)
        self.retries.succeeded()
        return result


class ResilientReader:
    """An open file that stays one version of it, whatever happens to DataNodes and clients; see base.FileReader.

    Attributes:
        version: the modification time and length that every byte belongs to.
        length_bytes: that of the version. The last block of a file that is still being written may not be readable.
    """

    __slots__ = ("_backend", "_lock", "_path", "_raw", "length_bytes", "version")

    def __init__(self, backend: ResilientBackend, path: str, version: Version, raw: FileReader) -> None:
        """Take over `raw`, an open reader of `version`."""
        self._backend = backend
        self._path = path
        self.version = version
        self.length_bytes = version.length_bytes
        self._raw: FileReader | None = raw
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> bytes:
        """See base.FileReader.

        Raises:
            FileChangedError: the bytes of this version can't be had any more.
        """
        raw = self._range(start, stop)
        started = self._backend.retries.clock()
        try:
            data = raw.read(start, stop)
        except _TRANSIENT_READ as e:
            return self._backend.retries.repeat(
                f"read {self._path} [{start}, {stop})", e, started, lambda: self._reopen().read(start, stop)
            )
        self._backend.retries.succeeded()
        return data

    def stream(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """See base.FileReader; goes on at the byte where it broke.

        Raises:
            FileChangedError: the bytes of this version can't be had any more.
        """
        return self._stream(self._range(start, stop), start, stop)

    def _stream(self, raw: FileReader, start: int, stop: int) -> Iterator[bytes | memoryview]:
        retries, at, started = self._backend.retries, start, self._backend.retries.clock()
        failure: errors.HdfsFuseError
        try:
            chunks = raw.stream(start, stop)
        except _TRANSIENT_READ as e:
            chunks = self._resume(at, stop, e, started)
        while True:
            try:
                for chunk in chunks:
                    at += len(chunk)
                    if at > stop:
                        # Not a class that is repeated: an adapter that sends wrong bytes must not be trusted again.
                        raise errors.HdfsFuseError(f"{self._path}: a stream went beyond {stop}")
                    yield chunk
            except _TRANSIENT_READ as e:
                failure = e
            else:
                if at == stop:
                    retries.succeeded()
                    return
                failure = errors.ShortReadError(f"{self._path}: the stream ended at {at}, before {stop}")
            # Each break has a budget of its own: bytes came in between.
            chunks = self._resume(at, stop, failure, retries.clock())

    def _resume(
        self, at: int, stop: int, failure: errors.HdfsFuseError, started: float
    ) -> Iterator[bytes | memoryview]:
        """A new stream from `at` on, whose first chunk has come: only then is the break mended."""

        def attempt() -> Iterator[bytes | memoryview]:
            chunks = self._reopen().stream(at, stop)
            first = next(chunks, None)
            if first is None:
                raise errors.ShortReadError(f"{self._path}: no bytes came at {at}, before {stop}")
            return chain([first], chunks)

        return self._backend.retries.repeat(f"stream {self._path} [{at}, {stop})", failure, started, attempt)

    def _reopen(self) -> FileReader:
        """Open the file again and make sure that it is the same version.

        Without the lock: an open that hangs must not stop the others, which may have a better client by now.
        """
        client = self._backend.client()
        try:
            raw = client.open(self._path)
            found = client.status(self._path)
        except errors.NotFoundError as e:
            raise errors.FileChangedError(f"{self._path}: was removed") from e
        if (found.mtime_ms, found.length_bytes) != self.version:
            raw.close()
            raise errors.FileChangedError(f"{self._path}: was replaced while it was open")
        with self._lock:
            if self._raw is None:
                raw.close()
                raise errors.InvalidArgumentError(f"{self._path}: the reader was closed")
            old, self._raw = self._raw, raw
            self._backend.reopened += 1
        old.close()
        return raw

    def _range(self, start: int, stop: int) -> FileReader:
        raw = self._raw
        if raw is None:
            raise errors.InvalidArgumentError(f"{self._path}: the reader is closed")
        if not 0 <= start <= stop:
            raise errors.InvalidArgumentError(f"{self._path}: [{start}, {stop}) is no range")
        if stop > self.length_bytes:
            raise errors.ShortReadError(f"{self._path}: [{start}, {stop}) reaches beyond {self.length_bytes} bytes")
        return raw

    def close(self) -> None:
        """See base.FileReader."""
        with self._lock:
            raw, self._raw = self._raw, None
        if raw is not None:
            raw.close()


def _order(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape").translate(_SIGNED)
