"""A volume's directory in HDFS: made complete under a hidden name, then given its own, so that it is never half-made.

An extended attribute says which volume a directory is. A directory without it is not ours: it is neither taken for a
new volume nor removed.
"""

import logging
import math

from hdfs_fuse.backend.administration import storage_factor
from hdfs_fuse.backend.base import FileKind
from hdfs_fuse.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotDirectoryError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)

from hdfs_csi.filesystems import Filesystem
from hdfs_csi.records import Settings, VolumeRecord
from hdfs_csi.volume import MARK, VolumeId

log = logging.getLogger(__name__)

# What stands above a volume: as an administrator's `hdfs dfs -mkdir` would make it.
PARENT_MODE = 0o755


def raw_bytes(filesystem: Filesystem, settings: Settings, base: str, content_bytes: int) -> int:
    """How much room HDFS needs for so much content: each replica counts, and parity.

    Args:
        filesystem: where.
        settings: of the volume.
        base: the base path, whose policy holds where the volume has none.
        content_bytes: length of files.
    """
    policy = settings.erasure_coding_policy or _policy_of(filesystem, base)
    replication = 1 if policy else settings.replication or filesystem.default_replication()
    return math.ceil(content_bytes * storage_factor(policy, replication))


def _policy_of(filesystem: Filesystem, base: str) -> str:
    try:
        return filesystem.policies(base).erasure_coding
    except NotFoundError:
        return ""


def is_made(filesystem: Filesystem, volume_id: VolumeId, path: str) -> bool:
    """Whether a volume has its directory.

    Raises:
        AlreadyExistsError: something else stands there.
    """
    status = filesystem.status(path)
    if status is None:
        return False
    if status.kind is not FileKind.DIRECTORY:
        raise NotDirectoryError(f"{path}: is a {status.kind.value}, a volume is a directory")
    try:
        mark = filesystem.mark_of(path, MARK)
    except NotFoundError:
        return False
    if mark != str(volume_id):
        raise AlreadyExistsError(
            f"{path}: exists, but was not made for this volume and so is not taken for it; "
            "remove or rename it, or use it as a static volume"
        )
    return True


def check_above(filesystem: Filesystem, base: str, path: str) -> None:
    """Refuse a directory inside of another volume, which would be removed together with that.

    Raises:
        AlreadyExistsError: a directory above is a volume.
    """
    above = path.rpartition("/")[0]
    while len(above) > len(base):
        if filesystem.status(above) is not None and (mark := filesystem.mark_of(above, MARK)):
            raise AlreadyExistsError(f"{path}: would be inside of the volume {mark}")
        above = above.rpartition("/")[0]


def begin(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
    """Make the directory, under its hidden name, whatever of that was done before.

    Raises:
        PermissionDeniedError: only the superuser of HDFS may do what the parameters ask for.
        InvalidArgumentError: HDFS has no such policy.
    """
    making, settings = volume_id.making_path, record.settings
    filesystem.make_directory(making, settings.mode)
    filesystem.mark(making, MARK, str(volume_id))
    try:
        filesystem.set_policies(making, storage=settings.storage_policy, erasure_coding=settings.erasure_coding_policy)
    except InvalidArgumentError as e:
        raise InvalidArgumentError(f"storagePolicy or erasureCodingPolicy: {e}") from e
    apply_size(filesystem, volume_id, record, making)


def apply_size(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord, path: str) -> None:
    """Have HDFS enforce the size that a record says, where it is to.

    Raises:
        PermissionDeniedError: only the superuser of HDFS sets quotas.
    """
    settings, space_bytes = record.settings, None
    if record.capacity_bytes and settings.enforces_size:
        space_bytes = raw_bytes(filesystem, settings, volume_id.base.path, record.capacity_bytes)
    # The directory counts as a name.
    names = None if settings.max_files is None else settings.max_files + 1
    if space_bytes is None and names is None:
        return
    try:
        filesystem.set_quota(path, names=names, space_bytes=space_bytes)
    except PermissionDeniedError as e:
        raise PermissionDeniedError(
            f"{path}: gets no quota: only the superuser of HDFS sets quotas; make the controller's identity one, or "
            f"give the parameter quota: none ({e})"
        ) from e


def finish(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
    """Give the directory to its owner, and its name.

    Raises:
        PermissionDeniedError: it can't be given away.
        AlreadyExistsError: something else has the name.
    """
    making, settings = volume_id.making_path, record.settings
    status = filesystem.status(making)
    if status is None:
        raise UnavailableError(f"{making}: removed while the volume was made")
    owner = settings.owner if settings.owner != status.owner else None
    group = settings.group if settings.group != status.group else None
    if owner is not None or group is not None:
        try:
            filesystem.set_owner(making, owner, group)
        except PermissionDeniedError as e:
            raise PermissionDeniedError(
                f"{record.path}: can't be given to owner={settings.owner} group={settings.group}: only the superuser "
                f"of HDFS gives directories away, and others choose only among their own groups ({e})"
            ) from e
    filesystem.make_directory(record.path.rpartition("/")[0] or "/", PARENT_MODE)
    try:
        filesystem.rename(making, record.path)
    except AlreadyExistsError:
        if not is_made(filesystem, volume_id, record.path):
            raise


def discard(filesystem: Filesystem, volume_id: VolumeId) -> None:
    """Remove what was begun and has not got its name."""
    filesystem.delete(volume_id.making_path, recursive=True)


def remove(filesystem: Filesystem, volume_id: VolumeId, record: VolumeRecord) -> None:
    """Do with the directory what the record says. What is not there counts as removed, and what is not ours stays.

    Raises:
        PermissionDeniedError: the controller's identity may not remove what is in it.
    """
    discard(filesystem, volume_id)
    try:
        is_ours = is_made(filesystem, volume_id, record.path)
    except (AlreadyExistsError, NotDirectoryError) as e:
        log.warning("directory is left alone volume_id=%s reason=%s", volume_id, e)
        return
    if not is_ours or record.settings.on_delete == "retain":
        return
    if record.settings.on_delete == "trash":
        filesystem.move_to_trash(record.path)
    else:
        filesystem.delete(record.path, recursive=True)
