"""The default backend: hdfs-native, a Rust client without a JVM.

Owns the client object and the defaults it runs with; native_errors.py translates what it raises. Knows no retries and
no deadlines: the client has none towards the NameNode, so whoever waits must have one (resilient.py, deadline.py).
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

# The public Client only forwards to RawClient; doing without saves an object and a Python call per operation.
from hdfs_native._internal import AclEntry, RawClient, TrashNotEnabledError, WriteOptions

from hdfs_fuse import errors
from hdfs_fuse.backend import hadoop_conf
from hdfs_fuse.backend.base import FileKind, FileStatus, Policies, SpaceUsage
from hdfs_fuse.backend.identity import Login
from hdfs_fuse.backend.native_errors import Translated
from hdfs_fuse.config import Location
from hdfs_fuse.hidden import name_while_made

if TYPE_CHECKING:
    from hdfs_native._internal import FileStatus as RawStatus
    from hdfs_native._internal import FsAction, RawFileReader, RawFileWriter

    from hdfs_fuse.backend.administration import Administration
    from hdfs_fuse.backend.webhdfs import WebHdfs

logger = logging.getLogger(__name__)

# What the client runs with where the user's configuration says nothing.
CLIENT_DEFAULTS: Mapping[str, str] = {
    # A hung DataNode is left after twice this: 20 s instead of the client's 120 s.
    "dfs.client.socket-timeout": "10000",
    # The client sleeps between attempts, 15 of them by default: 175 s on a standby. resilient.py repeats instead,
    # within the caller's deadline. 4 attempts see each of two NameNodes twice.
    "dfs.client.failover.max.attempts": "4",
    "dfs.client.failover.sleep.base.millis": "100",
    "dfs.client.failover.sleep.max.millis": "1000",
    # With it 8 of 8 writes survived the loss of a pipeline DataNode, without it none of 8.
    "dfs.client.block.write.replace-datanode-on-failure.best-effort": "true",
}

# Parents that make_directory has to create; HDFS would give them the mode of the last component.
_PARENT_MODE = 0o755
# A time that set_times leaves alone: -1 in the protocol (ClientProtocol.setTimes).
_UNCHANGED = 2**64 - 1
# Asked of WebHDFS at once, where the client can't read.
_LAST_BLOCK_BYTES = 4 << 20
# Permissions of an entry of an access control list, by their bits.
_ACTIONS: Sequence["FsAction"] = ("---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx")
# The trash, relative to the home directory.
_TRASH = ".Trash"


class HdfsNativeBackend:
    """One HDFS filesystem under the identity of the process, or of a keytab; see base.Backend.

    Attributes:
        filesystem: its URI, for messages.
    """

    def __init__(self, location: Location, properties: Mapping[str, str], login: Login | None = None) -> None:
        """Make a client; nothing is sent before the first call.

        Args:
            location: with its authority resolved (hadoop_conf.resolve_location).
            properties: Hadoop's configuration, complete: no file is read any more.
            login: who acts under Kerberos; None for the ticket cache of the process.

        Raises:
            InvalidArgumentError: the authority is neither `host:port` nor a nameservice of `properties`.
        """
        self.filesystem = location.filesystem
        self._authority = location.authority
        self._properties = dict(properties)
        # Of new files; the client itself takes what the NameNode says.
        self._replication = hadoop_conf.whole_number(properties, "dfs.replication")
        self._block_bytes = hadoop_conf.whole_number(properties, "dfs.blocksize")
        self._login = login  # whose keytab the client reads again, when a ticket has expired
        self._webhdfs: WebHdfs | None = None
        self._administration: Administration | None = None
        self._has_server_defaults = False
        with Translated(self.filesystem, "", "change"):
            # A folder that holds nothing keeps the client from reading HADOOP_CONF_DIR itself.
            self._client = RawClient(
                self.filesystem,
                {**CLIENT_DEFAULTS, **properties},
                os.devnull,
                kerberos_principal=login.principal if login else None,
                kerberos_keytab=login.keytab_path if login else None,
                kerberos_cache=login.tickets if login else None,
            )

    def status(self, path: str) -> FileStatus:
        """See base.Backend."""
        with Translated(self.filesystem, path):
            return _status(self._client.get_file_info(path))

    def list(self, path: str) -> Iterator[FileStatus]:
        """See base.Backend; the client asks for dfs.ls.limit (1000) entries at a time and holds no more."""
        with Translated(self.filesystem, path):
            for entry in self._client.list_status(path, recursive=False):
                if entry.path == path:
                    # HDFS lists a file as itself, with an empty name.
                    raise errors.NotDirectoryError(f"{path}: is a file")
                yield _status(entry)

    def open(self, path: str) -> "HdfsNativeReader":
        """See base.Backend."""
        with Translated(self.filesystem, path):
            raw = self._client.read(path)
        if not self._has_server_defaults:
            self._fetch_server_defaults()
        return HdfsNativeReader(self, path, raw)

    def read_last_block(self, path: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a block that somebody is writing, by the client of a DataNode.

        Raises:
            ShortReadError: they are not there, or can't be had this way.
        """
        try:
            data = self._over_http().read(path, start, stop)
        except errors.HdfsFuseError as e:  # gone, or shorter: who reads looks whether it is still the same version
            raise errors.ShortReadError(f"{path}: [{start}, {stop}) is not complete, and not read: {e}") from e
        if len(data) != stop - start:
            raise errors.ShortReadError(f"{path}: {len(data)} of {stop - start} bytes are there at {start}")
        return data

    def _fetch_server_defaults(self) -> None:
        """Have the client learn, while the NameNode answers, whether transfers are encrypted.

        Otherwise its first new connection to a DataNode asks, and a reader can't read while the NameNode is away.
        Moving the trash itself to the trash changes nothing, and that is the one call for it (Client::trash).
        """
        try:
            with contextlib.suppress(TrashNotEnabledError):
                self._client.trash(_TRASH)
        except Exception as e:  # noqa: BLE001  # whatever it is, the next open tries again
            logger.info("%s: no server defaults: %s", self.filesystem, e)
        else:
            self._has_server_defaults = True

    def space(self, path: str) -> SpaceUsage:
        """See base.Backend; asked of WebHDFS, since the client's RPC has neither quotas without a walk nor statfs."""
        from hdfs_fuse.backend.administration import Administration  # noqa: PLC0415 - as in _over_http

        if self._administration is None:
            self._administration = Administration(self._over_http(), self._properties)
        return self._administration.space(path)

    def _over_http(self) -> "WebHdfs":
        # Imported when it is first needed: an HTTP client costs an idle daemon 9 MiB.
        from hdfs_fuse.backend.webhdfs import connect_webhdfs  # noqa: PLC0415

        if self._webhdfs is None:
            self._webhdfs = connect_webhdfs(self._authority, self._properties, self._login)
        return self._webhdfs

    def make_directory(self, path: str, mode: int) -> None:
        """See base.Backend; parents that are missing get 0o755."""
        try:
            found = self.status(path)
        except errors.NotFoundError:
            with Translated(self.filesystem, path, "change"):
                parent = path.rpartition("/")[0]
                if parent:
                    self._make_parents(parent)
                self._client.mkdirs(path, mode, create_parent=False)
                # A default ACL of the parent takes part in the mode of a new directory (FSDirMkdirOp).
                if _status(self._client.get_file_info(path)).mode != mode:
                    self._client.set_permission(path, mode)
        else:
            if found.kind is not FileKind.DIRECTORY:
                raise errors.AlreadyExistsError(f"{path}: is a file")

    def _make_parents(self, parent: str) -> None:
        try:
            self._client.mkdirs(parent, _PARENT_MODE, create_parent=True)
        except FileExistsError as e:
            raise errors.NotDirectoryError(f"{parent}: is a file") from e

    def check_write(self, path: str) -> None:
        """See base.Backend; asked of WebHDFS."""
        self._over_http().check_write(path)

    def create_directory(self, path: str, mode: int) -> None:
        """See base.Backend. HDFS's mkdirs is content with a directory that is there; its rename is not."""
        parent = path.rpartition("/")[0]
        hidden = f"{parent}/{name_while_made()}"
        with Translated(self.filesystem, path, "change"):
            self._client.mkdirs(hidden, mode, create_parent=False)
            try:
                self._rename(hidden, path, overwrite=False)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._client.delete(hidden, False)
                raise

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """See base.Backend."""
        with Translated(self.filesystem, path, "change"):
            self._client.set_owner(path, owner, group)

    def copy_attributes(self, source: str, target: str) -> None:
        """See base.Backend."""
        old, new = self.status(source), self.status(target)
        # The superuser may give a file away; its owner may give it to a group of his own.
        for owner, group in ((old.owner, old.group), (None, old.group)):
            if (owner or new.owner, group) == (new.owner, new.group):
                break
            with contextlib.suppress(errors.PermissionDeniedError):
                self.set_owner(target, owner, group)
                break
        with Translated(self.filesystem, target, "change"):
            if old.replication != new.replication and old.replication and new.replication:
                self._client.set_replication(target, old.replication)
            self._copy_acl(source, target, old.mode)

    def _copy_acl(self, source: str, target: str, mode: int) -> None:
        try:
            acl = self._client.get_acl_status(source)
        except RuntimeError as e:
            if "AclException" not in str(e):
                raise
            return  # dfs.namenode.acls.enabled is false
        if acl.entries:
            # The bits of the group are the mask of a file that has a list (HDFS Permissions Guide, ACLs).
            mask = AclEntry("mask", "access", _ACTIONS[mode >> 3 & 7])
            self._client.modify_acl_entries(target, [*acl.entries, mask])

    def move_to_trash(self, path: str) -> None:
        """See base.Backend."""
        with Translated(self.filesystem, path, "change"):
            try:
                self._client.trash(path)
            except TrashNotEnabledError as e:
                raise errors.UnsupportedError(f"{path}: HDFS has no trash: fs.trash.interval is 0") from e

    def create(self, path: str, *, mode: int, overwrite: bool) -> "HdfsNativeWriter":
        """See base.Backend."""
        options = WriteOptions(self._block_bytes, self._replication, mode, overwrite, create_parent=False)
        with Translated(self.filesystem, path, "change"):
            return HdfsNativeWriter(self.filesystem, path, self._client.create(path, options))

    def put(self, path: str, chunks: Iterator[bytes], length_bytes: int, mode: int, *, alone: bool) -> None:
        """See base.Backend."""
        replication = self.status(path).replication if alone else 0
        self._over_http().put(path, chunks, length_bytes, mode, replication=1 if alone else self._replication)
        if replication > 1:
            with Translated(self.filesystem, path, "change"):
                self._client.set_replication(path, replication)

    def extend(self, path: str, chunks: Iterator[bytes], length_bytes: int) -> None:
        """See base.Backend."""
        self._over_http().extend(path, chunks, length_bytes)

    def append(self, path: str) -> "HdfsNativeWriter":
        """See base.Backend."""
        with Translated(self.filesystem, path, "change"):
            return HdfsNativeWriter(self.filesystem, path, self._client.append(path))

    def recover_lease(self, path: str) -> bool:
        """See base.Backend."""
        with Translated(self.filesystem, path, "change"):
            return self._client.recover_lease(path)

    def rename(self, source: str, target: str, *, overwrite: bool) -> None:
        """See base.Backend."""
        with Translated(self.filesystem, target, "change"):
            self._rename(source, target, overwrite=overwrite)

    def _rename(self, source: str, target: str, *, overwrite: bool) -> None:
        try:
            self._client.rename(source, target, overwrite)
        except RuntimeError as e:
            # FSDirRenameOp.validateRenameOverwrite: an IOException that does not say which of the two it is.
            if "must both be directories" not in str(e):
                raise
            if not overwrite:
                raise errors.AlreadyExistsError(f"{target}: is there") from e
            if self.status(target).kind is FileKind.DIRECTORY:
                raise errors.IsDirectoryError(f"{target}: is a directory") from e
            raise errors.NotDirectoryError(f"{target}: is a file") from e

    def set_mode(self, path: str, mode: int) -> None:
        """See base.Backend."""
        with Translated(self.filesystem, path, "change"):
            self._client.set_permission(path, mode)

    def set_times(self, path: str, *, mtime_ms: int | None, atime_ms: int | None) -> None:
        """See base.Backend."""
        times = (_UNCHANGED if time_ms is None else time_ms for time_ms in (mtime_ms, atime_ms))
        with Translated(self.filesystem, path, "change"):
            self._client.set_times(path, *times)

    def xattrs(self, path: str) -> dict[str, bytes]:
        """See base.Backend; asked of WebHDFS."""
        return self._over_http().xattrs(path)

    def xattr_names(self, path: str) -> Sequence[str]:
        """See base.Backend; asked of WebHDFS."""
        return self._over_http().xattr_names(path)

    def set_xattr(self, path: str, name: str, value: bytes) -> None:
        """See base.Backend; asked of WebHDFS."""
        self._over_http().set_xattr(path, name, value)

    def remove_xattr(self, path: str, name: str) -> None:
        """See base.Backend; asked of WebHDFS."""
        self._over_http().remove_xattr(path, name)

    def policies(self, path: str) -> Policies:
        """See base.Backend; asked of WebHDFS."""
        return self._over_http().policies(path)

    def delete(self, path: str, *, recursive: bool) -> bool:
        """See base.Backend."""
        with Translated(self.filesystem, path, "change"):
            return self._client.delete(path, recursive)

    def close(self) -> None:
        """See base.Backend; connections end with the last reader that uses them."""


class HdfsNativeReader:
    """An open file: the block locations of the moment of the open, never refreshed; see base.FileReader.

    The client does not see the last block of a file that somebody is writing; WebHDFS does.
    """

    __slots__ = ("_backend", "_path", "_raw", "length_bytes")

    def __init__(self, backend: HdfsNativeBackend, path: str, raw: "RawFileReader") -> None:
        """Take over what `RawClient.read` returned."""
        self._backend = backend
        self._path = path
        self._raw: RawFileReader | None = raw
        # Without the last block while somebody writes it (LocatedBlocksProto.fileLength), so maybe less than stat says.
        self.length_bytes = raw.file_length()

    def read(self, start: int, stop: int) -> bytes:
        """See base.FileReader."""
        raw = self._checked(start, stop)
        middle = min(stop, max(start, self.length_bytes))
        data = b""
        if start < middle or start == stop:
            with Translated(self._backend.filesystem, self._path):
                data = raw.read_range(start, middle - start)
            if len(data) != middle - start:
                raise errors.ShortReadError(f"{self._path}: {len(data)} of {stop - start} bytes came at {start}")
        return data if middle == stop else data + self._backend.read_last_block(self._path, middle, stop)

    def stream(self, start: int, stop: int) -> Iterator[bytes]:
        """See base.FileReader; chunks are DataNode packets of 64 KiB, of which the client queues up to 100."""
        return self._stream(self._checked(start, stop), start, stop)

    def _stream(self, raw: "RawFileReader", start: int, stop: int) -> Iterator[bytes]:
        middle = min(stop, max(start, self.length_bytes))
        missing = middle - start
        if missing:
            with Translated(self._backend.filesystem, self._path):
                for chunk in raw.read_range_stream(start, missing):
                    missing -= len(chunk)
                    yield chunk
        if missing:
            raise errors.ShortReadError(f"{self._path}: the stream ended {missing} bytes before {middle}")
        for at in range(middle, stop, _LAST_BLOCK_BYTES):
            yield self._backend.read_last_block(self._path, at, min(at + _LAST_BLOCK_BYTES, stop))

    def _checked(self, start: int, stop: int) -> "RawFileReader":
        """The client's reader."""
        if self._raw is None:
            raise errors.InvalidArgumentError(f"{self._path}: the reader is closed")
        if not 0 <= start <= stop:
            raise errors.InvalidArgumentError(f"{self._path}: [{start}, {stop}) is no range")
        return self._raw

    def close(self) -> None:
        """See base.FileReader; a stream that is under way goes on."""
        self._raw = None


class HdfsNativeWriter:
    """A file that is being written; see base.FileWriter. The client renews its lease as long as this object lives."""

    __slots__ = ("_filesystem", "_path", "_raw")

    def __init__(self, filesystem: str, path: str, raw: "RawFileWriter") -> None:
        """Take over what the client made; `filesystem` and `path` stand in messages."""
        self._filesystem = filesystem
        self._path = path
        self._raw = raw

    def write(self, data: bytes) -> None:
        """See base.FileWriter."""
        with Translated(self._filesystem, self._path, "change"):
            self._raw.write(data)

    def sync(self) -> None:
        """See base.FileWriter."""
        with Translated(self._filesystem, self._path, "change"):
            self._raw.hsync()

    def close(self) -> None:
        """See base.FileWriter."""
        with Translated(self._filesystem, self._path, "change"):
            self._raw.close()


def _status(raw: "RawStatus") -> FileStatus:
    directory = raw.isdir
    return FileStatus(
        raw.path.rpartition("/")[2],
        FileKind.DIRECTORY if directory else FileKind.FILE,
        0 if directory else raw.length,
        raw.permission & 0o1777,
        raw.owner,
        raw.group,
        raw.modification_time,
        raw.access_time,
        raw.replication or 0,
        raw.blocksize or 0,
    )
