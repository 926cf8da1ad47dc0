"""A writable mount, and what is behind it: a directory of a real HDFS, and one of the local disk."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hdfs_fuse.mounter import mounts

from tests.mount.behind import Behind
from tests.mount.local import Mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs

MountTmpfs = Callable[[Path], None]


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[MountTmpfs]:
    made: list[Path] = []

    def mount(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "some source", path], check=True, timeout=30)
        made.append(path)

    yield mount
    for path in reversed(made):
        subprocess.run(["umount", "-l", path], check=False, timeout=30, capture_output=True)


@pytest.fixture(params=["hdfs", "local"])
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Behind:
    if request.param == "local":
        tree: Path = request.getfixturevalue("tmp_path") / "tree"
        tree.mkdir()
        return Behind(f"file://{tree}")
    hdfs = request.getfixturevalue("hdfs")
    assert isinstance(hdfs, LocalHdfs)
    for name, value in hdfs.environment.items():
        monkeypatch.setenv(name, value)
    return Behind(f"{hdfs.uri}{request.getfixturevalue('hdfs_dir')}")


@pytest.fixture
def mount(behind: Behind, tmp_path: Path) -> Iterator[Mounted]:
    with mounted_writable(behind.uri, tmp_path) as made:
        yield made
        assert not [line for line in made.log.read_text().splitlines() if " ERROR " in line or "Traceback" in line]
    assert [name for name in behind.names() if name.startswith(".hdfs-csi")] == []
    assert os.listdir(tmp_path / "staging") == []


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    mounts.unmount(str(path), force=True)
