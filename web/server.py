"""The server that the page and the HTTP API run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

#: How long open pages and answers under way may keep the server from ending, in seconds.
GRACE_S = 3


class Server(uvicorn.Server):
    """Uvicorn's, which would wait for endless streams to end when it is told to stop.

    Args:
        config: As uvicorn's.
        close_streams: Called in the event loop, before answers under way are waited for.
    """

    def __init__(self, config: uvicorn.Config, close_streams: Callable[[], None]) -> None:
        super().__init__(config)
        config.timeout_graceful_shutdown = GRACE_S
        self._close_streams = close_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the streams, then whatever else is under way, then the application."""
        self._close_streams()
        await super().shutdown(sockets)
