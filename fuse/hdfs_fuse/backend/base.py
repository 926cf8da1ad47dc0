"""The Protocol that every backend implements, and the records that cross it.

All methods block and may be called from any thread. They raise only exceptions of hdfs_fuse.errors. Paths are
absolute `str` in the backend's own namespace; names that are not UTF-8 use surrogateescape.
"""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


class FileKind(enum.Enum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What the NameNode says of a path (HDFS HdfsFileStatusProto).

    Attributes:
        name: last component of the path; empty for the root.
        kind: file, directory or symlink.
        length_bytes: content length; 0 for directories.
        mode: permission bits, 0 to 0o1777.
        owner, group: names as HDFS has them.
        mtime_ms, atime_ms: milliseconds since the epoch.
        replication: replicas of each block; 0 for directories and erasure-coded files.
        block_size_bytes: HDFS block size; 0 for directories.
    """

    name: str
    kind: FileKind
    length_bytes: int
    mode: int
    owner: str
    group: str
    mtime_ms: int
    atime_ms: int = 0
    replication: int = 0
    block_size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SpaceUsage:
    """Space of a quota or of the whole filesystem, for statfs.

    Attributes:
        capacity_bytes: how much fits.
        used_bytes: how much is taken.
        free_bytes: how much can still be written; capacity less used is an upper bound for it.
        max_names: how many files and directories there may be, the path itself included; 0 where nothing bounds them.
        used_names: how many there are; 0 where nothing bounds them.
    """

    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    max_names: int = 0
    used_names: int = 0


@dataclass(frozen=True, slots=True)
class Policies:
    """How HDFS stores a file, or the new files of a directory; what is not set is empty.

    Attributes:
        storage: name of the storage policy, such as "COLD".
        erasure_coding: name of the erasure-coding policy, such as "RS-6-3-1024k".
    """

    storage: str = ""
    erasure_coding: str = ""


class FileReader(Protocol):
    """An open file. `read` may be called by several threads at once; streams are independent of each other.

    Attributes:
        length_bytes: length at the time of the open.
    """

    length_bytes: int

    def read(self, start: int, stop: int) -> bytes:
        """Read [start, stop), in bytes, with 0 <= start <= stop <= length_bytes.

        Returns:
            Exactly stop - start bytes.

        Raises:
            ShortReadError: the file ended before `stop`.
        """
        ...

    def stream(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Read [start, stop) in order, in chunks of any size, as they arrive. Closing the iterator ends the transfer.

        The adapter hands over the buffers that its client makes (hdfs-native: 64 KiB packets as bytes), since
        filling a buffer of ours would add a copy to each. The concatenation has exactly stop - start bytes.

        Raises:
            ShortReadError: the file ended before `stop`.
        """
        ...

    def close(self) -> None:
        """Free what the reader holds; idempotent."""
        ...


class FileWriter(Protocol):
    """A file that is being written, front to back. For one thread at a time.

    After an error it is of no further use: let go of it, without `close`, which may hide the error and commit a part.
    """

    def write(self, data: bytes) -> None:
        """Add `data` behind what was written. It may still be on its way when this returns."""
        ...

    def sync(self) -> None:
        """Wait until all that was written is on the DataNodes' disks, and counts in the length that others see.

        Raises:
            UnsupportedError: an erasure-coded file, which has to be closed.
        """
        ...

    def close(self) -> None:
        """Complete the file; idempotent. hdfs-native waits 0.4 s for the report of the last block."""
        ...


class Backend(Protocol):
    """One filesystem under one identity."""

    def status(self, path: str) -> FileStatus:
        """Attributes of `path`, symlinks not followed.

        Raises:
            NotFoundError, PermissionDeniedError. NotDirectoryError: a file among the parents; HDFS says NotFound of
                that to its superuser, and asking again would double the price of every absent name.
        """
        ...

    def list(self, path: str) -> Iterator[FileStatus]:
        """Entries of a directory, in the backend's order, fetched as the iterator is advanced.

        Memory stays bounded whatever the directory's size. Errors may come from any step of the iterator, the
        first one included.

        Raises:
            NotFoundError, NotDirectoryError, PermissionDeniedError.
        """
        ...

    def open(self, path: str) -> FileReader:
        """Open a file for reading; the NameNode checks that this identity may.

        Raises:
            NotFoundError, IsDirectoryError, PermissionDeniedError, NotDirectoryError. UnsupportedError: a symlink or
                special file of a local filesystem.
        """
        ...

    def space(self, path: str) -> SpaceUsage:
        """Space of the quotas set on `path`, else of the filesystem, in bytes of files: without replicas and parity.

        Raises:
            UnsupportedError, UnavailableError: there is no way to know, or none that answers now.
        """
        ...

    def make_directory(self, path: str, mode: int) -> None:
        """Create `path` and missing parents; an existing directory is left as it is. `mode` holds despite any umask.

        Parents that are missing get 0o755.

        Raises:
            AlreadyExistsError: a file is there. NotDirectoryError: a file among the parents.
        """
        ...

    def check_write(self, path: str) -> None:
        """Ask whether this identity may change the content of `path`, which a rename over it does not ask.

        Raises:
            PermissionDeniedError: it may not. UnsupportedError, UnavailableError: there is no way to know.
        """
        ...

    def create_directory(self, path: str, mode: int) -> None:
        """Create `path`, which must not be there yet; of several who try, one succeeds.

        Raises:
            AlreadyExistsError: something is there. NotFoundError: the parent directory is missing.
        """
        ...

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """Change owner and group; None leaves one as it is. HDFS allows it to its superuser only."""
        ...

    def copy_attributes(self, source: str, target: str) -> None:
        """Give a file what another one has: owner, group, replication and access control list.

        What this identity may not do, or the filesystem has none of, is left out. Mode, times and extended attributes
        are not copied.

        Args:
            source: the file that is going to be replaced.
            target: the file that replaces it, just written.

        Raises:
            NotFoundError: `source` or `target` is missing.
        """
        ...

    def move_to_trash(self, path: str) -> None:
        """Move a file or directory to the trash of this identity, from where HDFS removes it after a while.

        Raises:
            NotFoundError, PermissionDeniedError. UnsupportedError: there is no trash (fs.trash.interval is 0).
        """
        ...

    def create(self, path: str, *, mode: int, overwrite: bool) -> FileWriter:
        """Begin a new file. Until it is closed, nobody else can write it (a lease in HDFS, a flock on a local disk).

        Args:
            path: in a directory that is there.
            mode: permission bits; HDFS applies a default ACL of the directory.
            overwrite: whether a file that is there is replaced, even one that somebody is writing.

        Raises:
            AlreadyExistsError: a complete file is there, or a directory. BusyError: another client is writing the file.
            NotFoundError: the directory is missing.
        """
        ...

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, alone: bool) -> None:
        """Write a whole file another way than `create`, for when that fails: by the client of a DataNode, in HDFS.

        Args:
            path: where; a file that is there is replaced, even one that somebody is writing.
            chunks: its content.
            length_bytes: of all of it.
            mode: permission bits.
            alone: whether that DataNode stores it first, and HDFS replicates it afterwards: who writes to several
                DataNodes hangs when one of them does.

        Raises:
            UnsupportedError: there is no other way.
        """
        ...

    def append(self, path: str) -> FileWriter:
        """Go on writing behind the end of a file.

        Raises:
            NotFoundError, IsDirectoryError. BusyError: another client is writing the file.
        """
        ...

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:
        """Add to the end of a complete file another way than `append`, for when that fails; see `put`.

        Args:
            path: of the file, which is complete again afterwards.
            chunks: what is added; a part of it may be there after an error.
            length_bytes: of all of it.

        Raises:
            NotFoundError. BusyError: another client is writing the file. UnsupportedError: there is no other way.
        """
        ...

    def recover_lease(self, path: str) -> bool:
        """Take a file from whoever is writing it; what is on the DataNodes' disks stays.

        Returns:
            Whether the file is closed; False while HDFS is still at it.
        """
        ...

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """Give a file or directory another path, at once. Who is writing the file goes on.

        Args:
            source: what is renamed.
            target: its new path, in a directory that is there.
            overwrite: whether a file, or an empty directory, at `target` is replaced.

        Raises:
            AlreadyExistsError: `target` is there. NotFoundError. DirectoryNotEmptyError: `target` has entries.
            IsDirectoryError, NotDirectoryError: one is a directory and the other is not.
            InvalidArgumentError: `target` is below `source`.
        """
        ...

    def set_mode(self, path: str, mode: int) -> None:
        """Change the permission bits, 0 to 0o1777."""
        ...

    def set_times(self, path: str, *, mtime_ms: int | None, atime_ms: int | None) -> None:
        """Change times, in milliseconds since the epoch; None leaves one as it is."""
        ...

    def xattrs(self, path: str) -> dict[str, bytes]:
        """The extended attributes of the namespace `user.`, whose names begin with that.

        Raises:
            NotFoundError. PermissionDeniedError: HDFS asks for the right to read `path`. UnsupportedError: the
                filesystem has none, or there is no way to ask.
        """
        ...

    def xattr_names(self, path: str) -> Sequence[str]:
        """The names alone, for which `path` need not be readable; otherwise as `xattrs`."""
        ...

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """Create or replace an extended attribute, whose `name` begins with `user.`.

        Raises:
            NotFoundError, PermissionDeniedError, UnsupportedError. TooLargeError: dfs.namenode.fs-limits.max-xattr-size
                (16 KiB, name and value). NoSpaceError: dfs.namenode.fs-limits.max-xattrs-per-inode (32), or no room on
                a local disk. InvalidArgumentError: HDFS has no such names.
        """
        ...

    def remove_xattr(self, path: str, name: str) -> None:
        """Remove an extended attribute, whose `name` begins with `user.`.

        Raises:
            NoAttributeError: there is none of that name. NotFoundError, PermissionDeniedError, UnsupportedError.
        """
        ...

    def policies(self, path: str) -> Policies:
        """How `path` is stored.

        Raises:
            NotFoundError, PermissionDeniedError. UnsupportedError: there is no way to ask.
        """
        ...

    def delete(self, path: str, *, recursive: bool) -> bool:
        """Remove a file or directory.

        Returns:
            False when it was not there.

        Raises:
            DirectoryNotEmptyError: it has entries and `recursive` is False.
            NotDirectoryError: a file among the parents.
        """
        ...

    def close(self) -> None:
        """Free connections; idempotent."""
        ...
