"""Questions to a mount that may hang: asked by a process of its own, which can be left behind where a thread can't."""

import contextlib
import errno
import os
import subprocess
import threading
from dataclasses import dataclass

from hdfs_fuse.errors import (
    DeadlineError,
    HdfsFuseError,
    MountError,
    PermissionDeniedError,
    StaleError,
    UnavailableError,
)

# What the programs say, in the C locale, of errors that say more than that it did not work.
_BY_MESSAGE: dict[str, type[HdfsFuseError]] = {
    os.strerror(errno.ENOTCONN): UnavailableError,  # nobody serves the mount any more
    os.strerror(errno.ECONNABORTED): UnavailableError,  # since just now
    os.strerror(errno.EACCES): PermissionDeniedError,
    os.strerror(errno.ESTALE): StaleError,
    os.strerror(errno.ENOENT): StaleError,
}

_mutex = threading.Lock()
# The process that still asks, by what it asks: it is waited for instead of a second one that would hang as well.
_left_behind: dict[tuple[str, ...], "subprocess.Popen[str]"] = {}


@dataclass(frozen=True, slots=True)
class Space:
    """What statfs(2) says of a mount.

    Attributes:
        capacity_bytes, free_bytes: how much fits, and is not taken.
        available_bytes: how much can be written.
        max_names, free_names: how many files and directories there may be, and how many more; 0 and 0 for no bound.
    """

    capacity_bytes: int
    free_bytes: int
    available_bytes: int
    max_names: int
    free_names: int


def space(path: str, *, deadline_s: float) -> Space:
    """Ask the filesystem mounted at `path` for its space; one that is well answers whatever state HDFS is in.

    Raises:
        DeadlineError: no answer in time.
        UnavailableError: nobody serves it any more.
        MountError: another error.
    """
    answer = _ask(path, ("stat", "--file-system", "--format=%S %b %f %a %c %d", "--", path), deadline_s)
    unit_bytes, blocks, free, available, max_names, free_names = (int(word) for word in answer.split())
    return Space(blocks * unit_bytes, free * unit_bytes, available * unit_bytes, max_names, free_names)


def check_listing(path: str, *, deadline_s: float) -> None:
    """List the beginning of the directory mounted at `path`, for which its daemon has to ask HDFS.

    Raises:
        DeadlineError: no answer in time.
        PermissionDeniedError: HDFS refuses the daemon's identity.
        StaleError: the directory is gone. (Shows when the daemon no longer believes its attributes: before that the C
            library takes the error of readdir for the end of the listing.)
        UnavailableError: nobody serves the mount any more.
        MountError: another error.
    """
    _ask(path, ("find", path, "-mindepth", "1", "-maxdepth", "1", "-print", "-quit"), deadline_s)


def _ask(path: str, command: tuple[str, ...], deadline_s: float) -> str:
    """What `command` prints."""
    with _mutex:
        earlier = _left_behind.get(command)
    if earlier is not None:
        try:
            earlier.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"{path}: does not answer, nor an earlier question") from None
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        text=True,
        errors="surrogateescape",
    )
    try:
        output, message = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        _leave_behind(command, process)
        raise DeadlineError(f"{path}: no answer within {deadline_s:g} s") from None
    if process.returncode:
        kind = next((kind for text, kind in _BY_MESSAGE.items() if text in message), MountError)
        cause = message.strip().rpartition(": ")[2] or f"{command[0]} failed"
        raise kind(
            f"{path}: the daemon of the mount has ended ({cause})" if kind is UnavailableError else f"{path}: {cause}"
        )
    return output


def _leave_behind(command: tuple[str, ...], process: "subprocess.Popen[str]") -> None:
    """Kill it, and have it reaped when the kernel lets go of it: at the latest when the connection is aborted."""
    process.kill()
    with _mutex:
        _left_behind[command] = process

    def reap() -> None:
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with _mutex:
            if _left_behind.get(command) is process:
                del _left_behind[command]

    threading.Thread(target=reap, name="reap probe", daemon=True).start()
