"""Blocks on the disk: one file each, complete and checksummed or not there at all.

A block is written into an unnamed file (O_TMPFILE), then linked under its name: a half-written one is never seen,
and a crash leaves nothing behind. Eviction unlinks; maps stay valid. Every method may run in any thread, and any
number of processes may use the same directory. No fault of the disk reaches a reader: it is a miss, and counted.
"""

import array
import contextlib
import errno
import fcntl
import logging
import mmap
import os
import random
import re
import signal
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import xxhash
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from hdfs_fuse.cache.keys import BlockKey
from hdfs_fuse.cache.nowait import OPEN_FLAGS, open_cached
from hdfs_fuse.cache.reuse import TOUCH_INTERVAL_S, ReuseClock
from hdfs_fuse.cache.usage import SHARDS, UsageFile
from hdfs_fuse.config import CacheConfig
from hdfs_fuse.errors import UnavailableError
from hdfs_fuse.metrics import Metrics

logger = logging.getLogger(__name__)

# Version of the layout; a change gets a new folder and the old one is left to be removed by hand.
_LAYOUT = "v2"
_IS_NAME = re.compile(r"[0-9a-f]{32}").fullmatch
_XATTR = "user.hdfs.block"
_SEAL = struct.Struct("<4s16sqQ")  # magic, block name, length in bytes, XXH3 of the content
_MAGIC = b"blk1"
_VERIFY_CHUNK_BYTES = 256 << 10  # stays in the L2 cache between reading and hashing
_CANDIDATES = 64  # blocks looked at for one eviction
# Making room means listing directories, milliseconds each: do it for many blocks at once, and remember a "no".
_EVICT_AHEAD = 1 / 64
_REFUSAL_S = 0.5
# Where a block found no place so lately, in seconds, the next is not expected to find one.
_LATELY_S = 5.0
# Blocks up to this size are admitted and counted in batches: asking counters and disk costs as much as writing one.
_SMALL_BYTES = 32 << 10
# Room that a process grants itself at once for them.
_GRANT_SHARE = 16
_GRANT_MAX_BYTES = 16 << 20
_COUNT_BATCH = 64
# Other processes hear of hits no later than this, in seconds.
_CLOCK_INTERVAL_S = 0.1
# Shards that an eviction lists whatever the counters say: a process killed before it had counted a block, or a machine
# that lost its power, leaves blocks in shards that look empty. 64 evictions turn a cache over once, so each shard is
# looked at about every fourth time.
_UNCOUNTED_SHARDS = 4
_PAGE = 4096
# linux/fs.h: ioctl_iflags(2) on 64-bit Linux.
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x00020000
# Comes when somebody wants to change a block's file that is mapped here: close blocks that are not intact, and they
# may. Ignored by who does not care; then the kernel lets them after /proc/sys/fs/lease-break-time seconds.
LEASE_SIGNAL = signal.SIGURG
# A child process that is being started holds copies of all descriptors, that for writing included, until it calls
# execve(2): there is no lease until then.
_retry_lease = Retrying(
    retry=retry_if_exception_type(BlockingIOError), stop=stop_after_delay(3.0), wait=wait_fixed(0.001), reraise=True
)
# A process without descriptors or memory learns nothing of the block.
_OUR_OWN_LACK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR})


def shard_of(name: str) -> int:
    """The shard, in [0, usage.SHARDS), of a block name: its first ten bits."""
    return int(name[:3], 16) >> 2


def disk_bytes(length_bytes: int) -> int:
    """What a block of that length takes on the disk, whole pages."""
    return -(-length_bytes // _PAGE) * _PAGE


class StoredBlock:
    """A block's file, mapped for reading and pinned against eviction. Filled by one thread, then published.

    From before it can be reached by name until `close`, the file is under a lease (fcntl(2), F_SETLEASE): who opens it
    for writing, or truncates it, waits until the lease is given up, and LEASE_SIGNAL comes. So what was verified stays.

    The map is only ever read by the kernel (the reply of a READ): a bad sector is then an error of that system call
    and not a SIGBUS. Copies in user space go through pread.
    """

    def __init__(self, store: "BlockStore", key: BlockKey, fd: int, new_fd: int = -1) -> None:
        """Take over the descriptors.

        Args:
            store: where it belongs.
            key: what it is.
            fd: a file of the block's length, read-only; under a lease unless it is new.
            new_fd: the same file for writing, if it is a new one without a name.
        """
        self._store = store
        self._key = key
        self._fd = fd
        self._new_fd = new_fd
        self._is_leased = new_fd < 0
        self._hash = xxhash.xxh3_64()
        self._filled_bytes = 0
        self.view = memoryview(mmap.mmap(fd, key.length_bytes, mmap.MAP_SHARED, mmap.PROT_READ))

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Write the next bytes of a new block.

        Raises:
            OSError: the disk failed; the space had been allocated before.
        """
        for chunk in chunks:
            self._hash.update(chunk)
        size = sum(map(len, chunks))
        if os.pwritev(self._new_fd, chunks, self._filled_bytes) != size:
            raise OSError("short write to the cache")
        self._filled_bytes += size

    def publish(self) -> None:
        """Seal a new block and give it its name.

        Raises:
            OSError: the disk failed; nothing is left there.
        """
        self._store.seal(self._new_fd, self._key, self._hash.intdigest())
        os.close(self._new_fd)
        self._new_fd = -1
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        _retry_lease(_take_lease, self._fd)
        self._is_leased = True
        self._store.link(self._fd, self._key)

    def is_intact(self) -> bool:
        """Whether the bytes are those that were verified: nobody has come who wants to change the file.

        If so they stay for some time more (/proc/sys/fs/lease-break-time, 45 s), time enough to use them.
        """
        fd = self._fd
        try:
            return fd >= 0 and (not self._is_leased or fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK)
        except OSError:
            return False  # closed meanwhile, by the thread of a load that failed

    def copy(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of the block, copied; fewer when they are lost."""
        try:
            return os.pread(self._fd, stop - start, start)
        except OSError:
            return b""  # a bad sector, or closed meanwhile: the next look at the file finds out

    def close(self) -> None:
        """Unpin, and drop the file if it has no name. Views that are still in use stay valid. Idempotent."""
        fd, self._fd = self._fd, -1
        new_fd, self._new_fd = self._new_fd, -1
        if fd >= 0:
            if self._is_leased:  # the map would keep it
                with contextlib.suppress(OSError):  # the kernel has ended it, or the file has another owner now
                    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            os.close(fd)
        if new_fd >= 0:
            os.close(new_fd)


class BlockStore:
    """The cache directory of a node."""

    def __init__(
        self,
        directory: str,
        size_bytes: int,
        min_free_bytes: int,
        *,
        now_s: Callable[[], float] = time.time,
        on_fault: Callable[[], None] = lambda: None,
        on_evict: Callable[[int], object] = int,
    ) -> None:
        """Open or create the cache below `directory`.

        Args:
            directory: on a filesystem with O_TMPFILE, leases and user xattrs (ext4, xfs, btrfs, tmpfs).
            size_bytes: bound for all processes together.
            min_free_bytes: free space of the filesystem that is left alone.
            now_s: the clock that last uses are measured with, seconds since the epoch.
            on_fault: called for each fault of the disk.
            on_evict: called with the size of each evicted block.

        Raises:
            UnavailableError: the directory can't be used; the message says why.
        """
        self._root = os.path.join(directory, _LAYOUT)
        self._size_bytes = size_bytes
        self._min_free_bytes = min_free_bytes
        self._now_s = now_s
        self._on_fault = on_fault
        self._on_evict = on_evict
        self._mutex = threading.Lock()  # room: one thread of a process at a time looks for it
        self._counting = threading.Lock()
        self._unnoted: list[tuple[str, int, int]] = []  # name, last use and modification time in ns
        self._uncounted: dict[int, int] = {}
        self._granted_bytes = 0  # may be added without a look at counters and disk
        self._refused_until_s = 0.0
        self._turned_away_s = float("-inf")
        self._clock_written_s = 0.0
        self._is_closed = False
        self._has_warned = False
        self._has_warned_of_damage = False
        try:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            _spread_below(self._root)
            self._probe()
            self._usage = UsageFile(os.path.join(self._root, "usage"))
            if self._usage.is_new:
                self._recount_all()
            self._clock = ReuseClock(*self._usage.reuse())
        except OSError as e:
            raise UnavailableError(f"cache directory {directory!r} can't be used: {e}") from e

    def _probe(self) -> None:
        """Find out whether the filesystem can do what blocks need.

        Raises:
            OSError: it can't.
        """
        new_fd = os.open(self._root, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            fd = _reopen(new_fd)
        finally:
            os.close(new_fd)
        try:
            _retry_lease(_take_lease, fd)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            raise OSError(e.errno, "no leases on files there, or /proc/sys/fs/leases-enable is 0") from e
        finally:
            os.close(fd)

    @classmethod
    def of(cls, config: CacheConfig, metrics: Metrics) -> "BlockStore":
        """The cache that a mount is to use, counting into `metrics`.

        Raises:
            UnavailableError: as for the constructor.
        """

        def count_fault() -> None:
            metrics.cache_fault_count += 1

        def count_evicted(size_bytes: int) -> None:
            metrics.evicted_bytes += size_bytes

        return cls(
            config.directory, config.size_bytes, config.min_free_bytes, on_fault=count_fault, on_evict=count_evicted
        )

    def close(self) -> None:
        """Close the counters; blocks stay."""
        self.note_uses()
        self._settle()
        self._is_closed = True
        self._usage.close()

    def used_bytes(self) -> int:
        """Bytes that the cache holds, of all processes."""
        self._settle()
        return self._usage.total_bytes()

    def counted_bytes(self) -> int:
        """`used_bytes` without the latest small blocks: never waits for another process. 0 if the disk does not say."""
        try:
            return self._usage.total_bytes()
        except OSError:
            return 0

    def path_of(self, name: str) -> str:
        """Where a block of that name is, if it is there."""
        return f"{self._shard_path(shard_of(name))}/{name}"

    def _shard_path(self, shard: int) -> str:
        return f"{self._root}/{shard:03x}"

    # --- reading ---

    def contains(self, key: BlockKey) -> bool:
        """Whether a block of that name is there, not whether it is sound."""
        return os.path.exists(self.path_of(key.name))

    def open(self, key: BlockKey) -> StoredBlock | None:
        """Verify and map a block; None when it is not there, not sound, or somebody may write to it.

        A damaged one is removed.
        """
        fd = self._open_fd(key)
        if fd < 0:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            _take_lease(fd)
            st = os.fstat(fd)
            seal = os.getxattr(fd, _XATTR)
            if st.st_size == key.length_bytes and seal == self._seal(key, _hash_of(fd, key.length_bytes)):
                self._touch(fd, st)
                block, fd = StoredBlock(self, key, fd), -1
                return block
            self._drop_damaged(key)
        except BlockingIOError:
            pass  # open for writing elsewhere
        except OSError as e:
            self._reading_failed(key, e)
        finally:
            if fd >= 0:
                os.close(fd)
        return None

    def read(self, key: BlockKey) -> bytes | None:
        """Read and verify a whole small block; None when it is not there or not sound."""
        fd = self._open_fd(key)
        if fd < 0:
            return None
        try:
            before = os.fstat(fd)
            data = os.pread(fd, key.length_bytes + 1, 0)
            if len(data) == key.length_bytes and os.getxattr(fd, _XATTR) == self._seal(
                key, xxhash.xxh3_64_intdigest(data)
            ):
                self._touch(fd, before)
                return data
            self._drop_damaged(key)
        except OSError as e:
            self._reading_failed(key, e)
        finally:
            os.close(fd)
        return None

    def read_nowait(self, key: BlockKey) -> bytes | None:
        """`read`, but only as far as the kernel has the block in memory: never waits for the disk.

        Writing its last use down may wait: `note_uses` does that, when `unnoted_uses` says that it is worth a thread.
        """
        fd = open_cached(self.path_of(key.name))
        if fd < 0:
            return None
        try:
            buffer = bytearray(key.length_bytes + 1)
            if os.preadv(fd, [buffer], 0, os.RWF_NOWAIT) != key.length_bytes:
                return None  # partly on the disk, or damaged: `read` finds out
            data = bytes(memoryview(buffer)[: key.length_bytes])
            if os.getxattr(fd, _XATTR) != self._seal(key, xxhash.xxh3_64_intdigest(data)):
                return None
            now_s, st = self._now_s(), os.fstat(fd)
            last_use_s = st.st_atime_ns / 1e9
            if now_s - last_use_s >= TOUCH_INTERVAL_S:
                self._clock.hit(last_use_s, now_s)  # at once, or a load may evict what is in use
                self._unnoted.append((key.name, int(now_s * 1e9), st.st_mtime_ns))
        except OSError:
            return None
        else:
            return data
        finally:
            os.close(fd)

    @property
    def unnoted_uses(self) -> int:
        """How many uses `read_nowait` has left to be written down."""
        return len(self._unnoted)

    def note_uses(self) -> None:
        """Write down the uses that `read_nowait` has left: a single system call each, for the event loop's sake."""
        unnoted, self._unnoted = self._unnoted, []
        with contextlib.suppress(OSError):
            for name, last_use_ns, mtime_ns in unnoted:
                with contextlib.suppress(FileNotFoundError):  # evicted since
                    os.utime(self.path_of(name), ns=(last_use_ns, mtime_ns))
        if unnoted:
            self._note_clock(self._now_s())

    def _open_fd(self, key: BlockKey) -> int:
        try:
            return os.open(self.path_of(key.name), OPEN_FLAGS)
        except FileNotFoundError:
            return -1
        except OSError as e:
            self._fault("opening a cached block failed", e)
            return -1

    def _touch(self, fd: int, st: os.stat_result) -> None:
        now_s = self._now_s()
        last_use_s = st.st_atime_ns / 1e9
        if now_s - last_use_s < TOUCH_INTERVAL_S:
            return
        self._clock.hit(last_use_s, now_s)
        # The access time is the last use, kept by us since mounts are relatime or noatime. utime needs no write access.
        with contextlib.suppress(OSError):
            os.utime(fd, ns=(int(now_s * 1e9), st.st_mtime_ns))
            self._note_clock(now_s)

    def _note_clock(self, now_s: float) -> None:
        """Tell the other processes of the hits, now and then."""
        if now_s - self._clock_written_s > _CLOCK_INTERVAL_S:
            self._clock_written_s = now_s
            self._usage.set_reuse(self._clock.longest_s, self._clock.last_hit_s)

    def _reading_failed(self, key: BlockKey, error: OSError) -> None:
        self._fault("reading a cached block failed", error)
        if error.errno not in _OUR_OWN_LACK:
            self._unlink(key.name)

    def _drop_damaged(self, key: BlockKey) -> None:
        self._on_fault()
        log = logger.debug if self._has_warned_of_damage else logger.warning
        self._has_warned_of_damage = True
        log("cached block %s damaged, removed; further ones are only counted", key.name)
        self._unlink(key.name)

    # --- writing ---

    def create(self, key: BlockKey) -> StoredBlock | None:
        """Begin a block, its space allocated; None when there is no room for it or the disk fails."""
        block = self._begin(key) if self._has_room(key.length_bytes) else None
        if block is None:
            self._turned_away_s = self._now_s()
        return block

    @property
    def takes_blocks(self) -> bool:
        """Whether all blocks that were begun lately have found a place."""
        return self._now_s() - self._turned_away_s > _LATELY_S

    def _begin(self, key: BlockKey) -> StoredBlock | None:
        new_fd = fd = -1
        try:
            new_fd = self._open_temporary(key)
            os.posix_fallocate(new_fd, 0, key.length_bytes)
            fd = _reopen(new_fd)
            return StoredBlock(self, key, fd, new_fd)
        except OSError as e:
            self._fault("creating a cached block failed", e)
            for opened in (new_fd, fd):
                if opened >= 0:
                    os.close(opened)
            return None

    def put(self, key: BlockKey, data: bytes) -> bool:
        """Store a small block at once.

        Returns:
            Whether it is stored.
        """
        if not self._has_room(key.length_bytes):
            return False
        fd = -1
        try:
            fd = self._open_temporary(key)
            if os.pwrite(fd, data, 0) != key.length_bytes:
                raise OSError("short write to the cache")
            self.seal(fd, key, xxhash.xxh3_64_intdigest(data))
            self.link(fd, key)
        except OSError as e:
            self._fault("storing a block failed", e)
            return False
        finally:
            if fd >= 0:
                os.close(fd)
        return True

    def seal(self, fd: int, key: BlockKey, digest: int) -> None:
        """Attach the seal to a finished, unnamed file.

        Raises:
            OSError: the disk failed.
        """
        os.setxattr(fd, _XATTR, self._seal(key, digest))
        if self._now_s is not time.time:
            now_ns = int(self._now_s() * 1e9)
            os.utime(fd, ns=(now_ns, now_ns))

    def link(self, fd: int, key: BlockKey) -> None:
        """Give a sealed file its name.

        Raises:
            OSError: the disk failed; the file stays unnamed.
        """
        try:
            # src_dir_fd makes os.link follow the symbolic link of /proc, as linkat(2) describes for O_TMPFILE.
            os.link(f"/proc/self/fd/{fd}", self.path_of(key.name), src_dir_fd=fd, follow_symlinks=True)
        except FileExistsError:
            return  # another process was faster with the same bytes
        self._count(shard_of(key.name), disk_bytes(key.length_bytes))

    def _count(self, shard: int, size_bytes: int) -> None:
        """Count what was added. Small blocks in batches: counting one costs as much as writing it."""
        with self._counting:
            self._uncounted[shard] = self._uncounted.get(shard, 0) + size_bytes
            is_due = len(self._uncounted) >= _COUNT_BATCH or size_bytes > _SMALL_BYTES
        if is_due:
            self._settle()

    def _settle(self) -> None:
        """Tell the other processes what was added since the last time."""
        with self._counting:
            uncounted, self._uncounted = self._uncounted, {}
        if uncounted:
            self._usage.add_all(uncounted)

    def _open_temporary(self, key: BlockKey) -> int:
        shard = self._shard_path(shard_of(key.name))
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        try:
            return os.open(shard, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(shard, mode=0o700, exist_ok=True)
            return os.open(shard, flags, 0o600)

    @staticmethod
    def _seal(key: BlockKey, digest: int) -> bytes:
        return _SEAL.pack(_MAGIC, bytes.fromhex(key.name), key.length_bytes, digest)

    # --- room ---

    def _has_room(self, length_bytes: int) -> bool:
        size = disk_bytes(length_bytes)
        if size > self._size_bytes:
            return False
        with self._mutex:
            if self._granted_bytes < size or size > _SMALL_BYTES:
                self._granted_bytes = 0
                try:
                    self._look_for_room(size)
                except OSError as e:
                    self._fault("making room in the cache failed", e)
            self._granted_bytes -= size
            if self._granted_bytes < 0:
                self._granted_bytes = 0
                return False
            return True

    def _look_for_room(self, size: int) -> None:
        """Grant at least `size` bytes, evicting if need be; or grant nothing."""
        statvfs = os.statvfs(self._root)
        free_bytes = statvfs.f_bavail * statvfs.f_frsize - self._min_free_bytes
        room = min(self._size_bytes - self.used_bytes(), free_bytes)
        if room < size:
            if self._now_s() < self._refused_until_s:
                return
            wanted = size - room
            ahead = min(int(self._size_bytes * _EVICT_AHEAD), 256 * size)
            room += self._evict(wanted + ahead, must_free=free_bytes < size)
            if room < size:
                self._refused_until_s = self._now_s() + _REFUSAL_S
                return
        # A share only, since the other processes of the node grant themselves some too.
        self._granted_bytes = max(size, min(room // _GRANT_SHARE, _GRANT_MAX_BYTES)) if size <= _SMALL_BYTES else size

    def _evict(self, wanted_bytes: int, *, must_free: bool) -> int:
        """Remove blocks that look dead, the longest unused first; all the same when the disk itself runs full."""
        freed = 0
        self._usage.settle()
        for shard in random.sample(range(SHARDS), _UNCOUNTED_SHARDS):
            self._list_shard(shard)
        now_s = self._now_s()
        stored = ReuseClock(*self._usage.reuse())
        if stored.last_hit_s > self._clock.last_hit_s:
            self._clock = stored  # another process has seen later hits
        while freed < wanted_bytes:
            round_freed = 0
            candidates = self._candidates()
            # The younger half of a sample is never taken: with few samples that would be a random choice.
            for last_use_s, size, name in candidates[: len(candidates) // 2 + 1]:
                if freed + round_freed >= wanted_bytes or (not must_free and self._clock.is_alive(last_use_s, now_s)):
                    break
                if self._remove_unpinned(name):
                    self._on_evict(size)
                    round_freed += size
            freed += round_freed
            if not round_freed:
                break
        return freed

    def _candidates(self) -> list[tuple[float, int, str]]:
        """Some blocks as (last use in s, size, name), the longest unused first."""
        weights = self._usage.shard_bytes()
        found: list[tuple[float, int, str]] = []
        for shard in dict.fromkeys(_weighted_order(weights)):
            found += self._list_shard(shard)
            if len(found) >= _CANDIDATES:
                break
        return sorted(found)

    def _list_shard(self, shard: int) -> list[tuple[float, int, str]]:
        blocks = []
        counted_bytes = self._usage.bytes_in(shard)
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self._shard_path(shard)) as entries,
        ):
            for entry in entries:
                if not _IS_NAME(entry.name):
                    continue  # somebody else's
                with contextlib.suppress(FileNotFoundError):
                    st = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(st.st_mode):
                        blocks.append((st.st_atime_ns / 1e9, disk_bytes(st.st_size), entry.name))
        self._usage.recount(shard, sum(size for _, size, _ in blocks), counted_bytes)
        return blocks

    def _recount_all(self) -> None:
        for shard in range(SHARDS):
            self._list_shard(shard)

    def _remove_unpinned(self, name: str) -> bool:
        try:
            fd = os.open(self.path_of(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # mapped by some process
        else:
            return self._unlink(name)
        finally:
            os.close(fd)

    def _unlink(self, name: str) -> bool:
        try:
            size = disk_bytes(os.stat(self.path_of(name)).st_size)
            os.unlink(self.path_of(name))
        except FileNotFoundError:
            return False
        except OSError as e:
            self._fault("removing a cached block failed", e)
            return False
        self._usage.add(shard_of(name), -size)
        return True

    def _fault(self, event: str, error: OSError) -> None:
        if self._is_closed:
            return  # the mount ends, and a load that nobody waits for any more finds its counters closed
        self._on_fault()
        # One line an incident: a broken disk fails for every block.
        log = logger.debug if self._has_warned else logger.warning
        self._has_warned = True
        log("%s: %s; reading from the filesystem instead", event, error)


def _spread_below(directory: str) -> None:
    """Have ext4 put directories made in this one into different parts of the disk, and with them their files.

    Without a journal it steps over every inode that was freed in the last minutes before it takes a new one, group of
    blocks by group (recently_deleted in fs/ext4/ialloc.c). All in one group, a new file took up to 1 ms of processor
    time after some thousand evictions, instead of 0.1. Other filesystems know no such flag.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            flags = array.array("i", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(4)))
            flags[0] |= _FS_TOPDIR_FL
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, flags.tobytes())
    finally:
        os.close(fd)


def _reopen(fd: int) -> int:
    """Another descriptor of a file without a name, for reading."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)


def _take_lease(fd: int) -> None:
    """Have whoever wants to change the file wait, and this process told by LEASE_SIGNAL.

    Raises:
        BlockingIOError: it is open for writing.
        OSError: the filesystem knows no leases.
    """
    fcntl.fcntl(fd, fcntl.F_SETSIG, LEASE_SIGNAL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())  # by default this thread, and threads end
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)


def _hash_of(fd: int, length_bytes: int) -> int:
    """XXH3 of the first `length_bytes` of a file."""
    digest = xxhash.xxh3_64()
    buffer = memoryview(bytearray(min(_VERIFY_CHUNK_BYTES, length_bytes)))
    position = 0
    while position < length_bytes:
        count = os.preadv(fd, [buffer[: length_bytes - position]], position)
        if count == 0:
            break
        digest.update(buffer[:count])
        position += count
    return digest.intdigest()


def _weighted_order(weights: Sequence[int]) -> Iterable[int]:
    """Shards that hold something, at random, the fuller ones rather first."""
    filled = [shard for shard, weight in enumerate(weights) if weight]
    # Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006): order by u ** (1 / weight).
    return sorted(filled, key=lambda shard: random.random() ** (1 / weights[shard]), reverse=True)  # noqa: S311
