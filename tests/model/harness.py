"""A Filesystem without a kernel and without pyfuse3, over real files or a fake backend; loads under control."""

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio
from hdfs_fuse.backend.base import Backend
from hdfs_fuse.backend.local import LocalBackend
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.cache.store import BlockStore
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import CacheConfig, MountConfig, StagingConfig
from hdfs_fuse.fs import Filesystem
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.upload.uploads import Uploads
from hdfs_fuse.workers import Workers
from hdfs_fuse.writing.drafts import Drafts
from hdfs_fuse.writing.staging import StagingArea

KIB, MIB = 1 << 10, 1 << 20
# The longest that a test waits for a thread.
PATIENCE_S = 10.0


@dataclass
class RecordingKernel:
    """Notes what the filesystem tells the kernel."""

    forgotten: list[str] = field(default_factory=list)
    stored: dict[int, bytes] = field(default_factory=dict)

    def forget_entry(self, inode: Inode) -> None:
        self.forgotten.append(inode.name)

    def store_pages(self, inode: Inode, data: bytes) -> None:
        self.stored[inode.number] = data


@dataclass
class Served:
    """A filesystem that is served, and everything that it is made of."""

    fs: Filesystem
    cache: BlockCache
    metrics: Metrics
    kernel: RecordingKernel
    config: MountConfig
    drafts: Drafts | None

    async def read(self, handle: int, start: int, size: int) -> bytes:
        return bytes(await self.fs.read(handle, start, size))

    async def read_path(self, path: str) -> bytes:
        """Look a path up, open, read all of it in READs of 128 KiB, close and forget, as a kernel does."""
        inode = self.fs.inodes.root
        met = []
        for name in path.split("/"):
            inode = await self.fs.lookup(inode.number, name)
            met.append(inode.number)
        handle, _ = await self.fs.open(inode.number)
        try:
            content = b""
            while part := await self.read(handle, len(content), 128 * KIB):
                content += part
        finally:
            await self.fs.release(handle)
            for number in reversed(met):
                self.fs.forget(number, 1)
        return content


@contextlib.asynccontextmanager
async def serve(
    root: Path | str,
    *,
    backend: Callable[[], Backend] = LocalBackend,
    cache_directory: Path | None = None,
    cache_size_bytes: int = 256 * MIB,
    block_size_bytes: int = 64 * KIB,
    metadata_ttl_s: float = 60.0,
    call_deadline_s: float = 20.0,
    read_ahead_bytes: int = 4 * MIB,
    max_inodes: int = 80_000,
    workers: int = 8,
    staging_directory: Path | None = None,
) -> AsyncIterator[Served]:
    """Serve `root` of a backend; writable where there is a staging directory, and then of the local disk."""
    config = MountConfig(
        uri=f"file://{root}",
        staging=StagingConfig(directory=str(staging_directory or "")),
        metadata_ttl_s=metadata_ttl_s,
        call_deadline_s=call_deadline_s,
        read_ahead_bytes=read_ahead_bytes,
        max_inodes=max_inodes,
        workers=workers,
        cache=CacheConfig(
            directory=str(cache_directory or ""),
            size_bytes=cache_size_bytes,
            min_free_bytes=0,
            block_size_bytes=block_size_bytes,
        ),
    )
    resilient = ResilientBackend(
        backend, budget_s=0, deadline_s=call_deadline_s, verify_above_bytes=config.small_file_bytes, settle_s=0
    )
    store = BlockStore(str(cache_directory), cache_size_bytes, 0) if cache_directory is not None else None
    metrics, kernel = Metrics(), RecordingKernel()
    async with trio.open_nursery() as nursery:
        pool = Workers(workers, "test")
        cache = BlockCache(store, pool)
        calls = Calls(pool, call_deadline_s, metrics, resilient.discard_client)
        nursery.start_soon(calls.watch)
        nursery.start_soon(cache.watch, call_deadline_s, resilient.discard_client)
        inodes = InodeTable(str(root), resilient.status(str(root)))
        inodes.root.expires_s = trio.current_time() + metadata_ttl_s
        area = drafts = None
        if staging_directory is not None:
            area = StagingArea(config.staging)
            uploads = Uploads(config.to_json(), nursery, call_deadline_s)
            drafts = Drafts(config, resilient, inodes, area, uploads, calls, calls, metrics, nursery)
        fs = Filesystem(config, resilient, "local", inodes, cache, calls, metrics, kernel, drafts)
        try:
            yield Served(fs, cache, metrics, kernel, config, drafts)
        finally:
            if drafts is not None:
                await drafts.close()
            if area is not None:
                area.close()
            fs.close()
            cache.close()
            nursery.cancel_scope.cancel()
    pool.close()
    if store is not None:
        store.close()


async def eventually(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    """Let the loop run until `condition()`; AssertionError after `timeout_s` seconds of real time."""
    deadline = threading.Event()
    timer = threading.Timer(timeout_s, deadline.set)
    timer.start()
    try:
        while not condition():
            assert not deadline.is_set(), "it did not happen in time"
            await trio.lowlevel.checkpoint()
    finally:
        timer.cancel()


class Gate:
    """A load that a test holds back, lets go on, and ends; thread-safe.

    Attributes:
        data: the whole file.
        calls: ranges that were asked for.
    """

    def __init__(self, data: bytes, chunk_bytes: int = 10_000) -> None:
        self.data = data
        self.calls: list[tuple[int, int]] = []
        self.chunk_bytes = chunk_bytes
        self._opened = threading.Event()
        self._failures: list[tuple[int, Exception | None]] = []
        self._arrived = threading.Semaphore(0)

    def fail_at(self, offset: int, failure: Exception | None) -> None:
        """Let the next load that comes to `offset` fail there, or end short with None."""
        self._failures.append((offset, failure))

    def release(self) -> None:
        """Let every load go on."""
        self._opened.set()

    def hold(self) -> None:
        """Let loads wait at their next chunk."""
        self._opened.clear()

    @property
    def is_waited_at(self) -> bool:
        """Whether a load has come since the last time."""
        return self._arrived.acquire(blocking=False)

    def load(self, start: int, stop: int) -> Iterator[bytes]:
        self.calls.append((start, stop))
        at = start
        while at < stop:
            self._arrived.release()
            if not self._opened.wait(PATIENCE_S):
                raise AssertionError("never released")
            end = min(at + self.chunk_bytes, stop)
            for failure in self._failures:
                if at <= failure[0] < end:
                    self._failures.remove(failure)
                    if failure[0] > at:
                        yield self.data[at : failure[0]]
                    if failure[1] is None:
                        return
                    raise failure[1]
            yield self.data[at:end]
            at = end
