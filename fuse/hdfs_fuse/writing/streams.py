"""Which drafts stream, and what becomes of a stream when the application goes back to what is no longer staged."""

import contextlib
import logging

import trio

from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, NotFoundError
from hdfs_fuse.upload.uploads import Uploads
from hdfs_fuse.writing.bases import Bases
from hdfs_fuse.writing.completions import Completions
from hdfs_fuse.writing.draft import Draft
from hdfs_fuse.writing.siblings import Siblings
from hdfs_fuse.writing.stream import Stream
from hdfs_fuse.writing.tails import Tails

logger = logging.getLogger(__name__)


class Streams:
    """The streams of drafts. Belongs to the event loop; whoever calls this holds the draft's lock."""

    def __init__(
        self,
        config: MountConfig,
        uploads: Uploads,
        disk: Calls,
        completions: Completions,
        bases: Bases,
        siblings: Siblings,
        tails: Tails,
        nursery: trio.Nursery,
    ) -> None:
        """Stream files.

        Args:
            config: from which length on, and how much to keep staged.
            uploads: send what is streamed.
            disk: for the staging disk.
            completions: recover the sibling of a stream that has failed.
            bases: the part of a stream becomes one.
            siblings: what streams write.
            tails: files that grow are appended to.
            nursery: where streams work.
        """
        self._config = config
        self._uploads = uploads
        self._disk = disk
        self._completions = completions
        self._bases = bases
        self._siblings = siblings
        self._tails = tails
        self._nursery = nursery

    async def send_early(self, draft: Draft) -> None:
        """Keep little staged of what is written front to back: a new file streams, a growing one is appended to."""
        if draft.stream is None and self._is_to_stream(draft):
            self._begin(draft)
        if draft.stream is not None:
            await draft.stream.offer(draft.staged_front)
            return
        is_long = draft.length_bytes - draft.stored_bytes >= self._config.staging.window_bytes // 4
        if is_long and self._tails.is_to_append(draft):
            # HDFS has it, and shows it, before the file is closed. Where it fails, that is told then.
            with contextlib.suppress(HdfsFuseError):
                if await self._tails.append(draft):
                    await self._disk.run(draft.staged.discard, draft.stored_bytes)

    def _is_to_stream(self, draft: Draft) -> bool:
        """Whether a file is written anew, and is long."""
        front_bytes, stream_from_bytes = draft.staged_front, self._config.staging.stream_from_bytes
        is_long = draft.stored_bytes < stream_from_bytes <= front_bytes - draft.stored_bytes
        is_whole = draft.base_bytes <= front_bytes and draft.part is None
        return is_long and is_whole and draft.may_stream and not draft.is_removed and draft.session is not None

    def _begin(self, draft: Draft) -> None:
        self._tails.end(draft)
        assert draft.session is not None
        draft.base_bytes = 0  # all of them have been written over
        draft.stream = Stream(
            self._uploads,
            draft.session,
            draft.staged.path,
            discard=lambda stop: self._disk.run(draft.staged.discard, stop),
            reopen=lambda ours, over_http: self._tails.go_on(
                lambda: self._siblings.path(draft), ours, over_http=over_http
            ),
            patience_s=self._config.call_deadline_s,
            config=self._config.staging,
            nursery=self._nursery,
        )
        draft.session = None

    async def give_up(self, draft: Draft) -> None:
        """The application goes back: from now on all that it writes is staged until the file is published.

        Raises:
            HdfsFuseError: the part can't be kept now, or no sibling be begun.
        """
        stream = draft.stream
        assert stream is not None
        await stream.close()
        draft.may_stream = False
        if stream.discarded_bytes:
            await self.keep_part(draft, stream)
            await self._siblings.reserve(draft)
        else:
            draft.stream, draft.left_s = None, trio.current_time()
            draft.session = await self._uploads.reserve(
                self._siblings.path(draft), draft.mode, take_over=True, replaces=stream.session
            )

    async def keep_part(self, draft: Draft, stream: Stream) -> None:
        """Make what a stream has stored the base of the draft; the sibling's name is free then.

        Args:
            draft: the file.
            stream: its own, closed.

        Raises:
            HdfsFuseError: not now; it may be tried again.
        """
        path, session = self._siblings.path(draft), stream.session
        stream.session = None
        try:
            if session is None:
                await self._completions.recover(path)
            else:
                await self._uploads.finish(session, path, None)
        except HdfsFuseError as e:
            logger.info("%s: not completed: %s: %s", path, type(e).__name__, e)
            with contextlib.suppress(NotFoundError):  # it has become the part already
                await self._completions.recover(path)
        await self._bases.take_part(draft, path, stream.discarded_bytes)
        draft.stream, draft.may_stream = None, False
