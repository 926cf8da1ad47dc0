"""Reading through a real mount of a local directory: every byte, however it is asked for."""

import mmap
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mount.local import BLOCK, KIB, Mounted, mounted

SIZES = [0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 256 * KIB, 256 * KIB + 1, 3 * BLOCK + 7, 40 * BLOCK + 13]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("source")
    for size in SIZES:
        (directory / str(size)).write_bytes(random.Random(size).randbytes(size))
    (directory / "größe ✓").mkdir()
    (directory / "größe ✓" / "a b%?#\n").write_bytes(b"odd")
    return directory


@pytest.fixture(scope="module")
def mount(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with mounted(f"file://{source}", tmp_path_factory.mktemp("mount"), metadata_ttl_s=60.0) as running:
        yield running


@pytest.mark.parametrize("size", SIZES)
def test_content_and_size_are_those_of_the_source(source: Path, mount: Mounted, size: int) -> None:
    expected = (source / str(size)).read_bytes()
    for _ in ("from the source", "from the cache"):
        assert (mount.path / str(size)).stat().st_size == size
        assert (mount.path / str(size)).read_bytes() == expected
        mount.drop_pages(str(size))


def test_names_of_all_kinds_are_listed_and_opened(source: Path, mount: Mounted) -> None:
    assert sorted(os.listdir(mount.path)) == sorted(os.listdir(source))
    assert (mount.path / "größe ✓" / "a b%?#\n").read_bytes() == b"odd"
    assert set(os.scandir(mount.path / "größe ✓")) is not None
    with pytest.raises(FileNotFoundError):
        os.stat(mount.path / "absent")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranges=st.lists(st.tuples(st.integers(0, 42 * BLOCK), st.integers(1, 5 * BLOCK)), min_size=1, max_size=6))
def test_any_ranges_in_any_order(source: Path, mount: Mounted, ranges: list[tuple[int, int]]) -> None:
    name = str(SIZES[-1])
    expected = (source / name).read_bytes()
    mount.drop_pages(name)
    with (mount.path / name).open("rb", buffering=0) as file:
        for start, size in ranges:
            assert os.pread(file.fileno(), size, start) == expected[start : start + size]


def test_maps_and_sendfile_see_the_same(source: Path, mount: Mounted, tmp_path: Path) -> None:
    name = str(SIZES[-1])
    expected = (source / name).read_bytes()
    with (mount.path / name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert view[BLOCK - 3 : BLOCK + 3] == expected[BLOCK - 3 : BLOCK + 3]
        assert view[:] == expected
        with (tmp_path / "copy").open("wb") as copy:
            while os.sendfile(copy.fileno(), file.fileno(), None, 1 << 20):
                pass
    assert (tmp_path / "copy").read_bytes() == expected


def test_many_threads_and_processes_at_once(source: Path, mount: Mounted) -> None:
    for size in SIZES:
        mount.drop_pages(str(size))
    wrong: list[str] = []

    def read_all(seed: int) -> None:
        names = [str(size) for size in SIZES]
        random.Random(seed).shuffle(names)
        wrong.extend(name for name in names if (mount.path / name).read_bytes() != (source / name).read_bytes())

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(8)]
    script = "import sys, pathlib; a, b = map(pathlib.Path, sys.argv[1:]); sys.exit(a.read_bytes() != b.read_bytes())"
    command = [sys.executable, "-c", script, str(mount.path / str(SIZES[-1])), str(source / str(SIZES[-1]))]
    processes = [subprocess.Popen(command) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert not wrong


def test_nothing_can_be_changed(mount: Mounted) -> None:
    file, directory = mount.path / "4096", mount.path / "größe ✓"
    for change in (
        lambda: file.write_bytes(b"x"),
        file.unlink,
        lambda: file.rename(mount.path / "other"),
        lambda: file.chmod(0o600),
        lambda: os.utime(file),
        lambda: os.truncate(file, 0),
        (directory / "new").mkdir,
        directory.rmdir,
        lambda: (mount.path / "link").symlink_to("4096"),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            change()


def test_another_mount_and_another_daemon_read_from_the_same_cache(
    source: Path, mount: Mounted, tmp_path: Path
) -> None:
    for size in SIZES:
        assert (mount.path / str(size)).read_bytes() == (source / str(size)).read_bytes()
    with mounted(f"file://{source}", tmp_path, mount.cache) as second:
        for size in SIZES:
            assert (second.path / str(size)).read_bytes() == (source / str(size)).read_bytes()
        counted = second.stats()
    assert counted["hdfs_bytes"] == 0
    assert counted["cache_bytes"] > 0
    assert (counted["errors"], counted["cache_fault_count"]) == ({}, 0)


def test_owner_mode_and_space_are_shown_as_asked(source: Path, tmp_path: Path) -> None:
    (source / "4096").chmod(0o664)
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o755)  # pytest lets nobody else in
    with mounted(f"file://{source}", tmp_path, uid=1234, gid=2345, umask=0o027, allow_other=True) as mount:
        st_ = (mount.path / "4096").stat()
        assert (st_.st_uid, st_.st_gid, st_.st_mode & 0o777) == (1234, 2345, 0o640)
        assert os.statvfs(mount.path).f_blocks > 0
        command = ["setpriv", "--reuid", "65534", "--clear-groups", "cat", str(mount.path / "4096")]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        assert done.stdout == (source / "4096").read_bytes()


def test_a_group_that_may_do_what_the_owner_may(source: Path, tmp_path: Path) -> None:
    (source / "4096").chmod(0o604)
    with mounted(f"file://{source}", tmp_path, gid=2345, group_as_owner=True, umask=0o002) as mount:
        st_ = (mount.path / "4096").stat()
        assert (st_.st_gid, st_.st_mode & 0o777) == (2345, 0o664)
        assert mount.path.stat().st_mode & 0o070 == 0o070


def test_a_large_directory_is_listed_whole_in_bounded_memory(tmp_path: Path) -> None:
    count = 30_000
    (tmp_path / "many").mkdir()
    for i in range(count):
        os.close(os.open(tmp_path / "many" / f"{i:06d}", os.O_CREAT | os.O_WRONLY))
    with mounted(f"file://{tmp_path}/many", tmp_path / "m", max_inodes=2000, metadata_ttl_s=60.0) as mount:
        for _ in range(2):
            with os.scandir(mount.path) as entries:
                names = sorted(entry.name for entry in entries if entry.is_file())
            assert names == [f"{i:06d}" for i in range(count)]
        assert mount.stats()["inodes"] < 2 * 2000
        assert sum((mount.path / f"{i:06d}").stat().st_size for i in range(5000)) == 0
        assert len(os.listdir(mount.path)) == count
