"""What a mount needs, checked one by one, each with the way to mend it."""

import os
import platform
import shutil
import socket
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Literal

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.backend.connect import connect, resolve
from hdfs_fuse.backend.deadline import call_with_deadline
from hdfs_fuse.backend.identity import effective_user, is_kerberos
from hdfs_fuse.backend.negotiate import Negotiate
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.store import BlockStore
from hdfs_fuse.config import GIB, Location, MountConfig
from hdfs_fuse.errors import (
    AuthenticationError,
    DeadlineError,
    HdfsFuseError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from hdfs_fuse.mounter import mounts

# Enough for a slow network; a healthy NameNode answers in a millisecond.
_DEADLINE_S = 15.0
_CONNECT_S = 3.0
_TICKET = "kinit, or a keytab; klist shows what there is"
# Entries looked at for a file to read from.
_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Attributes:
        state: "ok", "note" (works, but something is worth knowing) or "failed".
        name: what was checked.
        detail: what was found.
        remedy: how to mend it; empty when there is nothing to mend.
    """

    state: Literal["ok", "note", "failed"]
    name: str
    detail: str
    remedy: str = ""


def run(config: MountConfig, *, with_filesystem: bool, mounts_here: bool = True) -> Iterator[Check]:
    """Check what mounting needs, serving a mount, and the filesystem of `config`.

    Args:
        config: the mount.
        with_filesystem: whether its filesystem is checked too.
        mounts_here: whether this process's place is one to mount from; the mounter's is not (mounter/).
    """
    if mounts_here:
        yield _check_device()
        yield _check_right_to_mount()
    yield _check_kernel()
    yield _check_cache(config)
    if with_filesystem:
        yield from _check_filesystem(config)


def _check_device() -> Check:
    try:
        os.close(mounts.open_fuse())
    except HdfsFuseError as e:
        return Check("failed", "/dev/fuse", str(e), "modprobe fuse; in a container: pass the device /dev/fuse")
    return Check("ok", "/dev/fuse", "can be opened")


def _check_right_to_mount() -> Check:
    if os.geteuid() == 0:
        return Check("ok", "right to mount", "root")
    helper = shutil.which("fusermount3")
    if helper is None:
        return Check("failed", "right to mount", "neither root nor fusermount3", "apt-get install fuse3")
    return Check("ok", "right to mount", f"through {helper}; --allow-other needs user_allow_other in /etc/fuse.conf")


def _check_kernel() -> Check:
    release = platform.release()
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < (5, 12):
        return Check("note", "kernel", f"{release}: small cached files are read more slowly", "Linux 5.12 or newer")
    return Check("ok", "kernel", release)


def _check_cache(config: MountConfig) -> Check:
    directory = config.cache.directory
    if not directory:
        return Check("note", "cache", "none: every read goes to HDFS", "give --cache-dir")
    try:
        BlockStore(directory, config.cache.size_bytes, config.cache.min_free_bytes).close()
    except UnavailableError as e:
        return Check(
            "failed",
            "cache",
            str(e),
            "a writable directory on ext4, xfs, btrfs or tmpfs, with file leases: --cache-dir DIR",
        )
    statvfs = os.statvfs(directory)
    free_bytes = statvfs.f_bavail * statvfs.f_frsize
    detail = f"{directory}: {free_bytes / GIB:.1f} GiB free, may take {config.cache.size_bytes / GIB:.1f} GiB"
    if free_bytes < config.cache.min_free_bytes:
        return Check("failed", "cache", detail, "free space there, or lower --cache-min-free")
    if free_bytes - config.cache.min_free_bytes < config.cache.size_bytes:
        return Check("note", "cache", detail, "the cache stays smaller than --cache-size: the disk has not the space")
    return Check("ok", "cache", detail)


def _check_filesystem(config: MountConfig) -> Iterator[Check]:
    try:
        location = resolve(config)
        properties = hadoop_conf.read_properties(config)
        backend = connect(config)
    except HdfsFuseError as e:
        yield Check("failed", "configuration", str(e), "see core-site.xml and hdfs-site.xml in HADOOP_CONF_DIR")
        return
    folder = hadoop_conf.conf_dir(config) or "no configuration folder"
    who = effective_user()
    if location.scheme == "hdfs" and is_kerberos(properties):
        try:
            who = Negotiate(None).principal()
        except UnavailableError as e:
            yield Check("failed", "Kerberos", str(e), "is a KDC of krb5.conf up, and its port 88 open from here?")
            return
        except HdfsFuseError as e:
            yield Check("failed", "Kerberos", str(e), _TICKET)
            return
    yield Check("ok", "configuration", f"{location.filesystem}{location.path} as {who} ({folder})")
    if location.scheme == "hdfs":
        yield from _check_addresses(location, properties)
    root = yield from _check_root(config, backend, location.path, who)
    if root is not None and root.kind is not FileKind.DIRECTORY:
        yield Check("failed", "path", f"{location.path} is a {root.kind.value}", "mount the directory that holds it")
    elif root is not None:
        yield from _check_reading(backend, location.path, who)
        if location.scheme == "hdfs":
            yield _check_webhdfs(backend, location.path)


def _check_addresses(location: Location, properties: dict[str, str]) -> Iterator[Check]:
    """Whether something listens where the NameNodes should be."""
    nameservice = location.authority
    names = [n.strip() for n in properties.get(f"dfs.ha.namenodes.{nameservice}", "").split(",") if n.strip()]
    addresses = [properties.get(f"dfs.namenode.rpc-address.{nameservice}.{name}", "") for name in names]
    for address in addresses or [nameservice]:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except (OSError, ValueError) as e:
            yield Check("note" if len(addresses) > 1 else "failed", "NameNode address", f"{address}: {e}",
                        "is the host name right, the NameNode up, and the port open from here?")  # fmt: skip
        else:
            yield Check("ok", "NameNode address", f"{address} accepts connections")


def _check_root(
    config: MountConfig, backend: ResilientBackend, path: str, who: str
) -> Generator[Check, None, FileStatus | None]:
    try:
        status = call_with_deadline(backend.status, path, deadline_s=_DEADLINE_S)
    except DeadlineError:
        yield Check("failed", "NameNode", f"no answer within {_DEADLINE_S:g} s",
                    "it hangs, is overloaded, or a firewall drops packets: see its log and its web page")  # fmt: skip
    except NotFoundError:
        yield Check("failed", "path", f"{path} does not exist", f"hdfs dfs -mkdir -p {path}, or another path")
    except AuthenticationError as e:
        yield Check("failed", "NameNode", str(e), _TICKET)
    except PermissionDeniedError as e:
        yield Check("failed", "permissions", str(e), f"let {who} through, or mount as another --user")
    except HdfsFuseError as e:
        yield Check("failed", "NameNode", str(e), f"check the URI {config.uri} and the NameNode's log")
    else:
        yield Check("ok", "NameNode", f"answers; {path}: {status.owner}:{status.group} {status.mode:04o}")
        return status
    return None


def _check_reading(backend: ResilientBackend, path: str, who: str) -> Iterator[Check]:
    """List the directory and read the first byte of a file in it."""

    def first_file() -> str | None:
        for _, status in zip(range(_LOOKED_AT), backend.list(path), strict=False):
            if status.kind is FileKind.FILE and status.length_bytes:
                return f"{path.rstrip('/')}/{status.name}"
        return None

    def read_byte(file_path: str) -> None:
        reader = backend.open(file_path)
        try:
            reader.read(0, 1)
        finally:
            reader.close()

    try:
        file_path = call_with_deadline(first_file, deadline_s=_DEADLINE_S)
    except HdfsFuseError as e:
        yield Check("failed", "permissions", f"{path} can't be listed: {e}", f"let {who} read it")
        return
    yield Check("ok", "permissions", f"{path} can be listed")
    if file_path is None:
        yield Check("note", "DataNodes", f"not tried: no file directly in {path}")
        return
    try:
        call_with_deadline(read_byte, file_path, deadline_s=_DEADLINE_S)
    except PermissionDeniedError as e:
        yield Check("failed", "permissions", str(e), f"let {who} read {file_path}")
    except HdfsFuseError as e:
        yield Check("failed", "DataNodes", f"{file_path}: {e}",
                    "are the DataNodes up and their addresses reachable from here? dfs.client.use.datanode.hostname "
                    "helps where they announce addresses of another network")  # fmt: skip
    else:
        yield Check("ok", "DataNodes", f"read {file_path}")


def _check_webhdfs(backend: ResilientBackend, path: str) -> Check:
    try:
        call_with_deadline(backend.space, path, deadline_s=_DEADLINE_S)
    except HdfsFuseError as e:
        remedy = "mounts work without; df, quotas, extended attributes and claims need it: the NameNode's web server"
        return Check("note", "WebHDFS", str(e), remedy)
    return Check("ok", "WebHDFS", "answers")
