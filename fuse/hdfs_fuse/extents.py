"""Sets of byte ranges: which parts of a file are at hand. Pure; knows no files."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Extents:
    """Byte ranges [start, stop) in order, none of which touches another."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        """Begin with none."""
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return sum(self._stops) - sum(self._starts)

    def add(self, start: int, stop: int) -> None:
        """Have [start, stop)."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def cut(self, length: int) -> None:
        """Have nothing from `length` on."""
        keep = bisect_left(self._starts, length)
        del self._starts[keep:], self._stops[keep:]
        if keep and self._stops[-1] > length:
            self._stops[-1] = length

    def discard(self, stop: int) -> None:
        """Have nothing before `stop`."""
        gone = bisect_right(self._stops, stop)
        del self._starts[:gone], self._stops[:gone]
        if self._starts and self._starts[0] < stop:
            self._starts[0] = stop

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """[start, stop) in order, in pieces that are either had as a whole or not at all: (start, stop, had)."""
        index = bisect_right(self._stops, start)
        while start < stop:
            if index == len(self._starts) or self._starts[index] >= stop:
                yield start, stop, False
                return
            if start < self._starts[index]:
                yield start, self._starts[index], False
                start = self._starts[index]
            end = min(self._stops[index], stop)
            yield start, end, True
            start = end
            index += 1
