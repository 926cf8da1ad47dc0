"""What somebody does to the cache under a running mount, and a cache that can't be used: the bytes stay right."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.local import BLOCK, Mounted, mounted
from tests.support.waiting import wait_until

CONTENT = {
    "large": random.Random(1).randbytes(20 * BLOCK + 5),
    **{f"small{i}": random.Random(i).randbytes(4096 + i) for i in range(20)},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    for name, content in CONTENT.items():
        (directory / name).write_bytes(content)
    return directory


def check_all(mount: Mounted) -> None:
    for name, content in CONTENT.items():
        assert (mount.path / name).read_bytes() == content, name


def drop_all_pages(mount: Mounted) -> None:
    for name in CONTENT:
        mount.drop_pages(name)


def overwrite(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"\xff" * size)


def overwrite_one_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff")


@pytest.mark.parametrize(
    "damage",
    [lambda p: os.truncate(p, 0), lambda p: os.truncate(p, 100), overwrite, overwrite_one_byte, os.unlink],
    ids=["emptied", "truncated", "overwritten", "one byte", "deleted"],
)
@pytest.mark.parametrize("remount", [False, True], ids=["mapped", "remounted"])
def test_damaged_blocks_are_read_again(
    source: Path, tmp_path: Path, damage: Callable[[Path], None], remount: bool
) -> None:
    with mounted(f"file://{source}", tmp_path) as mount:
        check_all(mount)
        # A small file's readers have its bytes before the cache has them.
        wait_until(lambda: len(mount.block_files()) == 21 + 20, "all blocks are stored")
        files = mount.block_files()
        if not remount:
            for path in files:
                damage(path)
            drop_all_pages(mount)
            check_all(mount)
    if remount:
        for path in files:
            damage(path)
        with mounted(f"file://{source}", tmp_path) as mount:
            check_all(mount)
    with mounted(f"file://{source}", tmp_path) as mount:  # and what was read again is sound
        check_all(mount)
        assert mount.stats()["cache_fault_count"] == 0


def test_the_whole_cache_is_removed_under_a_reader(source: Path, tmp_path: Path) -> None:
    with mounted(f"file://{source}", tmp_path) as mount, (mount.path / "large").open("rb", buffering=0) as file:
        half = len(CONTENT["large"]) // 2
        assert os.pread(file.fileno(), half, 0) == CONTENT["large"][:half]
        subprocess.run(["rm", "-rf", mount.cache], check=True)
        assert os.pread(file.fileno(), half + 10, half) == CONTENT["large"][half:]
        drop_all_pages(mount)
        check_all(mount)


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_full_cache_disk_is_no_error(source: Path, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=256k") as disk, mounted(f"file://{source}", tmp_path, disk / "c") as mount:
        for _ in range(2):
            check_all(mount)
            drop_all_pages(mount)


def test_a_read_only_cache_disk_is_no_error(source: Path, tmp_path: Path) -> None:
    with (
        tmpfs(tmp_path / "disk", "size=64m,ro") as disk,
        mounted(f"file://{source}", tmp_path, disk / "c") as mount,
    ):
        check_all(mount)
        assert mount.stats()["cache_fault_count"] == 1
        assert "mounting without a cache on disk" in mount.log.read_text()


def test_a_changed_file_shows_its_new_content_and_never_a_mix(source: Path, tmp_path: Path) -> None:
    old, new = CONTENT["large"], random.Random(2).randbytes(len(CONTENT["large"]) + 77)
    with mounted(f"file://{source}", tmp_path) as mount:
        assert (mount.path / "large").read_bytes() == old
        with (mount.path / "large").open("rb", buffering=0) as file:
            (source / "new").write_bytes(new)
            (source / "new").rename(source / "large")
            mount.drop_pages("small1")
            seen = os.pread(file.fileno(), len(old), 0)
            assert seen == old  # all of it is cached
        assert (mount.path / "large").read_bytes() == new
