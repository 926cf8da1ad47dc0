"""What the controller does on HDFS: makes and removes the directories of volumes, and their records.

The record is written before the directory is made and removed after the directory is gone. So whatever is cut short
is found again by the same call, and a directory without a record is never ours to delete.
"""

import logging

from hdfs_fuse.backend.base import FileKind
from hdfs_fuse.config import Location, split_uri
from hdfs_fuse.errors import (
    AlreadyExistsError,
    DeadlineError,
    HdfsFuseError,
    InvalidArgumentError,
    NotDirectoryError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

from hdfs_csi.access import CapacityRange
from hdfs_csi.errors import RecordError
from hdfs_csi.filesystems import Filesystem, Filesystems
from hdfs_csi.records import VolumeRecord
from hdfs_csi.volume import RECORDS, NewVolume, VolumeId, child

log = logging.getLogger(__name__)

# A base path that is not there yet: as an administrator's `hdfs dfs -mkdir` would make it.
_BASE_MODE = 0o755

# Records name the directories that DeleteVolume removes, so nobody but the controller may write them.
_RECORDS_MODE = 0o700


class Provisioner:
    """Makes, finds and removes volumes. Calls for one volume must not overlap (VolumeLocks)."""

    def __init__(self, filesystems: Filesystems) -> None:
        """Work on `filesystems`."""
        self._filesystems = filesystems

    def create(self, new: NewVolume, capacity: CapacityRange) -> VolumeRecord:
        """Make a volume, or finish one that an earlier call began.

        Returns:
            What HDFS remembers of the volume.

        Raises:
            AlreadyExistsError: a volume of this name has other parameters or another size, or its directory exists
                without being a volume.
            PermissionDeniedError: the controller's identity may not write below the base path, or not give away
                a directory.
            UnavailableError, DeadlineError: HDFS does not answer; the outcome is unknown.
        """
        filesystem = self._filesystems.get(new.volume_id.base.filesystem)
        record = _read(filesystem, new.volume_id)
        if record is None:
            return _begin(filesystem, new, capacity)
        _check_same(record, new, capacity)
        _furnish(filesystem, record)
        return record

    def delete(self, volume_id: VolumeId) -> None:
        """Remove a volume as its record says; one that is not there counts as removed.

        Raises:
            RecordError: the record names a directory that can't be a volume of this base path.
            PermissionDeniedError: the controller's identity may not remove what is in the directory.
            UnavailableError, DeadlineError: HDFS does not answer; the outcome is unknown.
        """
        filesystem = self._filesystems.get(volume_id.base.filesystem)
        record = _read(filesystem, volume_id)
        if record is None:
            log.info("volume is not there volume_id=%s", volume_id)
            return
        _check_inside(record, volume_id)
        if record.on_delete == "delete":
            filesystem.delete(record.path, recursive=True)
        filesystem.delete(volume_id.record_path, recursive=False)
        log.info("volume deleted volume_id=%s path=%s on_delete=%s", volume_id, record.path, record.on_delete)

    def find(self, volume_id: VolumeId) -> VolumeRecord | None:
        """What HDFS remembers of a volume; None when it is not there."""
        return _read(self._filesystems.get(volume_id.base.filesystem), volume_id)

    def check_directory(self, location: Location) -> None:
        """Refuse a static volume whose directory is not there.

        Raises:
            NotFoundError: nothing is there.
            NotDirectoryError: something else is there.
        """
        status = self._filesystems.get(location.filesystem).status(location.path)
        where = f"{location.filesystem}{location.path}"
        if status is None:
            raise NotFoundError(f"{where}: not found")
        if status.kind is not FileKind.DIRECTORY:
            raise NotDirectoryError(f"{where}: is a {status.kind.value}, a volume is a directory")


def _begin(filesystem: Filesystem, new: NewVolume, capacity: CapacityRange) -> VolumeRecord:
    base = new.volume_id.base.path
    if filesystem.status(new.path) is not None:
        raise AlreadyExistsError(
            f"{new.path}: exists, but was not made by this driver and so is not taken for a new volume; "
            "remove or rename it, or use it as a static volume"
        )
    record = VolumeRecord(
        name=new.name,
        path=new.path,
        capacity_bytes=capacity.wanted_bytes,
        mode=new.mode,
        owner=new.owner,
        group=new.group,
        on_delete=new.on_delete,
        parameters=dict(new.parameters),
    )
    filesystem.make_directory(base, _BASE_MODE)
    for directory in _records_directories(base):
        filesystem.make_directory(directory, _RECORDS_MODE)
    filesystem.write_file(new.volume_id.record_path, record.to_json())
    try:
        _furnish(filesystem, record)
    except (DeadlineError, UnavailableError):
        # The directory may be there or come yet: the record stays, and the CO's next call goes on from it.
        raise
    except HdfsFuseError:
        _undo(filesystem, new.volume_id, record)
        raise
    log.info("volume created volume_id=%s path=%s", new.volume_id, record.path)
    return record


def _furnish(filesystem: Filesystem, record: VolumeRecord) -> None:
    """Make the directory of `record` what the record says, whatever of that was done before."""
    status = filesystem.status(record.path)
    if status is None:
        filesystem.make_directory(record.path, record.mode)
        status = filesystem.status(record.path)
    if status is None:
        raise UnavailableError(f"{record.path}: removed while the volume was made")
    if status.kind is not FileKind.DIRECTORY:
        raise NotDirectoryError(f"{record.path}: is a {status.kind.value}, a volume is a directory")
    owner = record.owner if record.owner != status.owner else None
    group = record.group if record.group != status.group else None
    if owner is None and group is None:
        return
    try:
        filesystem.set_owner(record.path, owner, group)
    except PermissionDeniedError as e:
        raise PermissionDeniedError(
            f"{record.path}: can't be given to owner={record.owner} group={record.group}: only the superuser of HDFS "
            f"gives directories away, and others choose only among their own groups ({e})"
        ) from e


def _undo(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
    """Leave nothing of a volume that could not be made; only an empty directory is removed."""
    try:
        filesystem.delete(record.path, recursive=False)
        filesystem.delete(volume_id.record_path, recursive=False)
    except HdfsFuseError as e:
        log.warning("volume not cleaned up volume_id=%s path=%s error=%s", volume_id, record.path, e)


def _read(filesystem: Filesystem, volume_id: VolumeId) -> VolumeRecord | None:
    data = filesystem.read_file(volume_id.record_path)
    return None if data is None else VolumeRecord.from_json(data, volume_id.record_path)


def _check_same(record: VolumeRecord, new: NewVolume, capacity: CapacityRange) -> None:
    if record.name != new.name:
        raise AlreadyExistsError(f"volume {new.volume_id}: belongs to the name {record.name!r}, not {new.name!r}")
    if record.parameters != new.parameters:
        keys = sorted(
            k for k in {*record.parameters, *new.parameters} if record.parameters.get(k) != new.parameters.get(k)
        )
        raise AlreadyExistsError(f"volume {new.name!r}: exists with other parameters; different are {', '.join(keys)}")
    if not capacity.admits(record.capacity_bytes):
        raise AlreadyExistsError(
            f"volume {new.name!r}: exists with {record.capacity_bytes} bytes; "
            f"required are {capacity.required_bytes}, limit {capacity.limit_bytes or 'none'}"
        )


def _check_inside(record: VolumeRecord, volume_id: VolumeId) -> None:
    """Refuse to delete by a record that names anything but a directory below the base path."""
    base = volume_id.base
    try:
        path = split_uri(f"{base.filesystem}{record.path}").path
    except InvalidArgumentError as e:
        raise RecordError(f"volume record {volume_id.record_path}: {e}") from e
    inside = path == record.path and path.startswith(child(base.path, "")) and path != base.path
    hidden = child(base.path, RECORDS.partition("/")[0])
    if not inside or path == hidden or path.startswith(f"{hidden}/"):
        raise RecordError(
            f"volume record {volume_id.record_path}: names {record.path!r}, which is no volume below {base.path!r}; "
            "nothing was deleted"
        )


def _records_directories(base: str) -> list[str]:
    """The directories that hold records, parents first."""
    names = RECORDS.split("/")
    return [child(base, "/".join(names[: count + 1])) for count in range(len(names))]
