"""Live: the site now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from nicegui import ui

from storage.errors import StorageError
from storage.status import LateSighting, latest_sightings, load_camera_status
from web.guard import still
from web.pages.blocking import answered
from web.pages.frame import View, empty, page, thumbnail
from web.pages.site_plan import State, site_plan

if TYPE_CHECKING:
    from storage.database import Session
    from storage.records import CameraStatus

REFRESH_S = 2.0
#: A camera that has said nothing for so long is not running, whatever its row says.
SILENT_S = 30.0
_SIGHTINGS = 24
_BANDS = {
    "visible": ("light_mode", "by day"),
    "near_infrared": ("dark_mode", "near infrared"),
    "thermal": ("local_fire_department", "thermal"),
}


@dataclass(frozen=True, slots=True)
class _Now:
    cameras: list[CameraStatus]
    sightings: list[LateSighting]


@page("/", "Live")
async def live(view: View) -> None:
    """Cameras on the plan, how they are, and what they saw last."""

    def first() -> _Now:
        # Noted once: who has this view open follows the site from here on.
        with view.services.asking(view.caller, "live") as session:
            return _read(session, view)

    def again() -> _Now:
        still(view.caller, view.services)
        with view.services.database.snapshot() as session:
            return _read(session, view)

    shown = await answered(first)

    @ui.refreshable
    def body(now: _Now) -> None:
        with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-[minmax(0,3fr)_minmax(0,2fr)] gap-4 w-full"):
            with ui.element("section").classes("panel").props('aria-label="Site plan"'):
                site_plan(view, states={one.camera: state_of(one, datetime.now(UTC)) for one in now.cameras})
            with ui.element("section").classes("panel").props('aria-label="Cameras"'):
                _cameras(view, now.cameras)
        _sightings(view, now.sightings)

    body(shown)
    trouble = ui.label().classes("bad").props('role="status"')
    known = {"now": _key(shown)}

    async def refresh() -> None:
        try:
            now = await answered(again)
        except StorageError as error:
            trouble.text = f"Not up to date: {error}"
            return
        trouble.text = ""
        # Drawn anew only where something has changed, or whoever reads by keyboard would lose their place.
        if _key(now) != known["now"]:
            known["now"] = _key(now)
            body.refresh(now)

    ui.timer(REFRESH_S, refresh)


def state_of(status: CameraStatus, now: datetime) -> State:
    """How a camera is, in a colour.

    Args:
        status: What it said last.
        now: The clock.
    """
    if status.state in ("finished", "stopped"):
        return "idle"
    is_silent = (now - status.updated_at).total_seconds() > SILENT_S
    return "good" if status.state == "running" and not is_silent and status.health in ("", "ok") else "bad"


def _read(session: Session, view: View) -> _Now:
    cameras = [one for one in load_camera_status(session) if view.caller.sees(one.camera)]
    return _Now(cameras, latest_sightings(session, limit=_SIGHTINGS, visible=view.caller.cameras))


def _key(now: _Now) -> object:
    """What is shown, so that two of them can be compared."""
    cameras = [(one.camera, one.state, round(one.fps), one.dropped, one.modality, one.health) for one in now.cameras]
    return cameras, [(one.tracklet_id, one.vehicle_id, one.crop_image) for one in now.sightings]


def _cameras(view: View, cameras: list[CameraStatus]) -> None:
    if not cameras:
        empty("No camera has said anything yet. Start the site: python -m streamer --config SITE.yaml", "videocam_off")
        return
    now = datetime.now(UTC)
    for one in cameras:
        state = state_of(one, now)
        icon, band = _BANDS.get(one.modality, ("help_outline", one.modality))
        with ui.row().classes("w-full items-center gap-3 no-wrap py-1"):
            ui.icon({"good": "check_circle", "idle": "stop_circle", "bad": "error"}[state], size="1.3rem").classes(
                {"good": "good", "idle": "soft", "bad": "bad"}[state]
            ).props('aria-hidden="true"')
            with ui.column().classes("gap-0 grow min-w-0"):
                ui.link(one.camera, f"/vehicles?camera={quote(one.camera, safe='')}").classes("truncate")
                told = [one.state, f"{one.fps:.1f} fps", f"{one.dropped} dropped"]
                if one.last_frame_at is not None:
                    told.append(f"last frame {view.time(one.last_frame_at)}")
                if one.health not in ("", "ok"):
                    told.append(f"picture {one.health}")
                ui.label(", ".join(told)).classes("text-sm soft")
            with ui.row().classes("items-center gap-1 no-wrap soft text-sm"):
                ui.icon(icon).props('aria-hidden="true"')
                ui.label(band)


def _sightings(view: View, sightings: list[LateSighting]) -> None:
    with ui.element("section").classes("panel w-full").props('aria-label="Latest sightings"'):
        ui.label("Latest sightings").props('role="heading" aria-level="2"').classes("text-subtitle1 mb-2")
        if not sightings:
            empty("No vehicle has been seen yet.", "directions_car")
            return
        with (
            ui.element("div")
            .classes("grid gap-3")
            .style("grid-template-columns: repeat(auto-fill, minmax(120px, 1fr))")
        ):
            for one in sightings:
                _sighting(view, one)


def _sighting(view: View, one: LateSighting) -> None:
    told = f"{one.vehicle_class}, {one.camera}, {view.time(one.started_at)}"
    target = "/vehicles"
    if one.vehicle_id is not None:
        target = f"/vehicles/{quote(one.vehicle_id, safe='')}?at={quote(one.tracklet_id, safe='')}"
    with ui.link(target=target).classes("block no-underline text-inherit"):
        if one.crop_image is None:
            with ui.element("div").classes("thumbnail grid place-items-center").style("width: 120px; height: 120px"):
                ui.icon("no_photography", size="2rem").classes("soft").props('aria-hidden="true"')
        else:
            thumbnail(view, one.crop_image, alt=told, size=120)
        ui.label(one.camera).classes("text-sm truncate")
        ui.label(f"{view.time(one.started_at)} · {one.vehicle_class}").classes("text-xs soft")
