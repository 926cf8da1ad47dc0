"""Long-lived processes of the tests: started, signalled and ended by pid and start time, never by name.

A pid alone is not enough: after the process has gone, another may carry the same number. So every signal goes
through a pidfd whose process is compared with the start time that was noted at the start.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

# PR_SET_PDEATHSIG fires when the *thread* that forked ends (prctl(2)), so all such children are started by one
# thread that lives as long as this process, whichever thread asks for them.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# Becomes the command that follows, unless its parent is another process than the one named first: then that has ended
# before it could have been told so.
_WITH_PARENT = ("sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"')
# Becomes the command that follows when it is told to continue.
_STOPPED = ("sh", "-c", 'kill -STOP $$; exec "$@"', "sh")


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process, beyond doubt.

    Attributes:
        pid: its number.
        start_ticks: when it started, in clock ticks since boot (field 22 of /proc/PID/stat).
        boot_id: of the boot that this was, since ticks start again with each.
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity":
        """The process that carries `pid` now.

        Raises:
            ProcessLookupError: there is none.
        """
        _, start_ticks = _stat(pid)
        return cls(pid, start_ticks, Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            state, _ = _stat(self.pid)
            return state != "Z" and ProcessIdentity.of(self.pid) == self
        except ProcessLookupError:
            return False

    @contextlib.contextmanager
    def pidfd(self) -> Iterator[int | None]:
        """A pidfd of exactly this process, or None when it has gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # The comparison comes after the open: from here on the descriptor can't come to mean another process.
            try:
                same = ProcessIdentity.of(self.pid) == self
            except ProcessLookupError:
                same = False
            yield descriptor if same else None
        finally:
            os.close(descriptor)

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process has gone."""
        with self.pidfd() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it has ended (a zombie counts as ended); False after `timeout_s` seconds."""
        with self.pidfd() as descriptor:
            if descriptor is None:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(max(0, int(timeout_s * 1000))))


class Daemon:
    """One process that stays, with its log file.

    Attributes:
        name: for messages.
        log: where stdout and stderr go, appended.
        identity: the running process; None before the start and after the stop.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        die_with_parent: bool = True,
        identity: ProcessIdentity | None = None,
    ) -> None:
        """Describe a process; `start` makes it.

        Args:
            name: for messages.
            command: argv.
            log: file for its output.
            environment: all of it.
            die_with_parent: SIGKILL it when this process ends, however it ends.
            identity: the process, where another command started it.
        """
        self.name = name
        self.log = log
        self.identity = identity
        self._command = list(command)
        self._environment = dict(environment)
        self._die_with_parent = die_with_parent
        self._child: subprocess.Popen[bytes] | None = None
        self._prepared: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there; one that is stopped by SIGSTOP is."""
        return self.identity is not None and self.identity.alive()

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C at the terminal reaches only the parent."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._reap()
        prepared, self._prepared = self._prepared, None
        self._child = prepared or self._launch(self._command)
        self.identity = ProcessIdentity.of(self._child.pid)
        if prepared:
            self._go_on()

    def prepare(self) -> None:
        """Have the next `start` fork nothing: what a child has inherited it closes, and a mount stores such files.

        So a server that a mount waits for could not be started by whoever has a file of that mount open.
        """
        if self._prepared is None:
            self._prepared = self._launch(_STOPPED + tuple(self._command))

    def _go_on(self) -> None:
        self._wait_stopped()
        self._send(signal.SIGCONT)

    def _launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        if self._die_with_parent:
            return _spawner.submit(self._spawn, dying_with_parent(command)).result()
        return self._spawn(command)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self._environment,
                start_new_session=True,
            )

    def pause(self) -> None:
        """Freeze it, as a hung server is: connections stay open, nothing answers."""
        self._send(signal.SIGSTOP)
        self._wait_stopped()

    def _wait_stopped(self) -> None:
        """Until no thread runs: SIGSTOP reaches one of them, and that one tells the others."""
        assert self.identity
        deadline = time.monotonic() + 10
        while not _is_stopped(self.identity.pid) and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        """End a `pause`."""
        self._send(signal.SIGCONT)

    def terminate_nowait(self) -> None:
        """Ask it to end, also when paused; nothing happens when it has gone."""
        if self.identity is not None:
            self.identity.send(signal.SIGTERM)
            self.identity.send(signal.SIGCONT)

    def stop(self, grace_s: float = 15) -> None:
        """End it: SIGTERM, after `grace_s` seconds SIGKILL; returns when it has gone."""
        self.terminate_nowait()
        if self.identity is not None and not self.identity.wait_gone(grace_s):
            self.identity.send(signal.SIGKILL)
        self._reap()
        if self._prepared is not None:
            self._prepared.kill()
            self._prepared.wait()
            self._prepared = None

    def wait(self, timeout_s: float) -> int:
        """Wait until it has ended by itself; its exit status.

        Raises:
            RuntimeError: it goes on after `timeout_s` seconds.
        """
        assert self.identity is not None
        assert self._child is not None
        child = self._child
        if not self.identity.wait_gone(timeout_s):
            raise RuntimeError(f"{self.name} has not ended after {timeout_s:g} s")
        self._reap()
        return child.returncode

    def kill(self) -> None:
        """End it as a crash does: SIGKILL; returns when it has gone."""
        if self.identity is not None:
            self.identity.send(signal.SIGKILL)
        self._reap()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def _send(self, number: signal.Signals) -> None:
        if self.identity is None or not self.identity.send(number):
            raise RuntimeError(f"{self.name} does not run")

    def _reap(self) -> None:
        # A killed process may take a while to give its memory back; one that is stuck in the kernel is reported.
        if self.identity is not None and not self.identity.wait_gone(30):
            raise RuntimeError(f"{self.name} (pid {self.identity.pid}) does not end")
        if self._child is not None:
            self._child.wait()
        self._child = None
        self.identity = None


def dying_with_parent(command: Sequence[str]) -> list[str]:
    """`command` as a child of this process that is killed when the thread that starts it ends."""
    return [*_DIE_WITH_PARENT, *_WITH_PARENT, str(os.getpid()), *command]


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program, its standard output in a pipe; killed at the end if it still runs, where Popen itself would wait."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def stop_all(daemons: Sequence[Daemon], grace_s: float = 15) -> None:
    """Stop several at once: all are asked first, then each is waited for."""
    for daemon in daemons:
        daemon.terminate_nowait()
    deadline = time.monotonic() + grace_s
    for daemon in daemons:
        daemon.stop(max(0.0, deadline - time.monotonic()))


def _is_stopped(pid: int) -> bool:
    try:
        return all(_stat(int(thread))[0] == "T" for thread in os.listdir(f"/proc/{pid}/task"))
    except (ProcessLookupError, FileNotFoundError):  # a thread or the process has ended
        return False


def _stat(pid: int) -> tuple[str, int]:
    """State and start time of a process, from /proc/PID/stat (proc_pid_stat(5), fields 3 and 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return fields[0], int(fields[19])
