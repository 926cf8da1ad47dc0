"""Files that are being changed: their bytes are staged, and published as a whole on flush and fsync.

A draft begins when a file is opened for writing, and ends when its last writer has closed it and HDFS has its bytes.
Until it is published others see the old file, or none. While it lasts, a hidden sibling of the file is being written
in HDFS (upload/): its lease keeps writers of other nodes away.
"""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import outcome
import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import BusyError, HdfsFuseError
from hdfs_fuse.hidden import name_while_writing
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.staging import StagedFile, StagingArea
from hdfs_fuse.upload.messages import Answer, Completion, Content, Source
from hdfs_fuse.upload.uploads import Publication, Session, Uploads

logger = logging.getLogger(__name__)

# The RELEASE of a file that was closed may come after the next OPEN: how long that waits for it, in seconds.
_RELEASE_PATIENCE_S = 1.0
# How often what could not be published is tried again, in seconds.
_AGAIN_S = 15.0
# At the end, how long to wait for the last times to be set, and how often to look.
_SETTLE_S, _POLL_S = 3.0, 0.02
# How often, and how many times, HDFS is asked whether it has recovered a lease.
_RECOVERY_POLL_S = 1.0
_RECOVERY_POLLS = 30


class Draft:
    """A file that is being changed. Belongs to the event loop.

    Attributes:
        inode: the file.
        is_new: whether HDFS has no file of that name yet.
        is_dirty: whether there is something to publish.
        is_removed: whether its name is gone: nothing will be published.
        writers: open handles that may write.
        length_bytes: of the file as it is here.
        xattrs: extended attributes of a file that HDFS does not have yet.
    """

    __slots__ = (
        "atime_ms",
        "base",
        "base_bytes",
        "inode",
        "is_dirty",
        "is_new",
        "is_removed",
        "length_bytes",
        "lock",
        "mode",
        "mtime_ms",
        "released",
        "session",
        "sibling",
        "sibling_is_ours",
        "staged",
        "writers",
        "xattrs",
    )

    def __init__(self, inode: Inode, staged: StagedFile, base: OpenFile | None) -> None:
        self.inode = inode
        self.staged = staged
        self.base = base
        self.base_bytes = self.length_bytes = inode.status.length_bytes if base is not None else 0
        self.is_new = self.is_dirty = base is None
        self.is_removed = False
        self.mode = inode.status.mode
        self.mtime_ms: int | None = None  # asked for by utimes(2), or already told to the kernel
        self.atime_ms: int | None = None
        self.xattrs: dict[str, bytes] = {}
        self.writers = 0
        self.lock = trio.Lock()
        self.released = trio.Event()
        self.session: Session | None = None
        self.sibling: tuple[Inode, str] | None = None  # its directory, which stays while it is there, and its name
        self.sibling_is_ours = False

    def touch(self) -> None:
        """Something has been changed just now."""
        self.is_dirty = True
        self.mtime_ms = None
        status = self.inode.status
        self.inode.status = replace(status, length_bytes=self.length_bytes, mtime_ms=time.time_ns() // 1_000_000)

    def content(self) -> Content:
        """What is to be published."""
        base = None
        if self.base is not None and self.base_bytes:
            status = self.base.status
            base = Source(self.base.path, status.mtime_ms, status.length_bytes)
        extents = list(self.staged.extents)
        return Content(self.length_bytes, self.staged.path if extents else "", extents, base, self.base_bytes)


class DraftEndedError(HdfsFuseError):
    """A draft that was asked for something is no more."""


class _Completing:
    """A file that is published while it is open, until HDFS has completed it."""

    __slots__ = ("inode",)

    def __init__(self, inode: Inode) -> None:
        self.inode = inode


class Drafts:
    """The drafts of a mount. Belongs to the event loop; raises only HdfsFuseError."""

    def __init__(
        self,
        config: MountConfig,
        backend: ResilientBackend,
        inodes: InodeTable,
        area: StagingArea,
        uploads: Uploads,
        calls: Calls,
        disk: Calls,
        metrics: Metrics,
        nursery: trio.Nursery,
    ) -> None:
        """Keep drafts.

        Args:
            config: the mount.
            backend: where unchanged bytes come from.
            inodes: says where a file is now.
            area: where bytes are staged.
            uploads: publish them.
            calls: for reads of the backend.
            disk: for the staging disk.
            metrics: what is counted.
            nursery: for what goes on when nobody waits.
        """
        self._config = config
        self._nursery = nursery
        self._backend = backend
        self._inodes = inodes
        self._area = area
        self._uploads = uploads
        self._calls = calls
        self._disk = disk
        self._metrics = metrics
        self._drafts: dict[Inode, Draft] = {}
        self._completing: dict[int, _Completing] = {}

    def of(self, inode: Inode) -> Draft | None:
        """The draft of a file, if there is one."""
        return self._drafts.get(inode)

    def is_completing(self, inode: Inode) -> bool:
        """Whether a file was published just now: HDFS will change its time, and we change it back."""
        return inode.number in self._completing

    def new_in(self, directory: Inode) -> list[FileStatus]:
        """Files of a directory that HDFS does not have yet."""
        return [
            draft.inode.status
            for draft in self._drafts.values()
            if draft.is_new and not draft.is_removed and draft.inode.parent is directory
        ]

    def follow(self) -> None:
        """Directories or files have been renamed: unchanged bytes are read from where the files are now."""
        for draft in self._drafts.values():
            if draft.base is not None:
                draft.base.path = self._inodes.path_of(draft.inode)

    # --- beginning ---

    async def wait_for_writers(self, inode: Inode) -> None:
        """Let a file have one writer at a time.

        Raises:
            BusyError: it is open for writing.
        """
        draft = self._drafts.get(inode)
        if draft is not None and draft.writers:
            with trio.move_on_after(_RELEASE_PATIENCE_S):
                await draft.released.wait()
            if draft.writers:
                raise BusyError(f"{inode.name}: is open for writing")

    async def begin(self, inode: Inode) -> Draft:
        """The draft of a file, for one more writer; `end` is owed for it.

        Raises:
            BusyError: another node writes the file. PermissionDeniedError, ReadOnlyError, NotFoundError,
            QuotaExceededError: as the NameNode answers.
        """
        draft = self._drafts.get(inode)
        if draft is not None and draft.writers:
            raise BusyError(f"{inode.name}: is open for writing")  # since `wait_for_writers`
        if draft is None:
            base = OpenFile(self._backend, self._inodes.path_of(inode), inode.status, self._metrics)
            draft = self._add(inode, base)
        return await self._enter(draft)

    async def begin_new(self, inode: Inode) -> Draft:
        """The draft of a file that HDFS does not have; otherwise as `begin`."""
        return await self._enter(self._add(inode, None))

    def _add(self, inode: Inode, base: OpenFile | None) -> Draft:
        draft = Draft(inode, self._area.create(), base)
        inode.children += 1
        self._drafts[inode] = draft
        return draft

    async def _enter(self, draft: Draft) -> Draft:
        is_fresh = draft.writers == 0 and not draft.staged.extents and draft.sibling is None
        draft.writers += 1
        draft.released = trio.Event()
        try:
            async with draft.lock:
                await self._reserve(draft)
        except BaseException:
            draft.writers -= 1
            if is_fresh or not draft.is_dirty:  # else its bytes are kept from before
                self._forget(draft)
            raise
        return draft

    async def _reserve(self, draft: Draft) -> None:
        """Hold the lease of the sibling, unless that is held already."""
        if draft.is_removed or (draft.session is not None and draft.session.process.is_usable):
            return
        parent = draft.inode.parent
        assert parent is not None
        if draft.sibling is None:
            draft.sibling = parent, name_while_writing(draft.inode.name)
            parent.children += 1
        draft.session = await self._uploads.reserve(
            self._sibling_path(draft), draft.mode, take_over=draft.sibling_is_ours
        )
        draft.sibling_is_ours = True

    def _sibling_path(self, draft: Draft) -> str:
        assert draft.sibling is not None
        return self._inodes.path_in(*draft.sibling)

    @contextlib.asynccontextmanager
    async def _held(self, draft: Draft) -> AsyncIterator[None]:
        """Nobody else changes the draft inside of this.

        Raises:
            DraftEndedError: it ended while this waited: the file is to be had from HDFS, or has to be opened again.
        """
        async with draft.lock:
            if self._drafts.get(draft.inode) is not draft:
                raise DraftEndedError(f"{draft.inode.name}: has been stored meanwhile")
            yield

    # --- content ---

    async def read(self, draft: Draft, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`; fewer only at the end of the file."""
        async with self._held(draft):
            stop = min(start + size, draft.length_bytes)
            pieces = list(draft.staged.extents.pieces(start, stop)) if start < stop else []
            parts = [await self._piece(draft, *piece) for piece in pieces]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _piece(self, draft: Draft, start: int, stop: int, is_staged: bool) -> bytes:
        if is_staged:
            return await self._disk.run(draft.staged.read, start, stop)
        middle = min(max(draft.base_bytes, start), stop)
        data = b""
        if start < middle:
            assert draft.base is not None
            data = await self._calls.run(draft.base.read, start, middle)
        return data + bytes(stop - middle)

    async def write(self, draft: Draft, start: int, data: bytes) -> None:
        """Change bytes, and lengthen the file where it ends before them.

        Raises:
            NoSpaceError: the staging directory is full. BusyError: another node has begun to write.
        """
        async with draft.lock:
            await self._reserve(draft)
            await self._disk.run(draft.staged.write, start, data)
            draft.length_bytes = max(draft.length_bytes, start + len(data))
            draft.touch()
        self._metrics.written_bytes += len(data)

    async def truncate(self, draft: Draft, length_bytes: int) -> None:
        """Cut the file, or lengthen it with zeros."""
        async with self._held(draft):
            await self._reserve(draft)
            await self._disk.run(draft.staged.cut, length_bytes)
            draft.base_bytes = min(draft.base_bytes, length_bytes)
            draft.length_bytes = length_bytes
            draft.touch()

    # --- publishing ---

    async def publish(self, draft: Draft) -> None:
        """Have HDFS store what has been changed; when this returns, it does.

        Raises:
            HdfsFuseError: it does not, and the bytes are kept for the next attempt.
        """
        async with draft.lock:
            await self._publish(draft)

    async def _publish(self, draft: Draft) -> None:
        if draft.is_dirty and not draft.is_removed:
            await self._reserve(draft)
            inode, content, session = draft.inode, draft.content(), draft.session
            completing = self._completing[inode.number] = _Completing(inode)
            inode.children += 1
            draft.session = None
            is_open = False
            try:
                answer = await self._uploads.publish(
                    session,
                    Publication(
                        sibling=self._sibling_path(draft),
                        target=self._inodes.path_of(inode),
                        overwrite=not draft.is_new,
                        content=content,
                        mode=draft.mode,
                        mtime_ms=draft.mtime_ms,
                        atime_ms=draft.atime_ms,
                        xattrs=draft.xattrs,
                        keep_open=content.length_bytes <= self._config.small_file_bytes,
                        completed=lambda completion: self._completed(completing, completion),
                    ),
                )
                is_open = answer.is_open
                self._published(draft, answer)
            finally:
                if not is_open:
                    self._let_go(completing)

    def _published(self, draft: Draft, answer: Answer) -> None:
        inode = draft.inode
        self._metrics.published_count += 1
        self._metrics.published_bytes += answer.length_bytes
        self._leave_sibling(draft)
        draft.is_new = draft.is_dirty = False
        draft.mtime_ms = draft.atime_ms = None
        draft.xattrs = {}
        inode.status = replace(
            inode.status, length_bytes=answer.length_bytes, mtime_ms=answer.mtime_ms, mode=draft.mode
        )
        inode.expires_s = trio.current_time() + self._config.metadata_ttl_s
        # What the kernel has is what was written; and who wrote a file has been let in.
        inode.page_cache_version = inode.readable_version = inode.version
        if draft.base is not None:
            draft.base.close()
        draft.base = OpenFile(self._backend, self._inodes.path_of(inode), inode.status, self._metrics)
        draft.base_bytes = answer.length_bytes

    def _leave_sibling(self, draft: Draft) -> None:
        if draft.sibling is not None:
            parent, _ = draft.sibling
            draft.sibling = None
            draft.sibling_is_ours = False
            parent.children -= 1
            self._inodes.release(parent)

    def _completed(self, completing: _Completing, completion: Completion) -> None:
        """HDFS has given a file the time of its close: restore the one that it had."""
        inode = completing.inode
        if self._completing.get(inode.number) is not completing:
            self._let_go(completing)  # published once more since
        elif completion == "complete":
            self._restore_time(completing)
        elif completion == "unknown":
            self._nursery.start_soon(self._recover, completing)
        else:
            self._inodes.detach(inode)  # another client has replaced it: look again
            self._let_go(completing)

    async def _recover(self, completing: _Completing) -> None:
        """Have HDFS complete a file whose uploader has died: until then hdfs-native's readers miss its last block."""
        inode = completing.inode
        for _ in range(_RECOVERY_POLLS):
            if self._completing.get(inode.number) is not completing:
                break  # published once more since: the lease is another one
            try:
                if await self._calls.run(self._backend.recover_lease, self._inodes.path_of(inode)):
                    break
            except HdfsFuseError as e:
                logger.info("%s: its lease is not recovered: %s", self._inodes.path_of(inode), e)
            await trio.sleep(_RECOVERY_POLL_S)
        if self._completing.get(inode.number) is completing:
            self._restore_time(completing)
        else:
            self._let_go(completing)

    def _restore_time(self, completing: _Completing) -> None:
        inode = completing.inode
        parent = inode.parent
        draft = self._drafts.get(inode)
        is_changing = draft is not None and (draft.is_dirty or draft.is_removed)
        if parent is None or self._inodes.find(parent, inode.name) is not inode or is_changing:
            self._let_go(completing)
            return
        path, mtime_ms = self._inodes.path_of(inode), inode.status.mtime_ms

        def restored(result: outcome.Outcome[None]) -> None:
            is_current = (self._inodes.path_of(inode), inode.status.mtime_ms) == (path, mtime_ms)
            if isinstance(result, outcome.Error):
                logger.info("%s: its time was not restored: %s", path, result.error)
            if is_current:
                self._let_go(completing)
            else:  # renamed, or given another time, in between
                self._restore_time(completing)

        self._calls.start(lambda: self._backend.set_times(path, mtime_ms=mtime_ms, atime_ms=None), restored)

    def _let_go(self, completing: _Completing) -> None:
        inode = completing.inode
        if self._completing.get(inode.number) is completing:
            del self._completing[inode.number]
        inode.children -= 1
        self._inodes.release(inode)

    # --- ending ---

    async def end(self, draft: Draft) -> None:
        """One writer less. What a map has changed since the last flush is published now."""
        if draft.writers == 1 and draft.is_dirty and not draft.is_removed:
            try:
                await self.publish(draft)
            except HdfsFuseError as e:
                logger.warning("%s: not stored, and kept: %s", self._inodes.path_of(draft.inode), e)
        draft.writers -= 1
        if draft.writers == 0:
            draft.released.set()
            if not draft.is_dirty or draft.is_removed:
                await self._close(draft)

    async def _close(self, draft: Draft) -> None:
        """Nobody writes the file any longer: remove its sibling, and then forget it, unless it is opened meanwhile."""
        async with draft.lock:
            if draft.writers:
                return
            session, draft.session = draft.session, None
            if session is not None:
                await self._uploads.abandon(session, self._sibling_path(draft))
                self._leave_sibling(draft)
            if not draft.writers:
                self._forget(draft)

    def _forget(self, draft: Draft) -> None:
        inode = draft.inode
        if self._drafts.get(inode) is not draft:
            return
        del self._drafts[inode]
        self._leave_sibling(draft)
        draft.staged.close()
        if draft.base is not None:
            draft.base.close()
        inode.children -= 1
        self._inodes.release(inode)

    async def remove(self, draft: Draft, remove_stored: Callable[[], Awaitable[object]]) -> None:
        """Its name goes: what is open stays readable and writable, and nothing is published any more.

        Args:
            draft: the file's.
            remove_stored: removes what HDFS has of the file; when that fails the draft goes on.
        """
        async with draft.lock:
            if not draft.is_new:
                await remove_stored()
            draft.is_removed = True
            session, draft.session = draft.session, None
            if draft.sibling is not None:
                path = self._sibling_path(draft)
                if session is not None:
                    await self._uploads.abandon(session, path)
                else:
                    self._calls.start(lambda: self._backend.delete(path, recursive=False), lambda _: None)
            self._leave_sibling(draft)
            if not draft.writers:
                self._forget(draft)

    async def discard(self, draft: Draft) -> None:
        """Undo `begin_new`: somebody else has made the file."""
        async with draft.lock:
            draft.is_removed = True
        await self.end(draft)

    async def publish_and(self, draft: Draft, then: Callable[[], Awaitable[object]]) -> None:
        """Publish, and do something before anybody changes the file again."""
        async with draft.lock:
            await self._publish(draft)
            await then()

    async def set_mode(self, draft: Draft, mode: int, store: Callable[[], Awaitable[object]]) -> None:
        """Change permission bits, with `store` in HDFS too if the file is there."""
        async with draft.lock:
            if not draft.is_new:
                await store()
            draft.mode = mode

    async def set_times(
        self, draft: Draft, mtime_ms: int | None, atime_ms: int | None, store: Callable[[], Awaitable[object]]
    ) -> None:
        """Change times: of what will be published, or with `store` of what HDFS has."""
        async with draft.lock:
            if draft.is_dirty:
                draft.mtime_ms = draft.mtime_ms if mtime_ms is None else mtime_ms
                draft.atime_ms = draft.atime_ms if atime_ms is None else atime_ms
                return
            await store()
            if draft.base is not None and mtime_ms is not None:
                status = replace(draft.base.status, mtime_ms=mtime_ms)
                draft.base.close()
                draft.base = OpenFile(self._backend, self._inodes.path_of(draft.inode), status, self._metrics)

    async def watch(self) -> None:
        """Try again to publish what nobody has open and HDFS did not take."""
        while True:
            await trio.sleep(_AGAIN_S)
            try:
                await self._publish_left()
            except Exception:
                logger.exception("unexpected error while publishing")

    async def _publish_left(self) -> None:
        for draft in list(self._drafts.values()):
            if draft.writers == 0 and draft.is_dirty and not draft.is_removed:
                try:
                    await self.publish(draft)
                    await self._close(draft)
                except HdfsFuseError as e:
                    logger.info("%s: still not stored: %s", self._inodes.path_of(draft.inode), e)

    async def close(self) -> None:
        """Publish what is left, and complete everything."""
        for draft in list(self._drafts.values()):
            draft.writers = 0
        await self._publish_left()
        for draft in self._drafts.values():
            if draft.is_dirty and not draft.is_removed:
                logger.error("%s: not stored", self._inodes.path_of(draft.inode))
        await self._uploads.drain()
        with trio.move_on_after(_SETTLE_S):
            while self._completing:  # noqa: ASYNC110 - times that are still being restored
                await trio.sleep(_POLL_S)
