"""From a MountConfig to a backend. Imports only the client that the mount uses: a daemon pays for no other."""

from collections.abc import Callable, Mapping

from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.base import Backend
from hdfs_fuse.backend.identity import check_identity, log_in
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.config import Location, MountConfig
from hdfs_fuse.errors import InvalidArgumentError

# No repetition starts after this share of the caller's deadline, so that the last one can still end before it.
_RETRY_SHARE = 0.5


def connect(config: MountConfig) -> ResilientBackend:
    """The filesystem that a mount shows, behind retries; paths are those of that filesystem, from its root on.

    Nothing is sent yet: a filesystem that can't be reached shows with the first call.

    Args:
        config: the mount; `call_deadline_s` is the deadline that callers put on each call.

    Raises:
        InvalidArgumentError: an unknown backend, a filesystem that the configuration does not know, or a user other
            than this process's (see identity.client_environment).
        UnsupportedError: the backend's client is not installed.
    """
    properties = hadoop_conf.read_properties(config)
    return ResilientBackend(
        _factory(config, properties),
        budget_s=config.call_deadline_s * _RETRY_SHARE,
        deadline_s=config.call_deadline_s,
        verify_above_bytes=config.small_file_bytes,
    )


def resolve(config: MountConfig) -> Location:
    """Filesystem and path of a mount, with fs.defaultFS and the default port filled in.

    Raises:
        InvalidArgumentError: the configuration does not say which filesystem.
    """
    return hadoop_conf.resolve_location(config, hadoop_conf.read_properties(config))


def cluster_id(config: MountConfig) -> str:
    """A name for the filesystem that is the same for all mounts of it: `hdfs://host:port`, `hdfs://ns`, or `local`.

    With a scope (CacheConfig.scope), for all mounts of it that have the same one.

    Raises:
        InvalidArgumentError: the configuration does not say which filesystem.
    """
    location = resolve(config)
    name = "local" if location.scheme == "file" else location.filesystem
    return f"{name}#{config.cache.scope}" if config.cache.scope else name


def _factory(config: MountConfig, properties: Mapping[str, str]) -> Callable[[], Backend]:
    location = hadoop_conf.resolve_location(config, properties)
    if location.scheme == "hdfs":
        check_identity(config, properties)
    match (location.scheme, config.backend):
        case ("file", "hdfs-native"):
            # Not what the name says, but the default: file:// needs no client.
            from hdfs_fuse.backend.local import LocalBackend  # noqa: PLC0415

            return LocalBackend
        case ("file", "pyarrow"):
            from hdfs_fuse.backend.arrow import ArrowLocalBackend  # noqa: PLC0415

            return ArrowLocalBackend
        case ("hdfs", "hdfs-native"):
            from hdfs_fuse.backend.hdfs_native import HdfsNativeBackend  # noqa: PLC0415

            login = log_in(config.kerberos) if config.kerberos is not None else None
            return lambda: HdfsNativeBackend(location, properties, login)
        case ("hdfs", "pyarrow"):
            from hdfs_fuse.backend.arrow import ArrowHdfsBackend  # noqa: PLC0415

            return lambda: ArrowHdfsBackend(location, properties)
    raise InvalidArgumentError(f"backend {config.backend!r} for {location.scheme}: accepted are hdfs-native, pyarrow")
