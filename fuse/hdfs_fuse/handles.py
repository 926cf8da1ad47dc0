"""What an open file or directory is between its open and its release."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.calls import Calls
from hdfs_fuse.errors import StaleError
from hdfs_fuse.inodes import Inode
from hdfs_fuse.reader import Reader
from hdfs_fuse.writing.draft import Draft

# Entries fetched per thread hop: half of what one NameNode call returns (dfs.ls.limit, 1,000), so about 250 KiB.
_BATCH_ENTRIES = 500

H = TypeVar("H")


class FileHandle:
    """An open file.

    Attributes:
        reader: what READs go to, unless the file is being changed; None in a handle for writing.
        draft: what WRITEs go to, in a handle for writing.
    """

    __slots__ = ("draft", "inode", "reader")

    def __init__(self, inode: Inode, reader: Reader | None, draft: Draft | None = None) -> None:
        self.inode = inode
        self.reader = reader
        self.draft = draft


class DirectoryHandle:
    """An open directory: a listing that is fetched as it is read, never held whole.

    An offset is the number of entries before it. Entries stay until a READDIR asks for later ones, since the kernel
    asks again for what did not fit into its buffer. Going back further, or to the beginning, starts the listing anew,
    and so does an error: a listing that broke must not look like one that ended.
    """

    def __init__(self, inode: Inode, list_entries: Callable[[], Iterator[FileStatus]], calls: Calls) -> None:
        self.inode = inode
        self._list_entries = list_entries  # begins a listing; its steps block
        self._calls = calls
        self._entries: deque[FileStatus] = deque()
        self._base = 0  # offset of the first of _entries
        self.fetched_s = 0.0  # when those were asked for, on trio's clock
        self._listing: Iterator[FileStatus] | None = None

    async def entry(self, offset: int) -> FileStatus | None:
        """The entry at `offset`; None behind the last. Forgets the entries before it.

        Raises:
            NotFoundError, NotDirectoryError, PermissionDeniedError: as the NameNode answers the listing.
        """
        if offset == 0 or offset < self._base or self._listing is None:
            self._entries.clear()
            self._base = 0
            self._listing = self._list_entries()
        while True:
            while self._entries and self._base < offset:
                self._entries.popleft()
                self._base += 1
            if self._entries:
                return self._entries[0]
            fetched_s = trio.current_time()
            try:
                batch = await self._calls.run(_next_entries, self._listing)
            except BaseException:
                self._listing = None
                raise
            if not batch:
                return None
            self._entries.extend(batch)
            self.fetched_s = fetched_s

    def peek(self, offset: int) -> FileStatus | None:
        """The entry at `offset` if it has been fetched already, without forgetting those before it."""
        index = offset - self._base
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def close(self) -> None:
        """Let the listing go."""
        self._entries.clear()
        self._listing = None


def _next_entries(listing: Iterator[FileStatus]) -> list[FileStatus]:
    return list(itertools.islice(listing, _BATCH_ENTRIES))


class HandleTable(Generic[H]):
    """Handles by the number that the kernel holds. Numbers are never used twice."""

    def __init__(self) -> None:
        self._next = 1
        self._handles: dict[int, H] = {}

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, handle: H) -> int:
        """Number a handle."""
        number = self._next
        self._next += 1
        self._handles[number] = handle
        return number

    def get(self, number: int) -> H:
        """The handle of that number.

        Raises:
            StaleError: there is none.
        """
        try:
            return self._handles[number]
        except KeyError:
            raise StaleError(f"unknown file handle {number}") from None

    def remove(self, number: int) -> H:
        """Take a handle out.

        Raises:
            StaleError: there is none.
        """
        handle = self.get(number)
        del self._handles[number]
        return handle

    def values(self) -> list[H]:
        """All handles."""
        return list(self._handles.values())
