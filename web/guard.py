"""Who may come in: every request is asked for its caller before anything answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from web.callers import local_caller

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

    from web.callers import Caller


def add_guard(app: FastAPI) -> None:
    """Puts the guard in front of everything that the application answers, the page's sockets too."""


def caller_of(request: Request) -> Caller | None:  # noqa: ARG001 - one caller so far
    """Who sent a request; None: somebody who has not logged in."""
    return local_caller()
