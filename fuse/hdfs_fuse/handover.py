"""What a supervisor and the daemon that it starts say to each other, over a SOCK_SEQPACKET pair.

    supervisor                                  daemon
    the MountConfig                    ->
                                       <-       connected: the root is there and may be entered
    serve, with the descriptors        ->
                                       <-       serving: FUSE_INIT is answered
    At any time                        <-       failed, with the reason

Nothing is mounted before the daemon is connected, so a mount that can't work is never seen.
"""

import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from hdfs_fuse import errors
from hdfs_fuse.errors import HdfsFuseError, MountError

MAX_MESSAGE_BYTES = 256 << 10


class Connected(msgspec.Struct, tag=True, frozen=True):
    """The daemon reaches its filesystem, and its root is a directory."""


class Serve(msgspec.Struct, tag=True, frozen=True):
    """Serve the FUSE connection whose descriptor comes along, and a second one that holds the recorded FUSE_INIT.

    Attributes:
        stats_path: where to offer statistics, a unix socket to be made.
    """

    stats_path: str


class Serving(msgspec.Struct, tag=True, frozen=True):
    """The mount works."""


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The daemon gives up.

    Attributes:
        kind: name of a class of hdfs_fuse.errors.
        message: the reason, for people.
    """

    kind: str
    message: str

    @staticmethod
    def of(error: HdfsFuseError) -> "Failed":
        """The message for an exception."""
        return Failed(type(error).__name__, str(error))

    def as_error(self) -> HdfsFuseError:
        """The exception that it was."""
        return errors.named(self.kind, self.message, MountError)


Message = Connected | Serve | Serving | Failed


def send(channel: socket.socket, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
    """Send one message with descriptors, which stay open on this side too."""
    socket.send_fds(channel, [msgspec.json.encode(message)], fds)


def receive(channel: socket.socket, kind: Any = Message, fd_count: int = 0) -> tuple[Any, list[int]]:
    """The next message, of that type or union of types, and its descriptors, which the caller then owns.

    Raises:
        EOFError: the other side is gone. TimeoutError: as the socket's timeout says.
        MountError: it is no such message.
    """
    try:
        data, fds, _, _ = socket.recv_fds(channel, MAX_MESSAGE_BYTES, fd_count)
    except ConnectionResetError as e:
        raise EOFError("the other side ended without reading") from e
    if not data:
        raise EOFError("the other side closed the channel")
    try:
        return msgspec.json.decode(data, type=kind), fds
    except msgspec.MsgspecError as e:
        for fd in fds:
            os.close(fd)
        raise MountError(f"a message that can't be understood: {e}") from e
