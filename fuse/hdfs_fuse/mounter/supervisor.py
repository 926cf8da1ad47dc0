"""The daemons of this process: starts one a mount, watches and ends them. Mounts nothing, and needs no privileges."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from hdfs_fuse import handover
from hdfs_fuse.backend.identity import client_environment
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import DeadlineError, MountError
from hdfs_fuse.mounter.forks import ForkedProcess, Forks
from hdfs_fuse.mounter.serving import ServingProcess

logger = logging.getLogger(__name__)

# How often to look whether a daemon that does not end hangs, and how long one that was killed may take, in seconds.
_LOOK_S, _END_S = 1.0, 5.0


def default_runtime_dir() -> str:
    """Where daemons offer their statistics: HDFS_FUSE_RUNTIME_DIR, else below /run or XDG_RUNTIME_DIR."""
    if from_environment := os.environ.get("HDFS_FUSE_RUNTIME_DIR"):
        return from_environment
    if os.geteuid() == 0:
        return "/run/hdfs-fuse"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/hdfs-fuse-{os.getuid()}", "hdfs-fuse")  # noqa: S108


def stats_path(runtime_dir: str, device: str) -> str:
    """The statistics socket of the mount with that device number; bind mounts of it have the same."""
    return os.path.join(runtime_dir, device.replace(":", "-"), "stats")


class _Folders:
    """The folders of the daemons' sockets, one a mount. A device number is given again as soon as it is free."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._mutex = threading.Lock()
        self._uses: dict[str, int] = {}  # by device: how often a folder was made for it

    def make(self, device: str) -> str:
        """An empty folder; the path of the socket that is to stand in it."""
        path = stats_path(self._runtime_dir, device)
        with self._mutex:
            self._uses[device] = self._uses.get(device, 0) + 1
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)  # of an earlier mount
            os.makedirs(os.path.dirname(path), mode=0o700)
        return path

    def use(self, device: str) -> int:
        """Which mount with that number this is, for `remove`."""
        with self._mutex:
            return self._uses.get(device, 0)

    def remove(self, device: str, use: int) -> None:
        """Remove the folder of a mount that is gone, unless it is the next mount's by now."""
        with self._mutex:
            if self._uses.get(device, 0) == use:
                shutil.rmtree(os.path.dirname(stats_path(self._runtime_dir, device)), ignore_errors=True)


@dataclass(slots=True)
class _Daemon:
    """A daemon that this supervisor started; see daemons.Starting."""

    process: ForkedProcess
    channel: socket.socket
    mountpoint: str
    folders: "_Folders"
    serves: bool = False

    def serve(self, device: str, fuse_fd: int, session_fd: int, *, deadline_s: float) -> None:
        """See daemons.Starting."""
        path = self.folders.make(device)
        handover.send(self.channel, handover.Serve(path), (fuse_fd, session_fd))
        self.expect(handover.Serving, deadline_s)
        self.serves = True

    def expect(self, kind: type[handover.Message], deadline_s: float) -> None:
        """Wait for a message of that kind."""
        self.channel.settimeout(max(deadline_s, 0.001))
        try:
            message, _ = handover.receive(self.channel, handover.Message)
        except TimeoutError:
            raise DeadlineError(
                f"{self.mountpoint}: the daemon did not get as far as {kind.__name__} in time"
            ) from None
        except EOFError:
            code = self.process.wait(_END_S)
            raise MountError(f"{self.mountpoint}: the daemon ended with status {code}; its log says more") from None
        if isinstance(message, handover.Failed):
            raise message.as_error()
        if not isinstance(message, kind):
            raise MountError(f"{self.mountpoint}: the daemon sent {message!r} instead of {kind.__name__}")

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.channel.close()
        if self.process.wait(_END_S) is None:  # it hangs in the kernel, in a disk say: nobody can wait for that
            logger.warning("the daemon of %s (pid %d) does not die", self.mountpoint, self.process.pid)


@dataclass(slots=True)
class _Ending:
    """See daemons.Ending.

    Attributes:
        serving: who is to end; None once `end` has taken it over.
        end: takes what ends, and until when.
        is_finished: whether it has ended.
    """

    serving: ServingProcess | None
    end: Callable[[ServingProcess | None, float], None]
    is_finished: bool = False

    def finish(self, *, deadline_s: float) -> None:
        """See daemons.Ending."""
        serving, self.serving = self.serving, None
        self.end(serving, time.monotonic() + deadline_s)
        self.is_finished = True


class Supervisor:
    """Keeps the daemons of this process; see daemons.Daemons."""

    def __init__(self, runtime_dir: str | None = None, log_path: str | None = None, forks: Forks | None = None) -> None:
        """Supervise.

        Args:
            runtime_dir: for the daemons' sockets; made when missing.
            log_path: where daemons write their log; None leaves them this process's standard error.
            forks: starts them; None for a fork server of its own, which ends with `close`.
        """
        self.runtime_dir = runtime_dir or default_runtime_dir()
        self._log_path = log_path
        self._forks = forks or Forks()
        self._ends_forks = forks is None
        self._mutex = threading.Lock()
        self._folders = _Folders(self.runtime_dir)
        self._daemons: dict[str, _Daemon] = {}
        self._ending: dict[str, list[ServingProcess]] = {}  # by mountpoint: those that were not waited for to the end

    @contextlib.contextmanager
    def starting(self, config: MountConfig, mountpoint: str, *, deadline_s: float) -> Iterator[_Daemon]:
        """See daemons.Daemons."""
        end_s = time.monotonic() + deadline_s
        daemon = self._fork(config, mountpoint)
        try:
            try:
                daemon.channel.send(config.to_json())
            except OSError as e:
                raise MountError(f"{mountpoint}: the daemon can't be given its configuration: {e.strerror}") from e
            daemon.expect(handover.Connected, end_s - time.monotonic())
            yield daemon
        except BaseException:
            daemon.kill()
            raise
        if not daemon.serves:
            daemon.kill()
            return
        with self._mutex:
            self._daemons[mountpoint] = daemon
        threading.Thread(target=self._watch, args=(daemon,), name=f"watch {mountpoint}", daemon=True).start()
        logger.info("serving %s at %s (pid %d)", config.uri, mountpoint, daemon.process.pid)

    def _fork(self, config: MountConfig, mountpoint: str) -> _Daemon:
        environment = {**os.environ, **client_environment(config)}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            # Descriptor 2 is the standard error whatever has become of sys.stderr.
            with open(self._log_path, "ab") if self._log_path else open(2, "wb", closefd=False) as log:
                process = self._forks.fork(environment, theirs, log.fileno())
            undo.pop_all()
        return _Daemon(process, ours, mountpoint, self._folders)

    def _watch(self, daemon: _Daemon) -> None:
        """Say so when the daemon ends in disorder."""
        code = daemon.process.wait()
        with self._mutex:
            if self._daemons.get(daemon.mountpoint) is daemon:
                del self._daemons[daemon.mountpoint]
        daemon.channel.close()
        if code:
            logger.warning(
                "the daemon of %s (pid %d) ended with status %d", daemon.mountpoint, daemon.process.pid, code
            )

    @contextlib.contextmanager
    def ending(self, mountpoint: str, device: str | None) -> Iterator[_Ending]:
        """See daemons.Daemons."""
        use = self._folders.use(device or "")
        ending = _Ending(self._serving(mountpoint, device) if device else None, partial(self._end, mountpoint))
        try:
            yield ending
        finally:
            if ending.serving is not None:
                ending.serving.close()
        if ending.is_finished and device:
            self._folders.remove(device, use)

    def _serving(self, mountpoint: str, device: str) -> ServingProcess | None:
        path = stats_path(self.runtime_dir, device)
        with self._mutex:
            daemon = self._daemons.get(mountpoint)
        return ServingProcess.find(path) if daemon is None else ServingProcess.of(daemon.process.pid, path)

    def _end(self, mountpoint: str, serving: ServingProcess | None, end_s: float) -> None:
        with self._mutex:
            left = self._ending.pop(mountpoint, [])
        if serving is not None:
            # Who has a file open on a mount that was detached would keep its daemon for ever.
            serving.send(signal.SIGTERM)
            left.append(serving)
        try:
            while left:
                self._wait_for_end(mountpoint, left[-1], end_s)
                left.pop().close()
        finally:
            if left:
                with self._mutex:
                    self._ending[mountpoint] = left

    def _wait_for_end(self, mountpoint: str, serving: ServingProcess, end_s: float) -> None:
        while not serving.wait(min(_LOOK_S, end_s - time.monotonic())):
            if serving.hangs():
                logger.warning("the daemon of %s (pid %d) hangs, killed", mountpoint, serving.pid)
                serving.send(signal.SIGKILL)
                if not serving.wait(_END_S):  # in the kernel, in a disk say: nobody can wait for that
                    logger.warning("the daemon of %s (pid %d) does not die", mountpoint, serving.pid)
                break
            if time.monotonic() > end_s:
                raise DeadlineError(
                    f"{mountpoint}: unmounted, but its daemon (pid {serving.pid}) is still storing files; "
                    "its log says more"
                )
        with self._mutex:
            daemon = self._daemons.get(mountpoint)
        if daemon is not None and daemon.process.pid == serving.pid:
            daemon.process.wait(_END_S)  # reaped before anybody asks

    def wait(self, mountpoint: str) -> None:
        """Wait until the daemon of a mountpoint has ended."""
        with self._mutex:
            daemon = self._daemons.get(mountpoint)
        if daemon is not None:
            daemon.process.wait()

    def close(self) -> None:
        """Stop supervising. The daemons go on."""
        with self._mutex:
            self._daemons.clear()
        if self._ends_forks:
            self._forks.close()
