"""The process that serves a mount, whoever started it: found by the socket of its statistics, held by a pidfd."""

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# How long a daemon may take to tell its statistics, in seconds. It does so while it stores what is left, too.
_ANSWER_S = 5.0
# struct ucred (unix(7)): pid, uid, gid
_UCRED = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class ServingProcess:
    """A daemon. To be closed.

    Attributes:
        pid: its number.
        pidfd: stays the same process when the number is another's.
        stats_path: where it offers its statistics; another daemon may do so there later.
    """

    pid: int
    pidfd: int
    stats_path: str

    @staticmethod
    def find(stats_path: str) -> "ServingProcess | None":
        """Who listens there, also where it hangs; None when nobody does, or it can't be known."""
        with contextlib.suppress(OSError), _connected(stats_path) as connection:
            return ServingProcess.of(peer_of(connection)[0], stats_path)
        return None

    @staticmethod
    def of(pid: int, stats_path: str) -> "ServingProcess | None":
        """The process that carries `pid` now; None when there is none."""
        try:
            return ServingProcess(pid, os.pidfd_open(pid), stats_path)
        except OSError:  # gone; EINVAL: 0, a process of another pid namespace
            return None

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after `timeout_s` at the latest."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(max(timeout_s, 0.0) * 1000))

    def hangs(self) -> bool:
        """Whether it offers statistics and does not tell them; False also where it offers none any longer."""
        try:
            with _connected(self.stats_path) as connection:
                if peer_of(connection)[0] == self.pid:
                    connection.recv(1)
                return False
        except (TimeoutError, BlockingIOError):  # it takes nothing off the queue, or the queue is full
            return True
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Let go of the pidfd."""
        os.close(self.pidfd)


@contextlib.contextmanager
def _connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(path)
        yield connection


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user that connected a unix socket, or called listen(2) on what it is connected to (SO_PEERCRED)."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid
