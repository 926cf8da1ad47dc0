"""A CSI client for tests: sends a request to whichever RPC takes it."""

from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hdfs_csi.pb import csi_pb2 as csi

from tests.support.waiting import wait_until

_RPCS: dict[str, MethodDescriptor] = {
    method.input_type.full_name: method
    for service in csi.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class CsiClient:
    """One connection to a driver's socket."""

    def __init__(self, socket_path: str) -> None:
        """Connect when the first call is made."""
        self._channel = grpc.insecure_channel(
            f"unix:{socket_path}",
            # A driver that was restarted must be found at once, not after gRPC's growing waits.
            options=[("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)],
        )

    def start(self, request: Message, timeout_s: float = 90.0) -> "grpc.CallFuture[Any]":
        """Send `request`; the future has its response or error."""
        rpc = _RPCS[request.DESCRIPTOR.full_name]
        call = self._channel.unary_unary(
            f"/{rpc.containing_service.full_name}/{rpc.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(rpc.output_type).FromString,
        )
        return call.future(request, timeout=timeout_s, wait_for_ready=True)

    def call(self, request: Message, timeout_s: float = 90.0) -> Any:
        """Send `request` and return the response.

        Raises:
            grpc.RpcError: the driver's status.
        """
        return self.start(request, timeout_s).result()

    def refused(self, request: Message, timeout_s: float = 90.0) -> tuple[grpc.StatusCode, str]:
        """Send `request`, which must fail, and return its code and message."""
        error = self.start(request, timeout_s).exception()
        assert isinstance(error, grpc.RpcError), f"{type(request).__name__} was not refused"
        return error.code(), error.details() or ""

    def hold(self, request: Message) -> tuple["grpc.CallFuture[Any]", str]:
        """Send `request`, which must hang, twice at once: one of the two is refused, whichever came second.

        Returns:
            The one that hangs, and the message of the refused one.
        """
        calls = [self.start(request) for _ in range(2)]
        wait_until(lambda: any(call.done() for call in calls), "one of two calls for a volume is refused")
        refused, running = sorted(calls, key=lambda call: not call.done())
        assert refused.code() is grpc.StatusCode.ABORTED, refused.details()
        assert not running.done(), running.details()
        return running, refused.details() or ""

    def close(self) -> None:
        """Drop the connection."""
        self._channel.close()
