"""What READs of an open file go to, whatever its length, and what all readers of a mount use."""

from dataclasses import dataclass
from typing import Protocol

from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile

# A block can fail to be had because its load was cancelled, or its file was damaged, in between; not for ever.
ATTEMPTS = 3


class Reader(Protocol):
    """The READs of one open file.

    Attributes:
        file: the version that is read.
        length_bytes: of that version.
        content: all of it, where it is at hand in one piece.
    """

    file: OpenFile
    length_bytes: int
    content: bytes | None

    async def check_readable(self) -> None:
        """Have the NameNode decide whether this identity may read the file.

        Raises:
            PermissionDeniedError: it may not. FileChangedError: it is another version now.
        """
        ...

    async def read(self, start: int, size: int) -> bytes | memoryview:
        """At most `size` bytes from `start`, fewer only at the end of the file.

        Raises:
            HdfsFuseError: they can't be had. Never fewer bytes instead.
        """
        ...

    def close(self) -> None:
        """End the read-ahead and free the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all readers of a mount use.

    Attributes:
        cluster: name of the filesystem, part of the cache's keys.
        config: read-ahead and streams.
        cache: the mount's blocks.
        calls: for reads that go to the filesystem directly.
        metrics: what is counted.
    """

    cluster: str
    config: MountConfig
    cache: BlockCache
    calls: Calls
    metrics: Metrics

    def count(self, is_hit: bool, size_bytes: int) -> None:
        """Count a block or small file that an open file came to."""
        if is_hit:
            self.metrics.hit_count += 1
            self.metrics.cache_bytes += size_bytes
        else:
            self.metrics.miss_count += 1
