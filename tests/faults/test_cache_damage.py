"""Somebody truncates, overwrites and deletes the cache's files again and again while programs read."""

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.mount.local import BLOCK, Mounted, mounted
from tests.support.waiting import wait_until

CONTENT = {
    "large": random.Random(1).randbytes(60 * BLOCK + 5),
    **{f"small{i}": random.Random(i).randbytes(3000 + 100 * i) for i in range(30)},
}
SECONDS = 4.0


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mounted]:
    source = tmp_path / "source"
    source.mkdir()
    for name, content in CONTENT.items():
        (source / name).write_bytes(content)
    with mounted(f"file://{source}", tmp_path, metadata_ttl_s=60.0) as running:
        yield running


class Readers:
    """Threads that read ranges at random until they are told to stop.

    Attributes:
        wrong: what was not as it should be.
        reads: how many were right.
        refused: how many ended in an I/O error.
    """

    def __init__(self, mount: Mounted, count: int) -> None:
        self.wrong: list[str] = []
        self.reads = 0
        self.refused = 0
        self._mount = mount
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a reader hangs"

    def _run(self, seed: int) -> None:
        order = random.Random(seed)
        while not self._stop.is_set():
            name = order.choice(["large", f"small{order.randrange(30)}"])
            content = CONTENT[name]
            start = order.randrange(len(content))
            size = order.choice([100, 4096, BLOCK, 5 * BLOCK, len(content)])
            try:
                with (self._mount.path / name).open("rb", buffering=0) as file:
                    seen = b""
                    expected = content[start : start + size]
                    while len(seen) < len(expected) and (
                        part := os.pread(file.fileno(), len(expected) - len(seen), start + len(seen))
                    ):
                        seen += part
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError as e:
                with self._mutex:
                    self.refused += 1
                    if e.errno != errno.EIO:
                        self.wrong.append(f"{name}: {e}")
                continue
            with self._mutex:
                self.reads += 1
                if seen != expected:
                    at = next((i for i, (a, b) in enumerate(zip(seen, expected, strict=False)) if a != b), len(seen))
                    self.wrong.append(f"{name} [{start}, {start + size}): other bytes from {at} on, {len(seen)} long")


def truncate(path: Path, order: random.Random) -> None:
    os.truncate(path, order.randrange(path.stat().st_size + 1))


def overwrite(path: Path, order: random.Random) -> None:
    with path.open("r+b") as file:
        file.write(order.randbytes(path.stat().st_size))


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def empty_and_delete(path: Path, _: random.Random) -> None:
    os.truncate(path, 0)
    path.unlink()


def replace_by_rubbish(path: Path, order: random.Random) -> None:
    rubbish = path.with_name("rubbish")
    rubbish.write_bytes(order.randbytes(path.stat().st_size))
    rubbish.rename(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "damage", [truncate, overwrite, delete, empty_and_delete, replace_by_rubbish], ids=lambda f: f.__name__
)
def test_bytes_stay_right_while_the_cache_is_damaged(mount: Mounted, damage: object) -> None:
    assert callable(damage)
    order = random.Random(7)
    end_s = time.monotonic() + SECONDS
    with Readers(mount, 4) as readers:
        while time.monotonic() < end_s:
            for path in mount.block_files():
                if order.random() < 0.3:
                    try:
                        damage(path, order)
                    except FileNotFoundError:
                        continue
    assert not readers.wrong, readers.wrong[:5]
    assert readers.reads > 50
    assert readers.refused == 0
    for name, content in CONTENT.items():
        assert (mount.path / name).read_bytes() == content
    wait_until(lambda: mount.stats()["open_files"] == 0, "the last RELEASE has come")


@pytest.mark.timeout(120)
def test_bytes_stay_right_while_blocks_are_evicted(tmp_path: Path) -> None:
    """A cache of a quarter of what is read, by two mounts at once."""
    source = tmp_path / "source"
    source.mkdir()
    for name, content in CONTENT.items():
        (source / name).write_bytes(content)
    options: dict[str, Any] = {"metadata_ttl_s": 60.0, "cache_size_bytes": 16 * BLOCK}
    with (
        mounted(f"file://{source}", tmp_path / "one", tmp_path / "cache", **options) as one,
        mounted(f"file://{source}", tmp_path / "two", tmp_path / "cache", **options) as two,
        Readers(one, 2) as first,
        Readers(two, 2) as second,
    ):
        end_s = time.monotonic() + SECONDS
        most = 0
        while time.monotonic() < end_s:
            sizes = []
            for path in one.block_files():
                try:
                    sizes.append(path.stat().st_size)
                except FileNotFoundError:
                    continue
            most = max(most, sum(sizes))
    assert not first.wrong + second.wrong, (first.wrong + second.wrong)[:5]
    assert first.refused + second.refused == 0
    assert most <= (16 + 16) * BLOCK, "the bound, and what is in flight"
