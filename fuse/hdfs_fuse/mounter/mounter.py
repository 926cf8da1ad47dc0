"""Mounts and unmounts filesystems, for a local mount and for CSI alike; needs the right to mount (mounts.py)."""

import contextlib
import logging
import os
import socket
import stat
import time

from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import BusyError, MountError, NotDirectoryError, NotFoundError
from hdfs_fuse.mounter import mounts
from hdfs_fuse.mounter.daemons import Daemons, Starting

logger = logging.getLogger(__name__)


class Mounter:
    """Makes mounts that daemons serve. Thread-safe; calls for one mountpoint are the caller's to order."""

    def __init__(self, daemons: Daemons) -> None:
        """Have `daemons` serve what is mounted."""
        self._daemons = daemons

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
        with self._daemons.starting(config, target, deadline_s=deadline_s) as daemon:
            fuse_fd = mounts.mount_fuse(target, config.uri, read_only=config.read_only, allow_other=config.allow_other)
            with contextlib.ExitStack() as undo:
                undo.callback(mounts.unmount, target, force=True)
                undo.callback(os.close, fuse_fd)
                _serve(daemon, target, fuse_fd, end_s)
                undo.pop_all()
            os.close(fuse_fd)
        logger.info("mounted %s at %s", config.uri, target)

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
        before = mounts.entries()
        entry = next((entry for entry in reversed(before) if entry.mountpoint == target), None)
        elsewhere = {(other.mount_id, other.device) for other in before if other.mountpoint != target}
        with self._daemons.ending(target, entry.device if entry is not None else None) as ending:
            mounts.unmount(target, deadline_s=deadline_s, force=force)
            # Where bind mounts are left, the daemon serves them. Only those of before count: a device number that is
            # free is given to whatever is mounted next.
            left = {other.device for other in mounts.entries() if (other.mount_id, other.device) in elsewhere}
            ending.finish(ending.devices - left, deadline_s=end_s - time.monotonic())


def _serve(daemon: Starting, target: str, fuse_fd: int, end_s: float) -> None:
    entry = mounts.find(target)
    if entry is None:
        raise MountError(f"{target}: mounted, but not to be found in mountinfo")
    init = mounts.read_init(fuse_fd, max(end_s - time.monotonic(), 0.0))
    replay, session = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with replay, session:
        replay.send(init)
        daemon.serve(entry.device, fuse_fd, session.fileno(), deadline_s=end_s - time.monotonic())
    mounts.tune(entry.device)  # not before: the answer to FUSE_INIT would lower it again


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
