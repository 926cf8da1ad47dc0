"""One open file's READs: from a cached block, from a block that is landing, or from the filesystem directly."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from hdfs_fuse.backend.base import FileReader, FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.blocks import BlockUnavailableError, CachedBlock, Content, LoadCancelledError
from hdfs_fuse.cache.cache import MAX_MAPPED_BLOCKS, BlockCache
from hdfs_fuse.cache.fill import Fill, SmallFile
from hdfs_fuse.cache.keys import BlockKeys, FileVersion
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import KIB, MountConfig
from hdfs_fuse.errors import DeadlineError, HdfsFuseError
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.prefetch import Prefetcher

# Files up to this length come in one request and are read from the cache, not mapped: a map costs two descriptors
# and page table entries, which a few pages do not earn back.
SMALL_FILE_BYTES = 256 * KIB
# After this many random reads in one block the whole block is fetched: that costs about as much as six of them.
_RANDOM_READS_PER_BLOCK = 6
# However small blocks are: one reader must not fill the table of blocks in reach.
_READ_AHEAD_BLOCKS = MAX_MAPPED_BLOCKS // 8
# A block can fail to be had because its load was cancelled, or its file was damaged, in between; not for ever.
_ATTEMPTS = 3
# A block counts as one hit or miss of a handle, though its READs come mixed with those of its neighbours.
_COUNTED_MAX = 16


class OpenFile:
    """One version of a file and its connection to the filesystem, opened when it is first needed. Thread-safe."""

    def __init__(self, backend: ResilientBackend, path: str, status: FileStatus, metrics: Metrics) -> None:
        self._backend = backend
        self._path = path
        self.status = status
        self._metrics = metrics
        self._mutex = threading.Lock()
        self._reader: FileReader | None = None
        self._is_closed = False

    def open(self) -> FileReader:
        """The reader, opened at the first call; blocks.

        Raises:
            PermissionDeniedError: this identity may not read the file. FileChangedError: it is another version now.
            LoadCancelledError: it has been closed; who waits for a load of this handle asks again with his own.
        """
        with self._mutex:
            if self._is_closed:
                raise LoadCancelledError(f"{self._path}: closed")
            if self._reader is None:
                self._reader = self._backend.open(self._path, self.status)
            return self._reader

    def stream(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes [start, stop) as they arrive; blocks."""
        with self._until_closed():
            for chunk in self.open().stream(start, stop):
                self._metrics.hdfs_bytes += len(chunk)
                yield chunk

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop); blocks."""
        with self._until_closed():
            data = self.open().read(start, stop)
        self._metrics.hdfs_bytes += len(data)
        return data

    @contextmanager
    def _until_closed(self) -> Iterator[None]:
        """Errors of a closed file are no news of the file."""
        try:
            yield
        except HdfsFuseError as e:
            if self._is_closed and not isinstance(e, LoadCancelledError):
                raise LoadCancelledError(f"{self._path}: closed") from e
            raise

    def close(self) -> None:
        """Free the connection. Loads that are still running end by themselves, or when their connection breaks."""
        self._is_closed = True
        if self._reader is not None:
            self._reader.close()


class Reader:
    """The READs of one file handle. Belongs to the event loop."""

    def __init__(
        self,
        file: OpenFile,
        path: str,
        cluster: str,
        config: MountConfig,
        cache: BlockCache,
        calls: Calls,
        metrics: Metrics,
    ) -> None:
        """Read `file`.

        Args:
            file: the version that was opened.
            path: absolute path in the filesystem.
            cluster: name of the filesystem, part of the cache's keys.
            config: read-ahead, streams and deadline.
            cache: the mount's blocks.
            calls: for reads that go to the filesystem directly.
            metrics: what is counted.
        """
        self.file = file
        self.path = path
        self.length_bytes = file.status.length_bytes
        version = FileVersion(cluster, path, file.status.mtime_ms, self.length_bytes)
        self._keys = BlockKeys(version, config.cache.block_size_bytes)
        self._config = config
        self._cache = cache
        self._calls = calls
        self._metrics = metrics
        window = min(config.read_ahead_bytes, _READ_AHEAD_BLOCKS * config.cache.block_size_bytes)
        self._prefetcher = Prefetcher(window)
        self._fills: list[Fill] = []
        self._planned = 0  # the first block that no load of ours covers
        self._goal = 0  # the byte up to which the file should be loaded
        self._counted: deque[int] = deque(maxlen=_COUNTED_MAX)
        self._touches: dict[int, int] = {}
        self.small_content: bytes | None = None  # of a small file, once it is read
        self._is_closed = False

    @property
    def is_small(self) -> bool:
        """Whether the whole file is one request."""
        return self.length_bytes <= min(SMALL_FILE_BYTES, self._keys.block_size_bytes)

    async def read(self, start: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `start`, fewer only at the end of the file.

        Raises:
            HdfsFuseError: they can't be had. Never fewer bytes instead.
        """
        stop = min(start + size, self.length_bytes)
        if start >= stop:
            return b""
        if self.is_small:
            return (await self.read_whole())[start:stop]
        goal = self._prefetcher.observe(start, stop)
        if self._prefetcher.is_sequential:
            self._plan(start, goal)
        else:
            self._cancel_fills()
        size_bytes = self._keys.block_size_bytes
        first, last = start // size_bytes, (stop - 1) // size_bytes
        if first == last:
            return await self._read_in_block(first, start, stop, must_copy=False)
        bounds = [start, *(i * size_bytes for i in range(first + 1, last + 1)), stop]
        parts = [
            await self._read_in_block(first + i, begin, end, must_copy=True)
            for i, (begin, end) in enumerate(itertools.pairwise(bounds))
        ]
        return b"".join(parts)

    # --- small files ---

    async def read_whole(self) -> bytes:
        """The content of a small file, kept for the READs to come."""
        if self.small_content is None:
            self.small_content = self._cache.read_small_nowait(self._keys[0])
            if self.small_content is not None:
                self._count(True, self.length_bytes)
            else:
                self.small_content = await self._read_small()
        return self.small_content

    async def check_readable(self) -> None:
        """Have the NameNode decide whether this identity may read a small file; its content comes along.

        Raises:
            PermissionDeniedError: it may not.
        """
        block = None
        for _ in range(_ATTEMPTS):
            block = self._load_small(check=self.file.open)
            try:
                self.small_content = await self._small_content(block)
            except LoadCancelledError:
                continue  # it was that of a handle which has been closed
            except HdfsFuseError:
                if not block.is_checked:
                    raise
            return
        await self._calls.run(self.file.open)

    async def _read_small(self) -> bytes:
        for _ in range(_ATTEMPTS):
            try:
                return await self._small_content(self._load_small())
            except LoadCancelledError:
                continue
        return await self._calls.run(self.file.read, 0, self.length_bytes)

    def _load_small(self, check: Callable[[], object] | None = None) -> CachedBlock:
        file = SmallFile(self.path, self.file.status.mtime_ms, self.file.read, check)
        return self._cache.load_small(self._keys[0], file)

    async def _small_content(self, block: CachedBlock) -> bytes:
        with self._deadline(block):
            content = await block.wait_filled(self.length_bytes)
        self._count(block.from_disk, self.length_bytes)
        return content.copy(0, self.length_bytes)

    # --- large files ---

    async def _read_in_block(self, index: int, start: int, stop: int, *, must_copy: bool) -> bytes | memoryview:
        """Bytes [start, stop) of the file, all in block number `index`."""
        offset = index * self._keys.block_size_bytes
        for _ in range(_ATTEMPTS):
            block = self._cache.get(self._keys, index)
            if block is None:
                if not self._wants_block(index, stop - start):
                    data = await self._read_directly(index, start, stop)
                    if data is not None:
                        return data
                self._cache.load(self._keys, index, index + 1, self.file.stream)
                block = self._cache.get(self._keys, index)
                assert block is not None
            try:
                content = await self._wait(block, stop - offset)
            except LoadCancelledError:
                continue
            except BlockUnavailableError:
                break
            self._count_block(index, block)
            taken = self._take(content, start - offset, stop - offset, must_copy=must_copy)
            if taken is not None:
                return taken
            self._cache.drop(block)
        return await self._calls.run(self.file.read, start, stop)

    async def _wait(self, block: CachedBlock, stop: int) -> Content:
        if block.filled_bytes >= stop:
            assert block.content is not None
            return block.content
        with self._deadline(block):
            return await block.wait_filled(stop)

    @staticmethod
    def _take(content: Content, start: int, stop: int, *, must_copy: bool) -> bytes | memoryview | None:
        """The bytes if they are sound; None if somebody has changed them under us."""
        data = content.copy(start, stop) if must_copy else content.view[start:stop]
        return data if content.is_intact() and len(data) == stop - start else None

    def _wants_block(self, index: int, size: int) -> bool:
        """Whether a miss should bring in the whole block rather than just the bytes wanted."""
        if self._prefetcher.is_sequential or 4 * size >= self._keys.block_size_bytes:
            return True
        touches = self._touches[index] = self._touches.get(index, 0) + 1
        return touches > _RANDOM_READS_PER_BLOCK

    async def _read_directly(self, index: int, start: int, stop: int) -> bytes | None:
        """A random read: just these bytes from the filesystem; None when the cache's disk has the block."""

        def read() -> bytes | None:
            store = self._cache.store
            if store is not None and store.contains(self._keys[index]):
                return None
            return self.file.read(start, stop)

        data = await self._calls.run(read)
        if data is not None:
            self._metrics.miss_count += 1
        return data

    # --- read-ahead ---

    def _plan(self, position: int, goal: int) -> None:
        """Load what a sequential reader at `position` will want, up to `goal`."""
        size_bytes = self._keys.block_size_bytes
        self._planned = max(self._planned, position // size_bytes)
        ahead = self._planned * size_bytes - position
        # Not block by block: a stream takes a connection and a round trip to start, so each should be long.
        if ahead <= 0 or ahead < (goal - position) // 2:
            self._goal = min(goal, self.length_bytes)
            self._pump()

    def _pump(self) -> None:
        """Start loads until the goal is covered or enough are running."""
        size_bytes = self._keys.block_size_bytes
        goal_block = (self._goal + size_bytes - 1) // size_bytes
        while not self._is_closed and self._planned < goal_block and len(self._fills) < self._config.streams:
            share = -(-(goal_block - self._planned) // self._config.streams)
            end = min(self._planned + max(share, 1), goal_block)
            for fill in self._cache.load(self._keys, self._planned, end, self.file.stream):
                self._fills.append(fill)
                fill.finished = lambda fill=fill: self._finished(fill)  # type: ignore[misc]
            self._planned = end

    def _finished(self, fill: Fill) -> None:
        if fill in self._fills:
            self._fills.remove(fill)
            self._pump()

    def _cancel_fills(self) -> None:
        for fill in self._fills:
            fill.cancel()
        self._fills.clear()
        self._planned = 0
        self._goal = 0

    # --- counting, closing ---

    def _count_block(self, index: int, block: CachedBlock) -> None:
        if index not in self._counted:
            self._counted.append(index)
            self._count(block.from_disk or block.uses > 0, block.key.length_bytes)
            block.uses += 1

    def _count(self, is_hit: bool, size_bytes: int) -> None:
        if is_hit:
            self._metrics.hit_count += 1
            self._metrics.cache_bytes += size_bytes
        else:
            self._metrics.miss_count += 1

    @contextmanager
    def _deadline(self, block: CachedBlock) -> Iterator[None]:
        try:
            with trio.fail_after(self._config.call_deadline_s):
                yield
        except trio.TooSlowError:
            self._cache.abandon(block)  # a thread that hangs for ever must not keep the block from all later readers
            raise DeadlineError(f"no bytes within {self._config.call_deadline_s:g} s") from None

    def close(self) -> None:
        """End the read-ahead and free the connection."""
        self._is_closed = True
        self._cancel_fills()
        self.file.close()
