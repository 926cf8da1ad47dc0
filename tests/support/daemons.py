"""The daemons of mounts that tests make in their own process."""

import os
from pathlib import Path

from hdfs_fuse.mounter.forks import Forks

from tests.perf.observe import children_of

# One for all mounts of this process: they need not import everything again.
FORKS = Forks()


def daemons() -> list[int]:
    """Their process ids."""
    servers = [pid for pid in children_of(os.getpid()) if command(pid).startswith(b"hdfs-fuse fork server")]
    return [pid for server in servers for pid in children_of(server) if command(pid).startswith(b"hdfs-fuse ")]


def command(pid: int) -> bytes:
    """What a process was started as."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()
