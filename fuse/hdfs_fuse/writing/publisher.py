"""How what was changed gets into HDFS: behind the end of what is there, or as a sibling that gets the file's name."""

import logging

import trio

from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, StaleError
from hdfs_fuse.inodes import InodeTable
from hdfs_fuse.upload.messages import Answer
from hdfs_fuse.upload.uploads import Publication, Uploads
from hdfs_fuse.writing.bases import Bases
from hdfs_fuse.writing.completions import Completions
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.siblings import Siblings
from hdfs_fuse.writing.stream import Stream
from hdfs_fuse.writing.streams import Streams
from hdfs_fuse.writing.tails import Tails

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes drafts. Belongs to the event loop; whoever calls this holds the draft's lock.

    Attributes:
        publishing: drafts that are being published.
    """

    def __init__(
        self,
        config: MountConfig,
        inodes: InodeTable,
        uploads: Uploads,
        completions: Completions,
        bases: Bases,
        siblings: Siblings,
        tails: Tails,
        streams: Streams,
    ) -> None:
        """Publish drafts.

        Args:
            config: says which files are small: those get their names before they are complete.
            inodes: says where a file is now.
            uploads: write siblings, and give them their names.
            completions: complete those files.
            bases: what was published becomes the base.
            siblings: what is published.
            tails: files that grow are appended to.
            streams: have sent the front of long files.
        """
        self._config = config
        self._inodes = inodes
        self._uploads = uploads
        self._completions = completions
        self._bases = bases
        self._siblings = siblings
        self._tails = tails
        self._streams = streams
        self.publishing = 0

    async def publish(self, draft: Draft, *, durable: bool) -> None:
        """Have HDFS store what has been changed, if anything has; see Drafts.publish."""
        if draft.is_dirty and draft.is_replaced:
            raise StaleError(f"{draft.inode.name}: replaced by another client while it was open")
        if not draft.is_dirty or draft.is_removed:
            return
        self.publishing += 1
        try:
            await self._publish(draft, durable=durable)
        finally:
            self.publishing -= 1

    async def _publish(self, draft: Draft, *, durable: bool) -> None:
        if self._tails.is_to_append(draft) and await self._tails.append(draft):
            return
        if draft.stream is not None:
            await draft.stream.close()
            if draft.stream.discarded_bytes and await self._publish_stream(draft, draft.stream, durable=durable):
                return
        await self._siblings.reserve(draft)
        await self._publish_sibling(draft, durable=durable)

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
            answer = await self._siblings.published_after_all(draft)
        if answer is not None:
            draft.stream = None
            self._published(draft, answer)
            return True
        await self._streams.keep_part(draft, stream)
        return False

    async def _publish_sibling(self, draft: Draft, *, durable: bool) -> None:
        """Publish what is staged as a whole, but for a base; what has gone out of it need not be sent again."""
        session, sent_bytes = draft.session, 0
        if draft.stream is not None and draft.stream.session is not None:
            session, sent_bytes = draft.stream.session, draft.stream.sent_bytes
        draft.session = draft.stream = None
        publication = self._publication(draft, sent_bytes, durable=durable)
        if publication.content.base is not None:
            await self._tails.complete_base(draft)
        self._tails.end(draft)
        self._completions.forget(draft.inode)
        try:
            answer, session = await self._uploads.publish(session, publication)
        except HdfsFuseError:
            draft.left_s, draft.left_bytes = trio.current_time(), publication.content.length_bytes
            raise
        self._published(draft, answer)
        self._siblings.reserve_again_soon(draft)
        if session is not None and draft.staged_front == draft.length_bytes:
            draft.tail, draft.tail_is_idle = session, False  # more may come, as of a log
        elif session is not None:
            self._completions.start(draft.inode, session)

    def _publication(self, draft: Draft, sent_bytes: int, *, durable: bool) -> Publication:
        return Publication(
            sibling=self._siblings.path(draft),
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

    def _published(self, draft: Draft, answer: Answer) -> None:
        """The sibling has the file's name."""
        self._siblings.leave(draft)
        self._bases.drop_part(draft)
        draft.is_new, draft.left_bytes = False, None
        draft.is_to_check = True
        draft.xattrs = {}
        self._bases.stored(draft, answer.length_bytes, answer.mtime_ms, published_bytes=answer.length_bytes)
