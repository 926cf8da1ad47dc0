"""A data set as training reads it: many small images and a few large files, the same bytes at every run.

Demo and benchmark put it into HDFS and know from then on which SHA-256 each file must have.
"""

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import hdfs_native

T = TypeVar("T")
R = TypeVar("R")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

IMAGE_BYTES = 4 * KIB
CLASSES = ("cat", "dog", "fox", "owl")

# One small file takes hdfs-native 0.4 s, nearly all of it asleep (its `complete` comes before the DataNode's report).
UPLOAD_THREADS = 64

# PGM: 63 x 64 grey pixels make 4032 bytes, and a comment in the header fills up to 4096.
_IMAGE_WIDTH, _IMAGE_HEIGHT = 63, 64
_PIECE_BYTES = MIB
_NOISE_BYTES = 8 * MIB
# Odd and larger than a page: no two pieces of a file begin at the same place of the noise before 7 TiB.
_NOISE_STEP_BYTES = 4099


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of the data set; its bytes follow from these two.

    Attributes:
        path: relative to the root of the data set; `.pgm` is an image.
        size_bytes: length.
    """

    path: str
    size_bytes: int

    def content(self) -> Iterator[bytes]:
        """Its bytes, in pieces of up to 1 MiB."""
        if self.path.endswith(".pgm"):
            yield _image(self.path)
            return
        noise, span = _noise(), _NOISE_BYTES - _PIECE_BYTES
        place = int.from_bytes(hashlib.sha256(self.path.encode()).digest()[:4], "little")
        for start in range(0, self.size_bytes, _PIECE_BYTES):
            place = (place + _NOISE_STEP_BYTES) % span
            yield noise[place : place + min(_PIECE_BYTES, self.size_bytes - start)]


def images(count: int, directory: str = "train") -> list[DataFile]:
    """`count` small images, spread over the directories of CLASSES below `directory`."""
    return [DataFile(f"{directory}/{CLASSES[i % len(CLASSES)]}/{i:06d}.pgm", IMAGE_BYTES) for i in range(count)]


def shards(count: int, size_bytes: int, directory: str = "shards") -> list[DataFile]:
    """`count` files of `size_bytes`."""
    return [DataFile(f"{directory}/part-{i:05d}.bin", size_bytes) for i in range(count)]


def upload(uri: str, root: str, files: Sequence[DataFile], on_bytes: Callable[[int], object]) -> dict[str, str]:
    """Write `files` below `root` of the filesystem `uri`, UPLOAD_THREADS at once.

    Args:
        uri: `hdfs://host:port`.
        root: absolute path; made when missing.
        files: must not be there yet.
        on_bytes: called from any thread with the number of bytes that were just written.

    Returns:
        SHA-256 by the path of each file.
    """
    client = hdfs_native.Client(uri)
    for directory in sorted({str(Path(root, file.path).parent) for file in files}):
        client.mkdirs(directory, 0o755, True)

    def write(file: DataFile) -> str:
        digest = hashlib.sha256()
        writer = client.create(f"{root}/{file.path}")
        for piece in file.content():
            writer.write(piece)
            digest.update(piece)
            on_bytes(len(piece))
        writer.close()
        return digest.hexdigest()

    # The largest first: they take longest, and the small ones fill the time.
    order = sorted(files, key=lambda file: -file.size_bytes)
    with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
        return dict(zip((file.path for file in order), _all(pool, write, order), strict=True))


def write_local(directory: Path, files: Sequence[DataFile], on_bytes: Callable[[int], object]) -> None:
    """Write `files` below `directory`."""
    for parent in {(directory / file.path).parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    for file in files:
        with (directory / file.path).open("wb") as target:
            for piece in file.content():
                target.write(piece)
                on_bytes(len(piece))


def make_directories(uri: str, root: str, count: int, on_made: Callable[[int], object]) -> None:
    """Make `count` empty directories below `root`: entries of a large listing, at a tenth of the price of files."""
    client = hdfs_native.Client(uri)
    client.mkdirs(root, 0o755, True)

    def make(first: int) -> None:
        for i in range(first, min(first + 100, count)):
            client.mkdirs(f"{root}/entry-{i:07d}", 0o755, False)
            on_made(1)

    with ThreadPoolExecutor(16) as pool:
        deque(_all(pool, make, range(0, count, 100)), maxlen=0)


def _all(pool: ThreadPoolExecutor, call: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`pool.map`, whose remaining calls are not made any more after a failure or Ctrl-C."""
    futures: list[Future[R]] = [pool.submit(call, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _image(path: str) -> bytes:
    """A grey image of noise that is the path's own."""
    pixels = _IMAGE_WIDTH * _IMAGE_HEIGHT
    head, size = f"P5\n# {path} ", f"\n{_IMAGE_WIDTH} {_IMAGE_HEIGHT}\n255\n"
    header = head + "." * (IMAGE_BYTES - pixels - len(head) - len(size)) + size
    return header.encode("ascii") + random.Random(path).randbytes(pixels)


@cache
def _noise() -> bytes:
    return random.Random("noise").randbytes(_NOISE_BYTES)
