"""A mount of this test alone, made as the CSI node makes it, and unmounted whatever happens."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdfs_fuse.config import CacheConfig, MountConfig, StagingConfig
from hdfs_fuse.mounter import mounts, stats
from hdfs_fuse.mounter.mounter import Mounter
from hdfs_fuse.mounter.supervisor import Supervisor, stats_path

from tests.support.daemons import FORKS

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 64 * KIB  # the smallest, so that small files have several


@dataclass(frozen=True, slots=True)
class Mounted:
    """A running mount."""

    path: Path
    cache: Path
    mounter: Mounter
    runtime_dir: str
    log: Path

    def stats(self) -> dict[str, Any]:
        """What the daemon counts."""
        entry = mounts.find(str(self.path))
        assert entry is not None
        return stats.fetch(stats_path(self.runtime_dir, entry.device))

    def drop_pages(self, name: str) -> None:
        """Have the kernel forget the content of a file, so that it asks the daemon again."""
        with (self.path / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def block_files(self) -> list[Path]:
        """The files of the cache's blocks."""
        return [path for path in self.cache.glob("v2/???/*") if path.is_file()]


@contextmanager
def mounted_writable(
    uri: str, directory: Path, *, staging_size_bytes: int = 10 << 30, **options: Any
) -> Iterator[Mounted]:
    """As `mounted`, but for changes; what is staged is below `directory` too."""
    staging = StagingConfig(directory=str(directory / "staging"), size_bytes=staging_size_bytes)
    with mounted(uri, directory, read_only=False, staging=staging, **options) as mount:
        yield mount


@contextmanager
def mounted(
    uri: str, directory: Path, cache: Path | None = None, *, cache_size_bytes: int = 10 << 30, **options: Any
) -> Iterator[Mounted]:
    """Mount `uri` below `directory` with blocks of 64 KiB and no metadata lifetime unless `options` say otherwise."""
    mountpoint = directory / "mnt"
    mountpoint.mkdir(parents=True, exist_ok=True)
    cache = cache or directory / "cache"
    defaults: dict[str, Any] = {"metadata_ttl_s": 0.0, "call_deadline_s": 30.0}
    config = MountConfig(
        uri=uri,
        cache=CacheConfig(directory=str(cache), block_size_bytes=BLOCK, size_bytes=cache_size_bytes, min_free_bytes=0),
        **{**defaults, **options},
    )
    # Socket paths may have 107 bytes, and pytest's own directories are long.
    with tempfile.TemporaryDirectory(prefix="hf-") as runtime:
        mounter = Mounter(Supervisor(runtime, str(directory / "daemon.log"), FORKS))
        try:
            mounter.mount(config, str(mountpoint), deadline_s=60)
            yield Mounted(mountpoint, cache, mounter, runtime, directory / "daemon.log")
        finally:
            mounter.unmount(str(mountpoint), force=True, deadline_s=30)
