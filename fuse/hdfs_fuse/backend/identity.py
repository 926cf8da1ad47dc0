"""Who a process is on HDFS.

Under simple authentication the Hadoop clients take the user from the environment of the process, once, so a process
has one identity. Whoever starts a daemon gives the child `client_environment`; nothing here changes os.environ.
"""

import os
import pwd
from collections.abc import Mapping

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import InvalidArgumentError

# One thread of the native client moves about 1 GB/s; a mount that needs more than 8 has other limits.
_MAX_CLIENT_THREADS = 8


def client_environment(config: MountConfig) -> dict[str, str]:
    """Variables that a process serving `config` must be started with, on top of its parent's.

    Args:
        config: the mount.

    Returns:
        HADOOP_USER_NAME when the mount names a user; HADOOP_CONF_DIR when it names a folder; for pyarrow also
        CLASSPATH with that folder in front, since the Java client looks for its configuration there. Besides, what
        the native client's runtime is to be told.
    """
    environment = {
        # A panic of the native client (an expired block token) is caught and reported by us; its backtrace is noise.
        "RUST_BACKTRACE": "0",
    }
    if "TOKIO_WORKER_THREADS" not in os.environ:
        # The native client's runtime takes a thread per core by itself. Its packets hop between them: on 2 cores one
        # thread needed a quarter less CPU time per byte and streamed faster than two.
        environment["TOKIO_WORKER_THREADS"] = str(max(1, min((os.cpu_count() or 1) // 2, _MAX_CLIENT_THREADS)))
    if config.user is not None:
        environment["HADOOP_USER_NAME"] = config.user
    if config.hadoop_conf_dir is not None:
        environment["HADOOP_CONF_DIR"] = config.hadoop_conf_dir
    folder = hadoop_conf.conf_dir(config)
    if config.backend == "pyarrow" and folder is not None:
        class_path = [part for part in os.environ.get("CLASSPATH", "").split(os.pathsep) if part]
        environment["CLASSPATH"] = os.pathsep.join([folder, *(part for part in class_path if part != folder)])
    return environment


def effective_user() -> str:
    """The user that Hadoop clients of this process act as under simple authentication."""
    if name := os.environ.get("HADOOP_USER_NAME"):
        return name
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # What the native client says too where the uid has no name (OpenShift gives pods such uids).
        return "unknown"


def check_identity(config: MountConfig, properties: Mapping[str, str]) -> None:
    """Refuse to act as somebody else than the mount says.

    Raises:
        InvalidArgumentError: the mount names a user and this process is another one on HDFS.
    """
    if config.user is None or properties.get("hadoop.security.authentication", "simple") != "simple":
        return
    actual = effective_user()
    if actual != config.user:
        raise InvalidArgumentError(
            f"user: given {config.user!r}, but this process is {actual!r} on HDFS; start it with "
            f"HADOOP_USER_NAME={config.user} (hdfs_fuse.backend.client_environment)"
        )
