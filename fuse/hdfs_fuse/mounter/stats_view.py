"""Showing a daemon's statistics in a terminal."""

import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from hdfs_fuse.mounter.stats import fetch


def show_once(path: str) -> None:
    """Print a table of the totals."""
    Console().print(_table(fetch(path), None, 0.0))


def show_live(path: str, interval_s: float) -> None:
    """Show totals and rates until interrupted."""
    before = fetch(path)
    with Live(_table(before, None, 0.0), refresh_per_second=4) as live:
        try:
            while True:
                time.sleep(interval_s)
                now = fetch(path)
                live.update(_table(now, before, now["uptime_s"] - before["uptime_s"]))
                before = now
        except KeyboardInterrupt:
            pass


def _table(now: dict[str, Any], before: dict[str, Any] | None, seconds: float) -> Table:
    table = Table(title=f"{now['uri']}  (pid {now['pid']}, up {now['uptime_s']:.0f} s)")
    for column in ("", "total", "per second"):
        table.add_column(column, justify="left" if not column else "right")

    def row(label: str, name: str, unit: float, suffix: str) -> None:
        rate = f"{(now[name] - before[name]) / unit / seconds:,.1f}{suffix}" if before and seconds else ""
        table.add_row(label, f"{now[name] / unit:,.{1 if suffix else 0}f}{suffix}", rate)

    row("reads", "read_count", 1, "")
    row("read by applications", "read_bytes", 1e6, " MB")
    row("from HDFS", "hdfs_bytes", 1e6, " MB")
    row("from the cache", "cache_bytes", 1e6, " MB")
    row("hits", "hit_count", 1, "")
    row("misses", "miss_count", 1, "")
    row("calls to HDFS", "hdfs_call_count", 1, "")
    row("calls timed out", "hdfs_timeout_count", 1, "")
    for name, kinds in sorted(now["errors"].items()):
        table.add_row(f"answered with {name}", f"{sum(kinds.values()):,}", ", ".join(sorted(kinds)))
    row("cache faults", "cache_fault_count", 1, "")
    table.add_row("cache", f"{now['cache_used_bytes'] / 1e6:,.0f} of {now['cache_size_bytes'] / 1e6:,.0f} MB", "")
    table.add_row("open files, names", f"{now['open_files']:,}, {now['inodes']:,}", "")
    if now["changed_files"] or now["completing_files"] or now["staged_bytes"]:
        files = f"{now['changed_files']:,}, {now['publishing_files']:,}, {now['completing_files']:,}"
        table.add_row("files changed, being stored, being completed", files, "")
        table.add_row("staged", f"{now['staged_bytes'] / 1e6:,.1f} MB", "")
    table.add_row("loader processes", f"{now['loaders']}", "")
    for label in ("lookup", "open", "read", "readdir", "hdfs"):
        latency = now[f"{label}_latency"]
        if latency["count"]:
            text = f"mean {_ms(latency['mean_s'])}, p50 <= {_ms(latency['p50_s'])}, p99 <= {_ms(latency['p99_s'])}"
            table.add_row(f"{label} latency", text, "")
    return table


def _ms(seconds: float | None) -> str:
    return "30 s+" if seconds is None else f"{seconds * 1000:.1f} ms"
