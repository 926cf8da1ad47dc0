"""Turns at the FUSE descriptor: a pipe stands for it, and tasks that loop as pyfuse3's do stand for pyfuse3."""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing
from hdfs_fuse import turns
from hdfs_fuse.turns import Turns


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come within seconds are waited for awake."""
    monkeypatch.setattr(turns, "_AWAKE_S", 10.0)
    monkeypatch.setattr(turns, "_CLOSE_S", 20.0)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reading end, writing end; each byte is a request."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


class Tasks:
    """Tasks that take requests in turn, and note who took which."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.turns = Turns()
        trio.lowlevel.add_instrument(self.turns)
        self.taken: list[tuple[str, str]] = []
        self.slow = trio.Event()

    async def loop(self, name: str) -> None:
        while True:
            async with self.turns:
                await self.turns.wait_readable(self.fd)
            request = os.read(self.fd, 1).decode()
            self.taken.append((name, request))
            if request == "s":
                await self.slow.wait()
            elif request == "e":
                return

    def start_three(self, nursery: trio.Nursery) -> None:
        for name in ("a", "b", "c"):
            nursery.start_soon(self.loop, name)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_who_answers_at_once_keeps_the_turn(pipe: tuple[int, int]) -> None:
    tasks = Tasks(pipe[0])
    async with trio.open_nursery() as nursery:
        tasks.start_three(nursery)
        await settle()
        for _ in range(3):
            os.write(pipe[1], b"123")
            await settle()
        nursery.cancel_scope.cancel()
    assert "".join(request for _, request in tasks.taken) == "123123123"
    assert len({name for name, _ in tasks.taken}) == 1


async def test_who_waits_for_something_passes_the_turn_on(pipe: tuple[int, int]) -> None:
    tasks = Tasks(pipe[0])
    async with trio.open_nursery() as nursery:
        tasks.start_three(nursery)
        os.write(pipe[1], b"1s2s3")
        await settle()
        by_request = {request: name for name, request in tasks.taken}
        assert list(by_request) == ["1", "s", "2", "3"]
        assert by_request["2"] != by_request["1"]
        slow = [name for name, request in tasks.taken if request == "s"]
        assert len(set(slow)) == 2
        assert by_request["3"] not in slow
        # All three wait; whoever is released first takes what has come meanwhile.
        os.write(pipe[1], b"s4")
        await settle()
        assert tasks.taken[-1][1] == "s"
        tasks.slow.set()
        await settle()
        assert tasks.taken[-1][1] == "4"
        nursery.cancel_scope.cancel()


async def test_who_ends_passes_the_turn_on(pipe: tuple[int, int]) -> None:
    tasks = Tasks(pipe[0])
    async with trio.open_nursery() as nursery:
        tasks.start_three(nursery)
        os.write(pipe[1], b"1e2e3e")
    assert "".join(request for _, request in tasks.taken) == "1e2e3e"
    assert len({name for name, _ in tasks.taken}) == 3


async def test_other_tasks_run_while_requests_keep_coming(pipe: tuple[int, int]) -> None:
    tasks = Tasks(pipe[0])
    os.write(pipe[1], b"x" * 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tasks.loop, "a")
        await trio.lowlevel.checkpoint()
        seen = [len(tasks.taken)]
        while seen[-1] < 1000:
            await trio.lowlevel.checkpoint()
            seen.append(len(tasks.taken))
        nursery.cancel_scope.cancel()
    assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * 16  # trio shuffles


async def test_a_request_that_comes_soon_is_waited_for_awake(pipe: tuple[int, int], patient: None) -> None:
    """Awake, the turn is not given up between two requests: no other task runs."""
    tasks = Tasks(pipe[0])
    steps = 0

    async def count_steps() -> None:
        nonlocal steps
        while True:
            await trio.lowlevel.checkpoint()
            steps += 1

    def ask() -> None:
        for _ in range(5):
            time.sleep(0.05)
            os.write(pipe[1], b"1")
        os.write(pipe[1], b"e")

    thread = threading.Thread(target=ask)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_steps)
        thread.start()
        await tasks.loop("a")
        nursery.cancel_scope.cancel()
    thread.join()
    assert len(tasks.taken) == 6
    assert steps <= 2


async def test_nobody_waits_awake_while_a_request_waits_for_something(pipe: tuple[int, int], patient: None) -> None:
    tasks = Tasks(pipe[0])
    os.write(pipe[1], b"s")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tasks.loop, "a")
        nursery.start_soon(tasks.loop, "b")
        with trio.fail_after(5):
            await settle()
            tasks.slow.set()
            os.write(pipe[1], b"ee")
    assert "".join(request for _, request in tasks.taken) == "see"


async def test_after_long_gaps_nobody_waits_awake(pipe: tuple[int, int]) -> None:
    tasks = Tasks(pipe[0])
    tasks.turns._gap_s = 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tasks.loop, "a")
        for _ in range(20):
            await trio.sleep(0.002)
            os.write(pipe[1], b"1")
        await settle()
        assert tasks.turns._gap_s > turns._CLOSE_S
        nursery.cancel_scope.cancel()


async def test_waits_in_vain_end_soon(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program that always comes a little later than is waited for, and before a gap counts as long."""
    monkeypatch.setattr(turns, "_AWAKE_S", 0.0)
    monkeypatch.setattr(turns, "_CLOSE_S", 20.0)
    monkeypatch.setattr(turns, "_LONGEST_GAP_S", 40.0)
    tasks = Tasks(pipe[0])
    tasks.turns._gap_s = 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tasks.loop, "a")
        gaps = []
        for _ in range(40):
            await settle()
            os.write(pipe[1], b"1")
            gaps.append(tasks.turns._gap_s)
        assert max(gaps) > turns._CLOSE_S
        nursery.cancel_scope.cancel()


async def test_a_session_that_ends_wakes_who_waits(pipe: tuple[int, int]) -> None:
    tasks = Tasks(pipe[0])
    ended: list[str] = []

    async def loop(name: str) -> None:
        try:
            await tasks.loop(name)
        except trio.ClosedResourceError:
            ended.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(loop, "a")
        nursery.start_soon(loop, "b")
        await settle()
        trio.lowlevel.notify_closing(pipe[0])
        await settle()
        assert len(ended) == 1
        trio.lowlevel.notify_closing(pipe[0])
        await settle()
        assert len(ended) == 2


async def test_the_rest_of_trio_is_itself() -> None:
    replaced: Any = turns.trio_in_turns()
    assert isinstance(replaced.Lock(), Turns)
    assert replaced.lowlevel.wait_readable == replaced.Lock().wait_readable
    assert replaced.lowlevel.notify_closing is trio.lowlevel.notify_closing
    assert replaced.open_nursery is trio.open_nursery
