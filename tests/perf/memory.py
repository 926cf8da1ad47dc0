"""Free memory filled with pages that can be reclaimed, for virtual machines that give free memory back to their host.

There the first use of a free page waits for the host, which can take seconds a GiB: far longer than anything measured
here, and it hits only those contenders that use the page cache. A machine that has run for a while has its memory
full of old file pages instead; this brings about that state.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.dataset import GIB, MIB

# Stays free: the kernel keeps some hundred MiB by itself, and reclaiming would begin while we fill.
_RESERVE_BYTES = 1536 * MIB
_PIECE_BYTES = 64 * MIB
_MAX_BYTES = 8192 * GIB


class MemoryFiller:
    """Reads a sparse file, whose pages cost no disk and are clean, so the kernel takes them back at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._descriptor = -1
        self._buffer = bytearray(_PIECE_BYTES)

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.truncate(self._descriptor, _MAX_BYTES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._path.unlink()

    def top_up(self) -> None:
        """Fill what has become free, always with new places of the file, so that old ones can be reclaimed."""
        # Not until little is free: where this process's share of the memory is limited, that would never be.
        for _ in range(max(_free_bytes() - _RESERVE_BYTES, 0) // _PIECE_BYTES):
            count = os.preadv(self._descriptor, [self._buffer], self._position)
            self._position = (self._position + count) % _MAX_BYTES


def _free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemFree:"))
