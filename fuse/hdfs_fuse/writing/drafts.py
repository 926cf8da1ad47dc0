"""Files that are being changed: their bytes are staged, and published as a whole on flush and fsync.

A draft begins when a file is opened for writing, and ends when its last writer has closed it and HDFS has its bytes.
Until it is published others see the old file, or none. While it lasts, a hidden sibling of the file is being written
in HDFS (upload/): its lease keeps writers of other nodes away.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import BusyError, FileChangedError, HdfsFuseError, NotFoundError, StaleError
from hdfs_fuse.hidden import name_of_part, name_while_writing
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.upload.messages import Answer
from hdfs_fuse.upload.uploads import Publication, Session, Uploads
from hdfs_fuse.writing.completions import Completions
from hdfs_fuse.writing.draft import Draft, DraftEndedError
from hdfs_fuse.writing.staging import StagingArea
from hdfs_fuse.writing.stream import Stream

logger = logging.getLogger(__name__)

# The RELEASE of a file that was closed may come after the next OPEN: how long that waits for it, in seconds.
_RELEASE_PATIENCE_S = 1.0
# HDFS keeps others out for 60 s after the last renewal of a lease; what was ours is so for a while less, in seconds.
_LEASE_S = 45.0
# A file that was stored is mostly closed at once. Else its sibling is begun again, after this time in seconds.
_RESERVE_AGAIN_S = 0.25
# How often what could not be published is tried again, in seconds. A file that nothing was appended to for as long is
# completed, so that all readers see it whole.
_AGAIN_S = 15.0
# How often growth is tried to be appended, at last by a DataNode (WebHDFS), before the whole file is written anew.
_APPEND_ATTEMPTS = 3
# At the end, how long to wait until all is complete and has its time, in seconds, and how often to look.
_SETTLE_S, _POLL_S = 30.0, 0.02


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
        self._completions = Completions(backend, calls, inodes, uploads, nursery, self._stored_mtime_ms)

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
            if draft.base is not None:
                draft.base.path = self._base_path(draft)

    def _base_path(self, draft: Draft) -> str:
        return self._inodes.path_of(draft.inode) if draft.part is None else self._inodes.path_in(*draft.part)

    def _stored_mtime_ms(self, inode: Inode) -> int | None:
        draft = self._drafts.get(inode)
        if draft is None or not (draft.is_dirty or draft.is_removed):
            return inode.status.mtime_ms
        return None if draft.base is None or draft.part is not None else draft.base.status.mtime_ms

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
        if draft.is_replaced:
            raise StaleError(f"{draft.inode.name}: replaced by another client while it was open")
        if draft.is_removed or draft.stream is not None or (draft.session is not None and draft.session.is_usable):
            return
        parent = draft.inode.parent
        assert parent is not None
        if draft.sibling is None:
            draft.sibling = parent, name_while_writing(draft.inode.name)
            parent.children += 1
        take_over = draft.sibling_is_ours and trio.current_time() - draft.held_s(trio.current_time()) < _LEASE_S
        draft.was_completing = draft.inode in self._completions
        draft.session = await self._uploads.reserve(
            self._sibling_path(draft), draft.mode, take_over=take_over, target=self._inodes.path_of(draft.inode)
        )
        draft.target = draft.session.target
        if draft.is_to_check or draft.sibling_is_ours:
            draft.sibling_is_ours = True
            await self._check_unchanged(draft)
        draft.sibling_is_ours = True

    async def _check_unchanged(self, draft: Draft) -> None:
        """Since the file was stored others could write it, until now.

        Raises:
            StaleError: they have: what is written now has no name any more.
        """
        found, expected = draft.target, None if draft.is_new else draft.named
        if found is None or expected is None:
            is_same = found is expected
        else:
            # Completing it changes its time for a moment.
            is_same_time = found.mtime_ms == expected.mtime_ms or draft.was_completing
            is_same = found.length_bytes == expected.length_bytes and is_same_time
        draft.is_to_check = False
        if not is_same and found is not None and found.length_bytes == draft.left_bytes:
            draft.is_new, draft.named = False, found  # what was published, though the answer was an error
        elif not is_same:
            await self._end_replaced(draft)
            raise StaleError(f"{draft.inode.name}: replaced by another client while it was open")

    async def _reserve_again(self, draft: Draft) -> None:
        """A file that was stored, and then is not closed, goes on keeping other writers out."""
        await trio.sleep(_RESERVE_AGAIN_S)
        async with draft.lock:
            if draft.writers and draft.sibling is None and self._drafts.get(draft.inode) is draft:
                try:
                    await self._reserve(draft)
                except HdfsFuseError as e:
                    logger.info("%s: others may write it: %s", draft.inode.name, e)

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
            if draft.stream is not None and start < draft.stream.discarded_bytes:
                await self._give_up_stream(draft)
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
            await self._complete_base(draft)
            data = await self._calls.run(draft.base.read, start, middle)
        return data + bytes(stop - middle)

    async def _complete_base(self, draft: Draft) -> None:
        """Make sure that the base can be read: of a file that is not complete, hdfs-native misses the last block."""
        self._end_tail(draft)
        await self._completions.wait(draft.inode)

    async def write(self, draft: Draft, start: int, data: bytes) -> None:
        """Change bytes, and lengthen the file where it ends before them.

        Raises:
            NoSpaceError: the staging directory is full. BusyError: another node has begun to write.
        """
        async with draft.lock:
            await self._reserve(draft)
            if draft.stream is not None and start < draft.stream.claimed_bytes:
                await self._give_up_stream(draft)
            await self._disk.run(draft.staged.write, start, data)
            draft.touch(start, max(draft.length_bytes, start + len(data)))
            await self._send_early(draft)
        self._metrics.written_bytes += len(data)

    async def truncate(self, draft: Draft, length_bytes: int) -> None:
        """Cut the file, or lengthen it with zeros."""
        async with self._held(draft):
            await self._reserve(draft)
            if draft.stream is not None and length_bytes < draft.length_bytes:
                await self._give_up_stream(draft)
            await self._disk.run(draft.staged.cut, length_bytes)
            draft.base_bytes = min(draft.base_bytes, length_bytes)
            draft.touch(min(length_bytes, draft.length_bytes), length_bytes)

    # --- streaming ---

    async def _send_early(self, draft: Draft) -> None:
        """Keep little staged of what is written front to back: a new file streams, a growing one is appended to."""
        if draft.stream is None and self._is_to_stream(draft):
            self._end_tail(draft)
            assert draft.session is not None
            draft.base_bytes = 0  # all of them have been written over
            draft.stream = Stream(
                self._uploads,
                draft.session,
                draft.staged.path,
                discard=lambda stop: self._disk.run(draft.staged.discard, stop),
                reopen=lambda ours, over_http: self._go_on(
                    lambda: self._sibling_path(draft), lambda: ours, over_http=over_http
                ),
                patience_s=self._config.call_deadline_s,
                config=self._config.staging,
                nursery=self._nursery,
            )
            draft.session = None
        if draft.stream is not None:
            await draft.stream.offer(draft.staged_front)
            return
        is_long = draft.length_bytes - draft.stored_bytes >= self._config.staging.window_bytes // 4
        if is_long and self._is_to_append(draft):
            # HDFS has it, and shows it, before the file is closed. Where it fails, that is told then.
            with contextlib.suppress(HdfsFuseError):
                if await self._append(draft):
                    await self._disk.run(draft.staged.discard, draft.stored_bytes)

    def _is_to_stream(self, draft: Draft) -> bool:
        """Whether a file is written anew, and is long."""
        front_bytes, stream_from_bytes = draft.staged_front, self._config.staging.stream_from_bytes
        is_long = draft.stored_bytes < stream_from_bytes <= front_bytes - draft.stored_bytes
        is_whole = draft.base_bytes <= front_bytes and draft.part is None
        return is_long and is_whole and draft.may_stream and not draft.is_removed and draft.session is not None

    async def _go_on(self, path: Callable[[], str], ours: Callable[[], range], *, over_http: bool) -> Session:
        """Write behind the end of a file of ours whose writer is lost.

        Args:
            path: where it is.
            ours: the lengths that it may have, by what was sent to it.
            over_http: see Uploads.append.

        Raises:
            StaleError: it has another one. HdfsFuseError: it can't be done now.
        """
        await self._completions.recover(path())
        session = await self._uploads.append(path(), over_http=over_http)
        if session.length_bytes not in ours():
            with contextlib.suppress(HdfsFuseError):
                await self._uploads.finish(session, path(), None)
            raise StaleError(f"{path()}: has {session.length_bytes} bytes, which are not ours")
        return session

    async def _give_up_stream(self, draft: Draft) -> None:
        """The application goes back: from now on all that it writes is staged until the file is published."""
        stream = draft.stream
        assert stream is not None
        await stream.close()
        draft.may_stream = False
        if stream.discarded_bytes:
            await self._keep_part(draft, stream)
            await self._reserve(draft)
        else:
            draft.stream, draft.left_s = None, trio.current_time()
            draft.session = await self._uploads.reserve(
                self._sibling_path(draft), draft.mode, take_over=True, replaces=stream.session
            )

    async def _keep_part(self, draft: Draft, stream: Stream) -> None:
        """Make what a stream has stored the base of the draft; the sibling's name is free then.

        Raises:
            HdfsFuseError: not now; it may be tried again.
        """
        assert draft.sibling is not None
        path, session = self._sibling_path(draft), stream.session
        stream.session = None
        try:
            if session is None:
                await self._completions.recover(path)
            else:
                await self._uploads.finish(session, path, None)
        except HdfsFuseError as e:
            logger.info("%s: not completed: %s: %s", path, type(e).__name__, e)
            await self._completions.recover(path)
        status = await self._calls.run(self._backend.status, path)
        if status.length_bytes < stream.discarded_bytes:
            raise FileChangedError(f"{path}: has {status.length_bytes} of {stream.discarded_bytes} bytes that it had")
        part = draft.sibling[0], name_of_part()
        await self._calls.run(lambda: self._backend.rename(path, self._inodes.path_in(*part), overwrite=False))
        self._drop_part(draft)
        draft.may_stream = False
        draft.part, draft.sibling, draft.sibling_is_ours, draft.stream = part, None, False, None
        self._set_base(draft, status, stream.discarded_bytes)

    def _set_base(self, draft: Draft, status: FileStatus, base_bytes: int) -> None:
        if draft.base is not None:
            draft.base.close()
        draft.base = OpenFile(self._backend, self._base_path(draft), status, self._metrics)
        draft.base_bytes = base_bytes

    def _drop_part(self, draft: Draft) -> None:
        if draft.part is not None:
            (parent, _), path = draft.part, self._inodes.path_in(*draft.part)
            draft.part = None
            self._calls.start(lambda: self._backend.delete(path, recursive=False), lambda _: None)
            parent.children -= 1
            self._inodes.release(parent)

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
            await self._publish(draft, durable=durable)

    async def _publish(self, draft: Draft, *, durable: bool) -> None:
        if draft.is_dirty and draft.is_replaced:
            raise StaleError(f"{draft.inode.name}: replaced by another client while it was open")
        if not draft.is_dirty or draft.is_removed:
            return
        if self._is_to_append(draft) and await self._append(draft):
            return
        if draft.stream is not None:
            await draft.stream.close()
            if draft.stream.discarded_bytes and await self._publish_stream(draft, draft.stream, durable=durable):
                return
        await self._reserve(draft)
        await self._publish_sibling(draft, durable=durable)

    async def _publish_sibling(self, draft: Draft, *, durable: bool) -> None:
        """Publish what is staged as a whole, but for a base; what has gone out of it need not be sent again."""
        session, sent_bytes = draft.session, 0
        if draft.stream is not None and draft.stream.session is not None:
            session, sent_bytes = draft.stream.session, draft.stream.sent_bytes
        draft.session = draft.stream = None
        publication = self._publication(draft, sent_bytes, durable=durable)
        if publication.content.base is not None:
            await self._complete_base(draft)
        self._end_tail(draft)
        self._completions.forget(draft.inode)
        try:
            answer, session = await self._uploads.publish(session, publication)
        except HdfsFuseError:
            draft.left_s, draft.left_bytes = trio.current_time(), publication.content.length_bytes
            raise
        self._published(draft, answer)
        if draft.writers:
            self._nursery.start_soon(self._reserve_again, draft)
        if session is not None and draft.staged_front == draft.length_bytes:
            draft.tail, draft.tail_is_idle = session, False  # more may come, as of a log
        elif session is not None:
            self._completions.start(draft.inode, session)

    def _publication(self, draft: Draft, sent_bytes: int, *, durable: bool) -> Publication:
        return Publication(
            sibling=self._sibling_path(draft),
            target=self._inodes.path_of(draft.inode),
            overwrite=not draft.is_new,
            content=draft.content(sent_bytes),
            mode=draft.mode,
            mtime_ms=draft.mtime_ms,
            atime_ms=draft.atime_ms,
            xattrs=draft.xattrs,
            keep_open=draft.length_bytes <= self._config.small_file_bytes,
            durable=durable,
        )

    async def _publish_stream(self, draft: Draft, stream: Stream, *, durable: bool) -> bool:
        """Publish what has gone out and is no longer staged. False: that is the base now, and all is to be written."""
        session, stream.session = stream.session, None
        answer: Answer | None = None
        if session is not None:
            publication = self._publication(draft, stream.sent_bytes, durable=durable)
            try:
                answer = await self._uploads.publish_once(session, publication)
            except HdfsFuseError as e:
                logger.info("%s: not published: %s: %s", publication.target, type(e).__name__, e)
        if answer is None:
            answer = await self._published_after_all(draft)
        if answer is not None:
            draft.stream = None
            self._published(draft, answer)
            return True
        await self._keep_part(draft, stream)
        return False

    async def _published_after_all(self, draft: Draft) -> Answer | None:
        """What has the name now, if a publication whose answer is an error has given it the name all the same."""
        try:
            await self._calls.run(self._backend.status, self._sibling_path(draft))
        except NotFoundError:
            there = await self._calls.run(self._backend.status, self._inodes.path_of(draft.inode))
            is_old = draft.target is not None and draft.target.mtime_ms == there.mtime_ms
            if there.length_bytes == draft.length_bytes and not is_old:
                return Answer(0, mtime_ms=there.mtime_ms, length_bytes=there.length_bytes)
        return None

    def _published(self, draft: Draft, answer: Answer) -> None:
        self._leave_sibling(draft)
        self._drop_part(draft)
        draft.is_new, draft.left_bytes = False, None
        draft.is_to_check = True
        draft.xattrs = {}
        self._metrics.published_bytes += answer.length_bytes
        self._stored(draft, answer.length_bytes, answer.mtime_ms)

    def _stored(self, draft: Draft, length_bytes: int, mtime_ms: int) -> None:
        """HDFS has what was changed, under the file's name."""
        inode = draft.inode
        self._metrics.published_count += 1
        draft.is_dirty = False
        draft.mtime_ms = draft.atime_ms = None
        draft.stored_bytes = draft.tried_bytes = length_bytes
        inode.status = replace(inode.status, length_bytes=length_bytes, mtime_ms=mtime_ms, mode=draft.mode)
        inode.expires_s = trio.current_time() + self._config.metadata_ttl_s
        # What the kernel has is what was written; and who wrote a file has been let in.
        inode.page_cache_version = inode.readable_version = inode.version
        self._set_base(draft, inode.status, length_bytes)
        draft.named = inode.status

    def _leave_sibling(self, draft: Draft) -> None:
        if draft.sibling is not None:
            parent, _ = draft.sibling
            draft.sibling = None
            draft.sibling_is_ours = False
            parent.children -= 1
            self._inodes.release(parent)

    # --- appending ---

    def _is_to_append(self, draft: Draft) -> bool:
        """Whether what was changed is only behind what HDFS has, and that is worth keeping, or being written to."""
        if draft.base is None or draft.part is not None:
            return False
        is_growth = draft.stored_bytes == draft.base.status.length_bytes < draft.length_bytes
        return is_growth and (draft.tail is not None or draft.stored_bytes > self._config.small_file_bytes)

    async def _append(self, draft: Draft) -> bool:
        """Publish by writing behind what HDFS has; False when that can't be done, and all is to be written."""
        for attempt in range(_APPEND_ATTEMPTS):
            tail, draft.tail = draft.tail, None
            try:
                if tail is None or not tail.is_usable:
                    is_lost = tail is not None or attempt > 0
                    tail = await self._open_tail(draft, is_lost=is_lost, over_http=attempt == _APPEND_ATTEMPTS - 1)
                draft.tried_bytes = draft.length_bytes
                await self._uploads.send(tail, draft.content(tail.length_bytes), durable=True)
                mtime_ms = await self._date_tail(draft)
            except StaleError:
                await self._end_replaced(draft)
                raise
            except HdfsFuseError as e:
                logger.info("%s: not appended to: %s: %s", draft.inode.name, type(e).__name__, e)
            else:
                tail.length_bytes = draft.length_bytes
                draft.tail, draft.tail_is_idle = tail, False
                self._metrics.published_bytes += draft.length_bytes - draft.stored_bytes
                self._stored(draft, draft.length_bytes, mtime_ms)
                return True
        with contextlib.suppress(NotFoundError):
            path = self._inodes.path_of(draft.inode)
            await self._completions.recover(path)
            status = await self._calls.run(self._backend.status, path)
            if not draft.stored_bytes <= status.length_bytes <= draft.tried_bytes:
                await self._end_replaced(draft)
                raise StaleError(f"{path}: has {status.length_bytes} bytes, which are not ours")
            self._set_base(draft, status, draft.base_bytes)
            draft.named = status
        return False

    async def _end_replaced(self, draft: Draft) -> None:
        """Another client has changed the file: what is written has no name any more, and others may write it."""
        draft.is_replaced = draft.is_removed = True
        self._inodes.detach(draft.inode)
        await self._abandon(draft)

    async def _date_tail(self, draft: Draft) -> int:
        """Give a file that was appended to its time, since HDFS does so only when it is completed; that time."""
        path, atime_ms = self._inodes.path_of(draft.inode), draft.atime_ms
        mtime_ms = draft.inode.status.mtime_ms if draft.mtime_ms is None else draft.mtime_ms
        await self._calls.run(lambda: self._backend.set_times(path, mtime_ms=mtime_ms, atime_ms=atime_ms))
        return mtime_ms

    async def _open_tail(self, draft: Draft, *, is_lost: bool, over_http: bool) -> Session:
        """A session behind the end of what HDFS has; `is_lost` says that one of ours may hold the lease."""
        if is_lost:
            path, ours = self._inodes.path_of(draft.inode), range(draft.stored_bytes, draft.tried_bytes + 1)
            return await self._go_on(lambda: path, lambda: ours, over_http=over_http)
        await self._completions.wait(draft.inode)
        session = await self._uploads.append(self._inodes.path_of(draft.inode))
        if session.length_bytes != draft.stored_bytes:
            self._completions.start(draft.inode, session)
            raise StaleError(f"{draft.inode.name}: has {session.length_bytes} bytes, not {draft.stored_bytes}")
        return session

    def _end_tail(self, draft: Draft) -> None:
        tail, draft.tail = draft.tail, None
        if tail is not None:
            self._completions.start(draft.inode, tail)

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
            self._end_tail(draft)
            await self._abandon(draft)
            if not draft.writers:
                self._forget(draft)

    async def _abandon(self, draft: Draft) -> None:
        """Remove the sibling."""
        session, stream = draft.session, draft.stream
        draft.session = draft.stream = None
        if stream is not None:
            await stream.close()
            session = stream.session
        if draft.sibling is not None:
            path = self._sibling_path(draft)
            if session is not None:
                await self._uploads.abandon(session, path)
            elif draft.sibling_is_ours:
                self._calls.start(lambda: self._backend.delete(path, recursive=False), lambda _: None)
            self._leave_sibling(draft)

    def _forget(self, draft: Draft) -> None:
        inode = draft.inode
        if self._drafts.get(inode) is not draft:
            return
        del self._drafts[inode]
        self._leave_sibling(draft)
        self._drop_part(draft)
        draft.staged.close()
        if draft.base is not None:
            draft.base.close()
        inode.children -= 1
        self._inodes.release(inode)

    async def remove(self, draft: Draft, remove_stored: Callable[[], Awaitable[object]]) -> None:
        """Its name goes: what is open stays readable and writable, and nothing is published any more.

        Args:
            draft: the file's.
            remove_stored: removes or replaces what HDFS has of the file; when that fails the draft goes on.
        """
        async with draft.lock:
            if draft.stream is not None and draft.stream.discarded_bytes and draft.inode.opens:
                await draft.stream.close()
                await self._keep_part(draft, draft.stream)
            await remove_stored()
            draft.is_removed = True
            self._end_tail(draft)
            await self._abandon(draft)
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
            await self._publish(draft, durable=False)
            await then()
            # What keeps others out depends on the name.
            await self._abandon(draft)
            draft.is_to_check = True
            if draft.writers:
                self._nursery.start_soon(self._reserve_again, draft)

    async def set_mode(self, draft: Draft, mode: int, store: Callable[[], Awaitable[object]]) -> None:
        """Change permission bits, with `store` in HDFS too if the file is there."""
        async with draft.lock:
            if not draft.is_new:
                await store()
            draft.mode = mode

    async def set_owner(self, draft: Draft, store: Callable[[], Awaitable[object]]) -> None:
        """Change owner or group of what HDFS has, with `store`."""
        async with draft.lock:
            await self._publish(draft, durable=False)
            await store()

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
                self._set_base(draft, replace(draft.base.status, mtime_ms=mtime_ms), draft.base_bytes)
                draft.named = draft.base.status

    async def watch(self) -> None:
        """Try again to publish what nobody has open and HDFS did not take."""
        while True:
            await trio.sleep(_AGAIN_S)
            try:
                await self._publish_left()
                self._end_idle_tails()
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

    def _end_idle_tails(self) -> None:
        for draft in self._drafts.values():
            if draft.tail_is_idle and not draft.lock.locked():
                self._end_tail(draft)
            draft.tail_is_idle = draft.tail is not None

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
