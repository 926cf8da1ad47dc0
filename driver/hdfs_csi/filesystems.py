"""The controller's way to HDFS: a client and an administration for each filesystem, and a deadline on every call.

Owns clients and deadlines; knows nothing of volumes.
"""

import contextlib
import copy
import hashlib
import secrets
import threading
from collections.abc import Callable
from typing import ParamSpec, Protocol, Self, TypeVar

from hdfs_fuse.backend import connect, effective_user
from hdfs_fuse.backend.administration import connect_administration
from hdfs_fuse.backend.base import Backend, FileStatus, Policies, SpaceUsage
from hdfs_fuse.backend.deadline import call_with_deadline
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import (
    BackendError,
    BusyError,
    DeadlineError,
    HdfsFuseError,
    InvalidArgumentError,
    NotDirectoryError,
    NotFoundError,
    UnavailableError,
)

from hdfs_csi.secret import NO_SECRET, Secret

P = ParamSpec("P")
R = TypeVar("R")

# StorageClasses name few filesystems. The bound is against a CO that sends ever new ones in volume ids.
MAX_FILESYSTEMS = 32


class Client(Backend, Protocol):
    """A backend whose client can be thrown away when it hangs."""

    def discard_client(self) -> None:
        """Make a new client for the next call."""
        ...


class Admin(Protocol):
    """What is needed of hdfs_fuse.backend.administration.Administration."""

    def raw_space(self, path: str) -> SpaceUsage:
        """Space of the quota that is set on a directory, or of the cluster, in raw bytes."""
        ...

    def content_bytes(self, path: str) -> int:
        """Length of all files below a path."""
        ...

    def set_quota(self, path: str, *, names: int | None, space_bytes: int | None) -> None:
        """Bound what a directory may hold."""
        ...

    def default_replication(self) -> int:
        """How many replicas files have that say nothing of it."""
        ...

    def policies(self, path: str) -> Policies:
        """How new files of a directory are stored."""
        ...

    def set_storage_policy(self, path: str, name: str) -> None:
        """Choose the kind of storage."""
        ...

    def set_erasure_coding_policy(self, path: str, name: str) -> None:
        """Have new files erasure-coded."""
        ...

    def set_replication(self, path: str, replication: int) -> None:
        """Change the replicas of a file."""
        ...

    def mark(self, path: str, name: str, value: str) -> None:
        """Set an extended attribute."""
        ...

    def mark_of(self, path: str, name: str) -> str:
        """An extended attribute, or nothing."""
        ...

    def allow_snapshots(self, path: str) -> None:
        """Let a directory have snapshots."""
        ...

    def create_snapshot(self, path: str, name: str) -> None:
        """Make a snapshot, unless it is there."""
        ...

    def delete_snapshot(self, path: str, name: str) -> None:
        """Remove a snapshot, if it is there."""
        ...


class Filesystem:
    """One filesystem. Absence is an answer here, not an error."""

    def __init__(self, name: str, client: Client, admin: Admin, deadline_s: float) -> None:
        """Put `deadline_s` on every call to `client` and `admin`; `name` is for messages."""
        self._name = name
        self.client = client
        self._admin = admin
        self._deadline_s = deadline_s

    def status(self, path: str) -> FileStatus | None:
        """Attributes of `path`; None when it is not there."""
        try:
            return self._call(self.client.status, path)
        except (NotFoundError, NotDirectoryError):
            return None

    def read_file(self, path: str) -> bytes | None:
        """The content of a small file; None when it is not there."""
        try:
            return self._call(self._read_whole, path)
        except (NotFoundError, NotDirectoryError):
            return None

    def write_file(self, path: str, data: bytes, drafts: str) -> None:
        """Put `data` into a small file, all or nothing; one that exists is replaced. For its owner alone.

        Takes 0.4 s (HdfsNativeWriter.close). A process that ends meanwhile leaves a draft, which the next call for the
        same path removes, as `remove_file` does.

        Args:
            path: of the file.
            data: all of it.
            drafts: directory for the file until it is complete; it has few entries.
        """
        self._remove_drafts(path, drafts)
        draft = f"{drafts}/{_draft_prefix(path)}{secrets.token_hex(8)}"
        try:
            self._call(self._write_whole, draft, data)
            self._call(lambda: self.client.rename(draft, path, overwrite=True))
        except HdfsFuseError:
            with contextlib.suppress(HdfsFuseError):
                self.delete(draft, recursive=False)
            raise

    def remove_file(self, path: str, drafts: str) -> None:
        """Remove a file of `write_file`, and what was begun of it; one that is not there counts as removed."""
        self.delete(path, recursive=False)
        self._remove_drafts(path, drafts)

    def _remove_drafts(self, path: str, drafts: str) -> None:
        # Of a call that still hangs, too: what it would give its name later is older than what is written now.
        for name in self.names(drafts):
            if name.startswith(_draft_prefix(path)):
                self.delete(f"{drafts}/{name}", recursive=False)

    def make_directory(self, path: str, mode: int) -> None:
        """Make `path` with `mode`, and its parents; one that exists stays as it is."""
        self._call(self.client.make_directory, path, mode)

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """Give `path` away; None leaves one of the two as it is."""
        self._call(self.client.set_owner, path, owner, group)

    def delete(self, path: str, *, recursive: bool) -> bool:
        """Remove `path`; False when it was not there."""
        try:
            return self._call(lambda: self.client.delete(path, recursive=recursive))
        except (NotFoundError, NotDirectoryError):
            return False

    def names(self, path: str) -> list[str]:
        """The names in a directory, in order; none where it is not there."""
        try:
            return self._call(lambda: sorted(entry.name for entry in self.client.list(path)))
        except (NotFoundError, NotDirectoryError):
            return []

    def entries(self, path: str) -> list[FileStatus]:
        """What is in a directory."""
        return self._call(lambda: list(self.client.list(path)))

    def rename(self, source: str, target: str) -> None:
        """Give `source` another path, where nothing is."""
        self._call(lambda: self.client.rename(source, target, overwrite=False))

    def move_to_trash(self, path: str) -> None:
        """Move `path` to the trash of the identity; that is not there counts as moved."""
        with contextlib.suppress(NotFoundError):
            self._call(self.client.move_to_trash, path)

    def set_quota(self, path: str, *, names: int | None, space_bytes: int | None) -> None:
        """Bound what a directory may hold, in names and raw bytes; None removes a bound."""
        self._call(lambda: self._admin.set_quota(path, names=names, space_bytes=space_bytes))

    def free_bytes(self, path: str) -> int:
        """Raw bytes that can still be written below a directory."""
        return self._call(self._admin.raw_space, path).free_bytes

    def content_bytes(self, path: str) -> int:
        """Length of all files below a path."""
        return self._call(self._admin.content_bytes, path)

    def default_replication(self) -> int:
        """How many replicas files have that say nothing of it."""
        return self._call(self._admin.default_replication)

    def policies(self, path: str) -> Policies:
        """How new files of a directory are stored."""
        return self._call(self._admin.policies, path)

    def set_policies(self, path: str, *, storage: str | None, erasure_coding: str | None) -> None:
        """Choose how new files of a directory are stored; None leaves one as it is."""
        if storage is not None:
            self._call(self._admin.set_storage_policy, path, storage)
        if erasure_coding is not None:
            self._call(self._admin.set_erasure_coding_policy, path, erasure_coding)

    def set_replication(self, path: str, replication: int) -> None:
        """Change the replicas of a file."""
        self._call(self._admin.set_replication, path, replication)

    def mark(self, path: str, name: str, value: str) -> None:
        """Set an extended attribute."""
        self._call(self._admin.mark, path, name, value)

    def mark_of(self, path: str, name: str) -> str:
        """An extended attribute, or nothing."""
        return self._call(self._admin.mark_of, path, name)

    def create_snapshot(self, path: str, name: str) -> None:
        """Keep what is in a directory now; a snapshot that is there stays."""
        self._call(self._admin.allow_snapshots, path)
        self._call(self._admin.create_snapshot, path, name)

    def delete_snapshot(self, path: str, name: str) -> None:
        """Remove a snapshot, if it is there."""
        self._call(self._admin.delete_snapshot, path, name)

    def snapshots(self, path: str) -> list[str]:
        """Names of the snapshots of a directory."""
        try:
            return self.names(f"{path}/.snapshot")
        except BusyError:  # it may have none (FSDirSnapshotOp, "not a snapshottable directory")
            return []

    def close(self) -> None:
        """Free the client."""
        self.client.close()

    def _read_whole(self, path: str) -> bytes:
        reader = self.client.open(path)
        try:
            return reader.read(0, reader.length_bytes)
        finally:
            reader.close()

    def _write_whole(self, path: str, data: bytes) -> None:
        writer = self.client.create(path, mode=0o600, overwrite=False)
        writer.write(data)
        writer.close()
        # Seen with hdfs-native 0.14: a close that hides an earlier error may commit a part.
        if self.client.status(path).length_bytes != len(data):
            raise BackendError(f"{path}: only a part was written")

    def _call(self, fn: Callable[P, R], *args: P.args, **_: P.kwargs) -> R:
        try:
            return call_with_deadline(fn, *args, deadline_s=self._deadline_s, on_timeout=self.client.discard_client)
        except DeadlineError as e:
            raise DeadlineError(f"{self._name}: no answer from HDFS within {self._deadline_s:g} s") from e
        except UnavailableError as e:
            raise UnavailableError(f"{self._name}: {e}") from e


def _draft_prefix(path: str) -> str:
    """How the names of drafts of a file begin; with a dot, as no volume's does."""
    return f".{hashlib.blake2b(path.encode(), digest_size=16).hexdigest()}."


class Filesystems:
    """The filesystems that were asked for, each with one client that calls with the same secret share."""

    def __init__(
        self,
        *,
        hadoop_conf_dir: str | None = None,
        deadline_s: float,
        connect: Callable[[MountConfig], Client] = connect,
        connect_administration: Callable[[MountConfig], Admin] = connect_administration,
    ) -> None:
        """Connect to nothing yet.

        Args:
            hadoop_conf_dir: folder of core-site.xml and hdfs-site.xml; None takes HADOOP_CONF_DIR.
            deadline_s: how long one call may take.
            connect: makes a client of a configuration.
            connect_administration: likewise.
        """
        self._hadoop_conf_dir = hadoop_conf_dir
        self._deadline_s = deadline_s
        self._connect = connect
        self._connect_administration = connect_administration
        self._secret = NO_SECRET
        self._mutex = threading.Lock()
        self._known: dict[bytes, Filesystem] = {}

    def with_secret(self, secret: Secret) -> Self:
        """The same filesystems, reached as the secret of a call says.

        Raises:
            InvalidArgumentError: it asks for what this process can't do.
        """
        # Hadoop's clients take the user from the environment of their process, once.
        if secret.user not in (None, effective_user()):
            raise InvalidArgumentError(
                f"user: the controller acts on HDFS as {effective_user()!r}, and can't be the user that its secret "
                "names; drop it there (the parameter owner gives directories away), or start the controller with "
                "HADOOP_USER_NAME"
            )
        # The Kerberos library has one for the whole process, and one volume's must not say where others log in.
        if secret.kerberos is not None and secret.kerberos.krb5_conf is not None:
            raise InvalidArgumentError(
                "krb5.conf: the controller has one for all volumes; mount it into its pod, where KRB5_CONFIG says, and "
                "give the controller a secret without it"
            )
        other = copy.copy(self)  # with the same clients and their lock
        other._secret = secret  # noqa: SLF001
        return other

    def get(self, filesystem: str) -> Filesystem:
        """The filesystem with this URI (Location.filesystem).

        Raises:
            InvalidArgumentError: Hadoop's configuration does not know it.
        """
        config = MountConfig(
            uri=f"{filesystem}/",
            hadoop_conf_dir=self._hadoop_conf_dir,
            hadoop_properties=dict(sorted(self._secret.hadoop_properties.items())),
            kerberos=self._secret.kerberos,
            call_deadline_s=self._deadline_s,
        )
        key = config.to_json()
        with self._mutex:
            # Taken out and put back, so that the first one is always the one unused for longest.
            found = self._known.pop(key, None)
            if found is None:
                administration = self._connect_administration(config)
                found = Filesystem(filesystem, self._connect(config), administration, self._deadline_s)
            self._known[key] = found
            if len(self._known) > MAX_FILESYSTEMS:
                self._known.pop(next(iter(self._known))).close()
            return found
