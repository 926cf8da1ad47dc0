"""The machine's own files behind the backend Protocol: `file:///path`, for trying things out without a cluster.

Plain system calls rather than pyarrow's LocalFileSystem: importing pyarrow.fs takes a process from 8 to 47 MiB
resident, which alone would all but use up the 60 MiB of an idle mount, and it hides mode, owner and symlinks. The Arrow
one stands in arrow.py and is chosen with backend="pyarrow".
"""

import contextlib
import ctypes
import errno
import fcntl
import grp
import os
import pwd
import secrets
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache

from hdfs_fuse import errors
from hdfs_fuse.backend.base import FileKind, FileStatus, Policies, SpaceUsage

# Large enough that the interpreter's share of a copy is small, small enough to show progress.
_STREAM_CHUNK_BYTES = 1 << 20

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1

# What an errno of the operating system means.
ERRORS: dict[int, type[errors.HdfsFuseError]] = {
    errno.ENOENT: errors.NotFoundError,
    errno.EACCES: errors.PermissionDeniedError,
    errno.EPERM: errors.PermissionDeniedError,
    errno.EEXIST: errors.AlreadyExistsError,
    errno.ENOTDIR: errors.NotDirectoryError,
    errno.EISDIR: errors.IsDirectoryError,
    errno.ENOTEMPTY: errors.DirectoryNotEmptyError,
    errno.EDQUOT: errors.QuotaExceededError,
    errno.EROFS: errors.ReadOnlyError,
    errno.EBUSY: errors.BusyError,
    errno.ETXTBSY: errors.BusyError,
    errno.ENOSPC: errors.NoSpaceError,
    errno.EXDEV: errors.CrossDeviceError,
    errno.ENAMETOOLONG: errors.NameTooLongError,
    errno.ENODATA: errors.NoAttributeError,
    errno.E2BIG: errors.TooLargeError,
    errno.EINVAL: errors.InvalidArgumentError,
    errno.ELOOP: errors.UnsupportedError,  # O_NOFOLLOW met a symlink
    errno.ENXIO: errors.UnsupportedError,  # a socket, or a device without a driver
    errno.EOPNOTSUPP: errors.UnsupportedError,
    # A file server behind the path that went away.
    errno.EIO: errors.UnavailableError,
    errno.ESTALE: errors.FileChangedError,
    errno.ETIMEDOUT: errors.UnavailableError,
}


def translate(error: OSError, path: str) -> errors.HdfsFuseError:
    """Our exception for an OSError that carries an errno, to raise `from` it."""
    text = f"{path}: {error.strerror or error}"
    return ERRORS.get(error.errno or 0, errors.BackendError)(text)


class LocalBackend:
    """The machine's filesystem from `/` on, as the user of the process; see base.Backend."""

    def status(self, path: str) -> FileStatus:
        """See base.Backend."""
        try:
            return _status(os.path.basename(path), os.lstat(path))
        except OSError as e:
            raise translate(e, path) from e

    def list(self, path: str) -> Iterator[FileStatus]:
        """See base.Backend; the order is the directory's own."""
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed since it was listed
                    yield _status(entry.name, found)
        except OSError as e:
            raise translate(e, path) from e

    def open(self, path: str) -> "LocalReader":
        """See base.Backend; only regular files can be opened."""
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOFOLLOW: `status` does not follow either.
            descriptor = _Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW))
        except OSError as e:
            raise translate(e, path) from e
        found = os.fstat(descriptor.fd)
        if stat.S_ISDIR(found.st_mode):
            raise errors.IsDirectoryError(f"{path}: is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise errors.UnsupportedError(f"{path}: is no regular file")
        return LocalReader(path, descriptor, found.st_size)

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend."""
        try:
            found = os.statvfs(path)
        except OSError as e:
            raise translate(e, path) from e
        return SpaceUsage(
            capacity_bytes=found.f_blocks * found.f_frsize,
            used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
            free_bytes=found.f_bavail * found.f_frsize,
            max_names=found.f_files,
            used_names=found.f_files - found.f_ffree,
        )

    def make_directory(self, path: str, mode: int) -> None:
        """See base.Backend; parents that are missing get 0o755 less the umask."""
        try:
            parent = os.path.dirname(path)
            if not os.path.lexists(path):
                os.makedirs(parent, mode=0o755, exist_ok=True)
            try:
                os.mkdir(path)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise
                return
            os.chmod(path, mode)
        except FileExistsError as e:
            # makedirs says EEXIST of a parent that is a file.
            if not os.path.lexists(path):
                raise errors.NotDirectoryError(f"{path}: a file among the parents") from e
            raise translate(e, path) from e
        except OSError as e:
            raise translate(e, path) from e

    def check_write(self, path: str) -> None:
        """See base.Backend."""
        try:
            os.lstat(path)
        except OSError as e:
            raise translate(e, path) from e
        if not os.access(path, os.W_OK, effective_ids=True):
            raise errors.PermissionDeniedError(f"{path}: may not be written")

    def create_directory(self, path: str, mode: int) -> None:
        """See base.Backend."""
        try:
            os.mkdir(path)
            os.chmod(path, mode)
        except OSError as e:
            raise translate(e, path) from e

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """See base.Backend."""
        try:
            uid = -1 if owner is None else pwd.getpwnam(owner).pw_uid
            gid = -1 if group is None else grp.getgrnam(group).gr_gid
            os.chown(path, uid, gid, follow_symlinks=False)
        except KeyError as e:
            raise errors.InvalidArgumentError(f"{path}: {e.args[0]}") from e
        except OSError as e:
            raise translate(e, path) from e

    def copy_attributes(self, source: str, target: str) -> None:
        """See base.Backend; owner and group."""
        try:
            old, new = os.lstat(source), os.lstat(target)
            for uid, gid in ((old.st_uid, old.st_gid), (new.st_uid, old.st_gid)):
                if (uid, gid) == (new.st_uid, new.st_gid):
                    break
                with contextlib.suppress(PermissionError):
                    os.chown(target, uid, gid, follow_symlinks=False)
                    break
        except OSError as e:
            raise translate(e, target) from e

    def move_to_trash(self, path: str) -> None:
        """See base.Backend."""
        raise errors.UnsupportedError(f"{path}: the trash is HDFS's")

    def create(self, path: str, *, mode: int, overwrite: bool) -> "LocalWriter":
        """See base.Backend. One that overwrites is a new file, as in HDFS: who has the old one open keeps it."""
        name = f"{path}.{secrets.token_hex(8)}.tmp" if overwrite else path
        try:
            descriptor = _Descriptor(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))
            os.fchmod(descriptor.fd, mode)
            writer = LocalWriter(path, descriptor)
            if overwrite:
                os.rename(name, path)
        except FileExistsError as e:
            if stat.S_ISREG(os.lstat(path).st_mode):
                self.append(path)  # BusyError where somebody is writing it
            raise translate(e, path) from e
        except OSError as e:
            if overwrite and os.path.lexists(name):
                os.unlink(name)
            raise translate(e, path) from e
        return writer

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, alone: bool) -> None:  # noqa: ARG002
        """See base.Backend; a local disk has one way."""
        raise errors.UnsupportedError(f"{path}: a local file is written in one way only")

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:  # noqa: ARG002
        """See base.Backend; a local disk has one way."""
        raise errors.UnsupportedError(f"{path}: a local file is written in one way only")

    def append(self, path: str) -> "LocalWriter":
        """See base.Backend."""
        try:
            return LocalWriter(
                path, _Descriptor(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW))
            )
        except OSError as e:
            raise translate(e, path) from e

    def recover_lease(self, path: str) -> bool:
        """See base.Backend: the kernel ends a flock with its process."""
        self.append(path)
        return True

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """See base.Backend."""
        try:
            if overwrite:
                os.rename(source, target)
            elif _LIBC.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        except OSError as e:
            raise translate(e, f"{source} to {target}") from e

    def set_mode(self, path: str, mode: int) -> None:
        """See base.Backend."""
        try:
            os.chmod(path, mode)
        except OSError as e:
            raise translate(e, path) from e

    def set_times(self, path: str, *, mtime_ms: int | None, atime_ms: int | None) -> None:
        """See base.Backend."""
        try:
            found = os.lstat(path)
            atime_ns = found.st_atime_ns if atime_ms is None else atime_ms * 1_000_000
            mtime_ns = found.st_mtime_ns if mtime_ms is None else mtime_ms * 1_000_000
            os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)
        except OSError as e:
            raise translate(e, path) from e

    def xattrs(self, path: str) -> dict[str, bytes]:
        """See base.Backend."""
        found = {}
        for name in self.xattr_names(path):
            try:
                found[name] = os.getxattr(path, name, follow_symlinks=False)
            except OSError as e:
                if e.errno != errno.ENODATA:  # removed since it was listed
                    raise translate(e, path) from e
        return found

    def xattr_names(self, path: str) -> Sequence[str]:
        """See base.Backend."""
        try:
            return [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
        except OSError as e:
            raise translate(e, path) from e

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """See base.Backend."""
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as e:
            raise translate(e, path) from e

    def remove_xattr(self, path: str, name: str) -> None:
        """See base.Backend."""
        try:
            os.removexattr(path, name, follow_symlinks=False)
        except OSError as e:
            raise translate(e, path) from e

    def policies(self, path: str) -> Policies:
        """See base.Backend; those are HDFS's."""
        self.status(path)
        return Policies()

    def delete(self, path: str, *, recursive: bool) -> bool:
        """See base.Backend."""
        # A tenth of a MiB that a daemon which never deletes need not load.
        import shutil  # noqa: PLC0415

        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
            elif recursive:
                shutil.rmtree(path)
            else:
                os.rmdir(path)
        except FileNotFoundError:
            return False
        except OSError as e:
            raise translate(e, path) from e
        return True

    def close(self) -> None:
        """See base.Backend."""


class _Descriptor:
    """A file descriptor that is closed when its last user lets go of it.

    Never before: a number that is closed while another thread reads may already mean another file.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)


class LocalReader:
    """An open regular file; see base.FileReader. It stays the file that was opened, also once unlinked."""

    __slots__ = ("_descriptor", "_path", "length_bytes")

    def __init__(self, path: str, descriptor: _Descriptor, length_bytes: int) -> None:
        """Share `descriptor`; it lives as long as this reader and its streams use it."""
        self._path = path
        self._descriptor: _Descriptor | None = descriptor
        self.length_bytes = length_bytes

    def read(self, start: int, stop: int) -> bytes:
        """See base.FileReader."""
        return self._read(self._range(start, stop), start, stop)

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """See base.FileReader."""
        return self._stream(self._range(start, stop), start, stop)

    def _stream(self, descriptor: _Descriptor, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, _STREAM_CHUNK_BYTES):
            yield self._read(descriptor, at, min(at + _STREAM_CHUNK_BYTES, stop))

    def _read(self, descriptor: _Descriptor, start: int, stop: int) -> bytes:
        try:
            data = os.pread(descriptor.fd, stop - start, start)
            # One read(2) moves at most 0x7ffff000 bytes, so a range may need several.
            while len(data) < stop - start:
                more = os.pread(descriptor.fd, stop - start - len(data), start + len(data))
                if not more:
                    raise errors.ShortReadError(f"{self._path}: the file ends at {start + len(data)}, before {stop}")
                data += more
        except OSError as e:
            raise translate(e, self._path) from e
        return data

    def _range(self, start: int, stop: int) -> _Descriptor:
        if self._descriptor is None:
            raise errors.InvalidArgumentError(f"{self._path}: the reader is closed")
        if not 0 <= start <= stop:
            raise errors.InvalidArgumentError(f"{self._path}: [{start}, {stop}) is no range")
        if stop > self.length_bytes:
            raise errors.ShortReadError(f"{self._path}: [{start}, {stop}) reaches beyond {self.length_bytes} bytes")
        return self._descriptor

    def close(self) -> None:
        """See base.FileReader; reads and streams that are under way go on."""
        self._descriptor = None


class LocalWriter:
    """A file that is being written; see base.FileWriter. Its flock is what a lease is in HDFS."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: str, descriptor: _Descriptor) -> None:
        """Write at the position of `descriptor`.

        Raises:
            BusyError: another writer has the file.
        """
        try:
            fcntl.flock(descriptor.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise errors.BusyError(f"{path}: somebody else is writing it") from e
        self._path = path
        self._descriptor: _Descriptor | None = descriptor

    def write(self, data: bytes) -> None:
        """See base.FileWriter."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._opened(), view) :]
        except OSError as e:
            raise translate(e, self._path) from e

    def sync(self) -> None:
        """See base.FileWriter."""
        try:
            os.fsync(self._opened())
        except OSError as e:
            raise translate(e, self._path) from e

    def _opened(self) -> int:
        if self._descriptor is None:
            raise errors.InvalidArgumentError(f"{self._path}: the writer is closed")
        return self._descriptor.fd

    def close(self) -> None:
        """See base.FileWriter."""
        if self._descriptor is not None:
            self.sync()
            self._descriptor = None


def _status(name: str, found: os.stat_result) -> FileStatus:
    mode = found.st_mode
    directory = stat.S_ISDIR(mode)
    kind = FileKind.DIRECTORY if directory else FileKind.SYMLINK if stat.S_ISLNK(mode) else FileKind.FILE
    return FileStatus(
        name=name,
        kind=kind,
        length_bytes=0 if directory else found.st_size,
        mode=stat.S_IMODE(mode) & 0o1777,
        owner=_user_name(found.st_uid),
        group=_group_name(found.st_gid),
        mtime_ms=found.st_mtime_ns // 1_000_000,
        atime_ms=found.st_atime_ns // 1_000_000,
    )


@lru_cache(maxsize=256)  # a machine has few owners, and each look-up reads /etc/passwd
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@lru_cache(maxsize=256)
def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
