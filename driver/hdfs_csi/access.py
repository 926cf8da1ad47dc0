"""What a CO may ask of a volume: access types, access modes and capacity ranges.

A volume is writable where its access mode has a writer, unless the mount flags say `ro`. How many nodes use it is the
CO's business: to HDFS all nodes are clients, and of those that would write a file it admits one at a time.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hdfs_fuse.errors import InvalidArgumentError

from hdfs_csi.errors import OutOfRangeError
from hdfs_csi.pb import csi_pb2 as csi

_Mode = csi.VolumeCapability.AccessMode

ACCESS_MODES = frozenset(
    {
        # What COs that don't know the next two make of them: so both, and any number of publications on a node.
        _Mode.SINGLE_NODE_WRITER,
        _Mode.SINGLE_NODE_SINGLE_WRITER,
        _Mode.SINGLE_NODE_MULTI_WRITER,
        _Mode.SINGLE_NODE_READER_ONLY,
        _Mode.MULTI_NODE_READER_ONLY,
        _Mode.MULTI_NODE_SINGLE_WRITER,
        _Mode.MULTI_NODE_MULTI_WRITER,
    }
)

# Of mount(8)'s options those that a bind mount takes. `ro` has a flag of its own in CSI, but users write it here too.
MOUNT_FLAGS = frozenset({"ro", "noexec", "nosuid", "nodev", "noatime", "nodiratime", "relatime"})

_READER_MODES = frozenset({_Mode.SINGLE_NODE_READER_ONLY, _Mode.MULTI_NODE_READER_ONLY})

# Of the clients (MountConfig.backend) those that can't write to HDFS.
_READING_BACKENDS = frozenset({"pyarrow"})

# The kernel keeps the last one for "unchanged" (chown(2)).
_MAX_ID = 2**32 - 2

FS_TYPES = frozenset({"", "hdfs", "fuse.hdfs"})


@dataclass(frozen=True, slots=True)
class CapacityRange:
    """How big a volume must be.

    Attributes:
        required_bytes: at least this much; 0 for no wish.
        limit_bytes: at most this much; 0 for no bound.
    """

    required_bytes: int = 0
    limit_bytes: int = 0

    @property
    def wanted_bytes(self) -> int:
        """The capacity that a new volume gets; 0 when the CO does not care."""
        return self.required_bytes or self.limit_bytes

    def admits(self, capacity_bytes: int) -> bool:
        """Whether an existing volume of `capacity_bytes` satisfies the range."""
        return self.required_bytes <= capacity_bytes and (not self.limit_bytes or capacity_bytes <= self.limit_bytes)


def is_read_only(capability: csi.VolumeCapability) -> bool:
    """Whether nobody may write to a volume that is used as `capability` says."""
    return "ro" in capability.mount.mount_flags or capability.access_mode.mode in _READER_MODES


def is_alone(capability: csi.VolumeCapability) -> bool:
    """Whether a volume that is used as `capability` says may be published once only on a node."""
    return capability.access_mode.mode == _Mode.SINGLE_NODE_SINGLE_WRITER


def mount_group(capability: csi.VolumeCapability) -> int | None:
    """The group that files are to show (a pod's fsGroup), of a capability that is supported; None for none."""
    given = capability.mount.volume_mount_group
    return int(given) if given else None


def bind_options(capability: csi.VolumeCapability) -> list[str]:
    """The mount flags that one pod's mount gets by name; `ro` has an argument of its own."""
    return [flag for flag in capability.mount.mount_flags if flag != "ro"]


def check_capabilities(capabilities: Iterable[csi.VolumeCapability], backend: str) -> None:
    """Refuse a list of capabilities of which one is not supported by a volume with that client.

    Raises:
        InvalidArgumentError: the list is empty, or `unsupported` has something against an entry.
    """
    listed = list(capabilities)
    if not listed:
        raise InvalidArgumentError("volume_capabilities: missing")
    for capability in listed:
        check_capability(capability, backend)


def check_capability(capability: csi.VolumeCapability, backend: str = "") -> None:
    """Refuse one capability that is not supported by a volume with that client, or with any; see `unsupported`.

    Raises:
        InvalidArgumentError: `unsupported` says why.
    """
    reason = unsupported(capability, backend)
    if reason:
        raise InvalidArgumentError(reason)


def unsupported(capability: csi.VolumeCapability, backend: str = "") -> str:
    """Why a volume can't be used as `capability` says; empty when it can.

    Args:
        capability: what the CO asks for.
        backend: the client that the volume's nodes use (MountConfig.backend); empty where that does not matter.
    """
    access_type = capability.WhichOneof("access_type")
    mount, mode = capability.mount, capability.access_mode.mode
    unknown_flags = sorted(set(mount.mount_flags) - MOUNT_FLAGS)
    reason = ""
    if access_type == "block":
        reason = "access type: block volumes are not supported, HDFS volumes are directories; accepted is mount"
    elif access_type is None:
        reason = "volume_capability: access type missing; accepted is mount"
    elif mode not in ACCESS_MODES:
        accepted = ", ".join(sorted(_Mode.Mode.Name(m) for m in ACCESS_MODES))
        reason = f"access mode: given {_mode_name(mode)}, accepted are {accepted}"
    elif mount.fs_type not in FS_TYPES:
        reason = f"fs_type: given {mount.fs_type!r}, accepted is none, hdfs or fuse.hdfs"
    elif mount.volume_mount_group and not _is_id(mount.volume_mount_group):
        reason = f"volume_mount_group: given {mount.volume_mount_group!r}, accepted is a number from 0 to {_MAX_ID}"
    elif unknown_flags:
        reason = f"mount flags: given {', '.join(unknown_flags)}, accepted are {', '.join(sorted(MOUNT_FLAGS))}"
    elif backend in _READING_BACKENDS and not is_read_only(capability):
        readers = ", ".join(sorted(_Mode.Mode.Name(m) for m in _READER_MODES))
        reason = (
            f"access mode: given {_mode_name(mode)}, but backend {backend} only reads; "
            f"accepted with it are {readers}, or the mount flag ro"
        )
    return reason


def capacity_range(message: csi.CapacityRange) -> CapacityRange:
    """Read a capacity range.

    Raises:
        InvalidArgumentError: a negative number.
        OutOfRangeError: the limit is below what is required.
    """
    required, limit = message.required_bytes, message.limit_bytes
    if required < 0 or limit < 0:
        raise InvalidArgumentError(f"capacity_range: given {required} to {limit}, accepted are bytes, 0 or more")
    if limit and required > limit:
        raise OutOfRangeError(f"capacity_range: required are {required} bytes, more than the limit of {limit}")
    return CapacityRange(required, limit)


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,10}", text) is not None and int(text) <= _MAX_ID


def _mode_name(mode: int) -> str:
    return _Mode.Mode.Name(mode) if mode in _Mode.Mode.values() else str(mode)
