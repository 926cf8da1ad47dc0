"""Controller and node as processes against a model: on a real HDFS, with real mounts, any of them killed at any moment.

A CO and pods send orders, alone or several at once, while SIGKILL hits the process that is asked, the daemon of a
mount, or an uploader. What was cut short is repeated, now or later, or given up. In the end HDFS and mountinfo hold
exactly what the model has, what was acknowledged is there byte for byte, and once all is removed nothing is left.
"""

import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_fuse.config import split_uri
from hdfs_fuse.hidden import is_hidden
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.csi.driver import DriverProcess, bounded
from tests.csi.nodes import running_node
from tests.csi.pods import Pod, mounts_below, read, remove_mount
from tests.csi.volumes import GIB, Mode, capability, capacity, names, read_at_once, read_file
from tests.model.orders import UNDISTURBED, Moment, Order, Processes, write
from tests.support.local_hdfs import LocalHdfs, LocalHdfsError
from tests.support.waiting import wait_until

T = TypeVar("T")

# Of 10 s each, about; more find more.
EXAMPLES, STEPS = int(os.environ.get("EXAMPLES", "0")), 40

WRITER, READER = capability(Mode.MULTI_NODE_MULTI_WRITER), capability(Mode.MULTI_NODE_READER_ONLY)
# Orders that make another one pointless: that is not repeated any more.
GIVES_UP = {
    "DeleteVolumeRequest": "CreateVolumeRequest",
    "NodeStageVolumeRequest": "NodeUnstageVolumeRequest",
    "NodeUnstageVolumeRequest": "NodeStageVolumeRequest",
    "NodePublishVolumeRequest": "NodeUnpublishVolumeRequest",
    "NodeUnpublishVolumeRequest": "NodePublishVolumeRequest",
}
NODE = "NodeStageVolumeRequest", "NodeUnstageVolumeRequest", "NodePublishVolumeRequest", "NodeUnpublishVolumeRequest"

volume_names = st.sampled_from(["a", "b", "c"])
sizes = st.sampled_from([0, GIB, 2 * GIB])
numbers = st.integers(0, 99)
contents = st.builds(lambda byte, size: bytes([byte]) * size, st.integers(65, 90), st.sampled_from([1, 5000, 300_000]))
moments = st.builds(
    Moment,
    waits=st.sampled_from([False, False, True]),
    is_twice=st.sampled_from([False, False, True]),
    victim=st.sampled_from(["", "", "driver", "driver", "driver", "daemon", "daemon", "uploader"]),
    per_mille=st.integers(0, 1000),
    is_repeated=st.booleans(),
)


def step(do: str, **details: st.SearchStrategy[Any]) -> st.SearchStrategy["Step"]:
    return st.builds(Step, st.just(do), st.fixed_dictionaries(details))


@dataclass(frozen=True)
class Step:
    """A method of Orders, and what it is told."""

    do: str
    details: dict[str, Any]


# Not rules of their own: an example would leave some of them out (swarm testing), and has too few steps for that.
steps = st.one_of(
    step("create", name=volume_names, size=sizes, source=numbers, is_view=st.booleans(), moment=moments),
    step("delete", number=numbers, moment=moments),
    step("expand", number=numbers, size=st.sampled_from([GIB, 2 * GIB, 3 * GIB]), moment=moments),
    step("take_snapshot", name=st.sampled_from(["s", "t"]), number=numbers, moment=moments),
    step("delete_snapshot", number=numbers, moment=moments),
    step("stage", number=numbers, moment=moments),
    step("publish", number=numbers, at=st.integers(0, 1), readonly=st.booleans(), moment=moments),
    step("unpublish", number=numbers, moment=moments),
    step("unstage", number=numbers, moment=moments),
    step(
        "write",
        number=numbers,
        file=st.sampled_from(["x", "y"]),
        synced=st.just(b"") | contents,
        last=contents,
        moment=moments,
    ),
    step("look", number=numbers),
    step("repeat", number=numbers),
)


@dataclass(frozen=True)
class Version:
    """What a file may hold: at least what was acknowledged, and at most what was written.

    Attributes:
        least: its front; None where the file need not be there.
        most: all of it.
    """

    least: bytes | None
    most: bytes

    def fits(self, found: bytes | None) -> bool:
        if found is None or self.least is None:
            return found is self.least
        return found.startswith(self.least) and self.most.startswith(found)


ABSENT = Version(None, b"")
Files = dict[str, bytes]


@dataclass(eq=False)
class Volume:
    """What the model knows of one.

    Attributes:
        request: that made it, and the answer.
        source: name of the volume or `@` and name of the snapshot that it was made from; empty for none.
        files: what each may hold; one version where that is sure.
        targets: where it is published; whether read-only.
        is_suspect: a daemon was killed since it was published.
    """

    name: str
    request: csi.CreateVolumeRequest
    made: csi.Volume
    size: int
    source: str
    is_view: bool
    files: dict[str, list[Version]]
    is_staged: bool = False
    targets: dict[int, bool] = field(default_factory=dict)
    is_suspect: bool = False

    @property
    def path(self) -> str:
        """In HDFS."""
        return split_uri(self.made.volume_context["uri"]).path

    @property
    def capability(self) -> csi.VolumeCapability:
        return READER if self.is_view else WRITER


@dataclass
class Snapshot:
    volume: str
    made: csi.Snapshot
    files: Files


class Orders(RuleBasedStateMachine):
    """Orders to a controller and a node, and what HDFS and the node hold afterwards.

    What is drawn does not depend on what there is, since that depends on when a kill hit. So a step names what it is
    about by a number, and one that finds nothing of its kind does nothing.
    """

    processes: Processes  # set by `run`
    examples = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.hdfs = self.processes.hdfs
        number = next(self.examples)
        self.base = f"/model-{number}"
        self.uri = f"{self.hdfs.uri}{self.base}"
        self.directory = self.processes.directory / f"kubelet-{number}"
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.waiting: list[Order] = []
        self.pending: list[Order] = []
        self.victim, self.is_hurt = "", False
        self.killed: set[str] = set()

    @initialize()
    def begin(self) -> None:
        """Rules that need all of this at once would rarely come to it."""
        self.create("a", GIB, 0, is_view=False, moment=UNDISTURBED)
        self.stage(0, UNDISTURBED)
        self.publish(0, 0, readonly=False, moment=UNDISTURBED)
        self.write(0, "x", b"", b"first", UNDISTURBED)

    @rule(step=steps)
    def act(self, step: Step) -> None:
        method = getattr(self, step.do)
        method(**step.details)

    @invariant()
    def nothing_is_mounted_over_another_mount(self) -> None:
        points = [mount.point for mount in mounts_below(self.directory)]
        assert len(points) == len(set(points)), sorted(points)

    # ---- sending

    def order(self, make: Callable[[], Order | None], moment: Moment) -> None:
        """Send what `make` makes of the model, when what is in its way is done; nothing where it makes nothing."""
        while (order := make()) is not None and self.clear_the_way(order):
            pass
        if order is None:
            return
        self.pending = [other for other in self.pending if not gives_up(order, other)]
        self.waiting.append(order)
        if not moment.waits:
            self.send(moment)

    def clear_the_way(self, order: Order) -> bool:
        """Finish what must come before `order`; whether there was something."""
        first = [other for other in self.pending if order.conflicts(other) and not gives_up(order, other)]
        for other in first:
            self.finish(other)
        is_disturbed = any(order.disturbs(other) for other in self.waiting)
        if is_disturbed:
            self.send(UNDISTURBED)
        return bool(first) or is_disturbed

    def send(self, moment: Moment) -> None:
        orders, self.waiting = self.waiting, []
        if not orders:
            return
        self.victim, self.is_hurt = moment.victim, moment.victim == "daemon"
        self.killed.add(moment.victim)
        attempts = self.processes.send(orders, moment)
        if self.is_hurt:
            for volume in self.volumes.values():
                volume.is_suspect = True
        for order, outcomes in zip(orders, attempts, strict=True):
            final = [outcome for outcome in outcomes if outcome.code is order.expected]
            if not self.is_hurt:
                for outcome in outcomes:
                    order.check(outcome)
            if final:
                order.done(final[0].answer)
            elif moment.is_repeated:
                order.done(order.repeat().answer)
            else:
                self.pending.append(order)

    def finish(self, order: Order) -> None:
        self.pending.remove(order)
        order.done(order.repeat().answer)

    def rpc(self, request: Message, about: Iterable[str], done: Callable[[Any], None], **more: Any) -> Order:
        kind = type(request).__name__
        service = "node" if kind in NODE else "controller"
        keeps, reads = frozenset(more.pop("keeps", ())), frozenset(more.pop("reads", ()))
        send = self.processes.rpc(service, request)
        return Order(kind, service, frozenset(about), keeps, send, done, reads=reads, **more)

    # ---- orders to the controller

    def create(self, name: str, size: int, source: int, is_view: bool, moment: Moment) -> None:
        self.order(lambda: self.make_create(name, size, source, is_view=is_view), moment)

    def make_create(self, name: str, size: int, number: int, *, is_view: bool) -> Order:
        known = self.volumes.get(name)
        if known is not None:  # its answer was lost on the way
            keeps = [known.source] if known.source else []
            return self.rpc(
                known.request, [name], lambda answer: self.same(answer.volume, known.made), keeps=keeps
            )  # also where its source has gone since
        sources = ["", *sorted(v.name for v in self.own()), *sorted(f"@{s}" for s in self.snapshots)]
        source = sources[number % len(sources)]
        is_view = is_view and bool(source)
        request = csi.CreateVolumeRequest(
            name=name,
            parameters={"uri": self.uri, "metadataTtlSeconds": "1"},
            volume_capabilities=[READER if is_view else WRITER],
            capacity_range=capacity(size),
        )
        if source.startswith("@"):
            request.volume_content_source.snapshot.snapshot_id = f"{self.uri}{source}"
        elif source:
            request.volume_content_source.volume.volume_id = f"{self.uri}#{source}"
        seen: list[Files] = []
        send = self.noting(source, seen)

        def done(answer: Any) -> None:
            made = answer.volume
            assert made.volume_id == f"{self.uri}#{name}"
            volume = Volume(name, request, made, size, source, is_view, {})
            found = self.contents(volume.path)
            assert found in seen, f"{name} holds {shown(found)}, made from {list(map(shown, seen))}"
            volume.files = sure(found)
            self.volumes[name] = volume

        keeps = [source] if source else []
        order = self.rpc(request, [name], done, keeps=keeps, reads=[f"files of {source}"])
        order.send = send(order.send)
        return order

    def noting(self, source: str, seen: list[Files]) -> Callable[[Callable[[], T]], Callable[[], T]]:
        """Have each attempt note what its source holds just then."""

        def content() -> Files:
            if source.startswith("@"):
                return self.snapshots[source[1:]].files
            return self.observe(self.volumes[source]) if source else {}

        def wrap(send: Callable[[], T]) -> Callable[[], T]:
            def attempt() -> T:
                seen.append(content())
                return send()

            return attempt

        return wrap

    def delete(self, number: int, moment: Moment) -> None:
        def make() -> Order | None:
            name = pick(self.removable(), number)
            if name is None:
                return None
            kept_by = self.kept_by(name)

            def done(_: Any) -> None:
                if not kept_by:
                    self.volumes.pop(name, None)

            request = csi.DeleteVolumeRequest(volume_id=f"{self.uri}#{name}")
            expected = StatusCode.FAILED_PRECONDITION if kept_by else StatusCode.OK
            about = [name, f"{name} on the node", f"files of {name}"]
            return self.rpc(request, about, done, keeps=kept_by, expected=expected)

        self.order(make, moment)

    def expand(self, number: int, size: int, moment: Moment) -> None:
        def make() -> Order | None:
            volume = pick(self.own(), number)
            if volume is None:
                return None

            def done(answer: Any) -> None:
                volume.size = max(volume.size, size)
                assert answer.capacity_bytes == volume.size

            request = csi.ControllerExpandVolumeRequest(
                volume_id=volume.made.volume_id, capacity_range=capacity(max(size, volume.size))
            )
            return self.rpc(request, [volume.name], done)

        self.order(make, moment)

    def take_snapshot(self, name: str, number: int, moment: Moment) -> None:
        self.order(lambda: self.make_snapshot(name, number), moment)

    def make_snapshot(self, name: str, number: int) -> Order | None:
        volume = pick(self.own(), number)
        if volume is None:
            return None
        known = self.snapshots.get(name)
        source = volume.name if known is None else known.volume
        request = csi.CreateSnapshotRequest(name=name, source_volume_id=f"{self.uri}#{source}")
        if known is not None:
            return self.rpc(
                request, [f"@{name}"], lambda answer: self.same(answer.snapshot, known.made), keeps=[source]
            )
        seen: list[Files] = []
        send = self.noting(source, seen)

        def done(answer: Any) -> None:
            assert answer.snapshot.snapshot_id == f"{self.uri}@{name}"
            found = self.contents(f"{self.base}/{source}/.snapshot/{name}")
            assert found in seen, f"snapshot {name} holds {shown(found)}, made of {list(map(shown, seen))}"
            self.snapshots[name] = Snapshot(source, answer.snapshot, found)

        order = self.rpc(request, [f"@{name}"], done, keeps=[source], reads=[f"files of {source}"])
        order.send = send(order.send)
        return order

    def delete_snapshot(self, number: int, moment: Moment) -> None:
        def make() -> Order | None:
            name = pick(sorted(self.snapshots), number)
            if name is None:
                return None
            users = self.views_of(f"@{name}")

            def done(_: Any) -> None:
                if not users:
                    del self.snapshots[name]

            request = csi.DeleteSnapshotRequest(snapshot_id=f"{self.uri}@{name}")
            expected = StatusCode.FAILED_PRECONDITION if users else StatusCode.OK
            return self.rpc(request, [f"@{name}"], done, keeps=users, expected=expected)

        self.order(make, moment)

    # ---- orders to the node

    def pod(self, volume: Volume, target: int = 0) -> Pod:
        place = self.directory / volume.name
        return Pod(place / "globalmount", place / f"pod-{target}" / "mount")

    def stage(self, number: int, moment: Moment) -> None:
        def make() -> Order | None:
            volume = pick(self.sorted(), number)
            if volume is None:
                return None
            pod = self.pod(volume)
            pod.staging.mkdir(parents=True, exist_ok=True)

            def done(_: Any) -> None:
                volume.is_staged = True

            return self.rpc(
                pod.stage(volume.made, volume.capability), on_node(volume), done, keeps=[f"mount of {volume.name}"]
            )

        self.order(make, moment)

    def publish(self, number: int, at: int, readonly: bool, moment: Moment) -> None:
        def make() -> Order | None:
            volume = pick(self.staged(), number)
            if volume is None:
                return None
            asked = volume.targets.get(at, readonly or volume.is_view)
            pod = self.pod(volume, at)
            pod.target.parent.mkdir(parents=True, exist_ok=True)

            def done(_: Any) -> None:
                volume.targets[at] = asked

            request = pod.publish(volume.made, volume.capability, readonly=asked)
            return self.rpc(
                request, [f"{volume.name} at {at}"], done, keeps=[volume.name, f"{volume.name} on the node"]
            )

        self.order(make, moment)

    def unpublish(self, number: int, moment: Moment) -> None:
        def make() -> Order | None:
            found = pick(self.published(), number)
            return None if found is None else self.make_unpublish(*found)

        self.order(make, moment)

    def make_unpublish(self, volume: Volume, target: int) -> Order:
        pod = self.pod(volume, target)

        def done(_: Any) -> None:
            volume.targets.pop(target, None)
            assert not os.path.lexists(pod.target)

        return self.rpc(pod.unpublish(volume.made), [f"{volume.name} at {target}"], done)

    def unstage(self, number: int, moment: Moment) -> None:
        def make() -> Order | None:
            volume = pick(self.unused(), number)
            return None if volume is None else self.make_unstage(volume)

        self.order(make, moment)

    def make_unstage(self, volume: Volume) -> Order:
        pod = self.pod(volume)

        def done(_: Any) -> None:
            volume.is_staged = volume.is_suspect = False
            assert list(pod.staging.iterdir()) == []
            # All that was written is complete: this client reads nothing else.
            for name, content in self.observe(volume).items():
                assert read_file(self.hdfs, f"{volume.path}/{name}") == content

        return self.rpc(pod.unstage(volume.made), on_node(volume), done)

    # ---- what pods do

    def write(self, number: int, file: str, synced: bytes, last: bytes, moment: Moment) -> None:
        def make() -> Order | None:
            found = pick(self.writable(), number)
            if found is None:
                return None
            volume, target = found
            self.mend(volume)

            def done(answer: Any) -> None:
                acknowledged, error = answer
                whole = Version(synced + last, synced + last)
                if "closed" in acknowledged:
                    volume.files[file] = [whole]
                    return
                # open(2) fails with EIO where the uploader dies that is just beginning the file; and with EBUSY after
                # that, as long as HDFS keeps the lease of what it has begun: a minute.
                is_begun = self.victim == "uploader" or ("uploader" in self.killed and "busy" in error)
                is_not_opened = is_begun and not acknowledged
                assert self.is_hurt or is_not_opened, f"{volume.name}/{file}: only {acknowledged}, then {error}"
                front = Version(synced, synced + last) if synced else whole
                before = [] if "synced" in acknowledged else volume.files.get(file, [ABSENT])
                volume.files[file] = [*before, front]

            path = self.pod(volume, target).target / file
            keeps = [f"{volume.name} on the node", f"{volume.name} at {target}"]
            about, send = frozenset({f"files of {volume.name}"}), lambda: write(path, synced, last)
            return Order("write", "pod", about, frozenset(keeps), send, done)

        self.order(make, moment)

    def look(self, number: int) -> None:
        """What was acknowledged shows in the pod."""
        self.send(UNDISTURBED)
        found = pick(self.published(), number)
        if found is None:
            return
        volume, target = found
        self.mend(volume)
        if target not in volume.targets:
            return
        place = self.pod(volume, target).target
        listed = bounded("ls", "-A", str(place))
        assert listed.returncode == 0, listed.stderr
        self.settle(volume, {name: read(place / name) for name in listed.stdout.decode().split()})

    def repeat(self, number: int) -> None:
        """What was cut short a while ago is asked for again."""
        order = pick(self.pending, number)
        if order is not None:
            self.finish(order)

    def mend(self, volume: Volume) -> None:
        """As a kubelet whose pods start again, after a daemon has died."""
        if volume.is_suspect and volume.is_staged:
            orders = [self.rpc(self.pod(volume).stage(volume.made, volume.capability), [], ignore)]
            for target, readonly in volume.targets.items():
                request = self.pod(volume, target).publish(volume.made, volume.capability, readonly=readonly)
                orders.append(self.rpc(request, [], ignore))
            for order in orders:
                order.repeat()
            volume.is_suspect = False

    # ---- the model

    def sorted(self) -> list[Volume]:
        return [self.volumes[name] for name in sorted(self.volumes)]

    def own(self) -> list[Volume]:
        """Those that have a directory of their own."""
        return [volume for volume in self.sorted() if not volume.is_view]

    def staged(self) -> list[Volume]:
        return [volume for volume in self.sorted() if volume.is_staged]

    def published(self) -> list[tuple[Volume, int]]:
        """Also where that was cut short."""
        begun = [(v, t) for v in self.sorted() for t in range(2) if self.is_pending("NodePublish", f"{v.name} at {t}")]
        return begun + [(volume, target) for volume in self.sorted() for target in sorted(volume.targets)]

    def writable(self) -> list[tuple[Volume, int]]:
        return [(v, target) for v in self.own() for target in sorted(v.targets) if not v.targets[target]]

    def unused(self) -> list[Volume]:
        """Those that could be unmounted."""
        return [
            v for v in self.sorted()
            if not v.targets and (v.is_staged or self.is_pending("NodeStage", f"{v.name} on the node"))
        ]  # fmt: skip

    def removable(self) -> list[str]:
        """Names of volumes that no pod uses, and of those that are being made."""
        making = [name for name in ("a", "b", "c") if self.is_pending("CreateVolume", name)]
        return making + [v.name for v in self.sorted() if not v.is_staged]

    def is_pending(self, kind: str, about: str) -> bool:
        return any(order.kind.startswith(kind) and about in order.about for order in self.pending)

    def views_of(self, source: str) -> list[str]:
        return [v.name for v in self.sorted() if v.is_view and v.source == source]

    def snapshots_of(self, name: str) -> list[str]:
        return sorted(snapshot for snapshot, made in self.snapshots.items() if made.volume == name)

    def kept_by(self, name: str) -> list[str]:
        """The snapshots and views for which a volume must stay."""
        return [*(f"@{snapshot}" for snapshot in self.snapshots_of(name)), *self.views_of(name)]

    @staticmethod
    def same(found: Message, known: Message) -> None:
        if isinstance(known, csi.Volume):
            found, known = _without_size(found), _without_size(known)
        assert found == known

    # ---- HDFS

    def contents(self, path: str) -> Files:
        """What another client reads below a directory."""
        shown_names = [name for name in names(self.hdfs, path) if not is_hidden(name)]
        return {name: read_at_once(self.hdfs, f"{path}/{name}") for name in shown_names}

    def observe(self, volume: Volume) -> Files:
        """What HDFS holds of a volume, which is what was acknowledged; from now on that is sure."""
        found = self.contents(volume.path)
        self.settle(volume, found)
        return found

    def settle(self, volume: Volume, found: Files) -> None:
        for name in {*found, *volume.files}:
            versions, content = volume.files.get(name, [ABSENT]), found.get(name)
            assert any(version.fits(content) for version in versions), (
                f"{volume.name}/{name} holds {brief(content)}, expected {versions}"
            )
        volume.files = sure(found)

    def names(self, path: str) -> set[str]:
        try:
            return names(self.hdfs, f"{self.base}/{path}".rstrip("/"))
        except LocalHdfsError as e:
            if "FileNotFound" in str(e) or "not a snapshottable directory" in str(e):
                return set()
            raise

    # ---- the end

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0]:
                traceback.print_exc()
            if sys.exc_info()[0] is None:
                self.send(UNDISTURBED)
                while self.pending:
                    self.finish(self.pending[0])
                for volume in self.volumes.values():
                    self.mend(volume)
                self.check_hdfs()
                self.check_mounts()
                self.remove_all()
                self.check_nothing_left()
        except BaseException:
            print(self.processes.describe())
            raise
        finally:
            self.clean_up()

    def check_hdfs(self) -> None:
        own = {volume.name for volume in self.own()}
        assert self.names("") - {".hdfs-csi"} == own
        assert self.names(".hdfs-csi/making") == set()
        assert self.names(".hdfs-csi/volumes") == {f"{name}.json" for name in self.volumes}
        records = {name for name in self.names(".hdfs-csi/snapshots") if not name.endswith(".users")}
        assert records == {f"{name}.json" for name in self.snapshots}
        for volume in self.sorted():
            self.observe(volume)
            record = json.loads(read_at_once(self.hdfs, f"{self.base}/.hdfs-csi/volumes/{volume.name}.json"))
            assert record["capacityBytes"] == volume.size
        for volume in self.own():
            usage = self.hdfs.webhdfs("GET", volume.path, "GETQUOTAUSAGE")["QuotaUsage"]
            assert usage["spaceQuota"] == (volume.size or -1)
            kept = {*self.snapshots_of(volume.name), *(f"for-{view}" for view in self.views_of(volume.name))}
            assert self.names(f"{volume.name}/.snapshot") == kept
        for name, snapshot in self.snapshots.items():
            assert self.contents(f"{self.base}/{snapshot.volume}/.snapshot/{name}") == snapshot.files
            assert len(self.names(f".hdfs-csi/snapshots/{name}.users")) == len(self.views_of(f"@{name}"))

    def check_mounts(self) -> None:
        mounts = mounts_below(self.directory)
        staged = {str(self.pod(volume).staging / "mount"): False for volume in self.staged()}
        published = {
            str(self.pod(volume, target).target): readonly
            for volume in self.staged()
            for target, readonly in volume.targets.items()
        }
        expected = {**{path: volume.is_view for path, volume in zip(staged, self.staged(), strict=True)}, **published}
        assert sorted((mount.point, mount.is_read_only) for mount in mounts) == sorted(expected.items())
        for volume in self.staged():
            place = f"{self.directory / volume.name}/"
            assert len({mount.device for mount in mounts if mount.point.startswith(place)}) == 1

    def remove_all(self) -> None:
        """All volumes leave the node at once; then they go from HDFS, those first that others were made of."""
        self.together([self.make_unpublish(volume, target) for volume, target in self.published()])
        self.together([self.make_unstage(volume) for volume in self.staged()])
        for is_view in (True, False):
            if not is_view:
                requests = [csi.DeleteSnapshotRequest(snapshot_id=f"{self.uri}@{name}") for name in self.snapshots]
                self.together([self.rpc(request, [], ignore) for request in requests])
            ids = [volume.made.volume_id for volume in self.sorted() if volume.is_view == is_view]
            self.together([self.rpc(csi.DeleteVolumeRequest(volume_id=one), [], ignore) for one in ids])

    def together(self, orders: Sequence[Order]) -> None:
        for order, call in [(order, self.processes.pool.submit(order.repeat)) for order in orders]:
            order.done(call.result().answer)

    def check_nothing_left(self) -> None:
        assert mounts_below(self.directory) == []
        wait_until(lambda: not self.processes.others(), "daemons end", 20, self.processes.describe)
        assert left_in(self.processes.directory / "run") == []
        # What a daemon leaves that was killed, the next one of the node removes.
        if "daemon" not in self.killed:
            assert left_in(self.processes.directory / "staging") == []
        for path in self.directory.glob("*/*"):
            assert left_in(path) == []
        assert self.names("") <= {".hdfs-csi"}
        for name in ("volumes", "snapshots", "making"):
            assert self.names(f".hdfs-csi/{name}") == set()

    def clean_up(self) -> None:
        """Whatever has happened, the next example begins with nothing."""
        for mount in mounts_below(self.directory):
            remove_mount(mount)
        for identity in self.processes.others():
            identity.send(signal.SIGKILL)
            identity.wait_gone(10)
        for name in ("run", "staging"):
            for path in (self.processes.directory / name).glob("*"):
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)


def gives_up(order: Order, other: Order) -> bool:
    """Whether nobody asks for `other` any more once `order` is sent."""
    return GIVES_UP.get(order.kind) == other.kind and other.about <= order.about


def on_node(volume: Volume) -> list[str]:
    return [f"{volume.name} on the node", *(f"{volume.name} at {target}" for target in range(2))]


def pick(candidates: Sequence[T], number: int) -> T | None:
    return candidates[number % len(candidates)] if candidates else None


def sure(found: Files) -> dict[str, list[Version]]:
    return {name: [Version(content, content)] for name, content in found.items()}


def brief(content: bytes | None) -> str:
    return "nothing" if content is None else f"{len(content)} bytes {content[:8]!r}"


def shown(files: Files) -> str:
    return str({name: brief(content) for name, content in sorted(files.items())})


def left_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def ignore(_: Any) -> None:
    return


def _without_size(volume: Message) -> Message:
    """The volume may have been expanded since."""
    assert isinstance(volume, csi.Volume)
    copy = csi.Volume()
    copy.CopyFrom(volume)
    copy.ClearField("capacity_bytes")
    return copy


@pytest.mark.timeout(0)
@pytest.mark.skipif(not EXAMPLES, reason="make hunt: what depends on when a kill hits is not found again by trying")
def test_what_was_acknowledged_is_there_whoever_is_killed(hdfs: LocalHdfs, tmp_path: Path) -> None:
    mark = "HDFS_CSI_TEST_ORDERS", str(uuid.uuid4())
    environment = {**hdfs.environment, mark[0]: mark[1]}
    with (
        tempfile.TemporaryDirectory(prefix="hdfs-csi-") as sockets,
        DriverProcess("controller", Path(sockets), environment) as controller,
        running_node(environment, tmp_path) as node,
        ThreadPoolExecutor(16) as pool,
    ):
        processes = Processes(hdfs, controller, node, tmp_path, mark, pool)
        machine = type("Orders", (Orders,), {"processes": processes})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                # An example takes ten seconds, and what depends on when a kill hits is not found again by trying.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        for process in (controller, node):
            log = process.daemon.log.read_text(encoding="utf-8", errors="replace")
            assert [line for line in log.splitlines() if " ERROR hdfs_csi." in line] == []
