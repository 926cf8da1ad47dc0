"""Random operations on one file, as fsx does: 100,000 of them, byte for byte against a buffer in memory."""

import mmap
import os
import random
from pathlib import Path

import pytest

from tests.mount.local import KIB, mounted_writable

OPERATIONS = 100_000
MAX_BYTES = 256 * KIB
BEHIND = "behind"


class Fsx:
    """One file, and what it should hold."""

    def __init__(self, path: Path, stored: Path, seed: int) -> None:
        """Change the file at `path`, which is kept at `stored`."""
        self.path = path
        self.stored = stored
        self.random = random.Random(seed)
        self.good = bytearray()
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)

    def place(self) -> tuple[int, int]:
        """A range [start, stop) of the file's greatest length; often short, sometimes on pages' bounds."""
        start = self.random.randrange(MAX_BYTES)
        stop = min(start + self.random.choice((1, 100, 4096, 40_000)), MAX_BYTES)
        if self.random.random() < 0.2:
            start, stop = start & ~4095, min((stop + 4095) & ~4095, MAX_BYTES)
        return start, stop

    def write(self) -> None:
        start, stop = self.place()
        data = self.random.randbytes(stop - start)
        assert os.pwrite(self.fd, data, start) == len(data)
        self._grow(start)
        self.good[start:stop] = data

    def _grow(self, length: int) -> None:
        self.good.extend(bytes(max(0, length - len(self.good))))

    def read(self) -> None:
        start, stop = self.place()
        assert os.pread(self.fd, stop - start, start) == self.good[start:stop]

    def truncate(self) -> None:
        length = self.random.randrange(MAX_BYTES)
        if self.random.random() < 0.5:
            os.ftruncate(self.fd, length)
        else:
            os.truncate(self.path, length)
        del self.good[length:]
        self._grow(length)

    def write_map(self) -> None:
        start, stop = self.place()
        stop = min(stop, len(self.good))
        if start >= stop:
            return
        data = self.random.randbytes(stop - start)
        with mmap.mmap(self.fd, len(self.good)) as view:
            view[start:stop] = data
            view.flush()
        self.good[start:stop] = data

    def read_map(self) -> None:
        start, stop = self.place()
        if self.good:
            with mmap.mmap(self.fd, len(self.good), prot=mmap.PROT_READ) as view:
                assert view[start:stop] == self.good[start:stop]

    def drop_pages(self) -> None:
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def look(self) -> None:
        assert os.fstat(self.fd).st_size == self.path.stat().st_size == len(self.good)

    def sync(self) -> None:
        os.fsync(self.fd)
        assert self.stored.read_bytes() == self.good

    def reopen(self) -> None:
        os.close(self.fd)
        assert self.stored.read_bytes() == self.good
        self.fd = os.open(self.path, os.O_RDWR)

    def run(self) -> None:
        common = [self.write, self.read, self.read_map, self.look]
        rare = [self.truncate, self.write_map, self.drop_pages]
        rarest = [self.sync, self.reopen]
        for number in range(OPERATIONS):
            chance = self.random.random()
            operation = self.random.choice(common if chance < 0.8 else rare if chance < 0.98 else rarest)
            try:
                operation()
            except BaseException as e:
                raise AssertionError(f"operation {number}, {operation.__name__}, length {len(self.good)}") from e
        os.close(self.fd)
        assert self.stored.read_bytes() == self.good


@pytest.mark.timeout(900)
def test_100000_operations_on_one_file(tmp_path: Path) -> None:
    (tmp_path / BEHIND).mkdir()
    with mounted_writable(f"file://{tmp_path}/{BEHIND}", tmp_path) as mount:
        Fsx(mount.path / "file", tmp_path / BEHIND / "file", seed=4).run()
