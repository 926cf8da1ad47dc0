"""What a daemon may use: descriptors and memory, whatever is read and listed."""

import os
import random
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mount.local import BLOCK, KIB, MIB, Mounted, mounted

ENTRIES = 200_000


@contextmanager
def in_memory(path: Path) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,nr_inodes=400k", "none", path], check=True, timeout=30)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=30)


def anonymous_kib(pid: int) -> int:
    """RssAnon of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


def descriptors(mount: Mounted) -> int:
    return len(os.listdir(f"/proc/{mount.stats()['pid']}/fd"))


@pytest.mark.timeout(120)
def test_a_directory_of_200_000_entries_is_listed_in_bounded_memory(tmp_path: Path) -> None:
    with in_memory(tmp_path / "source") as source:
        for i in range(ENTRIES):
            os.close(os.open(source / f"{i:07d}.jpg", os.O_CREAT | os.O_WRONLY))
        with mounted(f"file://{source}", tmp_path, max_inodes=10_000, metadata_ttl_s=60.0) as mount:
            pid = mount.stats()["pid"]
            before = anonymous_kib(pid)
            with os.scandir(mount.path) as entries:
                names = {entry.name for entry in entries}
            assert len(names) == ENTRIES
            assert names == {f"{i:07d}.jpg" for i in range(ENTRIES)}
            # About 50,000 attributes are kept for the stat that often follows; the rest passes through.
            assert anonymous_kib(pid) - before < 60 * KIB
            once = anonymous_kib(pid)
            assert len(os.listdir(mount.path)) == ENTRIES
            assert anonymous_kib(pid) - once < 15 * KIB, "listing again takes no more"


def test_long_read_ahead_of_small_blocks_does_not_use_up_the_descriptors(tmp_path: Path) -> None:
    """Each block in reach takes two: thousands of blocks read ahead must not be in reach at once."""
    (tmp_path / "source").mkdir()
    size = 800 * BLOCK
    content = random.Random(3).randbytes(size)
    for name in "abcd":
        (tmp_path / "source" / name).write_bytes(content)
    with mounted(f"file://{tmp_path}/source", tmp_path, read_ahead_bytes=64 * MIB) as mount:
        most = 0
        stop = threading.Event()

        def watch() -> None:
            nonlocal most
            while not stop.wait(0.01):
                most = max(most, descriptors(mount))

        watcher = threading.Thread(target=watch)
        watcher.start()
        wrong: list[str] = []

        def read(name: str) -> None:
            if (mount.path / name).read_bytes() != content:
                wrong.append(name)

        readers = [threading.Thread(target=read, args=(name,)) for name in "abcd"]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        stop.set()
        watcher.join()
        assert not wrong
        counted = mount.stats()
        assert most < 1300, "256 blocks in reach, and those that were loaded since the last look at their number"
        assert counted["cache_fault_count"] == 0
        assert counted["errors"] == {}


def test_the_soft_limit_of_descriptors_is_raised(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        with mounted(f"file://{tmp_path}/source", tmp_path) as mount:
            assert resource.prlimit(mount.stats()["pid"], resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_files_opened_and_closed_leave_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for i in range(200):
        (tmp_path / "source" / f"s{i}").write_bytes(random.Random(i).randbytes(5000))
    (tmp_path / "source" / "large").write_bytes(random.Random(0).randbytes(20 * BLOCK))
    with mounted(f"file://{tmp_path}/source", tmp_path) as mount:
        for i in range(200):
            assert len((mount.path / f"s{i}").read_bytes()) == 5000
        before = descriptors(mount)
        for _ in range(50):
            with (mount.path / "large").open("rb", buffering=0) as file:
                assert len(os.pread(file.fileno(), 100, 5 * BLOCK)) == 100
        for i in range(200):
            assert len((mount.path / f"s{i}").read_bytes()) == 5000
        deadline_s = time.monotonic() + 10
        while descriptors(mount) > before + 2 * 21 and time.monotonic() < deadline_s:
            pass
        assert descriptors(mount) <= before + 2 * 21, "the blocks of one file may stay in reach"
        assert mount.stats()["open_files"] == 0
