"""How full the cache is: counters in a small file that all processes of the node share.

Counting beats measuring: a walk over ten million files takes minutes. A process killed between adding a file and
counting it leaves the counters slightly low; `recount` mends a shard whenever eviction visits it.
"""

import contextlib
import errno
import fcntl
import math
import os
import struct
import threading
from collections.abc import Iterator, Mapping

SHARDS = 1024  # of 10 million blocks, 9,766 in each: a directory that is listed in tens of milliseconds

_HEADER = struct.Struct("<8sqdd")  # magic, total bytes, longest reuse in s, time of the last hit in s
_MAGIC = b"HDFSCSI1"
_CELL = struct.Struct("<q")
_SIZE = _HEADER.size + SHARDS * _CELL.size
_MAX_BYTES = 1 << 60  # anything beyond is damage


class UsageFile:
    """Bytes kept in each shard, and what is known of reuse (see reuse.py).

    Read and written with pread and pwrite, never mapped: a truncated file then is a short read, not a SIGBUS.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._mutex = threading.Lock()
        with self._locked():
            magic = os.pread(self._fd, _HEADER.size, 0)[:8]
            self.is_new = magic != _MAGIC or os.fstat(self._fd).st_size != _SIZE
            if self.is_new:
                os.ftruncate(self._fd, 0)
                os.ftruncate(self._fd, _SIZE)
                os.pwrite(self._fd, _HEADER.pack(_MAGIC, 0, 0.0, 0.0), 0)
        self.settle()

    def close(self) -> None:
        """Close the file; the counters stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._mutex:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the counters are closed")
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _header(self) -> tuple[int, float, float]:
        raw = os.pread(self._fd, _HEADER.size, 0)
        if len(raw) == _HEADER.size:
            magic, total, reuse_s, hit_s = _HEADER.unpack(raw)
            if magic == _MAGIC and 0 <= total < _MAX_BYTES and math.isfinite(reuse_s) and math.isfinite(hit_s):
                return total, reuse_s, hit_s
        return _bounded(sum(self._cells())), 0.0, 0.0

    def _cells(self) -> list[int]:
        raw = os.pread(self._fd, SHARDS * _CELL.size, _HEADER.size).ljust(SHARDS * _CELL.size, b"\0")
        return [_counter(value) for (value,) in _CELL.iter_unpack(raw)]

    def _write_header(self, total: int, reuse_s: float, hit_s: float) -> None:
        os.pwrite(self._fd, _HEADER.pack(_MAGIC, _bounded(total), reuse_s, hit_s), 0)

    def total_bytes(self) -> int:
        """Bytes in the cache, all shards together."""
        return self._header()[0]

    def shard_bytes(self) -> list[int]:
        """Bytes in each shard."""
        return self._cells()

    def add(self, shard: int, size_bytes: int) -> None:
        """Count `size_bytes`, negative for a removal, in one shard and in the total."""
        with self._locked():
            self._change(shard, size_bytes)

    def add_all(self, sizes_bytes: Mapping[int, int]) -> None:
        """`add` for several shards at once, for the price of about one."""
        with self._locked():
            total, reuse_s, hit_s = self._header()
            cells = bytearray(SHARDS * _CELL.size)
            os.preadv(self._fd, [cells], _HEADER.size)  # a truncated file reads as zeros here
            for shard, size_bytes in sizes_bytes.items():
                old = _counter(_CELL.unpack_from(cells, shard * _CELL.size)[0])
                new = max(old + size_bytes, 0)
                _CELL.pack_into(cells, shard * _CELL.size, new)
                total += new - old
            os.pwrite(self._fd, cells, _HEADER.size)
            self._write_header(total, reuse_s, hit_s)

    def recount(self, shard: int, size_bytes: int, counted_bytes: int) -> None:
        """Say what a shard really holds, as its listing has just shown.

        Args:
            shard: which.
            size_bytes: the sum of the listing.
            counted_bytes: what `bytes_in` said before the listing. If it says something else by now, the listing
                may have missed a block that has been counted since, and nothing is changed.
        """
        with self._locked():
            if self.bytes_in(shard) == counted_bytes:
                self._change(shard, size_bytes - counted_bytes)

    def settle(self) -> None:
        """Make the total the sum of the shards again: damage, or a kill between two writes, may have parted them."""
        with self._locked():
            self._write_header(sum(self._cells()), *self._header()[1:])

    def bytes_in(self, shard: int) -> int:
        """Bytes in one shard."""
        raw = os.pread(self._fd, _CELL.size, _HEADER.size + shard * _CELL.size)
        return _counter(_CELL.unpack(raw)[0]) if len(raw) == _CELL.size else 0

    def _change(self, shard: int, size_bytes: int) -> None:
        total, reuse_s, hit_s = self._header()
        old = self.bytes_in(shard)
        new = max(old + size_bytes, 0)
        os.pwrite(self._fd, _CELL.pack(new), _HEADER.size + shard * _CELL.size)
        self._write_header(total + new - old, reuse_s, hit_s)

    def reuse(self) -> tuple[float, float]:
        """The longest reuse interval seen lately in seconds, and when the last hit was (seconds since the epoch)."""
        return self._header()[1:]

    def set_reuse(self, reuse_s: float, hit_s: float) -> None:
        """Store what `reuse` returns."""
        with self._locked():
            self._write_header(self._header()[0], reuse_s, hit_s)


def _counter(value: int) -> int:
    """What a counter says; nothing when it is damaged."""
    return value if 0 <= value < _MAX_BYTES else 0


def _bounded(total: int) -> int:
    """A total that is accepted when it is read again: several damaged counters may add up to more."""
    return min(max(total, 0), _MAX_BYTES - 1)
