"""From samples to ratios, tables and JSON."""

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import msgspec
from rich.console import Console
from rich.table import Table

from tests.perf.contenders import LOCAL, MOUNT, RAW, RCLONE
from tests.perf.workloads import Unit, Workload

MIB = 1 << 20


class Sample(msgspec.Struct, frozen=True):
    """One reading.

    Attributes:
        workload, step, contender, repetition: which.
        unit: of `value`.
        value: what counts.
        duration_s, count, size_bytes: of the client's job.
        client_cpu_s, daemon_cpu_s: processor time of the client and of the process that served it.
        daemon_anonymous_bytes, daemon_resident_bytes: the most memory of the latter.
        datanode_bytes: what the DataNode read meanwhile.
        hdfs_bytes, read_bytes: what the daemon counted; None where it does not say.
        late_s: how much later than the client was told HDFS had what was written; part of `value`.
        doubt: why it may not be what it says; empty when nothing speaks against it.
    """

    workload: str
    step: str
    contender: str
    repetition: int
    unit: str
    value: float
    duration_s: float
    count: int
    size_bytes: int
    client_cpu_s: float
    daemon_cpu_s: float
    daemon_anonymous_bytes: int
    daemon_resident_bytes: int
    datanode_bytes: int
    hdfs_bytes: int | None
    read_bytes: int | None
    late_s: float
    doubt: str


class Service(msgspec.Struct, frozen=True):
    """The process that serves a contender.

    Attributes:
        contender: which.
        mount_s: how long each mount took.
        idle_bytes: resident memory right after each mount.
        idle_mapped_bytes: how much of that is libraries.
        peak_bytes: the most resident memory under load, less mapped files, plus those libraries.
    """

    contender: str
    mount_s: list[float]
    idle_bytes: list[int]
    idle_mapped_bytes: list[int]
    peak_bytes: int


class Results(msgspec.Struct, frozen=True):
    """All that a run found out; the content of the JSON file.

    Attributes:
        samples, services: the readings.
        machine: what it ran on.
        options: how it was run.
        notes: what was left out, and why.
    """

    samples: list[Sample]
    services: list[Service]
    machine: dict[str, str]
    options: dict[str, str]
    notes: list[str]

    def values(self, workload: str, step: str, contender: str) -> list[float]:
        """The readings of one step, by repetition."""
        return [
            sample.value
            for sample in self.samples
            if (sample.workload, sample.step, sample.contender) == (workload, step, contender)
        ]

    def service(self, contender: str) -> Service | None:
        """The process that served a contender."""
        return next((service for service in self.services if service.contender == contender), None)


@dataclass(frozen=True, slots=True)
class Target:
    """Something that the project wants to reach.

    Attributes:
        text: what.
        limit: how much.
        is_lower_bound: whether more than the limit is good, or less.
        values: the readings, one a repetition.
        unit: of the limit; empty for a ratio.
    """

    text: str
    limit: float
    is_lower_bound: bool
    values: Callable[[Results], list[float]]
    unit: str = ""

    def is_reached(self, value: float) -> bool:
        """Whether `value` is good enough."""
        return value >= self.limit if self.is_lower_bound else value <= self.limit


# A reading: workload, step, contender.
Reading = tuple[str, str, str]


def _ratio(above: Reading, below: Reading) -> Callable[[Results], list[float]]:
    """Ratios of pairs from the same repetition."""
    return lambda results: [a / b for a, b in zip(results.values(*above), results.values(*below), strict=False) if b]


def _idle(results: Results) -> list[float]:
    service = results.service(MOUNT)
    return [size / MIB for size in service.idle_bytes] if service else []


def _peak(results: Results) -> list[float]:
    service = results.service(MOUNT)
    return [service.peak_bytes / MIB] if service and service.peak_bytes else []


TARGETS = (
    Target(
        "sequential, cold / hdfs-native", 0.9, True, _ratio(("sequential", "cold", MOUNT), ("sequential", "cold", RAW))
    ),
    Target(
        "sequential, cold, sixteen times the cache / hdfs-native",
        0.9,
        True,
        _ratio(("sequential", "passing", MOUNT), ("sequential", "cold", RAW)),
    ),
    Target(
        "sequential, cold / rclone", 2.0, True, _ratio(("sequential", "cold", MOUNT), ("sequential", "cold", RCLONE))
    ),
    Target(
        "sequential, block cache / cold",
        2.0,
        True,
        _ratio(("sequential", "blocks", MOUNT), ("sequential", "cold", MOUNT)),
    ),
    Target(
        "sequential, block cache / rclone",
        4.0,
        True,
        _ratio(("sequential", "blocks", MOUNT), ("sequential", "blocks", RCLONE)),
    ),
    Target(
        "sequential, page cache / local disk",
        0.85,
        True,
        _ratio(("sequential", "pages", MOUNT), ("sequential", "pages", LOCAL)),
    ),
    Target("random 4 KiB, cold / hdfs-native", 0.4, True, _ratio(("random", "cold", MOUNT), ("random", "cold", RAW))),
    Target(
        "4 KiB files, cold, 16 threads / hdfs-native",
        0.6,
        True,
        _ratio(("small", "cold-16", MOUNT), ("small", "cold-16", RAW)),
    ),
    Target(
        "4 KiB files, block cache, 16 threads / rclone",
        4.0,
        True,
        _ratio(("small", "warm-16", MOUNT), ("small", "warm-16", RCLONE)),
    ),
    Target(
        "time to first byte, cold / hdfs-native",
        2.0,
        False,
        _ratio(("first-byte", "cold", MOUNT), ("first-byte", "cold", RAW)),
    ),
    Target(
        "two passes over 8 MiB files, hits of the second",
        0.4,
        True,
        lambda r: r.values("two-passes", "shards-again", MOUNT),
    ),
    Target(
        "two passes over 4 KiB files, hits of the second",
        0.4,
        True,
        lambda r: r.values("two-passes", "images-again", MOUNT),
    ),
    Target(
        "writing a large file / hdfs-native", 0.9, True, _ratio(("writing", "large", MOUNT), ("writing", "large", RAW))
    ),
    Target(
        "creating 4 KiB files, 1 thread / hdfs-native",
        60.0,
        True,
        _ratio(("writing", "create-1", MOUNT), ("writing", "create-1", RAW)),
    ),
    Target(
        "creating 4 KiB files, 16 threads / hdfs-native",
        10.0,
        True,
        _ratio(("writing", "create-16", MOUNT), ("writing", "create-16", RAW)),
    ),
    Target("memory of an idle mount", 60.0, False, _idle, "MiB"),
    Target("memory under load, beyond the mapped cache", 200.0, False, _peak, "MiB"),
)


def machine() -> dict[str, str]:
    """What decides how fast things are here."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processors": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def show(console: Console, results: Results, workloads: Sequence[Workload], contenders: Sequence[str]) -> None:
    """Print all tables."""
    for workload in workloads:
        _show_workload(console, results, workload, contenders)
    _show_services(console, results)
    _show_targets(console, results)
    for note in results.notes:
        console.print(f"- {note}", markup=False, soft_wrap=True)
    for doubt, count in _doubts(results.samples).items():
        console.print(f"[bold yellow]doubtful[/] ({count} x): {doubt}", soft_wrap=True)


def _doubts(samples: Iterable[Sample]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in samples:
        if sample.doubt:
            text = f"{sample.workload}, {sample.step}, {sample.contender}: {sample.doubt}"
            counts[text] = counts.get(text, 0) + 1
    return counts


def _show_workload(console: Console, results: Results, workload: Workload, contenders: Sequence[str]) -> None:
    table = Table(title=f"\n{workload.title}: median (lowest to highest)", title_justify="left")
    table.add_column("")
    shown = [
        name for name in contenders if any(results.values(workload.name, step.name, name) for step in workload.steps)
    ]
    for name in shown:
        table.add_column(name, justify="right")
    for step in workload.steps:
        cells = [_cell(results.values(workload.name, step.name, name), step.unit) for name in shown]
        table.add_row(f"{step.label}, {step.unit.value}", *cells)
    if shown:
        console.print(table)


def _cell(values: Sequence[float], unit: Unit) -> str:
    if not values:
        return ""
    digits = {Unit.HITS: 2, Unit.MS: 2}.get(unit, 0)
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _show_services(console: Console, results: Results) -> None:
    table = Table(title="\nthe processes that serve", title_justify="left")
    for column in (
        "",
        "mount, s",
        "idle, MiB",
        "peak beyond mapped files, MiB",
        "CPU s a GiB, cold",
        "CPU s a GiB, block cache",
    ):
        table.add_column(column, justify="right" if column else "left")
    for service in results.services:
        table.add_row(
            service.contender,
            _range(service.mount_s, 2),
            _range([size / MIB for size in service.idle_bytes], 0),
            f"{service.peak_bytes / MIB:.0f}",
            *(_cpu(results, service.contender, step) for step in ("cold", "blocks")),
        )
    if results.services:
        console.print(table)


def _cpu(results: Results, contender: str, step: str) -> str:
    used = [
        sample.daemon_cpu_s / sample.size_bytes * 2**30
        for sample in results.samples
        if (sample.workload, sample.step, sample.contender) == ("sequential", step, contender)
    ]
    return _range(used, 2)


def _range(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _show_targets(console: Console, results: Results) -> None:
    table = Table(title="\ntargets: ratios of readings from the same repetition", title_justify="left")
    for column in ("", "median (lowest to highest)", "target", "reached"):
        table.add_column(column, justify="right" if column else "left")
    for target in TARGETS:
        values = target.values(results)
        wanted = f"{'at least' if target.is_lower_bound else 'at most'} {target.limit:g} {target.unit}".strip()
        if not values:
            table.add_row(target.text, "", wanted, "not measured")
            continue
        reached = "[green]yes[/]" if target.is_reached(median(values)) else "[bold red]no[/]"
        table.add_row(target.text, _range(values, 0 if target.unit else 2), wanted, reached)
    console.print(table)
