"""`make bench`: how fast the mount is beside the HDFS client itself, rclone's mount and the local disk, in one run.

Everything is measured on the same data with HDFS on this machine, and only ratios mean anything: all contenders do a
step one after the other before the next step comes, and this is repeated. Each cold reading has a new mount with an
empty cache. Where the bytes really came from is checked by what the DataNode and the daemon counted.
"""

import contextlib
import dataclasses
import os
import pwd
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError
from hdfs_fuse.mounter.supervisor import Supervisor
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.perf import jobs, report
from tests.perf.contenders import (
    LOCAL,
    MOUNT,
    MOUNT_ARROW,
    RAW,
    RAW_ARROW,
    RCLONE,
    SMALL_BYTES,
    Client,
    Contender,
    ContenderError,
    Local,
    OurMount,
    Rclone,
)
from tests.perf.data import QUICK, ROOT, Data, Sizes
from tests.perf.memory import MemoryFiller
from tests.perf.observe import read_bytes_of
from tests.perf.workloads import WORKLOADS, Context, Step, Workload, doubt_about, value_of
from tests.support.cache import SetupError
from tests.support.dataset import MIB
from tests.support.libhdfs import libhdfs_environment
from tests.support.local_hdfs import LocalHdfs, LocalHdfsError
from tests.support.signals import exit_on, handle_signals

ALL = (RAW, RAW_ARROW, MOUNT, MOUNT_ARROW, RCLONE, LOCAL)

# How often HDFS is asked whether it has what was written, and for how long, in seconds: rclone waits 5 s first.
_POLL_S, _LATEST_S = 0.05, 120.0
# Of the files of 8 MiB; all would take longer than some of the measurements.
_SHARDS_VERIFIED = 4

# Small files that were written are kept here until all is measured.
_ASIDE = "/laid-aside"

_FAILURES = (ContenderError, SetupError, LocalHdfsError, HdfsFuseError)

# A table that is read in a log must not be folded to the 80 columns that are assumed there.
_console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


class WrongBytesError(ContenderError):
    """A contender delivered other bytes than were written."""


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--repeats", envvar="REPEATS", type=click.IntRange(1), default=3, help="How often all is measured.")
@click.option("--quick", is_flag=True, help="Less data: minutes become one, and figures rougher.")
@click.option("--size", "size_mib", type=click.IntRange(16), help="MiB of the large file; 1024, or 256 with --quick.")
@click.option(
    "--only",
    type=click.Choice([workload.name for workload in WORKLOADS]),
    multiple=True,
    help="This workload; may be repeated.",
)
@click.option("--without", type=click.Choice(ALL), multiple=True, help="Leave this contender out; may be repeated.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), default=Path("build/bench.json"))
@click.option("--fill-memory", is_flag=True, help="Fill free memory with pages that can be reclaimed: see memory.py.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where data and caches lie, on a disk; a temporary directory by default.",
)
def main(
    repeats: int,
    quick: bool,
    size_mib: int | None,
    only: Sequence[str],
    without: Sequence[str],
    json_path: Path,
    fill_memory: bool,
    directory: Path | None,
) -> None:
    """Run, and take everything down again, however it ends."""
    sizes = QUICK if quick else Sizes()
    if size_mib is not None:
        sizes = dataclasses.replace(sizes, big_bytes=size_mib * MIB)
    workloads = [workload for workload in WORKLOADS if not only or workload.name in only]
    names = [name for name in ALL if name not in without]
    handle_signals(exit_on(_console))
    try:
        if os.geteuid() != 0:
            raise SetupError("mounting, and setting a mount's read-ahead, needs root: sudo make bench")
        with contextlib.ExitStack() as stack:
            try:
                bench = Bench(stack, Data(sizes), workloads, names, repeats, directory)
                results = bench.run(fill_memory=fill_memory)
            finally:
                # Teardown takes seconds, and an impatient second Ctrl-C would leave the rest behind.
                handle_signals(signal.SIG_IGN)
    except _FAILURES as e:
        _console.print(f"\n[bold red]failed:[/] {escape(str(e))}", soft_wrap=True)
        sys.exit(1)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    report.show(_console, results, workloads, names)
    _console.print(f"\nall readings: {json_path}", markup=False)


class Bench:
    """One run. Whatever it starts is put on `stack` at once."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        data: Data,
        workloads: Sequence[Workload],
        names: Sequence[str],
        repeats: int,
        directory: Path | None,
    ) -> None:
        self._stack = stack
        self._data = data
        self._workloads = workloads
        self._names = names
        self._repeats = repeats
        self._directory = directory
        self._notes: list[str] = []
        self._samples: list[report.Sample] = []
        self._peaks: dict[str, int] = {}
        self._datanode_pid = 0
        self._hdfs: LocalHdfs | None = None

    def run(self, *, fill_memory: bool) -> report.Results:
        """Everything but the report.

        Raises:
            WrongBytesError: a contender delivered other bytes than were written.
            ContenderError, LocalHdfsError, HdfsFuseError: something did not work.
        """
        place = tempfile.TemporaryDirectory(prefix="hdfs-csi-bench-", dir=self._directory)
        work = Path(self._stack.enter_context(place))
        with _console.status("starting HDFS"):
            hdfs = self._stack.enter_context(LocalHdfs(directory=work / "hdfs"))
        self._hdfs = hdfs
        identity = hdfs.datanodes[0].identity
        assert identity is not None
        self._datanode_pid = identity.pid
        local = work / "local"
        local.mkdir()
        self._put_data(hdfs, local)
        filler = self._stack.enter_context(MemoryFiller(work / "sparse")) if fill_memory else None
        contenders = self._contenders(hdfs, work, local)
        self._verify(contenders)
        self._measure(contenders, filler)
        return report.Results(
            self._samples,
            [self._service(contender) for contender in contenders if contender.has_cache],
            report.machine(),
            {"repeats": str(self._repeats), "sizes": str(self._data.sizes), "fill memory": str(fill_memory)},
            self._notes,
        )

    def _put_data(self, hdfs: LocalHdfs, local: Path) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=_console) as progress:
            written = progress.add_task("data, local and in HDFS", total=2 * self._data.size_bytes)
            made = progress.add_task("directory entries", total=self._data.sizes.entries)
            self._data.put(hdfs.uri, local, lambda n: progress.advance(written, n), lambda n: progress.advance(made, n))

    # --- contenders ---

    def _contenders(self, hdfs: LocalHdfs, work: Path, local: Path) -> list[Contender]:
        """All that were asked for and can be had; what is missing is noted."""
        root = f"{hdfs.uri}{ROOT}"
        supervisor = Supervisor(str(work / "run"), str(work / "daemons.log"))
        self._stack.callback(supervisor.close)
        config = MountConfig(uri=root, hadoop_conf_dir=str(hdfs.conf_dir))
        arrow = self._arrow_environment(hdfs)
        # The supervisor hands its own environment to the daemons.
        os.environ.update(arrow)
        found: list[Contender] = []

        def add(contender: Contender) -> None:
            self._stack.callback(contender.close)
            found.append(contender)

        for name in self._names:
            if name == RAW:
                add(Client(RAW, "native", root, hdfs.environment))
            elif name == RAW_ARROW and arrow:
                add(Client(RAW_ARROW, "arrow", root, arrow))
            elif name == MOUNT:
                add(OurMount(MOUNT, work / "ours", supervisor, config))
            elif name == MOUNT_ARROW and arrow:
                arrow_config = msgspec.structs.replace(config, backend="pyarrow")
                add(OurMount(MOUNT_ARROW, work / "ours-pyarrow", supervisor, arrow_config))
            elif name == RCLONE and shutil.which("rclone"):
                add(Rclone(work / "rclone", root, pwd.getpwuid(os.getuid()).pw_name))
            elif name == RCLONE:
                self._notes.append("rclone is missing: apt-get install rclone")
            elif name == LOCAL:
                add(Local(local))
        return found

    def _arrow_environment(self, hdfs: LocalHdfs) -> dict[str, str]:
        if RAW_ARROW not in self._names and MOUNT_ARROW not in self._names:
            return {}
        try:
            return libhdfs_environment(hdfs)
        except SetupError as e:
            self._notes.append(f"pyarrow is left out: {e}")
            return {}

    def _service(self, contender: Contender) -> report.Service:
        return report.Service(
            contender.name,
            contender.mount_s,
            [memory.resident for memory in contender.idle],
            [memory.mapped for memory in contender.idle],
            self._peaks.get(contender.name, 0) + max(memory.mapped for memory in contender.idle),
        )

    # --- measuring ---

    def _verify(self, contenders: Sequence[Contender]) -> None:
        """Compare every contender's bytes with those written, from HDFS and then from its cache; warms up, too."""
        data = self._data
        again = [*data.images, *data.shards[:_SHARDS_VERIFIED]]
        with _progress(len(contenders), "compare checksums") as advance:
            for contender in contenders:
                contender.become_cold(list(data.checksums))
                self._compare(contender, [data.big, *again])
                if contender.has_cache:
                    contender.drop_pages(again)
                    self._compare(contender, again)
                advance(f"checksums: {contender.name}")

    def _compare(self, contender: Contender, paths: list[str]) -> None:
        digests = contender.do(jobs.Digest(paths)).answer.digests
        wrong = [path for path in paths if digests.get(path) != self._data.checksums[path]]
        if wrong:
            raise WrongBytesError(f"{contender.name}: {len(wrong)} files have other bytes: {', '.join(wrong[:3])}")

    def _measure(self, contenders: Sequence[Contender], filler: MemoryFiller | None) -> None:
        steps = [(workload, step) for workload in self._workloads for step in workload.steps]
        total = self._repeats * sum(step.needs(contender) for _, step in steps for contender in contenders)
        with _progress(total, "measure") as advance:
            for repetition in range(self._repeats):
                # Nobody is always the one who comes after the same other one.
                turn = repetition % len(contenders)
                order = [*contenders[turn:], *contenders[:turn]]
                for workload, step in steps:
                    for contender in order:
                        if step.needs(contender):
                            self._take(workload, step, contender, repetition, filler)
                            advance(f"{workload.name}, {step.name}: {contender.name}")

    def _take(
        self, workload: Workload, step: Step, contender: Contender, repetition: int, filler: MemoryFiller | None
    ) -> None:
        # The same numbers for all contenders of a step, so that they read the same places in the same order.
        context = Context(self._data, random.Random(f"{workload.name} {step.name} {repetition}"))
        step.prepare(contender, context)
        context = Context(self._data, random.Random(f"{workload.name} {step.name} {repetition} timed"))
        if filler is not None:
            filler.top_up()
        before = read_bytes_of(self._datanode_pid)
        use = contender.do(step.job(context))
        datanode_bytes = read_bytes_of(self._datanode_pid) - before
        late_s = self._settle(contender, use.answer.written)
        hdfs_bytes = datanode_bytes if use.hdfs_bytes is None else use.hdfs_bytes
        # What is not mapped files; kept apart from them, since those are the cache.
        self._peaks[contender.name] = max(self._peaks.get(contender.name, 0), use.daemon_anonymous_bytes)
        self._samples.append(
            report.Sample(
                workload=workload.name,
                step=step.name,
                contender=contender.name,
                repetition=repetition,
                unit=step.unit.value,
                value=value_of(step.unit, use, hdfs_bytes, late_s),
                duration_s=use.answer.duration_s,
                count=use.answer.count,
                size_bytes=use.answer.size_bytes,
                client_cpu_s=use.answer.cpu_s,
                daemon_cpu_s=use.daemon_cpu_s,
                daemon_anonymous_bytes=use.daemon_anonymous_bytes,
                daemon_resident_bytes=use.daemon_resident_bytes,
                datanode_bytes=datanode_bytes,
                hdfs_bytes=use.hdfs_bytes,
                read_bytes=use.read_bytes,
                late_s=late_s,
                doubt="" if contender.name == LOCAL else doubt_about(step.source, use, datanode_bytes),
            )
        )

    def _settle(self, contender: Contender, written: Mapping[str, int]) -> float:
        """Wait until HDFS has what was written, and take it away; how long after the client was told, in seconds."""
        if contender.name == LOCAL or not written:
            return 0.0
        assert self._hdfs is not None
        started, late_s = time.perf_counter(), 0.0
        while missing := [path for path, size_bytes in written.items() if self._length(path) != size_bytes]:
            late_s = time.perf_counter() - started
            if late_s > _LATEST_S:
                raise ContenderError(f"{contender.name}: HDFS never got {missing[0]}")
            time.sleep(_POLL_S)
        self._hdfs.webhdfs("PUT", _ASIDE, "MKDIRS")
        for path, size_bytes in written.items():
            if size_bytes > SMALL_BYTES:
                self._hdfs.webhdfs("DELETE", f"{ROOT}/{path}", "DELETE")
            else:  # see lay_aside: the DataNode's disk is the same
                self._hdfs.webhdfs("PUT", f"{ROOT}/{path}", "RENAME", destination=f"{_ASIDE}/{secrets.token_hex(8)}")
        return late_s

    def _length(self, path: str) -> int | None:
        assert self._hdfs is not None
        try:
            status = self._hdfs.webhdfs("GET", f"{ROOT}/{path}", "GETFILESTATUS")["FileStatus"]
        except LocalHdfsError:
            return None
        length: int = status["length"]
        return length


@contextlib.contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[str], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(what, total=total)

        def advance(description: str) -> None:
            progress.update(task, advance=1, description=description)

        yield advance


if __name__ == "__main__":
    main()
