"""What mounts.py makes of /proc/self/mountinfo and of paths, with real mounts under odd names."""

import os
from pathlib import Path

import pytest
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, MountError, NotDirectoryError, NotFoundError
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.mounter import Mounter
from hdfs_fuse.mounter.supervisor import Supervisor

from tests.mount.conftest import MountTmpfs
from tests.mount.local import mounted, mounted_writable
from tests.support.daemons import FORKS, daemons


@pytest.mark.parametrize(
    "name",
    ["plain", "a b", "tab\there", "new\nline", "back\\slash", "hash#", "é ✓", "a - b", "\\040", "trailing ", "\udcff"],
    ids=ascii,
)
def test_mountpoints_of_any_name_are_found_and_unmounted(tmp_path: Path, mount_tmpfs: MountTmpfs, name: str) -> None:
    path = tmp_path / name
    assert mounts.find(str(path)) is None
    mount_tmpfs(path)
    entry = mounts.find(str(path))
    assert entry is not None
    assert entry.mountpoint == str(path)
    assert (entry.fstype, entry.source, entry.root) == ("tmpfs", "some source", "/")
    assert entry.device == f"{os.major(path.stat().st_dev)}:{os.minor(path.stat().st_dev)}"
    assert "rw" in entry.options
    assert "size=64k" in entry.super_options
    assert mounts.is_alive(str(path))
    mounts.unmount(str(path))
    assert mounts.find(str(path)) is None
    mounts.unmount(str(path))


def test_the_topmost_of_several_mounts_counts_and_all_are_removed(tmp_path: Path, mount_tmpfs: MountTmpfs) -> None:
    for _ in range(3):
        mount_tmpfs(tmp_path / "m")
    ids = [entry.mount_id for entry in mounts.entries() if entry.mountpoint == str(tmp_path / "m")]
    entry = mounts.find(str(tmp_path / "m"))
    assert entry is not None
    assert entry.mount_id == ids[-1]
    assert len(ids) == 3
    mounts.unmount(str(tmp_path / "m"))
    assert mounts.find(str(tmp_path / "m")) is None


def test_a_path_below_a_mount_is_no_mount(tmp_path: Path, mount_tmpfs: MountTmpfs) -> None:
    mount_tmpfs(tmp_path / "m")
    (tmp_path / "m" / "below").mkdir()
    assert mounts.find(str(tmp_path / "m" / "below")) is None
    assert mounts.find(str(tmp_path)) is None
    mounts.unmount(str(tmp_path / "m" / "below"))
    assert mounts.find(str(tmp_path / "m")) is not None


@pytest.mark.parametrize("spelling", ["{}/m/", "{}//m", "{}/x/../m", "{}/./m/.", "{}/parent-link/m"])
def test_other_spellings_of_a_path(tmp_path: Path, mount_tmpfs: MountTmpfs, spelling: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "parent-link").symlink_to(tmp_path)
    mount_tmpfs(tmp_path / "m")
    assert mounts.find(spelling.format(tmp_path)) is not None


def test_the_root_is_a_mount() -> None:
    assert mounts.find("/") is not None
    assert mounts.canonical("/") == "/"


def test_a_bind_mount_refuses_options_that_it_does_not_know(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(MountError, match=r"bogus.*accepted are rw, ro"):
        mounts.bind(str(tmp_path / "a"), str(tmp_path / "b"), read_only=True, options=["bogus"])
    assert mounts.find(str(tmp_path / "b")) is None
    with pytest.raises(MountError, match="No such file"):
        mounts.bind(str(tmp_path / "absent"), str(tmp_path / "b"), read_only=True)


@pytest.fixture(params=["at once", "in steps"])
def binding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of binding: that of older kernels too."""
    if request.param == "in steps":
        monkeypatch.setattr(mounts, "_OPEN_TREE", 100_000)  # no such system call


@pytest.mark.usefixtures("binding")
def test_a_bind_mount_shows_the_same_and_keeps_its_flags(tmp_path: Path, mount_tmpfs: MountTmpfs) -> None:
    mount_tmpfs(tmp_path / "a")
    (tmp_path / "a" / "file").write_bytes(b"x")
    (tmp_path / "b").mkdir()
    mounts.bind(str(tmp_path / "a"), str(tmp_path / "b"), read_only=True, options=["noexec", "rw"])
    try:
        entry = mounts.find(str(tmp_path / "b"))
        assert entry is not None
        assert {"ro", "noexec"} <= entry.options
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "b" / "file").write_bytes(b"y")
        (tmp_path / "a" / "file").write_bytes(b"z")
        assert (tmp_path / "b" / "file").read_bytes() == b"z"
    finally:
        mounts.unmount(str(tmp_path / "b"))
    assert mounts.find(str(tmp_path / "a")) is not None


@pytest.mark.usefixtures("binding")
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], {"rw", "nosuid", "nodev", "relatime"}),
        (["rw"], {"rw", "nosuid", "nodev", "relatime"}),
        (["ro"], {"ro", "nosuid", "nodev", "relatime"}),
        (["noatime", "nodiratime"], {"rw", "nosuid", "nodev", "noatime", "nodiratime"}),
        (["noexec", "relatime"], {"rw", "nosuid", "nodev", "noexec", "relatime"}),
    ],
)
def test_options_of_a_bind_mount(tmp_path: Path, options: list[str], shown: set[str]) -> None:
    (tmp_path / "b").mkdir()
    with mounted_writable(f"file://{tmp_path}", tmp_path / "a") as mount:
        mounts.bind(str(mount.path), str(tmp_path / "b"), read_only=False, options=options)
        try:
            entry = mounts.find(str(tmp_path / "b"))
            assert entry is not None
            assert entry.options == shown
        finally:
            mounts.unmount(str(tmp_path / "b"))


# --- mountpoints ---


def test_a_symlink_to_a_mountpoint_is_the_mountpoint(tmp_path: Path) -> None:
    """The kernel mounts on what a symlink names: it must be found there again, and nothing may be left."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"content")
    (tmp_path / "a").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "a" / "mnt").symlink_to("../real")
    with mounted(f"file://{tmp_path}/source", tmp_path / "a") as mount:
        assert (tmp_path / "real" / "file").read_bytes() == b"content"
        assert mounts.find(str(tmp_path / "real")) is not None
        assert mounts.find(str(mount.path)) is not None
    assert mounts.find(str(tmp_path / "real")) is None


def test_a_mountpoint_that_is_a_dangling_or_looping_symlink(tmp_path: Path) -> None:
    mounter = Mounter(Supervisor(str(tmp_path / "run"), str(tmp_path / "log"), FORKS))
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "to-file").symlink_to("file")
    for name, kind in (("dangling", NotFoundError), ("loop", MountError), ("to-file", NotDirectoryError)):
        with pytest.raises(kind):
            mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(tmp_path / name))


def test_a_configuration_that_does_not_fit_is_refused_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "mnt").mkdir()
    mounter = Mounter(Supervisor(str(tmp_path / "run"), str(tmp_path / "log"), FORKS))
    config = MountConfig(uri=f"file://{tmp_path}", hadoop_properties={"x": "y" * (1 << 20)})
    with pytest.raises(HdfsFuseError, match="configuration"):
        mounter.mount(config, str(tmp_path / "mnt"))
    assert daemons() == []
    assert mounts.find(str(tmp_path / "mnt")) is None


def test_a_daemon_that_dies_at_once_is_an_error_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDFS_FUSE_LOG_LEVEL", "NO_SUCH_LEVEL")
    (tmp_path / "mnt").mkdir()
    mounter = Mounter(Supervisor(str(tmp_path / "run"), str(tmp_path / "log"), FORKS))
    with pytest.raises(MountError):
        mounter.mount(MountConfig(uri=f"file://{tmp_path}"), str(tmp_path / "mnt"))
    assert daemons() == []
    assert mounts.find(str(tmp_path / "mnt")) is None


def test_mounting_and_unmounting_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with mounted(f"file://{tmp_path}/source", tmp_path) as mount:
        runtime = Path(mount.runtime_dir)
        before = len(os.listdir("/proc/self/fd"))
        assert list(runtime.iterdir())
        mount.mounter.unmount(str(mount.path))
        assert not list(runtime.iterdir())
        for _ in range(3):
            mount.mounter.mount(MountConfig(uri=f"file://{tmp_path}/source"), str(mount.path))
            mount.mounter.unmount(str(mount.path))
        assert len(os.listdir("/proc/self/fd")) <= before
        assert not list(runtime.iterdir())


def test_a_mount_that_fails_leaves_no_directory(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    mounter = Mounter(Supervisor(str(tmp_path / "run"), str(tmp_path / "log"), FORKS))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(NotFoundError):
            mounter.mount(MountConfig(uri=f"file://{tmp_path}/absent"), str(tmp_path / "mnt"))
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())
    assert len(os.listdir("/proc/self/fd")) <= before
