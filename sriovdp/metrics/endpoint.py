"""The HTTP endpoint of the metrics: the library's answer behind a server that cannot hurt the agent.

The library's own server asks DNS for the name of its address before it serves, on a node whose network this agent may
have to make first; and each of its clients has a thread and a socket for as long as it likes, in a process that needs
its file descriptors for pods. Here one client is served after the other, each within a few seconds.
"""

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import TCPServer
from typing import cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from sriovdp.errors import SriovdpError

logger = logging.getLogger(__name__)

_CLIENT_TIMEOUT = 10.0  # seconds for one client's request and its answer; Prometheus waits as long by default


class _Handler(WSGIRequestHandler):
    def handle(self) -> None:
        """Answer, unless the client takes too long."""
        limit = threading.Timer(_CLIENT_TIMEOUT, self._give_up)
        limit.start()
        try:
            super().handle()
        finally:
            limit.cancel()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        """Requests are not logged."""

    def _give_up(self) -> None:
        with suppress(OSError):  # it has left by itself
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(WSGIServer):
    def __init__(self, address: str, port: int) -> None:
        [(self.address_family, _, _, _, place), *_] = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        super().__init__(cast("tuple[str, int]", place), _Handler)

    def server_bind(self) -> None:
        """Bind; what HTTPServer does beside that is asking DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no matter for the log."""
        del request
        logger.debug("a client of the metrics, %s, was not served: %r", client_address, sys.exception())


@contextmanager
def serve_metrics(address: str, port: int, collector: Collector) -> Iterator[int]:
    """Serve a collector's metrics and those of this process as long as the block runs; gives the port.

    `address` is an IPv4 or IPv6 address; port 0 is any that is free. Raises SriovdpError when it cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    said = f"[{address}]" if ":" in address else address
    try:
        server = _Server(address, port)
    except OSError as error:
        raise SriovdpError(
            f"metrics cannot be served at {said}:{port}: {error.strerror}",
            hint="--metrics takes an address of this node, and a port where nothing listens yet (`ss -ltnp`)",
        ) from error
    with server:
        server.set_app(make_wsgi_app(registry))
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        logger.info("metrics are served at http://%s:%d/metrics", said, server.server_port)
        try:
            yield server.server_port
        finally:
            server.shutdown()
