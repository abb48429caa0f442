"""`/healthz`, `/readyz` and `/metrics` over HTTP, from a thread of the supervisor."""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import structlog
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from streamer.children import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from streamer.config import MetricsConfig

_log = structlog.get_logger(__name__)

#: How long one client may take to ask; others wait meanwhile.
REQUEST_TIMEOUT_S = 2.0
#: How long the end may wait for an answer that is being given.
STOP_TIMEOUT_S = 5.0
_POLL_S = 0.2

Faults = dict[str, str]


class HealthServer:
    """Answers one client at a time, so that no number of them costs a site more than a thread.

    Args:
        config: Where to listen.
        lives: What keeps the program from being alive, by culprit; empty while all is well.
        ready: What keeps it from being ready.
        registry: The metrics.
    """

    def __init__(
        self,
        config: MetricsConfig,
        *,
        lives: Callable[[], Faults],
        ready: Callable[[], Faults],
        registry: CollectorRegistry,
    ) -> None:
        self._config, self._lives, self._ready, self._registry = config, lives, ready, registry
        self._server: HTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int | None:
        """Where it listens; the system's choice where the config says 0. None while it doesn't."""
        return None if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listens, where the config names a port.

        Raises:
            StartError: The port is taken, or the address is not of this host.
        """
        config = self._config
        if config.port is None:
            return
        try:
            self._server = HTTPServer((config.host, config.port), self._handler())
        except OSError as error:
            raise StartError(f"metrics: {config.host}:{config.port}: {error.strerror or error}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="health-server", daemon=True
        )
        self._thread.start()
        _log.info("health and metrics served", host=config.host, port=self.port)

    def stop(self) -> None:
        """Ends it. Safe to call twice."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join(STOP_TIMEOUT_S)
        self._server.server_close()
        self._server = self._thread = None

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """The status, content type and body of a page."""
        page = path.partition("?")[0]
        if page == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if page == "/healthz":
            return _verdict("alive", self._lives())
        if page == "/readyz":
            return _verdict("ready", self._ready())
        return HTTPStatus.NOT_FOUND, "text/plain", b"/healthz, /readyz, /metrics\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                status, kind, body = answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Says nothing: a probe asks every few seconds."""

        return Handler


def _verdict(word: str, faults: Faults) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if faults else HTTPStatus.OK
    body = json.dumps({word: not faults, "faults": faults}) + "\n"
    return status, "application/json", body.encode()
