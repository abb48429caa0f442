"""The sockets of open pages: each speaks for pages of its own login alone.

The page's library asks for a page's number only. That is as long as a password, but stands in addresses, which proxies
write down.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from nicegui import Client, core
from socketio.exceptions import ConnectionRefusedError as SocketRefusedError  # type: ignore[import-untyped]

from web.guard import caller_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: What a page's own script sends; each names its page.
_MESSAGES = ("handshake", "event", "javascript_response", "ack", "log")


def bind_sockets() -> None:
    """From now on what a socket says of somebody else's page is not heard."""
    handlers = core.sio.handlers["/"]
    for name in _MESSAGES:
        handlers[name] = _bound(handlers[name])
    handlers["connect"] = _connecting(handlers["connect"])


def _connecting(handle: Callable[..., Any]) -> Callable[..., Any]:
    async def connect(sid: str, environ: dict[str, Any], *rest: object) -> object:
        # A socket that names its page in its address is that page's from its first moment.
        named = parse_qs(environ.get("QUERY_STRING", "")).get("client_id", [None])[0]
        if not _may_speak(environ, named):
            raise SocketRefusedError("this is somebody else's page")
        return await _answer(handle, sid, environ, *rest)

    return connect


def _bound(handle: Callable[..., Any]) -> Callable[..., Any]:
    async def heard(sid: str, message: object) -> object:
        if not isinstance(message, dict) or not _may_speak(core.sio.get_environ(sid) or {}, message.get("client_id")):
            return False
        return await _answer(handle, sid, message)

    return heard


def _may_speak(environ: Mapping[str, Any], client_id: object) -> bool:
    """Whether that socket and that page were opened by the same login; of a page that isn't there the library tells."""
    client = Client.instances.get(client_id) if isinstance(client_id, str) else None
    if client is None:
        return True
    opened_by = environ.get("asgi.scope", {}).get("state", {}).get("caller")
    return opened_by is not None and opened_by == caller_of(client.request)


async def _answer(handle: Callable[..., Any], *said: object) -> object:
    answer = handle(*said)
    return await answer if inspect.isawaitable(answer) else answer
