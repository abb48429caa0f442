"""Vehicles: who passed when."""

from __future__ import annotations

from nicegui import ui

from web.pages.frame import View, page


@page("/vehicles", "Vehicles")
async def vehicles(view: View) -> None:
    """A list."""
    ui.label(view.caller.person)
