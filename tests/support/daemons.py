"""The daemons of mounts that tests make in their own process, and other children of a process."""

import os
from pathlib import Path

from hdfs_fuse.mounter.forks import Forks

from tests.perf.observe import children_of

# One for all mounts of this process: they need not import everything again.
FORKS = Forks()


def daemons() -> list[int]:
    """Their process ids."""
    return [pid for server in fork_servers() for pid in children_of(server) if command(pid).startswith(b"hdfs-fuse ")]


def fork_servers() -> list[int]:
    """Those that they are forked from.

    By their parent: a thread's children move to another one when it ends, and who looks thread by thread misses them.
    """
    titled = [int(e.name) for e in Path("/proc").glob("[0-9]*") if command(int(e.name)).startswith(b"hdfs-fuse fork")]
    return [pid for pid in titled if _parent_of(pid) == os.getpid()]


def questions_of(pid: int) -> list[str]:
    """The programs by which a process asks mounts (mounter/probes.py) and that have not ended."""
    return [name for name in map(_name_of, children_of(pid)) if name in {"find", "stat"}]


def _name_of(pid: int) -> str:
    """Also that of a zombie, which has no command line; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _parent_of(pid: int) -> int:
    """0 of one that has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.rpartition(")")[2].split()[1])


def command(pid: int) -> bytes:
    """What a process was started as; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
