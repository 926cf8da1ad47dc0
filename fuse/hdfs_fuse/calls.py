"""Calls to the backend from the event loop: in a thread, bounded in number, each with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import outcome
import trio

from hdfs_fuse.errors import DeadlineError
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.workers import Workers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# How often overdue calls are looked for: deadlines are kept to about this many seconds.
_SWEEP_S = 0.25


class _Call:
    """A call in flight: the task that waits for it, until it is answered or given up."""

    __slots__ = ("started_s", "task")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.started_s = time.perf_counter()
        self.task: trio.lowlevel.Task | None = task


class Calls:
    """Runs blocking calls. A call that outlives its deadline goes on in its thread, and nobody waits for it.

    Threads that hang keep their place among the workers, so a NameNode that hangs costs a bounded number of threads and
    later calls fail at their own deadline.
    """

    def __init__(self, workers: Workers, deadline_s: float, metrics: Metrics, on_timeout: Callable[[], object]) -> None:
        """Allow `deadline_s` seconds for each call; `on_timeout` hears of each that hangs."""
        self._workers = workers
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._on_timeout = on_timeout
        self._in_flight: dict[_Call, None] = {}  # in the order of their start, and so of their deadlines

    async def run(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """The result of `call(*args)`. Needs `watch` to run beside it.

        Raises:
            DeadlineError: no answer in time.
        """
        waiting = _Call(trio.lowlevel.current_task())

        def job() -> None:
            if waiting.task is None:
                return  # given up while it waited for a thread
            self._workers.notify(self._answer, waiting, outcome.capture(call, *args))

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            self._end(waiting)
            return trio.lowlevel.Abort.SUCCEEDED

        self._metrics.hdfs_call_count += 1
        self._workers.submit(job)
        self._in_flight[waiting] = None
        return await trio.lowlevel.wait_task_rescheduled(abort)  # type: ignore[no-any-return]

    def start(self, call: Callable[[], T], answered: Callable[[outcome.Outcome[T]], object]) -> None:
        """Begin `call()`, which nobody waits for; `answered` gets its result on the event loop, however late."""
        self._metrics.hdfs_call_count += 1
        self._workers.submit(lambda: self._workers.notify(answered, outcome.capture(call)))

    def _answer(self, waiting: _Call, result: outcome.Outcome[object]) -> None:
        task = waiting.task
        if task is not None:
            self._end(waiting)
            trio.lowlevel.reschedule(task, result)

    def _end(self, waiting: _Call) -> None:
        waiting.task = None
        del self._in_flight[waiting]
        self._metrics.hdfs_latency.observe(time.perf_counter() - waiting.started_s)

    async def watch(self) -> None:
        """Give up on calls that are overdue; runs as long as calls are made."""
        while True:
            await trio.sleep(_SWEEP_S)
            now_s = time.perf_counter()
            for waiting in list(self._in_flight):
                if now_s - waiting.started_s < self._deadline_s:
                    break
                self._metrics.hdfs_timeout_count += 1
                self._on_timeout()
                error = DeadlineError(f"no answer from the filesystem within {self._deadline_s:g} s")
                self._answer(waiting, outcome.Error(error))
