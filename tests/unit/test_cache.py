"""Blocks in reach of the loop: loads, waiters, cancels, and what becomes of what nobody wants."""

import gc
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio
from hdfs_fuse import errors
from hdfs_fuse.cache import cache as cache_module
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.cache.content import BlockUnavailableError, LoadCancelledError, MemoryBudget
from hdfs_fuse.cache.keys import BlockKeys, FileVersion
from hdfs_fuse.cache.small import SmallFile
from hdfs_fuse.cache.store import LEASE_SIGNAL, BlockStore
from hdfs_fuse.workers import Workers

from tests.model.harness import Gate, eventually

BLOCK = 64 << 10
DATA = os.urandom(8 * BLOCK - 100)
KEYS = BlockKeys(FileVersion("test", "/file", 1, len(DATA)), BLOCK)


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def block_data(index: int) -> bytes:
    return DATA[index * BLOCK : (index + 1) * BLOCK]


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[BlockCache]:
    before = descriptors()
    store = BlockStore(str(tmp_path / "cache"), 100 << 20, 0)
    workers = Workers(4, "test")
    cache = BlockCache(store, workers)
    yield cache
    cache.close()
    workers.close()
    store.close()
    await eventually(lambda: descriptors() <= before)


@pytest.fixture
async def in_memory() -> AsyncIterator[BlockCache]:
    workers = Workers(4, "test")
    cache = BlockCache(None, workers)
    yield cache
    cache.close()
    workers.close()
    await eventually(lambda: cache.budget.used_bytes == 0)


async def wait(cache: BlockCache, index: int, stop: int | None = None) -> bytes:
    block = cache.get(KEYS, index)
    assert block is not None
    stop = block.key.length_bytes if stop is None else stop
    content = await block.wait_filled(stop)
    return bytes(content.view[:stop])


@pytest.mark.trio
async def test_bytes_are_served_as_they_land(on_disk: BlockCache) -> None:
    gate = Gate(DATA, chunk_bytes=BLOCK)
    gate.hold()
    on_disk.load(KEYS, 0, 2, gate.load)
    block = on_disk.get(KEYS, 0)
    assert block is not None
    assert block.filled_bytes == 0
    gate.release()
    assert await wait(on_disk, 0) == block_data(0)
    assert await wait(on_disk, 1) == block_data(1)
    assert gate.calls == [(0, 2 * BLOCK)]


@pytest.mark.trio
async def test_one_load_however_many_wait(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    results: list[bytes] = []

    async def read() -> None:
        on_disk.load(KEYS, 3, 4, gate.load)
        results.append(await wait(on_disk, 3))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(read)
        await eventually(lambda: gate.is_waited_at)
        gate.release()
    assert gate.calls == [(3 * BLOCK, 4 * BLOCK)]
    assert results == [block_data(3)] * 20


@pytest.mark.trio
async def test_a_load_takes_only_what_is_not_known(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    gate.release()
    on_disk.load(KEYS, 2, 3, gate.load)
    on_disk.load(KEYS, 5, 6, gate.load)
    fills = on_disk.load(KEYS, 0, 8, gate.load)
    assert len(fills) == 3
    for index in range(8):
        assert await wait(on_disk, index) == block_data(index)
    assert sorted(gate.calls) == [
        (0, 2 * BLOCK),
        (2 * BLOCK, 3 * BLOCK),
        (3 * BLOCK, 5 * BLOCK),
        (5 * BLOCK, 6 * BLOCK),
        (6 * BLOCK, len(DATA)),
    ]


@pytest.mark.trio
async def test_blocks_of_the_disk_need_no_load(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    gate.release()
    on_disk.load(KEYS, 0, 8, gate.load)
    for index in range(8):
        await wait(on_disk, index)
    on_disk.close()
    on_disk.load(KEYS, 0, 8, gate.load)
    for index in range(8):
        assert await wait(on_disk, index) == block_data(index)
    assert len(gate.calls) == 1


@pytest.mark.trio
async def test_a_gap_on_the_disk_is_streamed_and_nothing_else(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    gate.release()
    on_disk.load(KEYS, 0, 8, gate.load)
    for index in range(8):
        await wait(on_disk, index)
    on_disk.close()
    assert on_disk.store is not None
    os.unlink(on_disk.store.path_of(KEYS[3].name))
    os.truncate(on_disk.store.path_of(KEYS[5].name), 7)
    on_disk.load(KEYS, 0, 8, gate.load)
    for index in range(8):
        assert await wait(on_disk, index) == block_data(index)
    assert gate.calls[1:] == [(3 * BLOCK, 4 * BLOCK), (5 * BLOCK, 6 * BLOCK)]


@pytest.mark.parametrize("kind", ["on_disk", "in_memory"])
@pytest.mark.parametrize("offset", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 77])
@pytest.mark.trio
async def test_a_failure_comes_to_all_who_wait_and_the_block_can_be_loaded_again(
    kind: str, offset: int, request: pytest.FixtureRequest, on_disk: BlockCache, in_memory: BlockCache
) -> None:
    cache = on_disk if kind == "on_disk" else in_memory
    gate = Gate(DATA)
    gate.fail_at(offset, errors.UnavailableError("cut"))
    failures: list[str] = []
    cache.load(KEYS, 0, 4, gate.load)
    broken = offset // BLOCK

    async def read() -> None:
        try:
            await wait(cache, broken)
        except errors.UnavailableError as e:
            failures.append(str(e))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
        block = cache.get(KEYS, broken)
        assert block is not None
        await eventually(lambda: block.waiting == 5)
        gate.release()
    assert failures == ["cut"] * 5
    for index in range(broken):
        assert await wait(cache, index) == block_data(index)
    await eventually(lambda: not any(cache.is_known(KEYS, index) for index in range(broken, 4)))
    cache.load(KEYS, 0, 4, gate.load)
    for index in range(4):
        assert await wait(cache, index) == block_data(index)


@pytest.mark.trio
async def test_a_stream_that_ends_short_is_an_error_never_zeros(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    gate.fail_at(BLOCK + 5, None)
    on_disk.load(KEYS, 0, 3, gate.load)
    broken = on_disk.get(KEYS, 1)
    assert broken is not None
    gate.release()
    assert await wait(on_disk, 0) == block_data(0)
    with pytest.raises(errors.ShortReadError):
        await broken.wait_filled(broken.key.length_bytes)
    assert on_disk.store is not None
    assert not on_disk.store.contains(KEYS[1])


@pytest.mark.trio
async def test_an_unexpected_exception_is_an_error_of_ours(
    in_memory: BlockCache, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(DATA)
    gate.fail_at(5, ZeroDivisionError("bug"))
    in_memory.load(KEYS, 0, 1, gate.load)
    block = in_memory.get(KEYS, 0)
    assert block is not None
    gate.release()
    with pytest.raises(BlockUnavailableError, match="bug"):
        await block.wait_filled(BLOCK)
    assert "block load failed unexpectedly" in caplog.text


@pytest.mark.trio
async def test_a_cancelled_load_ends_and_frees_what_it_had(on_disk: BlockCache) -> None:
    gate = Gate(DATA, chunk_bytes=1000)
    before = descriptors()
    (fill,) = on_disk.load(KEYS, 0, 4, gate.load)
    await eventually(lambda: gate.is_waited_at)
    fill.cancel()
    gate.release()
    await eventually(lambda: not on_disk.is_known(KEYS, 3))
    assert len(fill.blocks) >= 3  # all but the one that was loading
    on_disk.close()
    del fill  # with its blocks and their maps
    await eventually(lambda: descriptors() <= before)


@pytest.mark.trio
async def test_a_cancelled_load_goes_on_for_who_still_waits(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    (fill,) = on_disk.load(KEYS, 0, 4, gate.load)
    await eventually(lambda: gate.is_waited_at)

    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await wait(on_disk, 1) == block_data(1)

        nursery.start_soon(read)
        block = on_disk.get(KEYS, 1)
        assert block is not None
        await eventually(lambda: block.waiting == 1)
        fill.cancel()
        gate.release()
    await eventually(lambda: not on_disk.is_known(KEYS, 3))
    assert await wait(on_disk, 0) == block_data(0)


@pytest.mark.trio
async def test_who_asks_after_the_cancel_is_told_to_ask_again(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    (fill,) = on_disk.load(KEYS, 0, 4, gate.load)
    block = on_disk.get(KEYS, 3)
    assert block is not None
    await eventually(lambda: gate.is_waited_at)
    fill.cancel()
    gate.release()
    await eventually(lambda: block.is_failed)
    with pytest.raises(LoadCancelledError):
        await block.wait_filled(1)


@pytest.mark.trio
async def test_a_waiter_that_goes_away_harms_nobody(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    on_disk.load(KEYS, 0, 1, gate.load)
    block = on_disk.get(KEYS, 0)
    assert block is not None
    results: list[bytes] = []

    async def read() -> None:
        results.append(await wait(on_disk, 0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with trio.open_nursery() as leaving:
            leaving.start_soon(read)
            await eventually(lambda: block.waiting == 2)
            leaving.cancel_scope.cancel()
        assert block.waiting == 1
        gate.release()
    assert results == [block_data(0)]


@pytest.mark.trio
async def test_a_block_dropped_while_it_loads_leaves_nothing_behind(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    before = descriptors()
    on_disk.load(KEYS, 0, 2, gate.load)
    block = on_disk.get(KEYS, 0)
    assert block is not None
    on_disk.drop(block)
    gate.release()
    await block.wait_filled(BLOCK)
    assert await wait(on_disk, 1) == block_data(1)
    del block
    other = on_disk.get(KEYS, 1)
    assert other is not None
    on_disk.drop(other)
    del other
    await eventually(lambda: descriptors() <= before)


@pytest.mark.trio
async def test_memory_of_a_block_dropped_while_it_loads_is_given_back(in_memory: BlockCache) -> None:
    gate = Gate(DATA)
    in_memory.load(KEYS, 0, 1, gate.load)
    block = in_memory.get(KEYS, 0)
    assert block is not None
    in_memory.drop(block)
    gate.release()
    await block.wait_filled(BLOCK)
    await eventually(lambda: in_memory.budget.used_bytes == 0)


@pytest.mark.trio
async def test_an_abandoned_load_does_not_keep_its_blocks(on_disk: BlockCache) -> None:
    """One that hangs in a dead client must not make its blocks unreadable for ever."""
    hanging, working = Gate(DATA), Gate(DATA)
    working.release()
    on_disk.load(KEYS, 0, 4, hanging.load)
    block = on_disk.get(KEYS, 1)
    assert block is not None
    await eventually(lambda: hanging.is_waited_at)
    on_disk.abandon(block, errors.DeadlineError("no bytes"))
    on_disk.load(KEYS, 0, 4, working.load)
    for index in range(4):
        assert await wait(on_disk, index) == block_data(index)
    before = descriptors()
    hanging.release()
    await eventually(lambda: block.is_failed)
    for index in range(4):
        assert await wait(on_disk, index) == block_data(index)
    await eventually(lambda: descriptors() <= before)


@pytest.mark.trio
async def test_damage_is_noticed_before_bytes_are_served(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    gate.release()
    on_disk.load(KEYS, 0, 2, gate.load)
    await wait(on_disk, 1)
    assert on_disk.store is not None
    for index in (0, 1):
        path = on_disk.store.path_of(KEYS[index].name)
        with trio.open_signal_receiver(LEASE_SIGNAL) as signals, trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, os.truncate, path, 100)
                await anext(signals)
                assert os.stat(path).st_size == len(block_data(index))
                if index == 0:
                    assert on_disk.get(KEYS, index) is None
                else:
                    on_disk.drop_changing()
                    assert not on_disk.is_known(KEYS, index)
        on_disk.load(KEYS, index, index + 1, gate.load)
        assert await wait(on_disk, index) == block_data(index)


@pytest.mark.trio
async def test_blocks_in_reach_are_bounded(on_disk: BlockCache) -> None:
    size = 4096
    count = 3 * cache_module.MAX_MAPPED_BLOCKS
    data = os.urandom(count * size)
    keys = BlockKeys(FileVersion("test", "/many", 1, len(data)), size)
    gate = Gate(data, chunk_bytes=1 << 20)
    gate.release()
    before = descriptors()
    for first in range(0, count, 32):
        on_disk.load(keys, first, first + 32, gate.load)
        block = on_disk.get(keys, first + 31)
        assert block is not None
        await block.wait_filled(size)
        del block
    assert descriptors() - before <= 2 * (cache_module.MAX_MAPPED_BLOCKS + 64)


@pytest.mark.trio
async def test_memory_is_bounded_and_blocks_beyond_it_are_refused(in_memory: BlockCache) -> None:
    size = 16 << 20
    data = bytes(6 * size)
    keys = BlockKeys(FileVersion("test", "/large", 1, len(data)), size)
    gate = Gate(data, chunk_bytes=4 << 20)
    gate.release()
    in_memory.load(keys, 0, 6, gate.load)
    blocks = [in_memory.get(keys, i) for i in range(6)]
    failures = 0
    for block in blocks:
        assert block is not None
        try:
            await block.wait_filled(size)
        except BlockUnavailableError:
            failures += 1
    assert failures == 6 - cache_module.MEMORY_BYTES // size
    assert in_memory.budget.used_bytes == cache_module.MEMORY_BYTES


async def fill_memory(cache: BlockCache) -> None:
    """Load the first four blocks, for which there is just enough memory."""
    cache.budget.size_bytes = 4 * BLOCK
    gate = Gate(DATA)
    gate.release()
    cache.load(KEYS, 0, 4, gate.load)
    for i in range(4):
        assert await wait(cache, i) == block_data(i)


def touch(cache: BlockCache, index: int, stop: int) -> None:
    block = cache.get(KEYS, index)
    assert block is not None
    block.touch(stop)


async def load_more(cache: BlockCache, *indices: int) -> None:
    """Load further blocks, each by a load of its own."""
    gate = Gate(DATA)
    for i in indices:
        cache.load(KEYS, i, i + 1, gate.load)
    gate.release()
    for i in indices:
        assert await wait(cache, i) == block_data(i)


def known(cache: BlockCache) -> list[int]:
    return [i for i in range(8) if cache.is_known(KEYS, i)]


@pytest.mark.trio
async def test_memory_is_taken_from_blocks_that_were_read_to_their_end(
    in_memory: BlockCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_UNREAD_S", float("inf"))
    await fill_memory(in_memory)
    touch(in_memory, 0, BLOCK - 1)
    for i in (3, 1):
        touch(in_memory, i, BLOCK)
    await load_more(in_memory, 4)
    assert known(in_memory) == [0, 1, 2, 4]
    await load_more(in_memory, 5)
    assert known(in_memory) == [0, 2, 4, 5]
    with pytest.raises(BlockUnavailableError, match="room"):
        await load_more(in_memory, 6)


@pytest.mark.trio
async def test_memory_of_blocks_that_nobody_reads_is_taken_after_a_while(
    in_memory: BlockCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_UNREAD_S", float("inf"))
    await fill_memory(in_memory)
    with pytest.raises(BlockUnavailableError, match="room"):
        await load_more(in_memory, 4)
    monkeypatch.setattr(cache_module, "_UNREAD_S", 0.0)
    await load_more(in_memory, 4)
    assert known(in_memory) == [1, 2, 3, 4]


@pytest.mark.trio
async def test_loads_that_need_memory_at_once_all_get_it(in_memory: BlockCache) -> None:
    await fill_memory(in_memory)
    for i in range(4):
        touch(in_memory, i, BLOCK)
    await load_more(in_memory, 4, 5, 6, 7)
    assert known(in_memory)[-4:] == [4, 5, 6, 7]
    assert in_memory.budget.used_bytes <= in_memory.budget.size_bytes


@pytest.mark.trio
async def test_readers_share_the_memory_for_what_is_ahead_of_them(in_memory: BlockCache) -> None:
    in_memory.budget.size_bytes = 100
    assert [in_memory.ahead_bytes("one", wanted, 10) for wanted in (0, 80, 81)] == [0, 80, 80]
    assert in_memory.ahead_bytes("two", 81, 10) == 30
    assert in_memory.ahead_bytes("one", 81, 10) == 30
    assert in_memory.ahead_bytes("one", 81, 26) == 0
    in_memory.forget_reader("two")
    assert in_memory.ahead_bytes("one", 81, 10) == 80


@pytest.mark.trio
async def test_a_reader_that_pauses_has_no_share(in_memory: BlockCache, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory.budget.size_bytes = 100
    in_memory.ahead_bytes("pausing", 81, 10)
    monkeypatch.setattr(cache_module, "_READER_S", 0.0)
    assert in_memory.ahead_bytes("one", 81, 10) == 80


@pytest.mark.trio
async def test_what_is_loaded_ahead_has_no_other_bound_while_the_disk_takes_it(on_disk: BlockCache) -> None:
    assert on_disk.ahead_bytes("one", 1 << 40, BLOCK) == 1 << 40
    assert on_disk.store is not None
    assert on_disk.store.create(BlockKeys(FileVersion("test", "/huge", 1, 1 << 30), 1 << 30)[0]) is None
    assert on_disk.ahead_bytes("one", 1 << 40, BLOCK) == cache_module.MEMORY_BYTES - 2 * BLOCK


def test_a_budget_never_goes_beyond_its_size() -> None:
    budget = MemoryBudget(100)
    assert budget.take(60)
    assert not budget.take(41)
    assert budget.take(40)
    budget.give_back(60)
    assert budget.used_bytes == 40


# --- small blocks ---

SMALL = BlockKeys(FileVersion("test", "/small", 1, 5000), BLOCK)[0]


def file_of(read: Callable[[int, int], bytes], check: Callable[[], object] | None = None) -> SmallFile:
    return SmallFile("/small", 1, read, check)


@pytest.mark.trio
async def test_a_small_block_is_read_once_and_then_comes_from_the_disk(on_disk: BlockCache) -> None:
    gate = Gate(DATA)
    gate.release()

    def read(start: int, stop: int) -> bytes:
        return b"".join(gate.load(start, stop))

    first, second = on_disk.load_small(SMALL, file_of(read)), on_disk.load_small(SMALL, file_of(read))
    assert first is second
    content = await first.wait_filled(5000)
    assert content.copy(0, 5000) == DATA[:5000]
    await eventually(lambda: on_disk.read_small_nowait(SMALL) == DATA[:5000])
    again = on_disk.load_small(SMALL, file_of(read))
    await again.wait_filled(5000)
    assert again.from_disk
    assert gate.calls == [(0, 5000)]


@pytest.mark.trio
async def test_a_refused_check_reaches_the_reader_and_reads_nothing(on_disk: BlockCache) -> None:
    def refuse() -> None:
        raise errors.PermissionDeniedError("no")

    def read(start: int, stop: int) -> bytes:
        raise AssertionError("read without permission")

    block = on_disk.load_small(SMALL, file_of(read, refuse))
    with pytest.raises(errors.PermissionDeniedError):
        await block.wait_filled(5000)
    assert not block.is_checked
    await eventually(lambda: on_disk.load_small(SMALL, file_of(lambda a, b: DATA[a:b])) is not block)


@pytest.mark.trio
async def test_a_small_load_that_fails_can_be_repeated(in_memory: BlockCache) -> None:
    def fail(start: int, stop: int) -> bytes:
        raise errors.UnavailableError("cut")

    block = in_memory.load_small(SMALL, file_of(fail, lambda: None))
    with pytest.raises(errors.UnavailableError):
        await block.wait_filled(5000)
    assert block.is_checked
    block = in_memory.load_small(SMALL, file_of(lambda start, stop: DATA[start:stop]))
    content = await block.wait_filled(5000)
    assert content.copy(0, 5000) == DATA[:5000]
