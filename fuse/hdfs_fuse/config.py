"""What a mount is told: MountConfig, its checks and its JSON.

driver/ makes one of a volume, the command line makes one of its options, and the daemon reads it from its
parent. Unknown keys and malformed values are refused here, once, for all three.
"""

import os
import posixpath
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from hdfs_fuse.errors import InvalidArgumentError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

SCHEMES = ("hdfs", "file")

# The longest path that HDFS takes (dfs.namenode.fs-limits and FSConstants.MAX_PATH_LENGTH: 8000 characters).
MAX_PATH_CHARACTERS = 8000

# JSON has no more than 64 bits for a number, and no disk has more bytes.
_MAX_BYTES = (1 << 60) - 1


class CacheConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The block cache of the node.

    Attributes:
        directory: where blocks are kept; the empty string means no cache on disk.
        size_bytes: the most that all mounts of the node together keep there.
        min_free_bytes: free space of that filesystem below which nothing is added.
        block_size_bytes: the unit of caching, a power of two in [64 KiB, 64 MiB].
        scope: only mounts with the same one see each other's blocks. Who brings his own Hadoop configuration says what
            `hdfs://name` is, so his blocks are not those of others who use that name.
    """

    directory: str = ""
    size_bytes: int = 10 * GIB
    min_free_bytes: int = 1 * GIB
    block_size_bytes: int = 4 * MIB
    scope: str = ""


class StagingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the node keeps the bytes of files that are being changed.

    Attributes:
        directory: a local directory; needed by mounts that are not read-only.
        size_bytes: the most that all mounts of the node together keep there.
        stream_from_bytes: a file that is written front to back, and is longer, goes out while it is being written.
        window_bytes: how much of such a file is kept there. A block is known to be stored when the next one begins,
            so less than two blocks of HDFS cost an fsync of the DataNodes now and then.
    """

    directory: str = ""
    size_bytes: int = 10 * GIB
    stream_from_bytes: int = 8 * MIB
    window_bytes: int = 256 * MIB


class Kerberos(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, weakref=True):
    """A login with Kerberos.

    Attributes:
        principal: who acts, with or without the realm.
        keytab: content of the file with its keys.
        krb5_conf: content of krb5.conf; None takes that of the machine.
    """

    principal: str
    keytab: bytes
    krb5_conf: str | None = None

    def __repr__(self) -> str:
        """Without the keys."""
        return f"Kerberos(principal={self.principal!r}, ...)"


_SMALL_FILE_BYTES = 256 * KIB


class MountConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One mount. It may hold secrets, so it goes to other processes through sockets alone.

    Attributes:
        uri: `hdfs://host:port/path`, `hdfs://nameservice/path`, `hdfs:///path` (fs.defaultFS) or `file:///path`.
        backend: which client reads `hdfs://`.
        hadoop_conf_dir: folder of core-site.xml and hdfs-site.xml; None takes HADOOP_CONF_DIR.
        hadoop_properties: Hadoop keys that override those files.
        user: identity under simple authentication; None takes HADOOP_USER_NAME, then the process's user.
        kerberos: identity under Kerberos; None takes the ticket cache of the process, if there is one.
        read_only: whether changes are refused; else `staging` is needed.
        uid, gid: owner and group that all files show; None shows each file's own, as far as this node knows the name.
        group_as_owner: whether files show their group the permissions of their owner.
        umask: permission bits taken away from what files show.
        allow_other: whether other users than the mounting one may enter (pods that are not root need it).
        metadata_ttl_s: how long attributes, names and absences may be believed, in seconds.
        max_inodes: names that the kernel may hold on to before the daemon asks for some back.
        read_ahead_bytes: how far a sequential reader is read ahead.
        streams: DataNode streams at once for one sequential reader.
        workers: threads for calls to HDFS, and as many for loads.
        call_deadline_s: how long one call to HDFS may take before the application gets ETIMEDOUT.
        cache: the node's block cache.
        staging: where changed files are until HDFS has them.
        volume_id: stands in log lines.
    """

    uri: str
    backend: Literal["hdfs-native", "pyarrow"] = "hdfs-native"
    hadoop_conf_dir: str | None = None
    hadoop_properties: dict[str, str] = {}
    user: str | None = None
    kerberos: Kerberos | None = None
    read_only: bool = True
    uid: int | None = None
    gid: int | None = None
    group_as_owner: bool = False
    umask: int = 0
    allow_other: bool = False
    metadata_ttl_s: float = 60.0
    max_inodes: int = 80_000
    read_ahead_bytes: int = 64 * MIB
    streams: int = 2
    workers: int = 32
    call_deadline_s: float = 60.0
    cache: CacheConfig = CacheConfig()
    staging: StagingConfig = StagingConfig()
    volume_id: str = ""

    def __post_init__(self) -> None:
        """Check what types can't say; raises InvalidArgumentError naming the field and what it takes."""
        split_uri(self.uri)
        cache, block = self.cache, self.cache.block_size_bytes
        _check(
            64 * KIB <= block <= 64 * MIB and block & (block - 1) == 0,
            "cache.block_size_bytes",
            block,
            "a power of two from 65536 to 67108864",
        )
        for name, value in (
            ("cache.size_bytes", cache.size_bytes),
            ("cache.min_free_bytes", cache.min_free_bytes),
            ("staging.size_bytes", self.staging.size_bytes),
        ):
            _check(0 <= value <= _MAX_BYTES, name, value, "bytes, 0 or more, less than an exbibyte")
        _check(
            4 * KIB <= self.staging.stream_from_bytes <= self.staging.window_bytes // 4,
            "staging.stream_from_bytes",
            self.staging.stream_from_bytes,
            "bytes, 4096 or more, to a fourth of staging.window_bytes",
        )
        for name, directory in (("cache", cache.directory), ("staging", self.staging.directory)):
            _check(
                not directory or (os.path.isabs(directory) and "\0" not in directory),
                f"{name}.directory",
                directory,
                "an absolute path without NUL",
            )
        _check(0 <= self.umask <= 0o777, "umask", oct(self.umask), "an octal number from 0 to 777")
        for name in ("uid", "gid"):
            value = getattr(self, name)
            _check(value is None or 0 <= value < 2**32 - 1, name, value, "a number from 0 to 4294967294")
        _check(
            0 <= self.metadata_ttl_s <= 86400 * 365,
            "metadata_ttl_s",
            self.metadata_ttl_s,
            "seconds from 0 to a year",
        )
        _check(self.max_inodes >= 1000, "max_inodes", self.max_inodes, "1000 or more")
        _check(
            0 <= self.read_ahead_bytes <= _MAX_BYTES,
            "read_ahead_bytes",
            self.read_ahead_bytes,
            "bytes, 0 or more, less than an exbibyte",
        )
        _check(1 <= self.streams <= 8, "streams", self.streams, "a number from 1 to 8")
        _check(1 <= self.workers <= 512, "workers", self.workers, "a number from 1 to 512")
        _check(0 < self.call_deadline_s <= 86400, "call_deadline_s", self.call_deadline_s, "seconds, above 0, to a day")
        if not self.read_only:
            directory = self.staging.directory
            _check(bool(directory), "staging.directory", directory, "a local directory, where read_only is false")
            is_arrow = self.backend == "pyarrow" and self.uri.startswith("hdfs:")
            _check(not is_arrow, "read_only", False, "true with backend pyarrow, which does not write to HDFS")
        if self.kerberos is not None:
            _check(self.backend != "pyarrow", "backend", self.backend, "hdfs-native with a keytab")

    def __repr__(self) -> str:
        """Without what may be secret: Hadoop properties are, where they come from a secret."""
        return f"MountConfig(uri={self.uri!r}, volume_id={self.volume_id!r}, ...)"

    @property
    def small_file_bytes(self) -> int:
        """Files up to this length are read whole, in one request, and kept as one block that is not mapped.

        A map costs two descriptors and page table entries, which a few pages do not earn back.
        """
        return min(_SMALL_FILE_BYTES, self.cache.block_size_bytes)

    def to_json(self) -> bytes:
        """The configuration as JSON, for `from_json` in another process."""
        return msgspec.json.encode(self)

    @staticmethod
    def from_json(data: bytes) -> "MountConfig":
        """Read what `to_json` wrote.

        Raises:
            InvalidArgumentError: malformed JSON, an unknown key, a wrong type or a value out of range.
        """
        try:
            return msgspec.json.decode(data, type=MountConfig)
        except msgspec.MsgspecError as e:
            raise InvalidArgumentError(f"mount configuration: {e}") from e


class Location(msgspec.Struct, frozen=True):
    """A filesystem and a path in it.

    Attributes:
        scheme: one of SCHEMES.
        authority: `host:port`, a nameservice, or empty for fs.defaultFS and for file.
        path: absolute and normalised, without a trailing slash except for the root.
    """

    scheme: str
    authority: str
    path: str

    @property
    def filesystem(self) -> str:
        """The URI of the filesystem's root, without the path."""
        return f"{self.scheme}://{self.authority}"


def split_uri(uri: str) -> Location:
    """Take a filesystem URI apart.

    Raises:
        InvalidArgumentError: an unknown scheme, a malformed authority, a relative path, `..`, NUL, or no UTF-8.
    """
    accepted = "hdfs://host:port/path, hdfs://nameservice/path or file:///path"
    try:
        parts = urlsplit(uri)
        port = parts.port  # raises ValueError when it is no port number
    except ValueError as e:
        raise InvalidArgumentError(f"uri {uri!r}: {e}; accepted: {accepted}") from e
    if parts.scheme not in SCHEMES:
        raise InvalidArgumentError(f"uri {uri!r}: unknown filesystem scheme {parts.scheme!r}; accepted: {accepted}")
    # '?' and '#' are ordinary characters of an HDFS path, so only what stands before the path is URL syntax.
    rest = uri[len(parts.scheme) + 1 :]
    if not rest.startswith("//"):
        raise InvalidArgumentError(f"uri {uri!r}: '//' is missing after the scheme; accepted: {accepted}")
    authority, slash, path = rest[2:].partition("/")
    path = slash + path or "/"
    if authority and not re.fullmatch(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", authority):
        raise InvalidArgumentError(f"uri {uri!r}: malformed host {authority!r}; accepted: {accepted}")
    if port == 0:
        raise InvalidArgumentError(f"uri {uri!r}: port 0; accepted: {accepted} with a port from 1 to 65535")
    if parts.scheme == "file" and authority not in ("", "localhost"):
        raise InvalidArgumentError(f"uri {uri!r}: file:// takes no host; accepted: file:///absolute/path")
    if ".." in path.split("/") or "\0" in path:
        raise InvalidArgumentError(f"uri {uri!r}: the path must not contain '..' or NUL")
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise InvalidArgumentError(f"uri {uri!r}: the path is not UTF-8")  # nor would it go into JSON
    if len(path) > MAX_PATH_CHARACTERS:
        raise InvalidArgumentError(f"uri: the path has {len(path)} characters, HDFS takes {MAX_PATH_CHARACTERS}")
    # posixpath keeps two leading slashes, as POSIX allows; HDFS has no such thing.
    normalised = "/" + posixpath.normpath(path).lstrip("/") if path != "/" else "/"
    return Location(parts.scheme, "" if parts.scheme == "file" else authority, normalised)


def _check(holds: bool, name: str, given: object, accepted: str) -> None:
    if not holds:
        raise InvalidArgumentError(f"{name}: given {given!r}, accepted is {accepted}")
