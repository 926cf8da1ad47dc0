"""What HDFS remembers of the volumes that CreateVolume made: one small JSON file for each.

The controller keeps nothing itself. Records stand in `<base path>/.hdfs-csi/volumes`, not inside of the volume, where
a pod could write into its own record which directory is to be deleted; and not in the volume id, which is too short
for a path and can't be changed when a volume is expanded.
"""

from typing import Literal

import msgspec

from hdfs_csi.errors import RecordError

VERSION = 1


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One volume. Fields that a later release adds are ignored, as long as the version stays.

    Attributes:
        name: the name that the CO chose.
        path: the volume's directory.
        capacity_bytes: the size that the CO asked for; 0 when it did not say. Not enforced by anything yet.
        mode, owner, group: of the directory when it was made; None where HDFS decided.
        on_delete: what DeleteVolume does with the directory.
        parameters: those of the StorageClass, without what Kubernetes added.
        version: of this format.
    """

    name: str
    path: str
    capacity_bytes: int
    mode: int
    owner: str | None
    group: str | None
    on_delete: Literal["delete", "retain"]
    parameters: dict[str, str]
    version: int = VERSION

    def to_json(self) -> bytes:
        """The content of the record's file, indented: administrators read it."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    @staticmethod
    def from_json(data: bytes, where: str) -> "VolumeRecord":
        """Read what `to_json` wrote.

        Args:
            data: content of the file.
            where: its path, for messages.

        Raises:
            RecordError: malformed, or of a later version.
        """
        try:
            record = msgspec.json.decode(data, type=VolumeRecord)
        except (msgspec.MsgspecError, UnicodeDecodeError) as e:
            raise RecordError(f"volume record {where}: {e}") from e
        if record.version != VERSION:
            raise RecordError(f"volume record {where}: version {record.version}, accepted is {VERSION}")
        return record
