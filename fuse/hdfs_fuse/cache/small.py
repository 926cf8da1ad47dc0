"""Small blocks, each of which is a file: the load of one, and how a loader process is asked for it.

Without trio, whose import is nearly half of what a loader process takes to start.
"""

import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from hdfs_fuse.cache.content import BlockUnavailableError
from hdfs_fuse.cache.keys import BlockKey
from hdfs_fuse.cache.store import BlockStore
from hdfs_fuse.errors import HdfsFuseError

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 << 10

# An answer: number of the request, length of what follows, flags, faults of the cache's disk and evicted bytes since
# the last answer. Then the block's bytes, or the error's class and message. The first one, numbered 0,
# says that the process is ready.
ANSWER = struct.Struct("<IIBIQ")
HAS_DATA, FROM_DISK, IS_CHECKED = 1, 2, 4


class LoadRequest(msgspec.Struct, array_like=True, frozen=True):
    """The request for a small block.

    Attributes:
        name: of the block.
        path: of the file.
        mtime_ms, length_bytes: its version.
        check: whether the NameNode is to be asked if this identity may read the file.
    """

    name: str
    path: str
    mtime_ms: int
    length_bytes: int
    check: bool


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A small file as a load needs it.

    Attributes:
        path: where a loader process finds it.
        mtime_ms: its version; the length is the block's.
        read: read(start, stop), for a load in this process.
        check: called before anything is read, and raises where this identity may not; None when that is known.
    """

    path: str
    mtime_ms: int
    read: Callable[[int, int], bytes]
    check: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class SmallAnswer:
    """What became of the load of a small block.

    Attributes:
        data: its bytes; None when they can't be had.
        error: why not.
        from_disk: whether the cache had it.
        is_checked: whether the check let this identity read, whatever came then.
    """

    data: bytes | None
    error: HdfsFuseError | None = None
    from_disk: bool = False
    is_checked: bool = False


def load_small(
    key: BlockKey, file: SmallFile, store: BlockStore | None, answer: Callable[[SmallAnswer], object]
) -> None:
    """Bring one small block in from `store`, else from the file, and store it after it has been answered.

    For a thread of its own. Never raises: errors are answered too.
    """
    is_checked = False
    try:
        if file.check is not None:
            file.check()
            is_checked = True
        data = store.read(key) if store is not None else None
        if data is not None:
            answer(SmallAnswer(data, from_disk=True, is_checked=is_checked))
            return
        data = file.read(0, key.length_bytes)
    except HdfsFuseError as e:
        answer(SmallAnswer(None, e, is_checked=is_checked))
    except Exception as e:
        logger.exception("small block load failed unexpectedly")
        answer(SmallAnswer(None, BlockUnavailableError(f"block load failed: {e!r}"), is_checked=is_checked))
    else:
        answer(SmallAnswer(data, is_checked=is_checked))
        if store is not None:
            store.put(key, data)
