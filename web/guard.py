"""Who may come in: every request is asked for its caller before anything answers it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from storage.accounts import Kind, Role
from storage.errors import StorageError
from web import logins
from web.api.problems import RETRY_AFTER_S, problem
from web.callers import Caller, local_caller
from web.headers import add_headers, page_policy, with_nonce
from web.origins import host_name, is_foreign, is_known, is_loopback, is_proxied, is_unsafe
from web.signed_links import CLIPS, PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from web.services import Services

#: Answered to anybody: what is the same for everybody, and how one logs in.
_OPEN = frozenset({"/login", "/logout", "/favicon.ico"})
#: What a form adds to the picture in it.
_FORM_BYTES = 64 << 10
_ASSETS = frozenset({"static", "libraries", "components", "resources", "esm"})
#: Addresses that prove by their signature that they were given to somebody who may see.
_SIGNED = (PICTURES, CLIPS)


def add_guard(app: FastAPI) -> None:
    """Puts the guard in front of everything that the application answers, the page's sockets too."""
    app.add_middleware(Guard, services=app.state.services)


def caller_of(request: Request) -> Caller | None:
    """Who sent a request; None: somebody who has not logged in."""
    found = request.scope.get("state", {}).get("caller")
    return found if isinstance(found, Caller) else None


def require(role: Role) -> Callable[[Request], Caller]:
    """A dependency of a route: who asks, if they may do what is left to that role.

    Raises:
        HTTPException: 401: nobody has logged in; 403: they may not.
    """

    def required(request: Request) -> Caller:
        caller = caller_of(request)
        if caller is None:
            raise HTTPException(401, "log in, or send a token", headers={"WWW-Authenticate": "Bearer"})
        if not caller.may(role):
            raise HTTPException(403, f"{caller.person} is a {caller.role}: this is left to the role {role}")
        return caller

    return required


def cookie_name(scheme: str) -> str:
    """The login's cookie; over TLS one that no other host, and no page without TLS, can set."""
    return "__Host-vehicle-tracker" if scheme in ("https", "wss") else "vehicle-tracker"


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Guard:
    """What stands between the network and the application.

    Args:
        app: What answers those who may come in.
        services: Its database says who they are.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._max_body_bytes = services.site.web.max_upload_bytes + _FORM_BYTES
        # Counts what comes without a word on how much it will be.
        self._app = RequestBodyLimitMiddleware(app, self._max_body_bytes)
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or has it answered."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] == "http":
            send = _Answer(scope, headers, self._services, send)
        try:
            caller = await self._caller(scope, headers)
        except _RefusedError as refused:
            await _refuse(refused, scope, receive, send, headers)
            return
        scope["state"] = {**scope.get("state", {}), "caller": caller}
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope, headers: Headers) -> Caller | None:
        name = host_name(headers.get("host", ""))
        if not is_known(name, self._services.site.web.hosts):
            raise _RefusedError(400, "this is not reached by that name: see web.hosts in the site file")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_body_bytes:
            raise _RefusedError(413, f"at most {self._max_body_bytes} bytes are taken")
        secret, kind = _proof(scope, headers)
        if kind is not Kind.API:
            unsafe = scope["type"] == "websocket" or is_unsafe(scope["method"])
            # No login is wanted of whoever sits at this machine: then a socket's origin is all that proves them.
            has_cookie = secret is not None or scope["type"] == "websocket"
            if is_foreign(headers, scheme=scope["scheme"], unsafe=unsafe, has_cookie=has_cookie):
                raise _RefusedError(403, "another site's page may not ask this")
        if _is_open(scope["path"]):
            return None
        try:
            return await run_sync(self._found, secret, kind, is_loopback(name) and not is_proxied(headers))
        except StorageError as error:
            raise _RefusedError(503, "who asks can't be looked up: the database doesn't answer") from error

    def _found(self, secret: str | None, kind: Kind, is_here: bool) -> Caller:
        database = self._services.database
        if secret is not None:
            found = logins.caller_with(database, secret, kind)
            if found is not None:
                return found
        if kind is not Kind.API and is_here and not self._services.is_public and logins.is_open(database):
            return local_caller()
        raise _RefusedError(401, "log in, or send a token that is good")


def _proof(scope: Scope, headers: Headers) -> tuple[str | None, Kind]:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return secret.strip(), Kind.API
    cookies = cookie_parser(headers.get("cookie", ""))
    return cookies.get(cookie_name(scope["scheme"])), Kind.SESSION


def _is_open(path: str) -> bool:
    if path.startswith(_SIGNED):
        return True
    if path.startswith("/_nicegui/"):
        parts = path.split("/")
        return len(parts) > 4 and parts[3] in _ASSETS and ".." not in parts
    return path in _OPEN


async def _refuse(refused: _RefusedError, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": str(refused)})
        return
    await _refusal(refused, scope, headers)(scope, receive, send)


def _refusal(refused: _RefusedError, scope: Scope, headers: Headers) -> Response:
    is_page = scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
    if is_page and refused.status == 401:
        query = scope["query_string"].decode("latin-1")
        wanted = quote(scope["path"]) + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", status_code=303)
    if is_page:
        return PlainTextResponse(f"{refused}\n", refused.status)
    more = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": str(RETRY_AFTER_S)}}
    return problem(refused.status, str(refused), more.get(refused.status))


class _Answer:
    """Adds headers to an answer, and to a page the nonce of its scripts, for which it is held until it is whole."""

    def __init__(self, scope: Scope, headers: Headers, services: Services, send: Send) -> None:
        self._scope = scope
        self._host = headers.get("host", "")
        self._tiles = services.site.web.plan.tiles
        self._send = send
        self._start: Message | None = None
        self._page = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            is_html = headers.get("content-type", "").startswith("text/html")
            if is_html and "content-security-policy" not in headers:
                self._start = message
                return
            self._complete(headers)
        elif self._start is not None and message["type"] == "http.response.body":
            self._page += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_page()
            return
        await self._send(message)

    async def _send_page(self) -> None:
        if self._start is None:
            return
        nonce = secrets.token_urlsafe(16)
        headers = MutableHeaders(scope=self._start)
        headers["Content-Security-Policy"] = page_policy(nonce, self._host, self._tiles)
        self._complete(headers)
        page = with_nonce(bytes(self._page), nonce)
        if self._scope["method"] != "HEAD":
            headers["Content-Length"] = str(len(page))
        start, self._start = self._start, None
        await self._send(start)
        await self._send({"type": "http.response.body", "body": page})

    def _complete(self, headers: MutableHeaders) -> None:
        keep = _is_open(self._scope["path"]) and self._scope["path"] not in ("/login", "/logout")
        add_headers(headers, is_https=self._scope["scheme"] == "https", keep=keep)
