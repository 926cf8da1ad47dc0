"""A process that writes files for a daemon: see uploads.py, which starts it and says why.

Run as `python -m hdfs_fuse.upload.uploader SOCKET`, an inherited stream. Ends when the daemon closes that, after it has
done what it was asked for.
"""

import contextlib
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec

from hdfs_fuse.backend.base import FileReader, FileStatus, FileWriter
from hdfs_fuse.backend.connect import connect
from hdfs_fuse.backend.resilient import ResilientBackend, Version
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import (
    AlreadyExistsError,
    BackendError,
    BusyError,
    HdfsFuseError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
    UnsupportedError,
)
from hdfs_fuse.logs import log_to_stderr
from hdfs_fuse.upload.content import read_content
from hdfs_fuse.upload.messages import (
    Abandon,
    Answer,
    Completed,
    Completion,
    Progress,
    Publish,
    Reply,
    Request,
    Reserve,
    Source,
    frame,
    take_frames,
)

logger = logging.getLogger(__name__)

# Requests at once; each is mostly a wait for the network.
_THREADS = 64
# Files that are published and not yet complete. The client waits 0.4 to 0.5 s for that, in a thread each: so this many
# give about twice as many small files a second. Beyond it, publishing waits.
_MAX_CLOSING = 400
# Threads that ask for extended attributes, while others write.
_ASKERS = 8
# Where they can't be had, how long until they are asked for again, in seconds: each attempt may take 5.
_NO_XATTRS_S = 60.0
_PROGRESS_INTERVAL_S = 1.0
_RECEIVE_BYTES = 1 << 20


class Uploader:
    """Does what requests ask for, several at once."""

    def __init__(self, config: MountConfig, channel: socket.socket) -> None:
        """Write to what `config` mounts, and answer on `channel`."""
        self._backend: ResilientBackend = connect(config)
        self._channel = channel
        self._answering = threading.Lock()
        self._sessions: dict[int, tuple[str, FileWriter]] = {}  # a sibling that is being written
        self._requests = ThreadPoolExecutor(_THREADS, "request")
        self._closers = ThreadPoolExecutor(_MAX_CLOSING, "close")
        self._askers = ThreadPoolExecutor(_ASKERS, "xattrs")
        self._no_xattrs_until_s = float("-inf")
        self._may_close = threading.Semaphore(_MAX_CLOSING)

    def run(self) -> None:
        """Take requests until the daemon closes the stream; then finish."""
        self._send(Answer(0))
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := self._channel.recv(_RECEIVE_BYTES):
                received += data
                for message in take_frames(received):
                    self._requests.submit(self._serve, msgspec.msgpack.decode(message, type=Request))
        self._requests.shutdown()
        for sibling, _ in self._sessions.values():
            self._remove(sibling)
        self._closers.shutdown()

    def _serve(self, request: Request) -> None:
        answer: Answer | None
        try:
            match request:
                case Reserve():
                    answer = self._reserve(request)
                case Publish():
                    answer = self._publish(request)
                case Abandon():
                    answer = self._abandon(request)
        except HdfsFuseError as e:
            answer = Answer.of(request.number, e)
        except Exception as e:
            logger.exception("unexpected error in %s", type(request).__name__)
            answer = Answer.of(request.number, BackendError(f"{type(e).__name__}: {e}"))
        if answer is not None:
            self._send(answer)

    def _send(self, reply: Reply) -> None:
        with self._answering, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(frame(reply))

    # --- sessions ---

    def _reserve(self, request: Reserve) -> Answer:
        try:
            writer = self._backend.create(request.sibling, mode=request.mode, overwrite=request.take_over)
        except AlreadyExistsError:  # complete, so whoever was writing it is gone
            writer = self._backend.create(request.sibling, mode=request.mode, overwrite=True)
        self._sessions[request.number] = request.sibling, writer
        return Answer(request.number)

    def _abandon(self, request: Abandon) -> Answer:
        self._sessions.pop(request.session)
        self._remove(request.sibling)
        return Answer(request.number)

    def _remove(self, sibling: str) -> None:
        with contextlib.suppress(HdfsFuseError):
            self._backend.delete(sibling, recursive=False)

    # --- publishing ---

    def _publish(self, request: Publish) -> Answer | None:
        _, writer = self._sessions.pop(request.session)
        kept = self._askers.submit(self._xattrs_of_replaced, request)
        is_open = self._write(request, writer)
        written = self._backend.status(request.sibling)
        if written.length_bytes != request.content.length_bytes:
            raise BackendError(
                f"{request.target}: {written.length_bytes} of {request.content.length_bytes} bytes were written"
            )
        self._set_attributes(written, request, kept.result() | request.xattrs)
        # While the lease is ours: the sibling that others would take over is never a complete one.
        self._backend.rename(request.sibling, request.target, overwrite=request.overwrite)
        mtime_ms = written.mtime_ms if request.mtime_ms is None else request.mtime_ms
        completion: Completion | None = None
        if is_open and not request.keep_open:
            completion = self._close(writer, request.target)
            if completion == "complete":
                mtime_ms = self._date(request)
                is_open = False
        self._send(Answer(request.number, mtime_ms=mtime_ms, length_bytes=written.length_bytes, is_open=is_open))
        if is_open and completion is not None:
            self._send(Completed(request.number, completion))
        elif is_open:
            self._may_close.acquire()
            self._closers.submit(self._complete, writer, request)
        return None

    def _date(self, request: Publish) -> int:
        """Give a file that was just completed its times again; its modification time."""
        if request.mtime_ms is None and request.atime_ms is None:
            return self._backend.status(request.target).mtime_ms
        self._backend.set_times(request.target, mtime_ms=request.mtime_ms, atime_ms=request.atime_ms)
        return self._backend.status(request.target).mtime_ms if request.mtime_ms is None else request.mtime_ms

    def _write(self, request: Publish, writer: FileWriter) -> bool:
        """Put the content into the sibling; whether it is on the DataNodes' disks and still to be completed."""
        content = request.content
        if request.over_http:
            chunks = self._reporting(request)
            self._backend.put(request.sibling, chunks, content.length_bytes, request.mode, alone=request.alone)
            return False
        for chunk in self._reporting(request):
            writer.write(chunk)
        try:
            writer.sync()
        except UnsupportedError:  # erasure-coded
            writer.close()
            return False
        return True

    def _reporting(self, request: Publish) -> Iterator[bytes]:
        """The content, telling the daemon from time to time how much has gone out."""
        sent, told_s = 0, time.monotonic()
        for chunk in read_content(request.content, self._open_base):
            yield chunk
            sent += len(chunk)
            if time.monotonic() - told_s > _PROGRESS_INTERVAL_S:
                told_s = time.monotonic()
                self._send(Progress(request.number, sent))

    def _open_base(self, base: Source) -> FileReader:
        return self._backend.open_version(base.path, Version(base.mtime_ms, base.length_bytes))

    def _xattrs_of_replaced(self, request: Publish) -> dict[str, bytes]:
        """The extended attributes of the file that is there, for the one that replaces it.

        They are asked of WebHDFS, which may be closed where writing works: then they are lost, and the log says so.
        """
        if not request.overwrite or time.monotonic() < self._no_xattrs_until_s:
            return {}
        try:
            return self._backend.xattrs(request.target)
        except (NotFoundError, PermissionDeniedError):
            return {}
        except (UnsupportedError, UnavailableError) as e:
            logger.warning("%s: files that are replaced lose their extended attributes: %s", request.target, e)
            self._no_xattrs_until_s = time.monotonic() + _NO_XATTRS_S
            return {}

    def _set_attributes(self, written: FileStatus, request: Publish, xattrs: dict[str, bytes]) -> None:
        path = request.sibling
        for name, value in xattrs.items():
            self._backend.set_xattr(path, name, value)
        if written.mode != request.mode:
            self._backend.set_mode(path, request.mode)
        if request.mtime_ms is not None or request.atime_ms is not None:
            self._backend.set_times(path, mtime_ms=request.mtime_ms, atime_ms=request.atime_ms)

    def _complete(self, writer: FileWriter, request: Publish) -> None:
        try:
            completion = self._close(writer, request.target)
        finally:
            self._may_close.release()
        self._send(Completed(request.number, completion))

    @staticmethod
    def _close(writer: FileWriter, path: str) -> Completion:
        """Complete a file that has its name already; its bytes are on the DataNodes' disks whatever happens here."""
        try:
            writer.close()
        except (NotFoundError, BusyError):
            return "gone"  # removed or replaced since
        except HdfsFuseError as e:
            logger.info("%s: not closed: %s", path, e)
            return "unknown"
        return "complete"


def main() -> None:
    """Write what is asked for on descriptor argv[1]."""
    gc.freeze()
    channel = socket.socket(fileno=int(sys.argv[1]))
    header = channel.recv(4, socket.MSG_WAITALL)
    config = MountConfig.from_json(channel.recv(int.from_bytes(header, "little"), socket.MSG_WAITALL))
    log_to_stderr(config.volume_id)
    Uploader(config, channel).run()


if __name__ == "__main__":
    main()
    logging.shutdown()
    os._exit(0)
