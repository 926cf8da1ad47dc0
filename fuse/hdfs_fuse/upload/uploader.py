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
    AuthenticationError,
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
    MAX_CLOSING,
    Abandon,
    Answer,
    Append,
    Finish,
    Progress,
    Publish,
    Reply,
    Request,
    Reserve,
    Send,
    Source,
    frame,
    take_frames,
)

logger = logging.getLogger(__name__)

# Requests at once; each is mostly a wait for the network.
_THREADS = 64
# A sibling that is complete either gets its name in a moment, or whoever wrote it is gone: how long to watch, in
# seconds, and how often to look in that time.
_ABANDONED_S, _ABANDONED_POLLS = 3.0, 6
# Threads that ask for extended attributes, while others write.
_ASKERS = 8
# Where they can't be had, how long until they are asked for again, in seconds: each attempt may take 5.
_NO_XATTRS_S = 60.0
_PROGRESS_INTERVAL_S = 1.0
_RECEIVE_BYTES = 1 << 20


class _Session:
    """A file that is being written.

    Attributes:
        path: where it began.
        has_name: whether it is a file's own path, not a sibling's.
        writer: holds its lease; None where DataNodes write it (WebHDFS).
        sent_bytes: its length here.
        stored_bytes: how much of that stays there whatever happens to this process.
        block_bytes: block size of the file; 0 until somebody asked, or where there are none.
    """

    __slots__ = ("block_bytes", "has_name", "path", "sent_bytes", "stored_bytes", "writer")

    def __init__(self, path: str, writer: FileWriter | None, *, has_name: bool = False, length_bytes: int = 0) -> None:
        self.path = path
        self.has_name = has_name
        self.writer = writer
        self.sent_bytes = self.stored_bytes = length_bytes
        self.block_bytes = 0

    def sync(self) -> None:
        """Have all that was written on the DataNodes' disks; UnsupportedError for erasure-coded files."""
        if self.writer is not None:
            self.writer.sync()
        self.stored_bytes = self.sent_bytes

    def write(self, chunk: bytes) -> None:
        """Add bytes. Where they begin a block, the DataNodes have acknowledged the one before."""
        assert self.writer is not None
        self.writer.write(chunk)
        self.sent_bytes += len(chunk)
        if self.block_bytes:
            self.stored_bytes = max(self.stored_bytes, (self.sent_bytes - 1) // self.block_bytes * self.block_bytes)

    def close(self) -> None:
        """Complete the file."""
        if self.writer is not None:
            self.writer.close()


class Uploader:
    """Does what requests ask for, several at once."""

    def __init__(self, config: MountConfig, channel: socket.socket) -> None:
        """Write to what `config` mounts, and answer on `channel`."""
        self._backend: ResilientBackend = connect(config)
        self._channel = channel
        self._answering = threading.Lock()
        self._sessions: dict[int, _Session] = {}
        # How much may have gone out that DataNodes may lose with this process: the daemon keeps it staged. A block that
        # is full is stored, so blocks of the usual 128 MiB need no hsync for it.
        self._unstored_bytes = config.staging.window_bytes // 2
        self._requests = ThreadPoolExecutor(_THREADS, "request")
        self._closers = ThreadPoolExecutor(MAX_CLOSING, "close")
        self._askers = ThreadPoolExecutor(_ASKERS, "xattrs")
        self._no_xattrs_until_s = float("-inf")

    def run(self) -> None:
        """Take requests until the daemon closes the stream; then finish."""
        self._send(Answer(0))
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := self._channel.recv(_RECEIVE_BYTES):
                received += data
                for message in take_frames(received):
                    request = msgspec.msgpack.decode(message, type=Request)
                    pool = self._closers if isinstance(request, Finish) else self._requests
                    pool.submit(self._serve, request)
        self._requests.shutdown()
        for session in self._sessions.values():
            self._closers.submit(self._leave, session)
        self._closers.shutdown()

    def _leave(self, session: _Session) -> None:
        """The daemon has gone without a word of this session."""
        with contextlib.suppress(HdfsFuseError):
            if session.has_name:
                session.close()
            else:
                self._backend.delete(session.path, recursive=False)

    def _serve(self, request: Request) -> None:
        try:
            match request:
                case Reserve():
                    answer = self._reserve(request)
                case Append():
                    answer = self._append(request)
                case Send():
                    answer = self._send_content(request)
                case Publish():
                    answer = self._publish(request)
                case Finish():
                    answer = self._finish(request)
                case Abandon():
                    answer = self._abandon(request)
        except HdfsFuseError as e:
            answer = Answer.of(request.number, e)
        except Exception as e:
            logger.exception("unexpected error in %s", type(request).__name__)
            answer = Answer.of(request.number, BackendError(f"{type(e).__name__}: {e}"))
        self._send(answer)

    def _send(self, reply: Reply) -> None:
        with self._answering, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._channel.sendall(frame(reply))

    # --- sessions ---

    def _reserve(self, request: Reserve) -> Answer:
        self._sessions.pop(request.replaces, None)
        try:
            writer = self._create(request, overwrite=request.take_over)
        except AlreadyExistsError:
            writer = self._replace_left(request) if self._is_left(request.sibling) else self._create(request)
        target = None
        if request.target:
            try:
                target = self._status_or_none(request.target)
            except HdfsFuseError:
                with contextlib.suppress(HdfsFuseError):
                    self._backend.delete(request.sibling, recursive=False)
                raise
        self._sessions[request.number] = _Session(request.sibling, writer)
        return Answer(request.number, target=target)

    def _create(self, request: Reserve, *, overwrite: bool = False) -> FileWriter:
        return self._backend.create(request.sibling, mode=request.mode, overwrite=overwrite)

    def _replace_left(self, request: Reserve) -> FileWriter:
        """Take a sibling that nobody writes; BusyError for all but one of several who do so at once."""
        lease: FileWriter | None = None
        with contextlib.suppress(UnsupportedError):  # erasure-coded
            lease = self._backend.append(request.sibling)
        try:
            return self._create(request, overwrite=True)
        finally:
            del lease  # what it held is gone

    def _status_or_none(self, path: str) -> FileStatus | None:
        try:
            return self._backend.status(path)
        except NotFoundError:
            return None

    def _is_left(self, sibling: str) -> bool:
        """Whether a sibling which is complete was left by a crash; False when it goes: it gets its name, or is removed.

        Raises:
            BusyError: something else happens to it.
        """
        before = self._status_or_none(sibling)
        for _ in range(_ABANDONED_POLLS):
            if before is None:
                break
            time.sleep(_ABANDONED_S / _ABANDONED_POLLS)
            found = self._status_or_none(sibling)
            if found is not None and found != before:
                raise BusyError(f"{sibling}: another client is writing this file")
            before = found
        return before is not None

    def _append(self, request: Append) -> Answer:
        writer = None if request.over_http else self._backend.append(request.path)
        length_bytes = self._backend.status(request.path).length_bytes
        self._sessions[request.number] = _Session(request.path, writer, has_name=True, length_bytes=length_bytes)
        return Answer(request.number, length_bytes=length_bytes)

    def _finish(self, request: Finish) -> Answer:
        session = self._sessions.pop(request.session)
        session.close()
        mtime_ms = 0
        if request.mtime_ms is not None:
            with contextlib.suppress(HdfsFuseError):
                found = self._backend.status(request.path)
                if found.length_bytes == session.sent_bytes:  # else it has another path now, which the daemon will see
                    if found.mtime_ms != request.mtime_ms:
                        self._backend.set_times(request.path, mtime_ms=request.mtime_ms, atime_ms=None)
                    mtime_ms = request.mtime_ms
        return Answer(request.number, mtime_ms=mtime_ms)

    def _abandon(self, request: Abandon) -> Answer:
        self._sessions.pop(request.session)
        with contextlib.suppress(HdfsFuseError):
            self._backend.delete(request.sibling, recursive=False)
        return Answer(request.number)

    # --- content ---

    def _send_content(self, request: Send) -> Answer:
        session = self._sessions.pop(request.session)
        if session.writer is None:
            self._extend(session, request)
        else:
            for chunk in self._missing(session, request):
                session.write(chunk)
                if session.sent_bytes - session.stored_bytes > self._unstored_bytes:
                    session.sync()
        if request.durable or session.writer is None:
            session.sync()
        elif not session.block_bytes:
            session.sync()  # also to see that it can be: what an erasure-coded file has stored is not known
            with contextlib.suppress(HdfsFuseError):
                session.block_bytes = self._backend.status(session.path).block_size_bytes
        self._sessions[request.session] = session
        return Answer(request.number, length_bytes=session.sent_bytes, stored_bytes=session.stored_bytes)

    def _extend(self, session: _Session, request: Send | Publish) -> None:
        length_bytes = request.content.length_bytes
        chunks = self._missing(session, request)
        if session.sent_bytes < length_bytes:
            self._backend.extend(session.path, chunks, length_bytes - session.sent_bytes)
            session.sent_bytes = length_bytes

    def _missing(self, session: _Session, request: Send | Publish) -> Iterator[bytes]:
        """What the session's file does not have yet, telling the daemon from time to time that it is going out."""
        if session.sent_bytes != request.content.sent_bytes:
            raise BackendError(f"{session.sent_bytes} bytes were written, not {request.content.sent_bytes}")
        return self._reporting(request)

    def _reporting(self, request: Send | Publish) -> Iterator[bytes]:
        told_s = time.monotonic()
        for chunk in read_content(request.content, self._open_base):
            yield chunk
            if time.monotonic() - told_s > _PROGRESS_INTERVAL_S:
                told_s = time.monotonic()
                self._send(Progress(request.number))

    def _open_base(self, base: Source) -> FileReader:
        return self._backend.open_version(base.path, Version(base.mtime_ms, base.length_bytes))

    # --- publishing ---

    def _publish(self, request: Publish) -> Answer:
        session = self._sessions.pop(request.session)
        kept = self._askers.submit(self._xattrs_of_replaced, request)
        is_open = self._write_sibling(session, request)
        written = self._backend.status(request.sibling)
        if written.length_bytes != request.content.length_bytes:
            raise BackendError(
                f"{request.target}: {written.length_bytes} of {request.content.length_bytes} bytes were written"
            )
        self._set_attributes(written, request, kept.result() | request.xattrs)
        self._backend.rename(request.sibling, request.target, overwrite=request.overwrite)
        if is_open:
            session.has_name = True
            self._sessions[request.session] = session
        mtime_ms = written.mtime_ms if request.mtime_ms is None else request.mtime_ms
        return Answer(request.number, mtime_ms=mtime_ms, length_bytes=written.length_bytes, is_open=is_open)

    def _write_sibling(self, session: _Session, request: Publish) -> bool:
        """Put the content into the sibling; whether it is on the DataNodes' disks and still to be completed."""
        content = request.content
        if request.over_http:
            if content.sent_bytes:
                raise BackendError("a file is written over WebHDFS from its beginning")
            chunks = self._reporting(request)
            self._backend.put(request.sibling, chunks, content.length_bytes, request.mode, alone=request.alone)
            return False
        if session.writer is None:
            self._extend(session, request)
            return False
        for chunk in self._missing(session, request):
            session.write(chunk)
        if request.keep_open or request.durable:
            try:
                session.sync()
            except UnsupportedError:  # erasure-coded: closing it is all that there is
                logger.debug("%s: can't be synced", request.target)
            else:
                if request.keep_open:
                    return True
        session.close()
        return False

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
        except (UnsupportedError, UnavailableError, AuthenticationError) as e:
            logger.warning("%s: files that are replaced lose their extended attributes: %s", request.target, e)
            self._no_xattrs_until_s = time.monotonic() + _NO_XATTRS_S
            return {}

    def _set_attributes(self, written: FileStatus, request: Publish, xattrs: dict[str, bytes]) -> None:
        path = request.sibling
        for name, value in xattrs.items():
            self._backend.set_xattr(path, name, value)
        if request.overwrite:
            with contextlib.suppress(NotFoundError):
                self._backend.copy_attributes(request.target, path)
        if written.mode != request.mode:
            self._backend.set_mode(path, request.mode)
        if request.mtime_ms is not None or request.atime_ms is not None:
            self._backend.set_times(path, mtime_ms=request.mtime_ms, atime_ms=request.atime_ms)


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
