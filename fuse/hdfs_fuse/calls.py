"""Calls to the backend from the event loop: in a thread, bounded in number, each with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

from hdfs_fuse.errors import DeadlineError
from hdfs_fuse.metrics import Metrics

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Calls:
    """Runs blocking calls. A call that outlives its deadline goes on in its thread, and nobody waits for it.

    Threads that hang keep their place among `workers`, so a NameNode that hangs costs a bounded number of threads and
    later calls fail at their own deadline.
    """

    def __init__(self, workers: int, deadline_s: float, metrics: Metrics, on_timeout: Callable[[], object]) -> None:
        """Allow `workers` calls at once, `deadline_s` seconds for each; `on_timeout` hears of each that hangs."""
        self._limiter = trio.CapacityLimiter(workers)
        self._deadline_s = deadline_s
        self._metrics = metrics
        self._on_timeout = on_timeout

    async def run(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """The result of `call(*args)`.

        Raises:
            DeadlineError: no answer in time.
        """
        started = time.perf_counter()
        self._metrics.hdfs_call_count += 1
        try:
            with trio.move_on_after(self._deadline_s):
                return await trio.to_thread.run_sync(call, *args, limiter=self._limiter, abandon_on_cancel=True)
        finally:
            self._metrics.hdfs_latency.observe(time.perf_counter() - started)
        self._metrics.hdfs_timeout_count += 1
        self._on_timeout()
        raise DeadlineError(f"no answer from the filesystem within {self._deadline_s:g} s")
