"""A supervisor in another process, `hdfs-csi mounter`, reached over its socket."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec

from hdfs_fuse import handover
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import DeadlineError, HdfsFuseError, MountError, UnavailableError
from hdfs_fuse.mounter import protocol

T = TypeVar("T", bound=msgspec.Struct)

# The supervisor keeps the deadlines; what it says of them takes a moment to arrive, in seconds.
_GRACE_S = 5.0
# For what it answers at once.
_ANSWER_S = 10.0


class RemoteSupervisor:
    """Keeps daemons elsewhere; see daemons.Daemons."""

    def __init__(self, path: str) -> None:
        """Ask the one who listens at `path`; nothing is sent yet."""
        self._path = path

    @contextlib.contextmanager
    def starting(self, config: MountConfig, mountpoint: str, *, deadline_s: float) -> Iterator["_Conversation"]:
        """See daemons.Daemons."""
        with self._conversation() as conversation:
            start = protocol.Start(protocol.VERSION, msgspec.Raw(config.to_json()), mountpoint, deadline_s)
            conversation.ask(start, handover.Connected, deadline_s)
            yield conversation

    @contextlib.contextmanager
    def ending(self, mountpoint: str, device: str | None) -> Iterator["_Conversation"]:
        """See daemons.Daemons."""
        with self._conversation() as conversation:
            end = protocol.End(protocol.VERSION, mountpoint, device)
            conversation.devices = conversation.ask(end, protocol.Found, _ANSWER_S).devices
            yield conversation

    def problem(self) -> str:
        """Why it can't be used; empty when it can."""
        try:
            with self._conversation() as conversation:
                conversation.ask(protocol.Ping(protocol.VERSION), protocol.Pong, 0.0)
        except HdfsFuseError as e:
            return str(e)
        return ""

    @contextlib.contextmanager
    def _conversation(self) -> Iterator["_Conversation"]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.settimeout(_ANSWER_S)
            try:
                channel.connect(self._path)
            except OSError as e:
                reason = e.strerror or "no answer"
                raise UnavailableError(f"mounter {self._path}: {reason}; is `hdfs-csi mounter` running?") from e
            yield _Conversation(self._path, channel)


class _Conversation:
    """One connection; see daemons.Starting and daemons.Ending."""

    def __init__(self, path: str, channel: socket.socket) -> None:
        self.devices: frozenset[str] = frozenset()
        self._path = path
        self._channel = channel

    def serve(self, device: str, fuse_fd: int, session_fd: int, *, deadline_s: float) -> None:
        """See daemons.Starting."""
        self.ask(protocol.Mounted(device, deadline_s), handover.Serving, deadline_s, (fuse_fd, session_fd))

    def finish(self, devices: frozenset[str], *, deadline_s: float) -> None:
        """See daemons.Ending."""
        self.ask(protocol.Finish(devices, deadline_s), protocol.Ended, deadline_s)

    def ask(self, message: msgspec.Struct, kind: type[T], deadline_s: float, fds: Sequence[int] = ()) -> T:
        """Send `message`, and wait for a reply of that kind."""
        self._channel.settimeout(max(deadline_s, 0.0) + _GRACE_S)
        try:
            handover.send(self._channel, message, fds)
            reply, _ = handover.receive(self._channel, protocol.Reply)
        except TimeoutError as e:
            raise DeadlineError(f"mounter {self._path}: no answer to {type(message).__name__} in time") from e
        except (EOFError, OSError) as e:
            raise UnavailableError(f"mounter {self._path}: it went away; what it says is in its log") from e
        if isinstance(reply, handover.Failed):
            raise reply.as_error()
        if not isinstance(reply, kind):
            raise MountError(f"mounter {self._path}: sent {reply!r} instead of {kind.__name__}")
        return reply
