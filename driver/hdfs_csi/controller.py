"""The CSI Controller service: volumes are made, removed and checked. Keeps no state; HDFS is its memory."""

from hdfs_fuse.config import split_uri
from hdfs_fuse.errors import InvalidArgumentError, NotFoundError

from hdfs_csi import access, volume
from hdfs_csi.locks import VolumeLocks
from hdfs_csi.parameters import own_keys
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.provisioner import Provisioner
from hdfs_csi.records import VolumeRecord
from hdfs_csi.volume import VolumeId


class Controller:
    """One method an RPC: check the request, act, answer. RPCs that are missing are answered with UNIMPLEMENTED."""

    def __init__(self, provisioner: Provisioner, locks: VolumeLocks) -> None:
        """Act through `provisioner`, one call a volume at a time."""
        self._provisioner = provisioner
        self._locks = locks

    def controller_get_capabilities(
        self, _request: csi.ControllerGetCapabilitiesRequest
    ) -> csi.ControllerGetCapabilitiesResponse:
        """CSI ControllerGetCapabilities."""
        rpc = csi.ControllerServiceCapability.RPC(type=csi.ControllerServiceCapability.RPC.CREATE_DELETE_VOLUME)
        return csi.ControllerGetCapabilitiesResponse(capabilities=[csi.ControllerServiceCapability(rpc=rpc)])

    def create_volume(self, request: csi.CreateVolumeRequest) -> csi.CreateVolumeResponse:
        """CSI CreateVolume: a directory below the base path.

        The capacity is remembered and compared, but nothing enforces it yet.

        Raises:
            InvalidArgumentError: name, capabilities or parameters are missing or not accepted, or a source is given.
            HdfsFuseError: what Provisioner.create raises.
        """
        new = volume.new_volume(request.name, request.parameters)
        access.check_capabilities(request.volume_capabilities, new.backend)
        capacity = access.capacity_range(request.capacity_range)
        if request.HasField("volume_content_source"):
            raise InvalidArgumentError("volume_content_source: volumes from snapshots or volumes are not supported")
        if request.mutable_parameters:
            raise InvalidArgumentError("mutable_parameters: not supported")
        with self._locks.hold(str(new.volume_id)):
            record = self._provisioner.create(new, capacity)
        return csi.CreateVolumeResponse(volume=_volume(new.volume_id, record))

    def delete_volume(self, request: csi.DeleteVolumeRequest) -> csi.DeleteVolumeResponse:
        """CSI DeleteVolume: the directory goes as `onDelete` says.

        Nothing is done for an id that CreateVolume never gave: static volumes keep their data.

        Raises:
            InvalidArgumentError: no id.
            HdfsFuseError: what Provisioner.delete raises.
        """
        if not request.volume_id:
            raise InvalidArgumentError("volume_id: missing")
        volume_id = VolumeId.parse(request.volume_id)
        if volume_id is not None:
            with self._locks.hold(request.volume_id):
                self._provisioner.delete(volume_id)
        return csi.DeleteVolumeResponse()

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
        backend, reasons = self._compare(request.volume_id, attributes, parameters)
        reasons += [reason for c in request.volume_capabilities if (reason := access.unsupported(c, backend))]
        if reasons:
            return csi.ValidateVolumeCapabilitiesResponse(message="; ".join(reasons))
        confirmed = csi.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
        )
        return csi.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    def _compare(self, volume_id: str, attributes: dict[str, str], parameters: dict[str, str]) -> tuple[str, list[str]]:
        """The client that a volume's nodes use, and what the CO believes of the volume and HDFS does not.

        Raises:
            NotFoundError: no such volume.
            InvalidArgumentError: a static volume with attributes or parameters that are not accepted.
        """
        made = VolumeId.parse(volume_id)
        record = self._provisioner.find(made) if made is not None else None
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
        self._provisioner.check_directory(split_uri(config.uri))
        return config.backend, ["parameters: static volumes have none"] if parameters else []


def _volume(volume_id: VolumeId, record: VolumeRecord) -> csi.Volume:
    return csi.Volume(
        volume_id=str(volume_id),
        capacity_bytes=record.capacity_bytes,
        volume_context=volume.attributes_of(volume_id, record.path, record.parameters),
    )
