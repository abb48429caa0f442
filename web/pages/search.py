"""Search by picture: which vehicles look like this one."""

from __future__ import annotations

from nicegui import ui

from web.pages.frame import View, page


@page("/search", "Search")
async def search(view: View) -> None:
    """Search."""
    ui.label(view.caller.person)
