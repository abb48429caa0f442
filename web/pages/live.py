"""Live: the site now."""

from __future__ import annotations

from nicegui import run, ui

from storage.status import load_camera_status
from web.pages.frame import View, page


@page("/", "Live")
async def live(view: View) -> None:
    """Cameras and how they are."""

    def read() -> list[str]:
        with view.services.asking(view.caller, "live") as session:
            return [f"{one.camera} {one.state}" for one in load_camera_status(session)]

    for line in await run.io_bound(read) or []:
        ui.label(line)
