"""What is wrong with a volume on this node: its mount is asked, and the NameNodes where that does not tell the cause.

Everything ends by a deadline. A listing of the mount goes to the NameNode under the volume's own identity, so it says
what pods may do; the NameNodes' web servers say what the cluster can do, to everybody, or to who has a ticket.
"""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from hdfs_fuse.backend import namenodes
from hdfs_fuse.backend.connect import cluster_id
from hdfs_fuse.backend.deadline import call_with_deadline
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import (
    DeadlineError,
    HdfsFuseError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    StaleError,
    UnavailableError,
)
from hdfs_fuse.mounter import probes

from hdfs_csi import staged
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.staged import MountedVolume, MountTable

# For statfs and for a listing; for each answer of a NameNode, and for those of all of them with the lookup of their
# addresses: together less than the kubelet's two minutes.
PROBE_DEADLINE_S = 5.0
NAMENODE_DEADLINE_S = 3.0
NAMENODES_DEADLINE_S = 30.0
# Volumes of one filesystem that are tried for one that can be listed: each may take twice PROBE_DEADLINE_S.
_ASKED_VOLUMES = 3
_FILESYSTEMS_AT_ONCE = 8

_RESTART = "end the pods of the volume on this node: starting one mounts it anew"


@dataclass(frozen=True, slots=True)
class Problem:
    """An adverse condition.

    Attributes:
        reason: its name.
        message: the cause, and what mends it.
        status: how bad it is.
    """

    reason: str
    message: str
    status: csi.VolumeHealthErrorType = csi.INACCESSIBLE


class Health:
    """Looks at the volumes of a node; changes nothing."""

    def __init__(self, mounts: MountTable, config_of: Callable[[MountedVolume], MountConfig]) -> None:
        """Look at `mounts`; `config_of` says how a volume is mounted."""
        self._mounts = mounts
        self._config_of = config_of

    def problem(self, volume_id: str, publish_path: str, staging_path: str) -> Problem | None:
        """The worst that is known of a volume; None when it is well.

        Args:
            volume_id: of the volume.
            publish_path: where a pod is to see it; may be empty.
            staging_path: where it is to be staged; may be empty. With neither, any place on this node is looked at.

        Raises:
            NotFoundError: this node has no such volume.
        """
        known = next(staged.find_volume(self._mounts, volume_id), None)
        record = staged.read_record(staging_path) if staging_path else None
        if known is None and (record is None or record.volume_id != volume_id):
            raise NotFoundError(f"volume {volume_id!r}: not on this node")
        is_per_pod = record is not None and record.spec().is_per_pod
        path = publish_path or ("" if is_per_pod else staging_path)
        path = path or (known.entry.mountpoint if known is not None else "")
        if not path:  # staged, and no pod has it yet
            return None
        try:
            volume, mountpoint = staged.find_at(self._mounts, volume_id, path)
        except NotFoundError as e:
            return Problem("NotMounted", f"{e}; {_RESTART}")
        config = self._config_of(volume)
        return _daemon_problem(mountpoint) or _hdfs_problem(mountpoint, config)

    def storage_problems(self) -> list[Problem]:
        """What is wrong with the filesystems behind the volumes of this node; one for each reason.

        Nothing is known of a filesystem that no volume here is of.
        """
        volumes: dict[str, list[tuple[str, MountConfig]]] = {}
        for volume in staged.find_volumes(self._mounts):
            # What another release has mounted, or a secret's configuration that is not known any more.
            with contextlib.suppress(InvalidArgumentError):
                config = self._config_of(volume)
                if config.uri.startswith("hdfs:"):
                    volumes.setdefault(cluster_id(config), []).append((volume.entry.mountpoint, config))
        found: dict[str, Problem] = {}
        with ThreadPoolExecutor(_FILESYSTEMS_AT_ONCE, "storage-health") as pool:
            for problem in pool.map(_storage_problem, volumes.values()):
                if problem is not None:
                    before = f"{found[problem.reason].message}; " if problem.reason in found else ""
                    found[problem.reason] = replace(problem, message=before + problem.message)
        return list(found.values())


def _storage_problem(volumes: Sequence[tuple[str, MountConfig]]) -> Problem | None:
    """Of the filesystem that these mountpoints are of: one that can be listed shows that its NameNode answers."""
    failure: HdfsFuseError | None = None
    for mountpoint, _ in volumes[:_ASKED_VOLUMES]:
        if _daemon_problem(mountpoint) is None:
            failure = _failure(mountpoint)
            if failure is None or isinstance(failure, PermissionDeniedError | StaleError):
                failure = None  # the NameNode has answered
                break
    return _filesystem_problem(volumes[0][1], failure)


def _daemon_problem(mountpoint: str) -> Problem | None:
    """Whether somebody serves the mount, whatever state HDFS is in."""
    try:
        probes.space(mountpoint, deadline_s=PROBE_DEADLINE_S)
    except DeadlineError as e:
        return Problem("DaemonHung", f"{e}; its daemon hangs; {_RESTART}")
    except HdfsFuseError as e:
        return Problem("DaemonDead", f"{e}; its log says why; {_RESTART}")
    return None


def _hdfs_problem(mountpoint: str, config: MountConfig) -> Problem | None:
    """Whether the volume can be listed, and what the cluster says beyond that."""
    failure = _failure(mountpoint)
    if isinstance(failure, PermissionDeniedError):
        user = config.user or (config.kerberos.principal if config.kerberos else "the mounter's identity")
        return Problem("PermissionDenied", f"{config.uri}: HDFS refuses {user}; see hdfs dfs -ls and -getfacl of it")
    if isinstance(failure, StaleError):
        return Problem("DirectoryGone", f"{config.uri}: not in HDFS any more; make it again, or end the pods")
    return _filesystem_problem(config, failure)


def _failure(mountpoint: str) -> HdfsFuseError | None:
    """Why a volume can't be listed; None where it can."""
    try:
        probes.check_listing(mountpoint, deadline_s=PROBE_DEADLINE_S)
    except HdfsFuseError as e:
        return e
    return None


def _filesystem_problem(config: MountConfig, failure: HdfsFuseError | None) -> Problem | None:
    """What is wrong with the filesystem of a volume that can't be listed, or that can, where `failure` is None."""
    try:
        state = call_with_deadline(_ask_namenodes, config, deadline_s=NAMENODES_DEADLINE_S)
    except UnavailableError as e:
        # Where only the web servers can't be reached, the listing shows that the NameNode can.
        text = f"{config.uri}: no NameNode answers ({e}); is one up, and its ports open from this node?"
        return Problem("NameNodeUnreachable", text) if failure else None
    except HdfsFuseError as e:
        return Problem("HdfsUnavailable", f"{failure}; the NameNode's state is not known: {e}") if failure else None
    return cluster_problem(state, config, failure)


def _ask_namenodes(config: MountConfig) -> namenodes.NameNodeState:
    return namenodes.ask(config, deadline_s=NAMENODE_DEADLINE_S)


def cluster_problem(
    state: namenodes.NameNodeState, config: MountConfig, failure: HdfsFuseError | None
) -> Problem | None:
    """What a NameNode's state says of a volume.

    Args:
        state: of the active NameNode, or of one that is not where none is.
        config: the volume's mount.
        failure: why the volume can't be listed; None where it can.
    """
    if state.role != "active":
        text = f"{config.uri}: no NameNode is active, {state.address} is {state.role}; see hdfs haadmin"
        return Problem("NameNodeStandby", text) if failure else None
    if not state.live_datanodes:
        return Problem(
            "NoDataNodes", f"{config.uri}: {state.address} knows no live DataNode; see hdfs dfsadmin -report"
        )
    if failure:
        return Problem("HdfsUnavailable", f"{failure}; the NameNode is active, so the log of the mount may say more")
    if state.in_safe_mode:
        text = f"{config.uri}: the NameNode is in safe mode, so nothing can be changed; see hdfs dfsadmin -safemode get"
        return Problem("NameNodeSafeMode", text, csi.DEGRADED)
    return None
