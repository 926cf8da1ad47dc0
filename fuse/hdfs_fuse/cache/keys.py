"""Names of cached blocks: what version of which file, which part of it.

A changed file gets other names, so nothing in the cache is ever updated in place.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of one file.

    Attributes:
        cluster: the filesystem's URI, the same on every mount of it.
        path: absolute path in that filesystem.
        mtime_ms: modification time, milliseconds since the epoch.
        length_bytes: content length.
    """

    cluster: str
    path: str
    mtime_ms: int
    length_bytes: int


class BlockKey(NamedTuple):
    """A block: its name in the cache directory (32 hex digits) and its length in bytes."""

    name: str
    length_bytes: int


class BlockKeys:
    """The blocks of one file version, each `block_size_bytes` long but for a shorter last one."""

    __slots__ = ("_file_digest", "block_size_bytes", "length_bytes")

    def __init__(self, version: FileVersion, block_size_bytes: int) -> None:
        fields = (version.cluster, version.path, version.mtime_ms, version.length_bytes, block_size_bytes)
        # NUL can stand in none of the fields, so two versions never give the same text. A local name that is not UTF-8
        # has surrogates.
        text = "\0".join(map(str, fields)).encode("utf-8", "surrogatepass")
        self._file_digest = blake2b(text, digest_size=32).digest()
        self.block_size_bytes = block_size_bytes
        self.length_bytes = version.length_bytes

    def __len__(self) -> int:
        return (self.length_bytes + self.block_size_bytes - 1) // self.block_size_bytes

    def __getitem__(self, index: int) -> BlockKey:
        start = index * self.block_size_bytes
        if not 0 <= start < self.length_bytes:
            raise IndexError(index)
        name = blake2b(self._file_digest + index.to_bytes(8, "little"), digest_size=16).hexdigest()
        return BlockKey(name, min(self.block_size_bytes, self.length_bytes - start))
