"""What is measured: workloads, each a few steps, each step done by all contenders before the next one.

So the readings that a ratio is made of lie seconds apart, and suffer alike from whatever else the machine does.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median

from hdfs_fuse.cache.reuse import TOUCH_INTERVAL_S

from tests.perf import jobs
from tests.perf.contenders import Contender, OurMount, Use
from tests.perf.data import LISTED, WRITTEN, Data

_PAGE = 4096


class Source(Enum):
    """Where the bytes of a step must come from; a reading from elsewhere is a mistake, and is reported."""

    HDFS = "HDFS"
    CACHE = "the block cache"
    PAGES = "the page cache"
    ANY = "anywhere"


class Unit(Enum):
    """What is reported of a step."""

    MB_S = "MB/s"
    FILES_S = "files/s"
    READS_S = "reads/s"
    ENTRIES_S = "entries/s"
    MS = "ms"
    HITS = "of the bytes"


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may use.

    Attributes:
        data: which files there are.
        random: the same sequence for all contenders of one step, another one in each repetition.
    """

    data: Data
    random: random.Random


Prepare = Callable[[Contender, Context], None]


def _nothing(_contender: Contender, _context: Context) -> None:
    """Leave the contender as the step before left it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to time.

    Attributes:
        name: unique in the workload.
        label: in the report.
        unit: what is reported.
        job: what the client does.
        prepare: brings the contender into the state in which it is timed.
        source: where the bytes must come from.
        needs: which contenders can do it.
    """

    name: str
    label: str
    unit: Unit
    job: Callable[[Context], jobs.AnyJob]
    prepare: Prepare = _nothing
    source: Source = Source.ANY
    needs: Callable[[Contender], bool] = field(default=lambda _: True)


@dataclass(frozen=True, slots=True)
class Workload:
    """Steps that build on each other.

    Attributes:
        name: for --only.
        title: in the report.
        steps: in order.
    """

    name: str
    title: str
    steps: tuple[Step, ...]


def _has_pages(contender: Contender) -> bool:
    return contender.has_pages


def _has_cache(contender: Contender) -> bool:
    return contender.has_cache


def _big(context: Context) -> list[str]:
    return [context.data.big]


def _cold(paths: Callable[[Context], Sequence[str]]) -> Prepare:
    return lambda contender, context: contender.become_cold(paths(context))


def _dropped(paths: Callable[[Context], Sequence[str]]) -> Prepare:
    return lambda contender, context: contender.drop_pages(paths(context))


def _remounted(contender: Contender, _context: Context) -> None:
    contender.remount(drop_disk_pages=False)


def _remounted_from_disk(contender: Contender, _context: Context) -> None:
    contender.remount(drop_disk_pages=True)


def _read_big(context: Context) -> jobs.AnyJob:
    return jobs.Sequential(_big(context))


def _hardly_cached(contender: Contender, context: Context) -> None:
    contender.become_cold(_big(context), context.data.sizes.big_bytes // 16)


def _is_bounded(contender: Contender) -> bool:
    # rclone looks at the size of its cache once a minute only.
    return isinstance(contender, OurMount)


SEQUENTIAL = Workload(
    "sequential",
    "one large file, from beginning to end",
    (
        Step("cold", "cold", Unit.MB_S, _read_big, _cold(_big), Source.HDFS),
        Step("pages", "again, from the page cache", Unit.MB_S, _read_big, source=Source.PAGES, needs=_has_pages),
        Step("blocks", "again, from the block cache", Unit.MB_S, _read_big, _dropped(_big), Source.CACHE, _has_cache),
        Step("remounted", "after a new mount", Unit.MB_S, _read_big, _remounted, Source.CACHE, _has_cache),
        Step(
            "disk",
            "after a new mount, cache on disk",
            Unit.MB_S,
            _read_big,
            _remounted_from_disk,
            Source.CACHE,
            _has_cache,
        ),
        Step(
            "passing", "cold, sixteen times the cache", Unit.MB_S, _read_big, _hardly_cached, Source.HDFS, _is_bounded
        ),
    ),
)


def _read_randomly(context: Context) -> jobs.AnyJob:
    pages = context.data.sizes.big_bytes // _PAGE
    offsets = [context.random.randrange(pages) * _PAGE for _ in range(context.data.sizes.random_reads)]
    return jobs.Random(context.data.big, offsets, _PAGE)


def _whole_file_cached(contender: Contender, context: Context) -> None:
    contender.do(jobs.Sequential(_big(context)))
    contender.drop_pages(_big(context))


RANDOM = Workload(
    "random",
    "4 KiB at random places of one large file, one at a time",
    (
        Step("cold", "cold", Unit.READS_S, _read_randomly, _cold(_big), Source.HDFS),
        Step(
            "blocks", "from the block cache", Unit.READS_S, _read_randomly, _whole_file_cached, Source.CACHE, _has_cache
        ),
    ),
)


def _images(context: Context) -> list[str]:
    return context.data.images


def _shuffled(context: Context, paths: list[str]) -> list[str]:
    return context.random.sample(paths, len(paths))


def _alone(context: Context) -> jobs.AnyJob:
    return jobs.Small(_shuffled(context, context.data.images_alone), 1)


def _together(context: Context) -> jobs.AnyJob:
    return jobs.Small(_shuffled(context, context.data.images_together), 16)


def _read_before(job: Callable[[Context], jobs.AnyJob]) -> Prepare:
    """Read the same files, in whatever order, so that the kernel has their pages."""

    def prepare(contender: Contender, context: Context) -> None:
        contender.do(job(context))

    return prepare


SMALL = Workload(
    "small",
    "files of 4 KiB in random order: open, read, close",
    (
        Step("cold-1", "cold, 1 thread", Unit.FILES_S, _alone, _cold(_images), Source.HDFS),
        Step("cold-16", "cold, 16 threads", Unit.FILES_S, _together, source=Source.HDFS),
        Step(
            "warm-1",
            "from the block cache, 1 thread",
            Unit.FILES_S,
            _alone,
            _dropped(_images),
            Source.CACHE,
            _has_cache,
        ),
        Step(
            "warm-16",
            "from the block cache, 16 threads",
            Unit.FILES_S,
            _together,
            _dropped(_images),
            Source.CACHE,
            _has_cache,
        ),
        Step(
            "pages-1",
            "from the page cache, 1 thread",
            Unit.FILES_S,
            _alone,
            _read_before(_alone),
            Source.PAGES,
            _has_pages,
        ),
        Step(
            "pages-16",
            "from the page cache, 16 threads",
            Unit.FILES_S,
            _together,
            _read_before(_together),
            Source.PAGES,
            _has_pages,
        ),
        Step(
            "remounted-16",
            "after a new mount, 16 threads",
            Unit.FILES_S,
            _together,
            _remounted,
            Source.CACHE,
            _has_cache,
        ),
    ),
)


def _shards(context: Context) -> list[str]:
    return context.data.shards


# Opened before: clients that have just started run slower code than those that have done this before, as all have that
# are not mounted anew to become cold.
_OPENED_BEFORE = 8


def _begin(context: Context) -> jobs.AnyJob:
    return jobs.FirstBytes(context.data.shards[_OPENED_BEFORE:], _PAGE)


def _cold_but_used(contender: Contender, context: Context) -> None:
    contender.become_cold(_shards(context))
    contender.do(jobs.FirstBytes(context.data.shards[:_OPENED_BEFORE], _PAGE))


FIRST_BYTE = Workload(
    "first-byte",
    "open a file of 8 MiB and read its first 4 KiB",
    (Step("cold", f"cold, after {_OPENED_BEFORE} others", Unit.MS, _begin, _cold_but_used, Source.HDFS),),
)


def _list(_context: Context) -> jobs.AnyJob:
    return jobs.Listing(LISTED)


def _no_files(_context: Context) -> list[str]:
    return []


LISTING = Workload(
    "listing",
    "list a large directory, with attributes",
    (
        Step("cold", "first time", Unit.ENTRIES_S, _list, _cold(_no_files)),
        Step("again", "again", Unit.ENTRIES_S, _list),
    ),
)


def _half_cached(paths: Callable[[Context], Sequence[str]], size_bytes: Callable[[Context], int]) -> Prepare:
    return lambda contender, context: contender.become_cold(paths(context), size_bytes(context) // 2)


def _pass(paths: Callable[[Context], list[str]]) -> Callable[[Context], jobs.AnyJob]:
    # Each file's pages are dropped when it has been read, or they would answer the second pass.
    return lambda context: jobs.Sequential(_shuffled(context, paths(context)), drop=True)


def _next_epoch(_contender: Contender, _context: Context) -> None:
    # Epochs are minutes apart in training. The cache notes last uses to within this long, so nothing shorter counts.
    time.sleep(TOUCH_INTERVAL_S + 1)


TWO_PASSES = Workload(
    "two-passes",
    "twice the cache, read twice in random order: what the second pass finds in the cache",
    (
        Step(
            "shards",
            "files of 8 MiB, first pass",
            Unit.MB_S,
            _pass(_shards),
            _half_cached(_shards, lambda context: context.data.shard_bytes),
            Source.HDFS,
            _is_bounded,
        ),
        Step("shards-again", "files of 8 MiB, second pass", Unit.HITS, _pass(_shards), _next_epoch, needs=_is_bounded),
        Step(
            "images",
            "files of 4 KiB, first pass",
            Unit.FILES_S,
            _pass(_images),
            _half_cached(_images, lambda context: len(context.data.images) * _PAGE),
            Source.HDFS,
            _is_bounded,
        ),
        Step("images-again", "files of 4 KiB, second pass", Unit.HITS, _pass(_images), _next_epoch, needs=_is_bounded),
    ),
)


def _can_write(contender: Contender) -> bool:
    return contender.can_write


def _write_big(context: Context) -> jobs.AnyJob:
    return jobs.Write(WRITTEN, context.data.sizes.big_bytes)


def _create_alone(context: Context) -> jobs.AnyJob:
    return jobs.Create(WRITTEN, context.data.sizes.created_alone, _PAGE, 1)


def _create_together(context: Context) -> jobs.AnyJob:
    return jobs.Create(WRITTEN, context.data.sizes.created_together, _PAGE, 16)


def _append(_context: Context) -> jobs.AnyJob:
    return jobs.Append(WRITTEN, 20, 1000)


def _write_before(contender: Contender, _context: Context) -> None:
    """The first change of a mount starts the process that writes."""
    contender.do(jobs.Create(WRITTEN, 1, _PAGE, 1))


WRITING = Workload(
    "writing",
    "files that are written and stored: until HDFS has them",
    (
        Step("large", "one large file", Unit.MB_S, _write_big, _write_before, needs=_can_write),
        Step("create-1", "files of 4 KiB, 1 thread", Unit.FILES_S, _create_alone, needs=_can_write),
        Step("create-16", "files of 4 KiB, 16 threads", Unit.FILES_S, _create_together, needs=_can_write),
        Step("append", "1,000 bytes appended and synced", Unit.MS, _append, needs=_can_write),
    ),
)

WORKLOADS = (SEQUENTIAL, RANDOM, SMALL, FIRST_BYTE, LISTING, TWO_PASSES, WRITING)


def value_of(unit: Unit, use: Use, hdfs_bytes: int, late_s: float) -> float:
    """What is reported of a step.

    Args:
        unit: of the step.
        use: what its job took.
        hdfs_bytes: what came from HDFS meanwhile.
        late_s: how much later HDFS had what was written.
    """
    answer = use.answer
    duration_s = answer.duration_s + late_s
    match unit:
        case Unit.MB_S:
            return answer.size_bytes / 1e6 / duration_s
        case Unit.MS:
            return median(answer.each_s) * 1000
        case Unit.HITS:
            return 1 - hdfs_bytes / answer.size_bytes
        case _:
            return answer.count / duration_s


def doubt_about(source: Source, use: Use, datanode_bytes: int) -> str:
    """Why a reading is not what its step says; empty when nothing speaks against it.

    Args:
        source: where the bytes must have come from.
        use: what the job took.
        datanode_bytes: what the DataNode read meanwhile, checksums and connections included.
    """
    size = use.answer.size_bytes
    if source is Source.HDFS and datanode_bytes < 0.98 * size:
        return f"the DataNode sent {datanode_bytes / size:.0%} of the bytes only"
    if source in {Source.CACHE, Source.PAGES} and datanode_bytes > 0.05 * size:
        return f"{datanode_bytes / size:.0%} of the bytes came from HDFS"
    if source is Source.CACHE and use.read_bytes is not None and use.read_bytes < 0.95 * size:
        return (
            f"the daemon was asked for {use.read_bytes / size:.0%} of the bytes only, the rest came from the page cache"
        )
    if source is Source.PAGES and use.read_bytes is not None and use.read_bytes > 0.05 * size:
        return f"the daemon was asked for {use.read_bytes / size:.0%} of the bytes, so the page cache did not have them"
    return ""
