"""Volumes that are mounted for one pod, and unmounted with it: inline volumes, and those with a user for each pod.

The CO gives no staging directory, so each target has one of ours, found again by the name of the target alone. In it
stands what stands in any staging directory (staged.py), so mounting, binding and repair are those of Staging.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence

from hdfs_fuse.errors import BusyError, HdfsFuseError

from hdfs_csi.staged import read_record, remove_directory, resolve
from hdfs_csi.staging import Staging
from hdfs_csi.volume import VolumeSpec


class Ephemeral:
    """The volumes of a node that are a pod's own. Calls for one volume must not overlap (VolumeLocks)."""

    def __init__(self, staging: Staging, directory: str) -> None:
        """Keep their staging directories below `directory`, which is made when the first is needed.

        It may be lost with a reboot, as mounts are, but not with a restart of the node service.
        """
        self._staging = staging
        self._directory = directory

    def publish(self, spec: VolumeSpec, target_path: str, *, alone: bool = False, options: Sequence[str] = ()) -> None:
        """Mount the volume for `target_path` and show it there; what a first attempt leaves is removed.

        Raises:
            BusyError: it is to be alone, and is mounted for another target.
            AlreadyExistsError: another volume, or this one with other attributes, is mounted for the target.
            HdfsFuseError: what Staging.stage and Staging.publish raise.
        """
        staging_path = self._staging_path(target_path)
        existed = os.path.isdir(staging_path)
        if alone:
            self._check_alone(spec.volume_id, staging_path)
        os.makedirs(staging_path, mode=0o700, exist_ok=True)
        try:
            self._staging.stage(spec, staging_path)
            self._staging.publish(
                spec.volume_id,
                staging_path,
                target_path,
                read_only=spec.read_only,
                group=spec.group,
                options=options,
                secret=spec.secret,
            )
        except BaseException:
            if not existed:
                with contextlib.suppress(HdfsFuseError):  # what was in the way of mounting says more
                    self.remove(spec.volume_id, target_path)
            raise

    def _check_alone(self, volume_id: str, staging_path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                other = os.path.join(self._directory, name)
                record = read_record(other) if other != staging_path else None
                if record is not None and record.volume_id == volume_id:
                    raise BusyError(f"volume {volume_id!r}: for one pod at a time, and published for another one")

    def remove(self, volume_id: str, target_path: str) -> None:
        """Unmount what was mounted for `target_path`, whatever state it is in; no volume of ours there is success.

        Raises:
            HdfsFuseError: what Staging.unstage raises.
        """
        staging_path = self._staging_path(target_path)
        if os.path.isdir(staging_path):
            record = read_record(staging_path)
            self._staging.unstage(record.volume_id if record is not None else volume_id, staging_path)
            remove_directory(staging_path)

    def _staging_path(self, target_path: str) -> str:
        # A target may have 4096 bytes, and a file name only 255.
        return os.path.join(self._directory, hashlib.sha256(resolve(target_path).encode()).hexdigest()[:32])
