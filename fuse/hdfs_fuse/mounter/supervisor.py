"""Starts one daemon a mount, hands the FUSE connection over, watches and reaps: for a local mount and for CSI alike."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from hdfs_fuse import handover
from hdfs_fuse.backend.identity import client_environment
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import BusyError, DeadlineError, MountError, NotDirectoryError, NotFoundError
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.serving import ServingProcess

logger = logging.getLogger(__name__)

# How often to look whether a daemon that does not end hangs, and how long one that was killed may take, in seconds.
_LOOK_S, _END_S = 1.0, 5.0
# For glibc's malloc (mallopt(3)). By default a thread gives memory back to the kernel whenever 128 KiB are free at the
# end of its heap: so does a load with each batch of bytes that it has stored, and page faults on the next one. That was
# a sixth of the CPU time of a cold sequential read.
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}


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


@dataclass(slots=True)
class _Daemon:
    """A daemon that this supervisor started."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    mountpoint: str


class Supervisor:
    """The mounts of this process. Thread-safe; calls for one mountpoint are the caller's to order."""

    def __init__(self, runtime_dir: str | None = None, log_path: str | None = None) -> None:
        """Supervise.

        Args:
            runtime_dir: for the daemons' sockets; made when missing.
            log_path: where daemons write their log; None leaves them this process's standard error.
        """
        self.runtime_dir = runtime_dir or default_runtime_dir()
        self._log_path = log_path
        self._mutex = threading.Lock()
        self._daemons: dict[str, _Daemon] = {}
        self._ending: dict[str, list[ServingProcess]] = {}  # by mountpoint: those that were not waited for to the end

    def mount(self, config: MountConfig, mountpoint: str, *, deadline_s: float = 30.0) -> None:
        """Mount, and wait until the mount is served.

        Args:
            config: what to mount.
            mountpoint: an existing directory on which nothing is mounted.
            deadline_s: after this many seconds everything is undone.

        Raises:
            NotFoundError, NotDirectoryError: of the mountpoint or of the path to mount.
            BusyError: something is mounted there.
            PermissionDeniedError, AuthenticationError, UnavailableError, MountError: as the daemon says.
            DeadlineError: it took too long.
        """
        end_s = time.monotonic() + deadline_s
        target = _check_mountpoint(mountpoint)
        daemon = self._start(config, target)
        try:
            self._hand_over(daemon, config, end_s)
        except BaseException:
            self._kill(daemon)
            raise
        with self._mutex:
            self._daemons[target] = daemon
        threading.Thread(target=self._watch, args=(daemon,), name=f"watch {target}", daemon=True).start()
        logger.info("mounted %s at %s (pid %d)", config.uri, target, daemon.process.pid)

    def _start(self, config: MountConfig, target: str) -> _Daemon:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as stack:
            log = stack.enter_context(open(self._log_path, "ab")) if self._log_path else None
            process = subprocess.Popen(
                [sys.executable, "-m", "hdfs_fuse.daemon", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**_ALLOCATOR, **os.environ, **client_environment(config)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a daemon outlives the terminal and a restart of the node service
            )
        daemon = _Daemon(process, ours, target)
        try:
            ours.send(config.to_json())
        except OSError as e:
            self._kill(daemon)
            raise MountError(f"{target}: the daemon can't be given its configuration: {e.strerror}") from e
        return daemon

    def _hand_over(self, daemon: _Daemon, config: MountConfig, end_s: float) -> None:
        self._expect(daemon, handover.Connected, end_s)
        fuse_fd = mounts.mount_fuse(
            daemon.mountpoint, config.uri, read_only=config.read_only, allow_other=config.allow_other
        )
        try:
            entry = mounts.find(daemon.mountpoint)
            if entry is None:
                raise MountError(f"{daemon.mountpoint}: mounted, but not to be found in mountinfo")
            init = mounts.read_init(fuse_fd, max(end_s - time.monotonic(), 0.0))
            replay, session = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with replay, session:
                replay.send(init)
                path = stats_path(self.runtime_dir, entry.device)
                shutil.rmtree(os.path.dirname(path), ignore_errors=True)  # of an earlier mount with that number
                os.makedirs(os.path.dirname(path), mode=0o700)
                handover.send(daemon.channel, handover.Serve(path), (fuse_fd, session.fileno()))
                self._expect(daemon, handover.Serving, end_s)
            mounts.tune(entry.device)  # not before: the answer to FUSE_INIT would lower it again
        except BaseException:
            os.close(fuse_fd)
            self._kill(daemon)
            mounts.unmount(daemon.mountpoint, force=True)
            raise
        os.close(fuse_fd)

    @staticmethod
    def _expect(daemon: _Daemon, kind: type[handover.Message], end_s: float) -> None:
        daemon.channel.settimeout(max(end_s - time.monotonic(), 0.001))
        try:
            message, _ = handover.receive(daemon.channel)
        except TimeoutError:
            raise DeadlineError(
                f"{daemon.mountpoint}: the daemon did not get as far as {kind.__name__} in time"
            ) from None
        except EOFError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(_END_S)
            code = daemon.process.returncode
            raise MountError(f"{daemon.mountpoint}: the daemon ended with status {code}; its log says more") from None
        if isinstance(message, handover.Failed):
            raise message.as_error()
        if not isinstance(message, kind):
            raise MountError(f"{daemon.mountpoint}: the daemon sent {message!r} instead of {kind.__name__}")

    def _watch(self, daemon: _Daemon) -> None:
        """Reap the daemon when it ends, and say so if its mount is still there."""
        code = daemon.process.wait()
        with self._mutex:
            if self._daemons.get(daemon.mountpoint) is daemon:
                del self._daemons[daemon.mountpoint]
        daemon.channel.close()
        if code:
            logger.warning(
                "the daemon of %s (pid %d) ended with status %d", daemon.mountpoint, daemon.process.pid, code
            )

    @staticmethod
    def _kill(daemon: _Daemon) -> None:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.channel.close()
        try:
            daemon.process.wait(_END_S)
        except subprocess.TimeoutExpired:  # it hangs in the kernel, in a disk say: nobody can wait for that
            logger.warning("the daemon of %s (pid %d) does not die", daemon.mountpoint, daemon.process.pid)
            threading.Thread(target=daemon.process.wait, name="reap", daemon=True).start()

    def unmount(self, mountpoint: str, *, deadline_s: float = 10.0, force: bool = False) -> None:
        """Unmount and wait for the daemon's end, whatever state both are in; nothing mounted is success.

        What was written is in HDFS then. A daemon that has something left to store may take as long as it needs for
        it, whoever started it; one that hangs is killed.

        Raises:
            BusyError: files are open and the daemon is well, without `force`.
            DeadlineError: it is still mounted; or it is not, and its daemon goes on storing files. The next call for
                this mountpoint waits for it again.
            MountError: it can't be unmounted.
        """
        end_s = time.monotonic() + deadline_s
        target = mounts.canonical(mountpoint)
        entry = mounts.find(target)
        with contextlib.ExitStack() as stack:
            serving = self._serving(target, entry)
            if serving is not None:
                stack.callback(serving.close)
            mounts.unmount(target, deadline_s=deadline_s, force=force)
            if entry is not None and any(other.device == entry.device for other in mounts.entries()):
                return  # bind mounts of it are left, and the daemon serves them
            stack.pop_all()
        with self._mutex:
            ending = self._ending.pop(target, [])
        if serving is not None:
            # Who has a file open on a mount that was detached would keep its daemon for ever.
            serving.send(signal.SIGTERM)
            ending.append(serving)
        try:
            while ending:
                self._wait_for_end(target, ending[-1], end_s)
                ending.pop().close()
        finally:
            if ending:
                with self._mutex:
                    self._ending[target] = ending
        if entry is not None:
            self._remove_stats(stats_path(self.runtime_dir, entry.device))

    @staticmethod
    def _remove_stats(path: str) -> None:
        if ServingProcess.find(path) is None:  # else it is the next mount's, with the same device number
            shutil.rmtree(os.path.dirname(path), ignore_errors=True)

    def _serving(self, target: str, entry: mounts.MountEntry | None) -> ServingProcess | None:
        """Who serves what is mounted; None where nothing is, or its daemon has ended."""
        if entry is None:
            return None
        path = stats_path(self.runtime_dir, entry.device)
        with self._mutex:
            daemon = self._daemons.get(target)
        return ServingProcess.of(daemon.process.pid, path) if daemon is not None else ServingProcess.find(path)

    def _wait_for_end(self, target: str, serving: ServingProcess, end_s: float) -> None:
        while not serving.wait(min(_LOOK_S, end_s - time.monotonic())):
            if serving.hangs():
                logger.warning("the daemon of %s (pid %d) hangs, killed", target, serving.pid)
                serving.send(signal.SIGKILL)
                if not serving.wait(_END_S):  # in the kernel, in a disk say: nobody can wait for that
                    logger.warning("the daemon of %s (pid %d) does not die", target, serving.pid)
                break
            if time.monotonic() > end_s:
                raise DeadlineError(
                    f"{target}: unmounted, but its daemon (pid {serving.pid}) is still storing files; its log says more"
                )
        with self._mutex:
            daemon = self._daemons.get(target)
        if daemon is not None and daemon.process.pid == serving.pid:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(_END_S)  # reaped before anybody asks

    def wait(self, mountpoint: str) -> None:
        """Wait until the daemon of a mount of ours has ended."""
        with self._mutex:
            daemon = self._daemons.get(mounts.canonical(mountpoint))
        if daemon is not None:
            daemon.process.wait()

    def close(self) -> None:
        """Stop supervising. The mounts stay, and so do their daemons."""
        with self._mutex:
            for daemon in self._daemons.values():
                # The child is left to run: without this, Popen warns of it when it is collected.
                daemon.process.returncode = daemon.process.returncode or 0
            self._daemons.clear()


def _check_mountpoint(mountpoint: str) -> str:
    target = mounts.canonical(mountpoint)
    entry = mounts.find(target)
    if entry is not None:
        state = "" if mounts.is_alive(target) else ", which does not answer: unmount it first"
        raise BusyError(f"mountpoint {target}: in use by {entry.source} ({entry.fstype}){state}")
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        raise NotFoundError(f"mountpoint {target}: does not exist; make the directory first") from None
    except OSError as e:
        raise MountError(f"mountpoint {target}: {e.strerror}") from e
    if not stat.S_ISDIR(mode):
        raise NotDirectoryError(f"mountpoint {target}: not a directory")
    return target
