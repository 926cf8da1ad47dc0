"""Extended attributes: those of the namespace `user.`, and what HDFS says of a file as `user.hdfs.*`.

The latter are read by name and not listed: `rsync -X` would try to remove or copy what it sees, and fail, and `cp -a`
would make ordinary attributes of them elsewhere.

Only names that begin with `user.` cost a call to the filesystem. The kernel asks for security.capability, and ls for
security.selinux and system.posix_acl_access: HDFS has none of them.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from hdfs_fuse.backend.base import FileStatus, Policies
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.errors import (
    InvalidArgumentError,
    NoAttributeError,
    NotFoundError,
    NotPermittedError,
    ReadOnlyError,
    StaleError,
    UnsupportedError,
)
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.drafts import Drafts

R = TypeVar("R")

_NAMESPACE = "user."
_VIRTUAL = "user.hdfs."
# Of a status: name behind _VIRTUAL -> its text; empty where there is none.
_OF_STATUS: dict[str, Callable[[FileStatus], str]] = {
    "owner": lambda status: status.owner,
    "group": lambda status: status.group,
    "replication": lambda status: str(status.replication or ""),
    "block_size": lambda status: str(status.block_size_bytes or ""),
}
# What has to be asked for.
_OF_POLICIES: dict[str, Callable[[Policies], str]] = {
    "storage_policy": lambda policies: policies.storage,
    "erasure_coding_policy": lambda policies: policies.erasure_coding,
}


class Xattrs:
    """The extended attributes of a mount's files. Belongs to the event loop; raises only HdfsFuseError."""

    def __init__(
        self,
        backend: ResilientBackend,
        calls: Calls,
        inodes: InodeTable,
        drafts: Drafts | None,
        current: Callable[[int], Awaitable[Inode]],
    ) -> None:
        """Show and change what `backend` has.

        Args:
            backend: the filesystem.
            calls: to ask it.
            inodes: says where a file is now.
            drafts: files that are being changed; None on a read-only mount.
            current: the inode of a number, with attributes that may be believed.
        """
        self._backend = backend
        self._calls = calls
        self._inodes = inodes
        self._drafts = drafts
        self._current = current

    async def get(self, number: int, name: str) -> bytes:
        """The value of an attribute.

        Args:
            number: node id of a file or directory.
            name: with its namespace.

        Raises:
            NoAttributeError: there is none of that name. UnsupportedError: not in the namespace `user.`.
            PermissionDeniedError: this identity may not read the file.
        """
        _check_namespace(name)
        inode = self._inodes.get(number)
        if name.startswith(_VIRTUAL):
            text = await self._virtual(await self._current(number), name.removeprefix(_VIRTUAL))
            found = {name: text.encode()} if text else {}
        elif (draft := self._new_draft(inode)) is not None:
            found = draft.xattrs
        else:
            found = await self._ask(inode, self._backend.xattrs)
        if name not in found:
            raise NoAttributeError(f"{inode.name}: no {name}")
        return found[name]

    async def names(self, number: int) -> Sequence[str]:
        """The names of all attributes that programs may copy, so without `user.hdfs.*`."""
        inode = self._inodes.get(number)
        if (draft := self._new_draft(inode)) is not None:
            return list(draft.xattrs)
        names = await self._ask(inode, self._backend.xattr_names)
        return [name for name in names if not name.startswith(_VIRTUAL)]

    async def set(self, number: int, name: str, value: bytes) -> None:
        """Create or replace an attribute; of a file that HDFS does not have yet, together with its content.

        Raises:
            NotPermittedError: `user.hdfs.*`. TooLargeError, NoSpaceError: a limit of HDFS. UnsupportedError: not in
            the namespace `user.`. PermissionDeniedError, ReadOnlyError.
        """

        def set_new(draft: Draft) -> None:
            draft.xattrs[name] = value

        await self._change(number, name, set_new, lambda path: self._backend.set_xattr(path, name, value))

    async def remove(self, number: int, name: str) -> None:
        """Remove an attribute.

        Raises:
            NoAttributeError: there is none of that name. Otherwise as `set`.
        """

        def remove_new(draft: Draft) -> None:
            if draft.xattrs.pop(name, None) is None:
                raise NoAttributeError(f"{draft.inode.name}: no {name}")

        await self._change(number, name, remove_new, lambda path: self._backend.remove_xattr(path, name))

    async def _change(
        self, number: int, name: str, change_new: Callable[[Draft], None], change: Callable[[str], None]
    ) -> None:
        _check_namespace(name)
        if name.startswith(_VIRTUAL):
            raise NotPermittedError(f"{name}: is what HDFS says, and can't be changed")
        if self._drafts is None:
            raise ReadOnlyError("the mount is read-only")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise InvalidArgumentError(f"{name!r}: names in HDFS are UTF-8")
        inode = self._inodes.get(number)
        draft = self._drafts.of(inode)
        if draft is None:
            await self._ask(inode, change)
            return
        async with draft.lock:  # what is being published has the attributes that were there when that began
            if not draft.is_new:
                await self._ask(inode, change)
                return
            if draft.sibling is not None:
                # What will be the file: so it shows now, not when the file is stored, whether HDFS takes this.
                sibling = self._inodes.path_in(*draft.sibling)
                with contextlib.suppress(NotFoundError, NoAttributeError):
                    await self._calls.run(change, sibling)
            change_new(draft)

    def _new_draft(self, inode: Inode) -> Draft | None:
        """The draft of a file that HDFS does not have."""
        draft = self._drafts.of(inode) if self._drafts is not None else None
        return draft if draft is not None and draft.is_new else None

    async def _virtual(self, inode: Inode, name: str) -> str:
        if name in _OF_STATUS:
            return _OF_STATUS[name](inode.status)
        if name in _OF_POLICIES and self._new_draft(inode) is None:
            return _OF_POLICIES[name](await self._ask(inode, self._backend.policies))
        return ""

    def _ask(self, inode: Inode, call: Callable[[str], R]) -> Awaitable[R]:
        path = self._inodes.path_of(inode)

        def ask() -> R:
            try:
                return call(path)
            except NotFoundError as e:
                raise StaleError(f"{path}: gone") from e  # the kernel looks the name up again

        return self._calls.run(ask)


def _check_namespace(name: str) -> None:
    if not name.startswith(_NAMESPACE):
        raise UnsupportedError(f"{name}: only attributes of the namespace {_NAMESPACE!r} are kept")
