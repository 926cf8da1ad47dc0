"""Every metric of a mount: name, unit, meaning. Plain integers, since a READ counts several of them."""

import errno
import time
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

# Upper bounds of the latency buckets, in seconds: from a reply out of memory to a call that is about to time out.
LATENCY_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Latency:
    """A histogram of durations, in seconds, with the buckets LATENCY_BOUNDS_S and one beyond."""

    __slots__ = ("buckets", "count", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.count = 0
        self.sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration."""
        self.count += 1
        self.sum_s += duration_s
        for i, bound_s in enumerate(LATENCY_BOUNDS_S):
            if duration_s <= bound_s:
                self.buckets[i] += 1
                return
        self.buckets[-1] += 1

    def as_dict(self) -> dict[str, Any]:
        """Count, sum and mean in seconds, the bounds below which 50 and 99 percent lie (None: beyond all), buckets."""
        return {
            "count": self.count,
            "sum_s": self.sum_s,
            "buckets": self.buckets,
            "mean_s": self.sum_s / self.count if self.count else 0.0,
            "p50_s": self._quantile_s(0.5),
            "p99_s": self._quantile_s(0.99),
        }

    def _quantile_s(self, quantile: float) -> float | None:
        seen = 0
        for bound_s, count in zip(LATENCY_BOUNDS_S, self.buckets, strict=False):
            seen += count
            if seen >= quantile * self.count:
                return bound_s
        return None


class ErrorCounts:
    """Requests that failed, by the errno that applications saw and by the exception behind it."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, code: int, error: Exception) -> None:
        """Count one, answered with the errno `code`."""
        self._counts[errno.errorcode[code], type(error).__name__] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Name of the errno -> name of the exception -> how often."""
        found: dict[str, dict[str, int]] = {}
        for (name, kind), count in self._counts.items():
            found.setdefault(name, {})[kind] = count
        return found


def _counter(meaning: str) -> int:
    return field(default=0, metadata={"meaning": meaning})


def _latency(meaning: str) -> Latency:
    return field(default_factory=Latency, metadata={"meaning": meaning})


@dataclass(slots=True)
class Metrics:
    """What one mount counts, from its start.

    Changed on the event loop only, but for hdfs_bytes, cache_fault_count and evicted_bytes, which may lose some.
    """

    read_count: int = _counter("READ requests answered")
    read_bytes: int = _counter("bytes handed to applications")
    hit_count: int = _counter("blocks and small files that needed no HDFS")
    miss_count: int = _counter("blocks, small files and single reads that came from HDFS")
    hdfs_bytes: int = _counter("bytes read from HDFS")
    cache_bytes: int = _counter("bytes of blocks and small files that were in the cache already")
    hdfs_call_count: int = _counter("calls to HDFS, loads of blocks and small files left out")
    hdfs_timeout_count: int = _counter("calls and loads that outlived their deadline")
    cache_fault_count: int = _counter("faults of the cache's disk, each answered from HDFS instead")
    evicted_bytes: int = _counter("bytes that this mount removed from the cache to make room")
    written_bytes: int = _counter("bytes that applications wrote")
    published_count: int = _counter("files that were stored in HDFS")
    published_bytes: int = _counter("bytes of those files")
    errors: ErrorCounts = field(
        default_factory=ErrorCounts,
        metadata={"meaning": "requests answered with an errno other than ENOENT, ENODATA and ENOTSUP"},
    )
    lookup_latency: Latency = _latency("LOOKUP and GETATTR")
    open_latency: Latency = _latency("OPEN")
    read_latency: Latency = _latency("READ")
    readdir_latency: Latency = _latency("READDIR")
    write_latency: Latency = _latency("WRITE")
    publish_latency: Latency = _latency("FLUSH and FSYNC")
    change_latency: Latency = _latency("changes of names and attributes")
    xattr_latency: Latency = _latency("GETXATTR and LISTXATTR")
    hdfs_latency: Latency = _latency("calls to HDFS")
    started_s: float = field(default_factory=time.time, metadata={"meaning": "start, seconds since the epoch"})

    def as_dict(self) -> dict[str, Any]:
        """All of them by name, for JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: value.as_dict() if isinstance(value, Latency | ErrorCounts) else value
            for name, value in values.items()
        }
