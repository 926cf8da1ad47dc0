"""The Protocol that every backend implements, and the records that cross it.

All methods block and may be called from any thread. They raise only exceptions of hdfs_fuse.errors. Paths are
absolute `str` in the backend's own namespace; names that are not UTF-8 use surrogateescape.
"""

import enum
from collections.abc import Iterator
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
    """

    capacity_bytes: int
    used_bytes: int
    free_bytes: int


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
        """Space of the quota set on `path`, in raw bytes (replicas count), else of the filesystem.

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

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """Change owner and group; None leaves one as it is. HDFS allows it to its superuser only."""
        ...

    def write_file(self, path: str, data: bytes) -> None:
        """Put `data` into the file `path`, all or nothing; a file that is there is replaced. Meant for small files.

        Written under a hidden name beside it and renamed, so that readers see the old content or the new one. Only
        the owner may read and write it (mode 0o600).

        Raises:
            NotFoundError: the parent directory is missing. IsDirectoryError: `path` is a directory.
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
