"""The block cache as the event loop sees it: which blocks are in reach, and the loads that bring others.

It knows keys and functions that read, never a filesystem. One load per block however many wait; loads belong to the
cache, so a reader that goes away harms nobody.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

import trio

from hdfs_fuse.cache.blocks import CachedBlock
from hdfs_fuse.cache.content import Content, LoadCancelledError, MemoryBlock, MemoryBudget
from hdfs_fuse.cache.fill import Fill, Stream
from hdfs_fuse.cache.keys import BlockKey, BlockKeys
from hdfs_fuse.cache.loaders import Loaders
from hdfs_fuse.cache.small import LoadRequest, SmallAnswer, SmallFile, load_small
from hdfs_fuse.cache.store import BlockStore
from hdfs_fuse.errors import DeadlineError, HdfsFuseError
from hdfs_fuse.workers import Workers

# Maps are bounded by vm.max_map_count (65,530), and each keeps two descriptors: of 1,024 that a process may have.
MAX_MAPPED_BLOCKS = 256
# For blocks that the disk does not take. With as much for the streams of 16 readers a mount stays at about 200 MiB.
MEMORY_BYTES = 48 << 20
# How long such a block that was not read to its end is kept when others need memory, in seconds after its last use.
_UNREAD_S = 5.0
# How long a load waits for the event loop to make room, in seconds.
_ROOM_S = 1.0
# A reader that has read nothing for so long, in seconds, needs no memory for what is ahead of it.
_READER_S = 1.0
# Uses of small blocks are written down so many at a time.
_NOTED_USES = 32
# How often loads that bring nothing are looked for, in seconds.
_SWEEP_S = 0.25


class BlockCache:
    """Blocks in reach of this mount. All public methods belong to the event loop."""

    def __init__(self, store: BlockStore | None, workers: Workers, loaders: Loaders | None = None) -> None:
        """Use `store`, or only memory without one.

        Args:
            store: the node's cache directory.
            workers: threads for the loads.
            loaders: processes for those of small blocks, when there are many.
        """
        self.store = store
        self.budget = MemoryBudget(MEMORY_BYTES)
        self._workers = workers
        self._loaders = loaders
        self._small_loads = 0  # that somebody waits for
        self._fills: set[Fill] = set()
        self._blocks: OrderedDict[str, CachedBlock] = OrderedDict()
        self._readers: dict[object, float] = {}  # sequential ones, and when they last read

    @property
    def loader_count(self) -> int:
        """How many loader processes there are now."""
        return 0 if self._loaders is None else len(self._loaders)

    def get(self, keys: BlockKeys, index: int) -> CachedBlock | None:
        """The block if it is in reach and intact, loading ones included; None otherwise."""
        block = self._blocks.get(keys[index].name)
        if block is None:
            return None
        if block.is_failed or (block.content is not None and not block.content.is_intact()):
            self.drop(block)
            return None
        self._blocks.move_to_end(block.key.name)
        return block

    def is_known(self, keys: BlockKeys, index: int) -> bool:
        """Whether the block is in reach or loading, without a look at it."""
        block = self._blocks.get(keys[index].name)
        return block is not None and not block.is_failed

    def ahead_bytes(self, reader: object, wanted: int, block_size_bytes: int) -> int:
        """How far ahead a sequential reader may load.

        What the disk does not take stays in memory until it has been read, and readers share that: besides what is
        ahead of it, each has a block that it is reading, and one that it has just read. Loaded further ahead, blocks
        would be dropped unread, and loaded twice.

        Args:
            reader: who asks; stands for itself until `forget_reader`.
            wanted: how far it wants to, in bytes.
            block_size_bytes: of its file.
        """
        now_s = trio.current_time()
        self._readers[reader] = now_s
        if self.store is not None and self.store.takes_blocks:
            return wanted
        count = sum(now_s - last_s <= _READER_S for last_s in self._readers.values())
        return max(min(wanted, self.budget.size_bytes // count - 2 * block_size_bytes), 0)

    def forget_reader(self, reader: object) -> None:
        """It reads no more in sequence."""
        self._readers.pop(reader, None)

    def load(self, keys: BlockKeys, first: int, end: int, stream: Stream) -> list[Fill]:
        """Start to bring in the blocks [first, end) that are not in reach yet.

        Returns:
            The loads that were started, for `Fill.cancel`.
        """
        fills = []
        for run_first, run_end in _runs([not self.is_known(keys, i) for i in range(first, end)]):
            blocks = [CachedBlock(keys[first + i]) for i in range(run_first, run_end)]
            for block in blocks:
                self._blocks[block.key.name] = block
            start = (first + run_first) * keys.block_size_bytes
            fill = Fill(
                blocks, start, stream, self.store, self.budget, self._make_room, self._complete, self._workers.notify
            )
            self._workers.submit(partial(self._run, fill))
            fills.append(fill)
        self._fills.update(fills)
        self._trim()
        return fills

    def read_small_nowait(self, key: BlockKey) -> bytes | None:
        """A small block's content if it can be had without waiting for the disk; None otherwise."""
        if self.store is None or key.name in self._blocks:
            return None
        data = self.store.read_nowait(key)
        if self.store.unnoted_uses >= _NOTED_USES:
            self._workers.submit(self.store.note_uses)
        return data

    def load_small(self, key: BlockKey, file: SmallFile) -> CachedBlock:
        """A small block, from the disk or from its file; joins a load that is under way."""
        block = self._blocks.get(key.name)
        if block is None or block.is_failed:
            block = self._blocks[key.name] = CachedBlock(key)
            self._small_loads += 1
            load = LoadRequest(key.name, file.path, file.mtime_ms, key.length_bytes, check=file.check is not None)
            here = partial(self._workers.submit, partial(self._run_small, block, file))
            if self._loaders is None or not self._loaders.start(
                load, partial(self._end_small, block), here, busy=self._small_loads
            ):
                here()
        return block

    def _run_small(self, block: CachedBlock, file: SmallFile) -> None:
        if block.is_failed:  # given up while it waited for a thread
            self._workers.notify(self._end_small, block, SmallAnswer(None, LoadCancelledError("given up")))
            return
        load_small(block.key, file, self.store, partial(self._workers.notify, self._answer_small, block))
        # Stored by now, or not worth the memory: those who asked have it.
        self._workers.notify(self._forget, block)

    def _answer_small(self, block: CachedBlock, answer: SmallAnswer) -> None:
        self._small_loads -= 1
        block.answered(answer)

    def _end_small(self, block: CachedBlock, answer: SmallAnswer) -> None:
        self._answer_small(block, answer)
        self._forget(block)

    def _run(self, fill: Fill) -> None:
        fill.run()
        self._workers.notify(self._end, fill)

    def _complete(self, block: CachedBlock, content: Content, from_disk: bool) -> None:
        block.complete(content, from_disk)
        if self._blocks.get(block.key.name) is not block:
            content.close()  # taken out of reach while it was loading: nobody else would

    def _end(self, fill: Fill) -> None:
        self._fills.discard(fill)
        for block in fill.blocks:
            self._forget(block)
        fill.finished(fill)

    async def watch(self, deadline_s: float, on_timeout: Callable[[], object]) -> None:
        """Give up loads that have brought nothing for `deadline_s` seconds to those who wait; runs beside them.

        `on_timeout` hears of each.
        One look at all of them four times a second: a timer for each wait is a tenth of what a small file costs.
        """
        while True:
            await trio.sleep(_SWEEP_S)
            overdue_s = trio.current_time() - deadline_s
            for block in [b for b in self._blocks.values() if b.waiting and b.waiting_since_s <= overdue_s]:
                on_timeout()
                self.abandon(block, DeadlineError(f"no bytes within {deadline_s:g} s"))

    def abandon(self, block: CachedBlock, error: HdfsFuseError) -> None:
        """Give up on the load that should bring `block`: what it has not brought is loaded anew when asked for."""
        for fill in self._fills:
            if block in fill.blocks:
                fill.cancel()
                for other in fill.blocks:
                    if other is not block:
                        self._forget(other)
                        other.fail(LoadCancelledError("abandoned"))  # who waits for it asks again
        if self._loaders is not None:
            self._loaders.abandon(block.key.name)
        self._forget(block)
        block.fail(error)

    def drop_changing(self) -> None:
        """Let go of blocks whose files somebody wants to change: store.LEASE_SIGNAL has come."""
        for block in list(self._blocks.values()):
            if block.is_complete and block.content is not None and not block.content.is_intact():
                self.drop(block)

    def drop(self, block: CachedBlock) -> None:
        """Take a block out of reach; those who hold a view keep it."""
        self._forget(block)
        if block.content is not None and block.is_complete:
            block.content.close()

    def _forget(self, block: CachedBlock) -> None:
        if self._blocks.get(block.key.name) is block:
            del self._blocks[block.key.name]

    def _trim(self) -> None:
        """Let the least recently used blocks go when there are too many."""
        if len(self._blocks) > MAX_MAPPED_BLOCKS:
            # Those that load have no descriptors yet, and must not drive out those that are there.
            complete = [block for block in self._blocks.values() if block.is_complete]
            for block in complete[: max(len(complete) - MAX_MAPPED_BLOCKS, 0)]:
                self.drop(block)

    def _make_room(self, size_bytes: int) -> bool:
        """Have blocks in memory go for one of `size_bytes`. For the threads of loads: waits for the event loop.

        Returns:
            Whether there was room for it then.
        """
        is_made = threading.Event()
        has_room = False

        def make() -> None:
            nonlocal has_room
            has_room = self._drop_from_memory(self.budget.size_bytes - size_bytes)
            is_made.set()

        self._workers.notify(make)
        is_made.wait(_ROOM_S)
        return has_room

    def _drop_from_memory(self, keep_bytes: int) -> bool:
        """Let blocks in memory go until no more than `keep_bytes` are taken; whether that came to be.

        First those that were read to their end, then those that nobody has touched for a while, the least recently used
        first.
        """
        unread_s = trio.current_time() - _UNREAD_S
        blocks = [
            block for block in self._blocks.values() if block.is_complete and isinstance(block.content, MemoryBlock)
        ]
        for block in sorted(blocks, key=lambda block: not block.is_read):
            if self.budget.used_bytes <= keep_bytes:
                break
            if block.is_read or block.touched_s <= unread_s:
                self.drop(block)
        return self.budget.used_bytes <= keep_bytes

    def close(self) -> None:
        """Let all blocks go, and have the loads end at their next chunk."""
        for fill in self._fills:
            fill.cancel()
        for block in list(self._blocks.values()):
            self.drop(block)


def _runs(flags: list[bool]) -> Iterator[tuple[int, int]]:
    """The runs of True as [first, end)."""
    first = None
    for i, flag in enumerate([*flags, False]):
        if flag and first is None:
            first = i
        elif not flag and first is not None:
            yield first, i
            first = None
