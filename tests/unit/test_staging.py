"""The staging directory: its bound, its files, and what daemons that died have left."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hdfs_fuse.config import StagingConfig
from hdfs_fuse.errors import NoSpaceError, UnavailableError
from hdfs_fuse.writing.staging import StagingArea

KIB, MIB = 1 << 10, 1 << 20


def area(directory: Path, size_bytes: int = 64 * MIB) -> StagingArea:
    return StagingArea(StagingConfig(directory=str(directory), size_bytes=size_bytes))


def test_bytes_stand_at_their_places(tmp_path: Path) -> None:
    made = area(tmp_path)
    file = made.create()
    assert list(file.extents) == []
    file.write(10 * MIB, b"far")
    file.write(2, b"near")
    file.write(4, b"XX!")
    assert list(file.extents) == [(2, 7), (10 * MIB, 10 * MIB + 3)]
    assert file.read(2, 7) == b"neXX!"
    assert made.used_bytes() < MIB  # sparse
    file.cut(5)
    assert list(file.extents) == [(2, 5)]
    with pytest.raises(UnavailableError, match="0 of 3 staged bytes"):
        file.read(5, 8)
    path = file.path
    file.close()
    file.close()
    assert not os.path.exists(path)
    made.close()
    assert os.listdir(tmp_path) == []


def test_a_file_appears_with_its_first_bytes(tmp_path: Path) -> None:
    made = area(tmp_path)
    file = made.create()
    assert not os.path.exists(file.path)
    file.cut(0)
    file.close()
    made.close()


def test_the_bound_is_that_of_all_daemons_together(tmp_path: Path) -> None:
    one, other = area(tmp_path, MIB), area(tmp_path, MIB)
    first, second = one.create(), other.create()
    first.write(0, bytes(512 * KIB))
    second.write(0, bytes(256 * KIB))
    with pytest.raises(NoSpaceError, match="bound of 1048576"):
        second.write(256 * KIB, bytes(MIB))
    assert list(second.extents) == [(0, 256 * KIB)]
    first.close()
    second.write(256 * KIB, bytes(512 * KIB))
    one.close()
    other.close()


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    made = area(tmp_path)
    file = made.create()
    os.symlink("/dev/full", file.path + ".link")
    file._fd = os.open(file.path + ".link", os.O_RDWR)
    with pytest.raises(NoSpaceError, match="No space left"):
        file.write(0, b"x")
    assert list(file.extents) == []
    made.close()


def test_what_a_dead_daemon_left_is_removed(tmp_path: Path) -> None:
    living = area(tmp_path)
    kept = living.create()
    kept.write(0, b"kept")
    pid = os.fork()
    if pid == 0:
        dying = area(tmp_path)
        dying.create().write(0, b"lost")
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(os.listdir(tmp_path)) == 2
    newer = area(tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    assert kept.read(0, 4) == b"kept"
    newer.close()
    living.close()


def test_daemons_that_start_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    config = StagingConfig(directory=str(tmp_path))

    def use(_: int) -> None:
        area = StagingArea(config)
        area.create().write(0, b"x")
        area.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(400)))


def test_a_directory_that_can_not_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError, match=r"staging directory .*choose another"):
        area(tmp_path / "file")
