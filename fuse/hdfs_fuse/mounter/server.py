"""Offers a supervisor to another process over a unix socket (protocol.py)."""

import contextlib
import logging
import os
import socket
import socketserver
from typing import Any

from hdfs_fuse import handover
from hdfs_fuse.config import MountConfig
from hdfs_fuse.errors import HdfsFuseError, MountError, UnsupportedError
from hdfs_fuse.mounter import protocol
from hdfs_fuse.mounter.serving import peer_of
from hdfs_fuse.mounter.supervisor import Supervisor

logger = logging.getLogger(__name__)

# How long whoever was told that its daemon is connected may take to mount, or that it is found to unmount, in seconds.
_TURN_S = 60.0


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Does what clients ask for, each in a thread of its own. To be closed."""

    socket_type = socket.SOCK_SEQPACKET
    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, supervisor: Supervisor) -> None:
        """Listen at `path`, where nothing is yet.

        Raises:
            MountError: it can't be made.
        """
        self.supervisor = supervisor
        self._path = path
        before = os.umask(0o177)  # for our own user, and for root, whom permissions don't keep out
        try:
            super().__init__(path, _Handler)
        except OSError as e:
            raise MountError(f"socket {path}: {e.strerror or e}") from e
        finally:
            os.umask(before)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Take connections of root, and of our own user: the descriptors of a mount are all its content."""
        pid, uid = peer_of(request)
        if uid in (0, os.geteuid()):
            return True
        logger.warning("refused: process %d of user %d; accepted are root and user %d", pid, uid, os.geteuid())
        return False

    def server_close(self) -> None:
        """Listen no longer; daemons go on."""
        super().server_close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class _Handler(socketserver.BaseRequestHandler):
    """One conversation."""

    server: Server
    request: socket.socket

    def handle(self) -> None:
        """Answer until the client has what it asked for, or goes away."""
        self.request.settimeout(_TURN_S)
        with contextlib.suppress(EOFError, TimeoutError, BrokenPipeError, ConnectionResetError):
            try:
                message, _ = handover.receive(self.request, protocol.Request)
                if message.version != protocol.VERSION:
                    raise UnsupportedError(
                        f"mounter: given version {message.version} of its protocol, accepted is {protocol.VERSION}; "
                        "run the node service and the mounter from the same release"
                    )
                match message:
                    case protocol.Start():
                        self._start(message)
                    case protocol.End():
                        self._end(message)
                    case protocol.Ping():
                        handover.send(self.request, protocol.Pong())
            except HdfsFuseError as e:
                handover.send(self.request, handover.Failed.of(e))
            except (EOFError, TimeoutError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as e:
                logger.exception("unexpected error")
                handover.send(self.request, handover.Failed.of(MountError(f"mounter: {type(e).__name__}; see its log")))

    def _start(self, start: protocol.Start) -> None:
        supervisor = self.server.supervisor
        config = MountConfig.from_json(bytes(start.config))
        with supervisor.starting(config, start.mountpoint, deadline_s=start.deadline_s) as daemon:
            handover.send(self.request, handover.Connected())
            mounted, fds = handover.receive(self.request, protocol.Mounted, 2)
            try:
                if len(fds) != 2:
                    raise MountError(f"mounter: given {len(fds)} descriptors, accepted are 2")
                daemon.serve(mounted.device, *fds, deadline_s=mounted.deadline_s)
            finally:
                for fd in fds:
                    os.close(fd)
            handover.send(self.request, handover.Serving())

    def _end(self, end: protocol.End) -> None:
        with self.server.supervisor.ending(end.mountpoint, end.device) as ending:
            handover.send(self.request, protocol.Found(ending.devices))
            finish, _ = handover.receive(self.request, protocol.Finish)
            ending.finish(finish.devices, deadline_s=finish.deadline_s)
        handover.send(self.request, protocol.Ended())
