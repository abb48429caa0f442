"""The program that answers: the HTTP API, the pictures, and the page, in one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import HTMLResponse, Response

from web.api.routes import add_routes
from web.guard import add_guard
from web.login import add_login
from web.media import add_media
from web.watching import Watchman

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from web.services import Services

TITLE = "Vehicle tracker"
#: Questions of open pages that are asked at once. The library has as many threads as processors, and four: so many
#: people who search would keep all others waiting.
PAGE_THREADS = 32
_NOT_FOUND = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not found · {TITLE}</title>
</head>
<body style="font: 1rem/1.5 system-ui, sans-serif; margin: 3rem 1.5rem">
<h1>There is no such page</h1>
<p><a href="/">To the first page</a></p>
</body>
</html>
"""


def create_api(services: Services) -> FastAPI:
    """The application without the page: the HTTP API, pictures and clips.

    Args:
        services: Closed by whoever made them.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watchman = Watchman(services)
        watchman.start()
        try:
            yield
        finally:
            watchman.stop()

    # Without FastAPI's own pages of documentation, which fetch their scripts from elsewhere.
    app = FastAPI(title=TITLE, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.services = services
    add_guard(app)
    add_login(app)
    add_routes(app)
    add_media(app)
    return app


def create_app(services: Services) -> FastAPI:
    """The whole application. Once per process: the page's library keeps one."""
    from nicegui import app as pages_app
    from nicegui import core, run, ui

    import web.pages  # noqa: F401 - pages add themselves
    from web.pages.sockets import bind_sockets

    app = create_api(services)
    pages_app.state.services = services
    pages_app.exception_handlers[404] = _not_found
    # The library's sockets would tell every site's pages that they may read along; the guard refuses those pages.
    core.sio.eio.cors_allowed_origins = []
    bind_sockets()
    run.thread_pool = ThreadPoolExecutor(PAGE_THREADS, "page")
    # Without the library's own session: the login's cookie is the only one. Compressed outside of the guard, which
    # writes into pages.
    app.add_middleware(GZipMiddleware)
    ui.run_with(
        app,
        title=TITLE,
        gzip_middleware_factory=None,
        show_welcome_message=False,
    )
    return app


def _not_found(_request: Request, _error: Exception) -> Response:
    """The library would build a page that it keeps for a minute, whoever asks, and write the address to the log."""
    return HTMLResponse(_NOT_FOUND, 404)
