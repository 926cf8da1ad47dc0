"""What is measured: workloads, each a few steps, each step done by all contenders before the next one.

So the readings that a ratio is made of lie seconds apart, and suffer alike from whatever else the machine does.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from hdfs_fuse.cache.reuse import TOUCH_INTERVAL_S

from tests.perf import jobs
from tests.perf.contenders import Contender
from tests.perf.data import LISTED, Data

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
    SHARE = ""

    @property
    def is_better_high(self) -> bool:
        """Whether more is better."""
        return self is not Unit.MS


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may use.

    Attributes:
        data: which files there are.
        random: the same sequence for all contenders of one step, another one in each repetition.
    """

    data: Data
    random: random.Random


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
    prepare: Callable[[Contender, Context], None] = _nothing
    source: Source = Source.ANY
    needs: Callable[[Contender], bool] = field(default=lambda _: True)


@dataclass(frozen=True, slots=True)
class Workload:
    """Steps that build on each other.

    Attributes:
        name: for --only.
        title: in the report.
        steps: in order.
        is_verified: whether the contender's bytes are compared with the checksums after the first step.
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


def _cold(paths: Callable[[Context], Sequence[str]]) -> Callable[[Contender, Context], None]:
    return lambda contender, context: contender.become_cold(paths(context))


def _dropped(paths: Callable[[Context], Sequence[str]]) -> Callable[[Contender, Context], None]:
    return lambda contender, context: contender.drop_pages(paths(context))


def _remounted(contender: Contender, _context: Context) -> None:
    contender.remount(drop_disk_pages=False)


def _remounted_from_disk(contender: Contender, _context: Context) -> None:
    contender.remount(drop_disk_pages=True)


def _read_big(context: Context) -> jobs.AnyJob:
    return jobs.Sequential(_big(context))


SEQUENTIAL = Workload(
    "sequential",
    "one large file, from beginning to end",
    (
        Step("cold", "cold", Unit.MB_S, _read_big, _cold(_big), Source.HDFS),
        Step("pages", "again, from the page cache", Unit.MB_S, _read_big, source=Source.PAGES, needs=_has_pages),
        Step(
            "blocks", "again, from the block cache", Unit.MB_S, _read_big, _dropped(_big), Source.CACHE, _has_cache
        ),
        Step("remounted", "after a new mount", Unit.MB_S, _read_big, _remounted, Source.CACHE, _has_cache),
        Step(
            "disk", "after a new mount, cache on disk", Unit.MB_S, _read_big, _remounted_from_disk, Source.CACHE, _has_cache
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


SMALL = Workload(
    "small",
    "files of 4 KiB in random order: open, read, close",
    (
        Step("cold-1", "cold, 1 thread", Unit.FILES_S, _alone, _cold(_images), Source.HDFS),
        Step("cold-16", "cold, 16 threads", Unit.FILES_S, _together, source=Source.HDFS),
        Step(
            "warm-1", "from the block cache, 1 thread", Unit.FILES_S, _alone, _dropped(_images), Source.CACHE, _has_cache
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
        Step("pages-1", "from the page cache, 1 thread", Unit.FILES_S, _alone, _warmed(_alone), Source.PAGES, _has_pages),
        Step("pages-16", "from the page cache, 16 threads", Unit.FILES_S, _together, _warmed(_together), Source.PAGES, _has_pages),
        Step("remounted-16", "after a new mount, 16 threads", Unit.FILES_S, _together, _remounted, Source.CACHE, _has_cache),
    ),
)


def _shards(context: Context) -> list[str]:
    return context.data.shards


def _begin(context: Context) -> jobs.AnyJob:
    return jobs.FirstBytes(context.data.shards, _PAGE)


FIRST_BYTE = Workload(
    "first-byte",
    "open a file of 8 MiB and read its first 4 KiB",
    (Step("cold", "cold", Unit.MS, _begin, _cold(_shards), Source.HDFS),),
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


def _half_cached(contender: Contender, context: Context) -> None:
    contender.become_cold(_shards(context), context.data.shard_bytes // 2)


def _pass(context: Context) -> jobs.AnyJob:
    # Each file's pages are dropped when it has been read, or they would answer the second pass.
    return jobs.Sequential(_shuffled(context, context.data.shards), drop=True)


def _next_epoch(_contender: Contender, _context: Context) -> None:
    # Epochs are minutes apart in training. The cache notes last uses to within this long, so nothing shorter counts.
    time.sleep(TOUCH_INTERVAL_S + 1)
