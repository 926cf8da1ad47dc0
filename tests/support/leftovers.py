"""What tests may leave behind on the machine: FUSE mounts and processes."""

import os
import time
from pathlib import Path


def fuse_mounts_below(directory: Path) -> list[str]:
    """Mountpoints of FUSE filesystems below `directory`.

    proc_pid_mountinfo(5): the mountpoint is the fifth field, the type the first one after the hyphen.
    """
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        place, _, source = line.partition(" - ")
        kind, mountpoint = source.split()[0], place.split()[4]
        if kind.partition(".")[0] in {"fuse", "fuseblk"} and mountpoint.startswith(f"{directory}/"):
            found.append(mountpoint)
    return sorted(found)


def processes_staying_with(name: str, value: str, timeout_s: float = 10) -> list[str]:
    """As `processes_with`, but those that end within `timeout_s` seconds are not counted."""
    deadline = time.monotonic() + timeout_s
    while (found := processes_with(name, value)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def processes_with(name: str, value: str) -> list[str]:
    """`pid: command` of living processes that were started with this environment variable, this one excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has gone, or belongs to another user
        if f"{name}={value}".encode() in environment:
            found.append(f"{entry.name}: {command}")
    return found
