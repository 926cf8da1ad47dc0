"""What a process used with its children: processor time, memory, bytes read; and what a daemon says of itself."""

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

# Often enough for a peak that lasts; a look costs 50 us.
_SAMPLE_INTERVAL_S = 0.05

# A mount is served a moment before its daemon listens for those who want its statistics.
_STATISTICS_DELAY_S = 10.0

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory in bytes (proc_pid_status(5)).

    Attributes:
        resident: VmRSS.
        anonymous: RssAnon: the process's own.
        mapped: RssFile: libraries, and files that it has mapped.
    """

    resident: int
    anonymous: int
    mapped: int


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that still run (proc_tid_children(5)); none of one that ended."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            children += map(int, (task / "children").read_text(encoding="ascii").split())
    return children


def memory_of(pid: int) -> Memory:
    """The memory of a process and its children now.

    Raises:
        ProcessLookupError: it has ended.
    """
    memory = _memory_of_one(pid)
    for child in children_of(pid):
        with contextlib.suppress(ProcessLookupError):
            more = memory_of(child)
            memory = Memory(
                memory.resident + more.resident, memory.anonymous + more.anonymous, memory.mapped + more.mapped
            )
    return memory


def _memory_of_one(pid: int) -> Memory:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    pairs = (line.partition(":") for line in lines if line.endswith(" kB"))
    values = {name: int(value.split()[0]) << 10 for name, _, value in pairs}
    return Memory(values.get("VmRSS", 0), values.get("RssAnon", 0), values.get("RssFile", 0))


def cpu_s_of(pid: int) -> float:
    """Processor time of a process and its children, in user and kernel, in seconds (proc_pid_stat(5), fields 14 to 17).

    Raises:
        FileNotFoundError: it has ended.
    """
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    running_s = 0.0
    for child in children_of(pid):
        with contextlib.suppress(FileNotFoundError):
            running_s += cpu_s_of(child)
    return running_s + sum(map(int, fields[11:15])) / _TICKS_PER_S


def read_bytes_of(pid: int) -> int:
    """Bytes that a process has read or sent from files, cached or not (proc_pid_io(5), rchar).

    For a DataNode this is what its clients got, since it sends blocks by sendfile(2), which is counted too.
    """
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def daemon_statistics(stats_socket: str) -> dict[str, int]:
    """The counters of a mount's daemon (metrics.py), and its pid.

    Raises:
        OSError: it does not offer them.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        _connect(connection, stats_socket)
        with connection.makefile("rb") as answer:
            return {name: value for name, value in json.load(answer).items() if isinstance(value, int)}


def _connect(connection: socket.socket, path: str) -> None:
    deadline = time.monotonic() + _STATISTICS_DELAY_S
    while True:
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


class Peak:
    """Watches a process while a block runs; knows afterwards how much it took.

    Attributes:
        cpu_s: processor time.
        anonymous: the most anonymous memory, in bytes.
        resident: the most resident memory, in bytes.
    """

    def __init__(self, pid: int | None) -> None:
        """Watch `pid`; None watches nothing."""
        self._pid = pid
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak", daemon=True)
        self.cpu_s = 0.0
        self.anonymous = 0
        self.resident = 0

    def __enter__(self) -> Self:
        if self._pid is not None:
            self._begun_s = cpu_s_of(self._pid)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid is not None:
            self._ending.set()
            self._thread.join()
            if kind is None:
                self.cpu_s = cpu_s_of(self._pid) - self._begun_s

    def _watch(self) -> None:
        assert self._pid is not None
        is_last = False
        while not is_last:
            is_last = self._ending.wait(_SAMPLE_INTERVAL_S)
            try:
                memory = memory_of(self._pid)
            except ProcessLookupError:
                return
            self.anonymous = max(self.anonymous, memory.anonymous)
            self.resident = max(self.resident, memory.resident)
