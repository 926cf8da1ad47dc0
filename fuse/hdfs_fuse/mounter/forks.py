"""Starting daemons by forking a process that has imported everything (hdfs_fuse.fork_server)."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping

import msgspec

from hdfs_fuse import handover
from hdfs_fuse.errors import MountError

# For glibc's malloc (mallopt(3)), which reads them when a program starts. By default a thread gives memory back to the
# kernel whenever 128 KiB are free at the end of its heap: so does a load with each batch of bytes that it has stored,
# and page faults on the next one. That was a sixth of the CPU time of a cold sequential read.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
# What ps shows of a process stands where its arguments were; by default setproctitle takes the environment's place too,
# and nobody could see any more with which one a process was started.
_TITLE = {"SPT_NOENV": "1"}
_TITLE_ROOM = " " * 200
# How long the first fork may take, which waits for what is imported, and how long the end of the server, in seconds.
_FORK_S, _END_S = 20.0, 5.0


class Fork(msgspec.Struct, frozen=True):
    """Fork a daemon; with it come its channel, a pipe for its exit status and what its log goes to.

    Attributes:
        environment: all of it.
    """

    environment: dict[str, str]


class Forked(msgspec.Struct, frozen=True):
    """The answer; with it comes a pidfd.

    Attributes:
        pid: of the daemon; 0 when there is none.
        problem: why not.
    """

    pid: int
    problem: str = ""


class ForkedProcess:
    """A daemon.

    Attributes:
        pid: its number.
        pidfd: stays this process when the number is another's.
    """

    def __init__(self, pid: int, pidfd: int, status_fd: int) -> None:
        """Own both descriptors; the fork server writes the exit status to the other end of `status_fd`."""
        self.pid = pid
        self.pidfd = pidfd
        self._status_fd = status_fd
        self._code: int | None = None
        self._reading = threading.Lock()

    def __del__(self) -> None:
        os.close(self.pidfd)
        os.close(self._status_fd)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit status, as subprocess.Popen.returncode; None when it has not ended after `timeout_s`.

        -SIGKILL also where nobody knows, since the fork server has ended first.
        """
        for fd in (self._status_fd, self.pidfd):
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                return None
        with self._reading:
            if self._code is None:
                self._code = int(os.read(self._status_fd, 16) or -signal.SIGKILL)
        return self._code

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """SIGKILL it."""
        self.send(signal.SIGKILL)


class Forks:
    """The fork server of a supervisor, started when it is first needed, and again when it has died. Thread-safe."""

    def __init__(self) -> None:
        """Start none yet."""
        self._mutex = threading.Lock()
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None

    def fork(self, environment: Mapping[str, str], channel: socket.socket, log_fd: int) -> ForkedProcess:
        """A new daemon, which serves what it is told on `channel` and writes its log to `log_fd`.

        Raises:
            MountError: it can't be started.
        """
        status_fd, theirs = os.pipe()
        try:
            forked, pidfd = self._ask(Fork(dict(environment)), (channel.fileno(), theirs, log_fd))
        except BaseException:
            os.close(status_fd)
            raise
        finally:
            os.close(theirs)
        return ForkedProcess(forked.pid, pidfd, status_fd)

    def _ask(self, request: Fork, fds: tuple[int, int, int]) -> tuple[Forked, int]:
        with self._mutex:
            try:
                channel = self._send(request, fds)
                forked, pidfds = handover.receive(channel, Forked, 1)
            except EOFError as e:
                self._close()
                raise MountError("the process that starts daemons ended; its log says more") from e
            except OSError as e:
                self._close()  # one that hangs too: its answer must not be taken for the next
                raise MountError(f"the process that starts daemons does not run: {e}") from e
        assert isinstance(forked, Forked)
        if forked.problem:
            raise MountError(f"no daemon could be started: {forked.problem}")
        return forked, pidfds[0]

    def _send(self, request: Fork, fds: tuple[int, int, int]) -> socket.socket:
        """Ask the fork server; where none runs any more, another one."""
        if self._server is None:
            self._server = self._start()
        try:
            handover.send(self._server[1], request, fds)
        except BrokenPipeError:
            self._close()
            self._server = self._start()
            handover.send(self._server[1], request, fds)
        return self._server[1]

    @staticmethod
    def _start() -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_FORK_S)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "hdfs_fuse.fork_server", str(theirs.fileno()), _TITLE_ROOM],
                pass_fds=[theirs.fileno()],
                env={**_ALLOCATOR, **_TITLE, **os.environ},
                stdin=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # a daemon outlives the terminal and a restart of the node service
            )
        return process, ours

    def _close(self) -> None:
        if self._server is None:
            return
        (process, channel), self._server = self._server, None
        channel.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End the fork server; daemons go on."""
        with self._mutex:
            self._close()
