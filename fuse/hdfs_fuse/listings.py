"""Attributes that listings have brought, for the lookups that follow; and listing ahead of lookups.

A data loader opens its files by name and in random order, and never lists their directory: one call to the NameNode for
each name. A listing brings 1,000 entries for the price of some thirty such calls, so a directory earns its listing
page by page: a page for each `_PAGE_PRICE` names that had to be asked for. Where no listed name is ever wanted, the
NameNode has about twice the work; where all are, a thirtieth.
"""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator

import outcome
import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.calls import Calls

logger = logging.getLogger(__name__)

# Attributes kept: about 25 MiB.
_MAX_ENTRIES = 50_000
# What one call to the NameNode returns (dfs.ls.limit), and how many single calls cost as much.
_PAGE_ENTRIES = 1000
_PAGE_PRICE = 32
# Of one directory: the others need room too.
_MAX_PAGES = 25
# Directories that are being looked up by name, at most.
_MAX_WALKS = 1000


class _Walk:
    """A directory that is looked up name by name, and how far it has been listed."""

    __slots__ = ("expires_s", "is_fetching", "listing", "misses", "outdated", "pages")

    def __init__(self, expires_s: float) -> None:
        self.expires_s = expires_s
        self.misses = 0
        self.pages = 0
        self.listing: Iterator[FileStatus] | None = None
        self.is_fetching = False
        self.outdated: set[str] = set()  # names that turned out to have changed while a page with them was on its way


class Listings:
    """What is known of names that the kernel does not hold. Belongs to the event loop."""

    def __init__(self, backend: ResilientBackend, calls: Calls, ttl_s: float) -> None:
        """Believe what listings of `backend` say for `ttl_s` seconds."""
        self._backend = backend
        self._calls = calls
        self._ttl_s = ttl_s
        self._entries: OrderedDict[tuple[int, str], tuple[FileStatus, float]] = OrderedDict()
        self._walks: OrderedDict[int, _Walk] = OrderedDict()

    def __len__(self) -> int:
        """How many entries are kept, believable or not."""
        return len(self._entries)

    def find(self, directory: int, name: str) -> tuple[FileStatus, float] | None:
        """The attributes of an entry of the directory with that node id, and until when they may be believed."""
        found = self._entries.get((directory, name))
        return found if found is not None and trio.current_time() < found[1] else None

    def note(self, directory: int, status: FileStatus, expires_s: float) -> None:
        """Keep what a listing says of an entry."""
        self._entries[directory, status.name] = (status, expires_s)
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)

    def disbelieve(self, directory: int, name: str) -> None:
        """The attributes of an entry have turned out wrong before their time."""
        self._entries.pop((directory, name), None)
        walk = self._walks.get(directory)
        if walk is not None and walk.is_fetching:
            walk.outdated.add(name)

    def missed(self, directory: int, path: str) -> None:
        """A name of the directory at `path` had to be asked for: list on when that has been earned."""
        if not self._ttl_s:
            return
        now_s = trio.current_time()
        walk = self._walks.get(directory)
        if walk is None or (now_s >= walk.expires_s and not walk.is_fetching):
            walk = self._walks[directory] = _Walk(now_s + self._ttl_s)
            walk.listing = self._backend.list(path)
            if len(self._walks) > _MAX_WALKS:
                self._walks.popitem(last=False)
        walk.misses += 1
        if walk.misses >= _PAGE_PRICE and walk.listing is not None and not walk.is_fetching:
            self._fetch(directory, walk, walk.listing)

    def _fetch(self, directory: int, walk: _Walk, listing: Iterator[FileStatus]) -> None:
        walk.misses = 0
        walk.is_fetching = True
        expires_s = trio.current_time() + self._ttl_s

        def landed(result: outcome.Outcome[list[FileStatus]]) -> None:
            walk.is_fetching = False
            walk.pages += 1
            try:
                page = result.unwrap()
            except Exception as e:  # noqa: BLE001  # nobody has asked for it, and names are still asked for one by one
                logger.debug("listing ahead ended: %s", e)
                page = []
            if len(page) < _PAGE_ENTRIES or walk.pages == _MAX_PAGES:
                walk.listing = None
            for status in page:
                if status.name not in walk.outdated:
                    self.note(directory, status, expires_s)
            walk.outdated.clear()

        self._calls.start(_next_page(listing), landed)


def _next_page(listing: Iterator[FileStatus]) -> Callable[[], list[FileStatus]]:
    return lambda: list(itertools.islice(listing, _PAGE_ENTRIES))
