"""Files that change outside while programs have them open: the kernel caches by node, and must not mix versions."""

import errno
import mmap
import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.mount.local import BLOCK, KIB, Mounted, mounted
from tests.support.waiting import wait_until

TTL_S = 0.5
OLD = random.Random(1).randbytes(12 * BLOCK + 5)


def replace(path: Path, data: bytes, *, mtime_s: float | None = None) -> None:
    """Put another file in a file's place, as a rename does."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    if mtime_s is not None:
        os.utime(new, (mtime_s, mtime_s))
    new.rename(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_bytes(OLD)
    return directory


def wait_for_size(mount: Mounted, size: int) -> None:
    wait_until(lambda: (mount.path / "file").stat().st_size == size, "the change is seen", timeout_s=10)


@pytest.mark.parametrize("size", [5000, 12 * BLOCK + 5], ids=["small", "large"])
@pytest.mark.parametrize("growth", [-4096, 0, 3 * BLOCK], ids=["shorter", "same length", "longer"])
def test_readers_of_two_versions_each_see_their_own(source: Path, tmp_path: Path, size: int, growth: int) -> None:
    old = OLD[:size]
    new = random.Random(2).randbytes(size + growth)
    (source / "file").write_bytes(old)
    with (
        mounted(f"file://{source}", tmp_path, metadata_ttl_s=TTL_S) as mount,
        (mount.path / "file").open("rb", buffering=0) as before,
    ):
        assert os.pread(before.fileno(), 4096, 0) == old[:4096]
        replace(source / "file", new, mtime_s=1000)
        wait_until(lambda: (mount.path / "file").stat().st_mtime == 1000, "the change is seen", timeout_s=10)
        with (mount.path / "file").open("rb", buffering=0) as after:
            for start in range(0, len(new) + 4096, 4096):
                assert os.pread(after.fileno(), 4096, start) == new[start : start + 4096]
                try:
                    seen = os.pread(before.fileno(), 4096, start)
                except OSError as e:
                    if e.errno != errno.ESTALE:
                        raise
                else:
                    assert seen == old[start : start + 4096], f"other bytes at {start}"
            assert os.fstat(before.fileno()).st_size == len(old)
            assert os.fstat(after.fileno()).st_size == len(new)


def test_a_map_keeps_the_version_that_it_was_made_of(source: Path, tmp_path: Path) -> None:
    with mounted(f"file://{source}", tmp_path, metadata_ttl_s=TTL_S) as mount:
        with (mount.path / "file").open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert view[:] == OLD
        replace(source / "file", OLD[::-1] + b"x")
        wait_for_size(mount, len(OLD) + 1)
        assert (mount.path / "file").read_bytes() == OLD[::-1] + b"x"
        assert view[:] == OLD
        view.close()


def test_a_removed_file_stays_readable_for_who_has_it_open(source: Path, tmp_path: Path) -> None:
    with (
        mounted(f"file://{source}", tmp_path, metadata_ttl_s=TTL_S) as mount,
        (mount.path / "file").open("rb", buffering=0) as file,
    ):
        assert os.pread(file.fileno(), 100, 0) == OLD[:100]
        (source / "file").unlink()
        wait_until(lambda: not (mount.path / "file").exists(), "the removal is seen", timeout_s=10)
        assert os.fstat(file.fileno()).st_size == len(OLD)
        assert os.pread(file.fileno(), 100, 0) == OLD[:100]


def test_a_file_that_changes_all_the_time_is_never_mixed(source: Path, tmp_path: Path) -> None:
    """Each version has one byte only: any other byte in it, a zero above all, is a mix."""
    versions = {byte: bytes([byte]) * (4 * BLOCK + 4096 * byte) for byte in range(1, 40)}
    replace(source / "file", versions[1])
    stop = threading.Event()

    def change() -> None:
        byte = 1
        while not stop.wait(0.02):
            byte = byte % 39 + 1
            replace(source / "file", versions[byte])

    with mounted(f"file://{source}", tmp_path, metadata_ttl_s=0.05) as mount:
        thread = threading.Thread(target=change)
        thread.start()
        whole = stale = 0
        end_s = time.monotonic() + 4
        try:
            while time.monotonic() < end_s:
                try:
                    with (mount.path / "file").open("rb", buffering=0) as file:
                        data = b""
                        while part := os.pread(file.fileno(), 60 * KIB, len(data)):
                            data += part
                except OSError as e:
                    if e.errno != errno.ESTALE:
                        raise
                    stale += 1
                else:
                    assert data, "empty"
                    assert set(data) == {data[0]}, f"a mix of {set(data)}"
                    assert data == versions[data[0]]
                    whole += 1
        finally:
            stop.set()
            thread.join()
        assert whole > 5, f"{whole} whole, {stale} stale"


def test_attributes_and_absences_are_believed_no_longer_than_their_lifetime(source: Path, tmp_path: Path) -> None:
    lifetime_s = 5.0
    with mounted(f"file://{source}", tmp_path, metadata_ttl_s=lifetime_s) as mount:
        assert not (mount.path / "new").exists()
        assert (mount.path / "file").stat().st_size == len(OLD)
        changed_s = time.monotonic()
        replace(source / "file", b"short")
        (source / "new").write_bytes(b"new")
        wait_for_size(mount, 5)
        wait_until((mount.path / "new").exists, "the new file is seen", timeout_s=10)
        assert time.monotonic() - changed_s < 2 * lifetime_s, "one lifetime, not two, and the rest for a busy machine"
        assert (mount.path / "file").read_bytes() == b"short"


def test_a_file_that_becomes_a_directory(source: Path, tmp_path: Path) -> None:
    with mounted(f"file://{source}", tmp_path, metadata_ttl_s=TTL_S) as mount:
        assert (mount.path / "file").is_file()
        (source / "file").unlink()
        (source / "file").mkdir()
        (source / "file" / "inside").write_bytes(b"x")
        wait_until((mount.path / "file").is_dir, "the change is seen", timeout_s=10)
        assert (mount.path / "file" / "inside").read_bytes() == b"x"
