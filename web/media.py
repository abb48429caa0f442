"""Pictures and clips, by signed addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI


def add_media(app: FastAPI) -> None:
    """Makes `/media/...` and the site plan known."""
