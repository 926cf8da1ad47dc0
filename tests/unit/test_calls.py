"""Blocking calls from the event loop: results, errors, deadlines, bounded threads."""

import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from hdfs_fuse.calls import Calls
from hdfs_fuse.errors import DeadlineError, NotFoundError
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.workers import Workers


@asynccontextmanager
async def calls_with(
    deadline_s: float = 60.0, threads: int = 4, on_timeout: Callable[[], object] = int
) -> AsyncIterator[tuple[Calls, Metrics]]:
    metrics = Metrics()
    workers = Workers(threads, "test")
    calls = Calls(workers, deadline_s, metrics, on_timeout)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.watch)
        yield calls, metrics
        nursery.cancel_scope.cancel()
    workers.close()


async def test_a_call_gives_its_result_and_is_counted() -> None:
    async with calls_with() as (calls, metrics):
        assert await calls.run(max, 3, 5) == 5
        assert metrics.hdfs_call_count == metrics.hdfs_latency.count == 1


async def test_an_exception_reaches_the_caller() -> None:
    def fail() -> None:
        raise NotFoundError("gone")

    async with calls_with() as (calls, _):
        with pytest.raises(NotFoundError, match="gone"):
            await calls.run(fail)
        assert await calls.run(max, 1, 2) == 2


async def test_calls_run_at_the_same_time() -> None:
    barrier = threading.Barrier(4)
    async with calls_with(threads=4) as (calls, _), trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(calls.run, barrier.wait, 30.0)


async def test_a_thread_that_cannot_be_started_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with calls_with() as (calls, _), trio.open_nursery() as nursery:
        release = threading.Event()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError):
                await calls.run(max, 1, 2)
        nursery.start_soon(calls.run, release.wait, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            answered = trio.Event()

            async def call() -> None:
                assert await calls.run(max, 3, 5) == 5
                answered.set()

            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            release.set()
            await answered.wait()
        assert await calls.run(max, 1, 2) == 2


async def test_what_was_given_up_before_it_began_is_never_called() -> None:
    release, called = threading.Event(), threading.Event()
    async with calls_with(threads=1) as (calls, _), trio.open_nursery() as nursery:
        nursery.start_soon(calls.run, release.wait, 30.0)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01):
            await calls.run(called.set)
        release.set()
        assert await calls.run(max, 1, 2) == 2
    assert not called.is_set()


async def test_no_more_threads_than_allowed_are_started() -> None:
    seen: set[int] = set()
    release = threading.Event()

    def job() -> None:
        seen.add(threading.get_ident())
        release.wait(30)

    async with calls_with(threads=3) as (calls, _), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(calls.run, job)
        while len(seen) < 3:
            await trio.lowlevel.checkpoint()
        release.set()
    assert len(seen) == 3


async def test_a_call_that_hangs_ends_with_its_deadline_and_others_go_on() -> None:
    release = threading.Event()
    timeouts: list[None] = []
    async with calls_with(deadline_s=0.01, on_timeout=lambda: timeouts.append(None)) as (calls, metrics):
        with pytest.raises(DeadlineError, match=r"0\.01 s"):
            await calls.run(release.wait, 30.0)
        assert len(timeouts) == metrics.hdfs_timeout_count == 1
        release.set()  # the late answer must not disturb anybody
        assert await calls.run(max, 1, 2) == 2


async def test_a_cancelled_caller_leaves_its_call_behind() -> None:
    started, release = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        release.wait(30)

    async with calls_with() as (calls, metrics):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(calls.run, job)
            while not started.is_set():
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert metrics.hdfs_timeout_count == 0
        release.set()
        assert await calls.run(max, 1, 2) == 2


def test_an_answer_after_the_loop_has_ended_is_dropped() -> None:
    release, ended = threading.Event(), threading.Event()

    async def main() -> None:
        workers = Workers(1, "test")

        def job() -> None:
            release.wait(30)
            workers.notify(int)
            ended.set()

        workers.submit(job)

    trio.run(main)
    release.set()
    assert ended.wait(30)


async def test_closed_workers_leave_no_thread_and_no_descriptor() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    workers = Workers(3, "closing")
    done: list[int] = []
    for i in range(20):
        workers.submit(partial(done.append, i))
    workers.close()
    with trio.fail_after(10):
        while any(thread.name == "closing" for thread in threading.enumerate()):  # noqa: ASYNC110  # threads
            await trio.sleep(0.01)
    assert sorted(done) == list(range(20))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(OSError, match="Bad file descriptor"):
        workers.submit(int)
