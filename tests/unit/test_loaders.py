"""Loader processes, real ones: many small files of a local directory, and what happens when a process fails."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hdfs_fuse import errors
from hdfs_fuse.cache.blocks import CachedBlock
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.cache.keys import BlockKey, BlockKeys, FileVersion
from hdfs_fuse.cache.loaders import Loaders
from hdfs_fuse.cache.small import SmallFile
from hdfs_fuse.cache.store import BlockStore
from hdfs_fuse.config import CacheConfig, MountConfig
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.workers import Workers

from tests.perf.observe import children_of

COUNT = 300
# More than a thread of the test could need: a process has to start.
PATIENCE_S = 30.0


def content_of(index: int) -> bytes:
    return f"{index:05d}".encode() * (1 + index % 50)


class Loaded:
    """A cache with loader processes over a directory of small files."""

    def __init__(self, root: Path, cache: Path, nursery: trio.Nursery) -> None:
        config = MountConfig(uri=f"file://{root}", cache=CacheConfig(directory=str(cache), min_free_bytes=0))
        self.root = root
        self.metrics = Metrics()
        self.loaders = Loaders(config.to_json(), self.metrics, nursery, limit=1)
        self.store = BlockStore.of(config.cache, self.metrics)
        self.workers = Workers(4, "test")
        self.cache = BlockCache(self.store, self.workers, self.loaders)
        self.loaded_here: list[int] = []

    def key_of(self, index: int) -> BlockKey:
        status = os.stat(self.root / str(index))
        version = FileVersion("test", str(self.root / str(index)), status.st_mtime_ns // 1_000_000, status.st_size)
        return BlockKeys(version, 1 << 20)[0]

    def start(self, index: int, *, check: Callable[[], object] | None = None) -> CachedBlock:
        path = self.root / str(index)
        mtime_ms = path.stat().st_mtime_ns // 1_000_000

        def read(start: int, stop: int) -> bytes:
            self.loaded_here.append(index)
            return path.read_bytes()[start:stop]

        return self.cache.load_small(self.key_of(index), SmallFile(str(path), mtime_ms, read, check))

    async def load(self, index: int) -> None:
        block = self.start(index)
        content = await block.wait_filled(block.key.length_bytes)
        assert content.copy(0, block.key.length_bytes) == content_of(index)

    async def load_many(self, indices: range) -> None:
        async with trio.open_nursery() as nursery:
            for index in indices:
                nursery.start_soon(self.load, index)

    async def start_process(self) -> int:
        """Load until a process does it; gives its pid."""
        with trio.fail_after(PATIENCE_S):
            while not (children := loader_pids()):
                await self.load_many(range(8))
                await trio.sleep(0.01)
            (pid,) = children
            while self.metrics.hdfs_bytes == 0:  # counted for what a process has read
                self.forget(range(8))
                await self.load_many(range(8))
                await trio.sleep(0.01)
        return pid

    async def stop_process(self) -> int:
        """Have a process that hangs from now on; gives its pid."""
        pid = await self.start_process()
        self.loaded_here.clear()
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: all(state_of(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()))
        assert self.cache.loader_count == 1
        return pid

    def forget(self, indices: range) -> None:
        """Remove blocks from the cache's disk."""
        for index in indices:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.store.path_of(self.key_of(index).name))


@asynccontextmanager
async def loaded(root: Path, cache: Path) -> AsyncIterator[Loaded]:
    async with trio.open_nursery() as nursery:
        made = Loaded(root, cache, nursery)
        yield made
        made.cache.close()
        nursery.cancel_scope.cancel()
    made.workers.close()
    made.store.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    for index in range(COUNT):
        (root / str(index)).write_bytes(content_of(index))
    return root


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # other processes set no events
            await trio.sleep(0.01)


def state_of(task: Path) -> str:
    """One letter, as in proc_pid_stat(5)."""
    return (task / "stat").read_text().rpartition(") ")[2][0]


def loader_pids() -> list[int]:
    """Loader processes that this process has started and that run."""
    found = []
    for pid in children_of(os.getpid()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just been reaped
            if b"hdfs_fuse.loader" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@pytest.mark.trio
async def test_few_loads_start_no_process(root: Path, tmp_path: Path) -> None:
    async with loaded(root, tmp_path / "cache") as many:
        for index in range(20):
            await many.load(index)
        assert not loader_pids()


@pytest.mark.trio
async def test_many_loads_go_to_a_process_that_stores_them(root: Path, tmp_path: Path) -> None:
    async with loaded(root, tmp_path / "cache") as many:
        await many.start_process()
        many.loaded_here.clear()
        await many.load_many(range(8, 72))
        assert not many.loaded_here
        await until(lambda: all(many.store.contains(many.key_of(index)) for index in range(8, 72)))
        block = many.start(8)
        await block.wait_filled(block.key.length_bytes)
        assert block.from_disk
        # More than a process is given at once are loaded all the same.
        await many.load_many(range(72, COUNT))
    # A daemon that ends takes its process with it.
    assert not loader_pids()


@pytest.mark.trio
async def test_errors_come_as_they_are(root: Path, tmp_path: Path) -> None:
    async with loaded(root, tmp_path / "cache") as many:
        await many.start_process()

        def not_here(start: int, stop: int) -> bytes:
            raise AssertionError((start, stop))

        absent = SmallFile(str(root / "nothing"), 0, not_here, lambda: None)
        block = many.cache.load_small(BlockKey("d" * 32, 100), absent)
        with pytest.raises(errors.NotFoundError, match="nothing"):
            await block.wait_filled(100)
        assert not block.is_checked
        changed = SmallFile(str(root / "102"), 0, not_here, lambda: None)
        block = many.cache.load_small(BlockKey("e" * 32, 1), changed)
        with pytest.raises(errors.FileChangedError):
            await block.wait_filled(1)


@pytest.mark.trio
async def test_what_a_killed_process_was_to_load_is_loaded_here(root: Path, tmp_path: Path) -> None:
    async with loaded(root, tmp_path / "cache") as many:
        pid = await many.stop_process()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(many.load_many, range(100, 140))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not many.loaded_here
            os.kill(pid, signal.SIGKILL)
        assert sorted(many.loaded_here) == list(range(100, 140))
        # A process that failed is not replaced at once, and nothing of it stays behind.
        await many.load_many(range(140, 200))
        assert not loader_pids()


@pytest.mark.trio
async def test_a_process_that_hangs_is_ended_by_who_gives_up(root: Path, tmp_path: Path) -> None:
    async with loaded(root, tmp_path / "cache") as many:
        await many.stop_process()
        hanging, other = many.start(200), many.start(201)
        many.cache.abandon(hanging, errors.DeadlineError("no bytes"))
        with pytest.raises(errors.DeadlineError):
            await hanging.wait_filled(hanging.key.length_bytes)
        content = await other.wait_filled(other.key.length_bytes)
        assert content.copy(0, other.key.length_bytes) == content_of(201)
        assert many.loaded_here == [201]
        await until(lambda: not loader_pids() and not many.cache.loader_count)


@pytest.mark.trio
async def test_names_that_are_not_utf_8_are_loaded_here(root: Path, tmp_path: Path) -> None:
    async with loaded(root, tmp_path / "cache") as many:
        await many.start_process()
        file = SmallFile(str(root / "\udcff"), 0, lambda start, stop: b"12345"[start:stop])
        block = many.cache.load_small(BlockKey("e" * 32, 5), file)
        assert (await block.wait_filled(5)).copy(0, 5) == b"12345"


def test_a_process_starts_without_trio() -> None:
    code = "import sys, hdfs_fuse.loader; sys.exit('trio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
