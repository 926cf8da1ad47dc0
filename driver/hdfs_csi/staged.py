"""What stands in a volume's staging directory: `mount`, the mountpoint, and `volume.json`, which says what is there.

Owns these names and the record, and finds volumes by them; mounts nothing. Neither the kubelet nor this process stats
the mountpoint: it would hang with a hung mount.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
from hdfs_fuse.errors import DirectoryNotEmptyError, MountError, NotFoundError
from hdfs_fuse.mounter.mounts import FSTYPE

from hdfs_csi.errors import NotReadyError
from hdfs_csi.secret import NO_SECRET, Secret
from hdfs_csi.volume import VolumeSpec, volume_spec

log = logging.getLogger(__name__)

_MOUNT = "mount"
_RECORD = "volume.json"


class MountEntry(Protocol):
    """What is needed of hdfs_fuse.mounter.mounts.MountEntry."""

    @property
    def device(self) -> str:
        """`major:minor`."""
        ...

    @property
    def root(self) -> str:
        """What of the filesystem is mounted; a subPath of a pod is not `/`."""
        ...

    @property
    def mountpoint(self) -> str:
        """Where."""
        ...

    @property
    def fstype(self) -> str:
        """Filesystem type."""
        ...

    @property
    def source(self) -> str:
        """URI of the volume."""
        ...

    @property
    def options(self) -> frozenset[str]:
        """Options of this mount."""
        ...


class MountTable(Protocol):
    """What is needed of the module hdfs_fuse.mounter.mounts to find volumes; no mount is touched."""

    def find(self, path: str) -> MountEntry | None:
        """The topmost mount at exactly `path`."""
        ...

    def entries(self) -> Sequence[MountEntry]:
        """All mounts, in the order in which they were made."""
        ...


class StagedVolume(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Content of volume.json. Holds nothing of a secret but that there was one.

    Attributes:
        volume_id: what is mounted here.
        attributes: of its PersistentVolume, or of a pod's inline volume.
        read_only: whether the mount refuses changes, for whomever it is published.
        group: that all files show, as a pod's fsGroup asks; None for what the attributes say.
        has_secret: whether the volume can't be mounted by the attributes alone.
    """

    volume_id: str
    attributes: dict[str, str]
    read_only: bool
    group: int | None = None
    has_secret: bool = False

    @staticmethod
    def of(spec: VolumeSpec) -> "StagedVolume":
        """The record of `spec`."""
        return StagedVolume(
            volume_id=spec.volume_id,
            attributes=dict(spec.attributes),
            read_only=spec.read_only,
            group=spec.group,
            has_secret=bool(spec.secret),
        )

    def spec(self, secret: Secret = NO_SECRET) -> VolumeSpec:
        """What to mount for it.

        Raises:
            InvalidArgumentError: another release of the driver has written it, and this one takes no such attributes;
                or they do not go with the secret.
        """
        spec = volume_spec(self.volume_id, self.attributes, read_only=self.read_only, group=self.group, secret=secret)
        return replace(spec, lacks_secret=self.has_secret and not secret)

    def conflict(self, wanted: "StagedVolume") -> str:
        """What `wanted` has of this volume that is not so; empty where this one serves.

        Without a group any will do, and so will any secret: one that was changed must not fail a call that is repeated.
        """
        if self.attributes != wanted.attributes:
            return "attributes"
        if self.read_only != wanted.read_only:
            return "read-only flag"
        return "" if wanted.group in (None, self.group) else f"group ({_shown(self.group)}, not {wanted.group})"

    def check_group(self, group: int | None) -> None:
        """Refuse a pod whose fsGroup this mount does not show.

        Raises:
            NotReadyError: it shows another one ("Exceeds capabilities": wait until the volume is unpublished).
        """
        if group not in (None, self.group):
            raise NotReadyError(
                f"volume {self.volume_id!r}: mounted on this node with group {_shown(self.group)}, so it can't show "
                f"{group}; give all its pods the same fsGroup, or wait until those on this node have ended"
            )


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A volume that is mounted on this node.

    Attributes:
        record: what was staged.
        entry: its mount in the staging directory; bind mounts of it in pods have the same device.
    """

    record: StagedVolume
    entry: MountEntry


def resolve(path: str) -> str:
    """The name that mountinfo has for `path`: symlinks among the parents are followed, the last component never is.

    Args:
        path: absolute, without `..`, not the root (node.py checks it).
    """
    parent, name = os.path.split(path.rstrip("/"))
    return os.path.join(os.path.realpath(parent), name)


def mountpoint_of(staging_path: str) -> str:
    """Where the volume of a staging directory is mounted."""
    return os.path.join(resolve(staging_path), _MOUNT)


def read_record(staging_path: str) -> StagedVolume | None:
    """What is staged there; None for nothing, or nothing that can be understood."""
    path = os.path.join(resolve(staging_path), _RECORD)
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=StagedVolume)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, NotADirectoryError) as e:
        # Written by rename, so a crash can't leave half of it. Staging again and unstaging both mend it.
        log.warning("staging record unreadable path=%s error=%s", path, e)
        return None


def write_record(staging_path: str, record: StagedVolume) -> None:
    """Remember what is staged there; all of it or nothing."""
    path = os.path.join(resolve(staging_path), _RECORD)
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)


def clear(mounts: MountTable, staging_path: str) -> None:
    """Remove mountpoint and record, so that the CO can remove its directory; never below a mount."""
    mountpoint = mountpoint_of(staging_path)
    if mounts.find(mountpoint) is None:
        remove_directory(mountpoint)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(resolve(staging_path), _RECORD))


def find_volumes(mounts: MountTable) -> Iterator[MountedVolume]:
    """Every mount of every volume: one where it is staged, and one for each pod that has it inline."""
    for entry in mounts.entries():
        staging_path, name = os.path.split(entry.mountpoint)
        if entry.fstype == FSTYPE and name == _MOUNT and (record := read_record(staging_path)) is not None:
            yield MountedVolume(record, entry)


def find_volume(mounts: MountTable, volume_id: str) -> Iterator[MountedVolume]:
    """Every mount of a volume."""
    return (volume for volume in find_volumes(mounts) if volume.record.volume_id == volume_id)


def find_at(mounts: MountTable, volume_id: str, path: str) -> tuple[MountedVolume, str]:
    """The volume that shows at a path, and where exactly: two drivers of a node may have volumes of one id.

    Args:
        mounts: what is mounted.
        volume_id: of the volume.
        path: its staging directory, or where it was published; a relative one is none of these.

    Raises:
        NotFoundError: it does not show there.
    """
    volumes = {volume.entry.device: volume for volume in find_volume(mounts, volume_id)}
    if path.startswith("/") and path.strip("/"):
        # By names alone: to look below a path touches what is mounted at it.
        device_at = {entry.mountpoint: entry.device for entry in mounts.entries()}
        published = resolve(path)
        for mountpoint in (published, os.path.join(published, _MOUNT)):
            volume = volumes.get(device_at.get(mountpoint, ""))
            if volume is not None:
                return volume, mountpoint
    raise NotFoundError(f"volume {volume_id!r}: not mounted at {path!r}")


def make_directory(path: str) -> None:
    """Make a mountpoint; one that is there stays.

    Raises:
        NotReadyError: its parent is missing.
    """
    try:
        os.mkdir(path, 0o750)
    except FileExistsError:
        return
    except FileNotFoundError as e:
        raise NotReadyError(f"{path}: its parent directory is not there; the CO makes it") from e


def remove_directory(path: str) -> None:
    """Remove a mountpoint; one that is gone is success.

    Raises:
        DirectoryNotEmptyError: files stand in it, which are never removed.
        MountError: refused.
    """
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as e:
        if os.listdir(path):
            raise DirectoryNotEmptyError(f"{path}: files stand in the unmounted directory; move them away") from e
        raise MountError(f"{path}: can't be removed: {e.strerror}") from e


def _shown(group: int | None) -> str:
    return "none" if group is None else str(group)
