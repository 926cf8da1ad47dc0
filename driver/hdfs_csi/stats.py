"""How full a volume is: what its mount says, which asks HDFS for the quotas of its directory or for the cluster."""

from hdfs_fuse.mounter import probes

from hdfs_csi import staged
from hdfs_csi.pb import csi_pb2 as csi
from hdfs_csi.staged import MountTable

# The kubelet asks for every pod once a minute, and waits two minutes.
DEADLINE_S = 5.0


def usage(mounts: MountTable, volume_id: str, path: str) -> list[csi.VolumeUsage]:
    """Bytes of a volume, and its files and directories where HDFS bounds their number.

    Args:
        mounts: what is mounted.
        volume_id: of the volume.
        path: where it was staged or published.

    Raises:
        NotFoundError: it is not mounted there.
        DeadlineError: the mount hangs.
        UnavailableError: the mount is dead.
    """
    _, mountpoint = staged.find_at(mounts, volume_id, path)
    space = probes.space(mountpoint, deadline_s=DEADLINE_S)
    units = [
        csi.VolumeUsage(
            unit=csi.VolumeUsage.BYTES,
            total=space.capacity_bytes,
            used=space.capacity_bytes - space.free_bytes,
            available=space.available_bytes,
        )
    ]
    if space.max_names:  # CSI wants a total
        units.append(
            csi.VolumeUsage(
                unit=csi.VolumeUsage.INODES,
                total=space.max_names,
                used=space.max_names - space.free_names,
                available=space.free_names,
            )
        )
    return units
