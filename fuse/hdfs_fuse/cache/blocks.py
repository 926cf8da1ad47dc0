"""Blocks within reach of the event loop: being filled, complete, or failed."""

import contextlib
import mmap
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from hdfs_fuse.cache.keys import BlockKey
from hdfs_fuse.errors import HdfsFuseError


class BlockUnavailableError(HdfsFuseError):
    """The cache can't bring this block in; the reader reads what it needs from the filesystem itself."""


class LoadCancelledError(HdfsFuseError):
    """The load was given up before it reached this block; ask again."""


class Content(Protocol):
    """Where a block's bytes are."""

    view: memoryview

    def is_intact(self) -> bool:
        """Whether the bytes are still those that were verified."""
        ...

    def copy(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the block; shorter when they are lost."""
        ...

    def close(self) -> None:
        """Let go; views in use stay valid."""
        ...


class MemoryBudget:
    """Bytes of memory that blocks without a place on the disk may take. Thread-safe."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.used_bytes = 0
        self._mutex = threading.Lock()

    def take(self, size_bytes: int) -> bool:
        """Reserve; False when that would be too much."""
        with self._mutex:
            if self.used_bytes + size_bytes > self.size_bytes:
                return False
            self.used_bytes += size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """End a reservation."""
        with self._mutex:
            self.used_bytes -= size_bytes


class MemoryBlock:
    """A block in anonymous memory: for when the disk has no room or fails."""

    def __init__(self, length_bytes: int, budget: MemoryBudget) -> None:
        """Take over a reservation of `length_bytes` from `budget`."""
        self._length_bytes = length_bytes
        self._budget: MemoryBudget | None = budget
        self._bytes = mmap.mmap(-1, length_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            self._bytes.madvise(mmap.MADV_HUGEPAGE)  # one page fault for 2 MiB instead of 512
        self.view = memoryview(self._bytes).toreadonly()
        self._filled_bytes = 0

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Copy the next bytes in."""
        for chunk in chunks:
            self._bytes[self._filled_bytes : self._filled_bytes + len(chunk)] = chunk
            self._filled_bytes += len(chunk)

    def publish(self) -> None:
        """Nothing to do: the loop is told that it is complete."""

    def is_intact(self) -> bool:
        """Always: nobody else can reach this memory."""
        return True

    def copy(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop)."""
        return self._bytes[start:stop]

    def close(self) -> None:
        """End the reservation; idempotent."""
        if self._budget is not None:
            self._budget.give_back(self._length_bytes)
            self._budget = None


class BytesContent:
    """A small block, as it came."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.view = memoryview(data)

    def is_intact(self) -> bool:
        """Always: nobody else can reach this memory."""
        return True

    def copy(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop); no copy when that is all."""
        return self._data[start:stop]

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True, slots=True)
class SmallAnswer:
    """What became of the load of a small block.

    Attributes:
        data: its bytes; None when they can't be had.
        error: why not.
        from_disk: whether the cache had it.
        is_checked: whether the check let this identity read, whatever came then.
    """

    data: bytes | None
    error: HdfsFuseError | None = None
    from_disk: bool = False
    is_checked: bool = False


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
        "key",
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

    def landed(self, content: Content, filled_bytes: int) -> None:
        """More bytes are in place."""
        self.content = content
        self.filled_bytes = filled_bytes
        if self._waiters:
            self.waiting_since_s = trio.current_time()
            self._waiters.unpark_all()

    def complete(self, content: Content, from_disk: bool) -> None:
        """All bytes are in place, in `content` from now on."""
        self.is_complete = True
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
