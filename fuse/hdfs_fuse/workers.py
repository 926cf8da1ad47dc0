"""Threads for what blocks: a bounded number, started as they are needed, fed by the event loop.

trio.to_thread does the same for about three times the cost of a hop, which is most of the price of a small file.
"""

import contextlib
import queue
import threading
from collections.abc import Callable

import trio


class Workers:
    """A pool of daemon threads. Jobs start in the order in which they came; those that hang keep their thread."""

    def __init__(self, limit: int, name: str) -> None:
        """Start no more than `limit` threads, called `name`."""
        self._limit = limit
        self._name = name
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Run `job`, which must not raise, in a thread. Belongs to the event loop."""
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False) and self._count < self._limit:
            self._count += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            self._jobs.get()()
            self._idle.release()

    def notify(self, function: Callable[..., object], *args: object) -> None:
        """Run `function` on the event loop. For jobs; does nothing once the loop has ended."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *args)
