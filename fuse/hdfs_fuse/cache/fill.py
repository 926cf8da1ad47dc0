"""The work of one thread: bring consecutive blocks in, from the cache's disk or the filesystem."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence

from hdfs_fuse.cache.blocks import CachedBlock
from hdfs_fuse.cache.content import BlockUnavailableError, Content, LoadCancelledError, MemoryBlock, MemoryBudget
from hdfs_fuse.cache.store import BlockStore, StoredBlock
from hdfs_fuse.errors import HdfsFuseError, ShortReadError

logger = logging.getLogger(__name__)

Chunk = bytes | memoryview
# stream(start, stop): the bytes [start, stop) of the file, in order, in chunks of any size.
Stream = Callable[[int, int], Iterator[Chunk]]

NewContent = StoredBlock | MemoryBlock

# How many bytes are gathered before they are written and announced: few at the start of a block, for the first
# byte's sake, then more, since each announcement wakes the event loop.
_FIRST_BATCH_BYTES = 64 << 10
_BATCH_BYTES = 1 << 20


class Fill:
    """Consecutive blocks and the load that brings them.

    `run` belongs to one thread; everything it tells goes through `notify`, which runs a function on the event
    loop. `cancel` may be called from anywhere, and takes effect at the next chunk.

    Attributes:
        blocks: which are still to be brought, in order: those that are complete are let go of.
        at: the byte of the file at which the first of those begins.
        finished: called on the loop after the last block.
    """

    def __init__(
        self,
        blocks: Sequence[CachedBlock],
        start: int,
        stream: Stream,
        store: BlockStore | None,
        budget: MemoryBudget,
        make_room: Callable[[int], bool],
        complete: Callable[[CachedBlock, Content, bool], object],
        notify: Callable[..., object],
    ) -> None:
        """Plan to bring blocks in.

        Args:
            blocks: consecutive ones.
            start: the byte of the file at which the first begins.
            stream: gives the file's bytes.
            store: where the blocks may be, and belong; None without a disk.
            budget: of the memory for those that find no place there.
            make_room: called in the thread when that is used up, with the size of a block; may block. Whether it is
                worth to try again.
            complete: called on the loop for each block, with its content and whether the store had it.
            notify: runs a function on the loop.
        """
        self.finished: Callable[[Fill], object] = lambda _: None
        self.blocks = tuple(blocks)
        self.at = start
        self._load = stream
        self._store = store
        self._budget = budget
        self._make_room = make_room
        self._complete = complete
        self._notify = notify
        self._cancelled = False

    def cancel(self) -> None:
        """Give up blocks that nobody waits for."""
        self._cancelled = True

    def run(self) -> None:
        """Do it. Never raises: errors go to those who wait for the blocks."""
        error: HdfsFuseError = LoadCancelledError("load cancelled")
        try:
            while self.blocks and not self._is_cancelled():
                if not self._take_stored():
                    self._stream(self._count_missing())
        except HdfsFuseError as e:
            error = e
        except Exception as e:
            logger.exception("block load failed unexpectedly")
            error = BlockUnavailableError(f"block load failed: {e!r}")
        for block in self.blocks:
            self._notify(block.fail, error)

    def _is_cancelled(self) -> bool:
        # Reading another thread's list of waiters is a snapshot, and enough: a waiter that comes later asks again.
        return self._cancelled and not any(block.waiting for block in self.blocks)

    def _take_stored(self) -> bool:
        """Complete the next block from the disk, if it is there."""
        if self._store is None:
            return False
        block = self.blocks[0]
        stored = self._store.open(block.key)
        if stored is None:
            return False
        self._finish(block, stored, from_disk=True)
        return True

    def _count_missing(self) -> int:
        """How many blocks, from the next one on, one stream has to bring."""
        count = 1
        while count < len(self.blocks) and not (self._store and self._store.contains(self.blocks[count].key)):
            count += 1
        return count

    def _stream(self, count: int) -> None:
        """Complete the next `count` blocks from one stream."""
        chunks = self._load(self.at, self.at + sum(block.key.length_bytes for block in self.blocks[:count]))
        try:
            pieces = _Pieces(chunks)
            while count and self._fill_block(self.blocks[0], pieces):
                count -= 1
        finally:
            if isinstance(chunks, Generator):
                chunks.close()  # ends the transfer now, not when the garbage is collected

    def _fill_block(self, block: CachedBlock, pieces: "_Pieces") -> bool:
        """Complete one block; False when cancelled."""
        content = self._new_content(block)
        is_done = False
        try:
            filled = 0
            while filled < block.key.length_bytes:
                if self._is_cancelled():
                    return False
                wanted = min(max(_FIRST_BATCH_BYTES, filled), _BATCH_BYTES, block.key.length_bytes - filled)
                content.append(pieces.take(wanted))
                filled += wanted
                if filled < block.key.length_bytes:
                    self._notify(block.landed, content, filled)
            content.publish()
            self._finish(block, content, from_disk=False)
            is_done = True
        except OSError as e:
            raise BlockUnavailableError(f"cache disk: {e}") from e
        finally:
            if not is_done:
                content.close()
        return True

    def _new_content(self, block: CachedBlock) -> NewContent:
        length = block.key.length_bytes
        stored = self._store.create(block.key) if self._store is not None else None
        if stored is not None:
            return stored
        while not self._budget.take(length):
            if not self._make_room(length):
                raise BlockUnavailableError("neither the cache's disk nor its memory has room for a block")
        try:
            return MemoryBlock(length, self._budget)
        except OSError:
            self._budget.give_back(length)
            raise

    def _finish(self, block: CachedBlock, content: Content, *, from_disk: bool) -> None:
        self.at += block.key.length_bytes
        self.blocks = self.blocks[1:]
        self._notify(self._complete, block, content, from_disk)


class _Pieces:
    """Chunks of any size, handed out in batches of the size wanted."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._rest: Chunk = b""

    def take(self, size_bytes: int) -> list[Chunk]:
        """The next chunks, exactly `size_bytes` together.

        Raises:
            ShortReadError: the stream ends before.
        """
        batch = []
        missing = size_bytes
        while missing:
            chunk = self._rest or next(self._chunks, None)
            if chunk is None:
                raise ShortReadError(f"the stream ended {missing} bytes before the end of the range")
            if len(chunk) > missing:
                view = memoryview(chunk)
                chunk, self._rest = view[:missing], view[missing:]
            else:
                self._rest = b""
            batch.append(chunk)
            missing -= len(chunk)
        return batch
