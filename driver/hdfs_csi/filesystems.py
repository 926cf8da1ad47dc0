"""The controller's way to HDFS: one client a filesystem, and a deadline on every call.

Owns clients and deadlines; knows nothing of volumes.
"""

import threading
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from hdfs_fuse.backend import connect
from hdfs_fuse.backend.base import Backend, FileStatus
from hdfs_fuse.backend.deadline import call_with_deadline
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import DeadlineError, NotDirectoryError, NotFoundError, UnavailableError

P = ParamSpec("P")
R = TypeVar("R")

# StorageClasses name few filesystems. The bound is against a CO that sends ever new ones in volume ids.
MAX_FILESYSTEMS = 32


class Client(Backend, Protocol):
    """A backend whose client can be thrown away when it hangs."""

    def discard_client(self) -> None:
        """Make a new client for the next call."""
        ...


class Filesystem:
    """One filesystem. Absence is an answer here, not an error."""

    def __init__(self, name: str, client: Client, deadline_s: float) -> None:
        """Put `deadline_s` on every call to `client`; `name` is for messages."""
        self._name = name
        self._client = client
        self._deadline_s = deadline_s

    def status(self, path: str) -> FileStatus | None:
        """Attributes of `path`; None when it is not there."""
        try:
            return self._call(self._client.status, path)
        except (NotFoundError, NotDirectoryError):
            return None

    def read_file(self, path: str) -> bytes | None:
        """The content of a small file; None when it is not there."""
        try:
            return self._call(self._read_whole, path)
        except (NotFoundError, NotDirectoryError):
            return None

    def write_file(self, path: str, data: bytes) -> None:
        """Put `data` into a small file, all or nothing; one that exists is replaced."""
        self._call(self._client.write_file, path, data)

    def make_directory(self, path: str, mode: int) -> None:
        """Make `path` with `mode`, and its parents; one that exists stays as it is."""
        self._call(self._client.make_directory, path, mode)

    def set_owner(self, path: str, owner: str | None, group: str | None) -> None:
        """Give `path` away; None leaves one of the two as it is."""
        self._call(self._client.set_owner, path, owner, group)

    def delete(self, path: str, *, recursive: bool) -> bool:
        """Remove `path`; False when it was not there."""
        try:
            return self._call(lambda: self._client.delete(path, recursive=recursive))
        except (NotFoundError, NotDirectoryError):
            return False

    def close(self) -> None:
        """Free the client."""
        self._client.close()

    def _read_whole(self, path: str) -> bytes:
        reader = self._client.open(path)
        try:
            return reader.read(0, reader.length_bytes)
        finally:
            reader.close()

    def _call(self, fn: Callable[P, R], *args: P.args, **_: P.kwargs) -> R:
        try:
            return call_with_deadline(fn, *args, deadline_s=self._deadline_s, on_timeout=self._client.discard_client)
        except DeadlineError as e:
            raise DeadlineError(f"{self._name}: no answer from HDFS within {self._deadline_s:g} s") from e
        except UnavailableError as e:
            raise UnavailableError(f"{self._name}: {e}") from e


class Filesystems:
    """The filesystems that were asked for, each with one client that calls share."""

    def __init__(
        self,
        *,
        hadoop_conf_dir: str | None = None,
        deadline_s: float,
        connect: Callable[[MountConfig], Client] = connect,
    ) -> None:
        """Connect to nothing yet.

        Args:
            hadoop_conf_dir: folder of core-site.xml and hdfs-site.xml; None takes HADOOP_CONF_DIR.
            deadline_s: how long one call may take.
            connect: makes a client of a configuration.
        """
        self._hadoop_conf_dir = hadoop_conf_dir
        self._deadline_s = deadline_s
        self._connect = connect
        self._mutex = threading.Lock()
        self._known: dict[str, Filesystem] = {}

    def get(self, filesystem: str) -> Filesystem:
        """The filesystem with this URI (Location.filesystem).

        Raises:
            InvalidArgumentError: Hadoop's configuration does not know it.
        """
        with self._mutex:
            # Taken out and put back, so that the first one is always the one unused for longest.
            found = self._known.pop(filesystem, None)
            if found is None:
                config = MountConfig(
                    uri=f"{filesystem}/", hadoop_conf_dir=self._hadoop_conf_dir, call_deadline_s=self._deadline_s
                )
                found = Filesystem(filesystem, self._connect(config), self._deadline_s)
            self._known[filesystem] = found
            if len(self._known) > MAX_FILESYSTEMS:
                self._known.pop(next(iter(self._known))).close()
            return found
