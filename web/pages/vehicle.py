"""Vehicle: where one went, and why it is taken for one."""

from __future__ import annotations

from nicegui import ui

from web.pages.frame import View, page


@page("/vehicles/{vehicle_id}", "Vehicle")
async def vehicle(view: View, vehicle_id: str, at: str = "") -> None:
    """One."""
    ui.label(f"{vehicle_id} {at} {view.caller.person}")
