"""A filesystem in memory that fails on command; held to the same contract suite as the real backends.

disk = FakeFilesystem()
disk.put("/file", b"data")
disk.fail("status", UnavailableError("gone"))       # the next call, before it has any effect
disk.lose_answer("delete", UnavailableError("?"))   # the next call, after it had its effect
disk.break_stream(1000, UnavailableError("cut"))    # the next stream, after 1000 bytes
backend = disk.client()
"""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from hdfs_fuse import errors
from hdfs_fuse.backend.base import FileKind, FileStatus, Policies, SpaceUsage

MAX_NAME_BYTES = 255
MAX_XATTR_BYTES, MAX_XATTRS = 16384, 32
CAPACITY_BYTES = 1 << 40


@dataclass(slots=True)
class _Node:
    status: FileStatus
    data: bytes = b""
    writer: object = None
    xattrs: dict[str, bytes] = field(default_factory=dict)


class FakeFilesystem:
    """The tree that all clients made by `client` share.

    Attributes:
        calls: how often each operation was called: status, list, open, read, stream, ...
        clients: how many were made.
        chunk_bytes: of streams.
    """

    def __init__(self, chunk_bytes: int = 64 << 10) -> None:
        """Start with an empty root directory."""
        self.chunk_bytes = chunk_bytes
        self.calls: Counter[str] = Counter()
        self.clients = 0
        self._clock_ms = 1_000_000
        self._before: defaultdict[str, deque[errors.HdfsFuseError]] = defaultdict(deque)
        self._after: defaultdict[str, deque[errors.HdfsFuseError]] = defaultdict(deque)
        self._stream_breaks: deque[tuple[int, errors.HdfsFuseError | None]] = deque()
        self._short_opens: deque[int] = deque()
        self.mutex = threading.RLock()
        self._nodes = {"/": _Node(self._new_status("", FileKind.DIRECTORY, 0o755))}

    def client(self) -> "FakeBackend":
        """A backend over this tree."""
        self.clients += 1
        return FakeBackend(self)

    # ---- content, from outside

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Create or replace a file; every change has a new modification time."""
        with self.mutex:
            self.parent_of(path)
            status = self._new_status(path.rpartition("/")[2], FileKind.FILE, mode)
            self._nodes[path] = _Node(replace(status, length_bytes=len(data)), data)

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        """Create one directory."""
        with self.mutex:
            self.parent_of(path)
            self._nodes[path] = _Node(self._new_status(path.rpartition("/")[2], FileKind.DIRECTORY, mode))

    def remove(self, path: str) -> None:
        """Remove a path and what is below it."""
        with self.mutex:
            for below in [p for p in self._nodes if p == path or p.startswith(f"{path}/")]:
                del self._nodes[below]

    # ---- faults

    def fail(self, operation: str, *failures: errors.HdfsFuseError) -> None:
        """Let the next calls of `operation` fail, one failure each, without effect."""
        self._before[operation].extend(failures)

    def lose_answer(self, operation: str, *failures: errors.HdfsFuseError) -> None:
        """Let the next calls of `operation` have their effect and fail all the same."""
        self._after[operation].extend(failures)

    def break_stream(self, after_bytes: int, failure: errors.HdfsFuseError | None) -> None:
        """Let the next stream end after so many bytes: with a failure, or with None as if the file ended."""
        self._stream_breaks.append((after_bytes, failure))

    def shorten_open(self, length_bytes: int) -> None:
        """Let the next open see so few bytes, as if the last block were still being written."""
        self._short_opens.append(length_bytes)

    # ---- for FakeBackend

    def entered(self, operation: str) -> None:
        """Count a call, and fail it if so ordered."""
        with self.mutex:
            self.calls[operation] += 1
            if self._before[operation]:
                raise self._before[operation].popleft()

    def left(self, operation: str) -> None:
        """Fail a call that had its effect, if so ordered."""
        with self.mutex:
            if self._after[operation]:
                raise self._after[operation].popleft()

    def next_stream_break(self) -> tuple[int, errors.HdfsFuseError | None] | None:
        """Where the stream that begins now is to end, if it is."""
        with self.mutex:
            return self._stream_breaks.popleft() if self._stream_breaks else None

    def next_open_length(self, length_bytes: int) -> int:
        """How many bytes the open that happens now may see."""
        with self.mutex:
            return min(length_bytes, self._short_opens.popleft()) if self._short_opens else length_bytes

    def find(self, path: str) -> _Node:
        """The node at `path`."""
        with self.mutex:
            node = self._nodes.get(path)
            if node is not None:
                return node
            parent = path.rpartition("/")[0]
            while parent:
                above = self._nodes.get(parent)
                if above is not None and above.status.kind is not FileKind.DIRECTORY:
                    raise errors.NotDirectoryError(f"{parent}: is a file")
                parent = parent.rpartition("/")[0]
            raise errors.NotFoundError(f"{path}: not found")

    def node_at(self, path: str) -> _Node | None:
        """The node at `path`, if there is one."""
        return self._nodes.get(path)

    def move(self, source: str, target: str, *, overwrite: bool) -> None:
        """Give a path another name, by HDFS's rules."""
        with self.mutex:
            node = self.find(source)
            self.parent_of(target)
            if source == target:
                raise errors.AlreadyExistsError(f"{target}: is the source")
            if target.startswith(f"{source}/"):
                raise errors.InvalidArgumentError(f"{target}: below {source}")
            self._make_way(node, target, overwrite=overwrite)
            for path in [p for p in self._nodes if p == source or p.startswith(f"{source}/")]:
                self._nodes[target + path[len(source) :]] = self._nodes.pop(path)
            node.status = replace(node.status, name=target.rpartition("/")[2])

    def _make_way(self, node: _Node, target: str, *, overwrite: bool) -> None:
        there = self._nodes.get(target)
        if there is None:
            return
        directory = there.status.kind is FileKind.DIRECTORY
        if directory != (node.status.kind is FileKind.DIRECTORY):
            raise (errors.IsDirectoryError if directory else errors.NotDirectoryError)(target)
        if not overwrite:
            raise errors.AlreadyExistsError(f"{target}: is there")
        if self.names_below(target):
            raise errors.DirectoryNotEmptyError(f"{target}: has entries")
        del self._nodes[target]

    def tick(self) -> int:
        """A new modification time, in milliseconds."""
        self._clock_ms += 1
        return self._clock_ms

    def parent_of(self, path: str) -> _Node:
        """The directory that `path` is to be in."""
        parent = self.find(path.rpartition("/")[0] or "/")
        if parent.status.kind is not FileKind.DIRECTORY:
            raise errors.NotDirectoryError(f"{path}: a file among the parents")
        if len(path.rpartition("/")[2].encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
            raise errors.NameTooLongError(f"{path}: name too long")
        return parent

    def names_below(self, path: str) -> list[str]:
        """Names of a directory's entries, in HDFS's order (signed bytes, DFSUtilClient.compareBytes)."""
        prefix = "/" if path == "/" else f"{path}/"
        with self.mutex:
            names = [p[len(prefix) :] for p in self._nodes if p.startswith(prefix) and p != "/"]
        direct = [name for name in names if "/" not in name]
        return sorted(direct, key=lambda name: [(b + 128) % 256 for b in name.encode("utf-8", "surrogateescape")])

    def replace_status(self, path: str, status: FileStatus) -> None:
        """Change attributes."""
        self.find(path).status = status

    def _new_status(self, name: str, kind: FileKind, mode: int) -> FileStatus:
        return FileStatus(name, kind, 0, mode, "fake-owner", "fake-group", self.tick())


class FakeBackend:
    """base.Backend over a FakeFilesystem."""

    def __init__(self, disk: FakeFilesystem) -> None:
        """Use `disk`; see FakeFilesystem.client."""
        self._disk = disk
        self.closed = False

    def status(self, path: str) -> FileStatus:
        """See base.Backend."""
        self._disk.entered("status")
        return self._disk.find(path).status

    def list(self, path: str) -> Iterator[FileStatus]:
        """See base.Backend."""
        self._disk.entered("list")
        if self._disk.find(path).status.kind is not FileKind.DIRECTORY:
            raise errors.NotDirectoryError(f"{path}: is a file")
        for name in self._disk.names_below(path):
            self._disk.entered("list entry")
            try:
                yield self._disk.find(f"{path.rstrip('/')}/{name}").status
            except errors.NotFoundError:
                continue

    def open(self, path: str) -> "FakeReader":
        """See base.Backend."""
        self._disk.entered("open")
        node = self._disk.find(path)
        if node.status.kind is FileKind.DIRECTORY:
            raise errors.IsDirectoryError(f"{path}: is a directory")
        return FakeReader(self._disk, path, node.data[: self._disk.next_open_length(len(node.data))])

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend."""
        self._disk.entered("space")
        self._disk.find(path)
        return SpaceUsage(CAPACITY_BYTES, 0, CAPACITY_BYTES)

    def make_directory(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._disk.entered("make_directory")
        with self._disk.mutex:
            try:
                if self._disk.find(path).status.kind is not FileKind.DIRECTORY:
                    raise errors.AlreadyExistsError(f"{path}: is a file")
            except errors.NotFoundError:
                parts = path.strip("/").split("/")
                for depth in range(1, len(parts)):
                    self._make_if_missing("/" + "/".join(parts[:depth]))
                self._disk.make_directory(path, mode)
        self._disk.left("make_directory")

    def check_write(self, path: str) -> None:
        """See base.Backend."""
        self._disk.entered("check_write")
        self._disk.find(path)

    def create_directory(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._disk.entered("create_directory")
        with self._disk.mutex:
            self._disk.parent_of(path)
            if self._disk.node_at(path) is not None:
                raise errors.AlreadyExistsError(f"{path}: is there")
            self._disk.make_directory(path, mode)
        self._disk.left("create_directory")

    def _make_if_missing(self, path: str) -> None:
        try:
            self._disk.find(path)
        except errors.NotFoundError:
            self._disk.make_directory(path)

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """See base.Backend."""
        self._disk.entered("set_owner")
        status = self._disk.find(path).status
        self._disk.replace_status(path, replace(status, owner=owner or status.owner, group=group or status.group))
        self._disk.left("set_owner")

    def copy_attributes(self, source: str, target: str) -> None:
        """See base.Backend."""
        self._disk.entered("copy_attributes")
        old, new = self._disk.find(source).status, self._disk.find(target).status
        copied = replace(new, owner=old.owner, group=old.group, replication=old.replication)
        self._disk.replace_status(target, copied)
        self._disk.left("copy_attributes")

    def move_to_trash(self, path: str) -> None:
        """See base.Backend."""
        self._disk.entered("move_to_trash")
        self._disk.find(path)
        self._disk.remove(path)
        self._disk.left("move_to_trash")

    def create(self, path: str, *, mode: int, overwrite: bool) -> "FakeWriter":
        """See base.Backend."""
        self._disk.entered("create")
        with self._disk.mutex:
            found = self._disk.node_at(path)
            if found is not None:
                if found.writer is not None and not overwrite:
                    raise errors.BusyError(f"{path}: somebody else is writing it")
                if found.status.kind is FileKind.DIRECTORY or not overwrite:
                    raise errors.AlreadyExistsError(f"{path}: is there")
            self._disk.put(path, b"", mode)
            writer = FakeWriter(self._disk, self._disk.find(path))
        self._disk.left("create")
        return writer

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, alone: bool) -> None:  # noqa: ARG002
        """See base.Backend."""
        self._disk.entered("put")
        data = b"".join(chunks)
        assert len(data) == length_bytes
        self._disk.put(path, data, mode)
        self._disk.left("put")

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:
        """See base.Backend."""
        data = b"".join(chunks)
        assert len(data) == length_bytes
        writer = self.append(path)
        writer.write(data)
        writer.close()

    def append(self, path: str) -> "FakeWriter":
        """See base.Backend."""
        self._disk.entered("append")
        with self._disk.mutex:
            node = self._disk.find(path)
            if node.status.kind is FileKind.DIRECTORY:
                raise errors.IsDirectoryError(f"{path}: is a directory")
            if node.writer is not None:
                raise errors.BusyError(f"{path}: somebody else is writing it")
            return FakeWriter(self._disk, node)

    def recover_lease(self, path: str) -> bool:
        """See base.Backend."""
        self._disk.entered("recover_lease")
        self._disk.find(path).writer = None
        return True

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """See base.Backend."""
        self._disk.entered("rename")
        self._disk.move(source, target, overwrite=overwrite)
        self._disk.left("rename")

    def set_mode(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._disk.entered("set_mode")
        self._disk.replace_status(path, replace(self._disk.find(path).status, mode=mode))
        self._disk.left("set_mode")

    def set_times(self, path: str, *, mtime_ms: int | None, atime_ms: int | None) -> None:
        """See base.Backend."""
        self._disk.entered("set_times")
        status = self._disk.find(path).status
        mtime_ms = status.mtime_ms if mtime_ms is None else mtime_ms
        atime_ms = status.atime_ms if atime_ms is None else atime_ms
        self._disk.replace_status(path, replace(status, mtime_ms=mtime_ms, atime_ms=atime_ms))
        self._disk.left("set_times")

    def xattrs(self, path: str) -> dict[str, bytes]:
        """See base.Backend."""
        self._disk.entered("xattrs")
        return dict(self._disk.find(path).xattrs)

    def xattr_names(self, path: str) -> Sequence[str]:
        """See base.Backend."""
        self._disk.entered("xattr_names")
        return [*self._disk.find(path).xattrs]

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """See base.Backend."""
        self._disk.entered("set_xattr")
        xattrs = self._disk.find(path).xattrs
        if len(name.removeprefix("user.")) + len(value) > MAX_XATTR_BYTES:
            raise errors.TooLargeError(f"{name}: {len(value)} bytes")
        if len(xattrs) == MAX_XATTRS and name not in xattrs:
            raise errors.NoSpaceError(f"{path}: has {MAX_XATTRS} attributes")
        xattrs[name] = value
        self._disk.left("set_xattr")

    def remove_xattr(self, path: str, name: str) -> None:
        """See base.Backend."""
        self._disk.entered("remove_xattr")
        if self._disk.find(path).xattrs.pop(name, None) is None:
            raise errors.NoAttributeError(f"{path}: no {name}")
        self._disk.left("remove_xattr")

    def policies(self, path: str) -> Policies:
        """See base.Backend."""
        self._disk.entered("policies")
        self._disk.find(path)
        return Policies()

    def delete(self, path: str, *, recursive: bool) -> bool:
        """See base.Backend."""
        self._disk.entered("delete")
        try:
            self._disk.find(path)
        except errors.NotFoundError:
            return False
        if not recursive and self._disk.names_below(path):
            raise errors.DirectoryNotEmptyError(f"{path}: has entries")
        self._disk.remove(path)
        self._disk.left("delete")
        return True

    def close(self) -> None:
        """See base.Backend."""
        self.closed = True


class FakeAdministration:
    """backend.administration.Administration over the same tree, for what the controller does with a volume.

    Attributes:
        quotas: what `set_quota` was told last, by the path at that time: names and raw bytes.
    """

    def __init__(self, disk: FakeFilesystem) -> None:
        self._disk = disk
        self._backend = disk.client()
        self.quotas: dict[str, tuple[int | None, int | None]] = {}

    def raw_space(self, path: str) -> SpaceUsage:
        """Always a terabyte."""
        self._disk.find(path)
        return SpaceUsage(1 << 40, 0, 1 << 40)

    def content_bytes(self, path: str) -> int:
        """Length of the files directly in a directory."""
        return sum(entry.length_bytes for entry in self._backend.list(path))

    def default_replication(self) -> int:
        """As HDFS comes."""
        return 3

    def policies(self, path: str) -> Policies:
        """See base.Backend."""
        return self._backend.policies(path)

    def set_quota(self, path: str, *, names: int | None, space_bytes: int | None) -> None:
        """See Administration."""
        self._disk.entered("set_quota")
        self._disk.find(path)
        self.quotas[path] = names, space_bytes
        self._disk.left("set_quota")

    def set_storage_policy(self, path: str, name: str) -> None:  # noqa: ARG002
        """See Administration."""
        self._disk.entered("set_storage_policy")

    def set_erasure_coding_policy(self, path: str, name: str) -> None:  # noqa: ARG002
        """See Administration."""
        self._disk.entered("set_erasure_coding_policy")

    def set_replication(self, path: str, replication: int) -> None:
        """See Administration."""
        self._disk.entered("set_replication")
        self._disk.replace_status(path, replace(self._disk.find(path).status, replication=replication))

    def mark(self, path: str, name: str, value: str) -> None:
        """See Administration."""
        self._backend.set_xattr(path, name, value.encode())

    def mark_of(self, path: str, name: str) -> str:
        """See Administration."""
        return self._backend.xattrs(path).get(name, b"").decode()

    def allow_snapshots(self, path: str) -> None:
        """See Administration."""
        self._disk.find(path)

    def create_snapshot(self, path: str, name: str) -> None:
        """A copy of the files directly in the directory, and not of what is below."""
        self._disk.entered("create_snapshot")
        copy = f"{path}/.snapshot/{name}"
        if self._disk.node_at(copy) is None:
            files = [entry for entry in self._backend.list(path) if entry.kind is FileKind.FILE]
            self._backend.make_directory(copy, 0o755)
            for entry in files:
                self._disk.put(f"{copy}/{entry.name}", self._disk.find(f"{path}/{entry.name}").data)
        self._disk.left("create_snapshot")

    def delete_snapshot(self, path: str, name: str) -> None:
        """See Administration."""
        self._disk.entered("delete_snapshot")
        self._backend.delete(f"{path}/.snapshot/{name}", recursive=True)
        self._disk.left("delete_snapshot")


class FakeWriter:
    """base.FileWriter over a node of a FakeFilesystem."""

    def __init__(self, disk: FakeFilesystem, node: _Node) -> None:
        """Write behind what `node` has, and hold its lease."""
        self._disk = disk
        self._node = node
        node.writer = self

    def write(self, data: bytes) -> None:
        """See base.FileWriter."""
        self._change("write", data)

    def sync(self) -> None:
        """See base.FileWriter."""
        self._change("sync", b"")

    def _change(self, operation: str, data: bytes) -> None:
        self._disk.entered(operation)
        with self._disk.mutex:
            if self._node.writer is not self:
                raise errors.BusyError("the lease is gone")
            self._node.data += data
            self._node.status = replace(self._node.status, length_bytes=len(self._node.data))
        self._disk.left(operation)

    def close(self) -> None:
        """See base.FileWriter."""
        self._disk.entered("close")
        with self._disk.mutex:
            if self._node.writer is self:
                self._node.writer = None
                self._node.status = replace(self._node.status, mtime_ms=self._disk.tick())


class FakeReader:
    """base.FileReader over the bytes that the file had when it was opened."""

    def __init__(self, disk: FakeFilesystem, path: str, data: bytes) -> None:
        """Read `data`."""
        self._disk = disk
        self._path = path
        self._data = data
        self.length_bytes = len(data)
        self.closed = False

    def read(self, start: int, stop: int) -> bytes:
        """See base.FileReader."""
        self._check(start, stop)
        self._disk.entered("read")
        return self._data[start:stop]

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """See base.FileReader."""
        self._check(start, stop)
        return self._stream(start, stop)

    def _stream(self, start: int, stop: int) -> Iterator[bytes]:
        self._disk.entered("stream")
        broken = self._disk.next_stream_break()
        end = stop if broken is None else min(stop, start + broken[0])
        for at in range(start, end, self._disk.chunk_bytes):
            yield self._data[at : min(at + self._disk.chunk_bytes, end)]
        if broken is not None and broken[1] is not None:
            raise broken[1]

    def _check(self, start: int, stop: int) -> None:
        if self.closed:
            raise errors.InvalidArgumentError(f"{self._path}: the reader is closed")
        if not 0 <= start <= stop:
            raise errors.InvalidArgumentError(f"{self._path}: [{start}, {stop}) is no range")
        if stop > len(self._data):
            raise errors.ShortReadError(f"{self._path}: [{start}, {stop}) reaches beyond {len(self._data)} bytes")

    def close(self) -> None:
        """See base.FileReader."""
        self.closed = True
