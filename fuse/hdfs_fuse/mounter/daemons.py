"""What whoever mounts needs of whoever keeps the daemons: this process (supervisor.py), or another one (client.py)."""

from contextlib import AbstractContextManager
from typing import Protocol

from hdfs_fuse.config import MountConfig


class Starting(Protocol):
    """A daemon that has reached its filesystem and waits for a mount. It is ended by leaving without `serve`."""

    def serve(self, device: str, fuse_fd: int, session_fd: int, *, deadline_s: float) -> None:
        """Give the daemon its mount, and wait until it serves it.

        Args:
            device: "major:minor" of the mount.
            fuse_fd: the FUSE connection; stays the caller's too.
            session_fd: holds the recorded FUSE_INIT; likewise.
            deadline_s: how long to wait.

        Raises:
            DeadlineError: it does not. HdfsFuseError: what the daemon says.
        """
        ...


class Ending(Protocol):
    """The daemons of a mountpoint; they go on when it is left without `finish`."""

    @property
    def devices(self) -> frozenset[str]:
        """Device numbers of the mounts that they serve, or served: one of an earlier mount may still store files."""
        ...

    def finish(self, devices: frozenset[str], *, deadline_s: float) -> None:
        """Have those of these mounts end, and wait until they have stored what is left; one that hangs is killed.

        Raises:
            DeadlineError: one is still storing. It is waited for in the next call for the mountpoint, too.
        """
        ...


class Daemons(Protocol):
    """The daemons of a node. Thread-safe; calls for one mountpoint are the caller's to order."""

    def starting(self, config: MountConfig, mountpoint: str, *, deadline_s: float) -> AbstractContextManager[Starting]:
        """A new daemon for `mountpoint`, once it has reached what `config` describes.

        Raises:
            DeadlineError: it has not after `deadline_s` seconds. HdfsFuseError: why it can't.
        """
        ...

    def ending(self, mountpoint: str, device: str | None) -> AbstractContextManager[Ending]:
        """Who serves the mount with that device number, also when another supervisor has started it.

        Args:
            mountpoint: where it is, or was.
            device: "major:minor"; None where nothing is mounted.
        """
        ...
