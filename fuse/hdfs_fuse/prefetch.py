"""What to load before it is asked for: pure policy, no I/O.

The kernel sends a sequential reader's READs several at a time and slightly out of order, so "sequential" means
close to where the last ones ended, not exactly there.
"""

from hdfs_fuse.config import MIB

# How far from the expected offset a READ may start and still belong to a sequence: the kernel's own read-ahead.
_SLACK_BYTES = 8 * MIB
# The kernel's first READ is this large only for an application that reads more than a few pages.
_LARGE_READ_BYTES = 64 << 10
# The first sequential READ asks for one block and the window then doubles: a reader of a file's head wastes little.
_FIRST_WINDOW_BYTES = 4 * MIB


class Prefetcher:
    """Watches the READs of one open file and says how far ahead of them to load.

    Attributes:
        is_sequential: whether the last READ continued a sequence.
    """

    __slots__ = ("_expected", "_max_window_bytes", "_window_bytes", "is_sequential")

    def __init__(self, max_window_bytes: int) -> None:
        """Read ahead at most `max_window_bytes`; 0 never reads ahead."""
        self._max_window_bytes = max_window_bytes
        self._window_bytes = 0
        self._expected = 0  # a reader that starts at the beginning with a large READ is sequential at once
        self.is_sequential = False

    def observe(self, start: int, stop: int) -> int:
        """A READ of [start, stop).

        Returns:
            Up to which byte the file should be loaded or loading: at least `stop` for a sequence; `start` for a
            random read, which asks for nothing but itself.
        """
        is_near = self._expected - _SLACK_BYTES <= start <= self._expected + _SLACK_BYTES
        # Before there is a window only the expected offset counts: a seek near it is still a seek. And a small READ of
        # the beginning may be all that somebody wants, a file's magic number say: it is answered by itself.
        begins = start == self._expected and (start > 0 or stop - start >= _LARGE_READ_BYTES)
        self.is_sequential = (is_near and self._window_bytes > 0) or begins
        if not self.is_sequential:
            self._window_bytes = 0
            self._expected = stop
            return start
        if stop > self._expected or not self._window_bytes:
            self._window_bytes = min(max(2 * self._window_bytes, _FIRST_WINDOW_BYTES), self._max_window_bytes)
            self._expected = max(stop, self._expected)
        return max(stop, self._expected + self._window_bytes)
