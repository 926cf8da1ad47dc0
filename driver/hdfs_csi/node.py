"""The CSI Node service: volumes are mounted on this node and shown to pods."""

import logging
import os
from dataclasses import dataclass, field, replace

import msgspec
from hdfs_fuse.config import CacheConfig, MountConfig, StagingConfig
from hdfs_fuse.errors import DeadlineError, InvalidArgumentError, UnavailableError

from hdfs_csi import access, condition, staged, stats, volume
from hdfs_csi.ephemeral import Ephemeral
from hdfs_csi.errors import NotReadyError
from hdfs_csi.health import Health
from hdfs_csi.locks import VolumeLocks
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.secret import Secret
from hdfs_csi.staged import MountTable
from hdfs_csi.staging import Staging
from hdfs_csi.volume import VolumeSpec

log = logging.getLogger(__name__)

_Rpc = csi.NodeServiceCapability.RPC
CAPABILITIES = (
    _Rpc.STAGE_UNSTAGE_VOLUME,
    _Rpc.GET_VOLUME_STATS,
    _Rpc.GET_VOLUME_HEALTH,
    _Rpc.GET_STORAGE_HEALTH,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
    _Rpc.VOLUME_MOUNT_GROUP,
    _Rpc.EXPAND_VOLUME,
)

# NodeGetInfoResponse.node_id in csi.proto overrides the general size limit: 256 bytes.
MAX_NODE_ID_BYTES = 256


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node adds to every mount.

    Attributes:
        hadoop_conf_dir: folder of core-site.xml and hdfs-site.xml; None takes HADOOP_CONF_DIR.
        cache: the node's block cache; its unit is the volume's own.
        staging: where changed files are until HDFS has them; needed by volumes that are not read-only.
    """

    hadoop_conf_dir: str | None = None
    cache: CacheConfig = field(default_factory=CacheConfig)
    staging: StagingConfig = field(default_factory=StagingConfig)

    def complete(self, spec: VolumeSpec) -> MountConfig:
        """The mount that `spec` asks for, with what this node decides."""
        own = spec.config.cache
        cache = msgspec.structs.replace(self.cache, block_size_bytes=own.block_size_bytes, scope=own.scope)
        return msgspec.structs.replace(
            spec.config,
            hadoop_conf_dir=self.hadoop_conf_dir,
            cache=cache,
            read_only=spec.read_only,
            staging=self.staging,
        )


def problem() -> str:
    """Why this node can't mount anything; empty when it can."""
    return "" if os.path.exists("/dev/fuse") else "/dev/fuse is not there: load the kernel module fuse"


class Node:
    """One method an RPC: check the request, act, answer. RPCs that are missing are answered with UNIMPLEMENTED."""

    def __init__(
        self,
        node_id: str,
        staging: Staging,
        ephemeral: Ephemeral,
        health: Health,
        mounts: MountTable,
        locks: VolumeLocks,
        question_locks: VolumeLocks,
        *,
        tells_condition: bool = False,
    ) -> None:
        """Act through `staging` and `ephemeral`, one call a volume at a time.

        Args:
            node_id: the name that the CO knows this node by.
            staging: the volumes of the node.
            ephemeral: those that are mounted for one pod each.
            health: says what is wrong with them.
            mounts: what is mounted, for statistics.
            locks: refuse a second call for a volume.
            question_locks: the same for calls that change nothing: they don't keep others waiting, and many of them
                that wait for hung mounts don't keep volumes from being mounted and unmounted.
            tells_condition: whether statistics carry the condition of CSI before 1.13.

        Raises:
            InvalidArgumentError: the node id is empty or too long.
        """
        if not 0 < len(node_id.encode()) <= MAX_NODE_ID_BYTES:
            raise InvalidArgumentError(f"node id: given {node_id!r}, accepted are 1 to {MAX_NODE_ID_BYTES} bytes")
        self._node_id = node_id
        self._staging = staging
        self._ephemeral = ephemeral
        self._health = health
        self._mounts = mounts
        self._locks = locks
        self._question_locks = question_locks
        self._tells_condition = tells_condition

    def node_get_info(self, _request: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
        """CSI NodeGetInfo. No topology: HDFS is reached from every node."""
        return csi.NodeGetInfoResponse(node_id=self._node_id)

    def node_get_capabilities(self, _request: csi.NodeGetCapabilitiesRequest) -> csi.NodeGetCapabilitiesResponse:
        """CSI NodeGetCapabilities."""
        offered = (*CAPABILITIES, condition.CAPABILITY) if self._tells_condition else CAPABILITIES
        capabilities = [csi.NodeServiceCapability(rpc=_Rpc(type=capability)) for capability in offered]
        return csi.NodeGetCapabilitiesResponse(capabilities=capabilities)

    def node_stage_volume(self, request: csi.NodeStageVolumeRequest) -> csi.NodeStageVolumeResponse:
        """CSI NodeStageVolume: the volume is mounted once for all pods of the node, read-only if all of them only read.

        Raises:
            InvalidArgumentError: something is missing or not accepted.
            HdfsFuseError: what Staging.stage raises.
        """
        volume.check_id(request.volume_id)
        _check_path("staging_target_path", request.staging_target_path)
        capability = _capability(request)
        access.check_capability(capability)
        spec = volume.volume_spec(
            request.volume_id,
            request.volume_context,
            read_only=access.is_read_only(capability),
            group=access.mount_group(capability),
            secret=Secret.read(request.secrets),
        )
        access.check_capability(capability, spec.config.backend)
        with self._locks.hold(request.volume_id):
            self._staging.stage(spec, request.staging_target_path)
        return csi.NodeStageVolumeResponse()

    def node_unstage_volume(self, request: csi.NodeUnstageVolumeRequest) -> csi.NodeUnstageVolumeResponse:
        """CSI NodeUnstageVolume.

        Raises:
            InvalidArgumentError: something is missing.
            HdfsFuseError: what Staging.unstage raises.
        """
        volume.check_id(request.volume_id)
        _check_path("staging_target_path", request.staging_target_path)
        with self._locks.hold(request.volume_id):
            self._staging.unstage(request.volume_id, request.staging_target_path)
        return csi.NodeUnstageVolumeResponse()

    def node_publish_volume(self, request: csi.NodePublishVolumeRequest) -> csi.NodePublishVolumeResponse:
        """CSI NodePublishVolume: the staged volume, or else a pod's own, shows in a pod's directory.

        Raises:
            InvalidArgumentError: something is missing or not accepted.
            NotReadyError: no staging path ("Staging target path not set" among the RPC's errors), nor an inline volume.
            HdfsFuseError: what Staging.publish or Ephemeral.publish raises.
        """
        volume.check_id(request.volume_id)
        _check_path("target_path", request.target_path)
        capability = _capability(request)
        access.check_capability(capability)
        log.info("publishing volume_id=%s pod=%s", request.volume_id, volume.pod_of(request.volume_context))
        if not request.staging_target_path:
            self._publish_inline(request, capability)
            return csi.NodePublishVolumeResponse()
        _check_path("staging_target_path", request.staging_target_path)
        secret, staging_path = Secret.read(request.secrets), request.staging_target_path
        read_only, group = request.readonly or access.is_read_only(capability), access.mount_group(capability)
        alone, options = access.is_alone(capability), access.bind_options(capability)
        with self._locks.hold(request.volume_id):
            spec = self._staging.staged_spec(request.volume_id, staging_path, read_only=read_only, secret=secret)
            if spec.is_per_pod:
                own = volume.pod_spec(replace(spec, read_only=read_only, group=group), request.volume_context)
                self._ephemeral.publish(own, request.target_path, alone=alone, options=options)
            else:
                self._staging.publish(
                    request.volume_id,
                    staging_path,
                    request.target_path,
                    read_only=read_only,
                    group=group,
                    alone=alone,
                    options=options,
                    secret=secret,
                )
        return csi.NodePublishVolumeResponse()

    def _publish_inline(self, request: csi.NodePublishVolumeRequest, capability: csi.VolumeCapability) -> None:
        if not volume.is_inline(request.volume_context):
            raise NotReadyError("staging_target_path: missing")
        spec = volume.inline_spec(
            request.volume_id,
            request.volume_context,
            read_only=request.readonly or access.is_read_only(capability),
            group=access.mount_group(capability),
            secret=Secret.read(request.secrets),
        )
        spec = volume.pod_spec(spec, request.volume_context)
        with self._locks.hold(request.volume_id):
            self._ephemeral.publish(spec, request.target_path, options=access.bind_options(capability))

    def node_unpublish_volume(self, request: csi.NodeUnpublishVolumeRequest) -> csi.NodeUnpublishVolumeResponse:
        """CSI NodeUnpublishVolume.

        Raises:
            InvalidArgumentError: something is missing.
            HdfsFuseError: what Staging.unpublish and Ephemeral.remove raise.
        """
        volume.check_id(request.volume_id)
        _check_path("target_path", request.target_path)
        with self._locks.hold(request.volume_id):
            self._staging.unpublish(request.target_path)
            # CSI does not say here which kind of volume it was.
            self._ephemeral.remove(request.volume_id, request.target_path)
        return csi.NodeUnpublishVolumeResponse()

    def node_get_volume_stats(self, request: csi.NodeGetVolumeStatsRequest) -> csi.NodeGetVolumeStatsResponse:
        """CSI NodeGetVolumeStats.

        Raises:
            InvalidArgumentError: something is missing.
            HdfsFuseError: what stats.usage raises.
        """
        _check_volume_path(request)
        with self._question_locks.hold(request.volume_path):
            if self._tells_condition:
                return self._stats_and_condition(request)
            usage = stats.usage(self._mounts, request.volume_id, request.volume_path)
        return csi.NodeGetVolumeStatsResponse(usage=usage)

    def _stats_and_condition(self, request: csi.NodeGetVolumeStatsRequest) -> csi.NodeGetVolumeStatsResponse:
        staged.find_at(self._mounts, request.volume_id, request.volume_path)
        problem = self._health.problem(request.volume_id, request.volume_path, request.staging_target_path)
        try:
            usage = stats.usage(self._mounts, request.volume_id, request.volume_path)
        except (DeadlineError, UnavailableError):
            if problem is None:
                raise
            usage = [csi.VolumeUsage(unit=csi.VolumeUsage.BYTES)]  # kubelets want some, or don't look at the condition
        response = csi.NodeGetVolumeStatsResponse(usage=usage)
        condition.add(response, problem)
        return response

    def node_expand_volume(self, request: csi.NodeExpandVolumeRequest) -> csi.NodeExpandVolumeResponse:
        """CSI NodeExpandVolume: nothing is to be done, since the size is a quota of HDFS; says what the mount shows.

        Raises:
            InvalidArgumentError: something is missing.
            HdfsFuseError: what stats.usage raises.
        """
        _check_volume_path(request)
        with self._question_locks.hold(request.volume_path):
            bytes_of, *_ = stats.usage(self._mounts, request.volume_id, request.volume_path)
        return csi.NodeExpandVolumeResponse(capacity_bytes=bytes_of.total)

    def node_get_volume_health(self, request: csi.NodeGetVolumeHealthRequest) -> csi.NodeGetVolumeHealthResponse:
        """CSI NodeGetVolumeHealth: no entry where all is well, else the one that says most.

        Raises:
            InvalidArgumentError: something is missing or not accepted.
            NotFoundError: this node has no such volume.
        """
        volume.check_id(request.volume_id)
        for name in ("volume_publish_path", "staging_target_path"):
            if getattr(request, name):
                _check_path(name, getattr(request, name))
        with self._question_locks.hold(request.volume_id):
            problem = self._health.problem(request.volume_id, request.volume_publish_path, request.staging_target_path)
        health = csi.VolumeHealth(volume_id=request.volume_id)
        if problem is not None:
            health.health_statuses.add(status=problem.status, reason=problem.reason, message=problem.message)
        return csi.NodeGetVolumeHealthResponse(volume_health=health)

    def node_get_storage_health(self, _request: csi.NodeGetStorageHealthRequest) -> csi.NodeGetStorageHealthResponse:
        """CSI NodeGetStorageHealth: what is wrong with the filesystems of the volumes here, if anything."""
        with self._question_locks.hold("NodeGetStorageHealth"):
            problems = self._health.storage_problems()
        response = csi.NodeGetStorageHealthResponse()
        for problem in problems:
            status = csi.STORAGE_DEGRADED if problem.status == csi.DEGRADED else csi.STORAGE_UNREACHABLE
            response.backend_health.add(status=status, reason=problem.reason, message=problem.message)
        return response


def _check_volume_path(request: csi.NodeGetVolumeStatsRequest | csi.NodeExpandVolumeRequest) -> None:
    # Any path: where the volume is not, CSI wants NOT_FOUND.
    volume.check_id(request.volume_id)
    if not request.volume_path:
        raise InvalidArgumentError("volume_path: missing")


def _check_path(name: str, path: str) -> None:
    if not path:
        raise InvalidArgumentError(f"{name}: missing")
    # Linux takes PATH_MAX, 4096 bytes with the final NUL; CSI asks for 128 at least.
    usable = path.startswith("/") and path.strip("/") and ".." not in path.split("/") and "\0" not in path
    if not usable or len(path.encode()) >= 4096:
        raise InvalidArgumentError(
            f"{name}: given {path!r}, accepted is an absolute path of up to 4095 bytes, without '..', below the root"
        )


def _capability(request: csi.NodeStageVolumeRequest | csi.NodePublishVolumeRequest) -> csi.VolumeCapability:
    if not request.HasField("volume_capability"):
        raise InvalidArgumentError("volume_capability: missing")
    return request.volume_capability
