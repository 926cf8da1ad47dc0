"""A long file goes out while it is being written, front to back, so that little of it has to be staged.

What has gone out is in the hidden sibling that the file is published from. What is stored there, whatever happens to
the uploader, is no longer staged.
"""

import logging
from collections.abc import Awaitable, Callable

import trio

from hdfs_fuse.config import StagingConfig
from hdfs_fuse.errors import HdfsFuseError, UnsupportedError
from hdfs_fuse.upload.messages import Content
from hdfs_fuse.upload.uploads import Session, Uploads

logger = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0


class Stream:
    """The front of one file, going out. Belongs to the event loop; `close` is owed.

    Attributes:
        session: writes the sibling; None when that has failed.
        sent_bytes: how much of the file is in the sibling.
        claimed_bytes: how much is there or just going out: what may not be changed any more.
        discarded_bytes: how much is stored there, whatever happens to the uploader, and no longer staged.
    """

    def __init__(
        self,
        uploads: Uploads,
        session: Session,
        staged_path: str,
        discard: Callable[[int], Awaitable[object]],
        reopen: Callable[[range, bool], Awaitable[Session]],
        patience_s: float,
        config: StagingConfig,
        nursery: trio.Nursery,
    ) -> None:
        """Stream a file.

        Args:
            uploads: send it.
            session: of the sibling, which is empty.
            staged_path: where the bytes are.
            discard: lets go of the staged bytes before an offset.
            reopen: gives a session that goes on behind what the sibling has, which is one of these lengths; by a
                DataNode (WebHDFS) if the flag is set.
            patience_s: how long to go on trying where nothing succeeds, in seconds.
            config: how much to keep staged.
            nursery: where this works.
        """
        # At once: enough to be worth a message to the uploader and back, and not so much that it is long waited for.
        self._min_batch_bytes, self._batch_bytes = config.stream_from_bytes // 4, 2 * config.stream_from_bytes
        self._window_bytes = config.window_bytes - config.window_bytes // 64  # with the write that goes beyond it
        self.session: Session | None = session
        self.sent_bytes = self.claimed_bytes = self.discarded_bytes = 0
        self._uploads = uploads
        self._staged_path = staged_path
        self._discard = discard
        self._reopen = reopen
        self._patience_s = patience_s
        self._nursery = nursery
        self._offered_bytes = self._stored_bytes = 0
        self._is_closing = False
        self._mending: trio.CancelScope | None = None
        self._failures, self._until_s = 0, float("inf")  # since something last went out, and how long to go on
        self._is_running = False
        self._moved = trio.Event()  # set, and replaced, when anything has changed

    async def offer(self, stop_bytes: int) -> None:
        """The file is staged up to `stop_bytes`. Waits while too much of it is; nobody may read or change it then."""
        self._offered_bytes = stop_bytes
        while True:
            if self._stored_bytes > self.discarded_bytes:
                self.discarded_bytes = self._stored_bytes
                await self._discard(self.discarded_bytes)
            if not self._is_running and self.session is not None and self._is_worth_it():
                self._is_running = True
                self._nursery.start_soon(self._run)
            if not self._is_running or stop_bytes - self.discarded_bytes <= self._window_bytes:
                return
            await self._moved.wait()

    def hold(self, start_bytes: int) -> None:
        """What is staged from `start_bytes` on is about to change: none of it goes out before it is offered again."""
        self._offered_bytes = min(self._offered_bytes, start_bytes)

    def _is_worth_it(self) -> bool:
        return self._offered_bytes - self.sent_bytes >= self._min_batch_bytes

    async def close(self) -> None:
        """Send no more; what is just going out is waited for."""
        self._is_closing = True
        if self._mending is not None:
            self._mending.cancel()
        while self._is_running:
            await self._moved.wait()

    async def _run(self) -> None:
        try:
            while self.session is not None and self._is_worth_it() and not self._is_closing:
                await self._send_batch(self.session)
                self._move()
        finally:
            self._is_running = False
            self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _send_batch(self, session: Session) -> None:
        stop = self.claimed_bytes = min(self._offered_bytes, self.sent_bytes + self._batch_bytes)
        content = Content(stop, self.sent_bytes, self._staged_path, [(self.sent_bytes, stop)], None, 0)
        try:
            answer = await self._uploads.send(session, content, durable=False)
        except HdfsFuseError as e:
            self.session = None
            logger.info("%s bytes were sent, then: %s: %s", self.sent_bytes, type(e).__name__, e)
            if not isinstance(e, UnsupportedError):
                with trio.CancelScope() as self._mending:
                    await self._mend()
                self._mending = None
        else:
            self._failures = 0
            self.sent_bytes, self._stored_bytes = stop, answer.stored_bytes

    async def _mend(self) -> None:
        """Go on behind what the sibling has: with our client, and where that fails again, by a DataNode's."""
        wait_s = _FIRST_WAIT_S
        if not self._failures:
            self._until_s = trio.current_time() + self._patience_s
        self._failures += 1
        while not self._is_closing and trio.current_time() < self._until_s:
            try:
                session = await self._reopen(range(self.discarded_bytes, self.claimed_bytes + 1), self._failures > 1)
            except HdfsFuseError as e:
                logger.info("not sent again yet: %s: %s", type(e).__name__, e)
                self._failures += 1
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                self.session, self.sent_bytes = session, session.length_bytes
                return
