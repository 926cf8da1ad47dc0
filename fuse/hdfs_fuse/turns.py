"""Takes turns at /dev/fuse without a task switch for every request.

pyfuse3 lets trio tasks take turns with a trio.Lock and trio.lowlevel.wait_readable: two checkpoints, an epoll_ctl and
an epoll_wait for each request, which cost more than answering it. Here a task that answered a request without waiting
for anything keeps its turn and takes the next request at once.

pyfuse3 looks `trio` up in its own module when it needs it, since pyfuse3.asyncio replaces it there; so does the daemon.
"""

import select
import time
from collections.abc import Callable
from typing import Any

import trio

# A program that waits for each answer comes back some microseconds after it, and to go to sleep and be woken costs more
# than to stay awake for that long: a hundred microseconds on a virtual machine. So where requests came that close
# lately, the next one is waited for awake, so many seconds; a few such waits in vain end it.
_AWAKE_S = 150e-6
_CLOSE_S = 2 * _AWAKE_S
_LONGEST_GAP_S = 1e-3  # a longer one counts as this, and so does one that was waited for awake in vain
_GAP_WEIGHT = 0.1
# Requests answered one after the other before other tasks may run: half a millisecond, and 150 us for each that was
# waited for awake.
_BURST = 16


class Turns(trio.abc.Instrument):
    """Who may take the next request; both the lock and the wait of pyfuse3's session loop."""

    def __init__(self, before_wait: Callable[[], object] = bool) -> None:
        """Nobody has the turn yet; `before_wait` is called whenever a task is about to wait for a request."""
        self._before_wait = before_wait
        self._holder: trio.lowlevel.Task | None = None
        self._is_waiting = False  # the holder does nothing but wait for a request, or lets others run
        self._idle = trio.lowlevel.ParkingLot()
        self._poll = select.poll()
        self._polled_fd = -1
        self._burst = 0
        self._away: set[trio.lowlevel.Task] = set()  # they answer requests, and wait for something
        self._gap_s = _LONGEST_GAP_S  # between an answer and the next request, lately

    async def __aenter__(self) -> None:
        """Wait until nobody else has the turn. Lets other tasks run, every now and then."""
        task = trio.lowlevel.current_task()
        self._away.discard(task)
        if self._burst >= _BURST and self._holder is task:
            # Here and not while waiting for requests: pyfuse3 looks in between whether the session has ended.
            self._burst = 0
            self._is_waiting = True
            try:
                await trio.lowlevel.checkpoint()
            finally:
                self._is_waiting = False
        while self._holder is not None and self._holder is not task:
            await self._idle.park()
        self._holder = task

    async def __aexit__(self, *exc: object) -> None:
        """Keep the turn: `after_task_step` passes it on, should the holder wait for something else than requests."""

    async def wait_readable(self, fd: int) -> None:
        """Wait until there is a request; without a checkpoint when there is one already."""
        self._before_wait()
        if fd != self._polled_fd:
            self._poll.register(fd, select.POLLIN)
            self._polled_fd = fd
        self._is_waiting = True
        try:
            if self._poll.poll(0):
                self._burst += 1
                return
            start_s = time.perf_counter()
            stays_awake = not self._away and self._gap_s < _CLOSE_S  # what requests wait for may need the loop
            has_come = stays_awake and self._comes_soon(start_s)
            if has_come:
                self._burst += 1
            else:
                self._burst = 0
                await trio.lowlevel.wait_readable(fd)
            is_in_vain = stays_awake and not has_come
            gap_s = _LONGEST_GAP_S if is_in_vain else min(time.perf_counter() - start_s, _LONGEST_GAP_S)
            self._gap_s += _GAP_WEIGHT * (gap_s - self._gap_s)
        finally:
            self._is_waiting = False

    def _comes_soon(self, start_s: float) -> bool:
        """Wait for a request awake."""
        while not self._poll.poll(0):
            if time.perf_counter() > start_s + _AWAKE_S:
                return False
        return True

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task gave way to others (trio.abc.Instrument): if it answers a request, the next may take one."""
        if task is self._holder and not self._is_waiting:
            self._away.add(task)
            self._pass_on()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """A task ended (trio.abc.Instrument)."""
        self._away.discard(task)
        if task is self._holder:
            self._pass_on()

    def _pass_on(self) -> None:
        self._holder = None
        self._idle.unpark()


class _Replaced:
    """A module in which some names stand for something else."""

    def __init__(self, module: object, **names: object) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def trio_in_turns(before_wait: Callable[[], object] = bool) -> object:
    """What pyfuse3 is to use as `trio` in this trio run, so that its tasks take requests in `Turns`."""
    turns = Turns(before_wait)
    trio.lowlevel.add_instrument(turns)
    lowlevel = _Replaced(trio.lowlevel, wait_readable=turns.wait_readable)
    return _Replaced(trio, lowlevel=lowlevel, Lock=lambda: turns)
