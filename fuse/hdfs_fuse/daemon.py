"""One mount's life: connect, take over the FUSE connection, serve, end. One process a mount (fork_server.py)."""

import contextlib
import gc
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
from functools import partial

import msgspec
import pyfuse3
import setproctitle
import trio

from hdfs_fuse import handover, turns
from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.backend.connect import cluster_id, connect, resolve
from hdfs_fuse.backend.resilient import ResilientBackend
from hdfs_fuse.cache.cache import BlockCache
from hdfs_fuse.cache.loaders import Loaders
from hdfs_fuse.cache.store import LEASE_SIGNAL, BlockStore
from hdfs_fuse.calls import Calls
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import DeadlineError, HdfsFuseError, MountError, NotDirectoryError, UnavailableError
from hdfs_fuse.fs import Filesystem
from hdfs_fuse.inodes import Inode, InodeTable
from hdfs_fuse.logs import log_to_stderr
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.ops import Operations
from hdfs_fuse.upload.uploads import Uploads
from hdfs_fuse.workers import Workers
from hdfs_fuse.writing.drafts import Drafts
from hdfs_fuse.writing.staging import StagingArea

logger = logging.getLogger(__name__)

# Requests in progress at once. Each costs a task; the kernel's own queue (mounts.MAX_BACKGROUND) is shorter.
_MAX_REQUESTS = 1000
# Tasks that wait for requests when there are none: starting one costs a buffer of 1 MiB and its page faults.
_IDLE_TASKS = 32
# While mounting, seconds, for the two calls that are made then; a supervisor waits 30 for everything.
_CONNECT_DEADLINE_S = 10.0
# Threads that write to the staging disk.
_DISK_WORKERS = 8
# The GIL is handed over after at most this long, in seconds: the default of 5 ms lets a thread that hashes a block
# keep the event loop from answering.
_SWITCH_INTERVAL_S = 0.001
# Objects made, beyond those freed, before the garbage collector looks for cycles among them.
_GC_THRESHOLD = 50_000
# struct fuse_init_out behind struct fuse_out_header (linux/fuse.h): its flags, and the one that is added to them.
_INIT_FLAGS = struct.Struct("=I")
_INIT_FLAGS_OFFSET = 16 + 12
_HANDLE_KILLPRIV_V2 = 1 << 28
# After statistics that could not be told, in seconds: without a free descriptor accept(2) fails at once, and again.
_STATS_PAUSE_S = 0.1


class _KernelNotifier:
    """Tells the kernel what the filesystem wants (fs.Kernel)."""

    def forget_entry(self, inode: Inode) -> None:
        """Have the kernel drop an unused name; happens in pyfuse3's own thread, since it may wait for handlers."""
        if inode.parent is not None:
            pyfuse3.invalidate_entry_async(inode.parent.number, os.fsencode(inode.name), ignore_enoent=True)

    def store_pages(self, inode: Inode, data: bytes) -> None:
        """Fill the kernel's page cache of a file (FUSE_NOTIFY_STORE)."""
        with contextlib.suppress(OSError):  # the kernel reads what it did not get
            pyfuse3.notify_store(inode.number, 0, data)


class Daemon:
    """The process that serves one mount."""

    def __init__(self, config: MountConfig, channel: socket.socket) -> None:
        """Serve `config`, reporting over `channel`."""
        self._config = config
        self._channel = channel
        self._metrics = Metrics()
        self._fs: Filesystem | None = None
        self._init: tuple[socket.socket, int, int] | None = None  # see `_take_over`
        self._is_initialised = trio.Event()

    async def run(self) -> None:
        """Serve until the filesystem is unmounted or SIGTERM comes.

        Raises:
            HdfsFuseError: the mount can't be served; the reason.
        """
        config, metrics = self._config, self._metrics
        backend = connect(config)
        root_path = resolve(config).path
        root_status = await self._root_status(root_path)
        store = await trio.to_thread.run_sync(self._open_store)
        area = None if config.read_only else await trio.to_thread.run_sync(StagingArea, config.staging)
        handover.send(self._channel, handover.Connected())
        try:
            message, fds = await trio.to_thread.run_sync(handover.receive, self._channel, handover.Serve, 2)
        except EOFError as e:
            raise MountError("the supervisor went away before it had mounted") from e
        if len(fds) != 2:
            raise MountError(f"the supervisor sent {len(fds)} descriptors, not 2")
        fuse_fd, session_fd = fds
        async with trio.open_nursery() as nursery:
            workers = Workers(config.workers, "load")
            cache = BlockCache(store, workers, Loaders(config.to_json(), metrics, nursery))
            calls = Calls(Workers(config.workers, "call"), config.call_deadline_s, metrics, backend.discard_client)
            nursery.start_soon(calls.watch)
            nursery.start_soon(cache.watch, config.call_deadline_s, partial(_load_hung, metrics, backend))
            inodes = InodeTable(root_path, root_status)
            inodes.root.expires_s = trio.current_time() + config.metadata_ttl_s
            drafts = self._drafts(backend, inodes, area, calls, nursery) if area is not None else None
            self._fs = Filesystem(
                config, backend, cluster_id(config), inodes, cache, calls, metrics, _KernelNotifier(), drafts
            )
            operations = Operations(self._fs, config, metrics, partial(self._take_over, fuse_fd, session_fd))
            # The session begins on a socket that holds the recorded FUSE_INIT; see `_take_over`.
            pyfuse3.init(operations, f"/dev/fd/{session_fd}", {"fsname=hdfs"})
            listener = _listen(message.stats_path)
            stats_folder = os.open(os.path.dirname(message.stats_path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            nursery.start_soon(self._offer_stats, listener)
            nursery.start_soon(self._report_serving)
            nursery.start_soon(self._end_on_signal)
            nursery.start_soon(_yield_leases, cache)
            pyfuse3.trio = turns.trio_in_turns(self._answer_init)  # type: ignore[attr-defined]
            await pyfuse3.main(min_tasks=_IDLE_TASKS, max_tasks=_MAX_REQUESTS)
            if drafts is not None:
                await drafts.close()
            nursery.cancel_scope.cancel()
        self._fs.close()
        cache.close()
        if store is not None:
            store.close()
        if area is not None:
            area.close()
        # Who unmounted may have been faster, and the next mount have a folder of the same name by now.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.basename(message.stats_path), dir_fd=stats_folder)

    def _drafts(
        self, backend: ResilientBackend, inodes: InodeTable, area: StagingArea, calls: Calls, nursery: trio.Nursery
    ) -> Drafts:
        config = self._config
        uploads = Uploads(config.to_json(), nursery, config.call_deadline_s)
        disk = Calls(Workers(_DISK_WORKERS, "stage"), config.call_deadline_s, Metrics(), _disk_hung)
        nursery.start_soon(disk.watch)
        drafts = Drafts(config, backend, inodes, area, uploads, calls, disk, self._metrics, nursery)
        nursery.start_soon(drafts.watch)
        return drafts

    async def _root_status(self, path: str) -> FileStatus:
        """The root's attributes, through a client that gives up early: who mounts waits for the reason."""
        deadline_s = min(self._config.call_deadline_s, _CONNECT_DEADLINE_S)
        backend = connect(msgspec.structs.replace(self._config, call_deadline_s=deadline_s))

        def ask() -> FileStatus:
            status = backend.status(path)
            if status.kind is not FileKind.DIRECTORY:
                raise NotDirectoryError(f"{self._config.uri}: a {status.kind.value}, and a mount needs a directory")
            # Attributes tell nothing about the right to enter: list it, as the first `ls` would.
            next(backend.list(path), None)
            backend.close()
            return status

        with trio.move_on_after(deadline_s):
            return await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        raise DeadlineError(f"{self._config.uri}: no answer from the filesystem within {deadline_s:g} s")

    def _open_store(self) -> BlockStore | None:
        cache = self._config.cache
        if not cache.directory:
            return None
        try:
            return BlockStore.of(cache, self._metrics)
        except UnavailableError as e:
            logger.warning("mounting without a cache on disk: %s", e)
            self._metrics.cache_fault_count += 1
            return None

    def _take_over(self, fuse_fd: int, session_fd: int) -> None:
        """FUSE_INIT is about to be answered: have libfuse write the answer into a socket, for `_answer_init`."""
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            os.dup2(theirs.fileno(), session_fd, inheritable=False)
        self._init = answers, fuse_fd, session_fd

    def _answer_init(self) -> None:
        """Put the real connection in the place of the socket, and give it libfuse's answer to FUSE_INIT.

        With FUSE_HANDLE_KILLPRIV_V2, which libfuse 3.14 does not know: that the filesystem takes set-user-id bits and
        capabilities away from files that are changed, and there never are any. Else the kernel would ask for
        security.capability before each write(2): a quarter fewer a second of 4 KiB, and a third of 128 KiB.

        The first daemon's answer so reaches the kernel. A successor's is dropped by the kernel (ENOENT), since INIT
        has been answered before.
        """
        if self._init is None:
            return
        (answers, fuse_fd, session_fd), self._init = self._init, None
        with answers:
            answer = bytearray(answers.recv(handover.MAX_MESSAGE_BYTES))
        (flags,) = _INIT_FLAGS.unpack_from(answer, _INIT_FLAGS_OFFSET)
        _INIT_FLAGS.pack_into(answer, _INIT_FLAGS_OFFSET, flags | _HANDLE_KILLPRIV_V2)
        with contextlib.suppress(FileNotFoundError):
            os.write(fuse_fd, answer)
        os.dup2(fuse_fd, session_fd, inheritable=False)
        os.close(fuse_fd)
        self._is_initialised.set()

    async def _report_serving(self) -> None:
        await self._is_initialised.wait()
        handover.send(self._channel, handover.Serving())

    async def _offer_stats(self, listener: trio.socket.SocketType) -> None:
        """Write the statistics as JSON to everybody who connects."""
        while True:
            try:
                connection, _ = await listener.accept()
                with connection, trio.move_on_after(5):
                    assert self._fs is not None
                    stats = {
                        "uri": self._config.uri,
                        "volume_id": self._config.volume_id,
                        "pid": os.getpid(),
                        **self._fs.stats(),
                    }
                    await trio.SocketStream(connection).send_all(json.dumps(stats).encode() + b"\n")
            except (OSError, trio.BrokenResourceError) as e:  # whoever asked is gone, or no descriptor is left
                logger.info("statistics were not told: %s", e)
                await trio.sleep(_STATS_PAUSE_S)

    @staticmethod
    async def _end_on_signal() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                logger.info("%s: ending", signal.Signals(number).name)
                pyfuse3.terminate()


async def _yield_leases(cache: BlockCache) -> None:
    with trio.open_signal_receiver(LEASE_SIGNAL) as signals:
        async for _ in signals:
            cache.drop_changing()


def _disk_hung() -> None:
    logger.warning("the disk of the staging directory does not answer")


def _load_hung(metrics: Metrics, backend: ResilientBackend) -> None:
    """A load has brought nothing for too long."""
    metrics.hdfs_timeout_count += 1
    backend.discard_client()


def _listen(path: str) -> trio.socket.SocketType:
    """A unix socket that takes connections from now on: whoever is told that the mount serves may ask at once."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)
    return trio.socket.from_stdlib_socket(listener)


def serve(channel: socket.socket) -> int:
    """Serve the mount that the supervisor at the other end of `channel` describes; the exit status of the process."""
    log_to_stderr()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # What is loaded now stays, and requests leave hardly any cycles: the default looks for them at every 700 objects.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    # Blocks in reach take two descriptors each, and the usual soft limit of 1,024 is for programs that use select(2).
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Who unmounts asks the daemon to end when it may be ending already; `_end_on_signal` restores this when it is done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        config = MountConfig.from_json(channel.recv(handover.MAX_MESSAGE_BYTES))
        log_to_stderr(config.volume_id)
        setproctitle.setproctitle(f"hdfs-fuse {config.uri} {config.volume_id}".rstrip())
        trio.run(Daemon(config, channel).run)
    except* HdfsFuseError as group:
        _fail(channel, group)
    except* Exception as group:
        logger.exception("the daemon ended unexpectedly")
        _fail(channel, group)
    else:
        pyfuse3.close(unmount=False)
        return 0
    return 1


def _fail(channel: socket.socket, group: BaseExceptionGroup[Exception]) -> None:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    known = (
        error if isinstance(error, HdfsFuseError) else MountError(f"{type(error).__name__}; see the log of the daemon")
    )
    try:
        handover.send(channel, handover.Failed.of(known))
    except OSError:
        logger.error("%s", known)  # noqa: TRY400
