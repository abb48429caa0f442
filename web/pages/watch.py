"""Watch: vehicles whose return is told."""

from __future__ import annotations

from nicegui import ui

from web.pages.frame import View, page


@page("/watch", "Watch")
async def watch(view: View) -> None:
    """Watch."""
    ui.label(view.caller.person)
