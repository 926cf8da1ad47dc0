"""What is behind a mount, seen by another client, and the errno that an action fails with."""

import contextlib
from collections.abc import Callable

from hdfs_fuse.backend import ResilientBackend, connect, resolve
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import FileChangedError, HdfsFuseError


class Behind:
    """The filesystem behind a mount, seen by another client."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        config = MountConfig(uri=uri)
        self._backend: ResilientBackend = connect(config)
        self._root = resolve(config).path

    def names(self, directory: str = "") -> list[str]:
        """All names, hidden ones too."""
        return sorted(entry.name for entry in self._backend.list(f"{self._root}/{directory}".rstrip("/")))

    def content(self, name: str) -> bytes:
        """Content of a file, as soon as HDFS shows all of it."""
        while True:
            status = self._backend.status(f"{self._root}/{name}")
            # Completing a file changes its time for a moment.
            with contextlib.suppress(FileChangedError):
                return self._backend.open(f"{self._root}/{name}", status).read(0, status.length_bytes)

    def mode(self, name: str) -> int:
        return self._backend.status(f"{self._root}/{name}").mode

    def mtime_ms(self, name: str) -> int:
        return self._backend.status(f"{self._root}/{name}").mtime_ms

    def xattrs(self, name: str) -> dict[str, bytes]:
        return self._backend.xattrs(f"{self._root}/{name}")

    @property
    def is_hdfs(self) -> bool:
        return self.uri.startswith("hdfs")

    def put(self, name: str, data: bytes) -> None:
        """Create or replace a file."""
        writer = self._backend.create(f"{self._root}/{name}", mode=0o644, overwrite=True)
        writer.write(data)
        writer.close()

    def owner(self, name: str) -> tuple[str, str]:
        """Owner and group."""
        found = self._backend.status(f"{self._root}/{name}")
        return found.owner, found.group

    def set_owner(self, name: str, owner: str, group: str) -> None:
        self._backend.set_owner(f"{self._root}/{name}", owner, group)

    def set_mtime_ms(self, name: str, mtime_ms: int) -> None:
        self._backend.set_times(f"{self._root}/{name}", mtime_ms=mtime_ms, atime_ms=None)

    def remove(self, name: str) -> None:
        assert self._backend.delete(f"{self._root}/{name}", recursive=False)

    def has(self, name: str) -> bool:
        try:
            self._backend.status(f"{self._root}/{name}")
        except HdfsFuseError:
            return False
        return True


def code(action: Callable[[], object]) -> int | None:
    """The errno that `action` fails with; None for success."""
    try:
        action()
    except OSError as e:
        return e.errno
    return None
