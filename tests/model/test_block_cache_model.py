"""The block cache against a model: loads, waiters, cancels, evictions, damage and disk faults in any order.

A trio loop runs in a thread of its own, as in a daemon; hypothesis gives orders from outside. What is promised:
readers get exactly the file's bytes or an error of ours, a block has one load at a time, nothing half written has a
name, the directory keeps to its bound, and in the end nothing is left open or reserved and every block can be loaded.
"""

import contextlib
import gc
import logging
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from hdfs_fuse import errors
from hdfs_fuse.cache.blocks import CachedBlock
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.cache.fill import Fill
from hdfs_fuse.cache.keys import BlockKeys, FileVersion
from hdfs_fuse.cache.store import LEASE_SIGNAL, BlockStore, disk_bytes
from hdfs_fuse.workers import Workers
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

BLOCK = 8 << 10
BOUND_BLOCKS = 9
MEMORY_BLOCKS = 4
PATIENCE_S = 20.0
R = TypeVar("R")


class Loop:
    """A trio loop in a thread, with workers, for all examples: threads can't be ended."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), name="loop", daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.workers = Workers(4, "model")
        self._stop = trio.Event()
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            self._ready.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()
        self.workers.close()

    def call(self, function: Callable[[], R]) -> R:
        """Run `function` on the loop; returns what it returns."""
        return trio.from_thread.run_sync(function, trio_token=self._token)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let the loop run until `condition()` holds there."""

        deadline = time.monotonic() + PATIENCE_S
        while not self.call(condition):
            assert time.monotonic() < deadline, f"never happened: {what}"

    def soon(self, function: Callable[[], object]) -> None:
        """Run `function` on the loop without waiting; also from a signal handler."""
        self._token.run_sync_soon(function)

    def stop(self) -> None:
        self.call(self._stop.set)
        self._thread.join(PATIENCE_S)


@dataclass
class File:
    """A file of the model: what it contains, and the names of its blocks."""

    keys: BlockKeys
    data: bytes

    def block(self, index: int) -> bytes:
        return self.data[index * BLOCK : (index + 1) * BLOCK]


def make_file(name: str, length: int) -> File:
    data = random.Random(name).randbytes(length)
    return File(BlockKeys(FileVersion("model", f"/{name}", 1, length), BLOCK), data)


FILES = [make_file("a", 6 * BLOCK + 100), make_file("b", 5 * BLOCK), make_file("c", 3 * BLOCK + 4097)]
BY_NAME = {file.keys[i].name: file.block(i) for file in FILES for i in range(len(file.keys))}


@dataclass
class Source:
    """The loads of one order: how they deliver, whether they are held back, and where they fail."""

    file: File
    chunk_bytes: int
    fail_at: int | None
    ends_short: bool
    active: "Counter[int]"
    overlaps: list[str]
    opened: threading.Event = field(default_factory=threading.Event)

    def load(self, start: int, stop: int) -> Iterator[bytes]:
        loading = list(range(start // BLOCK, -(-stop // BLOCK)))
        for index in loading:
            self.active[index] += 1
            if self.active[index] > 1:
                self.overlaps.append(f"two loads of block {index} of {len(self.file.data)}")

        def hand_over(end: int) -> bytes:
            # Whoever gets a block's last byte may complete it, drop it and load it again, long before this stream ends.
            while loading and min((loading[0] + 1) * BLOCK, len(self.file.data)) <= end:
                self.active[loading.pop(0)] -= 1
            return self.file.data[at:end]

        try:
            for at in range(start, stop, self.chunk_bytes):
                assert self.opened.wait(PATIENCE_S)
                end = min(at + self.chunk_bytes, stop)
                if self.fail_at is not None and at <= self.fail_at < end:
                    yield hand_over(self.fail_at)
                    if self.ends_short:
                        return
                    raise errors.UnavailableError("cut")
                yield hand_over(end)
        finally:
            for index in loading:
                self.active[index] -= 1


@dataclass
class Waiter:
    """A task that wants bytes of a block."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: bool = False
    wrong: str = ""

    async def run(self, cache: BlockCache, block: CachedBlock, expected: bytes, stop: int, must_copy: bool) -> None:
        """As Reader takes bytes: only those of intact content count."""
        try:
            with self.scope:
                content = await block.wait_filled(stop)
                data = content.copy(0, stop) if must_copy else bytes(content.view[:stop])
                if not content.is_intact() or len(data) != stop:
                    cache.drop(block)
                elif data != expected[:stop]:
                    self.wrong = f"wrong bytes in {block.key.name}: zeros {data.count(0)} of {stop}"
        except errors.HdfsFuseError:
            pass
        finally:
            self.done = True


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


_loop: list[Loop] = []


def setup_module() -> None:
    logging.getLogger("hdfs_fuse.cache").setLevel(logging.ERROR)  # each example has its broken disks


def teardown_module() -> None:
    logging.getLogger("hdfs_fuse.cache").setLevel(logging.NOTSET)
    while _loop:
        _loop.pop().stop()


class Cache(RuleBasedStateMachine):
    """One cache directory, one cache over it, and a second store on it as of another process."""

    fills = Bundle("fills")
    waiters = Bundle("waiters")

    def __init__(self) -> None:
        super().__init__()
        if not _loop:
            _loop.append(Loop())
        self.loop = _loop[0]
        self.descriptors = descriptors()
        signal.signal(LEASE_SIGNAL, lambda *_: self.loop.soon(self.cache.drop_changing))
        self.directory = Path(tempfile.mkdtemp(prefix="hdfs-model-"))
        self.now_s = 1_700_000_000.0
        self.store = self.new_store()
        self.other = self.new_store()
        self.cache = self.loop.call(lambda: BlockCache(self.store, self.loop.workers))
        self.cache.budget.size_bytes = MEMORY_BLOCKS * BLOCK
        self.sources: list[Source] = []
        self.running: list[Waiter] = []
        self.active: list[Counter[int]] = [Counter() for _ in FILES]
        self.overlaps: list[str] = []
        self.damaged: set[str] = set()
        self.is_counting_right = True

    def new_store(self) -> BlockStore:
        return BlockStore(str(self.directory), BOUND_BLOCKS * BLOCK, 0, now_s=lambda: self.now_s)

    def block_files(self) -> list[Path]:
        if not (self.directory / "v2").is_dir():
            return []
        return [path for path in self.directory.glob("v2/???/*") if path.is_file()]

    # --- orders ---

    @rule(
        target=fills,
        number=st.integers(0, 2),
        first=st.integers(0, 6),
        count=st.integers(1, 7),
        chunk_bytes=st.sampled_from([100, 4096, BLOCK - 1, BLOCK, 3 * BLOCK + 5]),
        fail_at=st.none() | st.integers(0, 7 * BLOCK),
        ends_short=st.booleans(),
        is_held=st.booleans(),
    )
    def load(
        self,
        number: int,
        first: int,
        count: int,
        chunk_bytes: int,
        fail_at: int | None,
        ends_short: bool,
        is_held: bool,
    ) -> tuple[Fill, ...]:
        file = FILES[number]
        end = min(first + count, len(file.keys))
        source = Source(file, chunk_bytes, fail_at, ends_short, self.active[number], self.overlaps)
        self.sources.append(source)
        if not is_held:
            source.opened.set()
        return tuple(self.loop.call(lambda: self.cache.load(file.keys, min(first, end), end, source.load)))

    @rule(fills=fills)
    def cancel_load(self, fills: tuple[Fill, ...]) -> None:
        for fill in fills:
            self.loop.call(fill.cancel)

    @rule()
    def release_loads(self) -> None:
        for source in self.sources:
            source.opened.set()

    @rule(
        target=waiters,
        number=st.integers(0, 2),
        index=st.integers(0, 6),
        share=st.floats(0, 1),
        must_copy=st.booleans(),
    )
    def want(self, number: int, index: int, share: float, must_copy: bool) -> Waiter:
        file = FILES[number]
        index = min(index, len(file.keys) - 1)
        expected = file.block(index)
        waiter = Waiter()

        def start() -> None:
            block = self.cache.get(file.keys, index)
            if block is None:
                waiter.done = True
                return
            stop = max(1, round(share * len(expected)))
            self.loop.nursery.start_soon(waiter.run, self.cache, block, expected, stop, must_copy)

        self.loop.call(start)
        self.running.append(waiter)
        return waiter

    @rule(waiter=waiters)
    def stop_wanting(self, waiter: Waiter) -> None:
        self.loop.call(waiter.scope.cancel)

    @rule(number=st.integers(0, 2), index=st.integers(0, 6))
    def drop(self, number: int, index: int) -> None:
        file = FILES[number]

        def drop() -> None:
            block = self.cache.get(file.keys, min(index, len(file.keys) - 1))
            if block is not None and block.is_complete:
                self.cache.drop(block)

        self.loop.call(drop)

    @rule(number=st.integers(0, 2), index=st.integers(0, 6))
    def another_process_stores(self, number: int, index: int) -> None:
        file = FILES[number]
        index = min(index, len(file.keys) - 1)
        self.other.put(file.keys[index], file.block(index))

    @rule(number=st.integers(0, 2), index=st.integers(0, 6))
    def another_process_reads(self, number: int, index: int) -> None:
        file = FILES[number]
        index = min(index, len(file.keys) - 1)
        for data in (self.other.read(file.keys[index]), self.other.read_nowait(file.keys[index])):
            assert data is None or data == file.block(index)

    @rule(seconds=st.sampled_from([1.0, 10.0, 10_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    # --- faults ---

    @rule(which=st.integers(0, 1000), how=st.sampled_from(["cut", "zero", "flip", "delete", "xattr"]))
    def damage(self, which: int, how: str) -> None:
        files = sorted(self.block_files())
        if not files:
            return
        path = files[which % len(files)]
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            match how:
                case "cut":
                    with path.open("r+b") as file:
                        file.truncate(size // 2)
                case "zero":
                    with path.open("r+b") as file:
                        file.write(bytes(size))
                case "flip":
                    with path.open("r+b") as file:
                        file.seek(size // 3)
                        byte = file.read(1) or b"\0"
                        file.seek(size // 3)
                        file.write(bytes([byte[0] ^ 0x40]))
                case "delete":
                    path.unlink()
                case "xattr":
                    if "user.hdfs.block" in os.listxattr(path):  # it may have been removed before
                        os.removexattr(path, "user.hdfs.block")
        self.damaged.add(path.name)

    @rule(
        offset=st.integers(0, 33_000),
        data=st.binary(min_size=1, max_size=20),
        length=st.none() | st.integers(0, 33_000),
    )
    def damage_counters(self, offset: int, data: bytes, length: int | None) -> None:
        self.is_counting_right = False
        with contextlib.suppress(OSError), (self.directory / "v2" / "usage").open("r+b") as file:
            os.pwrite(file.fileno(), data, offset)
            if length is not None:
                file.truncate(length)

    @rule()
    def remove_the_directory(self) -> None:
        self.is_counting_right = False
        shutil.rmtree(self.directory, ignore_errors=True)

    @rule()
    def make_the_directory_unusable(self) -> None:
        if not (self.directory / "v2").is_dir():
            return  # not a precondition: loads that run beside us may be making it, and Hypothesis wants the same again
        self.is_counting_right = False
        shutil.rmtree(self.directory / "v2", ignore_errors=True)
        with contextlib.suppress(OSError):  # a load may be making it again
            (self.directory / "v2").write_bytes(b"")

    # --- what must hold ---

    @invariant()
    def nobody_got_wrong_bytes(self) -> None:
        for waiter in self.running:
            assert not waiter.wrong, waiter.wrong
        self.running = [waiter for waiter in self.running if not waiter.done]

    @invariant()
    def no_block_is_loaded_twice_at_once(self) -> None:
        assert not self.overlaps, self.overlaps

    @invariant()
    def what_has_a_name_is_whole(self) -> None:
        for path in self.block_files():
            if path.name not in self.damaged:
                with contextlib.suppress(FileNotFoundError):  # evicted
                    assert path.read_bytes() == BY_NAME[path.name]

    @invariant()
    def the_bound_is_kept(self) -> None:
        if self.is_counting_right:
            sizes = []
            for path in self.block_files():
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(disk_bytes(path.stat().st_size))
            # Each of the two may have granted itself a block, and each of the four workers may be about to add one.
            assert sum(sizes) <= (BOUND_BLOCKS + 2 + 4) * BLOCK

    @rule()
    def settle(self) -> None:
        """All loads end, and what failed can be loaded again."""
        self.release_loads()
        for number, file in enumerate(FILES):
            self.loop.wait(partial(self.is_quiet, file), "all loads end")
            assert not any(self.active[number].values())
        self.loop.wait(lambda: all(waiter.done for waiter in self.running), "all waiters are served")

    def is_quiet(self, file: File) -> bool:
        blocks = [self.cache.get(file.keys, index) for index in range(len(file.keys))]
        return all(block is None or block.is_complete for block in blocks)

    def teardown(self) -> None:
        self.settle()
        self.nobody_got_wrong_bytes()
        for file in FILES:
            for index in range(len(file.keys)):
                self.load_and_check(file, index)
        self.loop.call(self.cache.close)
        self.loop.wait(lambda: self.cache.budget.used_bytes == 0, "all memory is given back")
        for store in (self.store, self.other):
            store.close()
        signal.signal(LEASE_SIGNAL, signal.SIG_DFL)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.check_counters_of_a_new_store()
        del self.cache, self.sources, self.running
        # Hypothesis still holds results of rules, and those hold blocks whose maps keep one descriptor each.

    def load_and_check(self, file: File, index: int) -> None:
        source = Source(file, BLOCK, None, False, Counter(), [])
        source.opened.set()
        waiter = Waiter()

        def start() -> None:
            self.cache.load(file.keys, index, index + 1, source.load)
            block = self.cache.get(file.keys, index)
            if block is None:  # damaged in reach: it is dropped, and the next load brings it
                self.cache.load(file.keys, index, index + 1, source.load)
                block = self.cache.get(file.keys, index)
            assert block is not None
            self.loop.nursery.start_soon(
                waiter.run, self.cache, block, file.block(index), len(file.block(index)), False
            )

        self.loop.call(start)
        self.loop.wait(lambda: waiter.done, "the last look at every block")
        assert not waiter.wrong, waiter.wrong

    def check_counters_of_a_new_store(self) -> None:
        store = self.new_store()
        for index in range(4):
            assert store.put(FILES[0].keys[index], FILES[0].block(index))
        store.close()
        (self.directory / "v2" / "usage").unlink()
        store = self.new_store()
        assert store.used_bytes() == 4 * BLOCK
        store.close()
        shutil.rmtree(self.directory)


Cache.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestCache = pytest.mark.timeout(400)(Cache.TestCase)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """The same orders at random, without hypothesis, which keeps what rules return: no descriptor may be left."""
    if not _loop:
        _loop.append(Loop())
    gc.collect()
    before = descriptors()
    for seed in range(8):
        _run_random_orders(seed)
    _loop[0].wait(lambda: descriptors() <= before, f"{descriptors()} descriptors are {before} again")


def _run_random_orders(seed: int) -> None:
    order = random.Random(seed)
    machine = Cache()
    fills: list[Any] = []  # as hypothesis types what rules return
    waiters: list[Any] = []
    actions: list[Callable[[], object]] = [
        lambda: fills.append(
            machine.load(
                order.randrange(3),
                order.randrange(7),
                order.randrange(1, 8),
                order.choice([100, 4096, BLOCK]),
                order.choice([None, order.randrange(7 * BLOCK)]),
                order.random() < 0.5,
                order.random() < 0.5,
            )
        ),
        lambda: waiters.append(
            machine.want(order.randrange(3), order.randrange(7), order.random(), order.random() < 0.5)
        ),
        lambda: fills and machine.cancel_load(order.choice(fills)),
        lambda: waiters and machine.stop_wanting(order.choice(waiters)),
        lambda: machine.drop(order.randrange(3), order.randrange(7)),
        machine.release_loads,
        partial(machine.damage, 3, "cut"),
        partial(machine.damage, 5, "delete"),
        lambda: machine.another_process_stores(order.randrange(3), order.randrange(7)),
        partial(machine.time_passes, 1000.0),
    ]
    for _ in range(40):
        order.choice(actions)()
    machine.nobody_got_wrong_bytes()
    machine.no_block_is_loaded_twice_at_once()
    machine.teardown()
