"""The daemons of this process: starts one a mount, watches and ends them. Mounts nothing, and needs no privileges."""

import contextlib
import glob
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
# In the folder of a mount: where it is.
_MOUNTPOINT = "mountpoint"


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
    """The folders of the daemons, one a mount, with their sockets and the names of their mountpoints.

    A device number is given again as soon as it is free.
    """

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._mutex = threading.Lock()
        self._uses: dict[str, int] = {}  # by device: how often a folder was made for it

    def make(self, device: str, mountpoint: str) -> str:
        """A new folder; the path of the socket that is to stand in it."""
        path = stats_path(self._runtime_dir, device)
        with self._mutex:
            self._uses[device] = self._uses.get(device, 0) + 1
            for earlier in self.devices_of(mountpoint):
                if ServingProcess.find(stats_path(self._runtime_dir, earlier)) is None:
                    self._remove(earlier)
            self._remove(device)
            os.makedirs(os.path.dirname(path), mode=0o700)
            with open(os.path.join(os.path.dirname(path), _MOUNTPOINT), "wb") as file:
                file.write(os.fsencode(mountpoint))
        return path

    def devices_of(self, mountpoint: str) -> frozenset[str]:
        """What is mounted at `mountpoint`, or was, by this supervisor or an earlier one."""
        found = set()
        for path in glob.glob(os.path.join(glob.escape(self._runtime_dir), "*", _MOUNTPOINT)):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                if file.read() == os.fsencode(mountpoint):
                    found.add(os.path.basename(os.path.dirname(path)).replace("-", ":"))
        return frozenset(found)

    def use(self, device: str) -> int:
        """Which mount with that number this is, for `remove`."""
        with self._mutex:
            return self._uses.get(device, 0)

    def remove(self, device: str, use: int) -> None:
        """Remove the folder of a mount that is gone, unless it is the next mount's by now."""
        with self._mutex:
            if self._uses.get(device, 0) == use:
                self._remove(device)

    def _remove(self, device: str) -> None:
        shutil.rmtree(os.path.dirname(stats_path(self._runtime_dir, device)), ignore_errors=True)


@dataclass(slots=True)
class _Daemon:
    """A daemon that this supervisor started; see daemons.Starting."""

    process: ForkedProcess
    channel: socket.socket
    mountpoint: str
    folders: _Folders
    device: str = ""

    def serve(self, device: str, fuse_fd: int, session_fd: int, *, deadline_s: float) -> None:
        """See daemons.Starting."""
        path = self.folders.make(device, self.mountpoint)
        handover.send(self.channel, handover.Serve(path), (fuse_fd, session_fd))
        self.expect(handover.Serving, deadline_s)
        self.device = device

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
        devices: of the mounts.
        serving: their daemons, each with its device.
        end: has daemons end, until when.
        finished: the devices of those that have.
    """

    devices: frozenset[str]
    serving: list[tuple[str, ServingProcess]]
    end: Callable[[list[ServingProcess], float], None]
    finished: frozenset[str] = frozenset()

    def finish(self, devices: frozenset[str], *, deadline_s: float) -> None:
        """See daemons.Ending."""
        ending = [process for device, process in self.serving if device in devices]
        self.serving = [(device, process) for device, process in self.serving if device not in devices]
        self.end(ending, time.monotonic() + deadline_s)
        self.finished = devices


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
        self._daemons: list[_Daemon] = []
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
        if not daemon.device:
            daemon.kill()
            return
        with self._mutex:
            self._daemons.append(daemon)
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
            self._daemons = [other for other in self._daemons if other is not daemon]
        daemon.channel.close()
        if code:
            logger.warning(
                "the daemon of %s (pid %d) ended with status %d", daemon.mountpoint, daemon.process.pid, code
            )

    @contextlib.contextmanager
    def ending(self, mountpoint: str, device: str | None) -> Iterator[_Ending]:
        """See daemons.Daemons."""
        noted = self._folders.devices_of(mountpoint) | ({device} if device else set())
        serving = self._serving(mountpoint, noted)
        devices = noted | {served for served, _ in serving}
        uses = {each: self._folders.use(each) for each in devices}
        ending = _Ending(devices, serving, partial(self._end, mountpoint))
        try:
            yield ending
        finally:
            for _, process in ending.serving:
                process.close()
        for each in ending.finished:
            self._folders.remove(each, uses.get(each, 0))

    def _serving(self, mountpoint: str, devices: frozenset[str]) -> list[tuple[str, ServingProcess]]:
        with self._mutex:
            own = [daemon for daemon in self._daemons if daemon.mountpoint == mountpoint]
        found = [(daemon.device, self._serving_process(daemon)) for daemon in own]
        for device in devices - {device for device, _ in found}:
            process = ServingProcess.find(stats_path(self.runtime_dir, device))
            if process is not None:
                found.append((device, process))
        return found

    def _serving_process(self, daemon: _Daemon) -> ServingProcess:
        path = stats_path(self.runtime_dir, daemon.device)
        return ServingProcess(daemon.process.pid, os.dup(daemon.process.pidfd), path)

    def _end(self, mountpoint: str, ending: list[ServingProcess], end_s: float) -> None:
        with self._mutex:
            left = self._ending.pop(mountpoint, [])
        for process in ending:
            # Who has a file open on a mount that was detached would keep its daemon for ever.
            process.send(signal.SIGTERM)
        left += ending
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
            own = [daemon for daemon in self._daemons if daemon.process.pid == serving.pid]
        for daemon in own:
            daemon.process.wait(_END_S)  # reaped before anybody asks

    def wait(self, mountpoint: str) -> None:
        """Wait until the daemon of a mountpoint has ended."""
        with self._mutex:
            own = [daemon for daemon in self._daemons if daemon.mountpoint == mountpoint]
        for daemon in own:
            daemon.process.wait()

    def end_all(self) -> None:
        """Have all daemons of this supervisor end, and wait until they have stored what was written."""
        with self._mutex:
            daemons = list(self._daemons)
        for daemon in daemons:
            daemon.process.send(signal.SIGTERM)
        for daemon in daemons:
            daemon.process.wait()

    def close(self) -> None:
        """Stop supervising. The daemons go on."""
        with self._mutex:
            self._daemons.clear()
        if self._ends_forks:
            self._forks.close()
