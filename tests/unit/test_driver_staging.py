"""What the node does where real mounts can hardly lead it: with doubles of the mounts.

Everything else about staging is tested with real mounts, in tests/csi/test_node.py.
"""

# ruff: noqa: ARG002 - doubles take the arguments of what they stand for

from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_entry
from pathlib import Path

import pytest
from hdfs_csi.staging import Staging
from hdfs_csi.volume import volume_spec
from hdfs_fuse.config import MountConfig, StagingConfig
from hdfs_fuse.errors import AlreadyExistsError, DeadlineError, MountError, ReadOnlyError, UnavailableError
from hdfs_fuse.mounter.mounts import FSTYPE
from msgspec.structs import replace

SPEC = volume_spec("my-data", {"uri": "hdfs://nn/data"})
STAGED = StagingConfig(directory="/staging")


@dataclass
class Entry:
    device: str
    source: str
    options: frozenset[str]
    fstype: str = FSTYPE
    root: str = "/"
    mountpoint: str = ""


@dataclass
class FakeMounts:
    """Mountinfo, bind, unmount and the supervisor in one."""

    at: dict[str, Entry] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    failures: list[Exception] = field(default_factory=list)
    mounted: int = 0

    def find(self, path: str) -> Entry | None:
        return self.at.get(path)

    def entries(self) -> list[Entry]:
        return [replace_entry(entry, mountpoint=path) for path, entry in self.at.items()]

    def is_alive(self, path: str, *, deadline_s: float = 0) -> bool:
        return self.at[path].device not in self.dead

    def bind(self, source: str, target: str, *, read_only: bool, options: Sequence[str] = ()) -> None:
        if self.failures:
            raise self.failures.pop()
        options = [*options, "ro" if read_only else "rw"]
        self.at[target] = Entry(self.at[source].device, self.at[source].source, frozenset(options))

    def unmount(self, path: str, *, deadline_s: float = 0, force: bool = False) -> None:
        if self.failures:
            raise self.failures.pop()
        self.at.pop(path, None)

    def mount(self, config: MountConfig, mountpoint: str, *, deadline_s: float = 0) -> None:
        if self.failures:
            raise self.failures.pop()
        self.mounted += 1
        self.at[mountpoint] = Entry(f"0:{self.mounted}", config.uri, frozenset({"ro" if config.read_only else "rw"}))


@pytest.fixture
def mounts() -> FakeMounts:
    return FakeMounts()


@pytest.fixture
def staging(mounts: FakeMounts) -> Staging:
    return Staging(mounts, mounts, lambda spec: replace(spec.config, read_only=spec.read_only, staging=STAGED))


def test_another_read_only_flag_is_incompatible(staging: Staging, mounts: FakeMounts, tmp_path: Path) -> None:
    staging.stage(SPEC, str(tmp_path))
    for number, first in enumerate((False, True)):
        target = str(tmp_path / f"target{number}")
        staging.publish("my-data", str(tmp_path), target, read_only=first, options=["nodev"])
        staging.publish("my-data", str(tmp_path), target, read_only=first)
        assert mounts.at[target].options == {"nodev", "ro" if first else "rw"}
        with pytest.raises(AlreadyExistsError, match="another read-only flag"):
            staging.publish("my-data", str(tmp_path), target, read_only=not first)


def test_what_is_staged_read_only_is_so_for_all(staging: Staging, mounts: FakeMounts, tmp_path: Path) -> None:
    readers = volume_spec("my-data", {"uri": "hdfs://nn/data"}, read_only=True)
    staging.stage(readers, str(tmp_path))
    target = str(tmp_path / "target")
    with pytest.raises(ReadOnlyError, match="staged read-only"):
        staging.publish("my-data", str(tmp_path), target, read_only=False)
    mounts.dead.add("0:1")
    staging.publish("my-data", str(tmp_path), target, read_only=True)
    assert mounts.at[str(tmp_path / "mount")] == Entry("0:2", "hdfs://nn/data", frozenset({"ro"}))
    for other in (SPEC, volume_spec("my-data", {"uri": "hdfs://nn/other"}, read_only=True)):
        with pytest.raises(AlreadyExistsError, match=r"other (read-only flag|attributes)"):
            staging.stage(other, str(tmp_path))


def test_unstaging_that_does_not_see_the_end_is_asked_again(
    staging: Staging, mounts: FakeMounts, tmp_path: Path
) -> None:
    staging.stage(SPEC, str(tmp_path))
    del mounts.at[str(tmp_path / "mount")]  # unmounted, and its daemon still stores files
    mounts.failures += [DeadlineError("still storing files")] * 2
    for _ in range(2):
        with pytest.raises(DeadlineError):
            staging.unstage("my-data", str(tmp_path))
        assert (tmp_path / "volume.json").exists()
    staging.unstage("my-data", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_published_mount_that_outlived_its_staging_is_kept(
    staging: Staging, mounts: FakeMounts, tmp_path: Path
) -> None:
    target = str(tmp_path / "target")
    staging.stage(SPEC, str(tmp_path))
    staging.publish("my-data", str(tmp_path), target, read_only=False)
    del mounts.at[str(tmp_path / "mount")]  # somebody unmounted it; pods go on at their target
    staging.publish("my-data", str(tmp_path), target, read_only=False)
    assert (mounts.at[target].device, mounts.at[str(tmp_path / "mount")].device) == ("0:1", "0:2")


def test_a_dead_published_mount_is_replaced(staging: Staging, mounts: FakeMounts, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    staging.stage(SPEC, str(tmp_path))
    staging.publish("my-data", str(tmp_path), target, read_only=False)
    mounts.dead.add("0:1")
    staging.publish("my-data", str(tmp_path), target, read_only=False)
    assert mounts.at[target].device == mounts.at[str(tmp_path / "mount")].device == "0:2"


def test_a_repair_that_fails_may_be_tried_again(staging: Staging, mounts: FakeMounts, tmp_path: Path) -> None:
    staging.stage(SPEC, str(tmp_path))
    mounts.dead.add("0:1")
    for _ in range(2):
        mounts.failures.append(UnavailableError("the NameNode is away"))
        with pytest.raises(UnavailableError):
            staging.publish("my-data", str(tmp_path), str(tmp_path / "target"), read_only=False)
    staging.publish("my-data", str(tmp_path), str(tmp_path / "target"), read_only=False)
    assert mounts.at[str(tmp_path / "target")].device == "0:2"
    staging.unstage("my-data", str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]


def test_a_bind_that_fails_leaves_no_directory(staging: Staging, mounts: FakeMounts, tmp_path: Path) -> None:
    staging.stage(SPEC, str(tmp_path))
    mounts.failures.append(MountError("no"))
    with pytest.raises(MountError, match="no"):
        staging.publish("my-data", str(tmp_path), str(tmp_path / "target"), read_only=False)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("failure", [UnavailableError("no"), KeyboardInterrupt()])
def test_a_mount_that_fails_leaves_nothing(
    staging: Staging, mounts: FakeMounts, tmp_path: Path, failure: BaseException
) -> None:
    mounts.failures.append(failure)  # type: ignore[arg-type]
    with pytest.raises(type(failure)):
        staging.stage(SPEC, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_record_that_makes_no_sense_is_written_anew(
    staging: Staging, mounts: FakeMounts, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "volume.json").write_bytes(content)
    staging.stage(SPEC, str(tmp_path))
    assert (tmp_path / "volume.json").read_bytes() not in {b"", content}

    # With something mounted it might be anybody's, until it is unstaged.
    (tmp_path / "volume.json").write_bytes(content)
    with pytest.raises(AlreadyExistsError):
        staging.stage(SPEC, str(tmp_path))
    staging.unstage("my-data", str(tmp_path))
    assert (mounts.at, list(tmp_path.iterdir())) == ({}, [])
