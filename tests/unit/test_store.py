"""The cache directory: blocks that are sound or not there, its bounds, and disks that fail."""

import contextlib
import gc
import logging
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hdfs_fuse.cache.keys import BlockKey, BlockKeys, FileVersion
from hdfs_fuse.cache.store import LEASE_SIGNAL, BlockStore, StoredBlock, disk_bytes, shard_of
from hdfs_fuse.cache.usage import UsageFile
from hdfs_fuse.errors import UnavailableError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.waiting import wait_until

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB
XATTR = "user.hdfs.block"
START_S = 1_700_000_000.0


def keys_of(name: str, blocks: int, *, block_bytes: int = BLOCK, last_bytes: int | None = None) -> list[BlockKey]:
    length = blocks * block_bytes if last_bytes is None else (blocks - 1) * block_bytes + last_bytes
    keys = BlockKeys(FileVersion("test", f"/{name}", 1, length), block_bytes)
    return [keys[i] for i in range(blocks)]


def content_of(key: BlockKey) -> bytes:
    return (key.name.encode() * (key.length_bytes // 32 + 1))[: key.length_bytes]


def fill(store: BlockStore, key: BlockKey) -> bool:
    """Store one block as a load does, in pieces."""
    block = store.create(key)
    if block is None:
        return False
    content = content_of(key)
    for at in range(0, len(content), 10_000):
        block.append([content[at : at + 7_000], memoryview(content)[at + 7_000 : at + 10_000]])
    block.publish()
    block.close()
    return True


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def link_of(fd: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return ""


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and path.name != "usage"]


def bytes_below(directory: Path) -> int:
    return sum(disk_bytes(path.stat().st_size) for path in files_below(directory))


class Disk:
    """A store, with a clock and what it reported."""

    def __init__(self, directory: Path, size_bytes: int = 100 * MIB, min_free_bytes: int = 0) -> None:
        self.now_s = START_S
        self.faults = 0
        self.evicted_bytes = 0
        self.directory = directory
        self.store = BlockStore(
            str(directory),
            size_bytes,
            min_free_bytes,
            now_s=lambda: self.now_s,
            on_fault=self._on_fault,
            on_evict=self._on_evict,
        )

    def _on_fault(self) -> None:
        self.faults += 1

    def _on_evict(self, size_bytes: int) -> None:
        self.evicted_bytes += size_bytes

    def path(self, key: BlockKey) -> Path:
        return Path(self.store.path_of(key.name))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "cache")
    before = descriptors()
    yield disk
    assert descriptors() <= before, "descriptors leaked"
    disk.store.close()


KEY = keys_of("file", 1)[0]


def test_a_block_is_stored_and_comes_back(disk: Disk) -> None:
    assert not disk.store.contains(KEY)
    assert disk.store.open(KEY) is None
    assert disk.store.read(KEY) is None
    assert fill(disk.store, KEY)
    assert disk.store.contains(KEY)
    block = disk.store.open(KEY)
    assert block is not None
    assert bytes(block.view) == content_of(KEY)
    assert block.copy(100, 200) == content_of(KEY)[100:200]
    assert block.is_intact()
    block.close()
    assert not block.is_intact()
    block.close()
    assert disk.store.read(KEY) == content_of(KEY)
    assert (disk.faults, disk.store.used_bytes()) == (0, BLOCK)


@pytest.mark.parametrize("length", [1, 4095, 4096, 4097, BLOCK - 1, BLOCK])
def test_lengths_around_a_page(disk: Disk, length: int) -> None:
    key = keys_of(f"f{length}", 1, last_bytes=length)[0]
    assert disk.store.put(key, content_of(key))
    assert disk.store.read(key) == content_of(key)
    assert disk.store.used_bytes() == disk_bytes(length)
    block = disk.store.open(key)
    assert block is not None
    assert bytes(block.view) == content_of(key)
    block.close()
    assert disk.path(key).stat().st_blocks * 512 <= disk_bytes(length)


def test_a_half_written_block_is_never_seen(disk: Disk) -> None:
    block = disk.store.create(KEY)
    assert block is not None
    block.append([content_of(KEY)[:1000]])
    assert files_below(disk.directory) == []
    assert bytes(block.view[:1000]) == content_of(KEY)[:1000]
    block.close()
    assert not disk.store.contains(KEY)
    assert disk.store.used_bytes() == 0
    assert bytes(block.view[:1000]) == content_of(KEY)[:1000], "views outlive the block"


def test_the_same_block_stored_twice_counts_once(disk: Disk) -> None:
    one, other = disk.store.create(KEY), disk.store.create(KEY)
    assert one is not None
    assert other is not None
    for block in (one, other):
        block.append([content_of(KEY)])
        block.publish()
        assert block.is_intact()
        block.close()
    assert disk.store.put(KEY, content_of(KEY))
    assert disk.store.used_bytes() == BLOCK
    assert len(files_below(disk.directory)) == 1


def cut(path: Path) -> None:
    os.truncate(path, 100)


def lengthen(path: Path) -> None:
    os.truncate(path, BLOCK + 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(BLOCK // 2)
        byte = file.read(1)
        file.seek(BLOCK // 2)
        file.write(bytes([byte[0] ^ 1]))


def zero(path: Path) -> None:
    path.write_bytes(bytes(BLOCK))


def drop_xattr(path: Path) -> None:
    os.removexattr(path, XATTR)


def flip_xattr(path: Path) -> None:
    seal = bytearray(os.getxattr(path, XATTR))
    seal[-1] ^= 1
    os.setxattr(path, XATTR, bytes(seal))


def empty_xattr(path: Path) -> None:
    os.setxattr(path, XATTR, b"")


def exchange(path: Path) -> None:
    """Another block's file, sound in itself, under this name."""
    other = keys_of("other", 1)[0]
    store = BlockStore(str(path.parents[2]), 100 * MIB, 0)
    store.put(other, content_of(other))
    os.replace(store.path_of(other.name), path)
    store.close()


DAMAGES = [cut, lengthen, empty, flip, zero, drop_xattr, flip_xattr, empty_xattr, exchange]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("way", ["open", "read"])
def test_a_damaged_block_is_a_miss_and_removed(
    disk: Disk, damage: Callable[[Path], None], way: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(disk.store, KEY)
    damage(disk.path(KEY))
    assert disk.store.read_nowait(KEY) is None
    assert (disk.store.open(KEY) if way == "open" else disk.store.read(KEY)) is None
    assert not disk.store.contains(KEY)
    assert disk.faults >= 1
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert fill(disk.store, KEY), "it can be stored again"
    assert disk.store.read(KEY) == content_of(KEY)


@pytest.fixture
def lease_signals() -> Iterator[list[int]]:
    came: list[int] = []
    before = signal.signal(LEASE_SIGNAL, lambda number, _: came.append(number))
    yield came
    signal.signal(LEASE_SIGNAL, before)


@pytest.mark.parametrize("damage", [cut, lengthen, empty, flip, zero], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("is_new", [True, False], ids=["as filled", "as opened"])
def test_who_would_damage_a_block_in_use_waits(
    disk: Disk, damage: Callable[[Path], None], is_new: bool, lease_signals: list[int]
) -> None:
    taken: list[StoredBlock | None] = []

    def take() -> None:
        block = disk.store.create(KEY)
        assert block is not None
        block.append([content_of(KEY)])
        block.publish()
        if not is_new:
            block.close()
            block = disk.store.open(KEY)
        taken.append(block)

    thread = threading.Thread(target=take)  # as in a daemon; that it ends loses no signal
    thread.start()
    thread.join()
    block = taken[0]
    assert block is not None
    assert block.is_intact()
    writer = threading.Thread(target=damage, args=(disk.path(KEY),))
    writer.start()
    wait_until(lambda: bool(lease_signals), "the signal")
    assert not block.is_intact()
    assert bytes(block.view) == content_of(KEY), "who has just looked may still use it"
    assert writer.is_alive()
    block.close()
    writer.join(30)
    assert not writer.is_alive()
    assert disk.store.open(KEY) is None


def test_a_block_that_somebody_may_write_to_is_a_miss(disk: Disk) -> None:
    fill(disk.store, KEY)
    with disk.path(KEY).open("r+b"):
        assert disk.store.open(KEY) is None
        assert disk.store.read(KEY) == content_of(KEY)
    block = disk.store.open(KEY)
    assert block is not None
    block.close()
    assert disk.faults == 0


def test_a_child_that_is_being_started_keeps_no_block_from_its_name(disk: Disk) -> None:
    """It has a copy of the descriptor for writing until it calls execve(2)."""
    block = disk.store.create(KEY)
    assert block is not None
    block.append([content_of(KEY)])
    unnamed = [fd for fd in map(int, os.listdir("/proc/self/fd")) if "(deleted)" in link_of(fd)]
    with subprocess.Popen(["sleep", "0.2"], pass_fds=unnamed):
        block.publish()
    assert block.is_intact()
    block.close()
    assert disk.store.read(KEY) == content_of(KEY)


def test_an_evicted_block_in_use_stays_whole(disk: Disk) -> None:
    fill(disk.store, KEY)
    block = disk.store.open(KEY)
    assert block is not None
    disk.path(KEY).unlink()
    assert block.is_intact()
    assert bytes(block.view) == content_of(KEY)
    block.close()
    assert disk.store.open(KEY) is None


def test_many_damaged_blocks_are_one_warning(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    keys = keys_of("many", 20)
    for key in keys:
        fill(disk.store, key)
        zero(disk.path(key))
    for key in keys:
        assert disk.store.open(key) is None
    assert disk.faults == 20
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo", "dangling"])
def test_strange_things_under_a_blocks_name_are_a_miss(disk: Disk, kind: str) -> None:
    path = disk.path(KEY)
    path.parent.mkdir(exist_ok=True)
    match kind:
        case "directory":
            path.mkdir()
        case "symlink":
            (disk.directory / "target").write_bytes(content_of(KEY))
            path.symlink_to(disk.directory / "target")
        case "dangling":
            path.symlink_to(disk.directory / "nothing")
        case "fifo":
            os.mkfifo(path)
    assert disk.store.open(KEY) is None
    assert disk.store.read(KEY) is None
    assert disk.store.read_nowait(KEY) is None
    fill(disk.store, KEY)  # may or may not find room; must not raise


def test_read_nowait_serves_what_is_in_memory(disk: Disk) -> None:
    disk.store.put(KEY, content_of(KEY))
    assert disk.store.read_nowait(KEY) == content_of(KEY)


def test_read_nowait_leaves_what_is_not_in_memory(disk: Disk) -> None:
    disk.store.put(KEY, content_of(KEY))

    def is_left_without_pages() -> bool:
        with disk.path(KEY).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return disk.store.read_nowait(KEY) is None

    # A page that some processor still has in its hands is not given up at once.
    wait_until(is_left_without_pages, "the pages are gone")
    assert disk.store.read(KEY) == content_of(KEY)
    wait_until(lambda: disk.store.read_nowait(KEY) == content_of(KEY), "the pages are there again")


def test_read_nowait_leaves_its_use_to_be_noted(disk: Disk) -> None:
    disk.store.put(KEY, content_of(KEY))
    disk.now_s += 100
    assert disk.store.read_nowait(KEY) == content_of(KEY)
    assert disk.store.unnoted_uses == 1
    disk.store.note_uses()
    assert disk.path(KEY).stat().st_atime == pytest.approx(disk.now_s, abs=1e-3)
    assert disk.store.read_nowait(KEY) == content_of(KEY)
    assert disk.store.unnoted_uses == 0


def test_a_use_is_noted_and_changes_no_version(disk: Disk) -> None:
    fill(disk.store, KEY)
    block = disk.store.open(KEY)
    assert block is not None
    disk.now_s += 100
    other = disk.store.open(KEY)
    assert other is not None
    assert disk.path(KEY).stat().st_atime == pytest.approx(disk.now_s, abs=1e-3)
    assert block.is_intact()
    block.close()
    other.close()


# --- room ---


def test_the_size_is_a_bound_and_the_longest_unused_go_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=10 * BLOCK)
    keys = keys_of("a", 30)
    for key in keys:
        disk.now_s += 1000
        assert fill(disk.store, key)
        assert disk.store.used_bytes() == bytes_below(tmp_path) <= 10 * BLOCK
    assert [disk.store.contains(key) for key in keys[-6:]] == [True] * 6
    assert not any(disk.store.contains(key) for key in keys[:15])
    assert disk.evicted_bytes == 30 * BLOCK - disk.store.used_bytes()
    disk.store.close()


def test_a_pinned_block_survives_eviction(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=10 * BLOCK)
    pinned, *others = keys_of("a", 40)
    fill(disk.store, pinned)
    block = disk.store.open(pinned)
    assert block is not None
    for key in others:
        disk.now_s += 1000
        fill(disk.store, key)
    assert disk.store.contains(pinned)
    block.close()
    del block  # the map is a pin too
    for key in keys_of("b", 40):
        disk.now_s += 1000
        fill(disk.store, key)
    assert not disk.store.contains(pinned), "no longer pinned once it is closed"
    disk.store.close()


def test_a_block_just_published_is_pinned(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=10 * BLOCK)
    key, *others = keys_of("a", 40)
    block = disk.store.create(key)
    assert block is not None
    block.append([content_of(key)])
    block.publish()
    for other in others:
        disk.now_s += 1000
        fill(disk.store, other)
    assert disk.store.contains(key)
    block.close()
    disk.store.close()


def test_when_everything_is_pinned_there_is_no_room(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=4 * BLOCK)
    keys = keys_of("a", 8)
    blocks = []
    for key in keys[:4]:
        assert fill(disk.store, key)
        blocks.append(disk.store.open(key))
    disk.now_s += 1000
    assert not fill(disk.store, keys[5])
    assert not disk.store.put(keys[5], content_of(keys[5]))
    assert (disk.faults, disk.store.used_bytes()) == (0, 4 * BLOCK)
    for block in blocks:
        assert block is not None
        block.close()
    del block, blocks
    disk.now_s += 1000
    assert fill(disk.store, keys[5]), "a refusal is not remembered for ever"
    disk.store.close()


@pytest.mark.parametrize("size", [0, BLOCK - 1])
def test_a_block_larger_than_the_cache_is_not_kept(tmp_path: Path, size: int) -> None:
    disk = Disk(tmp_path, size_bytes=size)
    assert not fill(disk.store, KEY)
    assert not disk.store.put(KEY, content_of(KEY))
    assert disk.faults == 0
    disk.store.close()


def test_free_space_is_left_alone(tmp_path: Path) -> None:
    statvfs = os.statvfs(tmp_path)
    disk = Disk(tmp_path, size_bytes=1 << 50, min_free_bytes=statvfs.f_blocks * statvfs.f_frsize)
    assert not fill(disk.store, KEY)
    assert not disk.store.put(KEY, content_of(KEY))
    assert disk.faults == 0
    disk.store.close()


def test_small_blocks_are_counted_in_pages(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=100 * 4096)
    for i in range(300):
        disk.now_s += 100
        key = keys_of(f"s{i}", 1, last_bytes=10)[0]
        assert disk.store.put(key, content_of(key))
    assert disk.store.used_bytes() == bytes_below(tmp_path) <= 100 * 4096
    disk.store.close()


def test_blocks_that_were_never_counted_are_found(tmp_path: Path) -> None:
    """A process killed between linking a block and counting it, or a machine that lost its power."""
    disk = Disk(tmp_path, size_bytes=64 * 4096)
    lost = [keys_of(f"lost{i}", 1, last_bytes=10)[0] for i in range(64)]
    usage = UsageFile(str(tmp_path / "v2" / "usage"))
    for key in lost:
        assert disk.store.put(key, content_of(key))
        assert disk.store.used_bytes() == 4096
        usage.add(shard_of(key.name), -4096)
    usage.close()
    assert (disk.store.used_bytes(), bytes_below(tmp_path)) == (0, 64 * 4096)
    for i in range(10_000):  # 1,500 do mostly; which shards an eviction lists is left to chance
        disk.now_s += 100
        key = keys_of(f"s{i}", 1, last_bytes=10)[0]
        assert disk.store.put(key, content_of(key))
        if i % 500 == 499 and sum(disk.store.contains(key) for key in lost) <= 4:
            break
    found = sum(disk.store.contains(key) for key in lost)
    assert found <= 4
    assert bytes_below(tmp_path) <= (64 + found) * 4096
    disk.store.close()


def test_a_block_stored_while_its_shard_is_listed_stays_counted(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=40 * 4096)
    stop = threading.Event()
    names = iter(range(1 << 30))

    def put_on() -> None:
        while not stop.is_set():
            key = keys_of(f"t{next(names)}", 1, last_bytes=10)[0]
            disk.store.put(key, content_of(key))

    threads = [threading.Thread(target=put_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(200):
        disk.now_s += 10
        key = keys_of(f"m{i}", 1, last_bytes=10)[0]
        disk.store.put(key, content_of(key))
    stop.set()
    for thread in threads:
        thread.join()
    assert disk.store.used_bytes() >= bytes_below(tmp_path)
    disk.store.close()


def test_a_wrong_total_does_not_empty_the_cache_for_ever(tmp_path: Path) -> None:
    disk = Disk(tmp_path, size_bytes=20 * BLOCK)
    keys = keys_of("a", 100)
    fill(disk.store, keys[0])
    with open(tmp_path / "v2" / "usage", "r+b") as file:
        file.write(b"HDFSCSI1" + b"\x11" * 7)
    for key in keys:
        disk.now_s += 1000
        fill(disk.store, key)
    assert 10 * BLOCK <= bytes_below(tmp_path) <= 20 * BLOCK
    assert disk.store.used_bytes() == bytes_below(tmp_path)
    disk.store.close()


def test_two_processes_share_one_bound(tmp_path: Path) -> None:
    one, other = Disk(tmp_path, size_bytes=10 * BLOCK), Disk(tmp_path, size_bytes=10 * BLOCK)
    for i, key in enumerate(keys_of("a", 40)):
        one.now_s = other.now_s = START_S + 1000 * i
        assert fill((one, other)[i % 2].store, key)
        assert (other, one)[i % 2].store.read(key) == content_of(key)
        # Each may have granted itself one block that the other does not know of yet.
        assert bytes_below(tmp_path) <= 12 * BLOCK
    one.store.used_bytes()  # tells what it has not told yet
    assert other.store.used_bytes() == one.store.used_bytes() == bytes_below(tmp_path)
    one.store.close()
    other.store.close()


def test_counters_that_are_lost_are_counted_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for key in keys_of("a", 10):
        fill(disk.store, key)
    disk.store.close()
    (tmp_path / "v2" / "usage").unlink()
    disk = Disk(tmp_path)
    assert disk.store.used_bytes() == 10 * BLOCK
    disk.store.close()


def test_strange_things_in_the_directory_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "v2" / "lost+found").mkdir(parents=True)
    (tmp_path / "v2" / "xyz").mkdir()
    (tmp_path / "v2" / "1bc").write_bytes(b"a file where a shard would be")
    (tmp_path / "v2" / "0a0" / "subdirectory").mkdir(parents=True)
    (tmp_path / "v2" / "0a0" / "note").write_bytes(b"x" * 5000)
    os.utime(tmp_path / "v2" / "0a0" / "note", (1, 1))  # older than every block
    disk = Disk(tmp_path, size_bytes=10 * BLOCK)
    for key in keys_of("a", 30):
        disk.now_s += 1000
        assert fill(disk.store, key)
    assert disk.store.used_bytes() <= 10 * BLOCK
    assert (tmp_path / "v2" / "0a0" / "note").exists()
    disk.store.close()


# --- disks that fail ---


def test_a_file_instead_of_a_directory_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(UnavailableError, match="can't be used"):
        BlockStore(str(tmp_path / "cache"), MIB, 0)


def test_a_filesystem_without_o_tmpfile_is_unavailable() -> None:
    with pytest.raises(UnavailableError, match="can't be used"):
        BlockStore("/proc/hdfs-cache", MIB, 0)
    with pytest.raises(UnavailableError, match="can't be used"):
        BlockStore("/sys/hdfs-cache", MIB, 0)


@contextlib.contextmanager
def tmpfs(directory: Path, size_bytes: int) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", directory], check=True, timeout=30)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True, timeout=30)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@needs_root
def test_a_full_disk_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tmpfs(tmp_path / "small", MIB) as directory:
        disk = Disk(directory, size_bytes=100 * MIB)
        (directory / "ballast").write_bytes(bytes(600 * KIB))
        keys = keys_of("a", 20)
        for key in keys:
            fill(disk.store, key)
        found = [key for key in keys if disk.store.read(key) == content_of(key)]
        assert 1 <= len(found) <= 7
        (directory / "ballast").write_bytes(bytes(600 * KIB))
        with contextlib.suppress(OSError):
            (directory / "more").write_bytes(bytes(KIB * KIB))
        for key in keys:
            assert not fill(disk.store, key) or disk.store.read(key) == content_of(key)
        assert sum(record.levelno >= logging.WARNING for record in caplog.records) <= 1
        disk.store.close()


@needs_root
def test_the_free_space_floor_evicts_before_the_disk_is_full(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 2 * MIB) as directory:
        disk = Disk(directory, size_bytes=100 * MIB, min_free_bytes=MIB)
        for key in keys_of("a", 60):
            disk.now_s += 1000
            assert fill(disk.store, key)
        statvfs = os.statvfs(directory)
        assert statvfs.f_bavail * statvfs.f_frsize >= MIB
        assert disk.faults == 0
        disk.store.close()


@needs_root
def test_a_read_only_directory_is_unavailable(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", MIB) as directory:
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True, timeout=30)
        with pytest.raises(UnavailableError, match="Read-only"):
            BlockStore(str(directory), MIB, 0)


def test_a_directory_that_vanishes_is_a_miss(disk: Disk) -> None:
    fill(disk.store, KEY)
    shutil.rmtree(disk.directory)
    assert disk.store.open(KEY) is None
    assert disk.store.read(KEY) is None
    assert not disk.store.contains(KEY)
    for key in keys_of("a", 3):
        assert not fill(disk.store, key) or disk.store.read(key) == content_of(key)
        disk.store.put(key, content_of(key))
    disk.store.used_bytes()


def test_a_shard_that_is_a_file_is_a_fault(disk: Disk) -> None:
    disk.path(KEY).parent.write_bytes(b"")
    assert not fill(disk.store, KEY)
    assert not disk.store.put(KEY, content_of(KEY))
    assert disk.store.read(KEY) is None
    assert disk.faults >= 2


def test_a_lack_of_descriptors_costs_no_block(disk: Disk) -> None:
    """Mapping needs a second descriptor; a sound block must not be removed for the lack of it."""
    fill(disk.store, KEY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.open("/dev/null", os.O_RDONLY)]
    try:
        # Exactly one number is free below the limit.
        free = os.open("/dev/null", os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
        assert disk.store.open(KEY) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in spare:
            os.close(fd)
    assert disk.faults >= 1
    assert disk.store.contains(KEY)
    assert disk.store.read(KEY) == content_of(KEY)


def test_faults_are_one_warning(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(disk.directory / "v2")
    (disk.directory / "v2").write_bytes(b"")
    for key in keys_of("a", 5):
        assert not fill(disk.store, key)
        assert disk.store.open(key) is None
    assert disk.faults >= 10
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1


# --- names ---


@given(st.integers(0, 1 << 40))
def test_disk_bytes_are_whole_pages(length: int) -> None:
    assert disk_bytes(length) % 4096 == 0
    assert 0 <= disk_bytes(length) - length < 4096


@pytest.mark.parametrize(("name", "shard"), [("000" + "f" * 29, 0), ("fff" + "0" * 29, 1023), ("01a" + "1" * 29, 6)])
def test_shards_are_the_first_ten_bits(name: str, shard: int) -> None:
    assert shard_of(name) == shard
