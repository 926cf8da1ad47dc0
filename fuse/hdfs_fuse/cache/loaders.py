"""Loads of small blocks in processes of their own, seen from the daemon.

Python runs one thread at a time in a process. A small file costs its loading thread a dozen system calls, each of
which hands the interpreter over to another thread and waits to get it back; beside an event loop that answers FUSE
requests that was half of a cold file's CPU time. A loader process (loader.py) has an interpreter of its own, and gives
back whole answers. It only ever reads: when it dies, what it was asked for is simply done here.
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import trio

from hdfs_fuse import errors
from hdfs_fuse.cache.content import BlockUnavailableError
from hdfs_fuse.cache.small import ANSWER, FROM_DISK, HAS_DATA, IS_CHECKED, LoadRequest, SmallAnswer
from hdfs_fuse.metrics import Metrics

logger = logging.getLogger(__name__)

# Small loads at once that make a process worth its 0.15 s of CPU time and 31 MiB, and loads that keep one busy.
_WORTH_A_PROCESS = 4
_BUSY = 12
# More would only wait there, and the socket holds no more requests with long paths.
_MAX_PENDING = 64
# A process that ended without being told to is not replaced for this long.
_PAUSE_S = 10.0
_RECEIVE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Pending:
    """A load that a process has been asked for.

    Attributes:
        name: of the block.
        answered: takes the answer.
        here: does the load in this process instead.
    """

    name: str
    answered: Callable[[SmallAnswer], object]
    here: Callable[[], object]


class _Process:
    """One loader process, from its start to its end. Belongs to the event loop."""

    def __init__(self, config_json: bytes, metrics: Metrics) -> None:
        self._config_json = config_json
        self._metrics = metrics
        self._requests, self._their_requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._answers, self._their_answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._requests.setblocking(False)
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0
        self.pending: dict[int, _Pending] = {}
        self.is_ready = False
        self.has_failed = False

    async def run(self) -> None:
        """Start the process and take its answers until it ends; then do here what it has left."""
        try:
            self._process = await trio.to_thread.run_sync(self._start)
            self._requests.send(self._config_json)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._answers))
            received = bytearray()
            while data := await stream.receive_some(_RECEIVE_BYTES):
                received += data
                self._take(received)
        except (OSError, RuntimeError, trio.BrokenResourceError) as e:  # RuntimeError: no thread can be started
            logger.warning("a loader process failed: %s", e)
        finally:
            self.is_ready = False
            for end in (self._requests, self._their_requests, self._answers, self._their_answers):
                end.close()
            for load in self.pending.values():
                load.here()
            self.pending.clear()
            self.kill()  # unless it has ended by itself
            self.has_failed = True
            with trio.CancelScope(shield=True), contextlib.suppress(RuntimeError):
                self.has_failed = self._process is None or await trio.to_thread.run_sync(self._process.wait) != 0

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._their_requests, self._their_answers:
            fds = (self._their_requests.fileno(), self._their_answers.fileno())
            command = [sys.executable, "-m", "hdfs_fuse.loader", *map(str, fds)]
            return subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL)

    def send(self, request: LoadRequest, pending: _Pending) -> bool:
        """Ask for a block; False when the process can't be asked now."""
        self._number += 1
        try:
            self._requests.send(self._number.to_bytes(4, "little") + msgspec.msgpack.encode(request))
        except (OSError, UnicodeEncodeError):  # full, or a local path that is not UTF-8
            return False
        self.pending[self._number] = pending
        return True

    def _take(self, received: bytearray) -> None:
        """Hand complete answers out, and leave the beginning of the next one."""
        at = 0
        while len(received) - at >= ANSWER.size:
            number, length, flags, fault_count, evicted_bytes = ANSWER.unpack_from(received, at)
            end = at + ANSWER.size + length
            if end > len(received):
                break
            payload = bytes(memoryview(received)[at + ANSWER.size : end])
            at = end
            self._metrics.cache_fault_count += fault_count
            self._metrics.evicted_bytes += evicted_bytes
            if number == 0:
                self.is_ready = True
            elif (load := self.pending.pop(number, None)) is not None:
                load.answered(self._decode(payload, flags))
        del received[:at]

    def _decode(self, payload: bytes, flags: int) -> SmallAnswer:
        is_checked = bool(flags & IS_CHECKED)
        if not flags & HAS_DATA:
            name, message = msgspec.msgpack.decode(payload, type=tuple[str, str])
            return SmallAnswer(None, errors.named(name, message, BlockUnavailableError), is_checked=is_checked)
        if not flags & FROM_DISK:
            self._metrics.hdfs_bytes += len(payload)
        return SmallAnswer(payload, from_disk=bool(flags & FROM_DISK), is_checked=is_checked)

    def kill(self) -> None:
        """End it at once, whatever it hangs in."""
        if self._process is not None:
            self._process.kill()


class Loaders:
    """The loader processes of a daemon: none while nobody reads small files. Belongs to the event loop."""

    def __init__(self, config_json: bytes, metrics: Metrics, nursery: trio.Nursery, limit: int | None = None) -> None:
        """Start processes in `nursery`.

        Args:
            config_json: the MountConfig, for them.
            metrics: what is counted.
            nursery: their answers are taken there.
            limit: how many at most; by default one for four processors, at most 3.
        """
        self._config_json = config_json
        self._metrics = metrics
        self._nursery = nursery
        self._limit = max(1, min((os.cpu_count() or 1) // 4, 3)) if limit is None else limit
        self._processes: list[_Process] = []
        self._paused_until_s = 0.0

    def __len__(self) -> int:
        """How many processes there are, those included that are just starting."""
        return len(self._processes)

    def start(
        self, load: LoadRequest, answered: Callable[[SmallAnswer], object], here: Callable[[], object], *, busy: int
    ) -> bool:
        """Have a process bring a small block, if there is one to do it.

        Args:
            load: the request.
            answered: called on the event loop with what became of it.
            here: called instead when the process ends before: does the load in this process.
            busy: small loads that are under way in all.

        Returns:
            False when this process has to do it.
        """
        ready = [process for process in self._processes if process.is_ready]
        process = min(ready, key=lambda process: len(process.pending), default=None)
        has_news = len(ready) < len(self._processes)
        if not has_news and len(ready) < self._limit and busy >= (_BUSY * len(ready) or _WORTH_A_PROCESS):
            self._start_process()
        if process is None or len(process.pending) >= _MAX_PENDING:
            return False
        return process.send(load, _Pending(load.name, answered, here))

    def _start_process(self) -> None:
        if time.monotonic() < self._paused_until_s:
            return
        process = _Process(self._config_json, self._metrics)
        self._processes.append(process)
        self._nursery.start_soon(self._run, process)

    async def _run(self, process: _Process) -> None:
        try:
            await process.run()
        finally:
            self._processes.remove(process)
        if process.has_failed:
            self._paused_until_s = time.monotonic() + _PAUSE_S

    def abandon(self, name: str) -> None:
        """Nobody waits any longer for the block of that name: the process that hangs with it is of no use."""
        for process in self._processes:
            for number, load in process.pending.items():
                if load.name == name:
                    del process.pending[number]
                    load.answered(SmallAnswer(None, errors.DeadlineError("abandoned")))
                    with contextlib.suppress(OSError):
                        process.kill()
                    return
