"""Where the bytes of blocks in reach are, apart from the cache's disk (store.py), and why they can be missing."""

import contextlib
import mmap
import threading
from collections.abc import Sequence
from typing import Protocol

from hdfs_fuse.errors import HdfsFuseError


class BlockUnavailableError(HdfsFuseError):
    """The cache can't bring this block in; the reader reads what it needs from the filesystem itself."""


class LoadCancelledError(HdfsFuseError):
    """The load was given up before it reached this block; ask again."""


class Content(Protocol):
    """Where a block's bytes are."""

    view: memoryview

    def is_intact(self) -> bool:
        """Whether the bytes are those that were verified, and stay so while they are used at once."""
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
