"""Two sights side by side that may be of one vehicle, with what speaks for it, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from nicegui import ui

from storage.errors import StorageError
from storage.explanation import explain, in_words
from web import addresses, wording
from web.pages import frame
from web.pages.blocking import answered

if TYPE_CHECKING:
    from datetime import datetime

    from storage.review import DoubtfulLink
    from web.pages.frame import View

#: What the review's keys do, and whether that decides something.
KEYS = (
    ("c it is right as it is", True),
    ("s split", True),
    ("m merge", True),
    ("u undo my last", True),
    ("n or → next", False),
    ("p or ← the one before", False),
)


def show_doubt(view: View, link: DoubtfulLink) -> None:
    """One link: both sights, and why it is doubtful."""
    is_link = link.kind == "link"
    taken = "Taken for one vehicle" if is_link else "Taken for two vehicles"
    with ui.row().classes("items-baseline gap-3 w-full"):
        ui.label(taken).classes("text-h6")
        ui.label(f"{link.probability:.0%} likely to be one").classes("text-subtitle1")
    with ui.element("div").classes("grid grid-cols-2 gap-3 w-full items-start"):
        with ui.column().classes("gap-2 min-w-0"):
            _side(view, link.other_tracklet_id, link.other_vehicle_id, link.other_camera, link.other_started_at)
            _crops(view, link.other_crop_images, set(link.crop_images), link.other_camera)
        with ui.column().classes("gap-2 min-w-0"):
            _side(view, link.tracklet_id, link.vehicle_id, link.camera, link.started_at)
            _crops(view, link.crop_images, set(link.other_crop_images), link.camera)
    with ui.column().classes("gap-1 w-full"):
        for line in reasons(link):
            ui.label(line).classes("text-sm")
    show_explanation(view, link.tracklet_id)


def reasons(link: DoubtfulLink) -> list[str]:
    """Why it was decided so, and what makes it doubtful, in words."""
    lines = [f"Why: {wording.reason(link.reason)}"]
    gap = (link.started_at - link.other_started_at).total_seconds()
    order = "after" if gap >= 0 else "before"
    lines.append(
        f"Time between: {link.camera} came into view {wording.duration(abs(gap))} {order} {link.other_camera}."
    )
    if link.modality_pair is not None:
        lines.append(f"Compared: {wording.band(link.modality_pair)}.")
    if link.kind == "near miss" and link.margin is not None:
        if link.margin > 0:
            lines.append(f"Margin: another {link.margin:.1f} in log-odds would have linked it to a vehicle.")
        else:
            lines.append("Margin: by itself it was near enough; together with all other sights it was not.")
    elif link.margin is not None:
        lines.append(f"Margin: {link.margin:.1f} in log-odds ahead of the next best.")
    elif link.kind == "link":
        lines.append("Margin: there was no other candidate.")
    return lines


def _side(view: View, tracklet_id: str, vehicle_id: str, camera: str, started_at: datetime) -> None:
    with ui.column().classes("gap-0 min-w-0"):
        ui.label(camera).classes("text-subtitle1 break-words w-full")
        ui.label(view.time(started_at, "%Y-%m-%d %H:%M:%S")).classes("text-sm")
        with ui.row().classes("gap-3"):
            ui.link(f"vehicle {vehicle_id[:8]}", addresses.vehicle(vehicle_id, at=tracklet_id)).classes("text-sm")
            ui.link("similar", f"/search?tracklet={quote(tracklet_id, safe='')}").classes("text-sm")


def _crops(view: View, crop_images: dict[str, str], of_other: set[str], camera: str) -> None:
    """One picture of each band; bands that both sides have come first, so that they stand beside each other."""
    if not crop_images:
        ui.label("no picture was kept").classes("text-sm")
    for band in sorted(crop_images, key=lambda one: (one not in of_other, one)):
        name = wording.band(band)
        picture = ui.image(view.services.links.picture(crop_images[band])).classes("w-full h-44 sm:h-72 rounded")
        picture.props('fit="contain" no-spinner')
        # Set and not parsed: a camera's name may hold whatever somebody wrote into it.
        picture.props["alt"] = f"{name} at {camera}"
        ui.label(name).classes("text-xs self-center")


def show_explanation(view: View, tracklet_id: str) -> None:
    """All that was decided on a tracklet, read when it is opened."""

    async def fill() -> None:
        if not why.value or place.default_slot.children:
            return

        def read() -> list[str]:
            with view.services.asking(view.caller, "explain", tracklet_id) as session:
                return list(in_words(explain(session, tracklet_id, visible=view.caller.cameras)))

        try:
            lines = await answered(read)
        except StorageError as error:
            with place:
                frame.failed(frame.told(view, "explanation", error))
            return
        with place:
            for line in lines:
                ui.label(line).classes("text-xs break-words w-full whitespace-pre-wrap")

    with ui.expansion("All that was decided, and why", icon="subject", on_value_change=fill).classes("w-full") as why:
        place = ui.column().classes("gap-0 w-full")
