"""Mounts: the only file with mount system calls. Nothing here waits for a mount's daemon without a deadline."""

import contextlib
import ctypes
import errno
import logging
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hdfs_fuse.errors import BusyError, DeadlineError, HdfsFuseError, MountError, PermissionDeniedError
from hdfs_fuse.mounter import probes

logger = logging.getLogger(__name__)

FSTYPE = "fuse.hdfs"

# linux/mount.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_NOATIME, _MS_BIND, _MS_NODIRATIME, _MS_RELATIME = 32, 1024, 4096, 2048, 1 << 21
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_BIND_FLAGS = {
    "ro": _MS_RDONLY,
    "nosuid": _MS_NOSUID,
    "nodev": _MS_NODEV,
    "noexec": _MS_NOEXEC,
    "noatime": _MS_NOATIME,
    "nodiratime": _MS_NODIRATIME,
    "relatime": _MS_RELATIME,
}
# The system calls of new mounts (Linux 5.12), by which a mount gets its flags before anybody sees it; their numbers are
# the same on all architectures.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _OPEN_TREE_CLONE = -100, 0x1000, 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_SYMLINKS = 0x4, 0x10
_MOUNT_ATTR_ATIME = 0x70
_BIND_ATTRIBUTES = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 0x10, "nodiratime": 0x80, "relatime": 0}
# struct mount_attr: attr_set, attr_clr, propagation, userns_fd
_MOUNT_ATTR = struct.Struct("=QQQQ")
_FUSECTL = "/sys/fs/fuse/connections"
_MAX_SYMLINKS = 40  # path_resolution(7)
# The kernel's default for a FUSE mount is 128 KiB; with 8 MiB a mount reads three times as fast from warm blocks.
READ_AHEAD_KIB = 8192
# READs of the kernel's read-ahead wait in one queue of 12 by default: too few for 16 readers of small files.
MAX_BACKGROUND = 256

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    Attributes:
        mount_id: unique among the mounts of now.
        device: "major:minor" of the filesystem; bind mounts of it have the same.
        root: what of the filesystem is mounted.
        mountpoint: where.
        options: per-mount options.
        fstype: type with subtype.
        source: what was mounted, for our mounts the URI.
        super_options: options of the filesystem.
    """

    mount_id: int
    device: str
    root: str
    mountpoint: str
    options: frozenset[str]
    fstype: str
    source: str
    super_options: frozenset[str]


def entries() -> list[MountEntry]:
    """All mounts of this mount namespace, in the order in which they were made."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return [_parse(line) for line in lines]


def _parse(line: str) -> MountEntry:
    fields, _, tail = line.rstrip("\n").partition(" - ")
    mount_id, _, device, root, mountpoint, options, *_ = fields.split(" ")
    fstype, source, super_options = (*tail.split(" "), "")[:3]
    return MountEntry(
        int(mount_id),
        device,
        _unescape(root),
        _unescape(mountpoint),
        frozenset(options.split(",")),
        fstype,
        _unescape(source),
        frozenset(super_options.split(",")),
    )


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


def canonical(path: str) -> str:
    """`path` as mountinfo would show it, symlinks followed as mount(2) does.

    Of the path itself only whether it is a symlink is asked (readlink(2)), which no daemon has to answer: it may be a
    mount that hangs.
    """
    for _ in range(_MAX_SYMLINKS):
        parent, name = os.path.split(os.path.abspath(path))
        parent = os.path.realpath(parent)
        if not name:
            return parent
        path = os.path.join(parent, name)
        try:
            path = os.path.join(parent, os.readlink(path))
        except OSError:
            break
    return path


def find(path: str) -> MountEntry | None:
    """The topmost mount at exactly `path`; never touches the path itself."""
    wanted = canonical(path)
    found = [entry for entry in entries() if entry.mountpoint == wanted]
    return found[-1] if found else None


def open_fuse() -> int:
    """A new FUSE connection's descriptor.

    Raises:
        MountError: there is no /dev/fuse, or it may not be opened.
    """
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        hint = "load the kernel module 'fuse' (modprobe fuse), and give a container the device /dev/fuse"
        raise MountError(f"/dev/fuse can't be opened: {e.strerror}; {hint}") from e


def mount_fuse(mountpoint: str, source: str, *, read_only: bool, allow_other: bool) -> int:
    """Mount a filesystem that has no daemon yet, and give the descriptor that a daemon must serve.

    With the right to mount, by mount(2); without, through the setuid helper fusermount3.

    Args:
        mountpoint: an existing directory.
        source: shown as the mount's source.
        read_only: refuse changes in the kernel already.
        allow_other: let other users in.

    Raises:
        MountError, PermissionDeniedError: with the reason.
    """
    fd = open_fuse()
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if read_only else 0)
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    try:
        _mount(source, mountpoint, FSTYPE, flags, options + (",allow_other" if allow_other else ""))
    except PermissionError as e:
        os.close(fd)
        if os.geteuid() == 0:
            raise PermissionDeniedError(f"mount at {mountpoint}: {e.strerror} (CAP_SYS_ADMIN is missing)") from e
        return _mount_as_user(mountpoint, source, read_only=read_only, allow_other=allow_other)
    except OSError as e:
        os.close(fd)
        raise MountError(f"mount at {mountpoint}: {e.strerror}") from e
    return fd


def _mount_as_user(mountpoint: str, source: str, *, read_only: bool, allow_other: bool) -> int:
    """Mount through fusermount3, which hands the descriptor over the socket named in _FUSE_COMMFD (fusermount3(1))."""
    ours, theirs = socket.socketpair()
    options = ["ro" if read_only else "rw", "nosuid", "nodev", f"fsname={source}", "subtype=hdfs"]
    if allow_other:
        options.append("allow_other")
    with ours, theirs:
        try:
            result = subprocess.run(
                ["fusermount3", "-o", ",".join(options), "--", mountpoint],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        except FileNotFoundError as e:
            raise MountError("mounting without root needs fusermount3: apt-get install fuse3") from e
        except subprocess.TimeoutExpired as e:
            raise DeadlineError(f"{mountpoint}: fusermount3 does not end; does a mount above it hang?") from e
        if result.returncode:
            raise MountError(f"fusermount3 at {mountpoint}: {result.stderr.strip()}")
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(fds[0], False)
    return fds[0]


def tune(device: str) -> None:
    """Raise the read-ahead and the queue of a FUSE mount; without the right to, it stays slower, and that is logged.

    Args:
        device: "major:minor" of the mount.
    """
    ensure_fusectl()
    for path, value in (
        (f"/sys/class/bdi/{device}/read_ahead_kb", READ_AHEAD_KIB),
        (f"{_FUSECTL}/{device.partition(':')[2]}/max_background", MAX_BACKGROUND),
        (f"{_FUSECTL}/{device.partition(':')[2]}/congestion_threshold", MAX_BACKGROUND * 3 // 4),
    ):
        try:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(value))
        except OSError as e:
            logger.info("%s stays as it is: %s", path, e.strerror)


def ensure_fusectl() -> None:
    """Mount the control filesystem of FUSE connections if nobody has."""
    if not any(entry.fstype == "fusectl" for entry in entries()):
        with contextlib.suppress(OSError):
            _mount("fusectl", _FUSECTL, "fusectl", 0, "")


def bind(source: str, target: str, *, read_only: bool, options: Sequence[str] = ()) -> None:
    """Show `source` at `target` too.

    Args:
        source: an existing directory.
        target: an existing directory.
        read_only: refuse changes through this mount.
        options: further per-mount options, of ro, nosuid, nodev, noexec, noatime, nodiratime, relatime.

    Raises:
        MountError: with the reason; nothing is mounted then.
    """
    unknown = [option for option in options if option not in _BIND_FLAGS and option != "rw"]
    if unknown:
        raise MountError(f"mount options {unknown}: accepted are rw, {', '.join(_BIND_FLAGS)}")
    wanted = {"ro", *options} if read_only else set(options)
    try:
        try:
            _bind_whole(source, target, wanted - {"rw"})
        except OSError as e:
            if e.errno not in (errno.ENOSYS, errno.EPERM):  # EPERM: also what a container's seccomp profile says
                raise
            _bind_in_steps(source, target, wanted - {"rw"})
    except OSError as e:
        raise MountError(f"bind {source} at {target}: {e.strerror}") from e


def _bind_whole(source: str, target: str, options: Collection[str]) -> None:
    """Make the mount with its flags: whoever is killed here leaves none that lets writers in."""
    fd = _system_call(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        attributes = sum(_BIND_ATTRIBUTES[option] for option in options)
        cleared = _MOUNT_ATTR_ATIME if {"noatime", "relatime"} & set(options) else 0
        attr = _MOUNT_ATTR.pack(attributes, cleared, 0, 0)
        _system_call(_MOUNT_SETATTR, fd, b"", _AT_EMPTY_PATH, attr, len(attr))
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_SYMLINKS
        _system_call(_MOVE_MOUNT, fd, b"", _AT_FDCWD, os.fsencode(target), flags)
    finally:
        os.close(fd)


def _system_call(number: int, *arguments: int | bytes) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _bind_in_steps(source: str, target: str, options: Collection[str]) -> None:
    """The same for older kernels."""
    flags = sum(_BIND_FLAGS[option] for option in options)
    _mount(source, target, "", _MS_BIND, "")
    try:
        # The kernel ignores per-mount flags when it binds, and keeps locked ones (nosuid, nodev) only if repeated.
        entry = find(target)
        kept = sum(flag for name, flag in _BIND_FLAGS.items() if entry is not None and name in entry.options)
        _mount("", target, "", _MS_BIND | _MS_REMOUNT | kept | flags, "")
    except OSError:
        _umount(canonical(target), _MNT_DETACH)
        raise


def unmount(path: str, *, deadline_s: float = 10.0, force: bool = False) -> None:
    """Unmount whatever is mounted at exactly `path`; nothing there is success.

    A bind mount that is in use is detached: its filesystem lives on elsewhere. The last mount of a FUSE connection is
    detached only after the connection was aborted, which frees everybody who waits in it, and that happens only when
    its daemon no longer answers, or with `force`.

    Raises:
        BusyError: files are open, and the daemon is well.
        DeadlineError: it is still mounted after `deadline_s`.
        MountError: refused.
    """
    target = canonical(path)
    end_s = time.monotonic() + deadline_s
    while (entry := find(target)) is not None:
        if time.monotonic() > end_s:
            raise DeadlineError(f"{target}: still mounted after {deadline_s:g} s")
        try:
            if _umount(target, _UMOUNT_NOFOLLOW):
                continue
        except OSError as e:
            raise MountError(f"unmount {target}: {e.strerror}") from e
        others = [other for other in entries() if other.device == entry.device and other.mount_id != entry.mount_id]
        if entry.fstype.startswith("fuse") and not others:
            if not force and is_alive(target, deadline_s=max(1.0, min(5.0, end_s - time.monotonic()))):
                raise BusyError(f"{target}: in use")
            abort(entry.device)
        try:
            _umount(target, _UMOUNT_NOFOLLOW | _MNT_DETACH)
        except OSError as e:
            raise MountError(f"unmount {target}: {e.strerror}") from e


def _umount(target: str, flags: int) -> bool:
    """umount2(2); False when the mount is in use. Falls back to fusermount3 for users who may not."""
    if _libc.umount2(os.fsencode(target), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EBUSY:
        return False
    if code == errno.EINVAL:
        return True  # no longer a mountpoint
    if code == errno.EPERM and os.geteuid() != 0:
        lazy = ["-z"] if flags & _MNT_DETACH else []
        command = ["fusermount3", "-u", *lazy, "--", target]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except subprocess.TimeoutExpired as e:
            raise OSError(errno.ETIMEDOUT, "fusermount3 does not end") from e
        if result.returncode == 0:
            return True
        if "busy" in result.stderr:
            return False
        raise OSError(code, result.stderr.strip() or os.strerror(code))
    raise OSError(code, os.strerror(code))


def abort(device: str) -> None:
    """End a FUSE connection: every request, waiting or to come, fails, and nobody hangs any longer.

    Args:
        device: "major:minor" of the mount.
    """
    ensure_fusectl()
    try:
        with open(f"{_FUSECTL}/{device.partition(':')[2]}/abort", "w", encoding="ascii") as file:
            file.write("1")
    except OSError as e:
        logger.warning("FUSE connection %s can't be aborted: %s", device, e.strerror)


def is_alive(path: str, *, deadline_s: float = 5.0) -> bool:
    """Whether the filesystem mounted at `path` answers statfs in time."""
    try:
        probes.space(path, deadline_s=deadline_s)
    except HdfsFuseError:
        return False
    return True


def read_init(fd: int, deadline_s: float) -> bytes:
    """The kernel's first message on a fresh FUSE descriptor: FUSE_INIT, to be kept and given to each daemon.

    Raises:
        MountError: it does not come.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(deadline_s * 1000):
        raise MountError("the kernel sent no FUSE_INIT")
    return os.read(fd, 1 << 20)  # at least FUSE_MIN_READ_BUFFER, or the kernel refuses


def _mount(source: str, target: str, fstype: str, flags: int, options: str) -> None:
    result = _libc.mount(
        os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), os.fsencode(options)
    )
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
