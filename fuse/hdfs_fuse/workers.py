"""Threads for what blocks: a bounded number, started as they are needed, fed by the event loop.

trio.to_thread does the same for about three times the cost of a hop, which is most of the price of a small file. Idle
threads wait for a byte from a pipe, which wakes one of them; with queue.SimpleQueue and a semaphore a hop took a third
more CPU time, and an eventfd would wake them all.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

import trio

Job = Callable[[], object]


class Workers:
    """A pool of daemon threads. Jobs start in the order in which they came; those that hang keep their thread."""

    def __init__(self, limit: int, name: str) -> None:
        """Start no more than `limit` threads, called `name`."""
        self._limit = limit
        self._name = name
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: deque[Job | None] = deque()  # None ends a thread
        self._wait_fd, self._wake_fd = os.pipe()  # holds a byte for each job; 65,536 fit
        self._mutex = threading.Lock()
        self._idle = 0
        self._waiting = 0  # jobs for which there was no thread
        self._count = 0

    def submit(self, job: Job) -> None:
        """Run `job`, which must not raise, in a thread. Belongs to the event loop, before `close`.

        Raises:
            RuntimeError: there is no thread, and none can be started.
        """
        with self._mutex:
            needs_thread = self._idle == 0 and self._count < self._limit
            if needs_thread:
                self._count += 1
            elif self._idle:
                self._idle -= 1
            else:
                self._waiting += 1
        if needs_thread:
            self._start_thread()
        self._put(job)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:  # a limit of processes: the job waits for a thread that there is
            with self._mutex:
                self._count -= 1
                if self._count == 0:
                    raise
                self._waiting += 1

    def _put(self, job: Job | None) -> None:
        self._jobs.append(job)
        os.write(self._wake_fd, b"\0")

    def _work(self) -> None:
        while True:
            os.read(self._wait_fd, 1)
            job = self._jobs.popleft()
            if job is None:
                break
            job()
            del job  # what it refers to may be large, and the next may be long in coming
            with self._mutex:
                if self._waiting:
                    self._waiting -= 1
                else:
                    self._idle += 1
        with self._mutex:
            self._count -= 1
            is_last = self._count == 0
        if is_last:
            self._close_pipe()

    def _close_pipe(self) -> None:
        ends = self._wait_fd, self._wake_fd
        self._wait_fd = self._wake_fd = -1  # whoever is late gets an error, not somebody else's descriptor
        for end in ends:
            os.close(end)

    def notify(self, function: Callable[..., object], *args: object) -> None:
        """Run `function` on the event loop. For jobs; does nothing once the loop has ended."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *args)

    def close(self) -> None:
        """Let the threads end when they have done what they were given; those that hang stay behind."""
        with self._mutex:
            count = self._count
        if count == 0:
            self._close_pipe()
        for _ in range(count):
            self._put(None)
