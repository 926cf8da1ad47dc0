"""Uploader processes, seen from the daemon.

A write to a DataNode that hangs can't be taken back from its thread, and neither can a client that holds leases. So
files are written by a process of its own (uploader.py), which can be killed: by then another one does its work, and
what it had begun under hidden names is written again from the start. What it has published stays.
"""

import contextlib
import itertools
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import trio

from hdfs_fuse.backend.base import FileStatus
from hdfs_fuse.errors import (
    BackendError,
    DeadlineError,
    HdfsFuseError,
    NoSpaceError,
    QuotaExceededError,
    ReadOnlyError,
    UnavailableError,
    UnsupportedError,
)
from hdfs_fuse.upload.messages import (
    MAX_CLOSING,
    Abandon,
    Answer,
    Append,
    Content,
    Finish,
    Progress,
    Publish,
    Reply,
    Request,
    Reserve,
    Send,
    frame,
    take_frames,
)

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 1 << 20

# The share of the deadline that an attempt may pass without any progress: so three hang within it.
_STALL_SHARE = 0.33
_MIN_ATTEMPTS = 3
# How long to go on where HDFS says that no DataNode has room: so it does for a second or two after a restart.
_NO_SPACE_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
# How often room of a quota is asked for that other files of ours have; completing one takes half a second.
_ROOM_WAIT_S = 0.2
# How long writing by a DataNode's own client comes first, after it was what worked.
_OVER_HTTP_S = 60.0
# How long a process may take to complete what it has published, at the end.
_DRAIN_S = 30.0
# What another attempt may mend. ReadOnlyError: safe mode, since the sibling could be made. NoSpaceError: the client
# asks for a place again and again at DataNodes that are dead, and says that there is none.
_TRANSIENT = (UnavailableError, DeadlineError, ReadOnlyError, NoSpaceError)


@dataclass(slots=True)
class Publication:
    """What is to be published, and how; see messages.Publish.

    Attributes:
        sibling: the path of the hidden file now.
    """

    sibling: str
    target: str
    overwrite: bool
    content: Content
    mode: int
    mtime_ms: int | None = None
    atime_ms: int | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    keep_open: bool = False
    durable: bool = False


class UploaderLostError(UnavailableError):
    """The uploader process has ended, or hangs: whether it has done what it was asked for is unknown."""


class Patience:
    """For how long a publication that fails is tried again."""

    def __init__(self, started_s: float, deadline_s: float) -> None:
        """Begin at `started_s`, on the clock of `is_over`, with `deadline_s` seconds for all attempts."""
        self._until_s = started_s + deadline_s
        self._others = 0  # failures of other kinds in a row
        self._no_space_until_s: float | None = None

    def is_over(self, attempt: int, error: HdfsFuseError, now_s: float) -> bool:
        """Whether attempt number `attempt`, from 1 on, which has failed with `error`, was the last one."""
        until_s = self._until_s
        if isinstance(error, NoSpaceError):
            # One failure in between is the other way of storing a file; after several the NameNode has been away.
            if self._no_space_until_s is None or self._others > 1:
                self._no_space_until_s = now_s + _NO_SPACE_S
            self._others = 0
            until_s = min(until_s, self._no_space_until_s)
        else:
            self._others += 1
        return attempt >= _MIN_ATTEMPTS and now_s > until_s


class _Waiting:
    """A request that is under way."""

    __slots__ = ("answer", "answered", "scope")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.answer: Answer | None = None
        self.scope: trio.CancelScope | None = None


class _Process:
    """One uploader process, from its start to its end. Belongs to the event loop."""

    def __init__(self, config_json: bytes, stall_s: float) -> None:
        self._config_json = config_json
        self._stall_s = stall_s
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._sending = trio.Lock()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[int, _Waiting] = {}
        self.is_usable = True
        self.ended_s = float("inf")
        self._ready = trio.Event()  # it has started, or never will
        self.ended = trio.Event()

    async def run(self) -> None:
        """Start the process and take its replies until it ends."""
        try:
            self._process = await trio.to_thread.run_sync(self._start)
            await self._send(len(self._config_json).to_bytes(4, "little") + self._config_json)
            received = bytearray()
            while data := await self._stream.receive_some(_RECEIVE_BYTES):
                received += data
                for message in take_frames(received):
                    self._take(msgspec.msgpack.decode(message, type=Reply))
        except Exception as e:  # noqa: BLE001  # whatever it is, another process may do better
            logger.warning("an uploader process failed: %s: %s", type(e).__name__, e)
        finally:
            self._end()
            with trio.CancelScope(shield=True):
                if self._process is not None:
                    await trio.to_thread.run_sync(self._process.wait)
            self.ended.set()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._theirs:
            fd = self._theirs.fileno()
            command = [sys.executable, "-m", "hdfs_fuse.upload.uploader", str(fd)]
            return subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL)

    def _end(self) -> None:
        self.condemn()
        self._ready.set()
        self.kill()
        self._theirs.close()
        self._stream.socket.close()
        for waiting in list(self._pending.values()):
            waiting.answered.set()

    def _take(self, reply: Reply) -> None:
        match reply:
            case Progress():
                waiting = self._pending.get(reply.number)
                if waiting is not None and waiting.scope is not None:
                    waiting.scope.deadline = trio.current_time() + self._stall_s
            case Answer(number=0):
                self._ready.set()
            case Answer():
                if (waiting := self._pending.get(reply.number)) is not None:
                    waiting.answer = reply
                    waiting.answered.set()

    async def request(self, make: Callable[[int], Request]) -> Answer:
        """Ask, and wait for the answer.

        Raises:
            DeadlineError: nothing was heard of the request for too long. UnavailableError: the process has ended.
            HdfsFuseError: as the process answers.
        """
        number = next(self._numbers)
        waiting = self._pending[number] = _Waiting()
        try:
            with trio.CancelScope(deadline=trio.current_time() + self._stall_s) as scope:
                waiting.scope = scope
                await self._ready.wait()
                await self._send(frame(make(number)))
                await waiting.answered.wait()
            if scope.cancelled_caught:
                self.condemn()
                raise DeadlineError(f"no progress in {self._stall_s:g} s")
        finally:
            del self._pending[number]
            if not self.is_usable and not self._pending:
                self.kill()
        if waiting.answer is None:
            raise UploaderLostError("the uploader process has ended")
        return waiting.answer.check()

    async def _send(self, data: bytes) -> None:
        try:
            async with self._sending:
                # Half a message would be worse than one too many.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + self._stall_s) as scope:
                    await self._stream.send_all(data)
                if scope.cancelled_caught:
                    self.kill()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as e:
            raise UnavailableError("the uploader process has ended") from e

    def condemn(self) -> None:
        """Ask it for nothing more; it is killed when the others that wait for it have their answers."""
        self.is_usable = False
        self.ended_s = min(self.ended_s, trio.current_time())

    def kill(self) -> None:
        """End it at once, whatever it hangs in."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()

    async def drain(self, deadline_s: float) -> None:
        """Let it complete what it has published, and end."""
        self.is_usable = False
        with contextlib.suppress(OSError, trio.ClosedResourceError):
            self._stream.socket.shutdown(socket.SHUT_WR)
        with trio.move_on_after(deadline_s):
            await self.ended.wait()
        self.kill()


@dataclass(slots=True)
class Session:
    """A file that an uploader process is writing, and whose lease it holds.

    Attributes:
        process: where.
        number: its name there.
        length_bytes: what the file has.
        target: what was under the name of the file when its sibling was begun; None for nothing.
    """

    process: _Process
    number: int
    length_bytes: int = 0
    target: FileStatus | None = None

    @property
    def is_usable(self) -> bool:
        """Whether its process is."""
        return self.process.is_usable

    @property
    def ended_s(self) -> float:
        """When its process was given up, on trio's clock; infinite before."""
        return self.process.ended_s


class Uploads:
    """What a daemon's files are written by. No process before the first file. Belongs to the event loop."""

    def __init__(self, config_json: bytes, nursery: trio.Nursery, deadline_s: float) -> None:
        """Start processes in `nursery`.

        Args:
            config_json: the MountConfig, for them.
            nursery: their replies are taken there.
            deadline_s: how long to go on trying where nothing succeeds, in seconds.
        """
        self._config_json = config_json
        self._nursery = nursery
        self._deadline_s = deadline_s
        self._processes: list[_Process] = []
        self._over_http_until_s = float("-inf")
        self._has_http = True
        self._closing = trio.Semaphore(MAX_CLOSING)
        self._publishing = 0
        self._alone_until_s = float("-inf")  # something hung lately: writing to one DataNode first is what helps then

    def _process(self) -> _Process:
        for process in self._processes:
            if process.is_usable:
                return process
        try:
            process = _Process(self._config_json, self._deadline_s * _STALL_SHARE)
        except OSError as e:  # no descriptor is left
            raise UnavailableError(f"no uploader can be started: {e.strerror}") from e
        self._processes.append(process)
        self._nursery.start_soon(self._run, process)
        return process

    async def _run(self, process: _Process) -> None:
        try:
            await process.run()
        finally:
            self._processes.remove(process)

    async def reserve(
        self,
        sibling: str,
        mode: int,
        *,
        take_over: bool = False,
        replaces: Session | None = None,
        target: str = "",
    ) -> Session:
        """Begin a sibling, which nobody else can then begin; see messages.Reserve.

        Raises:
            BusyError: another client is writing the file. PermissionDeniedError, ReadOnlyError, QuotaExceededError,
            NotFoundError: as the NameNode answers.
        """
        process = self._process()
        old = replaces.number if replaces is not None and replaces.process is process else 0
        answer = await process.request(lambda number: Reserve(number, sibling, mode, take_over, old, target))
        return Session(process, answer.number, target=answer.target)

    async def append(self, path: str, *, over_http: bool = False) -> Session:
        """Go on behind the end of a file; see messages.Append.

        Raises:
            NotFoundError. BusyError: it is not complete.
        """
        process = self._process()
        answer = await process.request(lambda number: Append(number, path, over_http))
        return Session(process, answer.number, answer.length_bytes)

    async def send(self, session: Session, content: Content, *, durable: bool) -> Answer:
        """Write what the session's file does not have yet; after an error the session has ended.

        Raises:
            UnsupportedError: an erasure-coded file. HdfsFuseError: it is not known how much has been written.
        """
        return await session.process.request(lambda number: Send(number, session.number, content, durable))

    async def finish(self, session: Session, path: str, mtime_ms: int | None) -> Answer:
        """End a session and complete its file, which is at `path`; see messages.Finish.

        Raises:
            NotFoundError, BusyError: another client has removed or replaced it. HdfsFuseError: the lease may be left.
        """
        async with self._closing:
            return await session.process.request(lambda number: Finish(number, session.number, path, mtime_ms))

    async def abandon(self, session: Session, sibling: str) -> None:
        """End a session and remove its sibling, now at that path; never raises: the next writer takes it over."""
        with contextlib.suppress(HdfsFuseError):
            await session.process.request(lambda number: Abandon(number, session.number, sibling))

    async def publish_once(self, session: Session, publication: Publication) -> Answer:
        """As `publish`, but tried only once: for a session that has what can't be sent again. It ends."""
        publication.keep_open = False
        return await self._attempt(session, publication, over_http=False)

    async def publish(self, session: Session | None, publication: Publication) -> tuple[Answer, Session | None]:
        """Write the content and give it its name; tries again as long as that may help.

        Args:
            session: of the sibling; None takes over what is there.
            publication: the content and the name.

        Returns:
            What was stored, and the session where it goes on. Else it has ended, also where this fails: then its
            sibling may be there, to be taken over.

        Raises:
            HdfsFuseError: of the last attempt.
        """
        async with self._closing:  # not faster than files are completed
            pass
        until_s = trio.current_time() + min(_NO_SPACE_S, self._deadline_s)
        self._publishing += 1
        try:
            while True:
                try:
                    return await self._publish(session, publication)
                except QuotaExceededError as e:
                    if not self._others_hold_room or trio.current_time() > until_s:
                        raise
                    logger.debug("%s: waits for room: %s", publication.target, e)
                session = None
                publication.content = msgspec.structs.replace(publication.content, sent_bytes=0)
                await trio.sleep(_ROOM_WAIT_S)
        finally:
            self._publishing -= 1

    @property
    def _others_hold_room(self) -> bool:
        """Whether other files of ours take room of a quota and will give it back.

        Of each that is not complete HDFS counts a whole block (INodeFile.storagespaceConsumedContiguous).
        """
        return self._publishing > 1 or self._closing.value < MAX_CLOSING

    async def _publish(self, session: Session | None, publication: Publication) -> tuple[Answer, Session | None]:
        patience, wait_s = Patience(trio.current_time(), self._deadline_s), _FIRST_WAIT_S
        current = session
        for attempt in itertools.count(1):
            is_recent = trio.current_time() < max(self._over_http_until_s, self._alone_until_s)
            over_http = self._has_http and (is_recent or attempt % 2 == 0)
            try:
                if current is None or not current.is_usable:
                    current = await self.reserve(publication.sibling, publication.mode, take_over=True)
                answer = await self._attempt(current, publication, over_http=over_http)
            except UnsupportedError as e:
                if not over_http:
                    raise
                logger.info("writing over WebHDFS: %s", e)
                self._has_http = False
            except (*_TRANSIENT, BackendError) as e:
                if patience.is_over(attempt, e, trio.current_time()):
                    raise
                logger.info("%s: attempt %d failed: %s: %s", publication.target, attempt, type(e).__name__, e)
                self._learn(e, publication)
                await trio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                if over_http:
                    self._over_http_until_s = trio.current_time() + _OVER_HTTP_S
                return answer, current if answer.is_open else None
            current = None
            publication.content = msgspec.structs.replace(publication.content, sent_bytes=0)
        raise AssertionError

    def _learn(self, error: HdfsFuseError, publication: Publication) -> None:
        if isinstance(error, DeadlineError):
            self._alone_until_s = trio.current_time() + _OVER_HTTP_S
        if isinstance(error, DeadlineError | UploaderLostError):
            publication.overwrite = True  # what is there may be ours

    async def _attempt(self, session: Session, what: Publication, *, over_http: bool) -> Answer:
        alone = trio.current_time() < self._alone_until_s
        return await session.process.request(
            lambda number: Publish(
                number, session.number, what.sibling, what.target, what.overwrite, what.content, what.mode,
                what.mtime_ms, what.atime_ms, what.xattrs, what.keep_open, what.durable, over_http, alone,
            )
        )  # fmt: skip

    async def drain(self) -> None:
        """Complete what has been published, and end the processes."""
        async with trio.open_nursery() as nursery:
            for process in self._processes:
                nursery.start_soon(process.drain, _DRAIN_S)
