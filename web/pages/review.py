"""Review: what the matcher is not sure of, to be confirmed or corrected."""

from __future__ import annotations

from nicegui import ui

from web.pages.frame import View, page


@page("/review", "Review")
async def review(view: View) -> None:
    """Review."""
    ui.label(view.caller.person)
