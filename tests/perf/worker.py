"""A client of the benchmark, a process of its own: does the jobs that come on stdin, answers on stdout.

All clients do the same jobs in the same loops, whether through a mount, a local directory, or an HDFS client
library; what differs is how bytes are had. Threads share Python's lock, for all of them alike.
"""

import hashlib
import mmap
import os
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import msgspec

from tests.perf import jobs

_MIB = 1 << 20
# As large as the reads of cp and cat on today's systems, and what pyarrow streams fastest with.
_READ_BYTES = _MIB
_WRITE_BYTES = _MIB


def _aligned(size_bytes: int) -> memoryview:
    """A buffer that begins with a page, as those of cp and cat do.

    Those of malloc(3) begin 16 bytes later. Processors that copy with "rep movs" are six times slower then when the
    other side begins with a page (AMD EPYC: 0.6 s a GiB and 0.09), and such copying is what is measured here.
    """
    return memoryview(mmap.mmap(-1, size_bytes))


class Access(Protocol):
    """A way to the bytes of files."""

    def stream(self, path: str) -> Iterator[int]:
        """Read a file from beginning to end; yields how many bytes each step brought."""
        ...

    def hash(self, path: str) -> str:
        """The SHA-256 of a file."""
        ...

    def read_small(self, path: str) -> int:
        """Open, read whole and close a small file; how many bytes came."""
        ...

    def positioned(self, path: str) -> Callable[[int, int], int]:
        """Open a file; gives read(offset, size), which says how many bytes came."""
        ...

    def first_bytes(self, path: str, size_bytes: int) -> int:
        """Open a file, read its beginning and close it; how many bytes came."""
        ...

    def list(self, path: str) -> int:
        """List a directory with attributes; how many entries it has."""
        ...

    def drop(self, path: str) -> None:
        """Give back the kernel's pages of a file."""
        ...

    def write(self, path: str, chunks: Iterator[bytes]) -> None:
        """Create a file, write it and close it."""
        ...

    def append(self, path: str) -> "Appender":
        """Create a file that is appended to."""
        ...


class Appender(Protocol):
    """A file that grows."""

    def append(self, data: bytes) -> None:
        """Add to the file; it is stored when this returns."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class FileAppender:
    """A file by plain system calls."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append(self, data: bytes) -> None:
        """See Appender."""
        os.write(self._fd, data)
        os.fsync(self._fd)

    def close(self) -> None:
        """See Appender."""
        os.close(self._fd)


class SyncedAppender:
    """A writer of a client library, and how it stores what was written."""

    def __init__(self, writer: Any, sync: Callable[[], object]) -> None:
        self._writer = writer
        self._sync = sync

    def append(self, data: bytes) -> None:
        """See Appender."""
        self._writer.write(data)
        self._sync()

    def close(self) -> None:
        """See Appender."""
        self._writer.close()


class FilesAccess:
    """Files of a mounted or local filesystem, by plain system calls."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._local = threading.local()

    def _buffer(self) -> memoryview:
        # One for each thread and used again, so that its pages are there: fresh memory is expensive on some machines.
        if not hasattr(self._local, "buffer"):
            self._local.buffer = _aligned(_READ_BYTES)
        return self._local.buffer  # type: ignore[no-any-return]

    def _open(self, path: str) -> int:
        return os.open(f"{self._root}/{path}", os.O_RDONLY | os.O_CLOEXEC)

    def stream(self, path: str) -> Iterator[int]:
        """See Access."""
        buffer = [self._buffer()]
        descriptor = self._open(path)
        try:
            while count := os.readv(descriptor, buffer):
                yield count
        finally:
            os.close(descriptor)

    def hash(self, path: str) -> str:
        """See Access."""
        with open(f"{self._root}/{path}", "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read_small(self, path: str) -> int:
        """See Access."""
        size = 0
        descriptor = self._open(path)
        try:
            while count := len(os.read(descriptor, 64 << 10)):
                size += count
        finally:
            os.close(descriptor)
        return size

    def positioned(self, path: str) -> Callable[[int, int], int]:
        """See Access; the descriptor is freed with the process or at the next call."""
        file = open(f"{self._root}/{path}", "rb", buffering=0)  # noqa: SIM115
        return lambda offset, size: len(os.pread(file.fileno(), size, offset))

    def first_bytes(self, path: str, size_bytes: int) -> int:
        """See Access."""
        descriptor = self._open(path)
        try:
            return len(os.read(descriptor, size_bytes))
        finally:
            os.close(descriptor)

    def list(self, path: str) -> int:
        """See Access."""
        with os.scandir(f"{self._root}/{path}") as entries:
            return sum(1 for entry in entries if entry.stat(follow_symlinks=False))

    def drop(self, path: str) -> None:
        """See Access."""
        descriptor = self._open(path)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

    def write(self, path: str, chunks: Iterator[bytes]) -> None:
        """See Access."""
        with open(f"{self._root}/{path}", "wb", buffering=0) as file:
            file.writelines(chunks)

    def append(self, path: str) -> Appender:
        """See Access."""
        return FileAppender(f"{self._root}/{path}")


class NativeAccess:
    """hdfs-native: its fastest way for each job."""

    def __init__(self, root: str) -> None:
        import hdfs_native  # noqa: PLC0415 - other clients must not pay for it

        scheme, _, rest = root.partition("://")
        authority, _, path = rest.partition("/")
        self._client = hdfs_native.Client(f"{scheme}://{authority}")
        self._root = f"/{path}"

    def stream(self, path: str) -> Iterator[int]:
        """See Access."""
        return map(len, self._chunks(path))

    def _chunks(self, path: str) -> Iterator[bytes]:
        reader = self._client.read(f"{self._root}/{path}")
        return reader.read_range_stream(0, len(reader))

    def hash(self, path: str) -> str:
        """See Access."""
        digest = hashlib.sha256()
        for chunk in self._chunks(path):
            digest.update(chunk)
        return digest.hexdigest()

    def read_small(self, path: str) -> int:
        """See Access."""
        reader = self._client.read(f"{self._root}/{path}")
        return len(reader.read_range(0, len(reader)))

    def positioned(self, path: str) -> Callable[[int, int], int]:
        """See Access."""
        reader = self._client.read(f"{self._root}/{path}")
        return lambda offset, size: len(reader.read_range(offset, size))

    def first_bytes(self, path: str, size_bytes: int) -> int:
        """See Access."""
        reader = self._client.read(f"{self._root}/{path}")
        return len(reader.read_range(0, min(size_bytes, len(reader))))

    def list(self, path: str) -> int:
        """See Access."""
        return sum(1 for _ in self._client.list_status(f"{self._root}/{path}"))

    def drop(self, path: str) -> None:
        """See Access; this client keeps nothing."""

    def write(self, path: str, chunks: Iterator[bytes]) -> None:
        """See Access."""
        with self._client.create(f"{self._root}/{path}") as file:
            for chunk in chunks:
                file.write(chunk)

    def append(self, path: str) -> Appender:
        """See Access."""
        writer = self._client.create(f"{self._root}/{path}")
        return SyncedAppender(writer, writer.hsync)


class ArrowAccess:
    """pyarrow's HadoopFileSystem: a JVM in this process."""

    def __init__(self, root: str) -> None:
        from pyarrow import fs  # noqa: PLC0415 - other clients must not pay for it

        authority, _, path = root.partition("://")[2].partition("/")
        host, _, port = authority.partition(":")
        self._selector = fs.FileSelector
        self._fs: Any = fs.HadoopFileSystem(host, int(port))
        self._root = f"/{path}"

    def stream(self, path: str) -> Iterator[int]:
        """See Access."""
        buffer = _aligned(_READ_BYTES)
        with self._fs.open_input_stream(f"{self._root}/{path}", buffer_size=0) as file:
            while count := file.readinto(buffer):
                yield count

    def hash(self, path: str) -> str:
        """See Access."""
        digest = hashlib.sha256()
        with self._fs.open_input_stream(f"{self._root}/{path}", buffer_size=0) as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def read_small(self, path: str) -> int:
        """See Access."""
        with self._fs.open_input_stream(f"{self._root}/{path}", buffer_size=0) as file:
            return len(file.read(64 << 10))

    def positioned(self, path: str) -> Callable[[int, int], int]:
        """See Access."""
        file = self._fs.open_input_file(f"{self._root}/{path}")
        return lambda offset, size: len(file.read_at(size, offset))

    def first_bytes(self, path: str, size_bytes: int) -> int:
        """See Access."""
        with self._fs.open_input_stream(f"{self._root}/{path}", buffer_size=0) as file:
            return len(file.read(size_bytes))

    def list(self, path: str) -> int:
        """See Access."""
        return len(self._fs.get_file_info(self._selector(f"{self._root}/{path}")))

    def drop(self, path: str) -> None:
        """See Access; this client keeps nothing."""

    def write(self, path: str, chunks: Iterator[bytes]) -> None:
        """See Access."""
        with self._fs.open_output_stream(f"{self._root}/{path}", buffer_size=0) as file:
            for chunk in chunks:
                file.write(chunk)

    def append(self, path: str) -> Appender:
        """See Access."""
        writer = self._fs.open_output_stream(f"{self._root}/{path}", buffer_size=0)
        return SyncedAppender(writer, writer.flush)


ACCESS: dict[str, Callable[[str], Access]] = {"files": FilesAccess, "native": NativeAccess, "arrow": ArrowAccess}


def do(access: Access, job: jobs.AnyJob) -> jobs.Answer:
    """Do one job and time it."""
    count = size_bytes = 0
    each_s: list[float] = []
    digests: dict[str, str] = {}
    written: dict[str, int] = {}
    cpu_s, started = time.process_time(), time.perf_counter()
    match job:
        case jobs.Sequential(paths, drop):
            for path in paths:
                size_bytes += sum(access.stream(path))
                if drop:
                    access.drop(path)
            count = len(paths)
        case jobs.Random(path, offsets, size):
            read = access.positioned(path)
            size_bytes = sum(read(offset, size) for offset in offsets)
            count = len(offsets)
        case jobs.Small(paths, threads):
            size_bytes = _in_threads(access.read_small, paths, threads)
            count = len(paths)
        case jobs.FirstBytes(paths, size):
            for path in paths:
                begun = time.perf_counter()
                size_bytes += access.first_bytes(path, size)
                each_s.append(time.perf_counter() - begun)
            count = len(paths)
        case jobs.Listing(path):
            count = access.list(path)
        case jobs.Drop(paths):
            for path in paths:
                access.drop(path)
        case jobs.Digest(paths):
            digests = {path: access.hash(path) for path in paths}
        case jobs.Write(directory, size_bytes):
            path = _new_path(directory)
            access.write(path, _chunks(size_bytes))
            count, written = 1, {path: size_bytes}
        case jobs.Create(directory, count, size, threads):
            written = {_new_path(directory): size for _ in range(count)}
            size_bytes = _in_threads(lambda path: _create(access, path, size), list(written), threads)
        case jobs.Append(directory, count, size):
            path, data = _new_path(directory), os.urandom(size)
            written = {path: count * size}
            file = access.append(path)
            for _ in range(count):
                begun = time.perf_counter()
                file.append(data)
                each_s.append(time.perf_counter() - begun)
            file.close()
            size_bytes = count * size
    return jobs.Answer(
        duration_s=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_s,
        count=count,
        size_bytes=size_bytes,
        each_s=each_s,
        digests=digests,
        written=written,
    )


def _new_path(directory: str) -> str:
    return f"{directory}/{uuid.uuid4().hex}"


def _chunks(size_bytes: int) -> Iterator[bytes]:
    chunk = os.urandom(_WRITE_BYTES)
    for at in range(0, size_bytes, _WRITE_BYTES):
        yield chunk[: min(_WRITE_BYTES, size_bytes - at)]


def _create(access: Access, path: str, size_bytes: int) -> int:
    access.write(path, iter([bytes(size_bytes)]))
    return size_bytes


def _in_threads(read: Callable[[str], int], paths: Sequence[str], threads: int) -> int:
    """Read all paths, each thread its share; the sum of what came."""

    def read_share(first: int) -> int:
        return sum(map(read, paths[first::threads]))

    if threads == 1:
        return read_share(0)
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(read_share, range(threads)))


def main() -> None:
    """Do jobs until stdin ends. Arguments: the kind of access, and its root."""
    kind, root = sys.argv[1:]
    # Answers have a descriptor of their own: libraries, and the JVM, write to stdout as they please.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    decoder, encoder = msgspec.json.Decoder(jobs.AnyJob), msgspec.json.Encoder()
    access = ACCESS[kind](root)
    for line in sys.stdin.buffer:
        try:
            answer = do(access, decoder.decode(line))
        except Exception as e:  # noqa: BLE001 - whatever it is, the bench must hear of it
            traceback.print_exc()
            answer = jobs.Answer(error=f"{type(e).__name__}: {e}")
        answers.write(encoder.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
