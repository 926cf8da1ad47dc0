"""READs of a file that is one block and one request: read whole, kept whole while it is open."""

from collections.abc import Callable

from hdfs_fuse.cache.blocks import CachedBlock
from hdfs_fuse.cache.content import LoadCancelledError
from hdfs_fuse.cache.keys import BlockKey, BlockKeys, FileVersion
from hdfs_fuse.cache.small import SmallFile
from hdfs_fuse.errors import HdfsFuseError
from hdfs_fuse.open_file import OpenFile
from hdfs_fuse.reader import ATTEMPTS, Shared


class SmallReader:
    """The READs of one handle of a small file; see reader.Reader. Belongs to the event loop."""

    __slots__ = ("_key", "_shared", "content", "file", "length_bytes")

    def __init__(self, file: OpenFile, shared: Shared) -> None:
        """Read `file`, of at most MountConfig.small_file_bytes."""
        self.file = file
        self.length_bytes = file.status.length_bytes
        self.content: bytes | None = None if self.length_bytes else b""
        self._shared = shared
        self._key: BlockKey | None = None

    async def check_readable(self) -> None:
        """See reader.Reader; the content comes along, in the same thread."""
        block = None
        for _ in range(ATTEMPTS if self.length_bytes else 0):
            block = self._load(check=self.file.open)
            try:
                self.content = await self._content_of(block)
            except LoadCancelledError:
                continue  # it was that of a handle which has been closed
            except HdfsFuseError:
                if not block.is_checked:
                    raise
            return
        await self._shared.calls.run(self.file.open)

    async def read(self, start: int, size: int) -> bytes:
        """See reader.Reader."""
        if self.content is None:
            self.content = self._shared.cache.read_small_nowait(self._block_key())
            if self.content is not None:
                self._shared.count(True, self.length_bytes)
            else:
                self.content = await self._read_whole()
        return self.content[start : start + size]

    async def _read_whole(self) -> bytes:
        for _ in range(ATTEMPTS):
            try:
                return await self._content_of(self._load())
            except LoadCancelledError:
                continue
        return await self._shared.calls.run(self.file.read, 0, self.length_bytes)

    def _load(self, check: Callable[[], object] | None = None) -> CachedBlock:
        file = SmallFile(self.file.path, self.file.status.mtime_ms, self.file.read, check)
        return self._shared.cache.load_small(self._block_key(), file)

    async def _content_of(self, block: CachedBlock) -> bytes:
        content = await block.wait_filled(self.length_bytes)
        self._shared.count(block.from_disk, self.length_bytes)
        return content.copy(0, self.length_bytes)

    def _block_key(self) -> BlockKey:
        if self._key is None:
            version = FileVersion(self._shared.cluster, self.file.path, self.file.status.mtime_ms, self.length_bytes)
            self._key = BlockKeys(version, self._shared.config.cache.block_size_bytes)[0]
        return self._key

    def close(self) -> None:
        """See reader.Reader."""
        self.file.close()
