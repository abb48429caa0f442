"""Routes whose bodies are small: what is larger is refused before it is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

#: A correction names some hundred tracklets at most.
MAX_BODY_BYTES = 256 << 10


class BoundedRoute(APIRoute):
    """A route that takes bodies of a length that is told beforehand, and not too long."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, behind the bound."""
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            if "transfer-encoding" in request.headers:
                raise HTTPException(411, "say how long the body is: Content-Length")
            # The server has made sure that it is a number.
            if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is too long: at most {MAX_BODY_BYTES} bytes are taken")
            return await handle(request)

        return bounded
