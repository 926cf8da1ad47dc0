"""The read-ahead policy: what it takes for a sequence, and how far ahead it goes."""

from random import Random

import pytest
from hdfs_fuse.config import KIB, MIB
from hdfs_fuse.prefetch import Prefetcher
from hypothesis import given
from hypothesis import strategies as st

WINDOW = 64 * MIB
READ = 128 * KIB


def test_a_reader_from_the_start_is_sequential_at_once() -> None:
    prefetcher = Prefetcher(WINDOW)
    assert prefetcher.observe(0, READ) == READ + 4 * MIB
    assert prefetcher.is_sequential


def test_a_small_read_of_the_beginning_is_answered_by_itself() -> None:
    prefetcher = Prefetcher(WINDOW)
    assert prefetcher.observe(0, 16 * KIB) == 0
    assert not prefetcher.is_sequential
    assert prefetcher.observe(16 * KIB, READ) == READ + 4 * MIB
    assert prefetcher.is_sequential


def test_the_window_doubles_up_to_its_bound() -> None:
    prefetcher = Prefetcher(WINDOW)
    ahead = [prefetcher.observe(i * READ, (i + 1) * READ) - (i + 1) * READ for i in range(8)]
    assert ahead == [4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB, 64 * MIB, 64 * MIB, 64 * MIB]


def test_reads_slightly_out_of_order_are_still_a_sequence() -> None:
    prefetcher = Prefetcher(WINDOW)
    prefetcher.observe(0, READ)
    for index in (3, 1, 2, 6, 5, 4):
        prefetcher.observe(index * READ, (index + 1) * READ)
        assert prefetcher.is_sequential


def test_a_late_read_does_not_take_the_goal_back() -> None:
    prefetcher = Prefetcher(WINDOW)
    prefetcher.observe(0, READ)
    goal = prefetcher.observe(READ, 3 * READ)
    assert prefetcher.observe(READ, 2 * READ) == goal


@pytest.mark.parametrize("start", [READ, 100 * MIB, 8 * MIB])
def test_a_first_read_elsewhere_is_random(start: int) -> None:
    prefetcher = Prefetcher(WINDOW)
    assert prefetcher.observe(start, start + READ) == start
    assert not prefetcher.is_sequential


def test_two_reads_in_a_row_anywhere_begin_a_sequence() -> None:
    prefetcher = Prefetcher(WINDOW)
    prefetcher.observe(100 * MIB, 100 * MIB + READ)
    assert prefetcher.observe(100 * MIB + READ, 100 * MIB + 2 * READ) == 104 * MIB + 2 * READ


@pytest.mark.parametrize("target", [0, 40 * MIB, 200 * MIB])
def test_a_seek_ends_the_sequence_and_the_window_starts_anew(target: int) -> None:
    prefetcher = Prefetcher(WINDOW)
    for i in range(160):
        prefetcher.observe((100 * MIB) + i * READ, (100 * MIB) + (i + 1) * READ)
    assert prefetcher.observe(target, target + READ) == target
    assert prefetcher.observe(target + READ, target + 2 * READ) == target + 2 * READ + 4 * MIB


def test_a_window_of_zero_never_reads_ahead() -> None:
    prefetcher = Prefetcher(0)
    for i in range(10):
        assert prefetcher.observe(i * READ, (i + 1) * READ) == (i + 1) * READ


@given(
    window=st.integers(0, 256 * MIB),
    reads=st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 4 * MIB)), max_size=60),
)
def test_the_goal_stays_within_the_window(window: int, reads: list[tuple[int, int]]) -> None:
    prefetcher = Prefetcher(window)
    farthest = 0
    for start, size in reads:
        stop = start + size
        goal = prefetcher.observe(start, stop)
        if prefetcher.is_sequential:
            farthest = max(farthest, stop)
            assert stop <= goal <= farthest + window
        else:
            farthest = stop
            assert goal == start


@given(sizes=st.lists(st.integers(1, 2 * MIB), min_size=2, max_size=60), start=st.integers(0, 1 << 40))
def test_a_reader_without_gaps_is_sequential_from_its_second_read_on(sizes: list[int], start: int) -> None:
    prefetcher = Prefetcher(WINDOW)
    position = start
    for i, size in enumerate(sizes):
        goal = prefetcher.observe(position, position + size)
        position += size
        if i:
            assert prefetcher.is_sequential
            assert goal >= position + 4 * MIB


@given(st.randoms(use_true_random=False), st.integers(4, 60))
def test_any_order_within_the_slack_is_a_sequence(random: Random, count: int) -> None:
    prefetcher = Prefetcher(WINDOW)
    prefetcher.observe(0, READ)
    indices = list(range(1, count))
    random.shuffle(indices)
    for index in indices:
        prefetcher.observe(index * READ, (index + 1) * READ)
        assert prefetcher.is_sequential
