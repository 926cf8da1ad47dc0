"""`make demo`: what the driver does for a pod, on this machine, with nothing simulated but the kubelet.

A real HDFS is started and a data set put into it. Real `hdfs-csi controller` and `hdfs-csi node` processes serve CSI
on unix sockets, and this program makes the calls that Kubernetes would make: a volume for an existing data set, and
one that a claim creates. The files are then read where a pod would see them, and written, and every byte is checked.

    KEEP=1 make demo      leaves everything running, to look around, until Ctrl-C
"""

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import grpc
import hdfs_native
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.errors import HdfsFuseError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.csi.driver import DriverProcess
from tests.e2e.pod import READERS, WRITERS, Pod, PodError, Reading, end_mounts
from tests.support.cache import SetupError
from tests.support.dataset import GIB, MIB, DataFile, images, shards, upload
from tests.support.local_hdfs import LocalHdfs, LocalHdfsError
from tests.support.signals import exit_on, handle_signals

DATA = "/datasets/animals"
CLAIMS = "/volumes"
# A pod's process that is not root: "nobody" of most systems.
NOBODY = 65534
THREADS = 16
CHECKPOINT = DataFile("model.ckpt", 32 * MIB)


_console = Console(highlight=False)


class DemoError(RuntimeError):
    """Something is not as it must be; the message says what."""


# What can be expected to go wrong; a process that does not start is an AssertionError of wait_until.
_FAILURES = (DemoError, PodError, SetupError, LocalHdfsError, AssertionError, HdfsFuseError, grpc.RpcError)


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--images", "image_count", type=click.IntRange(1), default=2000, show_default=True, help="4 KiB each.")
@click.option("--big-mib", type=click.IntRange(1), default=1024, show_default=True, help="Size of the one large file.")
@click.option("--keep/--no-keep", envvar="KEEP", default=False, help="Leave it all running until Ctrl-C.")
def main(image_count: int, big_mib: int, keep: bool) -> None:
    """Parse options, and turn what can be expected to go wrong into one line and exit status 1."""
    handle_signals(exit_on(_console))
    started = time.monotonic()
    try:
        if os.geteuid() != 0:
            raise DemoError("a node service mounts filesystems, so this needs root: sudo make demo")
        with contextlib.ExitStack() as stack:
            try:
                Demo(stack, [*images(image_count), *shards(1, big_mib * MIB)]).run(keep=keep)
            finally:
                # Teardown takes seconds, and an impatient second Ctrl-C would leave the rest behind.
                handle_signals(signal.SIG_IGN)
    except _FAILURES as e:
        _console.print(f"\n[bold red]failed:[/] {escape(str(e))}", soft_wrap=True)
        sys.exit(1)
    _console.print(f"\n[bold green]done[/] in {time.monotonic() - started:.0f} s; nothing is left mounted or running")


class Demo:
    """One run. Everything that it starts is put on `stack` before anything else can fail."""

    def __init__(self, stack: contextlib.ExitStack, files: Sequence[DataFile]) -> None:
        self._stack = stack
        self._files = files
        self._images = [file for file in files if file.path.endswith(".pgm")]
        self._big = [file for file in files if not file.path.endswith(".pgm")]
        self._results: dict[str, list[Reading]] = {}
        self._mount_s: list[float] = []
        self._step = 0

    def run(self, *, keep: bool) -> None:
        """All steps, in order.

        Raises:
            DemoError, PodError: something is not as it must be.
        """
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hdfs-csi-demo-")))
        hdfs = self._start_hdfs()
        checksums = self._put_data(hdfs)
        controller, node = self._start_driver(hdfs, directory)

        self._say("a claim: CreateVolume makes a directory below the base path of the StorageClass")
        claimed = self._create_volume(controller, hdfs)
        self._say("an existing data set: a PersistentVolume that names its path; nothing to create")
        existing = csi.Volume(volume_id="animals", volume_context={"uri": f"{hdfs.uri}{DATA}"})

        pod = Pod(directory, "animals", existing, READERS, node)
        self._mount(pod)
        self._read_cold(pod, checksums)
        self._read_warm(pod, checksums)
        claim = self._use_claim(hdfs, directory, claimed, node)
        self._show_results()
        if keep:
            self._stay(hdfs, controller, node, pod, claim)
        self._say("the pod ends: NodeUnpublishVolume, NodeUnstageVolume, DeleteVolume")
        for used in (pod, claim):
            used.unpublish()
            used.unstage()
        controller.client.call(csi.DeleteVolumeRequest(volume_id=claimed.volume_id))
        self._check_deleted(hdfs, claimed)
        self._say("take everything down")

    # --- steps ---

    def _start_hdfs(self) -> LocalHdfs:
        self._say("start HDFS: a NameNode and a DataNode")
        hdfs = LocalHdfs(datanodes=1)
        with _console.status("starting"):
            self._stack.enter_context(hdfs)
        self._detail(f"{hdfs.uri}, WebHDFS {hdfs.namenode_http}")
        return hdfs

    def _put_data(self, hdfs: LocalHdfs) -> dict[str, str]:
        big_bytes = sum(file.size_bytes for file in self._big)
        self._say(
            f"put a data set there: {len(self._images)} images of 4 KiB and one file of {big_bytes / GIB:.3g} GiB"
        )
        with _progress() as progress:
            # In two bars, since a small file costs HDFS as much time as megabytes of a large one.
            large = progress.add_task("large file", total=big_bytes)
            checksums = upload(hdfs.uri, DATA, self._big, lambda n: progress.advance(large, n))
            small = progress.add_task("images", total=sum(file.size_bytes for file in self._images))
            checksums |= upload(hdfs.uri, DATA, self._images, lambda n: progress.advance(small, n))
        self._detail(f"{hdfs.uri}{DATA}")
        return checksums

    def _start_driver(self, hdfs: LocalHdfs, directory: Path) -> tuple[DriverProcess, DriverProcess]:
        self._say("start the driver: hdfs-csi controller and hdfs-csi node, each on a unix socket")
        options = [
            "--node-id",
            "demo",
            "--runtime-dir",
            str(directory / "run"),
            "--cache-dir",
            str(directory / "cache"),
        ]
        # Called when both processes have ended, and with them all calls: mounts outlive the node service.
        self._stack.callback(end_mounts, directory)
        controller = DriverProcess("controller", directory, hdfs.environment)
        node = DriverProcess("node", directory, hdfs.environment, *options)
        with _console.status("starting"):
            for process in (controller, node):
                self._stack.callback(process.__exit__)
                process.start()
        info = node.client.call(csi.GetPluginInfoRequest())
        self._detail(f"{info.name} {info.vendor_version}: {controller.socket}, {node.socket}")
        return controller, node

    def _create_volume(self, controller: DriverProcess, hdfs: LocalHdfs) -> csi.Volume:
        request = csi.CreateVolumeRequest(
            name="pvc-demo",
            volume_capabilities=[WRITERS],
            # Room for more than it holds: HDFS counts a whole block for each of the files that are just being written.
            capacity_range=csi.CapacityRange(required_bytes=8 * GIB),
            parameters={"uri": f"{hdfs.uri}{CLAIMS}", "mode": "0775"},
        )
        created: csi.Volume = controller.client.call(request).volume
        self._detail(f"volume id {created.volume_id}, {created.volume_context['uri']}")
        return created

    def _mount(self, pod: Pod) -> None:
        self._say("NodeStageVolume mounts it once for the node, NodePublishVolume shows it to a pod")
        stage_s, publish_s = pod.stage(), pod.publish()
        self._mount_s.append(stage_s)
        self._detail(f"{pod.target}: staged in {stage_s:.2f} s, published in {publish_s * 1000:.0f} ms")

    def _read_cold(self, pod: Pod, checksums: dict[str, str]) -> None:
        self._say(f"read everything for the first time: from HDFS, images by {THREADS} threads")
        self._read(pod, "cold, from HDFS")
        if pod.statistics()["hdfs_bytes"] < sum(file.size_bytes for file in self._files):
            raise DemoError("the first reading was to come from HDFS, and did not")
        self._say(f"compare {len(checksums)} checksums with those of the upload, as user {NOBODY} (sha256sum)")
        self._detail(pod.verify(checksums, NOBODY))
        self._say("read it again: from the kernel's page cache, as the next epoch of the same pod does")
        self._read(pod, "again, page cache")

    def _read_warm(self, pod: Pod, checksums: dict[str, str]) -> None:
        self._say("the pod goes, another comes: unpublish and unstage, then stage and publish; the node's cache stays")
        pod.unpublish()
        pod.unstage()
        self._mount_s.append(pod.stage())
        pod.publish()
        self._read(pod, "new pod, block cache")
        fetched = pod.statistics()["hdfs_bytes"]
        if fetched:
            raise DemoError(f"the node's block cache had everything, yet {fetched} bytes came from HDFS")
        self._detail("0 bytes came from HDFS; compare the checksums once more")
        self._detail(pod.verify(checksums))

    def _use_claim(self, hdfs: LocalHdfs, directory: Path, volume: csi.Volume, node: DriverProcess) -> Pod:
        self._say("the claim's volume: data come in through HDFS, the pod sees them")
        root = volume.volume_context["uri"].removeprefix(hdfs.uri)
        checksums = upload(hdfs.uri, root, images(32, "results"), lambda _: None)
        claim = Pod(directory, "claim", volume, WRITERS, node)
        self._mount_s.append(claim.stage())
        claim.publish()
        self._detail(claim.verify(checksums, NOBODY))
        self._say(f"the pod writes a checkpoint of {CHECKPOINT.size_bytes // MIB} MiB, as user {NOBODY}; HDFS has it")
        content = b"".join(CHECKPOINT.content())
        seconds = claim.save(CHECKPOINT.path, content, NOBODY)
        with hdfs_native.Client(hdfs.uri).read(f"{root}/{CHECKPOINT.path}") as stored:
            if bytes(stored.read()) != content:
                raise DemoError(f"{root}/{CHECKPOINT.path} has not the bytes that the pod wrote")
        self._detail(f"{root}/{CHECKPOINT.path}: written in {seconds:.2f} s, read from HDFS and compared")
        return claim

    def _check_deleted(self, hdfs: LocalHdfs, volume: csi.Volume) -> None:
        name = volume.volume_context["uri"].rpartition("/")[2]
        listing = hdfs.webhdfs("GET", CLAIMS, "LISTSTATUS")["FileStatuses"]["FileStatus"]
        if name in [entry["pathSuffix"] for entry in listing]:
            raise DemoError(f"{CLAIMS}/{name} is still there after DeleteVolume")
        kept = len(hdfs.webhdfs("GET", DATA, "LISTSTATUS")["FileStatuses"]["FileStatus"])
        if not kept:
            raise DemoError(f"{DATA} was nobody's to delete, and is empty")
        self._detail(f"the claim's directory is gone, {DATA} is untouched")

    def _stay(self, hdfs: LocalHdfs, controller: DriverProcess, node: DriverProcess, pod: Pod, claim: Pod) -> None:
        ending: list[int] = []  # no Event: its set() in a handler can meet its own wait()
        handle_signals(lambda number, _: ending.append(number))
        _console.print(
            f"""
[bold]Everything stays up.[/]
  data set     {pod.target}
  claim        {claim.target}
  CSI sockets  {controller.socket}
               {node.socket}
  node's log   {node.daemon.log}
  HDFS         {hdfs.uri}
               export HADOOP_CONF_DIR={hdfs.conf_dir}
To end it: Ctrl-C here, or: kill {os.getpid()}""",
            soft_wrap=True,
        )
        while not ending:
            time.sleep(0.1)
        handle_signals(exit_on(_console))
        _console.print()

    # --- telling ---

    def _read(self, pod: Pod, what: str) -> None:
        readings = [pod.read(self._images, THREADS), pod.read(self._big, 1)]
        self._results[what] = readings
        self._detail(f"images by {THREADS} threads: {readings[0].rate}, large file: {readings[1].rate}")

    def _show_results(self) -> None:
        table = Table(title="\nWhat a pod saw, on a machine that runs HDFS as well", title_justify="left")
        table.add_column("")
        table.add_column(f"{len(self._images)} images, {THREADS} threads", justify="right")
        table.add_column(f"one file of {self._big[0].size_bytes / GIB:.3g} GiB", justify="right")
        for what, readings in self._results.items():
            table.add_row(what, *(reading.rate for reading in readings))
        _console.print(table)
        seconds = ", ".join(f"{s:.2f} s" for s in self._mount_s)
        self._detail(f"mounting (NodeStageVolume, a process each) took {seconds}")

    def _say(self, what: str) -> None:
        self._step += 1
        _console.print(f"[bold cyan]{self._step:2}[/] [bold]{what}[/]", soft_wrap=True)

    @staticmethod
    def _detail(text: str) -> None:
        _console.print(f"   {text}", soft_wrap=True, markup=False)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("   {task.description:<10}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_console) as progress:
        yield progress


if __name__ == "__main__":
    main()
