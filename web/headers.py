"""What every answer tells the browser to allow: nothing from elsewhere, and no script that a page didn't bring.

docs/security.md says why the policy is what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.datastructures import MutableHeaders

#: For what is no page: were it shown as one, it could load and run nothing.
CLOSED = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_HSTS = "max-age=31536000"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def add_headers(headers: MutableHeaders, *, is_https: bool, keep: bool) -> None:
    """Adds what an answer doesn't say by itself.

    Args:
        headers: Of the answer; changed.
        is_https: It goes over TLS.
        keep: It is the same for everybody: a cache may have it.
    """
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", CLOSED)
    if not keep:
        headers.setdefault("Cache-Control", "no-store")
    if is_https:
        headers.setdefault("Strict-Transport-Security", _HSTS)


def page_policy(nonce: str, host: str, tiles: str | None) -> str:
    """The content security policy of a page.

    Args:
        nonce: Which the page's own scripts carry.
        host: By which the page is reached, with its port: its sockets are named, since not every browser takes them
            for `'self'`.
        tiles: Where map tiles come from; None: nowhere.
    """
    images = "'self' data: blob:"
    if tiles is not None:
        parts = urlsplit(tiles)
        images += f" {parts.scheme}://{parts.netloc}"
    return "; ".join(
        (
            "default-src 'none'",
            # The page's library makes functions of text: handlers that a view gives it, and what the server calls.
            f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'",
            # Its elements carry their style as an attribute, and Tailwind writes its rules while the page is open.
            "style-src 'self' 'unsafe-inline'",
            f"img-src {images}",
            "media-src 'self'",
            "font-src 'self' data:",
            f"connect-src 'self' ws://{host} wss://{host}",
            "manifest-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )


def with_nonce(page: bytes, nonce: str) -> bytes:
    """A page whose scripts carry the nonce.

    The library escapes every `<` in what a view shows, so that all script tags in its page are its own or a view's.
    """
    return page.replace(b"<script", f'<script nonce="{nonce}"'.encode())
