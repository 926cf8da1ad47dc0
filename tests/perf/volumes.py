"""The second half of `make bench`: how long a volume takes from CreateVolume to a pod and back, and its memory.

Many volumes at once on one node, with the controller, the node service and the mounter as a cluster runs them and HDFS
on this machine. Absolute figures: they say more about the machine than about the driver where that is busy.
"""

import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import msgspec
from hdfs_csi.pb import csi_pb2 as csi
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.csi.driver import DriverProcess, MounterProcess
from tests.csi.pods import Pod, make_pod, mounts_below, remove_mount
from tests.csi.volumes import create
from tests.perf import report
from tests.perf.observe import children_of
from tests.support.local_hdfs import LocalHdfs
from tests.support.signals import exit_on, handle_signals

_CALL_TIMEOUT_S = 120.0
# After the last mount, for what is done once at the start to be over.
_IDLE_S = 3.0
_MIB = 1 << 20

_console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


class Results(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        at_once: how many volumes were worked on at the same time.
        call_ms: by the name of a call, how long each took, in milliseconds.
        up_s, down_s: how long all of them took to be created and published, and to be removed, in seconds.
        private_bytes: private memory of each idle daemon (smaps_rollup, Private_Clean and Private_Dirty).
        supervisor_bytes: the same of the mounter and its fork server together.
        machine: what it ran on.
    """

    at_once: int
    call_ms: dict[str, list[float]]
    up_s: float
    down_s: float
    private_bytes: list[int]
    supervisor_bytes: int
    machine: dict[str, str]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--volumes", envvar="VOLUMES", type=click.IntRange(1), default=100, help="How many.")
@click.option("--at-once", type=click.IntRange(1), multiple=True, default=(1, 16), help="How many at the same time.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), default=Path("build/volumes.json")
)
def main(volumes: int, at_once: tuple[int, ...], json_path: Path) -> None:
    """Run, and take everything down again, however it ends."""
    handle_signals(exit_on(_console))
    if os.geteuid() != 0:
        _console.print("[bold red]failed:[/] mounting needs root: sudo make bench")
        sys.exit(1)
    with contextlib.ExitStack() as stack:
        try:
            bench = Bench(stack)
            results = [bench.run(volumes, number) for number in at_once]
        finally:
            handle_signals(signal.SIG_IGN)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    for result in results:
        _show(result)
    _console.print(f"\nall readings: {json_path}", markup=False)


class Bench:
    """HDFS and the processes of the driver. Whatever it starts is put on `stack` at once."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hdfs-csi-bench-")))
        self._hdfs = stack.enter_context(LocalHdfs())
        environment = self._hdfs.environment
        self._mounter = MounterProcess(self._directory, self._directory / "run", environment)
        stack.callback(self._mounter.daemon.stop)
        stack.callback(self._remove_mounts)
        self._mounter.start()
        options = ["--node-id", "node", "--mounter-endpoint", self._mounter.endpoint]
        for name in ("run", "cache", "staging"):
            options += [f"--{'runtime' if name == 'run' else name}-dir", str(self._directory / name)]
        self._controller = stack.enter_context(DriverProcess("controller", self._directory, environment))
        self._node = stack.enter_context(DriverProcess("node", self._directory, environment, *options))
        self._call_ms: dict[str, list[float]] = defaultdict(list)
        self._run("first", 1, 1)  # what is loaded and compiled once

    def run(self, count: int, at_once: int) -> Results:
        """Make, publish, read and remove so many volumes."""
        self._call_ms.clear()
        up_s, private_bytes, supervisor_bytes, down_s = self._run(f"{at_once}-at-once", count, at_once)
        calls = {name: list(values) for name, values in self._call_ms.items()}
        return Results(at_once, calls, up_s, down_s, private_bytes, supervisor_bytes, report.machine())

    def _run(self, name: str, count: int, at_once: int) -> tuple[float, list[int], int, float]:
        pods = [make_pod(self._directory / f"{name}-{number}") for number in range(count)]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=_console) as progress, ThreadPoolExecutor(at_once) as pool:
            task = progress.add_task(f"{count} volumes, {at_once} at once", total=2 * count)

            def up(pod: Pod) -> csi.Volume:
                volume = self._up(pod)
                progress.advance(task)
                return volume

            def down(pod: Pod, volume: csi.Volume) -> None:
                self._down(pod, volume)
                progress.advance(task)

            started = time.perf_counter()
            volumes = list(pool.map(up, pods))
            up_s = time.perf_counter() - started
            time.sleep(_IDLE_S)
            private_bytes, supervisor_bytes = self._memory()
            started = time.perf_counter()
            list(pool.map(down, pods, volumes))
            return up_s, private_bytes, supervisor_bytes, time.perf_counter() - started

    def _up(self, pod: Pod) -> csi.Volume:
        request = create(f"pvc-{pod.staging.parents[1].name}", f"{self._hdfs.uri}/volumes")
        volume: csi.Volume = self._call(self._controller, request).volume
        self._call(self._node, pod.stage(volume))
        self._call(self._node, pod.publish(volume))
        return volume

    def _down(self, pod: Pod, volume: csi.Volume) -> None:
        self._call(self._node, pod.unpublish(volume))
        self._call(self._node, pod.unstage(volume))
        self._call(self._controller, csi.DeleteVolumeRequest(volume_id=volume.volume_id))

    def _call(self, process: DriverProcess, request: Any) -> Any:
        started = time.perf_counter()
        answer = process.client.call(request, timeout_s=_CALL_TIMEOUT_S)
        name = type(request).__name__.removesuffix("Request")
        self._call_ms[name].append((time.perf_counter() - started) * 1000)
        return answer

    def _memory(self) -> tuple[list[int], int]:
        identity = self._mounter.daemon.identity
        assert identity is not None
        (fork_server,) = children_of(identity.pid)
        return (
            [_private_bytes(daemon) for daemon in children_of(fork_server)],
            _private_bytes(identity.pid) + _private_bytes(fork_server),
        )

    def _remove_mounts(self) -> None:
        for mount in mounts_below(self._directory):
            remove_mount(mount)


def _private_bytes(pid: int) -> int:
    """Memory that no other process shares (proc_pid_smaps_rollup(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def _show(results: Results) -> None:
    count = len(results.private_bytes)
    table = Table(title=f"\n{count} volumes, {results.at_once} at once, ms", title_justify="left")
    for column in ("", "least", "median", "95 of 100", "most"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in results.call_ms.items():
        ordered = sorted(values)
        shown = (ordered[0], statistics.median(ordered), ordered[len(ordered) * 95 // 100], ordered[-1])
        table.add_row(name, *(f"{value:,.0f}" for value in shown))
    _console.print(table)
    private = sorted(results.private_bytes)
    _console.print(
        f"all published after {results.up_s:.1f} s, removed in {results.down_s:.1f} s; private memory of an idle mount "
        f"{private[0] / _MIB:.1f} to {private[-1] / _MIB:.1f} MiB, median {statistics.median(private) / _MIB:.1f}; "
        f"mounter and fork server {results.supervisor_bytes / _MIB:.0f} MiB",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
