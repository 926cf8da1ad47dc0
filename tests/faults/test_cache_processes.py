"""One cache directory, several processes, killed in the middle of whatever they do."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hdfs_fuse.cache.keys import BlockKey, BlockKeys, FileVersion
from hdfs_fuse.cache.store import BlockStore, disk_bytes

from tests.support.waiting import wait_until

BLOCK = 16 << 10
BLOCKS = 120
SIZE_BYTES = 60 * BLOCK

# Stores, reads and evicts blocks at random until it is killed; ends with status 1 on a wrong byte.
WORKER = """
import random, sys
from hdfs_fuse.cache.store import BlockStore
from tests.faults.test_cache_processes import SIZE_BYTES, content_of, keys

order = random.Random(int(sys.argv[2]))
store = BlockStore(sys.argv[1], SIZE_BYTES, 0)
held = []
print("ready", flush=True)
while True:
    key = order.choice(keys())
    match order.randrange(5):
        case 0:
            store.put(key, content_of(key))
        case 1:
            block = store.create(key)
            if block is not None:
                data = content_of(key)
                for at in range(0, len(data), 5000):
                    block.append([data[at : at + 5000]])
                block.publish()
                block.close()
        case 2:
            block = store.open(key)
            if block is not None:
                assert bytes(block.view) == content_of(key)
                held.append((key, block))
        case 3:
            assert store.read(key) in (None, content_of(key))
        case 4:
            assert store.read_nowait(key) in (None, content_of(key))
    while len(held) > 5:
        key, block = held.pop(0)
        assert bytes(block.view) == content_of(key)
        block.close()
"""


def keys() -> list[BlockKey]:
    blocks = BlockKeys(FileVersion("test", "/shared", 1, BLOCKS * BLOCK - 77), BLOCK)
    return [blocks[i] for i in range(len(blocks))]


def content_of(key: BlockKey) -> bytes:
    return random.Random(key.name).randbytes(key.length_bytes)


class Workers:
    """Processes that share a cache directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        self._count += 1
        self.running.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(self._directory), str(self._count)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        )

    def kill_one(self) -> None:
        process = self.running.pop(0)
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.communicate()

    def kill_all(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate()
        self.running.clear()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path)
    yield workers
    workers.kill_all()


def block_files(directory: Path) -> list[Path]:
    return [path for path in directory.glob("v2/???/*") if path.is_file()]


@pytest.mark.timeout(120)
def test_killed_processes_leave_only_whole_blocks_and_counters_that_mend(tmp_path: Path, workers: Workers) -> None:
    expected = {key.name: key for key in keys()}
    for _ in range(3):
        workers.start()
    seen: set[str] = set()
    for _ in range(6):
        ready = workers.running[0].stdout
        assert ready is not None
        assert ready.readline() == "ready\n"
        count = len(seen)

        def has_progressed(count: int = count) -> bool:
            seen.update(path.name for path in block_files(tmp_path))
            return len(seen) >= min(count + 15, BLOCKS)

        wait_until(has_progressed, "the processes store blocks")
        workers.kill_one()
        workers.start()
    for process in workers.running:
        assert process.poll() is None, process.communicate()[1]
    workers.kill_all()

    store = BlockStore(str(tmp_path), SIZE_BYTES, 0)
    found = [expected[path.name] for path in block_files(tmp_path)]
    assert found
    for key in found:
        assert store.read(key) == content_of(key), "a block under its name is whole"
    # Each killed process may have left a few blocks uncounted; new ones find them.
    for i in range(800):
        key = BlockKeys(FileVersion("test", f"/new{i}", 1, BLOCK), BLOCK)[0]
        store.put(key, content_of(key))
    used = sum(disk_bytes(path.stat().st_size) for path in block_files(tmp_path))
    assert used <= SIZE_BYTES + 4 * BLOCK
    store.close()
    os.unlink(tmp_path / "v2" / "usage")
    store = BlockStore(str(tmp_path), SIZE_BYTES, 0)
    assert store.used_bytes() == used
    store.close()


def test_a_process_that_dies_lets_go_of_its_pins(tmp_path: Path) -> None:
    store = BlockStore(str(tmp_path), 100 * BLOCK, 0)
    pinned = keys()[0]
    assert store.put(pinned, content_of(pinned))
    assert store.used_bytes() == BLOCK  # which also tells the other processes
    code = """
import sys
from hdfs_fuse.cache.store import BlockStore
from tests.faults.test_cache_processes import keys
block = BlockStore(sys.argv[1], 1 << 30, 0).open(keys()[0])
assert block is not None
print("pinned", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"pinned\n"
        tight = BlockStore(str(tmp_path), BLOCK, 0, now_s=lambda: 4e9)
        other = keys()[1]
        assert not tight.put(other, content_of(other)), "another process has it mapped"
    finally:
        process.kill()
        process.communicate()
    tight.close()
    tight = BlockStore(str(tmp_path), BLOCK, 0, now_s=lambda: 4e9)
    assert tight.put(other, content_of(other))
    assert not store.contains(pinned)
    tight.close()
    store.close()
