"""By which names this program is reached, and whether a request was made by a page of its own."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import Headers

_LOOPBACK_NAME = "localhost"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: What a proxy adds: whoever is behind it is not on this machine.
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def host_name(host: str) -> str:
    """The name or address in a `Host` header, without its port and brackets, in small letters; empty: it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no number
    except ValueError:
        return ""
    if parts.netloc != host or "@" in host or parts.path:
        return ""
    return (parts.hostname or "").rstrip(".")


def is_loopback(name: str) -> bool:
    """Whether that name or address is this machine's own, which no other reaches."""
    if name == _LOOPBACK_NAME:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_known(name: str, hosts: Iterable[str]) -> bool:
    """Whether a page may be reached by that name: one of ours, or any address.

    Somebody else's name that is made to lead here (DNS rebinding) would make their page one of ours to the browser;
    an address can't be made to.

    Args:
        name: Of `host_name`.
        hosts: The names that the site file gives.
    """
    if not name:
        return False
    if name in (_LOOPBACK_NAME, socket.gethostname().lower()) or name in {host.lower() for host in hosts}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_proxied(headers: Headers) -> bool:
    """Whether a proxy has handed the request on."""
    return any(name in headers for name in _PROXY_HEADERS)


def is_unsafe(method: str) -> bool:
    """Whether a request of that method may change something."""
    return method not in _SAFE_METHODS


def is_foreign(headers: Headers, *, scheme: str, unsafe: bool, has_cookie: bool) -> bool:
    """Whether another site's page may have made the browser send a request.

    Args:
        headers: The request's.
        scheme: By which it came: `http`, `https`, `ws` or `wss`.
        unsafe: It may change something, or opens a socket.
        has_cookie: The browser has added the login.
    """
    fetch_site = headers.get("sec-fetch-site", "none")
    if fetch_site not in ("none", "same-origin"):
        # A link from elsewhere may be followed; nothing of ours may be put into another's page.
        is_followed = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if unsafe or not is_followed:
            return True
    origin = headers.get("origin")
    if origin is not None:
        # Of a question too: without TLS browsers say no more than this.
        return not _is_own(origin, headers.get("host", ""), scheme)
    return unsafe and has_cookie  # browsers say it then; a program that doesn't must not come with a browser's login


def _is_own(origin: str, host: str, scheme: str) -> bool:
    try:
        parts = urlsplit(origin)
        own = urlsplit(f"{parts.scheme}://{host}")
        default = {"http": 80, "https": 443}.get(parts.scheme, 0)
        same = (parts.hostname, parts.port or default) == (own.hostname, own.port or default)
    except ValueError:
        return False
    # Behind a proxy that ends TLS, and says nothing of it, `http` here is `https` there.
    schemes = ("https",) if scheme in ("https", "wss") else ("http", "https")
    return same and parts.hostname is not None and parts.scheme in schemes
