"""Logging in and out: a form that works without scripts, and as many guesses as a person needs."""

from __future__ import annotations

import ipaddress
import logging
import math
import secrets
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.requests import ClientDisconnect

from storage.errors import StorageError
from web import logins
from web.attempts import Attempts
from web.guard import cookie_name

if TYPE_CHECKING:
    from fastapi import FastAPI

    from web.services import Services

#: Of one account, from wherever, and from one address, for whichever accounts.
PER_ACCOUNT, PER_ADDRESS, WINDOW_S = 10, 30, 300.0
#: A password of 1024 letters takes up to 12 KiB in a form.
_MAX_FORM_BYTES, _MAX_FIELDS = 16 << 10, 10
#: Hashes that are made at once: each takes 64 MiB and a core.
_HASHES_AT_ONCE = 2
#: Of an account's name.
_MAX_NAME = 64
_log = logging.getLogger(__name__)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Log in · Vehicle tracker</title>
<style nonce="{nonce}">
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 0; min-height: 100vh; display: grid; place-items: center; }}
form {{ width: min(20rem, calc(100vw - 3rem)); display: grid; gap: 1rem; }}
h1 {{ font-size: 1.25rem; margin: 0; }}
label {{ display: grid; gap: .25rem; }}
input, button {{ font: inherit; padding: .5rem .75rem; border: 1px solid #767676; border-radius: .25rem; }}
button {{ background: #1554a8; border-color: #1554a8; color: #fff; cursor: pointer; }}
:focus-visible {{ outline: 3px solid #e08a00; outline-offset: 2px; }}
[role=alert] {{ margin: 0; padding: .5rem .75rem; border-left: 4px solid #c10015; }}
</style>
</head>
<body>
<main>
<form method="post" action="/login">
<h1>Vehicle tracker</h1>
{trouble}
<input type="hidden" name="next" value="{wanted}">
<label>Name <input name="name" value="{name}" autocomplete="username" maxlength="64" required autofocus></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button>
</form>
</main>
</body>
</html>
"""


def add_login(app: FastAPI) -> None:
    """Makes `/login` and `/logout` known."""
    desk = _Desk(app.state.services)
    app.add_api_route("/login", desk.form, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route("/login", desk.log_in, methods=["POST"], include_in_schema=False)
    app.add_api_route("/logout", desk.log_out, methods=["POST"], include_in_schema=False)


def local_path(wanted: str) -> str:
    """Where to go after a login: a path of ours as it is, and anything else the first page."""
    is_plain = wanted.isprintable() and "\\" not in wanted
    return wanted if is_plain and wanted.startswith("/") and not wanted.startswith("//") else "/"


class _Desk:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._by_name = Attempts(PER_ACCOUNT, WINDOW_S)
        self._by_address = Attempts(PER_ADDRESS, WINDOW_S)
        self._hashing = CapacityLimiter(_HASHES_AT_ONCE)

    def form(self, request: Request) -> Response:
        return _page(request.query_params.get("next", "/"))

    async def log_in(self, request: Request) -> Response:
        fields = await _fields(request)
        if fields is None:
            return _page("/", "The form can't be read.", status=400)
        # Of a name that is too long to be anybody's, no more is kept in mind than shows it.
        name, wanted = fields.get("name", "")[: _MAX_NAME + 1], fields.get("next", "/")
        address = _address(request)
        wait_s = max(self._by_name.wait_s(name), self._by_address.wait_s(address))
        if wait_s > 0:
            minutes = math.ceil(wait_s / 60)
            later = _page(wanted, f"Too many attempts: try again in {minutes} min.", name=name, status=429)
            later.headers["Retry-After"] = str(math.ceil(wait_s))
            return later
        # Counted before it is judged, so that many at once are no way around.
        self._by_name.note(name)
        self._by_address.note(address)
        try:
            secret = await run_sync(self._proved, name, fields.get("password", ""), limiter=self._hashing)
            if secret is None:
                _log.warning("login as %r from %s: no such name and password", name, address)
                return _page(wanted, "No such name and password.", name=name, status=401)
            await run_sync(self._forget, request)
        except StorageError:
            return _page(wanted, "The database doesn't answer: try again in a moment.", name=name, status=503)
        self._by_name.forget(name)
        self._by_address.take_back(address)
        answer = RedirectResponse(local_path(wanted), status_code=303)
        self._set_cookie(request, answer, secret)
        return answer

    async def log_out(self, request: Request) -> Response:
        try:
            await run_sync(self._forget, request)
        except StorageError:
            return _page("/", "The database doesn't answer: you are still logged in.", status=503)
        answer = RedirectResponse("/login", status_code=303)
        self._set_cookie(request, answer, "")
        answer.headers["Clear-Site-Data"] = '"cache", "storage"'
        return answer

    def _proved(self, name: str, password: str) -> str | None:
        return logins.log_in(self._services.database, name, password, hours=self._services.site.web.session_hours)

    def _forget(self, request: Request) -> None:
        held = request.cookies.get(cookie_name(request.url.scheme))
        if held:
            logins.log_out(self._services.database, held)

    def _set_cookie(self, request: Request, answer: Response, secret: str) -> None:
        answer.set_cookie(
            cookie_name(request.url.scheme),
            secret,
            max_age=int(self._services.site.web.session_hours * 3600) if secret else 0,
            secure=request.url.scheme == "https",
            httponly=True,
            # A link in a message about a watched vehicle is to open its page; what changes something asks the origin.
            samesite="lax",
        )


def _page(wanted: str, trouble: str = "", *, name: str = "", status: int = 200) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    alert = f'<p role="alert">{escape(trouble)}</p>' if trouble else ""
    page = _PAGE.format(nonce=nonce, trouble=alert, wanted=escape(local_path(wanted)), name=escape(name))
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return HTMLResponse(page, status, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})


async def _fields(request: Request) -> dict[str, str] | None:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_FORM_BYTES:
                return None
    except ClientDisconnect:
        return None
    try:
        found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None
    return {name: values[0] for name, values in found.items()}


def _address(request: Request) -> str:
    """Whom to count as one: an address, and of IPv6 the whole network that a subscriber is given."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host
