"""What HDFS remembers of the volumes and snapshots that the driver made: one small JSON file for each.

The controller keeps nothing itself. Records stand in `<base path>/.hdfs-csi`, not inside of the volume, where a pod
could write into its own record which directory is to be deleted; and not in the volume id, which is too short for a
path and can't be changed when a volume is expanded.
"""

from typing import Literal, Self

import msgspec

from hdfs_csi.errors import RecordError

VERSION = 1


class _Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file of JSON. Fields that a later release adds are ignored, as long as the version stays.

    Attributes:
        version: of this format.
    """

    version: int = VERSION

    def to_json(self) -> bytes:
        """The content of the record's file, indented: administrators read it."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Self:
        """Read what `to_json` wrote; `where` is the file's path, for messages.

        Raises:
            RecordError: malformed, or of a later version.
        """
        try:
            record = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise RecordError(f"record {where}: {e}") from e
        if record.version != VERSION:
            raise RecordError(f"record {where}: version {record.version}, accepted is {VERSION}")
        return record


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a volume's directory is to be.

    Attributes:
        mode, owner, group: of the directory when it is made; None where HDFS decides.
        on_delete: what DeleteVolume does with the directory.
        enforces_size: whether the volume's size is a space quota.
        max_files: the name quota: files and directories; None for no bound.
        replication: of files that nodes write; None where Hadoop's configuration decides.
        erasure_coding_policy, storage_policy: of the directory; None where HDFS decides.
    """

    mode: int
    owner: str | None
    group: str | None
    on_delete: Literal["delete", "trash", "retain"]
    enforces_size: bool
    max_files: int | None
    replication: int | None
    erasure_coding_policy: str | None
    storage_policy: str | None


class Source(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a volume was made from.

    Attributes:
        snapshot_id: the snapshot; None where it was a volume.
        volume_id: the volume, or that of the snapshot.
        path: the directory of the volume.
        snapshot: name of the snapshot in HDFS that the content comes from.
    """

    snapshot_id: str | None
    volume_id: str
    path: str
    snapshot: str

    @property
    def id(self) -> str:
        """Of the snapshot or volume, as the CO knows it."""
        return self.snapshot_id or self.volume_id

    @property
    def snapshot_path(self) -> str:
        """The directory that has the content."""
        return f"{self.path}/.snapshot/{self.snapshot}"


class VolumeRecord(_Record, frozen=True, kw_only=True, rename="camel"):
    """One volume.

    Attributes:
        name: the name that the CO chose.
        path: the volume's directory.
        capacity_bytes: its size; 0 when the CO asked for none.
        settings: of the directory.
        parameters: those of the StorageClass, without what Kubernetes added.
        source: what it was made from; None for an empty one.
        is_view: whether it shows its source's snapshot, and has no directory of its own.
    """

    name: str
    path: str
    capacity_bytes: int
    settings: Settings
    parameters: dict[str, str]
    source: Source | None = None
    is_view: bool = False


class SnapshotRecord(_Record, frozen=True, kw_only=True, rename="camel"):
    """One snapshot.

    Attributes:
        name: the name that the CO chose.
        volume_id: the volume that it is of.
        path: the directory of that.
        snapshot: its name in HDFS.
        created_ms: when it was made, in milliseconds since the epoch; 0 while that is not sure.
        size_bytes: of all files.
    """

    name: str
    volume_id: str
    path: str
    snapshot: str
    created_ms: int = 0
    size_bytes: int = 0
