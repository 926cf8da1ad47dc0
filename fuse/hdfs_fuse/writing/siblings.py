"""Siblings: the hidden files in HDFS that drafts are published from, and whose leases keep other writers out.

A sibling is reserved when its file is opened for writing, and again after it was given the file's name while the file
stays open. In between others may write the file, which is looked for when the next sibling is begun.
"""

import logging

import trio

from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.errors import HdfsFuseError, NotFoundError, StaleError
from hdfs_fuse.hidden import name_while_writing
from hdfs_fuse.inodes import InodeTable
from hdfs_fuse.upload.messages import Answer
from hdfs_fuse.upload.uploads import Uploads
from hdfs_fuse.writing.completions import Completions
from hdfs_fuse.writing.draft import Draft

logger = logging.getLogger(__name__)

# HDFS keeps others out for 60 s after the last renewal of a lease; what was ours is so for a while less, in seconds.
_LEASE_S = 45.0
# A file that was stored is mostly closed at once. Else its sibling is begun again, after this time in seconds.
_RESERVE_AGAIN_S = 0.25


class Siblings:
    """The siblings of drafts. Belongs to the event loop; whoever calls this holds the draft's lock."""

    def __init__(
        self,
        backend: ResilientBackend,
        inodes: InodeTable,
        uploads: Uploads,
        calls: Calls,
        completions: Completions,
        nursery: trio.Nursery,
    ) -> None:
        """Begin siblings, and remove them.

        Args:
            backend: where they are.
            inodes: says where files are now.
            uploads: begin and remove them.
            calls: for the backend.
            completions: say which files change their times for a moment.
            nursery: for what goes on when nobody waits.
        """
        self._backend = backend
        self._inodes = inodes
        self._uploads = uploads
        self._calls = calls
        self._completions = completions
        self._nursery = nursery

    def path(self, draft: Draft) -> str:
        """Where the sibling of a draft, which has one, is now."""
        assert draft.sibling is not None
        return self._inodes.path_in(*draft.sibling)

    # --- reserving ---

    async def reserve(self, draft: Draft) -> None:
        """Hold the lease of the sibling, unless that is held already.

        Raises:
            StaleError: another client has replaced the file. HdfsFuseError: see Uploads.reserve.
        """
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
            self.path(draft), draft.mode, take_over=take_over, target=self._inodes.path_of(draft.inode)
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
            await self.end_replaced(draft)
            raise StaleError(f"{draft.inode.name}: replaced by another client while it was open")

    def reserve_again_soon(self, draft: Draft) -> None:
        """A file that was stored, and then is not closed, goes on keeping other writers out."""
        if draft.writers:
            self._nursery.start_soon(self._reserve_again, draft)

    async def _reserve_again(self, draft: Draft) -> None:
        await trio.sleep(_RESERVE_AGAIN_S)
        async with draft.lock:
            if draft.writers and draft.sibling is None and not draft.is_ended:
                try:
                    await self.reserve(draft)
                except HdfsFuseError as e:
                    logger.info("%s: others may write it: %s", draft.inode.name, e)

    async def published_after_all(self, draft: Draft) -> Answer | None:
        """What has the name now, if a publication whose answer is an error has given it the name all the same."""
        try:
            await self._calls.run(self._backend.status, self.path(draft))
        except NotFoundError:
            there = await self._calls.run(self._backend.status, self._inodes.path_of(draft.inode))
            is_old = draft.target is not None and draft.target.mtime_ms == there.mtime_ms
            if there.length_bytes == draft.length_bytes and not is_old:
                return Answer(0, mtime_ms=there.mtime_ms, length_bytes=there.length_bytes)
        return None

    # --- leaving ---

    async def end_replaced(self, draft: Draft) -> None:
        """Another client has changed the file: what is written has no name any more, and others may write it."""
        draft.is_replaced = draft.is_removed = True
        self._inodes.detach(draft.inode)
        await self.abandon(draft)

    async def abandon(self, draft: Draft) -> None:
        """Remove the sibling, if there is one; the stream that writes it ends."""
        session, stream = draft.session, draft.stream
        draft.session = draft.stream = None
        if stream is not None:
            await stream.close()
            session = stream.session
        if draft.sibling is not None:
            path = self.path(draft)
            if session is not None:
                await self._uploads.abandon(session, path)
            elif draft.sibling_is_ours:
                self._calls.start(lambda: self._backend.delete(path, recursive=False), lambda _: None)
            self.leave(draft)

    def leave(self, draft: Draft) -> None:
        """The draft has no sibling any more: it has the file's name, or is nobody's."""
        if draft.sibling is not None:
            parent, _ = draft.sibling
            draft.sibling = None
            draft.sibling_is_ours = False
            parent.children -= 1
            self._inodes.release(parent)
