"""Files that are being changed: their bytes are staged, and published as a whole on flush and fsync.

A draft begins when a file is opened for writing, and ends when its last writer has closed it and HDFS has its bytes.
Until it is published others see the old file, or none. While it lasts, a hidden sibling of the file is being written
in HDFS (upload/): its lease keeps writers of other nodes away.

Here is which drafts there are, and what may be done with them. A draft's lock is taken here (and in xattrs.py, and
where a sibling is reserved again in the background); what is done under it is in the modules below, each of which knows
only those before it: completions.py, bases.py, siblings.py, tails.py, streams.py, then contents.py and publisher.py.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import BusyError, HdfsFuseError
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.upload.uploads import Uploads
from hdfs_fuse.writing.bases import Bases
from hdfs_fuse.writing.completions import Completions
from hdfs_fuse.writing.contents import Contents
from hdfs_fuse.writing.draft import Draft, DraftEndedError
from hdfs_fuse.writing.publisher import Publisher
from hdfs_fuse.writing.siblings import Siblings
from hdfs_fuse.writing.staging import StagingArea
from hdfs_fuse.writing.streams import Streams
from hdfs_fuse.writing.tails import Tails

logger = logging.getLogger(__name__)

# The RELEASE of a file that was closed may come after the next OPEN: how long that waits for it, in seconds.
_RELEASE_PATIENCE_S = 1.0
# How often what could not be published is tried again, in seconds. A file that nothing was appended to for as long is
# completed, so that all readers see it whole.
_AGAIN_S = 15.0
# At the end, how long to wait until all is complete and has its time, in seconds, and how often to look.
_SETTLE_S, _POLL_S = 30.0, 0.02


@dataclass(frozen=True, slots=True)
class UploadQueue:
    """What is on its way into HDFS, from the first byte written on.

    Attributes:
        changed_files: have bytes that HDFS does not have.
        staged_bytes: bytes of files that are being changed, on the local disk.
        publishing_files: of these, those that are being stored.
        completing_files: are stored under their names, and HDFS has yet to complete them.
    """

    changed_files: int = 0
    staged_bytes: int = 0
    publishing_files: int = 0
    completing_files: int = 0


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
        self._inodes = inodes
        self._area = area
        self._uploads = uploads
        self._metrics = metrics
        self._drafts: dict[Inode, Draft] = {}
        completions = Completions(backend, calls, inodes, uploads, nursery, self._stored)
        bases = Bases(config, backend, inodes, calls, metrics)
        siblings = Siblings(backend, inodes, uploads, calls, completions, nursery)
        tails = Tails(config, backend, inodes, uploads, calls, completions, bases, siblings)
        streams = Streams(config, uploads, disk, completions, bases, siblings, tails, nursery)
        self._contents = Contents(calls, disk, siblings, tails, streams)
        self._publisher = Publisher(config, inodes, uploads, completions, bases, siblings, tails, streams)
        self._completions, self._bases, self._siblings = completions, bases, siblings
        self._tails, self._streams = tails, streams

    def of(self, inode: Inode) -> Draft | None:
        """The draft of a file, if there is one."""
        return self._drafts.get(inode)

    def is_completing(self, inode: Inode) -> bool:
        """Whether a file was published just now: HDFS will change its time, and we change it back."""
        return inode in self._completions

    def new_in(self, directory: Inode) -> list[FileStatus]:
        """Files of a directory that HDFS does not have yet."""
        return [
            draft.inode.status
            for draft in list(self._drafts.values())  # this runs beside the event loop
            if draft.is_new and not draft.is_removed and draft.inode.parent is directory
        ]

    def follow(self) -> None:
        """Directories or files have been renamed: unchanged bytes are read from where the files are now."""
        for draft in self._drafts.values():
            self._bases.follow(draft)

    def queue(self) -> UploadQueue:
        """What is on its way into HDFS now."""
        drafts = self._drafts.values()
        return UploadQueue(
            changed_files=sum(draft.is_dirty and not draft.is_removed for draft in drafts),
            staged_bytes=sum(draft.staged.extents.size for draft in drafts),
            publishing_files=self._publisher.publishing,
            completing_files=len(self._completions),
        )

    def _stored(self, inode: Inode) -> FileStatus | None:
        draft = self._drafts.get(inode)
        if draft is None or not (draft.is_dirty or draft.is_removed):
            return inode.status
        return None if draft.base is None or draft.part is not None else draft.base.status

    # --- beginning ---

    async def wait_for_writers(self, inode: Inode) -> None:
        """Let a file have one writer at a time, and the draft of the one before end: HDFS says what is there then.

        Raises:
            BusyError: it is open for writing.
        """
        draft = self._drafts.get(inode)
        with trio.move_on_after(_RELEASE_PATIENCE_S):
            while draft is not None and (draft.writers or draft.is_stored):
                if draft.writers:
                    await draft.released.wait()
                else:
                    async with draft.lock:  # behind whoever lets it end
                        pass
                draft = self._drafts.get(inode)
        if draft is not None and draft.writers:
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
            draft = self._add(inode, self._bases.of(inode))
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
                await self._siblings.reserve(draft)
        except BaseException:
            draft.writers -= 1
            if is_fresh or not draft.is_dirty:  # else its bytes are kept from before
                self._forget(draft)
            raise
        return draft

    @contextlib.asynccontextmanager
    async def _held(self, draft: Draft) -> AsyncIterator[None]:
        """Nobody else changes the draft inside of this.

        Raises:
            DraftEndedError: it ended while this waited: the file is to be had from HDFS, or has to be opened again.
        """
        async with draft.lock:
            if draft.is_ended:
                raise DraftEndedError(f"{draft.inode.name}: has been stored meanwhile")
            yield

    # --- content ---

    async def read(self, draft: Draft, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`; fewer only at the end of the file."""
        async with self._held(draft):
            return await self._contents.read(draft, start, size)

    async def write(self, draft: Draft, start: int, data: bytes) -> None:
        """Change bytes, and lengthen the file where it ends before them.

        Raises:
            NoSpaceError: the staging directory is full. BusyError: another node has begun to write.
        """
        async with draft.lock:
            await self._contents.write(draft, start, data)
        self._metrics.written_bytes += len(data)

    async def truncate(self, draft: Draft, length_bytes: int) -> None:
        """Cut the file, or lengthen it with zeros."""
        async with self._held(draft):
            await self._contents.truncate(draft, length_bytes)

    # --- publishing ---

    async def publish(self, draft: Draft, *, durable: bool = False) -> None:
        """Have HDFS store what has been changed; when this returns, it does.

        Args:
            draft: the file.
            durable: whether it is to be on the DataNodes' disks, not only in the hands of all of them.

        Raises:
            HdfsFuseError: it does not, and the bytes are kept for the next attempt.
        """
        async with draft.lock:
            await self._publisher.publish(draft, durable=durable)

    # --- names and attributes ---

    async def remove(self, draft: Draft, remove_stored: Callable[[], Awaitable[object]]) -> None:
        """Its name goes: what is open stays readable and writable, and nothing is published any more.

        Args:
            draft: the file's.
            remove_stored: removes or replaces what HDFS has of the file; when that fails the draft goes on.
        """
        async with draft.lock:
            if draft.stream is not None and draft.stream.discarded_bytes and draft.inode.opens:
                await draft.stream.close()
                await self._streams.keep_part(draft, draft.stream)
            await remove_stored()
            draft.is_removed = True
            self._tails.end(draft)
            await self._siblings.abandon(draft)
            if not draft.writers:
                self._forget(draft)

    async def publish_and(self, draft: Draft, then: Callable[[], Awaitable[object]]) -> None:
        """Publish, and do something before anybody changes the file again."""
        async with draft.lock:
            await self._publisher.publish(draft, durable=False)
            await then()
            # What keeps others out depends on the name.
            await self._siblings.abandon(draft)
            draft.is_to_check = True
            self._siblings.reserve_again_soon(draft)
        await self._close_if_stored(draft)

    async def set_mode(self, draft: Draft, mode: int, store: Callable[[], Awaitable[object]]) -> None:
        """Change permission bits, with `store` in HDFS too if the file is there."""
        async with draft.lock:
            if not draft.is_new:
                await store()
            draft.mode = mode

    async def set_owner(self, draft: Draft, store: Callable[[], Awaitable[object]]) -> None:
        """Change owner or group of what HDFS has, with `store`."""
        async with draft.lock:
            await self._publisher.publish(draft, durable=False)
            await store()
        await self._close_if_stored(draft)

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
                self._bases.set(draft, replace(draft.base.status, mtime_ms=mtime_ms), draft.base_bytes)
                draft.named = draft.base.status

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
            await self._close_if_stored(draft)

    async def _close_if_stored(self, draft: Draft) -> None:
        """Let go of a draft that nobody has open for writing, unless HDFS refused its bytes: those are kept."""
        if draft.is_stored or (draft.is_removed and not draft.writers):
            await self._close(draft)

    async def _close(self, draft: Draft) -> None:
        """Nobody writes the file any longer: remove its sibling, and then forget it, unless it is opened meanwhile."""
        async with draft.lock:
            if draft.writers or draft.is_ended:
                return
            self._tails.end(draft)
            await self._siblings.abandon(draft)
            draft.is_to_check = True  # nothing keeps others out
            if not draft.writers:
                self._forget(draft)

    def _forget(self, draft: Draft) -> None:
        """Let go of all that a draft without writers holds; nothing is waited for, so that needs no lock."""
        inode = draft.inode
        if draft.is_ended:
            return
        draft.is_ended = True
        del self._drafts[inode]
        self._siblings.leave(draft)
        self._bases.drop_part(draft)
        draft.staged.close()
        if draft.base is not None:
            draft.base.close()
        inode.children -= 1
        self._inodes.release(inode)

    async def discard(self, draft: Draft) -> None:
        """Undo `begin_new`: somebody else has made the file."""
        async with draft.lock:
            draft.is_removed = True
        await self.end(draft)

    async def watch(self) -> None:
        """Try again to publish what nobody has open and HDFS did not take."""
        while True:
            await trio.sleep(_AGAIN_S)
            try:
                await self._publish_left()
                self._tails.end_idle(self._drafts.values())
            except Exception:
                logger.exception("unexpected error while publishing")

    async def _publish_left(self) -> None:
        async with trio.open_nursery() as nursery:
            for draft in list(self._drafts.values()):
                if draft.writers == 0 and draft.is_dirty and not draft.is_removed:
                    nursery.start_soon(self._publish_kept, draft)

    async def _publish_kept(self, draft: Draft) -> None:
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
        for draft in list(self._drafts.values()):
            if draft.is_dirty and not draft.is_removed:
                logger.error("%s: not stored", self._inodes.path_of(draft.inode))
            else:
                await self._close(draft)
        with trio.move_on_after(_SETTLE_S):
            while self._completions:  # noqa: ASYNC110 - nobody else waits for the last one
                await trio.sleep(_POLL_S)
        await self._uploads.drain()
