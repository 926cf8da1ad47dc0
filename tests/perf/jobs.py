"""What a benchmark asks its clients to do, and what they answer: the records between bench and worker.py."""

import msgspec


class Job(msgspec.Struct, frozen=True, tag_field="job"):
    """One thing to do and time. Paths are relative to the client's root."""


class Sequential(Job, frozen=True, tag=True):
    """Read files from beginning to end, one after the other.

    Attributes:
        paths: which.
        drop: give back the kernel's pages after each file, so that reading it again asks the filesystem.
    """

    paths: list[str]
    drop: bool = False


class Random(Job, frozen=True, tag=True):
    """Read `size_bytes` at each of `offsets`, one at a time, from one open file."""

    path: str
    offsets: list[int]
    size_bytes: int


class Small(Job, frozen=True, tag=True):
    """Open, read whole and close each file, `threads` at once."""

    paths: list[str]
    threads: int


class FirstBytes(Job, frozen=True, tag=True):
    """Open each file, read its first `size_bytes`, close it; each is timed."""

    paths: list[str]
    size_bytes: int


class Listing(Job, frozen=True, tag=True):
    """List a directory with the attributes of all entries."""

    path: str


class Drop(Job, frozen=True, tag=True):
    """Give back the kernel's pages of these files (posix_fadvise(2), POSIX_FADV_DONTNEED)."""

    paths: list[str]


class Digest(Job, frozen=True, tag=True):
    """The SHA-256 of each file."""

    paths: list[str]


class Write(Job, frozen=True, tag=True):
    """Create a file of so many bytes, from beginning to end, and close it.

    Attributes:
        directory: where, under a new name.
    """

    directory: str
    size_bytes: int


class Create(Job, frozen=True, tag=True):
    """Create, write and close small files under new names, `threads` at once."""

    directory: str
    count: int
    size_bytes: int
    threads: int


class Append(Job, frozen=True, tag=True):
    """Append to one new file again and again, and have it stored each time; each is timed."""

    directory: str
    count: int
    size_bytes: int


AnyJob = Sequential | Random | Small | FirstBytes | Listing | Drop | Digest | Write | Create | Append


class Answer(msgspec.Struct, frozen=True):
    """What doing a job took.

    Attributes:
        duration_s: from its beginning to its end.
        cpu_s: processor time of the client's process.
        count: files, reads or entries.
        size_bytes: how many bytes it got.
        each_s: durations of its parts, where they were timed.
        digests: SHA-256 by path, where it was asked for.
        written: length by path, of files that were written.
        error: what went wrong; empty when nothing did.
    """

    duration_s: float = 0.0
    cpu_s: float = 0.0
    count: int = 0
    size_bytes: int = 0
    each_s: list[float] = []
    digests: dict[str, str] = {}
    written: dict[str, int] = {}
    error: str = ""
