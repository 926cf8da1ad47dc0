"""What eviction gives up: simulated epochs against a real cache directory, on a clock of our own."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hdfs_fuse.cache.keys import BlockKey, BlockKeys, FileVersion
from hdfs_fuse.cache.reuse import TOUCH_INTERVAL_S, ReuseClock
from hdfs_fuse.cache.store import BlockStore
from hypothesis import given
from hypothesis import strategies as st

BLOCK = 4096
CACHE_BLOCKS = 300
START_S = 1_700_000_000.0


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[BlockStore]:
    store = BlockStore(str(tmp_path), CACHE_BLOCKS * BLOCK, 0, now_s=clock)
    yield store
    store.close()


def data_set(name: str, blocks: int) -> list[BlockKey]:
    keys = BlockKeys(FileVersion("test", f"/{name}", 1, blocks * BLOCK), BLOCK)
    return [keys[i] for i in range(blocks)]


def epoch(store: BlockStore, clock: Clock, keys: list[BlockKey], order: random.Random, *, step_s: float) -> float:
    """Read everything once in a new order, `step_s` seconds apart; returns the hit ratio."""
    hits = 0
    for key in order.sample(keys, len(keys)):
        clock.now_s += step_s
        if store.read(key) is not None:
            hits += 1
        else:
            store.put(key, key.name[:16].encode() * (BLOCK // 16))
    return hits / len(keys)


def test_a_set_of_twice_the_cache_hits_almost_every_second_time(store: BlockStore, clock: Clock) -> None:
    order, keys = random.Random(1), data_set("train", 2 * CACHE_BLOCKS)
    ratios = [epoch(store, clock, keys, order, step_s=0.2) for _ in range(4)]
    assert ratios[0] == 0
    assert min(ratios[1:]) >= 0.4, ratios


def test_a_set_that_fits_stays(store: BlockStore, clock: Clock) -> None:
    order, keys = random.Random(2), data_set("train", CACHE_BLOCKS)
    epoch(store, clock, keys, order, step_s=0.2)
    assert epoch(store, clock, keys, order, step_s=0.2) == 1.0


def test_a_scan_does_not_drive_out_what_is_used(store: BlockStore, clock: Clock) -> None:
    order, keys = random.Random(3), data_set("train", CACHE_BLOCKS)
    for _ in range(2):
        epoch(store, clock, keys, order, step_s=0.2)
    assert epoch(store, clock, data_set("scan", CACHE_BLOCKS // 2), order, step_s=0.02) == 0
    assert epoch(store, clock, keys, order, step_s=0.2) >= 0.9


def test_a_dead_data_set_is_replaced(store: BlockStore, clock: Clock) -> None:
    order, old, new = random.Random(4), data_set("old", CACHE_BLOCKS), data_set("new", CACHE_BLOCKS)
    for _ in range(3):
        epoch(store, clock, old, order, step_s=0.2)
    ratios = [epoch(store, clock, new, order, step_s=0.2) for _ in range(6)]
    assert ratios[-1] >= 0.9, ratios


def test_without_any_hit_the_newest_data_is_kept(store: BlockStore, clock: Clock) -> None:
    order = random.Random(5)
    epoch(store, clock, data_set("first", CACHE_BLOCKS), order, step_s=1)
    second = data_set("second", CACHE_BLOCKS)
    epoch(store, clock, second, order, step_s=1)
    assert sum(store.contains(key) for key in second) >= 0.6 * CACHE_BLOCKS


def test_what_was_learnt_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    order, keys = random.Random(6), data_set("train", 2 * CACHE_BLOCKS)
    for _ in range(2):
        store = BlockStore(str(tmp_path), CACHE_BLOCKS * BLOCK, 0, now_s=clock)
        ratio = epoch(store, clock, keys, order, step_s=0.2)
        store.close()
    for _ in range(2):
        store = BlockStore(str(tmp_path), CACHE_BLOCKS * BLOCK, 0, now_s=clock)
        ratio = epoch(store, clock, keys, order, step_s=0.2)
        store.close()
        assert ratio >= 0.4


def test_nothing_is_alive_before_the_first_hit() -> None:
    assert not ReuseClock().is_alive(START_S, START_S)


def test_without_hits_for_long_nothing_is_alive() -> None:
    clock = ReuseClock()
    clock.hit(START_S, START_S + 100)
    assert clock.is_alive(START_S + 100, START_S + 300)
    assert not clock.is_alive(START_S + 399, START_S + 400)


def test_long_epochs_are_forgotten_with_the_hits_of_short_ones() -> None:
    clock = ReuseClock()
    clock.hit(START_S, START_S + 36_000)
    for i in range(500):
        clock.hit(START_S + 36_000 + i, START_S + 36_010 + i)
    assert clock.longest_s == pytest.approx(10, rel=0.3)


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 1000)), min_size=1, max_size=50))
def test_a_block_used_within_the_longest_interval_is_alive(hits: list[tuple[int, int]]) -> None:
    clock, now_s = ReuseClock(), START_S
    for interval_s, pause_s in hits:
        clock.hit(now_s - interval_s, now_s)
        assert clock.longest_s >= interval_s
        assert clock.is_alive(now_s - clock.longest_s, now_s)
        assert not clock.is_alive(now_s - 2 * clock.longest_s - TOUCH_INTERVAL_S - 1, now_s)
        now_s += pause_s


def test_a_clock_that_goes_back_does_no_harm() -> None:
    clock = ReuseClock(longest_s=10, last_hit_s=START_S)
    clock.hit(START_S + 1000, START_S)
    assert clock.longest_s > 0
    assert clock.last_hit_s == START_S
