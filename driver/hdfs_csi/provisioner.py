"""What the controller does on HDFS with volumes: makes, changes, finds and removes them.

The record of a volume is written before anything else and removed after everything else. So whatever is cut short is
found again by the same call, and a directory without a record is never ours to delete.
"""

import logging
from collections.abc import Iterator, Mapping

import msgspec
from hdfs_fuse.backend.base import FileKind
from hdfs_fuse.config import Location, split_uri
from hdfs_fuse.errors import (
    AlreadyExistsError,
    DeadlineError,
    DirectoryNotEmptyError,
    HdfsFuseError,
    InvalidArgumentError,
    NotDirectoryError,
    NotFoundError,
    UnavailableError,
)

from hdfs_csi import directories, volume
from hdfs_csi.access import CapacityRange
from hdfs_csi.copies import Copies
from hdfs_csi.errors import OutOfRangeError, RecordError, VolumeBusyError
from hdfs_csi.filesystems import Filesystem, Filesystems
from hdfs_csi.parameters import read_class, read_mutable
from hdfs_csi.records import Source, VolumeRecord
from hdfs_csi.secret import Secret
from hdfs_csi.volume import HIDDEN, MAKING, SNAPSHOTS, VOLUMES, NewVolume, SnapshotId, VolumeId, child

log = logging.getLogger(__name__)

# Records name the directories that DeleteVolume removes, so nobody but the controller may write them.
_RECORDS_MODE = 0o700


class Provisioner:
    """Makes, finds and removes volumes. Calls for one volume must not overlap (VolumeLocks)."""

    def __init__(self, filesystems: Filesystems, copies: Copies) -> None:
        """Work on `filesystems`; `copies` fills volumes that are made from others."""
        self._filesystems = filesystems
        self._copies = copies

    def with_secret(self, secret: Secret) -> "Provisioner":
        """The same, but reaching HDFS as the secret of a call says.

        Raises:
            InvalidArgumentError: what Filesystems.with_secret raises.
        """
        return Provisioner(self._filesystems.with_secret(secret), self._copies)

    def create(
        self, new: NewVolume, capacity: CapacityRange, source: Source | None = None, *, is_view: bool = False
    ) -> VolumeRecord:
        """Make a volume, or finish one that an earlier call began.

        Args:
            new: the volume.
            capacity: how big it is to be.
            source: what it is made from.
            is_view: whether it only shows that, which then stays as long as the volume.

        Returns:
            What HDFS remembers of the volume.

        Raises:
            AlreadyExistsError: a volume of this name has other parameters, another size or source, or its directory
                exists without being this volume's.
            OutOfRangeError: the source does not fit.
            NotFoundError: the source is gone.
            PermissionDeniedError: the controller's identity may not write below the base path, or not do what the
                parameters ask for.
            VolumeBusyError: its content is still being copied.
            UnavailableError, DeadlineError: HDFS does not answer; the outcome is unknown.
        """
        filesystem = self._filesystems.get(new.volume_id.base.filesystem)
        record = _read(filesystem, new.volume_id)
        if record is None:
            record = _begin(filesystem, new, capacity, source, is_view=is_view)
        else:
            _check_same(record, new, capacity, source, is_view=is_view)
            if not record.is_view and directories.is_made(filesystem, new.volume_id, record.path):
                _forget_copied(filesystem, record)
                return record
        try:
            self._make(filesystem, new.volume_id, record)
        except (DeadlineError, UnavailableError, VolumeBusyError):
            # What was begun may be there or come yet: the record stays, and the CO's next call goes on from it.
            raise
        except HdfsFuseError:
            self._undo(filesystem, new.volume_id, record)
            raise
        return record

    def _make(self, filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
        """Make of the volume what its record says, whatever of that was begun before."""
        if record.is_view:
            _use(filesystem, volume_id, record)
        else:
            directories.begin(filesystem, volume_id, record)
            if record.source is not None:
                self._fill(filesystem, volume_id, record.source)
            directories.finish(filesystem, volume_id, record)
            _forget_copied(filesystem, record)
        log.info("volume created volume_id=%s path=%s", volume_id, record.path)

    def _fill(self, filesystem: Filesystem, volume_id: VolumeId, source: Source) -> None:
        if source.snapshot_id is None:  # that of a volume is made for the copy alone
            filesystem.create_snapshot(source.path, source.snapshot)
        self._copies.run(str(volume_id), filesystem.client, source.snapshot_path, volume_id.making_path)

    def _undo(self, filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
        """Leave nothing of a volume that could not be made.

        Raises:
            UnavailableError, DeadlineError: not now; so the CO asks again, and this is tried again too.
        """
        try:
            self._copies.end(str(volume_id))
            directories.discard(filesystem, volume_id)
            _leave_source(filesystem, volume_id, record)
            filesystem.remove_file(volume_id.record_path, volume_id.drafts_path)
        except (DeadlineError, UnavailableError):
            raise
        except HdfsFuseError as e:
            log.warning("volume not cleaned up volume_id=%s path=%s error=%s", volume_id, record.path, e)

    def delete(self, volume_id: VolumeId) -> None:
        """Remove a volume as its record says; one that is not there counts as removed.

        Raises:
            RecordError: the record names a directory that can't be a volume of this base path.
            DirectoryNotEmptyError: it has snapshots, or volumes that show it.
            PermissionDeniedError: the controller's identity may not remove what is in the directory.
            UnavailableError, DeadlineError: HDFS does not answer; the outcome is unknown.
        """
        filesystem = self._filesystems.get(volume_id.base.filesystem)
        record = _read(filesystem, volume_id)
        if record is None:
            filesystem.remove_file(volume_id.record_path, volume_id.drafts_path)  # cut short before it was complete
            log.info("volume is not there volume_id=%s", volume_id)
            return
        self._copies.end(str(volume_id))
        if not record.is_view:
            _check_inside(record, volume_id)
            if names := filesystem.snapshots(record.path):
                raise DirectoryNotEmptyError(
                    f"volume {volume_id}: has the snapshots {', '.join(names)} of {record.path}; delete them, and the "
                    "volumes that were made from it, first"
                )
            directories.remove(filesystem, volume_id, record)
        _leave_source(filesystem, volume_id, record)
        filesystem.remove_file(volume_id.record_path, volume_id.drafts_path)
        log.info("volume deleted volume_id=%s path=%s on_delete=%s", volume_id, record.path, record.settings.on_delete)

    def expand(self, volume_id: VolumeId, capacity: CapacityRange) -> VolumeRecord:
        """Make a volume larger, while it is used; one that is large enough stays as it is.

        Raises:
            NotFoundError: no such volume.
            OutOfRangeError: it is larger than the limit.
            InvalidArgumentError: it shows a snapshot, whose size is what it is.
            PermissionDeniedError: only the superuser of HDFS sets quotas.
        """
        filesystem, record = self._existing(volume_id)
        if record.is_view:
            raise InvalidArgumentError(f"volume {volume_id}: shows a snapshot, and can't be larger than that")
        if capacity.limit_bytes and record.capacity_bytes > capacity.limit_bytes:
            raise OutOfRangeError(
                f"capacity_range: the volume has {record.capacity_bytes} bytes, more than the limit of "
                f"{capacity.limit_bytes}; volumes do not shrink"
            )
        larger = msgspec.structs.replace(record, capacity_bytes=max(record.capacity_bytes, capacity.wanted_bytes))
        # In this order the record never promises what is not enforced. Always, since an earlier call may have failed.
        directories.apply_size(filesystem, volume_id, larger, larger.path)
        if larger != record:
            filesystem.write_file(volume_id.record_path, larger.to_json(), volume_id.drafts_path)
            log.info("volume expanded volume_id=%s capacity_bytes=%d", volume_id, larger.capacity_bytes)
        return larger

    def modify(self, volume_id: VolumeId, mutable: Mapping[str, str]) -> None:
        """Change what may be changed of a volume, also of the files that are there.

        Args:
            volume_id: the volume.
            mutable: parameters of a VolumeAttributesClass.

        Raises:
            NotFoundError: no such volume.
            InvalidArgumentError: a key or a value is not accepted, or the volume shows a snapshot.
            PermissionDeniedError: the controller's identity may not.
        """
        read_mutable(mutable)
        filesystem, record = self._existing(volume_id)
        if record.is_view:
            raise InvalidArgumentError(f"volume {volume_id}: shows a snapshot, which never changes")
        parameters = {**record.parameters, **mutable}
        settings = volume.settings_of(read_class(parameters))
        changed = msgspec.structs.replace(record, parameters=parameters, settings=settings)
        directories.apply_size(filesystem, volume_id, changed, record.path)
        filesystem.set_policies(record.path, storage=settings.storage_policy, erasure_coding=None)
        if settings.replication is not None:
            _set_replication(filesystem, record.path, settings.replication)
        if changed != record:
            filesystem.write_file(volume_id.record_path, changed.to_json(), volume_id.drafts_path)
            log.info("volume modified volume_id=%s parameters=%s", volume_id, dict(mutable))

    def find(self, volume_id: VolumeId) -> VolumeRecord | None:
        """What HDFS remembers of a volume; None when it is not there."""
        return _read(self._filesystems.get(volume_id.base.filesystem), volume_id)

    def _existing(self, volume_id: VolumeId) -> tuple[Filesystem, VolumeRecord]:
        filesystem = self._filesystems.get(volume_id.base.filesystem)
        record = _read(filesystem, volume_id)
        if record is None:
            raise NotFoundError(f"volume {volume_id}: not found")
        return filesystem, record

    def ids(self, base: Location) -> Iterator[VolumeId]:
        """The volumes below a base path, in the order of their keys."""
        names = self._filesystems.get(base.filesystem).names(VolumeId.records_of(base))
        return VolumeId.of_records(base, names)

    def problem(self, volume_id: VolumeId, record: VolumeRecord) -> str:
        """Why the content of a volume can't be reached; empty when it can."""
        filesystem = self._filesystems.get(volume_id.base.filesystem)
        try:
            if record.is_view:
                status = filesystem.status(record.path)
                is_there = status is not None and status.kind is FileKind.DIRECTORY
            else:
                is_there = directories.is_made(filesystem, volume_id, record.path)
        except (AlreadyExistsError, NotDirectoryError) as e:
            return str(e)
        return "" if is_there else f"{record.path}: not found; it was removed or renamed in HDFS"

    def free_bytes(self, new: NewVolume) -> int:
        """How large another volume of this kind can be."""
        base = new.volume_id.base
        filesystem = self._filesystems.get(base.filesystem)
        path = base.path
        while filesystem.status(path) is None and path != "/":
            path = path.rpartition("/")[0] or "/"
        per_gib = directories.raw_bytes(filesystem, new.settings, path, 1 << 30)
        return (filesystem.free_bytes(path) << 30) // per_gib

    def source_of(self, volume_id: VolumeId, key: str) -> Source:
        """A volume as the source of another one, which has that key.

        Raises:
            NotFoundError: no such volume. InvalidArgumentError: it shows a snapshot.
        """
        _, record = self._existing(volume_id)
        if record.is_view:
            raise InvalidArgumentError(f"volume {volume_id}: shows a snapshot; make a volume from that")
        return Source(snapshot_id=None, volume_id=str(volume_id), path=record.path, snapshot=f"for-{key}")

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


def _begin(
    filesystem: Filesystem, new: NewVolume, capacity: CapacityRange, source: Source | None, *, is_view: bool
) -> VolumeRecord:
    path = new.path if source is None or not is_view else source.snapshot_path
    if not is_view and filesystem.status(path) is not None:
        raise AlreadyExistsError(
            f"{path}: exists, but was not made by this driver and so is not taken for a new volume; "
            "remove or rename it, or use it as a static volume"
        )
    if not is_view:
        directories.check_above(filesystem, new.volume_id.base.path, path)
    size_bytes = 0
    if source is not None:
        size_bytes = filesystem.content_bytes(source.path if source.snapshot_id is None else source.snapshot_path)
    if not capacity.admits(max(size_bytes, capacity.wanted_bytes)):
        raise OutOfRangeError(f"capacity_range: the source has {size_bytes} bytes, the limit is {capacity.limit_bytes}")
    if capacity.wanted_bytes and capacity.wanted_bytes < size_bytes:
        raise OutOfRangeError(
            f"capacity_range: required are {capacity.wanted_bytes} bytes, the source has {size_bytes}"
        )
    record = VolumeRecord(
        name=new.name,
        path=path,
        capacity_bytes=capacity.wanted_bytes,
        settings=new.settings,
        parameters=dict(new.parameters),
        source=source,
        is_view=is_view,
    )
    make_hidden(filesystem, new.volume_id.base.path)
    filesystem.write_file(new.volume_id.record_path, record.to_json(), new.volume_id.drafts_path)
    return record


def make_hidden(filesystem: Filesystem, base: str) -> None:
    """Make the directories that the driver keeps below a base path, and that where it is missing."""
    filesystem.make_directory(base, directories.PARENT_MODE)
    for name in (HIDDEN, VOLUMES, SNAPSHOTS, MAKING):
        filesystem.make_directory(child(base, name), _RECORDS_MODE)


def _use(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
    """Keep the snapshot that a volume shows from being removed.

    Raises:
        NotFoundError: it has been.
    """
    source = record.source
    assert source is not None
    if source.snapshot_id is None:
        filesystem.create_snapshot(source.path, source.snapshot)
        return
    snapshot_id = SnapshotId.parse(source.snapshot_id)
    assert snapshot_id is not None
    filesystem.make_directory(snapshot_id.users_path, _RECORDS_MODE)
    filesystem.write_file(_user_path(snapshot_id, volume_id), str(volume_id).encode(), snapshot_id.drafts_path)
    if filesystem.status(record.path) is None:
        raise NotFoundError(f"snapshot {source.snapshot_id}: {record.path} is gone")


def _user_path(snapshot_id: SnapshotId, volume_id: VolumeId) -> str:
    """The file that says that a volume shows a snapshot."""
    return f"{snapshot_id.users_path}/{volume.component(str(volume_id), volume.MAX_DIRECTORY_CHARACTERS)}"


def _forget_copied(filesystem: Filesystem, record: VolumeRecord) -> None:
    """Remove the snapshot that a copy was made from.

    Not before the volume has its directory: whoever had to go on with the copy would take another snapshot, of what the
    source holds then, and mix the two.
    """
    if record.source is not None and record.source.snapshot_id is None:
        filesystem.delete_snapshot(record.source.path, record.source.snapshot)


def _leave_source(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
    """Let what a volume was made from go."""
    source = record.source
    if source is None:
        return
    snapshot_id = None if source.snapshot_id is None else SnapshotId.parse(source.snapshot_id)
    if snapshot_id is not None:
        filesystem.remove_file(_user_path(snapshot_id, volume_id), snapshot_id.drafts_path)
    else:
        filesystem.delete_snapshot(source.path, source.snapshot)


def _set_replication(filesystem: Filesystem, path: str, replication: int) -> None:
    paths = [path]
    while paths:
        directory = paths.pop()
        for entry in filesystem.entries(directory):
            below = f"{directory}/{entry.name}"
            if entry.kind is FileKind.DIRECTORY:
                paths.append(below)
            elif entry.replication and entry.replication != replication:
                filesystem.set_replication(below, replication)


def _read(filesystem: Filesystem, volume_id: VolumeId) -> VolumeRecord | None:
    data = filesystem.read_file(volume_id.record_path)
    return None if data is None else VolumeRecord.from_json(data, volume_id.record_path)


def _check_same(
    record: VolumeRecord, new: NewVolume, capacity: CapacityRange, source: Source | None, *, is_view: bool
) -> None:
    if record.name != new.name:
        raise AlreadyExistsError(f"volume {new.volume_id}: belongs to the name {record.name!r}, not {new.name!r}")
    if record.parameters != new.parameters:
        keys = sorted(
            k for k in {*record.parameters, *new.parameters} if record.parameters.get(k) != new.parameters.get(k)
        )
        raise AlreadyExistsError(f"volume {new.name!r}: exists with other parameters; different are {', '.join(keys)}")
    if (record.source, record.is_view) != (source, is_view):
        raise AlreadyExistsError(f"volume {new.name!r}: exists, and was made from something else, or for other uses")
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
    hidden = child(base.path, HIDDEN)
    if not inside or path == hidden or path.startswith(f"{hidden}/"):
        raise RecordError(
            f"volume record {volume_id.record_path}: names {record.path!r}, which is no volume below {base.path!r}; "
            "nothing was deleted"
        )
