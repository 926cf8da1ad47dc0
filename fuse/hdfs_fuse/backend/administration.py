"""What an administrator asks of HDFS: quotas, snapshots, policies and marks. Asked of WebHDFS, which no client equals.

Most of it HDFS allows to its superuser only. Every call may be repeated.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import msgspec

from hdfs_fuse import errors
from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.base import Policies, SpaceUsage
from hdfs_fuse.backend.identity import log_in
from hdfs_fuse.backend.webhdfs import WebHdfs, connect_webhdfs
from hdfs_fuse.config import MountConfig

# Data and parity units of an erasure-coding policy (ErasureCodingPolicy.composePolicyName): "RS-6-3-1024k".
_UNITS = re.compile(r".*-([0-9]+)-([0-9]+)-[0-9]+k")
# Removes a quota (HdfsConstants.QUOTA_RESET).
_NO_QUOTA = -1


class _ContentSummary(msgspec.Struct):
    length: int


class _ContentSummaryReply(msgspec.Struct, rename="pascal"):
    content_summary: _ContentSummary


class _Defaults(msgspec.Struct):
    replication: int


class _DefaultsReply(msgspec.Struct, rename="pascal"):
    fs_server_defaults: _Defaults


def storage_factor(erasure_coding: str, replication: int) -> Fraction:
    """Bytes on DataNodes for each byte of a file.

    Args:
        erasure_coding: name of the policy; empty for none.
        replication: where there is none.
    """
    units = _UNITS.fullmatch(erasure_coding)
    if units:
        data, parity = int(units[1]), int(units[2])
        return Fraction(data + parity, data)
    return Fraction(replication)


class Administration:
    """One HDFS filesystem, under one identity. Safe in any number of threads."""

    def __init__(self, webhdfs: WebHdfs, properties: Mapping[str, str]) -> None:
        """Ask `webhdfs`; `properties` are Hadoop's configuration."""
        self._webhdfs = webhdfs
        self._default_replication = hadoop_conf.whole_number(properties, "dfs.replication")

    def raw_space(self, path: str) -> SpaceUsage:
        """Space of the quotas set on `path`, else of the cluster, in bytes on DataNodes: replicas and parity count.

        Raises:
            UnavailableError, UnsupportedError: as WebHdfs.call. NotFoundError, PermissionDeniedError.
        """
        return self._webhdfs.space(path)

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend: in bytes of content, by how new files of the directory are stored."""
        raw, policy = self.raw_space(path), self.policies(path).erasure_coding
        factor = storage_factor(policy, 1 if policy else self.default_replication())
        return replace(
            raw,
            capacity_bytes=int(raw.capacity_bytes / factor),
            used_bytes=int(raw.used_bytes / factor),
            free_bytes=int(raw.free_bytes / factor),
        )

    def set_quota(self, path: str, *, names: int | None, space_bytes: int | None) -> None:
        """Bound names (the directory counts) and bytes on DataNodes (each replica counts); None removes a bound.

        Raises:
            NotFoundError. PermissionDeniedError: only HDFS's superuser may.
        """
        parameters = {
            "op": "SETQUOTA",
            "namespacequota": str(_NO_QUOTA if names is None else names),
            "storagespacequota": str(_NO_QUOTA if space_bytes is None else space_bytes),
        }
        self._webhdfs.call("PUT", path, parameters)

    def default_replication(self) -> int:
        """How many replicas files have that say nothing of it: dfs.replication, here or on the NameNode."""
        if self._default_replication is None:
            defaults = self._webhdfs.get("/", "GETSERVERDEFAULTS", _DefaultsReply).fs_server_defaults
            self._default_replication = defaults.replication
        return self._default_replication

    def content_bytes(self, path: str) -> int:
        """Length of all files below `path`; the NameNode walks them all.

        Raises:
            NotFoundError, PermissionDeniedError.
        """
        return self._webhdfs.get(path, "GETCONTENTSUMMARY", _ContentSummaryReply).content_summary.length

    def policies(self, path: str) -> Policies:
        """See base.Backend."""
        return self._webhdfs.policies(path)

    def set_storage_policy(self, path: str, name: str) -> None:
        """Have the blocks of a directory's files on another kind of storage, of new files at once.

        Raises:
            NotFoundError, PermissionDeniedError. InvalidArgumentError: HDFS has no policy of that name.
        """
        self._webhdfs.call("PUT", path, {"op": "SETSTORAGEPOLICY", "storagepolicy": name})

    def set_erasure_coding_policy(self, path: str, name: str) -> None:
        """Have the new files of a directory erasure-coded.

        Raises:
            NotFoundError, PermissionDeniedError. InvalidArgumentError: HDFS has no such policy, or it is not enabled.
        """
        self._webhdfs.call("PUT", path, {"op": "SETECPOLICY", "ecpolicy": name})

    def set_replication(self, path: str, replication: int) -> None:
        """Change how many replicas a file has; erasure-coded ones stay as they are.

        Raises:
            NotFoundError, PermissionDeniedError. InvalidArgumentError: fewer or more than HDFS takes.
        """
        self._webhdfs.call("PUT", path, {"op": "SETREPLICATION", "replication": str(replication)})

    def mark(self, path: str, name: str, value: str) -> None:
        """Set an extended attribute; its name begins with `user.`."""
        self._webhdfs.set_xattr(path, name, value.encode())

    def mark_of(self, path: str, name: str) -> str:
        """An extended attribute; empty where there is none.

        Raises:
            NotFoundError: nothing is at `path`.
        """
        return self._webhdfs.xattrs(path).get(name, b"").decode(errors="replace")

    # --- snapshots ---

    def allow_snapshots(self, path: str) -> None:
        """Let a directory have snapshots.

        Raises:
            NotFoundError. PermissionDeniedError: only HDFS's superuser may. BusyError: a directory above or below has
            some.
        """
        self._webhdfs.call("PUT", path, {"op": "ALLOWSNAPSHOT"})

    def create_snapshot(self, path: str, name: str) -> None:
        """Keep what is in a directory now, as `path/.snapshot/name`; one that is there stays as it is.

        Raises:
            NotFoundError, PermissionDeniedError. BusyError: the directory may have no snapshots.
        """
        try:
            self._webhdfs.call("PUT", path, {"op": "CREATESNAPSHOT", "snapshotname": name})
        except errors.BusyError:
            if not self._has_snapshot(path, name):
                raise

    def delete_snapshot(self, path: str, name: str) -> None:
        """Remove a snapshot; one that is not there counts as removed.

        Raises:
            PermissionDeniedError.
        """
        try:
            self._webhdfs.call("DELETE", path, {"op": "DELETESNAPSHOT", "snapshotname": name})
        except (errors.BusyError, errors.NotFoundError):
            if self._has_snapshot(path, name):
                raise

    def _has_snapshot(self, path: str, name: str) -> bool:
        try:
            self._webhdfs.get(f"{path}/.snapshot/{name}", "GETFILESTATUS", msgspec.Raw)
        except errors.NotFoundError:
            return False
        return True


def connect_administration(config: MountConfig) -> Administration:
    """The administration of the filesystem that `config` mounts, as its principal or this process's user.

    Raises:
        InvalidArgumentError: a filesystem that the configuration does not know.
        UnsupportedError: none of HDFS.
    """
    properties = hadoop_conf.read_properties(config)
    location = hadoop_conf.resolve_location(config, properties)
    if location.scheme != "hdfs":
        raise errors.UnsupportedError(f"{location.filesystem}: quotas and snapshots are HDFS's")
    login = log_in(config.kerberos) if config.kerberos is not None else None
    return Administration(connect_webhdfs(location.authority, properties, login), properties)
