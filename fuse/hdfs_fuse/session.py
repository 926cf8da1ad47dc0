"""Takes turns at /dev/fuse without a task switch for every request.

pyfuse3 lets trio tasks take turns with a trio.Lock and trio.lowlevel.wait_readable: two checkpoints, an epoll_ctl and
an epoll_wait for each request, which cost more than answering it. Here a task that answered a request without waiting
for anything keeps its turn and takes the next request at once.

pyfuse3 looks `trio` up in its own module when it needs it, since pyfuse3.asyncio replaces it there; so does the daemon.
"""

import select
from typing import Any

import trio

# Requests answered one after the other before other tasks may run: about half a millisecond.
_BURST = 16


class Turns(trio.abc.Instrument):
    """Who may take the next request; both the lock and the wait of pyfuse3's session loop."""

    def __init__(self) -> None:
        """Nobody has the turn yet."""
        self._holder: trio.lowlevel.Task | None = None
        self._is_waiting = False  # the holder does nothing but wait for a request, or lets others run
        self._idle = trio.lowlevel.ParkingLot()
        self._poll = select.poll()
        self._polled_fd = -1
        self._burst = 0

    async def __aenter__(self) -> None:
        """Wait until nobody else has the turn. Lets other tasks run, every now and then."""
        task = trio.lowlevel.current_task()
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
        if fd != self._polled_fd:
            self._poll.register(fd, select.POLLIN)
            self._polled_fd = fd
        self._is_waiting = True
        try:
            if self._poll.poll(0):
                self._burst += 1
            else:
                self._burst = 0
                await trio.lowlevel.wait_readable(fd)
        finally:
            self._is_waiting = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task gave way to others (trio.abc.Instrument): if it answers a request, or ended, the next may take one."""
        if task is self._holder and not self._is_waiting:
            self._holder = None
            self._idle.unpark()


class _Replaced:
    """A module in which some names stand for something else."""

    def __init__(self, module: object, **names: object) -> None:
        self._module = module
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def trio_in_turns() -> object:
    """What pyfuse3 is to use as `trio` in this trio run, so that its tasks take requests in `Turns`."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    lowlevel = _Replaced(trio.lowlevel, wait_readable=turns.wait_readable)
    return _Replaced(trio, lowlevel=lowlevel, Lock=lambda: turns)
