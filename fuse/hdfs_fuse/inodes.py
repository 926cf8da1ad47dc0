"""Node ids and what they stand for. Ids are never used twice; the kernel's lookup counts say how long one lives."""

import itertools
from dataclasses import replace
from typing import NewType

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.errors import StaleError

InodeNumber = NewType("InodeNumber", int)

ROOT = InodeNumber(1)  # FUSE_ROOT_ID


class Inode:
    """A path that the kernel knows by number.

    Attributes:
        number: the node id.
        parent: the directory; None for the root.
        name: last component, str with surrogateescape.
        status: attributes as last seen.
        expires_s: until when they may be believed, on trio's clock.
        lookups: references that the kernel holds.
        children: inodes below this one, and users of it in this process: while there are any, it stays.
        opens: handles that have the file open.
        readable_version: (mtime, length) of the version that the NameNode let this identity open.
        page_cache_version: (mtime, length) of the version that the kernel's pages are of.
    """

    __slots__ = (
        "children",
        "expires_s",
        "lookups",
        "name",
        "number",
        "opens",
        "page_cache_version",
        "parent",
        "readable_version",
        "status",
    )

    def __init__(self, number: InodeNumber, parent: "Inode | None", name: str, status: FileStatus) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.status = status
        self.expires_s = 0.0
        self.lookups = 0
        self.children = 0
        self.opens = 0
        self.readable_version: tuple[int, int] | None = None
        self.page_cache_version: tuple[int, int] | None = None

    @property
    def version(self) -> tuple[int, int]:
        """(modification time in ms, length in bytes)."""
        return self.status.mtime_ms, self.status.length_bytes


class InodeTable:
    """All inodes that the kernel holds."""

    def __init__(self, root_path: str, root_status: FileStatus) -> None:
        """Start with the root alone, which is never forgotten."""
        self._root_path = root_path.rstrip("/")
        self._next = ROOT + 1
        self.root = Inode(ROOT, None, "", root_status)
        self._by_number: dict[int, Inode] = {ROOT: self.root}
        self._by_name: dict[tuple[int, str], Inode] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Inode:
        """The inode of that number.

        Raises:
            StaleError: the kernel uses a number that was never given out or has been forgotten.
        """
        try:
            return self._by_number[number]
        except KeyError:
            raise StaleError(f"unknown node id {number}") from None

    def find(self, parent: Inode, name: str) -> Inode | None:
        """The inode of a directory's entry, if the kernel knows it."""
        return self._by_name.get((parent.number, name))

    def remember(self, parent: Inode, name: str, status: FileStatus, expires_s: float) -> Inode:
        """The inode of an entry, made when it is new, with fresh attributes and one more lookup."""
        inode = self._by_name.get((parent.number, name))
        if inode is None:
            inode = Inode(InodeNumber(self._next), parent, name, status)
            self._next += 1
            self._by_number[inode.number] = inode
            self._by_name[parent.number, name] = inode
            parent.children += 1
        inode.status = status
        inode.expires_s = expires_s
        inode.lookups += 1
        return inode

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives references back."""
        inode = self._by_number.get(number)
        if inode is not None:
            inode.lookups -= lookups
            self.release(inode)

    def detach(self, inode: Inode) -> None:
        """Its path is gone or something else: a later lookup of the name gets a new number."""
        if inode.parent is not None and self._by_name.get((inode.parent.number, inode.name)) is inode:
            del self._by_name[inode.parent.number, inode.name]

    def move(self, inode: Inode, parent: Inode, name: str) -> None:
        """Its path is another one now; what had that path before is detached."""
        there = self._by_name.get((parent.number, name))
        if there is not None and there is not inode:
            self.detach(there)
        self.detach(inode)
        old, inode.parent, inode.name = inode.parent, parent, name
        inode.status = replace(inode.status, name=name)
        parent.children += 1
        self._by_name[parent.number, name] = inode
        if old is not None:
            old.children -= 1
            self.release(old)

    def release(self, inode: Inode) -> None:
        """Drop an inode that nobody refers to, and then its parents likewise."""
        while inode.parent is not None and inode.lookups <= 0 and inode.children == 0:
            if self._by_number.pop(inode.number, None) is None:
                return
            self.detach(inode)
            inode.parent.children -= 1
            inode = inode.parent

    def path_of(self, inode: Inode) -> str:
        """Absolute path in the backend's namespace."""
        names: list[str] = []
        node: Inode | None = inode
        while node is not None and node.parent is not None:
            names.append(node.name)
            node = node.parent
        return "/".join([self._root_path, *reversed(names)]) or "/"

    def path_in(self, directory: Inode, name: str) -> str:
        """Absolute path of an entry of a directory, known or not."""
        return f"{self.path_of(directory).rstrip('/')}/{name}"

    def rotate(self, count: int) -> list[Inode]:
        """The `count` inodes that were met, or rotated, the longest time ago; they now count as the newest."""
        numbers = list(itertools.islice(self._by_number, count))
        inodes = []
        for number in numbers:
            inode = self._by_number[number] = self._by_number.pop(number)
            inodes.append(inode)
        return inodes
