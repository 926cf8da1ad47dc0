"""The process that daemons are forked from, once everything that they need is imported: that takes half a second.

Run as `python -m hdfs_fuse.fork_server FD`, where FD is the channel to the supervisor (mounter/forks.py). Has one
thread, and reaps its daemons and what those leave behind. It ends with the channel; daemons go on.
"""

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import setproctitle

# What most daemons use. pyarrow is left to those that do: it takes 100 MB.
import hdfs_fuse.backend.administration
import hdfs_fuse.backend.hdfs_native
import hdfs_fuse.backend.local
import hdfs_fuse.backend.webhdfs  # noqa: F401
from hdfs_fuse import daemon, handover
from hdfs_fuse.mounter.forks import Fork, Forked

_PR_SET_CHILD_SUBREAPER = 36


class ForkServer:
    """Forks a daemon for each request."""

    def __init__(self, channel: socket.socket) -> None:
        """Take requests from `channel`."""
        self._channel = channel
        self._status_fds: dict[int, int] = {}  # by pid: where to tell how a daemon ended

    def run(self) -> None:
        """Serve until the supervisor closes the channel."""
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        while True:
            try:
                request, (channel_fd, status_fd, log_fd) = handover.receive(self._channel, Fork, 3)
            except EOFError:
                return
            with _without_sigchld():
                try:
                    pid = os.fork()
                except OSError as e:
                    reply, pidfds = Forked(0, f"fork: {e.strerror}"), []
                    os.close(status_fd)
                else:
                    if not pid:
                        self._become_daemon(request, channel_fd, status_fd, log_fd)
                    self._status_fds[pid] = status_fd
                    reply, pidfds = Forked(pid), [os.pidfd_open(pid)]
            handover.send(self._channel, reply, pidfds)
            for fd in (channel_fd, log_fd, *pidfds):
                os.close(fd)

    def _become_daemon(self, request: Fork, channel_fd: int, status_fd: int, log_fd: int) -> None:
        """Be the daemon that the supervisor describes on `channel_fd`; does not return."""
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            self._channel.close()
            for standard_fd in (1, 2):
                os.dup2(log_fd, standard_fd)
            for fd in (log_fd, status_fd, *self._status_fds.values()):
                os.close(fd)
            os.setsid()
            os.environ.clear()
            os.environ.update(request.environment)
            code = daemon.serve(socket.socket(fileno=channel_fd))
            logging.shutdown()
        finally:
            # Threads that hang in a call to the filesystem would keep the interpreter from ending.
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                fd = self._status_fds.pop(pid, None)
                if fd is not None:
                    with contextlib.suppress(BrokenPipeError):
                        os.write(fd, str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(fd)


@contextlib.contextmanager
def _without_sigchld() -> Iterator[None]:
    """So that no daemon is reaped before it is known."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def main() -> None:
    """Fork daemons for the supervisor on descriptor argv[1]."""
    # Also so that daemons can change theirs: the place is only found by the environment of the start.
    setproctitle.setproctitle("hdfs-fuse fork server")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    # The pages that hold what is imported stay shared: the collector would write to each object's header.
    gc.freeze()
    ForkServer(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
