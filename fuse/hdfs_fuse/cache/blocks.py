"""Blocks within reach of the event loop: being filled, complete, or failed."""

import trio

from hdfs_fuse.cache.content import BytesContent, Content
from hdfs_fuse.cache.keys import BlockKey
from hdfs_fuse.cache.small import SmallAnswer
from hdfs_fuse.errors import HdfsFuseError


class CachedBlock:
    """One block, shared by all who read it. Belongs to the event loop; threads reach it through the loop only.

    Invariant: the bytes [0, filled_bytes) of content.view are the file's. `filled_bytes` moves only after they are
    in place.

    Attributes:
        key: name and length.
        content: where the bytes are, None until the first have landed.
        filled_bytes: how many have landed.
        from_disk: whether the cache already had the block, rather than the filesystem.
        uses: how many readers have come to it.
        is_read: whether somebody has read it to its end.
        touched_s: when it came to be complete, or somebody last read of it, on trio's clock.
        waiting_since_s: since when somebody has waited and nothing has come, on trio's clock.
        is_checked: whether its load has found that this identity may read the file, whatever came then.
    """

    __slots__ = (
        "_error",
        "_waiters",
        "content",
        "filled_bytes",
        "from_disk",
        "is_checked",
        "is_complete",
        "is_read",
        "key",
        "touched_s",
        "uses",
        "waiting_since_s",
    )

    def __init__(self, key: BlockKey) -> None:
        self.key = key
        self.content: Content | None = None
        self.filled_bytes = 0
        self.is_complete = False
        self.from_disk = False
        self.uses = 0
        self.is_read = False
        self.touched_s = 0.0
        self.is_checked = False
        self.waiting_since_s = 0.0
        self._error: HdfsFuseError | None = None
        self._waiters = trio.lowlevel.ParkingLot()

    @property
    def is_failed(self) -> bool:
        """Whether no more bytes will come."""
        return self._error is not None

    @property
    def waiting(self) -> int:
        """How many tasks wait for bytes of this block."""
        return len(self._waiters)

    async def wait_filled(self, stop: int) -> Content:
        """Wait until the first `stop` bytes are in place.

        A checkpoint only if they are not yet. Cancelling harms neither the load nor other waiters.

        Raises:
            HdfsFuseError: the load failed before it got there.
        """
        while self.filled_bytes < stop:
            if self._error is not None:
                # A fresh exception for each waiter: one object raised in several tasks grows a mixed traceback.
                raise type(self._error)(*self._error.args) from self._error
            if not self._waiters:
                self.waiting_since_s = trio.current_time()
            await self._waiters.park()
        assert self.content is not None
        return self.content

    def touch(self, stop: int) -> None:
        """Somebody has read of it, up to byte `stop`."""
        self.touched_s = trio.current_time()
        self.is_read = self.is_read or stop == self.key.length_bytes

    def landed(self, content: Content, filled_bytes: int) -> None:
        """More bytes are in place."""
        self.content = content
        self.filled_bytes = filled_bytes
        if self._waiters:
            self.waiting_since_s = trio.current_time()
            self._waiters.unpark_all()

    def complete(self, content: Content, from_disk: bool) -> None:
        """All bytes are in place, in `content` from now on."""
        if not content.is_intact():
            content.close()  # somebody wants to change its file already, and those who wait ask again
        self.is_complete = True
        self.touched_s = trio.current_time()
        self.from_disk = from_disk
        self.landed(content, self.key.length_bytes)

    def answered(self, answer: SmallAnswer) -> None:
        """All bytes of a small block have come, or none will."""
        self.is_checked = answer.is_checked
        if answer.data is not None:
            self.complete(BytesContent(answer.data), answer.from_disk)
        elif answer.error is not None:
            self.fail(answer.error)

    def fail(self, error: HdfsFuseError) -> None:
        """No more bytes will come."""
        self._error = error
        self._waiters.unpark_all()
