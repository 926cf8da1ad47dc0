"""What Prometheus is told: the RPCs that the driver answers, and what the mounts of a node count.

docs/metrics.md shows the names to users, and a test keeps the two alike.
"""

import glob
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

from hdfs_fuse.errors import MountError
from hdfs_fuse.metrics import LATENCY_BOUNDS_S, ErrorCounts, Latency, Metrics
from hdfs_fuse.mounter import stats
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

log = logging.getLogger(__name__)

# From a Probe to a mount that hangs: the kubelet gives an RPC two minutes.
_OPERATION_BOUNDS_S = (0.005, 0.02, 0.1, 0.5, 2, 10, 30, 60, 120)
# Mounts that are asked at once; each may take the 5 s of stats.fetch.
_ASKED_AT_ONCE = 16
# One volume may have several mounts on a node: those with podUser have.
_LABELS = ["volume_id", "mount"]
# Of a mount: name in its statistics -> name and meaning here.
_GAUGES = {
    "uptime_s": ("hdfs_fuse_uptime_seconds", "since the mount was made"),
    "inodes": ("hdfs_fuse_inodes", "names that the kernel holds"),
    "open_files": ("hdfs_fuse_open_files", "open files"),
    "loaders": ("hdfs_fuse_loaders", "processes that read small files"),
    "cache_used_bytes": ("hdfs_fuse_cache_used_bytes", "bytes in the node's cache, of all mounts"),
    "cache_size_bytes": ("hdfs_fuse_cache_size_bytes", "the most that the node's cache may hold"),
    "changed_files": ("hdfs_fuse_upload_changed_files", "files with bytes that HDFS does not have"),
    "staged_bytes": ("hdfs_fuse_upload_staged_bytes", "bytes of files that are being changed, on the node's disk"),
    "publishing_files": ("hdfs_fuse_upload_publishing_files", "of these, files that are being stored"),
    "completing_files": ("hdfs_fuse_upload_completing_files", "stored files that HDFS has yet to complete"),
}


class Operations:
    """The RPCs of a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Count in `registry`."""
        self._seconds = Histogram(
            "hdfs_csi_operation_seconds",
            "CSI calls by method and gRPC code",
            ["method", "code"],
            buckets=_OPERATION_BOUNDS_S,
            registry=registry,
        )

    def observe(self, method: str, code: str, duration_s: float) -> None:
        """Count one call."""
        self._seconds.labels(method, code).observe(duration_s)


class Mounts:
    """The mounts of a node, asked whenever Prometheus asks."""

    def __init__(self, runtime_dir: str) -> None:
        """Ask the daemons that offer their statistics below `runtime_dir` (Supervisor)."""
        self._runtime_dir = runtime_dir

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client.registry.Collector."""
        paths = sorted(glob.glob(os.path.join(glob.escape(self._runtime_dir), "*", "stats")))
        with ThreadPoolExecutor(_ASKED_AT_ONCE, "stats") as pool:
            found = [answer for answer in pool.map(_fetch, paths) if answer is not None]
        states = GaugeMetricFamily("hdfs_csi_mounts", "mounts of the node", labels=["state"])
        states.add_metric(["answering"], len(found))
        states.add_metric(["silent"], len(paths) - len(found))
        yield states
        for name, (shown, meaning) in _GAUGES.items():
            gauge = GaugeMetricFamily(shown, meaning, labels=_LABELS)
            for labels, value in _values(name, found):
                gauge.add_metric(labels, value)
            yield gauge
        for field in fields(Metrics):
            if field.type is int:
                yield _counter(field.name, field.metadata["meaning"], found)
            elif field.type is Latency:
                yield _histogram(field.name, field.metadata["meaning"], found)
            elif field.type is ErrorCounts:
                yield _errors(field.metadata["meaning"], found)


def _counter(name: str, meaning: str, found: Iterable[dict[str, Any]]) -> Metric:
    counter = CounterMetricFamily(f"hdfs_fuse_{name.removesuffix('_count')}", meaning, labels=_LABELS)
    for labels, value in _values(name, found):
        counter.add_metric(labels, value)
    return counter


def _errors(meaning: str, found: Iterable[dict[str, Any]]) -> Metric:
    counter = CounterMetricFamily("hdfs_fuse_error", meaning, labels=[*_LABELS, "errno", "kind"])
    for labels, errnos in _values("errors", found):
        for name, kinds in errnos.items():
            for kind, count in kinds.items():
                counter.add_metric([*labels, name, kind], count)
    return counter


def _histogram(name: str, meaning: str, found: Iterable[dict[str, Any]]) -> Metric:
    histogram = HistogramMetricFamily(
        f"hdfs_fuse_{name.removesuffix('_latency')}_seconds", f"how long these took: {meaning}", labels=_LABELS
    )
    for labels, latency in _values(name, found):
        total, buckets = 0, []
        for bound_s, count in zip((*LATENCY_BOUNDS_S, "+Inf"), latency["buckets"], strict=True):
            total += count
            buckets.append((str(bound_s), total))
        histogram.add_metric(labels, buckets, latency["sum_s"])
    return histogram


def _values(name: str, found: Iterable[dict[str, Any]]) -> Iterator[tuple[list[str], Any]]:
    """Labels and value of one of the statistics; a daemon of another release may lack it."""
    for answer in found:
        if name in answer:
            yield [answer["volume_id"], answer["mount"]], answer[name]


def _fetch(path: str) -> dict[str, Any] | None:
    try:
        # The folder is named after the device number (supervisor.stats_path).
        return {**stats.fetch(path), "mount": os.path.basename(os.path.dirname(path))}
    except MountError as e:
        log.debug("no statistics path=%s error=%s", path, e)
        return None
