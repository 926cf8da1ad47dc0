"""The benchmark's data: how much of what, put into HDFS and onto the local disk alike."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.perf.contenders import drop_pages_below
from tests.support.dataset import MIB, DataFile, images, make_directories, shards, upload, write_local

ROOT = "/bench"
LISTED = "listed"
WRITTEN = "written"

_SHARD_BYTES = 8 * MIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is of everything.

    Attributes:
        big_bytes: the one large file.
        shards: files of 8 MiB; half of them fit into the cache of the two passes.
        images: files of 4 KiB; a quarter of them is read by one thread, the others by 16.
        entries: of the large directory.
        random_reads: in one file; so few that hardly any block is asked for seven times, and then fetched whole.
        created_alone, created_together: small files created by one thread and by 16; hdfs-native takes 0.5 s each.
    """

    big_bytes: int = 1024 * MIB
    shards: int = 64
    images: int = 4000
    entries: int = 20_000
    random_reads: int = 400
    created_alone: int = 10
    created_together: int = 160


QUICK = Sizes(
    big_bytes=256 * MIB, shards=24, images=800, entries=4000, random_reads=100, created_alone=5, created_together=80
)


class Data:
    """Which files there are, by relative path."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._big = shards(1, sizes.big_bytes, "big")
        self._shards = shards(sizes.shards, _SHARD_BYTES)
        self._images = images(sizes.images)
        self.checksums: dict[str, str] = {}

    @property
    def big(self) -> str:
        """The large file."""
        return self._big[0].path

    @property
    def shards(self) -> list[str]:
        """The files of 8 MiB."""
        return [file.path for file in self._shards]

    @property
    def shard_bytes(self) -> int:
        """All of them together."""
        return _SHARD_BYTES * self.sizes.shards

    @property
    def images(self) -> list[str]:
        """The files of 4 KiB."""
        return [file.path for file in self._images]

    @property
    def images_alone(self) -> list[str]:
        """The images that one thread reads; all directories are in."""
        return self.images[: len(self._images) // 4]

    @property
    def images_together(self) -> list[str]:
        """The images that 16 threads read."""
        return self.images[len(self._images) // 4 :]

    @property
    def _files(self) -> list[DataFile]:
        return [*self._big, *self._shards, *self._images]

    @property
    def size_bytes(self) -> int:
        """Everything together."""
        return sum(file.size_bytes for file in self._files)

    def put(
        self, uri: str, directory: Path, on_bytes: Callable[[int], object], on_entry: Callable[[int], object]
    ) -> None:
        """Write everything into HDFS below ROOT and below `directory`.

        Args:
            uri: of the filesystem.
            directory: exists.
            on_bytes: hears of bytes written, from any thread; twice `size_bytes` altogether.
            on_entry: hears of directory entries made.
        """
        write_local(directory, self._files, on_bytes)
        for i in range(self.sizes.entries):
            (directory / LISTED / f"entry-{i:07d}").mkdir(parents=True)
        (directory / WRITTEN).mkdir()
        drop_pages_below(directory)  # they are on the disk from here on, and can be dropped again
        make_directories(uri, f"{ROOT}/{WRITTEN}", 0, on_entry)
        make_directories(uri, f"{ROOT}/{LISTED}", self.sizes.entries, on_entry)
        self.checksums = upload(uri, ROOT, self._files, on_bytes)
