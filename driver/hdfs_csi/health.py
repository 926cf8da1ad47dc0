"""What is wrong with a volume on this node: its mount is asked, and the NameNodes where that does not tell the cause.

Everything ends by a deadline. A listing of the mount goes to the NameNode under the volume's own identity, so it says
what pods may do; the NameNodes' web servers are asked without one, and say what the cluster can do.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hdfs_fuse.backend import namenodes
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import (
    DeadlineError,
    HdfsFuseError,
    NotFoundError,
    PermissionDeniedError,
    StaleError,
    UnavailableError,
)
from hdfs_fuse.mounter import probes

from hdfs_csi import staged
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.staged import MountedVolume, MountTable

# For statfs and for a listing, and for each answer of a NameNode: together less than the kubelet's two minutes.
PROBE_DEADLINE_S = 5.0
NAMENODE_DEADLINE_S = 3.0

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
    failure: HdfsFuseError | None = None
    try:
        probes.check_listing(mountpoint, deadline_s=PROBE_DEADLINE_S)
    except PermissionDeniedError:
        user = config.user or "the node service's identity"
        return Problem("PermissionDenied", f"{config.uri}: HDFS refuses {user}; see hdfs dfs -ls and -getfacl of it")
    except StaleError:
        return Problem("DirectoryGone", f"{config.uri}: not in HDFS any more; make it again, or end the pods")
    except HdfsFuseError as e:
        failure = e
    try:
        state = namenodes.ask(config, deadline_s=NAMENODE_DEADLINE_S)
    except UnavailableError as e:
        # Where only the web servers can't be reached, the listing shows that the NameNode can.
        text = f"{config.uri}: no NameNode answers ({e}); is one up, and its ports open from this node?"
        return Problem("NameNodeUnreachable", text) if failure else None
    except HdfsFuseError as e:
        return Problem("HdfsUnavailable", f"{failure}; the NameNode's state is not known: {e}") if failure else None
    return cluster_problem(state, config, failure)


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
