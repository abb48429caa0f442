"""Health: lag, drops, latency and reconnects over the last hours."""

from __future__ import annotations

from nicegui import ui

from web.pages.frame import View, page


@page("/health", "Health")
async def health(view: View) -> None:
    """Health."""
    ui.label(view.caller.person)
