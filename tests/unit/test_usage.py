"""The counters that all processes of a node share."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hdfs_fuse.cache.usage import SHARDS, UsageFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "usage")


def test_counters_outlive_the_process(path: str) -> None:
    usage = UsageFile(path)
    assert usage.is_new
    usage.add(5, 4096)
    usage.add(SHARDS - 1, 8192)
    usage.set_reuse(12.5, 1_700_000_000.25)
    usage.close()
    usage = UsageFile(path)
    assert not usage.is_new
    assert usage.total_bytes() == 12288
    assert {i: size for i, size in enumerate(usage.shard_bytes()) if size} == {5: 4096, SHARDS - 1: 8192}
    assert usage.reuse() == (12.5, 1_700_000_000.25)
    usage.close()


def test_closing_twice_is_harmless(path: str) -> None:
    usage = UsageFile(path)
    usage.close()
    usage.close()


def test_a_counter_never_falls_below_zero(path: str) -> None:
    usage = UsageFile(path)
    usage.add(1, 4096)
    usage.add(2, 4096)
    usage.add(1, -100_000)
    assert usage.total_bytes() == 4096
    assert usage.shard_bytes()[1] == 0
    usage.close()


def test_a_recount_mends_one_shard_and_the_total(path: str) -> None:
    usage = UsageFile(path)
    usage.add(1, 4096)
    usage.add(2, 4096)
    usage.recount(1, 40960, 4096)
    assert usage.shard_bytes()[1] == 40960
    assert usage.total_bytes() == 45056
    usage.close()


def test_a_recount_overtaken_by_a_count_changes_nothing(path: str) -> None:
    usage = UsageFile(path)
    before = usage.bytes_in(1)
    usage.add(1, 4096)
    usage.recount(1, 0, before)
    assert usage.shard_bytes()[1] == 4096
    usage.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-50_000, 100_000), st.booleans()), max_size=30))
def test_the_total_is_the_sum_of_the_shards(path: str, changes: list[tuple[int, int, bool]]) -> None:
    usage = UsageFile(path)
    expected = usage.shard_bytes()
    for shard, size, is_recount in changes:
        if is_recount:
            usage.recount(shard, abs(size), expected[shard])
            expected[shard] = abs(size)
        else:
            usage.add(shard, size)
            expected[shard] = max(expected[shard] + size, 0)
    assert usage.shard_bytes() == expected
    assert usage.total_bytes() == sum(expected)
    usage.close()


COUNT = """
import sys
from hdfs_fuse.cache.usage import UsageFile
usage = UsageFile(sys.argv[1])
for _ in range(400):
    usage.add(int(sys.argv[2]), 4096)
    usage.add(0, 10)
for _ in range(200):
    usage.add(int(sys.argv[2]), -4096)
"""


def test_several_processes_lose_no_count(path: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, path, shard]) for shard in "122"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    usage = UsageFile(path)
    assert usage.shard_bytes()[:3] == [3 * 400 * 10, 200 * 4096, 2 * 200 * 4096]
    assert usage.total_bytes() == sum(usage.shard_bytes())
    usage.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"HDFSCSI1",
        b"\0" * 36,
        b"\xff" * 40_000,
        b"HDFSCSI0" + b"\0" * 32_792,
        b"\0" * 50_000,
        b"HDFSCSI1" + b"\0" * 100_000,
    ],
    ids=["empty", "header cut", "zeros", "ones", "other version", "too long zeros", "too long"],
)
def test_a_damaged_file_is_begun_anew(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    usage = UsageFile(path)
    assert usage.is_new
    assert usage.total_bytes() == 0
    assert sum(usage.shard_bytes()) == 0
    assert usage.reuse() == (0.0, 0.0)
    usage.add(7, 4096)
    usage.close()
    usage = UsageFile(path)
    assert not usage.is_new
    assert usage.total_bytes() == 4096
    usage.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=64)), max_size=4),
    length=st.none() | st.integers(0, 40_000),
)
def test_damage_under_a_running_process_is_survived(
    path: str, damage: list[tuple[int, bytes]], length: int | None
) -> None:
    usage = UsageFile(path)
    usage.add(1, 4096)
    with open(path, "r+b") as file:
        for offset, data in damage:
            os.pwrite(file.fileno(), data, offset)
        if length is not None:
            file.truncate(length)
    assert 0 <= usage.total_bytes() < 1 << 60
    assert all(0 <= size < 1 << 60 for size in usage.shard_bytes())
    assert len(usage.shard_bytes()) == SHARDS
    usage.reuse()
    for shard in range(SHARDS // 64):
        usage.add(shard, 4096)
        usage.add(shard, -4096)
    usage.set_reuse(1.0, 2.0)
    assert 0 <= usage.total_bytes() < 1 << 60
    usage.close()
    # The next process starts with sane counters whatever is left.
    usage = UsageFile(path)
    assert 0 <= usage.total_bytes() < 1 << 60
    usage.close()
    os.unlink(path)


def test_damaged_counters_never_add_up_to_an_impossible_total(path: str) -> None:
    usage = UsageFile(path)
    with open(path, "r+b") as file:
        file.write(b"damaged header".ljust(32) + struct.pack("<q", (1 << 60) - 1) * 600)
    for _ in range(2):
        assert 0 <= usage.total_bytes() < 1 << 60
        usage.set_reuse(1.0, 2.0)
    usage.settle()
    assert 0 <= usage.total_bytes() < 1 << 60
    usage.close()


def damage_total(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"HDFSCSI1" + b"\x11" * 7)  # a total that looks possible, and is wrong


def test_a_wrong_total_is_settled_from_the_shards(path: str) -> None:
    usage = UsageFile(path)
    usage.add(1, 4096)
    usage.add(2, 8192)
    usage.set_reuse(3.0, 4.0)
    damage_total(path)
    usage.settle()
    assert usage.total_bytes() == 12288
    assert usage.reuse() == (3.0, 4.0)
    usage.close()


def test_a_wrong_total_does_not_outlive_the_process(path: str) -> None:
    usage = UsageFile(path)
    usage.add(1, 4096)
    usage.close()
    damage_total(path)
    usage = UsageFile(path)
    assert not usage.is_new
    assert usage.total_bytes() == 4096
    usage.close()


@pytest.mark.parametrize("where", ["missing", "directory"])
def test_a_place_that_can_not_be_used_is_an_os_error(tmp_path: Path, where: str) -> None:
    place = tmp_path / "no" / "usage" if where == "missing" else tmp_path
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="directory"):
        UsageFile(str(place))
    assert len(os.listdir("/proc/self/fd")) == descriptors
