"""Long files that go out while they are written, and files that are appended to, on a real HDFS and on local files."""

import errno
import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hdfs_fuse.config import StagingConfig

from tests.mount.behind import Behind, code
from tests.mount.local import KIB, MIB, Mounted, mounted, mounted_writable
from tests.support.local_hdfs import LocalHdfs
from tests.support.waiting import wait_until

WINDOW = 4 * MIB
PIECE = random.Random(5).randbytes(MIB)
# So that every seed meets each kind of step some times.
STEPS, SEEDS = 300, 4


@pytest.fixture
def mount(behind: Behind, tmp_path: Path) -> Iterator[Mounted]:
    """A mount that lets files stream as soon as they have 256 KiB, and keeps at most 4 MiB of one."""
    staging = StagingConfig(directory=str(tmp_path / "staging"), stream_from_bytes=256 * KIB, window_bytes=WINDOW)
    with mounted(behind.uri, tmp_path, read_only=False, staging=staging) as made:
        yield made
        assert "Traceback" not in made.log.read_text()


def staged_bytes(directory: Path) -> int:
    """What the staging directory holds, in blocks of the disk."""
    return sum(path.stat().st_blocks * 512 for path in (directory / "staging").glob("*/*"))


def pieces(count: int) -> list[bytes]:
    """`count` MiB, no two of which are the same."""
    return [number.to_bytes(8, "little") + PIECE[8:] for number in range(count)]


def write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def test_a_long_file_needs_little_room(behind: Behind, mount: Mounted, tmp_path: Path) -> None:
    most = 0
    with (mount.path / "long").open("wb", buffering=0) as file:
        for piece in pieces(64):
            write_all(file.fileno(), piece)
            most = max(most, staged_bytes(tmp_path))
        assert not behind.has("long")
    assert WINDOW / 4 < most <= WINDOW
    assert behind.content("long") == b"".join(pieces(64))
    assert behind.names() == ["long"]
    assert staged_bytes(tmp_path) == 0


def test_one_that_replaces_another(behind: Behind, mount: Mounted) -> None:
    behind.put("file", b"old")
    with (mount.path / "file").open("wb", buffering=0) as file:
        for piece in pieces(16):
            write_all(file.fileno(), piece)
            assert behind.content("file") == b"old"
    assert behind.content("file") == b"".join(pieces(16))


@pytest.mark.parametrize("written", [1, 3, 6])
@pytest.mark.parametrize("is_read", [False, True])
def test_the_front_of_a_file_that_is_there(behind: Behind, mount: Mounted, written: int, is_read: bool) -> None:
    good = bytearray(b"old!" * MIB)
    behind.put("file", bytes(good))
    fd = os.open(mount.path / "file", os.O_RDWR)
    for piece in pieces(written):
        write_all(fd, piece)
    good[: written * MIB] = b"".join(pieces(written))
    if is_read:
        assert os.pread(fd, 100, 0) == good[:100]
    os.close(fd)
    assert behind.content("file") == good


@pytest.mark.parametrize("place", [0, 3 * MIB + 5, 15 * MIB])
def test_going_back(behind: Behind, mount: Mounted, place: int) -> None:
    good = bytearray(b"".join(pieces(16)))
    with (mount.path / "file").open("wb", buffering=0) as file:
        write_all(file.fileno(), good)
        os.pwrite(file.fileno(), b"header", place)
        good[place : place + 6] = b"header"
        for piece in pieces(4):
            write_all(file.fileno(), piece)
            good += piece
    assert behind.content("file") == good
    wait_until(lambda: behind.names() == ["file"], "nothing hidden is left")


def test_reading_what_has_gone_out(behind: Behind, mount: Mounted) -> None:
    good = b"".join(pieces(16))
    fd = os.open(mount.path / "file", os.O_RDWR | os.O_CREAT)
    write_all(fd, good)
    assert os.pread(fd, 100, MIB - 50) == good[MIB - 50 : MIB + 50]
    with (mount.path / "file").open("rb") as other:
        assert other.read() == good
    write_all(fd, b"end")
    os.close(fd)
    assert behind.content("file") == good + b"end"


@pytest.mark.parametrize("length", [0, 100 * KIB, 5 * MIB, 20 * MIB])
def test_truncating(behind: Behind, mount: Mounted, length: int) -> None:
    good = bytearray(b"".join(pieces(12)))
    with (mount.path / "file").open("wb", buffering=0) as file:
        write_all(file.fileno(), good)
        file.truncate(length)
        file.seek(0, os.SEEK_END)
        write_all(file.fileno(), b"end")
    del good[length:]
    good.extend(bytes(length - len(good)))
    assert behind.content("file") == good + b"end"


def test_removed_while_it_goes_out(behind: Behind, mount: Mounted) -> None:
    good = b"".join(pieces(16))
    fd = os.open(mount.path / "file", os.O_RDWR | os.O_CREAT)
    write_all(fd, good)
    (mount.path / "file").unlink()
    assert os.pread(fd, 100, MIB) == good[MIB : MIB + 100]
    write_all(fd, b"more")
    assert os.pread(fd, 100, len(good)) == b"more"
    os.close(fd)
    wait_until(lambda: behind.names() == [], "nothing is left")


def test_renamed_while_it_goes_out(behind: Behind, mount: Mounted) -> None:
    (mount.path / "one").mkdir()
    fd = os.open(mount.path / "one" / "file", os.O_WRONLY | os.O_CREAT)
    for number, piece in enumerate(pieces(24)):
        write_all(fd, piece)
        if number == 8:
            (mount.path / "one").rename(mount.path / "two")
        if number == 16:
            (mount.path / "two" / "file").rename(mount.path / "two" / "other")
    os.close(fd)
    assert behind.content("two/other") == b"".join(pieces(24))
    wait_until(lambda: behind.names("two") == ["other"], "nothing hidden is left")


def test_fsync_in_between(behind: Behind, mount: Mounted) -> None:
    good = b""
    with (mount.path / "file").open("wb", buffering=0) as file:
        for number, piece in enumerate(pieces(20)):
            write_all(file.fileno(), piece)
            good += piece
            if number % 7 == 6:
                os.fsync(file.fileno())
                assert behind.content("file") == good
    assert behind.content("file") == good


class Script:
    """One file that is written mostly front to back, and what it should hold."""

    def __init__(self, mount: Mounted, behind: Behind, seed: int) -> None:
        self.path = mount.path / f"file{seed}"
        self.behind = behind
        self.random = random.Random(seed)
        self.good = bytearray()
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT)

    def append(self) -> None:
        data = self.random.randbytes(self.random.choice((1, 5000, 100 * KIB, 300 * KIB)))
        os.pwrite(self.fd, data, len(self.good))
        self.good += data

    def overwrite(self) -> None:
        data, start = self.random.randbytes(self.random.randrange(20_000)), self.random.randrange(len(self.good) + 1)
        os.pwrite(self.fd, data, start)
        self.good[start : start + len(data)] = data

    def read(self) -> None:
        start, size = self.random.randrange(len(self.good) + 1), self.random.randrange(200 * KIB)
        assert os.pread(self.fd, size, start) == self.good[start : start + size]

    def truncate(self) -> None:
        length = self.random.choice((0, len(self.good) // 2, len(self.good), len(self.good) + 5000))
        os.ftruncate(self.fd, length)
        del self.good[length:]
        self.good.extend(bytes(length - len(self.good)))

    def sync(self) -> None:
        os.fsync(self.fd)
        assert self.behind.content(self.path.name) == self.good

    def reopen(self) -> None:
        os.close(self.fd)
        assert self.behind.content(self.path.name) == self.good
        self.fd = os.open(self.path, os.O_RDWR)

    def begin_anew(self) -> None:
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR | os.O_TRUNC)
        self.good.clear()

    def run(self) -> None:
        rare = [self.overwrite, self.read, self.truncate, self.sync, self.reopen, self.begin_anew]
        for number in range(STEPS):
            step = self.append if self.random.random() < 0.9 else self.random.choice(rare)
            try:
                step()
            except BaseException as e:
                raise AssertionError(f"step {number}, {step.__name__}, length {len(self.good)}") from e
        os.close(self.fd)
        assert self.behind.content(self.path.name) == self.good


@pytest.mark.parametrize("seed", range(SEEDS))
def test_files_that_mostly_grow(behind: Behind, mount: Mounted, seed: int) -> None:
    Script(mount, behind, seed).run()
    wait_until(lambda: behind.names() == [f"file{seed}"], "nothing hidden is left")


# ---- appending


def file_id(hdfs: LocalHdfs, path: str) -> int:
    """What HDFS knows the file by: another one if it was written anew."""
    found = hdfs.webhdfs("GET", path, "GETFILESTATUS")["FileStatus"]["fileId"]
    assert isinstance(found, int)
    return found


def test_a_log_is_appended_to(behind: Behind, mount: Mounted, hdfs: LocalHdfs, hdfs_dir: str) -> None:
    if not behind.is_hdfs:
        pytest.skip("file ids are HDFS's")
    good, numbers = b"", set()
    fd = os.open(mount.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(50):
        line = f"line {number}\n".encode() * 100
        os.write(fd, line)
        os.fsync(fd)
        good += line
        assert behind.content("log") == good
        numbers.add(file_id(hdfs, f"{hdfs_dir}/log"))
    os.close(fd)
    assert len(numbers) == 1
    assert behind.content("log") == good


def test_a_long_file_is_appended_to(behind: Behind, mount: Mounted, hdfs: LocalHdfs, hdfs_dir: str) -> None:
    if not behind.is_hdfs:
        pytest.skip("file ids are HDFS's")
    good = b"".join(pieces(3))
    behind.put("file", good)
    before = file_id(hdfs, f"{hdfs_dir}/file")
    for number in range(5):
        with (mount.path / "file").open("ab", buffering=0) as file:
            file.write(b"%d" % number * 1000)
            good += b"%d" % number * 1000
        assert behind.content("file") == good
    fd = os.open(mount.path / "file", os.O_RDWR | os.O_APPEND)
    os.write(fd, b"end")
    os.fsync(fd)
    good += b"end"
    assert os.pread(fd, len(good), 0) == good  # also what is in the block that is being written
    os.close(fd)
    assert file_id(hdfs, f"{hdfs_dir}/file") == before
    assert behind.content("file") == good


def test_a_log_that_another_client_appends_to(behind: Behind, mount: Mounted) -> None:
    before = b"".join(pieces(2))
    behind.put("log", before)
    fd = os.open(mount.path / "log", os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"ours")
    behind.put("log", before + b"theirs, and longer than ours")
    assert code(partial(os.fsync, fd)) == errno.ESTALE
    assert code(partial(os.close, fd)) == errno.ESTALE
    assert behind.content("log") == before + b"theirs, and longer than ours"


def test_a_long_growth_needs_little_room(behind: Behind, mount: Mounted, tmp_path: Path) -> None:
    good = b"".join(pieces(3))
    behind.put("file", good)
    most = 0
    with (mount.path / "file").open("ab", buffering=0) as file:
        for piece in pieces(32):
            for part in (piece[: 300 * KIB], piece[300 * KIB :]):
                write_all(file.fileno(), part)
                most = max(most, staged_bytes(tmp_path))
            good += piece
    assert 0 < most <= WINDOW
    assert behind.content("file") == good


def test_another_node_reads_a_log_that_is_open(behind: Behind, mount: Mounted, tmp_path: Path) -> None:
    with mounted_writable(behind.uri, tmp_path / "other") as other, (mount.path / "log").open("wb", buffering=0) as log:
        good = b""
        for number in range(20):
            line = b"%d" % number * 10_000 + b"\n"
            log.write(line)
            os.fsync(log.fileno())
            good += line
            assert (other.path / "log").read_bytes() == good


def test_an_idle_log_is_completed(behind: Behind, mount: Mounted, hdfs: LocalHdfs, hdfs_dir: str) -> None:
    if not behind.is_hdfs:
        pytest.skip("nothing to complete")
    with (mount.path / "log").open("wb", buffering=0) as log:
        log.write(b"one")
        os.fsync(log.fileno())
        assert f"{hdfs_dir}/log" in open_files(hdfs)
        wait_until(lambda: f"{hdfs_dir}/log" not in open_files(hdfs), "HDFS has completed the log", timeout_s=60)
        log.write(b"two")
        os.fsync(log.fileno())
        assert behind.content("log") == b"onetwo"


def open_files(hdfs: LocalHdfs) -> str:
    """What the NameNode says of files that are being written."""
    return hdfs.dfsadmin("-listOpenFiles")


def test_an_unchanged_log_keeps_its_time(behind: Behind, mount: Mounted) -> None:
    with (mount.path / "log").open("wb", buffering=0) as log:
        for _ in range(3):
            log.write(b"line\n")
            os.fsync(log.fileno())
        time.sleep(0.1)
    shown = (mount.path / "log").stat().st_mtime_ns // 1_000_000
    wait_until(lambda: behind.mtime_ms("log") == shown, "HDFS has the time that the mount shows")
