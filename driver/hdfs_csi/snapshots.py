"""What the controller does on HDFS with snapshots: an HDFS snapshot of the volume's directory, and a record of it."""

import logging
import time
from collections.abc import Iterator

import msgspec
from hdfs_fuse.config import Location
from hdfs_fuse.errors import AlreadyExistsError, DirectoryNotEmptyError, InvalidArgumentError, NotFoundError

from hdfs_csi import provisioner, volume
from hdfs_csi.filesystems import Filesystem, Filesystems
from hdfs_csi.records import SnapshotRecord, Source, VolumeRecord
from hdfs_csi.secret import Secret
from hdfs_csi.volume import SnapshotId, VolumeId

log = logging.getLogger(__name__)


class Snapshots:
    """Makes, finds and removes snapshots. Calls for one snapshot, or its volume, must not overlap (VolumeLocks)."""

    def __init__(self, filesystems: Filesystems) -> None:
        """Work on `filesystems`."""
        self._filesystems = filesystems

    def with_secret(self, secret: Secret) -> "Snapshots":
        """The same, but reaching HDFS as the secret of a call says.

        Raises:
            InvalidArgumentError: what Filesystems.with_secret raises.
        """
        return Snapshots(self._filesystems.with_secret(secret))

    @staticmethod
    def id_of(name: str, volume_id: VolumeId) -> SnapshotId:
        """The id that a snapshot of a volume gets.

        Raises:
            InvalidArgumentError: CSI does not allow the name, or the id would be too long.
        """
        volume.check_name(name)
        found = SnapshotId(volume_id.base, volume.component(name, volume.MAX_KEY_CHARACTERS))
        volume.check_id(str(found))
        return found

    def create(self, name: str, volume_id: VolumeId, record: VolumeRecord) -> SnapshotRecord:
        """Make a snapshot, or finish one that an earlier call began.

        Args:
            name: that the CO chose.
            volume_id: the volume.
            record: of the volume.

        Raises:
            AlreadyExistsError: the name belongs to a snapshot of another volume.
            InvalidArgumentError: the volume shows a snapshot itself.
            PermissionDeniedError: only the superuser of HDFS lets a directory have snapshots.
        """
        if record.is_view:
            raise InvalidArgumentError(f"volume {volume_id}: shows a snapshot already")
        snapshot_id = self.id_of(name, volume_id)
        filesystem = self._filesystems.get(volume_id.base.filesystem)
        found = _read(filesystem, snapshot_id)
        if found is None:
            found = SnapshotRecord(name=name, volume_id=str(volume_id), path=record.path, snapshot=snapshot_id.key)
            provisioner.make_hidden(filesystem, snapshot_id.base.path)
            filesystem.write_file(snapshot_id.record_path, found.to_json(), snapshot_id.drafts_path)
        elif (found.volume_id, found.name) != (str(volume_id), name):
            raise AlreadyExistsError(f"snapshot {name!r}: exists, of the volume {found.volume_id}")
        if not found.created_ms:
            found = self._finish(filesystem, snapshot_id, found)
        return found

    def _finish(self, filesystem: Filesystem, snapshot_id: SnapshotId, record: SnapshotRecord) -> SnapshotRecord:
        try:
            filesystem.create_snapshot(record.path, record.snapshot)
        except NotFoundError:
            filesystem.remove_file(snapshot_id.record_path, snapshot_id.drafts_path)
            raise
        size_bytes = filesystem.content_bytes(f"{record.path}/.snapshot/{record.snapshot}")
        made = msgspec.structs.replace(record, created_ms=time.time_ns() // 1_000_000, size_bytes=size_bytes)
        filesystem.write_file(snapshot_id.record_path, made.to_json(), snapshot_id.drafts_path)
        log.info("snapshot created snapshot_id=%s path=%s", snapshot_id, record.path)
        return made

    def delete(self, snapshot_id: SnapshotId) -> None:
        """Remove a snapshot; one that is not there counts as removed.

        Raises:
            DirectoryNotEmptyError: volumes show it.
        """
        filesystem = self._filesystems.get(snapshot_id.base.filesystem)
        record = _read(filesystem, snapshot_id)
        if record is None:
            filesystem.remove_file(snapshot_id.record_path, snapshot_id.drafts_path)  # cut short before it was complete
            return
        if users := filesystem.names(snapshot_id.users_path):
            first = filesystem.read_file(f"{snapshot_id.users_path}/{users[0]}") or b""
            raise DirectoryNotEmptyError(
                f"snapshot {snapshot_id}: {len(users)} volumes show it, {first.decode(errors='replace')} among them; "
                "delete them first"
            )
        filesystem.delete_snapshot(record.path, record.snapshot)
        filesystem.delete(snapshot_id.users_path, recursive=True)
        filesystem.remove_file(snapshot_id.record_path, snapshot_id.drafts_path)
        log.info("snapshot deleted snapshot_id=%s path=%s", snapshot_id, record.path)

    def find(self, snapshot_id: SnapshotId) -> SnapshotRecord | None:
        """What HDFS remembers of a snapshot; None when it is not there, or not complete."""
        record = _read(self._filesystems.get(snapshot_id.base.filesystem), snapshot_id)
        return record if record is not None and record.created_ms else None

    def ids(self, base: Location) -> Iterator[SnapshotId]:
        """The snapshots below a base path, in the order of their keys."""
        names = self._filesystems.get(base.filesystem).names(SnapshotId.records_of(base))
        return SnapshotId.of_records(base, names)

    def source_of(self, snapshot_id: SnapshotId) -> Source:
        """A snapshot as the source of a volume.

        Raises:
            NotFoundError: no such snapshot.
        """
        record = self.find(snapshot_id)
        if record is None:
            raise NotFoundError(f"snapshot {snapshot_id}: not found")
        return Source(
            snapshot_id=str(snapshot_id), volume_id=record.volume_id, path=record.path, snapshot=record.snapshot
        )


def _read(filesystem: Filesystem, snapshot_id: SnapshotId) -> SnapshotRecord | None:
    data = filesystem.read_file(snapshot_id.record_path)
    return None if data is None else SnapshotRecord.from_json(data, snapshot_id.record_path)
