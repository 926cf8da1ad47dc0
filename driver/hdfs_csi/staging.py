"""Volumes on a node: mounted once in their staging directory, bound from there to each pod, repaired when dead.

The mountpoint stands below the staging directory that the CO makes (staged.py) and is not that directory itself,
because the kubelet stats that one before it calls the driver: it would hang with a hung mount, and for a dead one it
may never make the call that repairs it. Nothing here stats a mountpoint: what is mounted is read from mountinfo, and
whether it lives from a bounded probe.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import AlreadyExistsError, BusyError, MountError, ReadOnlyError
from hdfs_fuse.mounter.mounts import FSTYPE

from hdfs_csi import staged
from hdfs_csi.errors import NotReadyError
from hdfs_csi.secret import NO_SECRET, Secret
from hdfs_csi.staged import (
    MountedVolume,
    MountEntry,
    MountTable,
    StagedVolume,
    mountpoint_of,
    read_record,
    resolve,
)
from hdfs_csi.volume import VolumeSpec

log = logging.getLogger(__name__)

# The kubelet gives an RPC two minutes (csiTimeout); a mount that takes longer than this is stuck.
MOUNT_DEADLINE_S = 30.0
UNMOUNT_DEADLINE_S = 10.0
# What pods wrote last is completed in HDFS meanwhile, and what HDFS did not take is tried once more. Less than the
# kubelet's two minutes, so that it hears why; it asks again then.
UNSTAGE_DEADLINE_S = 90.0
PROBE_DEADLINE_S = 5.0


class Mounts(MountTable, Protocol):
    """What is needed of the module hdfs_fuse.mounter.mounts."""

    def bind(self, source: str, target: str, *, read_only: bool, options: Sequence[str] = ()) -> None:
        """Show `source` at `target` too."""
        ...

    def unmount(self, path: str, *, deadline_s: float = ..., force: bool = ...) -> None:
        """Remove what is mounted at `path`, dead or alive; with `force` also when files are open."""
        ...

    def is_alive(self, path: str, *, deadline_s: float = ...) -> bool:
        """Whether what is mounted at `path` answers."""
        ...


class Mounter(Protocol):
    """What is needed of hdfs_fuse.mounter.supervisor.Supervisor."""

    def mount(self, config: MountConfig, mountpoint: str, *, deadline_s: float = ...) -> None:
        """Mount and serve; leaves nothing behind when it fails."""
        ...

    def unmount(self, mountpoint: str, *, deadline_s: float = ..., force: bool = ...) -> None:
        """Unmount, and wait until all is stored and who served it has ended; with `force` also when files are open."""
        ...


class Staging:
    """The volumes of a node. Calls for one volume must not overlap (VolumeLocks)."""

    def __init__(self, mounter: Mounter, mounts: Mounts, complete: Callable[[VolumeSpec], MountConfig]) -> None:
        """Mount with `mounter`.

        Args:
            mounter: starts and ends filesystems.
            mounts: the system calls on mounts.
            complete: the mount of a volume, with what the node decides: Hadoop's configuration, cache, staging area.
        """
        self._mounter = mounter
        self._mounts = mounts
        self._complete = complete
        # By mountpoint; lost with this process, and never written anywhere.
        self._secrets: dict[str, Secret] = {}

    def config_of(self, volume: MountedVolume) -> MountConfig:
        """The mount of a volume, with the secret that it was mounted with, if that is still known."""
        return self._complete(volume.record.spec(self._secrets.get(volume.entry.mountpoint, NO_SECRET)))

    def stage(self, spec: VolumeSpec, staging_path: str) -> None:
        """Have the volume mounted below `staging_path`; a dead mount is replaced, a live one kept.

        One that is mounted for each pod is only remembered.

        Raises:
            NotReadyError: the directory is not there; or the volume has to be mounted, and its secret is not known.
            AlreadyExistsError: another volume, or the same with other attributes, another read-only flag or another
                group, is there.
            HdfsFuseError: what the mounter raises; then nothing is left behind of a volume that was not staged before.
        """
        mountpoint = mountpoint_of(staging_path)
        if not os.path.isdir(os.path.dirname(mountpoint)):
            raise NotReadyError(f"staging_target_path {staging_path!r}: no directory; the CO makes it")
        if spec.is_per_pod:
            self._stage_for_pods(spec, staging_path)
            return
        wanted, record = StagedVolume.of(spec), read_record(staging_path)
        if self._is_staged(wanted, record, mountpoint):
            self._remember(mountpoint, spec.secret)
            return
        if spec.lacks_secret:
            raise NotReadyError(
                f"volume {spec.volume_id!r}: has to be mounted, and the secret that it was staged with is not known "
                "since the node service was started anew; give csi.storage.k8s.io/node-publish-secret-name too "
                "(nodePublishSecretRef of a PersistentVolume), or end all pods of the volume on this node"
            )
        if self._mounts.find(mountpoint) is not None:
            log.warning("dead mount replaced volume_id=%s path=%s", spec.volume_id, mountpoint)
            self._unmount(mountpoint, self._mounter.unmount)
        staged.write_record(staging_path, wanted)
        try:
            staged.make_directory(mountpoint)
            self._mounter.mount(self._complete(spec), mountpoint, deadline_s=MOUNT_DEADLINE_S)
        except BaseException:
            if record is None:  # else it stays staged, and the next stage or publish repairs it
                staged.clear(self._mounts, staging_path)
            raise
        self._remember(mountpoint, spec.secret)
        log.info(
            "volume mounted volume_id=%s uri=%s path=%s read_only=%s group=%s",
            spec.volume_id, spec.config.uri, mountpoint, spec.read_only, spec.group,
        )  # fmt: skip

    def _is_staged(self, wanted: StagedVolume, record: StagedVolume | None, mountpoint: str) -> bool:
        """Whether the volume is mounted, and lives.

        Raises:
            AlreadyExistsError: another one, or the same otherwise, is.
        """
        if self._mounts.find(mountpoint) is None:
            return False
        staging_path = os.path.dirname(mountpoint)
        if record is not None and record.volume_id != wanted.volume_id:
            raise AlreadyExistsError(f"{staging_path}: volume {record.volume_id!r} is staged there")
        if not self._is_alive(mountpoint):
            return False
        if conflict := "attributes" if record is None else record.conflict(wanted):
            raise AlreadyExistsError(f"{staging_path}: volume {wanted.volume_id!r} is staged with other {conflict}")
        return True

    def _stage_for_pods(self, spec: VolumeSpec, staging_path: str) -> None:
        # Each pod's own group is shown to it.
        wanted, record = StagedVolume.of(replace(spec, group=None)), read_record(staging_path)
        if record is not None and (record.volume_id != spec.volume_id or record.conflict(wanted)):
            raise AlreadyExistsError(f"{staging_path}: volume {record.volume_id!r} is staged there, or otherwise")
        staged.write_record(staging_path, wanted)
        self._remember(mountpoint_of(staging_path), spec.secret)

    def _remember(self, mountpoint: str, secret: Secret) -> None:
        if secret:
            self._secrets[mountpoint] = secret

    def unstage(self, volume_id: str, staging_path: str) -> None:
        """Have the volume unmounted, whatever state it is in, and all that was written to it stored.

        One that is not staged there counts as unmounted.

        Raises:
            DeadlineError: files are still being stored; the next call goes on waiting.
            MountError: something that is not ours is mounted there, or the kernel does not let go.
        """
        mountpoint, record = mountpoint_of(staging_path), read_record(staging_path)
        if record is not None and record.volume_id != volume_id:
            log.info("volume is not staged there volume_id=%s staged=%s", volume_id, record.volume_id)
            return
        self._check_ours(mountpoint)
        # Also where nothing is mounted: an earlier call may not have waited to the end.
        self._mounter.unmount(mountpoint, deadline_s=UNSTAGE_DEADLINE_S, force=True)
        self._secrets.pop(mountpoint, None)
        staged.clear(self._mounts, staging_path)

    def staged_spec(
        self, volume_id: str, staging_path: str, *, read_only: bool, secret: Secret = NO_SECRET
    ) -> VolumeSpec:
        """What is staged there.

        Args:
            volume_id: of the volume.
            staging_path: where it was staged.
            read_only: whether it is to be used for reading alone.
            secret: what comes in place of the one that it was staged with.

        Raises:
            NotReadyError: the volume is not staged there.
            ReadOnlyError: it is to be writable, and was staged read-only.
        """
        record = read_record(staging_path)
        if record is None or record.volume_id != volume_id:
            raise NotReadyError(f"volume {volume_id!r}: not staged at {staging_path!r}")
        if record.read_only and not read_only:
            raise ReadOnlyError(
                f"volume {volume_id!r}: staged read-only at {staging_path!r}, so it can't be writable here"
            )
        return record.spec(secret or self._secrets.get(mountpoint_of(staging_path), NO_SECRET))

    def publish(
        self,
        volume_id: str,
        staging_path: str,
        target_path: str,
        *,
        read_only: bool,
        group: int | None = None,
        alone: bool = False,
        options: Sequence[str] = (),
        secret: Secret = NO_SECRET,
    ) -> None:
        """Bind the staged volume to `target_path`; if its mount died since it was staged, it is mounted again first.

        Args:
            volume_id: of the volume.
            staging_path: where it was staged.
            target_path: made if it is not there; its parent must be.
            read_only: whether writes are refused at this target.
            group: that its files are to show; None for any.
            alone: whether it may be published nowhere else on this node.
            options: mount flags of this target (access.MOUNT_FLAGS without `ro`).
            secret: to mount it again with; without one, that which it was mounted with.

        Raises:
            NotReadyError: the volume is not staged there, or with another group, or the target's parent is missing; or
                it is to be mounted again, and its secret is not known any more.
            BusyError: it is to be alone, and published elsewhere.
            ReadOnlyError: it is to be writable, and was staged read-only.
            AlreadyExistsError: something else, or the same with another read-only flag, is mounted at the target.
            HdfsFuseError: what the mounter raises.
        """
        spec = self.staged_spec(volume_id, staging_path, read_only=read_only, secret=secret)
        StagedVolume.of(spec).check_group(group)
        source, target = mountpoint_of(staging_path), resolve(target_path)
        self.stage(spec, staging_path)
        staged_mount = self._mounts.find(source)
        if staged_mount is None:
            raise MountError(f"{source}: unmounted while the volume was published")
        if self._is_published(staged_mount, target, read_only=read_only):
            return
        if alone:
            self._check_alone(staged_mount, volume_id)
        staged.make_directory(target)
        try:
            self._mounts.bind(source, target, read_only=read_only, options=options)
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(target)
            raise
        log.info("volume published volume_id=%s path=%s read_only=%s", volume_id, target, read_only)

    def _is_published(self, staged_mount: MountEntry, target: str, *, read_only: bool) -> bool:
        """Whether the volume shows at `target` already; a dead mount of ours there is removed.

        Raises:
            AlreadyExistsError: what is mounted there does not go with the request.
        """
        published = self._mounts.find(target)
        if published is None:
            return False
        alive = published.device == staged_mount.device or self._is_alive(target)
        if alive and published.source == staged_mount.source:
            if ("ro" in published.options) != read_only:
                raise AlreadyExistsError(f"{target}: published with another read-only flag")
            return True
        if alive or published.fstype != FSTYPE:
            raise AlreadyExistsError(f"{target}: {published.source} is mounted there ({published.fstype})")
        log.warning("dead mount replaced path=%s", target)
        self._unmount(target, self._mounts.unmount)
        return False

    def _check_alone(self, staged_mount: MountEntry, volume_id: str) -> None:
        """Refuse a second publication. One whose mount is dead lets nobody write, and one of a subPath is a pod's own.

        Raises:
            BusyError: there is one.
        """
        for entry in self._mounts.entries():
            if (entry.device, entry.root) == (staged_mount.device, "/") and entry.mountpoint != staged_mount.mountpoint:
                raise BusyError(f"volume {volume_id!r}: for one pod at a time, and published at {entry.mountpoint}")

    def unpublish(self, target_path: str) -> None:
        """Unmount `target_path`, whatever state it is in, and remove it; one that is gone counts as removed.

        Raises:
            MountError: something that is not ours is mounted there, or the kernel does not let go.
            DirectoryNotEmptyError: files stand in the directory itself, which are never removed.
        """
        target = resolve(target_path)
        self._unmount(target, self._mounts.unmount)
        staged.remove_directory(target)

    def _is_alive(self, path: str) -> bool:
        return self._mounts.is_alive(path, deadline_s=PROBE_DEADLINE_S)

    def _unmount(self, path: str, unmount: Callable[..., None]) -> None:
        """Unmount `path` if it is ours.

        By force: the CO says that no pod uses it any more, and what still holds a file there (a process that a pod left
        behind, somebody's shell) must not keep a pod in Terminating.
        """
        if self._check_ours(path):
            unmount(path, deadline_s=UNMOUNT_DEADLINE_S, force=True)

    def _check_ours(self, path: str) -> bool:
        """Whether something is mounted at `path`.

        Raises:
            MountError: it is not one of ours.
        """
        entry = self._mounts.find(path)
        if entry is not None and entry.fstype != FSTYPE:
            raise MountError(f"{path}: a filesystem of type {entry.fstype} is mounted there, not one of ours")
        return entry is not None
