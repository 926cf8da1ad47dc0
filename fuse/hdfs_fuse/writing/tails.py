"""Tails: what grows is appended to in HDFS, under its name, instead of being written anew.

A tail is a session behind the end of the version that HDFS has. It stays open between one fsync and the next, and
until it is ended readers miss the last block, or read it over WebHDFS.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable

from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, NotFoundError, StaleError
from hdfs_fuse.inodes import InodeTable
from hdfs_fuse.upload.uploads import Session, Uploads
from hdfs_fuse.writing.bases import Bases
from hdfs_fuse.writing.completions import Completions
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.siblings import Siblings

logger = logging.getLogger(__name__)

# How often growth is tried to be appended, at last by a DataNode (WebHDFS), before the whole file is written anew.
_APPEND_ATTEMPTS = 3


class Tails:
    """The tails of drafts. Belongs to the event loop; whoever calls this holds the draft's lock, but for `end_idle`."""

    def __init__(
        self,
        config: MountConfig,
        backend: ResilientBackend,
        inodes: InodeTable,
        uploads: Uploads,
        calls: Calls,
        completions: Completions,
        bases: Bases,
        siblings: Siblings,
    ) -> None:
        """Append to files.

        Args:
            config: says which files are too small for that.
            backend: where they are.
            inodes: says where a file is now.
            uploads: write to them.
            calls: for the backend.
            completions: where tails end.
            bases: what was appended to becomes the base.
            siblings: left where another client has changed the file.
        """
        self._config = config
        self._backend = backend
        self._inodes = inodes
        self._uploads = uploads
        self._calls = calls
        self._completions = completions
        self._bases = bases
        self._siblings = siblings

    # --- appending ---

    def is_to_append(self, draft: Draft) -> bool:
        """Whether what was changed is only behind what HDFS has, and that is worth keeping, or being written to."""
        if draft.base is None or draft.part is not None:
            return False
        is_growth = draft.stored_bytes == draft.base.status.length_bytes < draft.length_bytes
        return is_growth and (draft.tail is not None or draft.stored_bytes > self._config.small_file_bytes)

    async def append(self, draft: Draft) -> bool:
        """Publish by writing behind what HDFS has; False when that can't be done, and all is to be written.

        Raises:
            StaleError: another client has changed the file. HdfsFuseError: it is not known what HDFS has.
        """
        for attempt in range(_APPEND_ATTEMPTS):
            tail, draft.tail = draft.tail, None
            try:
                if tail is None or not tail.is_usable:
                    is_lost = tail is not None or attempt > 0
                    tail = await self._open(draft, is_lost=is_lost, over_http=attempt == _APPEND_ATTEMPTS - 1)
                draft.tried_bytes = draft.length_bytes
                await self._uploads.send(tail, draft.content(tail.length_bytes), durable=True)
                mtime_ms = await self._date(draft)
            except StaleError:
                await self._siblings.end_replaced(draft)
                raise
            except HdfsFuseError as e:
                logger.info("%s: not appended to: %s: %s", draft.inode.name, type(e).__name__, e)
            else:
                tail.length_bytes = draft.length_bytes
                draft.tail, draft.tail_is_idle = tail, False
                grown_bytes = draft.length_bytes - draft.stored_bytes
                self._bases.stored(draft, draft.length_bytes, mtime_ms, published_bytes=grown_bytes)
                return True
        with contextlib.suppress(NotFoundError):
            path = self._inodes.path_of(draft.inode)
            await self._completions.recover(path)
            status = await self._calls.run(self._backend.status, path)
            if not draft.stored_bytes <= status.length_bytes <= draft.tried_bytes:
                await self._siblings.end_replaced(draft)
                raise StaleError(f"{path}: has {status.length_bytes} bytes, which are not ours")
            self._bases.set(draft, status, draft.base_bytes)
            draft.named = status
        return False

    async def _date(self, draft: Draft) -> int:
        """Give a file that was appended to its time, since HDFS does so only when it is completed; that time."""
        path, atime_ms = self._inodes.path_of(draft.inode), draft.atime_ms
        mtime_ms = draft.inode.status.mtime_ms if draft.mtime_ms is None else draft.mtime_ms
        await self._calls.run(lambda: self._backend.set_times(path, mtime_ms=mtime_ms, atime_ms=atime_ms))
        return mtime_ms

    async def _open(self, draft: Draft, *, is_lost: bool, over_http: bool) -> Session:
        """A session behind the end of what HDFS has; `is_lost` says that one of ours may hold the lease."""
        if is_lost:
            path, ours = self._inodes.path_of(draft.inode), range(draft.stored_bytes, draft.tried_bytes + 1)
            return await self.go_on(lambda: path, ours, over_http=over_http)
        await self._completions.wait(draft.inode)
        session = await self._uploads.append(self._inodes.path_of(draft.inode))
        if session.length_bytes != draft.stored_bytes:
            self._completions.start(draft.inode, session)
            raise StaleError(f"{draft.inode.name}: has {session.length_bytes} bytes, not {draft.stored_bytes}")
        return session

    async def go_on(self, path: Callable[[], str], ours: range, *, over_http: bool) -> Session:
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
        if session.length_bytes not in ours:
            with contextlib.suppress(HdfsFuseError):
                await self._uploads.finish(session, path(), None)
            raise StaleError(f"{path()}: has {session.length_bytes} bytes, which are not ours")
        return session

    # --- ending ---

    def end(self, draft: Draft) -> None:
        """Complete the file in the background, if it has a tail."""
        tail, draft.tail = draft.tail, None
        if tail is not None:
            self._completions.start(draft.inode, tail)

    def end_idle(self, drafts: Iterable[Draft]) -> None:
        """Complete the files that nothing was appended to since this was called last, unless they are being changed."""
        for draft in drafts:
            if draft.tail_is_idle and not draft.lock.locked():
                self.end(draft)
            draft.tail_is_idle = draft.tail is not None

    async def complete_base(self, draft: Draft) -> None:
        """Make sure that the base can be read: of a file that is not complete, hdfs-native misses the last block."""
        self.end(draft)
        await self._completions.wait(draft.inode)
