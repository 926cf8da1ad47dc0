"""READs of a file of several blocks: from a cached block, from one that is landing, or from the filesystem directly."""

import itertools
from collections import OrderedDict, deque

from hdfs_fuse.cache.blocks import CachedBlock
from hdfs_fuse.cache.cache import MAX_MAPPED_BLOCKS
from hdfs_fuse.cache.content import BlockUnavailableError, Content, LoadCancelledError
from hdfs_fuse.cache.fill import Fill
from hdfs_fuse.cache.keys import BlockKeys, FileVersion
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.prefetch import Prefetcher
from hdfs_fuse.reader import ATTEMPTS, Shared

# After this many random reads in one block the whole block is fetched: that costs about as much as six of them.
_RANDOM_READS_PER_BLOCK = 6
_TOUCHED_MAX = 4096  # blocks that such reads are counted of
# However small blocks are: one reader must not fill the table of blocks in reach.
_READ_AHEAD_BLOCKS = MAX_MAPPED_BLOCKS // 8
# A block counts as one hit or miss of a handle, though its READs come mixed with those of its neighbours.
_COUNTED_MAX = 16


class BlockReader:
    """The READs of one handle of a file of several blocks; see reader.Reader. Belongs to the event loop."""

    content: bytes | None = None  # never in one piece

    def __init__(self, file: OpenFile, shared: Shared) -> None:
        """Read `file`."""
        self.file = file
        self.length_bytes = file.status.length_bytes
        config = shared.config
        version = FileVersion(shared.cluster, file.path, file.status.mtime_ms, self.length_bytes)
        self._keys = BlockKeys(version, config.cache.block_size_bytes)
        self._config = config
        self._shared = shared
        self._cache = shared.cache
        window = min(config.read_ahead_bytes, _READ_AHEAD_BLOCKS * config.cache.block_size_bytes)
        self._prefetcher = Prefetcher(window)
        self._fills: list[Fill] = []
        self._planned = 0  # the first block that no load of ours covers
        self._goal = 0  # the byte up to which the file should be loaded
        self._counted: deque[int] = deque(maxlen=_COUNTED_MAX)
        self._touches: OrderedDict[int, int] = OrderedDict()  # random reads by block, the last one last
        self._is_closed = False

    async def check_readable(self) -> None:
        """See reader.Reader."""
        await self._shared.calls.run(self.file.open)

    async def read(self, start: int, size: int) -> bytes | memoryview:
        """See reader.Reader."""
        stop = min(start + size, self.length_bytes)
        if start >= stop:
            return b""
        goal = self._prefetcher.observe(start, stop)
        if self._prefetcher.is_sequential:
            self._plan(start, stop + self._cache.ahead_bytes(self, goal - stop, self._keys.block_size_bytes))
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

    async def _read_in_block(self, index: int, start: int, stop: int, *, must_copy: bool) -> bytes | memoryview:
        """Bytes [start, stop) of the file, all in block number `index`."""
        offset = index * self._keys.block_size_bytes
        for _ in range(ATTEMPTS):
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
                content = await block.wait_filled(stop - offset)
            except LoadCancelledError:
                continue
            except BlockUnavailableError:
                break
            self._count_block(index, block)
            block.touch(stop - offset)
            taken = self._take(content, start - offset, stop - offset, must_copy=must_copy)
            if taken is not None:
                return taken
            self._cache.drop(block)
        return await self._shared.calls.run(self.file.read, start, stop)

    @staticmethod
    def _take(content: Content, start: int, stop: int, *, must_copy: bool) -> bytes | memoryview | None:
        """The bytes if they are sound; None if somebody has changed them under us."""
        data = content.copy(start, stop) if must_copy else content.view[start:stop]
        return data if content.is_intact() and len(data) == stop - start else None

    def _wants_block(self, index: int, size: int) -> bool:
        """Whether a miss should bring in the whole block rather than just the bytes wanted."""
        if self._prefetcher.is_sequential or 4 * size >= self._keys.block_size_bytes:
            return True
        touches = self._touches.pop(index, 0) + 1
        self._touches[index] = touches
        if len(self._touches) > _TOUCHED_MAX:
            self._touches.popitem(last=False)
        return touches > _RANDOM_READS_PER_BLOCK

    async def _read_directly(self, index: int, start: int, stop: int) -> bytes | None:
        """A random read: just these bytes from the filesystem; None when the cache's disk has the block."""

        def read() -> bytes | None:
            store = self._cache.store
            if store is not None and store.contains(self._keys[index]):
                return None
            return self.file.read(start, stop)

        data = await self._shared.calls.run(read)
        if data is not None:
            self._shared.metrics.miss_count += 1
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
                fill.finished = self._finished
            self._planned = end

    def _finished(self, fill: Fill) -> None:
        if fill in self._fills:
            self._fills.remove(fill)
            if fill.blocks:  # the next READ plans anew: at once it would only fail again
                self._planned = min(self._planned, fill.at // self._keys.block_size_bytes)
            else:
                self._pump()

    def _cancel_fills(self) -> None:
        for fill in self._fills:
            fill.cancel()
        self._fills.clear()
        self._planned = 0
        self._goal = 0
        self._cache.forget_reader(self)

    # --- counting, closing ---

    def _count_block(self, index: int, block: CachedBlock) -> None:
        if index not in self._counted:
            self._counted.append(index)
            self._shared.count(block.from_disk or block.uses > 0, block.key.length_bytes)
            block.uses += 1

    def close(self) -> None:
        """End the read-ahead and free the connection."""
        self._is_closed = True
        self._cancel_fills()
        self.file.close()
