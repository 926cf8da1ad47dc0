"""Backends over pyarrow.fs: HDFS through libhdfs and a JVM, and the machine's own files.

Arrow streams from HDFS faster than the native client on a warm JVM, at 150 to 420 MiB resident. It does not show
owner and mode, so directories get 0o755, files 0o644, and both the user of the process; modification times of HDFS have
whole seconds, so a file replaced within one second by another of its length passes for the same. Lists come whole: a
directory of a million entries takes some hundred MiB while it is listed.

What Arrow can't do exactly (modes, owners, a delete that is not recursive, space, extended attributes) goes over
WebHDFS, or to the operating system for local files. pyarrow is imported by the constructors, since importing it costs
39 MiB.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import Any

from hdfs_fuse import errors
from hdfs_fuse.backend import hadoop_conf, local
from hdfs_fuse.backend.administration import Administration
from hdfs_fuse.backend.base import Backend, FileKind, FileStatus, FileWriter, Policies, SpaceUsage
from hdfs_fuse.backend.identity import effective_user
from hdfs_fuse.backend.webhdfs import WebHdfs, connect_webhdfs
from hdfs_fuse.config import Location

# What the Java client runs with where the user's configuration says nothing: give up early, since resilient.py
# repeats within the caller's deadline. Java's own are 10 attempts of 20 s, and 120 s for an answer.
CLIENT_DEFAULTS: Mapping[str, str] = {
    "ipc.client.connect.max.retries": "1",
    "ipc.client.connect.max.retries.on.timeouts": "1",
    "ipc.client.connect.timeout": "10000",
    "ipc.client.rpc-timeout.ms": "30000",
    "dfs.client.socket-timeout": "10000",
    "dfs.client.block.write.replace-datanode-on-failure.best-effort": "true",
}

_DIRECTORY_MODE, _FILE_MODE = 0o755, 0o644

# Reads of 1 MiB stream at 1.8 GB/s through libhdfs, of 8 MiB at 1.3 to 1.6.
_STREAM_CHUNK_BYTES = 1 << 20
# A positioned read is a request of its own to a DataNode: fewer, larger ones.
_POSITIONED_CHUNK_BYTES = 4 << 20


class _ArrowBackend:
    """What both filesystems share: reading."""

    # Whether a file's own position may be used beside positioned reads; Arrow's local files refuse that.
    _has_cursor = False

    def __init__(self, arrow_fs: ModuleType, filesystem: Any) -> None:
        self._fs = filesystem
        self._selector = arrow_fs.FileSelector
        self._kinds = {
            arrow_fs.FileType.NotFound: None,
            arrow_fs.FileType.Directory: FileKind.DIRECTORY,
        }
        # Arrow says neither, and a file that this process can list is most often its own.
        self._owner = effective_user()

    def status(self, path: str) -> FileStatus:
        """See base.Backend; symlinks are followed."""
        with _Translated(path):
            info = self._fs.get_file_info(path)
        found = self._status(info)
        if found is None:
            self._check_absent(path)
            raise errors.NotFoundError(f"{path}: not found")
        return found

    def list(self, path: str) -> Iterator[FileStatus]:
        """See base.Backend; the whole list is held in memory."""
        with _Translated(path):
            entries = self._fs.get_file_info(self._selector(path))
        for info in entries:
            if found := self._status(info):
                yield found

    def open(self, path: str) -> "ArrowReader":
        """See base.Backend."""
        try:
            with _Translated(path):
                return ArrowReader(path, self._fs.open_input_file(path), has_cursor=self._has_cursor)
        except errors.HdfsFuseError as e:
            # libhdfs takes a directory for a missing file, and a path below a file for a forbidden one. Asked only
            # now: a look-up of Arrow's costs two calls to the NameNode.
            if self.status(path).kind is FileKind.DIRECTORY:
                raise errors.IsDirectoryError(f"{path}: is a directory") from e
            raise

    def _check_absent(self, path: str) -> None:
        """Make sure that `path` is not there after Arrow said so; raises what the matter is otherwise."""

    def _status(self, info: Any) -> FileStatus | None:
        kind = self._kinds.get(info.type, FileKind.FILE)
        if kind is None:
            return None
        directory = kind is FileKind.DIRECTORY
        return FileStatus(
            name=info.path.rpartition("/")[2],
            kind=kind,
            length_bytes=0 if directory else info.size or 0,
            mode=_DIRECTORY_MODE if directory else _FILE_MODE,
            owner=self._owner,
            group="",
            mtime_ms=(info.mtime_ns or 0) // 1_000_000,
        )

    def close(self) -> None:
        """See base.Backend; Arrow disconnects when the last reader has gone."""


class _ChangesElsewhere:
    """Mutations and space, which Arrow does not do exactly, by another way; a mixin for _ArrowBackend."""

    _other: Backend | WebHdfs

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend."""
        return self._other.space(path)

    def make_directory(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._other.make_directory(path, mode)

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """See base.Backend."""
        self._other.set_owner(path, owner, group)

    def _writable(self, path: str) -> Backend:
        """What writes instead; for HDFS nothing does: Arrow has neither leases nor hsync, WebHDFS no writer."""
        if isinstance(self._other, WebHdfs):
            raise errors.UnsupportedError(f"{path}: backend pyarrow does not write; use hdfs-native")
        return self._other

    def copy_attributes(self, source: str, target: str) -> None:
        """See base.Backend."""
        self._writable(target).copy_attributes(source, target)

    def move_to_trash(self, path: str) -> None:
        """See base.Backend."""
        self._writable(path).move_to_trash(path)

    def check_write(self, path: str) -> None:
        """See base.Backend."""
        self._other.check_write(path)

    def create_directory(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._writable(path).create_directory(path, mode)

    def create(self, path: str, *, mode: int, overwrite: bool) -> FileWriter:
        """See base.Backend."""
        return self._writable(path).create(path, mode=mode, overwrite=overwrite)

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, alone: bool) -> None:
        """See base.Backend."""
        self._writable(path).put(path, chunks, length_bytes, mode, alone=alone)

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:
        """See base.Backend."""
        self._writable(path).extend(path, chunks, length_bytes)

    def append(self, path: str) -> FileWriter:
        """See base.Backend."""
        return self._writable(path).append(path)

    def recover_lease(self, path: str) -> bool:
        """See base.Backend."""
        return self._writable(path).recover_lease(path)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """See base.Backend."""
        self._writable(source).rename(source, target, overwrite=overwrite)

    def set_mode(self, path: str, mode: int) -> None:
        """See base.Backend."""
        self._writable(path).set_mode(path, mode)

    def set_times(self, path: str, *, mtime_ms: int | None, atime_ms: int | None) -> None:
        """See base.Backend."""
        self._writable(path).set_times(path, mtime_ms=mtime_ms, atime_ms=atime_ms)

    def xattrs(self, path: str) -> dict[str, bytes]:
        """See base.Backend."""
        return self._other.xattrs(path)

    def xattr_names(self, path: str) -> Sequence[str]:
        """See base.Backend."""
        return self._other.xattr_names(path)

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """See base.Backend."""
        self._writable(path).set_xattr(path, name, value)

    def remove_xattr(self, path: str, name: str) -> None:
        """See base.Backend."""
        self._writable(path).remove_xattr(path, name)

    def policies(self, path: str) -> Policies:
        """See base.Backend."""
        return self._other.policies(path)

    def delete(self, path: str, *, recursive: bool) -> bool:
        """See base.Backend."""
        return self._other.delete(path, recursive=recursive)


class ArrowHdfsBackend(_ChangesElsewhere, _ArrowBackend):
    """HDFS through libhdfs, under the identity of the process (see base.Backend)."""

    _has_cursor = True

    def __init__(self, location: Location, properties: Mapping[str, str]) -> None:
        """Start the JVM, unless this process has one.

        Args:
            location: with its authority resolved.
            properties: Hadoop keys; the JVM reads the files on its CLASSPATH besides (identity.client_environment).

        Raises:
            UnsupportedError: pyarrow, libhdfs or Java is missing.
            UnavailableError: the JVM or the client did not start, for instance because the host is unknown.
        """
        arrow_fs = _import_arrow_fs()
        host, port = location.authority, 0  # 0: a nameservice
        if not hadoop_conf.namenode_ids(location.authority, properties):
            host, _, number = location.authority.rpartition(":")
            port = int(number)
        try:
            filesystem = arrow_fs.HadoopFileSystem(host, port, extra_conf={**CLIENT_DEFAULTS, **properties})
        except OSError as e:
            if "libhdfs" in str(e) or "libjvm" in str(e):
                raise errors.UnsupportedError(
                    f"backend pyarrow: {e}; set ARROW_LIBHDFS_DIR, JAVA_HOME and CLASSPATH for Hadoop's libhdfs"
                ) from e
            raise errors.UnavailableError(f"{location.filesystem}: {e}; is CLASSPATH set to Hadoop's jars?") from e
        super().__init__(arrow_fs, filesystem)
        self._other = connect_webhdfs(location.authority, properties)
        self._administration = Administration(self._other, properties)

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend."""
        return self._administration.space(path)

    def _check_absent(self, path: str) -> None:
        # Arrow answers "not found" to whatever goes wrong, a dead NameNode included; a listing tells errors apart,
        # and libhdfs prints no stack trace for it.
        if ":" in path:
            return  # no HDFS name has one
        try:
            for _ in self.list(path):
                return  # it came into being just now; the next look-up will show it
        except errors.NotFoundError:
            return
        except errors.PermissionDeniedError:
            # HDFS refuses a path below a file as it refuses an identity (FSPermissionChecker.checkIsDirectory).
            parent = path.rpartition("/")[0] or "/"
            with _Translated(path):
                above = self._status(self._fs.get_file_info(parent))
            if above is not None and above.kind is not FileKind.DIRECTORY:
                raise errors.NotDirectoryError(f"{path}: a file among the parents") from None
            raise


class ArrowLocalBackend(_ChangesElsewhere, _ArrowBackend):
    """The machine's files through Arrow: for comparing; local.LocalBackend is exact and lighter (see base.Backend)."""

    def __init__(self) -> None:
        """Import pyarrow.

        Raises:
            UnsupportedError: it is not installed.
        """
        arrow_fs = _import_arrow_fs()
        super().__init__(arrow_fs, arrow_fs.LocalFileSystem())
        self._other = local.LocalBackend()


class ArrowReader:
    """An open file of Arrow; see base.FileReader."""

    __slots__ = ("_cursor", "_file", "_path", "length_bytes")

    def __init__(self, path: str, file: Any, *, has_cursor: bool) -> None:
        """Take over a pyarrow.NativeFile that can seek; `has_cursor`: also while others use positioned reads."""
        self._path = path
        self._file: Any | None = file
        # Held by the one stream that moves the file's own position; positioned reads do not touch it.
        self._cursor = threading.Lock() if has_cursor else None
        with _Translated(path):
            self.length_bytes: int = file.size()

    def read(self, start: int, stop: int) -> bytes:
        """See base.FileReader."""
        return self._read(self._range(start, stop), start, stop)

    def _read(self, file: Any, start: int, stop: int) -> bytes:
        with _Translated(self._path):
            data: bytes = file.read_at(stop - start, start)
        if len(data) != stop - start:
            raise errors.ShortReadError(f"{self._path}: {len(data)} of {stop - start} bytes came at {start}")
        return data

    def stream(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """See base.FileReader; one stream at a time is sequential for the DataNode, others are positioned reads."""
        return self._stream(self._range(start, stop), start, stop)

    def _stream(self, file: Any, start: int, stop: int) -> Iterator[bytes | memoryview]:
        cursor = self._cursor
        if cursor is not None and cursor.acquire(blocking=False):
            try:
                yield from self._sequential(file, start, stop)
            finally:
                cursor.release()
        else:
            for at in range(start, stop, _POSITIONED_CHUNK_BYTES):
                yield self._read(file, at, min(at + _POSITIONED_CHUNK_BYTES, stop))

    def _sequential(self, file: Any, start: int, stop: int) -> Iterator[memoryview]:
        at = start
        with _Translated(self._path):
            file.seek(start)
            while at < stop:
                # A Buffer shares Arrow's memory; read() would copy it.
                chunk = memoryview(file.read_buffer(min(_STREAM_CHUNK_BYTES, stop - at)))
                if not chunk:
                    raise errors.ShortReadError(f"{self._path}: the stream ended at {at}, before {stop}")
                at += len(chunk)
                yield chunk

    def _range(self, start: int, stop: int) -> Any:
        if self._file is None:
            raise errors.InvalidArgumentError(f"{self._path}: the reader is closed")
        if not 0 <= start <= stop:
            raise errors.InvalidArgumentError(f"{self._path}: [{start}, {stop}) is no range")
        if stop > self.length_bytes:
            raise errors.ShortReadError(f"{self._path}: [{start}, {stop}) reaches beyond {self.length_bytes} bytes")
        return self._file

    def close(self) -> None:
        """See base.FileReader; Arrow closes the file when the last stream lets go of it."""
        self._file = None


def _import_arrow_fs() -> ModuleType:
    try:
        import pyarrow.fs  # noqa: PLC0415 - see the module's docstring
    except ImportError as e:
        raise errors.UnsupportedError("backend pyarrow: install it with: pip install 'hdfs-csi[pyarrow]'") from e
    module: ModuleType = pyarrow.fs
    return module


class _Translated:
    """Turns what Arrow raises inside the block into our exceptions."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, errors.HdfsFuseError):
            return
        raise _translate(error, self._path) from error


def _translate(error: Exception, path: str) -> errors.HdfsFuseError:
    text = f"{path}: {error}"
    if isinstance(error, UnicodeEncodeError):
        return errors.NotFoundError(f"{path!r}: names are UTF-8")
    if isinstance(error, OSError):
        if "to be a directory" in str(error):
            return errors.NotDirectoryError(text)
        if error.errno in _KNOWN_ERRNO:
            return local.translate(error, path)
        # libhdfs's EINTERNAL (255), or none: what Java threw is only printed (libhdfs exception.c).
        return errors.UnavailableError(text)
    return errors.BackendError(f"{path}: {type(error).__name__}: {error}")


_KNOWN_ERRNO = frozenset(local.ERRORS)
