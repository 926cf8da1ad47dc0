"""What lies below the staged bytes of drafts: the version that HDFS has, or the part of a stream that was given up."""

from dataclasses import replace

import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import FileChangedError, NotFoundError
from hdfs_fuse.hidden import name_of_part
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.writing.draft import Draft


class Bases:
    """The bases of drafts. Belongs to the event loop; whoever changes a base holds the draft's lock."""

    def __init__(
        self, config: MountConfig, backend: ResilientBackend, inodes: InodeTable, calls: Calls, metrics: Metrics
    ) -> None:
        """Open bases.

        Args:
            config: says how long a file's attributes are believed.
            backend: where bases are.
            inodes: says where a file is now.
            calls: for the backend.
            metrics: what is counted.
        """
        self._config = config
        self._backend = backend
        self._inodes = inodes
        self._calls = calls
        self._metrics = metrics

    def of(self, inode: Inode) -> OpenFile:
        """The version that HDFS has of a file that nobody has changed yet."""
        return OpenFile(self._backend, self._inodes.path_of(inode), inode.status, self._metrics)

    def set(self, draft: Draft, status: FileStatus, base_bytes: int) -> None:
        """Replace the base of a draft.

        Args:
            draft: the file.
            status: the new base, which is at the file's path, or is its part.
            base_bytes: how much of it counts.
        """
        if draft.base is not None:
            draft.base.close()
        draft.base = OpenFile(self._backend, self._path(draft), status, self._metrics)
        draft.base_bytes = base_bytes

    def follow(self, draft: Draft) -> None:
        """Directories or files have been renamed: unchanged bytes are read from where the base is now."""
        if draft.base is not None:
            draft.base.path = self._path(draft)

    def _path(self, draft: Draft) -> str:
        return self._inodes.path_of(draft.inode) if draft.part is None else self._inodes.path_in(*draft.part)

    async def take_part(self, draft: Draft, path: str, base_bytes: int) -> None:
        """Make the sibling of a draft, which is complete, its part, and that the base; the sibling's name is free then.

        Args:
            draft: the file.
            path: of the sibling.
            base_bytes: how much of it counts.

        Raises:
            FileChangedError: it is shorter. HdfsFuseError: not now; it may be tried again.
        """
        assert draft.sibling is not None
        # The same name at each attempt: one that took too long may have been made all the same.
        draft.next_part = draft.next_part or name_of_part()
        part = draft.sibling[0], draft.next_part
        part_path = self._inodes.path_in(*part)
        try:
            status = await self._calls.run(self._backend.status, path)
        except NotFoundError:
            status = await self._calls.run(self._backend.status, part_path)
        if status.length_bytes < base_bytes:
            raise FileChangedError(f"{path}: has {status.length_bytes} of {base_bytes} bytes that it had")
        if status.name != draft.next_part:
            await self._calls.run(lambda: self._backend.rename(path, part_path, overwrite=False))
        self.drop_part(draft)
        draft.part, draft.next_part = part, ""
        draft.sibling, draft.sibling_is_ours, draft.is_to_check = None, False, True
        self.set(draft, status, base_bytes)

    def drop_part(self, draft: Draft) -> None:
        """Remove the part of a stream, if the draft has one: it is needed no more."""
        if draft.part is not None:
            (parent, _), path = draft.part, self._inodes.path_in(*draft.part)
            draft.part = None
            self._calls.start(lambda: self._backend.delete(path, recursive=False), lambda _: None)
            parent.children -= 1
            self._inodes.release(parent)

    def stored(self, draft: Draft, length_bytes: int, mtime_ms: int, *, published_bytes: int) -> None:
        """HDFS has what was changed, under the file's name: that is the base now.

        Args:
            draft: the file.
            length_bytes: as HDFS has it.
            mtime_ms: likewise.
            published_bytes: how much of it is counted as published by this.
        """
        inode = draft.inode
        self._metrics.published_bytes += published_bytes
        self._metrics.published_count += 1
        draft.is_dirty = False
        draft.mtime_ms = draft.atime_ms = None
        draft.stored_bytes = draft.tried_bytes = length_bytes
        inode.status = replace(inode.status, length_bytes=length_bytes, mtime_ms=mtime_ms, mode=draft.mode)
        inode.expires_s = trio.current_time() + self._config.metadata_ttl_s
        # What the kernel has is what was written; and who wrote a file has been let in.
        inode.page_cache_version = inode.readable_version = inode.version
        self.set(draft, inode.status, length_bytes)
        draft.named = inode.status
