"""Changes of names and attributes: mkdir, unlink, rename, chmod and the like. Contents are changed in writing/.

A file that is removed, or replaced by a rename, while it is open gets a hidden name until it is closed: HDFS would
delete its blocks, and who has it open may go on reading, as on a local disk.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

import outcome
import trio

from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MAX_PATH_CHARACTERS
from hdfs_fuse.errors import (
    AlreadyExistsError,
    DirectoryNotEmptyError,
    HdfsFuseError,
    InvalidArgumentError,
    NameTooLongError,
    NotFoundError,
    NotPermittedError,
)
from hdfs_fuse.handles import FileHandle
from hdfs_fuse.hidden import is_hidden, made_ms, name_once_removed
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.listings import Listings
from hdfs_fuse.writing.drafts import Drafts

logger = logging.getLogger(__name__)

_NAME_MAX_BYTES = 255  # dfs.namenode.fs-limits.max-component-length
_MAX_PATH_DEPTH = 1000  # HdfsConstants.MAX_PATH_DEPTH
# Below it are the snapshots of a directory, if it may have any (HdfsConstants.DOT_SNAPSHOT_DIR); never listed.
SNAPSHOTS = ".snapshot"
# Of a hidden name that a crash has left: nobody has the file open any more.
_ABANDONED_MS = 24 * 3600 * 1000
# Of a sibling that nobody holds the lease of. A living writer goes without only in the moment before it gets its name,
# and between two pieces that DataNodes write for it.
_LEFT_MS = 3600 * 1000
# How long a sibling that is complete is watched before it is taken for one that a crash has left.
_SIBLING_WATCH_S = 3.0


def check_name(name: str, not_utf8: type[HdfsFuseError]) -> None:
    """Whether HDFS can have an entry of that name.

    Args:
        name: of the entry.
        not_utf8: what to raise where the name is not UTF-8, as all in HDFS are.

    Raises:
        NameTooLongError: it is too long.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise not_utf8(f"{name!r}: names in HDFS are UTF-8") from None
    if len(encoded) > _NAME_MAX_BYTES:
        raise NameTooLongError(f"a name of {len(encoded)} bytes: HDFS takes {_NAME_MAX_BYTES}")


class Changes:
    """What applications change in the tree. Belongs to the event loop; raises only HdfsFuseError."""

    def __init__(
        self,
        backend: ResilientBackend,
        calls: Calls,
        inodes: InodeTable,
        listings: Listings,
        drafts: Drafts,
        open_files: Callable[[], Iterable[FileHandle]],
        *,
        is_hdfs: bool,
    ) -> None:
        """Change what `backend` has.

        Args:
            backend: the filesystem.
            calls: to ask it.
            inodes: what the kernel knows.
            listings: what is believed of names.
            drafts: files that are being changed.
            open_files: all open handles.
            is_hdfs: whether names that HDFS keeps for itself are refused.
        """
        self._backend = backend
        self._calls = calls
        self._inodes = inodes
        self._listings = listings
        self._drafts = drafts
        self._open_files = open_files
        self._is_removing = False
        self._is_hdfs = is_hdfs

    # --- names ---

    def path_for(self, parent: Inode, name: str) -> str:
        """Path of a name that is to be made in a directory.

        Raises:
            NameTooLongError, InvalidArgumentError: HDFS has no such names.
        """
        check_name(name, InvalidArgumentError)
        path = self._inodes.path_in(parent, name)
        if self._is_hdfs and (len(path) > MAX_PATH_CHARACTERS or path.count("/") > _MAX_PATH_DEPTH):
            raise NameTooLongError(f"a path of {len(path)} characters: HDFS takes {MAX_PATH_CHARACTERS}")
        # DFSUtil.isValidName; FSDirectory.verifyINodeName, isReservedName
        if self._is_hdfs and (":" in name or name == SNAPSHOTS or path == "/.reserved"):
            raise InvalidArgumentError(f"{path}: HDFS has no such names")
        if is_hidden(name):
            raise InvalidArgumentError(f"{name}: such names are kept for files that are being written")
        return path

    def changed(self, parent: Inode, name: str) -> None:
        """What is believed of a name, and of the directory's times, is over."""
        self._listings.disbelieve(parent.number, name)
        parent.expires_s = float("-inf")

    async def make_directory(self, parent: Inode, name: str, mode: int) -> FileStatus:
        """Make a directory, and give its attributes.

        Raises:
            AlreadyExistsError: the name is taken.
        """
        path = self.path_for(parent, name)
        known = self._inodes.find(parent, name)
        if known is not None and self._drafts.of(known) is not None:
            raise AlreadyExistsError(f"{name}: is being written")
        await self._calls.run(self._backend.create_directory, path, mode)
        self.changed(parent, name)
        return await self._calls.run(self._backend.status, path)

    async def remove_directory(self, parent: Inode, name: str) -> None:
        """Remove an empty directory.

        Raises:
            DirectoryNotEmptyError: it has entries.
        """
        path = self._inodes.path_in(parent, name)
        try:
            await self._delete(path)
        except DirectoryNotEmptyError:
            await self._calls.run(self._remove_leftovers, path)
            await self._delete(path)
        self._gone(parent, name)

    async def _delete(self, path: str) -> None:
        if not await self._calls.run(lambda: self._backend.delete(path, recursive=False)):
            raise NotFoundError(f"{path}: not found")

    def _remove_leftovers(self, directory: str) -> None:
        """Where only hidden names are left, remove those that nobody uses any longer; blocks."""
        entries = list(self._backend.list(directory)) if self._has_only_hidden(directory) else []
        siblings = [entry for entry in entries if made_ms(entry.name) is None]
        if not all(self._remove_sibling(f"{directory}/{sibling.name}") for sibling in siblings):
            return  # and so may be the others
        now_ms = time.time_ns() // 1_000_000
        for entry in entries:
            made = made_ms(entry.name)
            if made is not None and now_ms - made > _ABANDONED_MS:
                self._backend.delete(f"{directory}/{entry.name}", recursive=False)

    def _remove_sibling(self, path: str) -> bool:
        """Remove what somebody was writing, unless he still is; whether it is gone. Blocks, for seconds."""
        try:
            before = self._backend.status(path)
            self._backend.create(path, mode=0o600, overwrite=False)  # if that works, it went away meanwhile
        except NotFoundError:
            return True
        except AlreadyExistsError:
            time.sleep(_SIBLING_WATCH_S)  # it is complete: either it gets its name now, or its writer is gone
            try:
                if self._backend.status(path) != before:
                    return False
            except NotFoundError:
                return True
        except HdfsFuseError as e:
            logger.info("%s: is in use: %s", path, e)
            return False
        return self._backend.delete(path, recursive=False)

    def remove_leftover(self, directory: str, entry: FileStatus) -> None:
        """Remove a hidden file that was met in a listing, if a crash has left it; one at a time, in the background."""
        now_ms = time.time_ns() // 1_000_000
        if made_ms(entry.name) is None and now_ms - entry.mtime_ms > _LEFT_MS and not self._is_removing:
            self._is_removing = True
            self._calls.start(lambda: self._remove_sibling(f"{directory}/{entry.name}"), self._removed)

    def _removed(self, result: outcome.Outcome[bool]) -> None:
        self._is_removing = False
        if isinstance(result, outcome.Error):
            logger.info("what a dead writer has left stays: %s", result.error)

    def _has_only_hidden(self, directory: str) -> bool:
        return all(is_hidden(entry.name) for entry in self._backend.list(directory))

    async def unlink(self, parent: Inode, name: str) -> None:
        """Remove a file; who has it open goes on."""
        inode = self._inodes.find(parent, name)

        draft = None if inode is None else self._drafts.of(inode)

        async def remove_stored() -> None:
            if draft is not None and draft.is_new:
                return
            if inode is not None and inode.opens:
                await self._hide(inode, parent)
            else:
                await self._delete(self._inodes.path_in(parent, name))

        if draft is not None:
            await self._drafts.remove(draft, remove_stored)
        else:
            await remove_stored()
        self._gone(parent, name)

    def _gone(self, parent: Inode, name: str) -> None:
        self.changed(parent, name)
        inode = self._inodes.find(parent, name)
        if inode is not None:
            self._inodes.detach(inode)

    async def _hide(self, inode: Inode, parent: Inode) -> None:
        hidden = name_once_removed()
        path = self._inodes.path_of(inode)
        target = self._inodes.path_in(parent, hidden)
        await self._calls.run(lambda: self._backend.rename(path, target, overwrite=False))
        self._inodes.move(inode, parent, hidden)
        self._inodes.detach(inode)
        self._follow()
        if not inode.opens:  # closed meanwhile
            self.forget_hidden(inode)

    def forget_hidden(self, inode: Inode) -> None:
        """The last one has closed a file that was removed while it was open."""
        if is_hidden(inode.name):
            path = self._inodes.path_of(inode)
            self._calls.start(lambda: self._backend.delete(path, recursive=False), lambda _: None)

    async def rename(self, parent: Inode, name: str, new_parent: Inode, new_name: str, *, overwrite: bool) -> None:
        """Give a file or directory another path; `overwrite` is False for RENAME_NOREPLACE.

        Raises:
            AlreadyExistsError, DirectoryNotEmptyError, IsDirectoryError, NotDirectoryError: of the target.
        """
        self.path_for(new_parent, new_name)  # where HDFS has no such names, nothing is begun
        inode = self._inodes.find(parent, name)

        async def rename_stored() -> None:
            # A directory above may have been renamed while this waited.
            source_path, target_path = self._inodes.path_in(parent, name), self.path_for(new_parent, new_name)
            await self._calls.run(lambda: self._backend.rename(source_path, target_path, overwrite=overwrite))

        async def move() -> None:
            target = self._inodes.find(new_parent, new_name)
            if target is not None and target is not inode and target.status.kind is FileKind.FILE:
                if not overwrite:
                    raise AlreadyExistsError(f"{new_name}: is there")
                await self._replace(target, new_parent, new_name, rename_stored)
            else:
                await rename_stored()
            self.changed(parent, name)
            self.changed(new_parent, new_name)
            if inode is not None:
                self._inodes.move(inode, new_parent, new_name)
                self._follow()
            elif target is not None:
                self._inodes.detach(target)

        if inode is not None and (draft := self._drafts.of(inode)) is not None:
            await self._drafts.publish_and(draft, move)  # what others then find under the new name is all there
        else:
            await move()

    async def _replace(
        self, target: Inode, parent: Inode, name: str, rename_stored: Callable[[], Awaitable[None]]
    ) -> None:
        """Rename over a file; those who have it open go on with it."""
        draft = self._drafts.of(target)

        async def replace_stored() -> None:
            hides = target.opens > 0 and not (draft is not None and draft.is_new)
            if hides:
                await self._hide(target, parent)
            try:
                await rename_stored()
            except HdfsFuseError:
                if hides:
                    await self._bring_back(target, parent, name)
                raise

        await (replace_stored() if draft is None else self._drafts.remove(draft, replace_stored))

    async def _bring_back(self, inode: Inode, parent: Inode, name: str) -> None:
        """The rename that a file was hidden for has failed."""
        source, target = self._inodes.path_of(inode), self._inodes.path_in(parent, name)
        try:
            await self._calls.run(lambda: self._backend.rename(source, target, overwrite=False))
        except HdfsFuseError as e:
            logger.warning("%s: stays at %s: %s", target, source, e)
        else:
            self._inodes.move(inode, parent, name)
            self._follow()

    def _follow(self) -> None:
        """Open files are where their inodes are now."""
        for file in self._open_files():
            if file.reader is not None:
                file.reader.file.path = self._inodes.path_of(file.inode)
        self._drafts.follow()

    # --- attributes ---

    async def set_mode(self, inode: Inode, mode: int) -> None:
        """Change the permission bits."""

        async def store() -> None:
            await self._calls.run(self._backend.set_mode, self._inodes.path_of(inode), mode)

        draft = self._drafts.of(inode)
        await (store() if draft is None else self._drafts.set_mode(draft, mode, store))
        inode.status = replace(inode.status, mode=mode)

    async def set_owner(self, inode: Inode, names: Callable[[], tuple[str | None, str | None]]) -> None:
        """Change owner and group, whose names `names` gives, blocking; None leaves one as it is.

        Raises:
            InvalidArgumentError: there is no such name. PermissionDeniedError: only HDFS's superuser may; who owns a
            file may give it to a group of his own.
        """
        owner, group = await self._calls.run(names)

        async def store() -> None:
            await self._calls.run(self._backend.set_owner, self._inodes.path_of(inode), owner, group)

        draft = self._drafts.of(inode)
        await (store() if draft is None else self._drafts.set_owner(draft, store))
        inode.status = replace(inode.status, owner=owner or inode.status.owner, group=group or inode.status.group)

    async def set_times(self, inode: Inode, mtime_ms: int | None, atime_ms: int | None) -> None:
        """Change times, to the millisecond."""

        async def store() -> None:
            path = self._inodes.path_of(inode)
            await self._calls.run(lambda: self._backend.set_times(path, mtime_ms=mtime_ms, atime_ms=atime_ms))

        before = inode.status
        is_current = inode.page_cache_version == inode.version
        # At once: who completes the file meanwhile restores this time, not the one before.
        after = inode.status = replace(
            before,
            mtime_ms=before.mtime_ms if mtime_ms is None else mtime_ms,
            atime_ms=before.atime_ms if atime_ms is None else atime_ms,
        )
        draft = self._drafts.of(inode)
        try:
            await (store() if draft is None else self._drafts.set_times(draft, mtime_ms, atime_ms, store))
        except HdfsFuseError:
            if inode.status is after:
                inode.status = before
            raise
        if is_current and inode.status is after:  # the bytes are the same
            inode.page_cache_version = inode.readable_version = inode.version
        inode.expires_s = max(inode.expires_s, trio.current_time())

    @staticmethod
    def refuse(what: str) -> NotPermittedError:
        """What HDFS has no way to do."""
        return NotPermittedError(f"{what}: HDFS has none")
