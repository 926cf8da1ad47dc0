"""The controller against a model: its calls in any order, each cut short anywhere, by the loss of HDFS and the process.

A CO repeats what was cut short, at a new process, until there is an answer that is final; or it gives up, and deletes
what it asked for. After that HDFS holds exactly what the model has: nothing half-made, nothing forgotten.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hdfs_csi.controller import Controller
from hdfs_csi.copies import Copies
from hdfs_csi.errors import VolumeBusyError
from hdfs_csi.locks import VolumeLocks
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.provisioner import Provisioner
from hdfs_csi.snapshots import Snapshots
from hdfs_fuse.config import split_uri
from hdfs_fuse.errors import (
    AlreadyExistsError,
    DirectoryNotEmptyError,
    HdfsFuseError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.csi.volumes import Mode, capability, capacity
from tests.support.cut_short import CutShort
from tests.support.fake_backend import FakeFilesystem

BASE, URI = "/base", "hdfs://nn/base"
NAMES = st.sampled_from(["a", "b", "c"])
SNAPSHOTS = st.sampled_from(["s", "t"])


def cuts(most: int) -> st.SearchStrategy[tuple[int, bool] | None]:
    """Which call loses HDFS, of about so many that are made; and whether that call has its effect."""
    return st.none() | st.tuples(st.integers(0, most), st.booleans())


WRITER, READER = capability(Mode.SINGLE_NODE_WRITER), capability(Mode.MULTI_NODE_READER_ONLY)


@dataclass
class Volume:
    """What the model knows of one.

    Attributes:
        content: of its one file.
        shown: snapshot that it shows, by id; or the name of the volume.
    """

    size: int
    source: str
    is_view: bool
    content: bytes
    shown: str = ""

    def is_same(self, size: int, source: str, is_view: bool) -> bool:
        """Whether it would do for who asks for that."""
        return (self.source, self.is_view) == (source, is_view) and size in (0, self.size)


class ControllerMachine(RuleBasedStateMachine):
    """Orders to a controller, and what HDFS holds afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = FakeFilesystem()
        self.volumes: dict[str, Volume] = {}
        self.snapshots: dict[str, tuple[str, bytes]] = {}
        self.count = 0

    def call(self, send: Callable[[Controller], Any], cut: tuple[int, bool] | None) -> Any:
        """What a CO gets that asks until the answer is final; None for one that is an error, which is in `error`."""
        self.error: HdfsFuseError | None = None
        step, after = cut or (None, False)
        while True:
            client = CutShort(self.disk, step, after=after)
            filesystems = client.filesystems()
            provisioner = Provisioner(filesystems, Copies(patience_s=30))
            controller = Controller(provisioner, Snapshots(filesystems), VolumeLocks(10), [split_uri(URI)])
            try:
                return send(controller)
            except (UnavailableError, VolumeBusyError):
                assert client.is_cut
                step = None
            except HdfsFuseError as e:
                self.error = e
                return None

    @initialize()
    def begin(self) -> None:
        """Rules that need all of this at once would rarely come to it."""
        self.create("a", 100, "", is_view=False, cut=None)
        self.take_snapshot("s", "a", cut=None)
        self.create("b", 100, f"{URI}@s", is_view=True, cut=None)

    def failed_with(self, expected: type[HdfsFuseError]) -> bool:
        return isinstance(self.error, expected)

    @rule(
        name=NAMES,
        size=st.sampled_from([0, 100, 200]),
        source=st.sampled_from(["", "a", "b", f"{URI}@s", f"{URI}@t"]),
        is_view=st.booleans(),
        cut=cuts(12) | cuts(60),
    )
    def create(self, name: str, size: int, source: str, is_view: bool, cut: tuple[int, bool] | None) -> None:
        request = csi.CreateVolumeRequest(
            name=name,
            parameters={"uri": URI},
            volume_capabilities=[READER if is_view else WRITER],
            capacity_range=capacity(size, size),
        )
        if "@" in source:
            request.volume_content_source.snapshot.snapshot_id = source
        elif source:
            request.volume_content_source.volume.volume_id = f"{URI}#{source}"
        answer = self.call(lambda controller: controller.create_volume(request), cut)
        is_view = is_view and bool(source)
        known = self.volumes.get(name)
        content = self.content_of(source)
        if source == name:
            assert self.failed_with(InvalidArgumentError)
        elif content is None and (known is None or known.source != source):
            assert self.failed_with(NotFoundError)
        elif source in self.volumes and self.volumes[source].is_view:
            assert self.failed_with(InvalidArgumentError)
        elif known is not None and not known.is_same(size, source, is_view):
            assert self.failed_with(AlreadyExistsError)
        else:
            assert self.error is None
            assert answer.volume.volume_id == f"{URI}#{name}"
            if known is None:
                self.count += 1
                made = Volume(size, source, is_view, content or str(self.count).encode(), source if is_view else "")
                self.volumes[name] = made
                if not source:
                    self.disk.put(f"{BASE}/{name}/file", made.content)

    def content_of(self, source: str) -> bytes | None:
        """Of a source; empty for none, None for one that is not there."""
        if "@" in source:
            return self.snapshots.get(source.rpartition("@")[2], ("", None))[1]
        if source:
            return self.volumes[source].content if source in self.volumes else None
        return b""

    @rule(name=NAMES, cut=cuts(9))
    def delete(self, name: str, cut: tuple[int, bool] | None) -> None:
        request = csi.DeleteVolumeRequest(volume_id=f"{URI}#{name}")
        self.call(lambda controller: controller.delete_volume(request), cut)
        is_kept = any(volume == name for volume, _ in self.snapshots.values()) or any(
            volume.shown == name for volume in self.volumes.values()
        )
        if name in self.volumes and is_kept:
            assert self.failed_with(DirectoryNotEmptyError)
        else:
            assert self.error is None
            self.volumes.pop(name, None)

    @rule(name=NAMES, cut=cuts(20))
    def give_up(self, name: str, cut: tuple[int, bool] | None) -> None:
        """A claim that is removed while its volume is being made."""
        if name in self.volumes or cut is None:
            return
        request = csi.CreateVolumeRequest(name=name, parameters={"uri": URI}, volume_capabilities=[WRITER])
        client = CutShort(self.disk, cut[0], after=cut[1])
        provisioner = Provisioner(client.filesystems(), Copies())
        controller = Controller(provisioner, Snapshots(client.filesystems()), VolumeLocks(10))
        try:
            controller.create_volume(request)
        except UnavailableError:
            assert client.is_cut
        self.delete(name, None)

    @rule(name=NAMES, size=st.sampled_from([50, 100, 300]), cut=cuts(6))
    def expand(self, name: str, size: int, cut: tuple[int, bool] | None) -> None:
        request = csi.ControllerExpandVolumeRequest(volume_id=f"{URI}#{name}", capacity_range=capacity(size))
        answer = self.call(lambda controller: controller.controller_expand_volume(request), cut)
        volume = self.volumes.get(name)
        if volume is None:
            assert self.failed_with(NotFoundError)
        elif volume.is_view:
            assert self.failed_with(InvalidArgumentError)
        else:
            volume.size = max(volume.size, size)
            assert answer.capacity_bytes == volume.size

    @rule(snapshot=SNAPSHOTS, name=NAMES, cut=cuts(12))
    def take_snapshot(self, snapshot: str, name: str, cut: tuple[int, bool] | None) -> None:
        request = csi.CreateSnapshotRequest(name=snapshot, source_volume_id=f"{URI}#{name}")
        answer = self.call(lambda controller: controller.create_snapshot(request), cut)
        volume, known = self.volumes.get(name), self.snapshots.get(snapshot)
        if volume is None:
            assert self.failed_with(NotFoundError)
        elif volume.is_view:
            assert self.failed_with(InvalidArgumentError)
        elif known is not None and known[0] != name:
            assert self.failed_with(AlreadyExistsError)
        else:
            assert answer.snapshot.snapshot_id == f"{URI}@{snapshot}"
            self.snapshots.setdefault(snapshot, (name, volume.content))

    @rule(snapshot=SNAPSHOTS, cut=cuts(9))
    def delete_snapshot(self, snapshot: str, cut: tuple[int, bool] | None) -> None:
        request = csi.DeleteSnapshotRequest(snapshot_id=f"{URI}@{snapshot}")
        self.call(lambda controller: controller.delete_snapshot(request), cut)
        if any(volume.shown == f"{URI}@{snapshot}" for volume in self.volumes.values()):
            assert self.failed_with(DirectoryNotEmptyError)
        else:
            assert self.error is None
            self.snapshots.pop(snapshot, None)

    def names(self, path: str) -> set[str]:
        return set(self.disk.names_below(f"{BASE}/{path}".rstrip("/")))

    @invariant()
    def hdfs_holds_what_the_model_has(self) -> None:
        own = {name for name, volume in self.volumes.items() if not volume.is_view}
        assert self.names("") - {".hdfs-csi"} == own
        assert self.names(".hdfs-csi/making") == set()
        assert self.names(".hdfs-csi/volumes") == {f"{name}.json" for name in self.volumes}
        assert {n for n in self.names(".hdfs-csi/snapshots") if n.endswith(".json")} == {
            f"{name}.json" for name in self.snapshots
        }
        for name in own:
            assert self.disk.find(f"{BASE}/{name}/file").data == self.volumes[name].content
            kept = {snapshot for snapshot, (volume, _) in self.snapshots.items() if volume == name}
            kept |= {f"for-{other}" for other, volume in self.volumes.items() if volume.shown == name}
            assert self.names(f"{name}/.snapshot") == kept
        for snapshot, (source, content) in self.snapshots.items():
            assert self.disk.find(f"{BASE}/{source}/.snapshot/{snapshot}/file").data == content
            users = {name for name, made in self.volumes.items() if made.shown == f"{URI}@{snapshot}"}
            assert len(self.names(f".hdfs-csi/snapshots/{snapshot}.users")) == len(users)
        for name, volume in self.volumes.items():
            record = json.loads(self.disk.find(f"{BASE}/.hdfs-csi/volumes/{name}.json").data)
            assert record["capacityBytes"] == volume.size


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Thousands of volumes are made."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


TestController = ControllerMachine.TestCase
TestController.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
