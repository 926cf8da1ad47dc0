"""gRPC on a unix socket: which method serves which RPC, logging, errors, and an orderly end.

Services are plain objects with one method an RPC, named as the RPC in snake case, from request to response. They
raise exceptions; only this file and errors.py know of gRPC.
"""

import errno
import logging
import os
import re
import secrets
import socket
import stat
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hdfs_fuse.errors import BusyError, InvalidArgumentError

from hdfs_csi import logs
from hdfs_csi.errors import is_expected, status_of
from hdfs_csi.pb import csi_pb2 as csi

log = logging.getLogger(__name__)

Method = Callable[[Message], Message]
Observer = Callable[[str, str, float], None]

# Each RPC may wait for a mount or a NameNode for half a minute, and a node that restarts gets one for every volume at
# once. Calls that find no free thread wait in gRPC's queue.
DEFAULT_THREADS = 32

# Of these, those that no volume may take: Probe must be answered while mounts hang, or the kubelet restarts the driver.
FREE_THREADS = 4

# sockaddr_un.sun_path in unix(7): 108 bytes with the final NUL.
_MAX_SOCKET_PATH_BYTES = 107

# What a CO asks all the time.
_QUIET = frozenset(
    {
        "Probe",
        "GetPluginInfo",
        "GetPluginCapabilities",
        "ControllerGetCapabilities",
        "NodeGetCapabilities",
        "NodeGetVolumeStats",
        "NodeGetVolumeHealth",
        "NodeGetStorageHealth",
    }
)

# gRPC sends a message as HTTP/2 metadata, of which clients take 8 KiB by default.
_MAX_MESSAGE_CHARACTERS = 2000


class Server:
    """Services on one unix socket."""

    def __init__(
        self,
        endpoint: str,
        services: Sequence[object],
        *,
        threads: int = DEFAULT_THREADS,
        observe: Observer = lambda _method, _code, _duration_s: None,
    ) -> None:
        """Bind the socket; nothing is answered before `start`.

        Args:
            endpoint: `unix:///path/to/socket`.
            services: an Identity, a Controller, a Node: each serves the CSI service that its class is named after.
            threads: calls at once.
            observe: hears of each call: its method, its gRPC code, and how long it took in seconds.

        Raises:
            InvalidArgumentError: no unix endpoint, a path that is too long, or a missing directory.
            BusyError: another process listens there, or the path is no socket.
        """
        self.path = socket_path(endpoint)
        remove_stale_socket(self.path)
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=threads, thread_name_prefix="rpc"),
            handlers=[
                _generic_handler(csi.DESCRIPTOR.services_by_name[type(s).__name__], s, observe) for s in services
            ],
        )
        # Whoever may connect may mount: 0600, and from the first moment on, hence the umask instead of a chmod.
        previous = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self.path}")
        except RuntimeError as e:
            raise InvalidArgumentError(f"endpoint {endpoint!r}: can't listen there: {e}") from e
        finally:
            os.umask(previous)

    def start(self) -> None:
        """Answer calls from now on."""
        self._server.start()
        log.info("serving endpoint=unix://%s pid=%d", self.path, os.getpid())

    def stop(self, grace_s: float) -> None:
        """Take no more calls, let those that run end within `grace_s` seconds, and remove the socket."""
        log.info("draining grace_s=%g", grace_s)
        self._server.stop(grace_s).wait()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return


def socket_path(endpoint: str) -> str:
    """The path of a unix endpoint.

    Args:
        endpoint: `unix:///path`, or `unix:/path` as some sidecars write it.

    Raises:
        InvalidArgumentError: anything else, or a path that the kernel or the filesystem can't take.
    """
    match = re.fullmatch(r"unix:(?://)?(/[^/].*)", endpoint)
    if not match:
        raise InvalidArgumentError(f"endpoint: given {endpoint!r}, accepted is unix:///path/to/csi.sock")
    path = match[1]
    if len(path.encode()) > _MAX_SOCKET_PATH_BYTES:
        raise InvalidArgumentError(f"endpoint: the path has more than the {_MAX_SOCKET_PATH_BYTES} bytes of a socket's")
    if not os.path.isdir(os.path.dirname(path)):
        raise InvalidArgumentError(f"endpoint: {os.path.dirname(path)!r} is no directory")
    return path


def remove_stale_socket(path: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Remove the socket that a process which is gone has left; anything else stays.

    gRPC itself would remove a socket whoever listens on it, and two drivers would fight over one endpoint.

    Raises:
        BusyError: somebody listens, or `path` is no socket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BusyError(f"endpoint: {path!r} exists and is no socket")
    with socket.socket(socket.AF_UNIX, kind) as probe:
        # A full backlog answers EAGAIN instead of waiting: somebody listens.
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code == errno.ECONNREFUSED:
        log.info("stale socket removed path=%s", path)
        os.unlink(path)
    elif code != errno.ENOENT:
        raise BusyError(f"endpoint: another process listens on {path!r}")


def _generic_handler(
    service: ServiceDescriptor, implementation: object, observe: Observer
) -> "grpc.GenericRpcHandler[Message, Message]":
    """Handlers for the RPCs that `implementation` has methods for; gRPC answers UNIMPLEMENTED to the others."""
    handlers = {}
    for rpc in service.methods:
        method: Method | None = getattr(implementation, snake_case(rpc.name), None)
        if method is not None:
            handlers[rpc.name] = _handler(rpc, method, observe)
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _handler(rpc: MethodDescriptor, method: Method, observe: Observer) -> "grpc.RpcMethodHandler[Message, Message]":
    def serve(request: Message, context: grpc.ServicerContext) -> Message:
        return _serve(rpc.name, method, request, context, observe)

    return grpc.unary_unary_rpc_method_handler(
        serve,
        request_deserializer=GetMessageClass(rpc.input_type).FromString,
        response_serializer=GetMessageClass(rpc.output_type).SerializeToString,
    )


def _serve(name: str, method: Method, request: Message, context: grpc.ServicerContext, observe: Observer) -> Message:
    """Call `method` between two log lines that share a request id; whatever it raises becomes a status."""
    token = logs.request_id.set(secrets.token_hex(4))
    level = logging.DEBUG if name in _QUIET else logging.INFO
    started = time.monotonic()
    try:
        if log.isEnabledFor(level):
            log.log(level, "call %s %s", name, logs.describe(request))
        response = method(request)
    except Exception as e:  # noqa: BLE001 - the one place where an error leaves the driver
        observe(name, status_of(e).name, time.monotonic() - started)
        _fail(name, e, started, context)
    else:
        observe(name, "OK", time.monotonic() - started)
        log.log(level, "done %s ms=%d", name, (time.monotonic() - started) * 1000)
        return response
    finally:
        logs.request_id.reset(token)


def _fail(name: str, error: Exception, started: float, context: grpc.ServicerContext) -> NoReturn:
    code, elapsed_ms = status_of(error), (time.monotonic() - started) * 1000
    if is_expected(error):
        message = str(error)
        log.warning("failed %s ms=%d code=%s error=%s", name, elapsed_ms, code.name, message)
    else:
        # The text of an unknown error may hold anything, a secret too.
        message = f"{type(error).__name__}; see the driver's log, request {logs.request_id.get()}"
        frames = traceback.extract_tb(error.__traceback__)
        where = "\n".join(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames)
        log.error("failed %s ms=%d code=%s error=%s\n%s", name, elapsed_ms, code.name, type(error).__name__, where)
    context.abort(code, message[:_MAX_MESSAGE_CHARACTERS])


def snake_case(name: str) -> str:
    """`NodeStageVolume` as `node_stage_volume`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
