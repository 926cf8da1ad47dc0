"""The filesystem's semantics without pyfuse3: node ids, names and handles in, records out.

Here is what looks and reads; what changes names and attributes is in changes.py, what changes contents in writing/.

Consistency is close-to-open within the metadata lifetime: an open believes attributes no older than that, and a
changed file gets other cache keys and new pages.
"""

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Iterator
from typing import Protocol

import trio

from hdfs_fuse.backend.base import FileKind, FileStatus, SpaceUsage
from hdfs_fuse.backend.identity import acting_user
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.block_reader import BlockReader
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.calls import Calls
from hdfs_fuse.changes import SNAPSHOTS, Changes, check_name
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import (
    AlreadyExistsError,
    AuthenticationError,
    BusyError,
    FileChangedError,
    HdfsFuseError,
    InvalidArgumentError,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    StaleError,
    UnavailableError,
    UnsupportedError,
)
from hdfs_fuse.handles import DirectoryHandle, FileHandle, HandleTable
from hdfs_fuse.hidden import is_hidden
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.listings import Listings
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.reader import Reader, Shared
from hdfs_fuse.small_reader import SmallReader
from hdfs_fuse.writing.draft import Draft, DraftEndedError
from hdfs_fuse.writing.drafts import Drafts, UploadQueue
from hdfs_fuse.xattrs import Xattrs

logger = logging.getLogger(__name__)

# An absence is believed for less long than a presence: somebody may be waiting for a _SUCCESS file.
NEGATIVE_TTL_S = 5.0
# Names asked back at once when there are too many, and new ones after which that is looked at again: fewer, since some
# names are in use. One by one they would cost a switch of threads each.
_ASKED_BACK = 500
_TRIM_INTERVAL = 250
# The NameNode is asked for its space at most this often; df and probes may ask all the time.
_SPACE_TTL_S = 30.0
_SPACE_PATIENCE_S = 1.0
# Of ESTALE the kernel looks up and opens once more, no further. A writer's node shifts a small file's time to and fro
# within some milliseconds when it completes it: this long, in seconds, so that the second attempt finds it settled.
_SETTLE_S = 0.05
# What statfs shows where the filesystem can't say: enough that no program refuses to work.
_UNKNOWN_SPACE = SpaceUsage(capacity_bytes=1 << 50, used_bytes=0, free_bytes=1 << 50)


class Kernel(Protocol):
    """What the filesystem tells the kernel of its own accord."""

    def forget_entry(self, inode: Inode) -> None:
        """Ask the kernel to let go of a name that it does not use."""
        ...

    def store_pages(self, inode: Inode, data: bytes) -> None:
        """Put a file's whole content into the kernel's page cache. No READ of that file may be in flight."""
        ...


class Filesystem:
    """One mount's files. Belongs to the event loop; raises only HdfsFuseError."""

    def __init__(
        self,
        config: MountConfig,
        backend: ResilientBackend,
        cluster: str,
        inodes: InodeTable,
        cache: BlockCache,
        calls: Calls,
        metrics: Metrics,
        kernel: Kernel,
        drafts: Drafts | None = None,
    ) -> None:
        """Serve what `backend` has.

        Args:
            config: the mount.
            backend: the filesystem behind it, under one identity.
            cluster: name of that filesystem, part of the cache's keys.
            inodes: holding the root of the mount.
            cache: the mount's blocks.
            calls: for everything else that is asked of the backend.
            metrics: what is counted.
            kernel: whom to ask for names back.
            drafts: files that are being changed; None on a read-only mount.
        """
        self._config = config
        self._backend = backend
        self._shared = Shared(cluster, config, cache, calls, metrics)
        self.inodes = inodes
        self._cache = cache
        self._metrics = metrics
        self._kernel = kernel
        self._calls = calls
        self._files: HandleTable[FileHandle] = HandleTable()
        self._directories: HandleTable[DirectoryHandle] = HandleTable()
        self.listings = Listings(backend, calls, config.metadata_ttl_s)
        self._drafts = drafts
        self._is_hdfs = config.uri.startswith("hdfs:")
        self._user = acting_user(config)
        self.xattrs = Xattrs(backend, calls, inodes, drafts, self.getattr)
        self._changes: Changes | None = None
        if drafts is not None:
            self._changes = Changes(
                backend, calls, inodes, self.listings, drafts, self._files.values, is_hdfs=self._is_hdfs
            )
        self._until_trim = 0
        self._space = _UNKNOWN_SPACE
        self._space_expires_s = float("-inf")

    def _expiry_s(self) -> float:
        """Until when attributes that come now may be believed, on trio's clock."""
        return trio.current_time() + self._config.metadata_ttl_s

    # --- names and attributes ---

    async def lookup(self, parent_number: int, name: str) -> Inode:
        """The entry `name` of a directory; the kernel holds one more reference to it.

        Raises:
            NotFoundError: there is none. NotDirectoryError, PermissionDeniedError: as the NameNode answers.
        """
        parent = self.inodes.get(parent_number)
        now_s = trio.current_time()
        inode = self.inodes.find(parent, name)
        if inode is not None and (now_s < inode.expires_s or self._draft(inode) is not None):
            inode.lookups += 1
            return inode
        listed = self.listings.find(parent.number, name)
        if listed is not None:
            return self._remember(parent, name, *listed)
        expires_s = self._expiry_s()
        status = await self._status(parent, name)
        self.listings.missed(parent.number, self.inodes.path_of(parent))
        return self._remember(parent, name, status, expires_s)

    async def _status(self, parent: Inode, name: str) -> FileStatus:
        check_name(name, NotFoundError)
        if is_hidden(name):
            raise NotFoundError(f"{name}: not found")
        path = self.inodes.path_in(parent, name)
        try:
            return await self._calls.run(self._backend.status, path)
        except NotFoundError:
            known = self.inodes.find(parent, name)
            if known is not None and self._draft(known) is None:
                self.inodes.detach(known)
            raise

    def _remember(self, parent: Inode, name: str, status: FileStatus, expires_s: float) -> Inode:
        known = self.inodes.find(parent, name)
        if known is not None and (known.expires_s > expires_s or self._is_ours(known, status)):
            known.lookups += 1
            return known  # it has been asked for since
        if known is not None and not _may_become(known, status):
            self.inodes.detach(known)
        inode = self.inodes.remember(parent, name, status, expires_s)
        self._trim()
        return inode

    def _trim(self) -> None:
        """Ask the kernel for the oldest names back when there are too many: it knows which of them it still needs."""
        self._until_trim -= 1
        if self._until_trim <= 0 and len(self.inodes) > self._config.max_inodes:
            self._until_trim = _TRIM_INTERVAL
            for inode in self.inodes.rotate(_ASKED_BACK):
                if inode.children == 0:
                    self._kernel.forget_entry(inode)

    async def getattr(self, number: int) -> Inode:
        """The inode with attributes no older than the metadata lifetime.

        Raises:
            StaleError: its path is gone.
        """
        inode = self.inodes.get(number)
        if self._draft(inode) is not None:
            return inode
        if trio.current_time() >= inode.expires_s:
            inode.status = await self._status_again(inode)
            inode.expires_s = self._expiry_s()
        return inode

    async def _status_again(self, inode: Inode) -> FileStatus:
        path = self.inodes.path_of(inode)
        try:
            status = await self._calls.run(self._backend.status, path)
        except NotFoundError as e:
            if self.inodes.path_of(inode) != path:  # renamed meanwhile
                return await self._status_again(inode)
            self.inodes.detach(inode)
            if _is_open_file(inode):
                return inode.status  # as on a local disk, where an open file outlives its name
            raise StaleError(f"{path}: gone") from e
        if self._is_ours(inode, status):
            return inode.status
        if _may_become(inode, status):
            return status
        self.inodes.detach(inode)
        if _is_open_file(inode):
            return inode.status
        raise StaleError(f"{path}: was a {inode.status.kind.value}, is a {status.kind.value}")

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives `lookups` references back."""
        self.inodes.forget(number, lookups)

    async def access(self, number: int, *, read: bool, write: bool, execute: bool) -> None:
        """Check what an application asks by the NameNode's answer, not by the mode bits.

        Raises:
            ReadOnlyError: asked for writing. PermissionDeniedError: refused.
        """
        inode = await self.getattr(number)
        if write:
            self._writable()
            await self._check_writable(inode)
        is_file = inode.status.kind is FileKind.FILE
        if execute and is_file and not inode.status.mode & 0o111:
            raise PermissionDeniedError(f"{inode.name}: not executable")
        if not read:
            return
        if is_file:
            if inode.readable_version != inode.version and self._draft(inode) is None:
                file = OpenFile(self._backend, self.inodes.path_of(inode), inode.status, self._metrics)
                await self._calls.run(file.open)
                file.close()
                inode.readable_version = inode.version
        else:
            listing = self._backend.list(self.inodes.path_of(inode))
            await self._calls.run(next, listing, None)

    # --- directories ---

    async def opendir(self, number: int) -> int:
        """Open a directory for reading; gives the handle's number.

        Raises:
            NotDirectoryError: it is a file.
        """
        inode = await self.getattr(number)
        if inode.status.kind is not FileKind.DIRECTORY:
            raise NotDirectoryError(f"{inode.name}: not a directory")
        return self._directories.add(DirectoryHandle(inode, lambda: self._list(inode), self._calls))

    def _list(self, inode: Inode) -> Iterator[FileStatus]:
        """Entries of a directory: what the filesystem has, and files that it does not have yet."""
        new = {status.name: status for status in self._drafts.new_in(inode)} if self._drafts is not None else {}
        path = self.inodes.path_of(inode)
        for status in self._backend.list(path):
            new.pop(status.name, None)
            if not is_hidden(status.name):
                yield status
            elif self._changes is not None:
                self._changes.remove_leftover(path, status)
        yield from new.values()

    def directory(self, handle: int) -> DirectoryHandle:
        """An open directory."""
        return self._directories.get(handle)

    @property
    def has_room_for_inodes(self) -> bool:
        """Whether a listing should hand inodes to the kernel, or only names: half the table is kept for lookups."""
        return len(self.inodes) < self._config.max_inodes // 2

    def enter(self, directory: DirectoryHandle, status: FileStatus) -> Inode:
        """An entry of a listing becomes known to the kernel; as after `lookup`."""
        return self._remember(directory.inode, status.name, status, self._expiry_of(directory))

    def note_listed(self, directory: DirectoryHandle, status: FileStatus) -> None:
        """An entry that the kernel gets by name only: keep its attributes for the stat that often follows."""
        self.listings.note(directory.inode.number, status, self._expiry_of(directory))

    def _expiry_of(self, directory: DirectoryHandle) -> float:
        """A program may take its time between two entries of a listing that came long ago."""
        return directory.fetched_s + self._config.metadata_ttl_s

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        self._directories.remove(handle).close()

    # --- files ---

    async def open(self, number: int, flags: int = os.O_RDONLY) -> tuple[int, bool]:
        """Open a file.

        Args:
            number: its node id.
            flags: of open(2); the access mode and O_TRUNC count.

        Returns:
            The handle's number, and whether the kernel may keep the pages that it has.

        Raises:
            IsDirectoryError, StaleError. PermissionDeniedError: the NameNode refused. BusyError: it is open for
            writing, here or on another node. ReadOnlyError: the mount is read-only.
        """
        is_writer = flags & os.O_ACCMODE != os.O_RDONLY
        inode = await self._current(number, is_writer=is_writer)
        inode.children += 1  # from here on it stays, and stays this version
        try:
            if is_writer:
                file, keep_pages = await self._open_draft(inode, truncate=bool(flags & os.O_TRUNC))
            else:
                reader, keep_pages = await self._open_version(inode)
                file = FileHandle(inode, reader)
        except BaseException as e:
            inode.children -= 1
            if isinstance(e, FileChangedError):
                self._disbelieve(inode)
                await self._calls.run(time.sleep, _SETTLE_S)
            self.inodes.release(inode)
            raise
        inode.opens += 1
        return self._files.add(file), keep_pages

    async def _open_draft(self, inode: Inode, *, truncate: bool) -> tuple[FileHandle, bool]:
        drafts = self._writable()
        if drafts.of(inode) is None:
            await self._check_writable(inode)
        keep_pages = drafts.of(inode) is not None or inode.page_cache_version == inode.version
        inode.page_cache_version = inode.version
        is_fresh = drafts.of(inode) is None
        draft = await drafts.begin(inode)
        try:
            if is_fresh:
                self._check_version(inode, draft)
            if truncate:
                await drafts.truncate(draft, 0)
        except BaseException:
            await drafts.end(draft)
            raise
        return FileHandle(inode, None, draft), keep_pages

    @staticmethod
    def _check_version(inode: Inode, draft: Draft) -> None:
        """What is written over must be what is there, now that nobody else can write it.

        Raises:
            FileChangedError: it is not.
        """
        status = draft.target
        if status is None:
            raise FileChangedError(f"{inode.name}: gone")
        is_same = (status.mtime_ms, status.length_bytes) == inode.version
        if not is_same and not (draft.was_completing and status.length_bytes == inode.version[1]):
            raise FileChangedError(f"{inode.name}: changed since it was looked up")

    async def _check_writable(self, inode: Inode) -> None:
        """Have the NameNode decide whether this identity may change a file, where its mode bits leave that open.

        Raises:
            PermissionDeniedError: it may not. ReadOnlyError: it belongs to a snapshot.
        """
        if self._is_hdfs and SNAPSHOTS in self.inodes.path_of(inode).split("/"):
            raise ReadOnlyError(f"{inode.name}: belongs to a snapshot")
        status = inode.status
        if status.mode & 0o002 or (status.owner == self._user and status.mode & 0o200):
            return
        try:
            await self._calls.run(self._backend.check_write, self.inodes.path_of(inode))
        except (UnsupportedError, UnavailableError, AuthenticationError) as e:
            logger.info("%s: not known whether it may be written: %s", inode.name, e)
            if not status.mode & 0o020:  # the group's bit may be ours
                raise PermissionDeniedError(f"{inode.name}: its mode does not let {self._user} write it") from e

    async def _current(self, number: int, *, is_writer: bool) -> Inode:
        """The file that is to be opened, in the version that the kernel knows."""
        inode = self.inodes.get(number)
        if is_writer:
            await self._writable().wait_for_writers(inode)
        version = inode.version  # the kernel knows what writers of ours have made of it
        inode = await self.getattr(number)
        if inode.status.kind is FileKind.DIRECTORY:
            raise IsDirectoryError(f"{inode.name}: a directory")
        if inode.version != version and self._draft(inode) is None:
            # The kernel would cut the new content at the old length. Of ESTALE it looks the name up again, and opens.
            self._disbelieve(inode)
            await self._calls.run(time.sleep, _SETTLE_S)
            raise StaleError(f"{inode.name}: changed since it was looked up")
        return inode

    def _is_ours(self, inode: Inode, status: FileStatus) -> bool:
        """Whether we know better what a file is than HDFS: it is being changed, or has been published just now."""
        if self._drafts is None:
            return False
        is_same = status.length_bytes == inode.status.length_bytes
        return self._draft(inode) is not None or (is_same and self._drafts.is_completing(inode))

    def _draft(self, inode: Inode) -> Draft | None:
        """What is known of a file here and not in HDFS; one that is only about to end knows nothing more."""
        draft = None if self._drafts is None else self._drafts.of(inode)
        return None if draft is None or draft.is_stored else draft

    def _writable(self) -> Drafts:
        if self._drafts is None:
            raise ReadOnlyError("the mount is read-only")
        return self._drafts

    @property
    def changes(self) -> Changes:
        """What changes names and attributes.

        Raises:
            ReadOnlyError: the mount is read-only.
        """
        if self._changes is None:
            raise ReadOnlyError("the mount is read-only")
        return self._changes

    async def make_directory(self, parent_number: int, name: str, mode: int) -> Inode:
        """mkdir(2); the kernel holds one more reference to the new directory."""
        parent = self.inodes.get(parent_number)
        expires_s = self._expiry_s()
        status = await self.changes.make_directory(parent, name, mode)
        return self._remember(parent, name, status, expires_s)

    async def create(self, parent_number: int, name: str, mode: int, flags: int) -> tuple[int, Inode]:
        """Create a file and open it; the kernel holds one more reference to it.

        Raises:
            AlreadyExistsError: with O_EXCL, the name is taken, on whatever node. BusyError: another node is writing it.
        """
        drafts, changes, parent = self._writable(), self.changes, self.inodes.get(parent_number)
        changes.path_for(parent, name)  # where HDFS has no such names, nothing is begun
        known = self.inodes.find(parent, name)
        if known is not None:
            if drafts.of(known) is not None:
                return await self._open_created(parent, name, known.status, flags)
            self.inodes.detach(known)
        now_ms = time.time_ns() // 1_000_000
        new = FileStatus(name, FileKind.FILE, 0, mode & 0o1777, self._user, parent.status.group, now_ms, now_ms)
        inode = self.inodes.remember(parent, name, new, self._expiry_s())
        try:
            draft = await drafts.begin_new(inode)
        except BaseException as e:
            self.inodes.detach(inode)
            self.inodes.forget(inode.number, 1)
            if isinstance(e, BusyError) and flags & os.O_EXCL:
                raise AlreadyExistsError(f"{name}: another node is creating it") from e
            raise
        if (there := draft.target) is not None:  # whoever made it held the lease that is ours since
            await drafts.discard(draft)
            self.inodes.detach(inode)
            self.inodes.forget(inode.number, 1)
            return await self._open_created(parent, name, there, flags)
        changes.changed(parent, name)
        inode.children += 1
        inode.opens += 1
        return self._files.add(FileHandle(inode, None, draft)), inode

    async def _open_created(self, parent: Inode, name: str, status: FileStatus, flags: int) -> tuple[int, Inode]:
        """The file has come into being since the kernel looked its name up."""
        if flags & os.O_EXCL:
            raise AlreadyExistsError(f"{name}: is there")
        inode = self._remember(parent, name, status, self._expiry_s())
        try:
            handle, _ = await self.open(inode.number, flags)
        except BaseException:
            self.inodes.forget(inode.number, 1)
            raise
        return handle, inode

    def _reader(self, inode: Inode) -> Reader:
        file = OpenFile(self._backend, self.inodes.path_of(inode), inode.status, self._metrics)
        small = inode.status.length_bytes <= self._config.small_file_bytes
        return SmallReader(file, self._shared) if small else BlockReader(file, self._shared)

    def _disbelieve(self, inode: Inode) -> None:
        """The attributes of an inode have turned out wrong before their time: the next lookup asks again."""
        inode.expires_s = float("-inf")
        if inode.parent is not None:
            self.listings.disbelieve(inode.parent.number, inode.name)
        self.inodes.detach(inode)

    async def _open_version(self, inode: Inode) -> tuple[Reader, bool]:
        reader = self._reader(inode)
        if self._draft(inode) is not None:
            return reader, True
        version = inode.version
        if inode.readable_version != version:
            await reader.check_readable()
            inode.readable_version = version
        keep_pages = inode.page_cache_version == version
        if inode.page_cache_version is None and inode.children == 1 and reader.content:
            # The bytes came with the permission to read them: the kernel need not ask for them.
            self._kernel.store_pages(inode, reader.content)
            self._metrics.read_bytes += reader.length_bytes
            keep_pages = True
        inode.page_cache_version = version
        return reader, keep_pages

    async def read(self, handle: int, start: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `start`; fewer only at the end of the file."""
        file = self._files.get(handle)
        draft = file.draft or self._draft(file.inode)
        data: bytes | memoryview | None = None
        if draft is not None:
            with contextlib.suppress(DraftEndedError):
                data = await self._writable().read(draft, start, size)
        if data is None:
            data = await self._read_version(file, start, size)
        self._metrics.read_count += 1
        self._metrics.read_bytes += len(data)
        return data

    async def _read_version(self, file: FileHandle, start: int, size: int) -> bytes | memoryview:
        reader, inode = file.reader, file.inode
        assert reader is not None
        if (reader.file.status.mtime_ms, reader.length_bytes) != inode.version:
            # Changed by this mount, or the file would have another inode.
            reader.close()
            reader = file.reader = self._reader(inode)
        try:
            return await reader.read(start, size)
        except FileChangedError:
            if not await self._is_still(inode):
                self._disbelieve(inode)
                raise
        reader.close()
        file.reader = self._reader(inode)
        return await file.reader.read(start, size)

    async def _is_still(self, inode: Inode) -> bool:
        """Whether a file that seemed to be changed is the same: its writer's node may just have completed it."""
        await self._calls.run(time.sleep, _SETTLE_S)
        with contextlib.suppress(NotFoundError):
            found = await self._calls.run(self._backend.status, self.inodes.path_of(inode))
            return (found.mtime_ms, found.length_bytes) == inode.version
        return False

    async def write(self, handle: int, start: int, data: bytes) -> int:
        """Change bytes of a file; gives their number.

        Raises:
            NoSpaceError: the staging directory is full.
        """
        file = self._files.get(handle)
        if file.draft is None:
            raise InvalidArgumentError(f"{file.inode.name}: not open for writing")
        await self._writable().write(file.draft, start, data)
        return len(data)

    async def publish(self, handle: int, *, durable: bool) -> None:
        """close(2) or fsync(2) of one of a handle's descriptors: HDFS stores what was changed through it.

        Args:
            handle: the file.
            durable: for fsync: it is to be on the DataNodes' disks.

        Raises:
            HdfsFuseError: it does not; the bytes are kept.
        """
        file = self._files.get(handle)
        if file.draft is not None:
            await self._writable().publish(file.draft, durable=durable)

    async def truncate(self, inode: Inode, length_bytes: int) -> None:
        """Cut or lengthen a file; where nobody has it open for writing, HDFS has it when this returns."""
        drafts = self._writable()
        if (draft := drafts.of(inode)) is not None and draft.writers:
            with contextlib.suppress(DraftEndedError):
                await drafts.truncate(draft, length_bytes)
                return
        handle, _ = await self.open(inode.number, os.O_WRONLY)
        try:
            draft = drafts.of(inode)
            assert draft is not None
            await drafts.truncate(draft, length_bytes)
            await drafts.publish(draft)
        finally:
            await self.release(handle)

    async def release(self, handle: int) -> None:
        """Close a file."""
        file = self._files.remove(handle)
        inode = file.inode
        if file.reader is not None:
            file.reader.close()
        if file.draft is not None:
            await self._writable().end(file.draft)
        inode.opens -= 1
        inode.children -= 1
        if self._changes is not None and not inode.opens:
            self._changes.forget_hidden(inode)
        self.inodes.release(inode)

    # --- the whole ---

    async def statfs(self) -> SpaceUsage:
        """Space of the filesystem; what was last known, or plenty, when it can't be asked."""
        if trio.current_time() >= self._space_expires_s:
            self._space_expires_s = trio.current_time() + _SPACE_TTL_S
            # Probes of the mount's health call this: a filesystem that hangs must not look like a dead daemon.
            with trio.move_on_after(_SPACE_PATIENCE_S):
                try:
                    self._space = await self._calls.run(self._backend.space, self.inodes.path_of(self.inodes.root))
                except HdfsFuseError as e:
                    logger.info("space unknown: %s", e)
        return self._space

    def close(self) -> None:
        """Close what applications left open."""
        for file in self._files.values():
            if file.reader is not None:
                file.reader.close()
        for directory in self._directories.values():
            directory.close()

    def stats(self) -> dict[str, object]:
        """The state of the mount, for `hdfs-fuse stats`."""
        store = self._cache.store
        return {
            "uptime_s": time.time() - self._metrics.started_s,
            "inodes": len(self.inodes),
            "open_files": len(self._files),
            "loaders": self._cache.loader_count,
            "cache_used_bytes": store.counted_bytes() if store is not None else 0,
            "cache_size_bytes": self._config.cache.size_bytes if store is not None else 0,
            **dataclasses.asdict(UploadQueue() if self._drafts is None else self._drafts.queue()),
            **self._metrics.as_dict(),
        }


def _is_open_file(inode: Inode) -> bool:
    return inode.status.kind is FileKind.FILE and inode.children > 0


def _may_become(inode: Inode, status: FileStatus) -> bool:
    """Whether a node may go on with other attributes, rather than the path getting a node of its own for them.

    Not when a file has become a directory. Nor another version of a file that is open: the kernel keeps one length and
    one set of pages a node, and would mix those of the two, or show zeros where the new one is longer.
    """
    if status.kind is not inode.status.kind:
        return False
    return not _is_open_file(inode) or (status.mtime_ms, status.length_bytes) == inode.version
