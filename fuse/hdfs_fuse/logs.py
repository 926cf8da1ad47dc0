"""Where the processes of a mount log to, and how a line looks."""

import logging
import os


def log_to_stderr(volume_id: str = "") -> None:
    """Log to standard error, from the level HDFS_FUSE_LOG_LEVEL on; replaces an earlier call.

    Args:
        volume_id: stands in each line, since the daemons of a node may share one log.
    """
    volume = f" {volume_id}".replace("%", "%%") if volume_id else ""
    logging.basicConfig(
        level=os.environ.get("HDFS_FUSE_LOG_LEVEL", "INFO").upper(),
        format=f"%(asctime)s %(levelname)s hdfs-fuse[%(process)d]{volume} %(name)s: %(message)s",
        force=True,
    )
