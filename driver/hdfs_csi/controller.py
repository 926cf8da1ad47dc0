"""The CSI Controller service: volumes and snapshots are made, changed, listed and removed. Keeps no state but HDFS."""

import bisect
import contextlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from google.protobuf import timestamp_pb2, wrappers_pb2
from hdfs_fuse.config import Location, split_uri
from hdfs_fuse.errors import InvalidArgumentError, NotFoundError

from hdfs_csi import access, volume
from hdfs_csi.errors import InvalidTokenError, NotOfferedError
from hdfs_csi.locks import VolumeLocks
from hdfs_csi.parameters import own_keys
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.provisioner import Provisioner
from hdfs_csi.records import SnapshotRecord, Source, VolumeRecord
from hdfs_csi.secret import Secret
from hdfs_csi.snapshots import Snapshots
from hdfs_csi.volume import NewVolume, SnapshotId, VolumeId

_Rpc = csi.ControllerServiceCapability.RPC

_CAPABILITIES = (
    _Rpc.CREATE_DELETE_VOLUME,
    _Rpc.EXPAND_VOLUME,
    _Rpc.MODIFY_VOLUME,
    _Rpc.CLONE_VOLUME,
    _Rpc.CREATE_DELETE_SNAPSHOT,
    _Rpc.GET_CAPACITY,
    _Rpc.GET_VOLUME,
    _Rpc.GET_VOLUME_HEALTH,
    _Rpc.GET_SNAPSHOT,
    _Rpc.SINGLE_NODE_MULTI_WRITER,
)
# What needs to know all base paths.
_LISTING = (_Rpc.LIST_VOLUMES, _Rpc.LIST_VOLUME_HEALTH, _Rpc.LIST_SNAPSHOTS)

I = TypeVar("I", VolumeId, SnapshotId)  # noqa: E741


class Controller:
    """One method an RPC: check the request, act, answer. RPCs that are missing are answered with UNIMPLEMENTED."""

    def __init__(
        self, provisioner: Provisioner, snapshots: Snapshots, locks: VolumeLocks, bases: Sequence[Location] = ()
    ) -> None:
        """Act through `provisioner` and `snapshots`, one call a volume or snapshot at a time.

        Args:
            provisioner: of volumes.
            snapshots: of them.
            locks: refuse a second call for one.
            bases: the base paths whose volumes and snapshots are listed; without any the driver lists nothing.
        """
        self._provisioner = provisioner
        self._snapshots = snapshots
        self._locks = locks
        self._bases = bases

    def _reach(self, secrets: Mapping[str, str]) -> tuple[Provisioner, Snapshots]:
        """Volumes and snapshots, reached as the secret of a call says.

        Raises:
            InvalidArgumentError: something of it is not accepted.
        """
        secret = Secret.read(secrets)
        return self._provisioner.with_secret(secret), self._snapshots.with_secret(secret)

    def controller_get_capabilities(
        self, _request: csi.ControllerGetCapabilitiesRequest
    ) -> csi.ControllerGetCapabilitiesResponse:
        """CSI ControllerGetCapabilities."""
        kinds = _CAPABILITIES + (_LISTING if self._bases else ())
        capabilities = [csi.ControllerServiceCapability(rpc=_Rpc(type=kind)) for kind in kinds]
        return csi.ControllerGetCapabilitiesResponse(capabilities=capabilities)

    # --- volumes ---

    def create_volume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        """CSI CreateVolume: a directory below the base path; or the snapshot itself for those who only read it.

        Raises:
            InvalidArgumentError: name, capabilities, parameters, source or secret are missing or not accepted.
            HdfsFuseError: what Provisioner.create raises.
        """
        provisioner, snapshots = self._reach(request.secrets)
        new = volume.new_volume(request.name, request.parameters, request.mutable_parameters)
        access.check_capabilities(request.volume_capabilities, new.backend)
        capacity = access.capacity_range(request.capacity_range)
        with contextlib.ExitStack() as held:
            held.enter_context(self._locks.hold(str(new.volume_id)))
            source = None
            if request.HasField("volume_content_source"):
                source = self._source(request.volume_content_source, new, held, provisioner, snapshots)
            is_view = source is not None and all(access.is_read_only(c) for c in request.volume_capabilities)
            record = provisioner.create(new, capacity, source, is_view=is_view)
        return csi.CreateVolumeResponse(volume=_volume(new.volume_id, record))

    def _source(
        self,
        message: csi.VolumeContentSource,
        new: NewVolume,
        held: contextlib.ExitStack,
        provisioner: Provisioner,
        snapshots: Snapshots,
    ) -> Source:
        """What a volume is to be made from, and which is not removed before `held` ends; or what it was made from.

        Raises:
            NotFoundError: there is no such snapshot or volume.
            InvalidArgumentError: it is on another filesystem.
        """
        source_id: SnapshotId | VolumeId
        if message.WhichOneof("type") == "snapshot":
            source_id = _snapshot_id(message.snapshot.snapshot_id)
        else:
            source_id = _volume_id(message.volume.volume_id)
            if source_id == new.volume_id:
                raise InvalidArgumentError(f"volume_content_source: {source_id} can't be made from itself")
        if source_id.base.filesystem != new.volume_id.base.filesystem:
            raise InvalidArgumentError(
                f"volume_content_source: is on {source_id.base.filesystem}, "
                f"the volume on {new.volume_id.base.filesystem}"
            )
        held.enter_context(self._locks.hold(str(source_id)))
        known = provisioner.find(new.volume_id)
        if known is not None and known.source is not None and known.source.id == str(source_id):
            return known.source
        if isinstance(source_id, SnapshotId):
            return snapshots.source_of(source_id)
        return provisioner.source_of(source_id, new.volume_id.key)

    def delete_volume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        """CSI DeleteVolume: the directory goes as `onDelete` says.

        Nothing is done for an id that CreateVolume never gave: static volumes keep their data.

        Raises:
            InvalidArgumentError: no id.
            HdfsFuseError: what Provisioner.delete raises.
        """
        if not request.volume_id:
            raise InvalidArgumentError("volume_id: missing")
        provisioner, _ = self._reach(request.secrets)
        volume_id = VolumeId.parse(request.volume_id)
        if volume_id is not None:
            with self._locks.hold(request.volume_id):
                provisioner.delete(volume_id)
        return csi.DeleteVolumeResponse()

    def controller_expand_volume(
        self, request: csi.ControllerExpandVolumeRequest
    ) -> csi.ControllerExpandVolumeResponse:
        """CSI ControllerExpandVolume: a larger quota, at once and for all nodes.

        Raises:
            InvalidArgumentError: id or range are missing.
            HdfsFuseError: what Provisioner.expand raises.
        """
        volume_id = _volume_id(request.volume_id)
        capacity = access.capacity_range(request.capacity_range)
        if not capacity.wanted_bytes:
            raise InvalidArgumentError("capacity_range: missing")
        if request.HasField("volume_capability"):
            access.check_capability(request.volume_capability)
        provisioner, _ = self._reach(request.secrets)
        with self._locks.hold(request.volume_id):
            record = provisioner.expand(volume_id, capacity)
        return csi.ControllerExpandVolumeResponse(capacity_bytes=record.capacity_bytes, node_expansion_required=False)

    def controller_modify_volume(
        self, request: csi.ControllerModifyVolumeRequest
    ) -> csi.ControllerModifyVolumeResponse:
        """CSI ControllerModifyVolume: the parameters of a VolumeAttributesClass.

        Raises:
            InvalidArgumentError: the id is missing, or a parameter is not accepted.
            HdfsFuseError: what Provisioner.modify raises.
        """
        volume_id = _volume_id(request.volume_id)
        provisioner, _ = self._reach(request.secrets)
        with self._locks.hold(request.volume_id):
            provisioner.modify(volume_id, request.mutable_parameters)
        return csi.ControllerModifyVolumeResponse()

    def get_capacity(self, request: csi.GetCapacityRequest) -> csi.GetCapacityResponse:
        """CSI GetCapacity: what a new volume of a StorageClass can hold, by quotas above it and the cluster's space.

        Raises:
            InvalidArgumentError: parameters are not accepted.
        """
        parameters = dict(request.parameters)
        if not parameters and self._bases:
            parameters = {"uri": f"{self._bases[0].filesystem}{self._bases[0].path}"}
        new = volume.new_volume("capacity", {**parameters, "pathPattern": "${pv.name}"})
        is_possible = not any(access.unsupported(c, new.backend) for c in request.volume_capabilities)
        free_bytes = self._provisioner.free_bytes(new) if is_possible else 0
        return csi.GetCapacityResponse(
            available_capacity=free_bytes, maximum_volume_size=wrappers_pb2.Int64Value(value=free_bytes)
        )

    def controller_get_volume(self, request: csi.ControllerGetVolumeRequest) -> csi.ControllerGetVolumeResponse:
        """CSI ControllerGetVolume.

        Raises:
            NotFoundError: no such volume.
        """
        volume_id = _volume_id(request.volume_id)
        found = _volume(volume_id, _existing(self._provisioner, volume_id))
        return csi.ControllerGetVolumeResponse(volume=found, status=csi.ControllerGetVolumeResponse.VolumeStatus())

    def list_volumes(self, request: csi.ListVolumesRequest) -> csi.ListVolumesResponse:
        """CSI ListVolumes: those below the base paths that the controller was told of.

        Raises:
            InvalidTokenError, InvalidArgumentError: token or number are not accepted.
        """
        volume_ids = self._volume_ids(self._provisioner)
        ids, token = _page(volume_ids, VolumeId, request.starting_token, request.max_entries)
        found = [(volume_id, record) for volume_id in ids if (record := self._provisioner.find(volume_id)) is not None]
        entries = [csi.ListVolumesResponse.Entry(volume=_volume(*volume_and_record)) for volume_and_record in found]
        return csi.ListVolumesResponse(entries=entries, next_token=token)

    def _volume_ids(self, provisioner: Provisioner) -> list[VolumeId]:
        self._check_listing()
        return [volume_id for base in self._bases for volume_id in provisioner.ids(base)]

    def _check_listing(self) -> None:
        """Refuse to list a part of what there is.

        Raises:
            NotOfferedError: the controller was not told of base paths.
        """
        if not self._bases:
            raise NotOfferedError("lists: start the controller with --base-uri for each base path")

    def validate_volume_capabilities(
        self, request: csi.ValidateVolumeCapabilitiesRequest
    ) -> csi.ValidateVolumeCapabilitiesResponse:
        """CSI ValidateVolumeCapabilities: confirmed when every one is supported, else a message that says why not.

        Raises:
            InvalidArgumentError: id or capabilities are missing.
            NotFoundError: no such volume.
        """
        volume.check_id(request.volume_id)
        if not request.volume_capabilities:
            raise InvalidArgumentError("volume_capabilities: missing")
        attributes, parameters = own_keys(request.volume_context), own_keys(request.parameters)
        provisioner, _ = self._reach(request.secrets)
        backend, reasons = _compare(provisioner, request.volume_id, attributes, parameters)
        reasons += [reason for c in request.volume_capabilities if (reason := access.unsupported(c, backend))]
        if reasons:
            return csi.ValidateVolumeCapabilitiesResponse(message="; ".join(reasons))
        confirmed = csi.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
        )
        return csi.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    # --- health ---

    def controller_get_volume_health(
        self, request: csi.ControllerGetVolumeHealthRequest
    ) -> csi.ControllerGetVolumeHealthResponse:
        """CSI ControllerGetVolumeHealth: whether the volume's directory is what its record says.

        Raises:
            NotFoundError: no such volume.
        """
        volume_id = _volume_id(request.volume_id)
        provisioner, _ = self._reach(request.secrets)
        health = _health(provisioner, volume_id, _existing(provisioner, volume_id))
        return csi.ControllerGetVolumeHealthResponse(volume_health=health)

    def controller_list_volume_health(
        self, request: csi.ControllerListVolumeHealthRequest
    ) -> csi.ControllerListVolumeHealthResponse:
        """CSI ControllerListVolumeHealth: of the volumes that ListVolumes has those that something is wrong with.

        Raises:
            InvalidTokenError, InvalidArgumentError: token or number are not accepted.
        """
        provisioner, _ = self._reach(request.secrets)
        ids, token = _page(self._volume_ids(provisioner), VolumeId, request.starting_token, request.max_entries)
        found = [
            _health(provisioner, volume_id, record) for volume_id in ids if (record := provisioner.find(volume_id))
        ]
        sick = [health for health in found if health.health_statuses]
        return csi.ControllerListVolumeHealthResponse(entries=sick, next_token=token)

    # --- snapshots ---

    def create_snapshot(self, request: csi.CreateSnapshotRequest) -> csi.CreateSnapshotResponse:
        """CSI CreateSnapshot: an HDFS snapshot of the volume's directory, made at once.

        Raises:
            InvalidArgumentError: name or volume are missing, or there are parameters.
            NotFoundError: no such volume.
            HdfsFuseError: what Snapshots.create raises.
        """
        volume.check_name(request.name)
        if parameters := own_keys(request.parameters):
            raise InvalidArgumentError(f"parameters: given {', '.join(parameters)}, a VolumeSnapshotClass has none")
        provisioner, snapshots = self._reach(request.secrets)
        volume_id = _volume_id(request.source_volume_id)
        snapshot_id = self._snapshots.id_of(request.name, volume_id)
        with self._locks.hold(str(snapshot_id)), self._locks.hold(str(volume_id)):
            record = snapshots.create(request.name, volume_id, _existing(provisioner, volume_id))
        return csi.CreateSnapshotResponse(snapshot=_snapshot(snapshot_id, record))

    def delete_snapshot(self, request: csi.DeleteSnapshotRequest) -> csi.DeleteSnapshotResponse:
        """CSI DeleteSnapshot.

        Raises:
            InvalidArgumentError: no id.
            HdfsFuseError: what Snapshots.delete raises.
        """
        if not request.snapshot_id:
            raise InvalidArgumentError("snapshot_id: missing")
        _, snapshots = self._reach(request.secrets)
        snapshot_id = SnapshotId.parse(request.snapshot_id)
        if snapshot_id is not None:
            with self._locks.hold(request.snapshot_id):
                snapshots.delete(snapshot_id)
        return csi.DeleteSnapshotResponse()

    def get_snapshot(self, request: csi.GetSnapshotRequest) -> csi.GetSnapshotResponse:
        """CSI GetSnapshot.

        Raises:
            NotFoundError: no such snapshot.
        """
        snapshot_id = _snapshot_id(request.snapshot_id)
        _, snapshots = self._reach(request.secrets)
        record = snapshots.find(snapshot_id)
        if record is None:
            raise NotFoundError(f"snapshot {snapshot_id}: not found")
        return csi.GetSnapshotResponse(snapshot=_snapshot(snapshot_id, record))

    def list_snapshots(self, request: csi.ListSnapshotsRequest) -> csi.ListSnapshotsResponse:
        """CSI ListSnapshots: one, those of one volume, or those below the base paths that the controller was told of.

        Raises:
            InvalidTokenError, InvalidArgumentError: token or number are not accepted.
        """
        self._check_listing()
        _, snapshots = self._reach(request.secrets)
        if request.snapshot_id:
            wanted = SnapshotId.parse(request.snapshot_id)
            ids = [] if wanted is None else [wanted]
        elif request.source_volume_id:
            source = VolumeId.parse(request.source_volume_id)
            ids = [] if source is None else list(snapshots.ids(source.base))
        else:
            ids = [snapshot_id for base in self._bases for snapshot_id in snapshots.ids(base)]
        if wanted_volume := request.source_volume_id:
            ids = [i for i in ids if (record := snapshots.find(i)) and record.volume_id == wanted_volume]
        page, token = _page(ids, SnapshotId, request.starting_token, request.max_entries)
        found = [_snapshot(i, record) for i in page if (record := snapshots.find(i))]
        entries = [csi.ListSnapshotsResponse.Entry(snapshot=snapshot) for snapshot in found]
        return csi.ListSnapshotsResponse(entries=entries, next_token=token)


def _page(ids: list[I], kind: type[I], token: str, max_entries: int) -> tuple[list[I], str]:
    """One page of a list, and the token of the next one; empty for the last.

    Args:
        ids: all.
        kind: of which they are.
        token: of the page; the last id of the one before, or empty.
        max_entries: on a page; 0 for all.

    Raises:
        InvalidTokenError: the token is no id. InvalidArgumentError: a negative number.
    """
    if max_entries < 0:
        raise InvalidArgumentError(f"max_entries: given {max_entries}, accepted is 0 or more")
    if token and kind.parse(token) is None:
        raise InvalidTokenError(f"starting_token: given {token!r}, which no list has returned; begin anew")
    ordered = sorted(ids, key=str)
    start = bisect.bisect_right(ordered, token, key=str) if token else 0
    stop = start + max_entries if max_entries else len(ordered)
    page = ordered[start:stop]
    return page, str(page[-1]) if page and stop < len(ordered) else ""


def _volume_id(text: str) -> VolumeId:
    """The id of a volume that CreateVolume made.

    Raises:
        InvalidArgumentError: missing, or too long. NotFoundError: none of ours.
    """
    volume.check_id(text)
    volume_id = VolumeId.parse(text)
    if volume_id is None:
        raise NotFoundError(f"volume {text!r}: not found; static volumes are known by their attributes only")
    return volume_id


def _snapshot_id(text: str) -> SnapshotId:
    """As `_volume_id`."""
    if not text:
        raise InvalidArgumentError("snapshot_id: missing")
    snapshot_id = SnapshotId.parse(text)
    if snapshot_id is None:
        raise NotFoundError(f"snapshot {text!r}: not found")
    return snapshot_id


def _existing(provisioner: Provisioner, volume_id: VolumeId) -> VolumeRecord:
    record = provisioner.find(volume_id)
    if record is None:
        raise NotFoundError(f"volume {volume_id}: not found")
    return record


def _compare(
    provisioner: Provisioner, volume_id: str, attributes: dict[str, str], parameters: dict[str, str]
) -> tuple[str, list[str]]:
    """The client that a volume's nodes use, and what the CO believes of the volume and HDFS does not.

    Raises:
        NotFoundError: no such volume.
        InvalidArgumentError: a static volume with attributes or parameters that are not accepted.
    """
    made = VolumeId.parse(volume_id)
    record = provisioner.find(made) if made is not None else None
    if made is not None and record is not None:
        reasons, known = [], volume.attributes_of(made, record.path, record.parameters)
        if attributes and attributes != known:
            reasons.append("volume_context: not that of the volume")
        if parameters and parameters != record.parameters:
            reasons.append("parameters: not those of the volume")
        return volume.volume_spec(volume_id, known).config.backend, reasons
    if not attributes:
        raise NotFoundError(f"volume {volume_id!r}: not found; static volumes are known by their attributes only")
    config = volume.volume_spec(volume_id, attributes).config
    provisioner.check_directory(split_uri(config.uri))
    return config.backend, ["parameters: static volumes have none"] if parameters else []


def _health(provisioner: Provisioner, volume_id: VolumeId, record: VolumeRecord) -> csi.VolumeHealth:
    problem = provisioner.problem(volume_id, record)
    entry = csi.VolumeHealth.VolumeHealthEntry(
        status=csi.VolumeHealthErrorType.INACCESSIBLE, reason="DirectoryMissing", message=problem
    )
    return csi.VolumeHealth(volume_id=str(volume_id), health_statuses=[entry] if problem else [])


def _volume(volume_id: VolumeId, record: VolumeRecord) -> csi.Volume:
    content_source = None
    if record.source is not None and record.source.snapshot_id is not None:
        snapshot = csi.VolumeContentSource.SnapshotSource(snapshot_id=record.source.snapshot_id)
        content_source = csi.VolumeContentSource(snapshot=snapshot)
    elif record.source is not None:
        source = csi.VolumeContentSource.VolumeSource(volume_id=record.source.volume_id)
        content_source = csi.VolumeContentSource(volume=source)
    return csi.Volume(
        volume_id=str(volume_id),
        capacity_bytes=record.capacity_bytes,
        volume_context=volume.attributes_of(volume_id, record.path, record.parameters),
        content_source=content_source,
    )


def _snapshot(snapshot_id: SnapshotId, record: SnapshotRecord) -> csi.Snapshot:
    created = timestamp_pb2.Timestamp()
    created.FromMilliseconds(record.created_ms)
    return csi.Snapshot(
        snapshot_id=str(snapshot_id),
        source_volume_id=record.volume_id,
        creation_time=created,
        ready_to_use=True,
        size_bytes=record.size_bytes,
    )
