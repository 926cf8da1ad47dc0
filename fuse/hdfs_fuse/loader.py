"""A process that loads small files for a daemon; see cache/loaders.py, which starts it and says why.

Run as `python -m hdfs_fuse.loader REQUESTS ANSWERS`, two inherited sockets. Ends when the daemon does, or when nothing
was asked for a while: the next burst starts another one.
"""

import contextlib
import gc
import logging
import os
import socket
import sys
import threading

import msgspec

from hdfs_fuse.backend.base import FileKind, FileStatus
from hdfs_fuse.backend.connect import connect
from hdfs_fuse.cache.keys import BlockKey
from hdfs_fuse.cache.small import (
    ANSWER,
    FROM_DISK,
    HAS_DATA,
    IS_CHECKED,
    MAX_REQUEST_BYTES,
    LoadRequest,
    SmallAnswer,
    SmallFile,
    load_small,
)
from hdfs_fuse.cache.store import BlockStore
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import UnavailableError
from hdfs_fuse.handover import MAX_MESSAGE_BYTES
from hdfs_fuse.logs import log_to_stderr
from hdfs_fuse.metrics import Metrics
from hdfs_fuse.open_file import OpenFile

logger = logging.getLogger(__name__)

# Enough to hide the latency of a NameNode that is some milliseconds away; more of them get into each other's way.
_THREADS = 8
_IDLE_S = 30.0


class Loader:
    """Answers requests until there are none."""

    def __init__(self, config: MountConfig, answers: socket.socket) -> None:
        """Load from what `config` mounts."""
        self._metrics = Metrics()
        self._backend = connect(config)
        self._store = self._open_store(config)
        self._answers = answers
        self._answering = threading.Lock()
        self._under_way: set[int] = set()
        self._taken = 0
        self._is_ended = threading.Event()
        self._told_faults = 0
        self._told_evicted_bytes = 0

    def _open_store(self, config: MountConfig) -> BlockStore | None:
        if not config.cache.directory:
            return None
        try:
            return BlockStore.of(config.cache, self._metrics)
        except UnavailableError:
            return None  # the daemon, which uses the same directory, has told

    def run(self, requests: socket.socket) -> None:
        """Take requests from `requests`, a SOCK_SEQPACKET, until it is closed or silent."""
        threads = [threading.Thread(target=self._work, args=(requests,), daemon=True) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        self._send(0, 0, b"")
        seen, daemon = -1, os.getppid()
        while not self._is_ended.wait(_IDLE_S) and (self._under_way or seen != self._taken):
            seen = self._taken
            if os.getppid() != daemon:
                break  # and all threads hang, or one would have noticed
        if self._store is not None and not self._under_way:
            self._store.close()  # tells the others what was stored

    def _work(self, requests: socket.socket) -> None:
        """One of the threads: each waits for requests itself, so that none is handed over."""
        try:
            while request := requests.recv(MAX_REQUEST_BYTES):
                number = int.from_bytes(request[:4], "little")
                self._under_way.add(number)
                self._taken = number
                self._load(number, msgspec.msgpack.decode(request[4:], type=LoadRequest))
                self._under_way.discard(number)
        except ConnectionResetError:
            pass
        self._is_ended.set()

    def _load(self, number: int, load: LoadRequest) -> None:
        status = FileStatus(
            load.path.rpartition("/")[2], FileKind.FILE, load.length_bytes, 0, "", "", load.mtime_ms, 0, 0, 0
        )
        file = OpenFile(self._backend, load.path, status, self._metrics)
        small = SmallFile(load.path, load.mtime_ms, file.read, file.open if load.check else None)

        def answer(result: SmallAnswer) -> None:
            flags = (HAS_DATA * (result.data is not None)) | (FROM_DISK * result.from_disk)
            payload = result.data
            if payload is None:
                payload = msgspec.msgpack.encode((type(result.error).__name__, str(result.error)))
            self._send(number, flags | (IS_CHECKED * result.is_checked), payload)

        load_small(BlockKey(load.name, load.length_bytes), small, self._store, answer)
        file.close()

    def _send(self, number: int, flags: int, payload: bytes) -> None:
        with self._answering, contextlib.suppress(BrokenPipeError):
            faults, evicted_bytes = self._metrics.cache_fault_count, self._metrics.evicted_bytes
            news = (faults - self._told_faults, evicted_bytes - self._told_evicted_bytes)
            self._told_faults, self._told_evicted_bytes = faults, evicted_bytes
            self._answers.sendall(ANSWER.pack(number, len(payload), flags, *news) + payload)


def main() -> None:
    """Load what is asked for on descriptor argv[1], and answer on argv[2]."""
    gc.freeze()
    requests, answers = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    config = MountConfig.from_json(requests.recv(MAX_MESSAGE_BYTES))
    log_to_stderr(config.volume_id)
    Loader(config, answers).run(requests)


if __name__ == "__main__":
    main()
    os._exit(0)  # threads that hang in a call to the filesystem would keep the interpreter from ending
