"""The HTTP endpoint beside the CSI socket: /metrics for Prometheus, /healthz for probes."""

import logging
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from hdfs_fuse.errors import InvalidArgumentError, UnavailableError
from prometheus_client import CollectorRegistry, make_wsgi_app

log = logging.getLogger(__name__)

_ACCEPTED = "host:port, or :port for all addresses"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds for a request to come

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Somebody asks every few seconds."""


class Telemetry:
    """A running endpoint; `close` is owed."""

    def __init__(self, address: str, registry: CollectorRegistry, problem: Callable[[], str]) -> None:
        """Answer from now on.

        Args:
            address: `host:port`, or `:port` for all addresses.
            registry: what /metrics tells.
            problem: why the process can't serve, for /healthz; the empty string when it can.

        Raises:
            InvalidArgumentError: no address. UnavailableError: it can't be listened on.
        """
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise InvalidArgumentError(f"http address: given {address!r}, accepted is {_ACCEPTED}")
        self._metrics = make_wsgi_app(registry)
        self._problem = problem
        try:
            self._server = make_server(host.strip("[]"), int(port), self._answer, _Server, _Handler)
        except OSError as e:
            raise UnavailableError(f"http address {address!r}: can't be listened on: {e}") from e
        log.info("http address=%s port=%d", address, self._server.server_port)
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return self._metrics(environ, start_response)  # type: ignore[no-any-return]
        status, text = ("404 Not Found", "here are /metrics and /healthz")
        if path == "/healthz":
            problem = self._problem()
            status, text = ("503 Service Unavailable", problem) if problem else ("200 OK", "ok")
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
