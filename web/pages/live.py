"""Live: the site now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nicegui import ui

from storage.status import LateSighting, latest_sightings, load_camera_status
from web import addresses, wording
from web.pages.blocking import answered
from web.pages.following import follow
from web.pages.frame import View, empty, page, thumbnail
from web.pages.site_plan import State, site_plan

if TYPE_CHECKING:
    from collections.abc import Collection
    from zoneinfo import ZoneInfo

    from storage.database import Session
    from storage.records import CameraStatus

REFRESH_S = 2.0
#: A camera that has said nothing for so long is not running, whatever its row says.
SILENT_S = 30.0
#: A camera that has said nothing for so long and is not in our site file was taken out of it. Not sooner: one that the
#: streamer took up while it ran is not in the file as we read it, and its silence is trouble.
GONE_S = 86_400.0
_ENDED = ("finished", "stopped")
_SIGHTINGS = 24
#: The least side of a picture, pixels: three stand side by side on a telephone.
_THUMBNAIL = 100
_BANDS = {
    "visible": ("light_mode", "by day"),
    "near_infrared": ("dark_mode", "near infrared"),
    "thermal": ("local_fire_department", "thermal"),
}


@dataclass(frozen=True, slots=True)
class _Now:
    cameras: list[CameraStatus]
    sightings: list[LateSighting]
    at: datetime


@page("/", "Live")
async def live(view: View) -> None:
    """Cameras on the plan, how they are, and what they saw last."""

    def first() -> _Now:
        with view.services.asking(view.caller, "live") as session:
            return _read(session, view)

    def again() -> _Now:
        with view.services.following(view.caller) as session:
            return _read(session, view)

    shown = await answered(first)
    figures: dict[str, ui.label] = {}

    @ui.refreshable
    def cameras(now: _Now) -> None:
        with ui.element("div").classes(
            "grid grid-cols-1 lg:grid-cols-[minmax(0,3fr)_minmax(0,2fr)] gap-4 w-full items-start"
        ):
            with ui.element("section").classes("panel").props('aria-label="Site plan"'):
                site_plan(view, states={one.camera: state_of(one, now.at) for one in now.cameras})
            with ui.element("section").classes("panel").props('aria-label="Cameras"'):
                figures.clear()
                figures.update(_cameras(view, now))

    @ui.refreshable
    def sightings(now: _Now) -> None:
        _sightings(view, now)

    cameras(shown)
    sightings(shown)

    def show(now: _Now) -> None:
        nonlocal shown
        if _states(now) != _states(shown):
            cameras.refresh(now)
        if _seen(now) != _seen(shown):
            sightings.refresh(now)
        for one in now.cameras:
            figures[one.camera].text = figures_of(one, now.at, view.services.zone)
        shown = now

    follow(view, again, show, every_s=REFRESH_S)


def cameras_now(session: Session, view: View, now: datetime) -> list[CameraStatus]:
    """How the cameras are that whoever looks may see.

    Args:
        session: To read from.
        view: Where it is shown.
        now: The clock.
    """
    named = {camera.id for camera in view.services.site.cameras}
    seen = [one for one in load_camera_status(session) if view.caller.sees(one.camera)]
    return [one for one in seen if not is_gone(one, now, named)]


def is_gone(status: CameraStatus, now: datetime, named: Collection[str]) -> bool:
    """Whether it was taken out of the site file: its row stays, and would be told as trouble for ever.

    Args:
        status: What it said last.
        now: The clock.
        named: The cameras of the site file.
    """
    return status.camera not in named and (now - status.updated_at).total_seconds() > GONE_S


def state_of(status: CameraStatus, now: datetime) -> State:
    """How a camera is, in a colour.

    Args:
        status: What it said last.
        now: The clock.
    """
    if status.state in _ENDED or (status.state == "starting" and not _is_silent(status, now)):
        return "idle"
    is_well = status.state == "running" and status.health in ("", "ok")
    return "good" if is_well and not _is_silent(status, now) else "bad"


def figures_of(status: CameraStatus, now: datetime, zone: ZoneInfo) -> str:
    """How a camera is, in words: how many frames a second a camera gives that says nothing any more isn't known.

    Args:
        status: What it said last.
        now: The clock.
        zone: Of the times.
    """
    said = [f"picture {status.health}"] if status.health not in ("", "ok") else []
    if _is_silent(status, now):
        said = [f"silent since {wording.moment(status.updated_at, now, zone)}", f"was {status.state}"]
    elif status.state == "running":
        said += ["running", f"{status.fps:.1f} fps"]
    else:
        said.append(status.state)
    said.append(f"{status.dropped:,} dropped")
    if status.last_frame_at is not None:
        said.append(f"last frame {wording.moment(status.last_frame_at, now, zone)}")
    return ", ".join(said)


def _is_silent(status: CameraStatus, now: datetime) -> bool:
    return status.state not in _ENDED and (now - status.updated_at).total_seconds() > SILENT_S


def _read(session: Session, view: View) -> _Now:
    now = datetime.now(UTC)
    shown = latest_sightings(session, limit=_SIGHTINGS, visible=view.caller.cameras)
    return _Now(cameras_now(session, view, now), shown, now)


def _states(now: _Now) -> list[tuple[str, State, str]]:
    """What of the cameras is drawn, so that two of them can be compared."""
    return [(one.camera, state_of(one, now.at), one.modality) for one in now.cameras]


def _seen(now: _Now) -> list[tuple[str, str | None, str | None]]:
    """What of the sightings is drawn."""
    return [(one.tracklet_id, one.vehicle_id, one.crop_image) for one in now.sightings]


def _cameras(view: View, now: _Now) -> dict[str, ui.label]:
    """Draws them; returns where the figures of each stand."""
    figures: dict[str, ui.label] = {}
    if not now.cameras:
        empty("No camera has said anything yet. Start the site: python -m streamer --config SITE.yaml", "videocam_off")
    for one in now.cameras:
        state = state_of(one, now.at)
        icon, band = _BANDS.get(one.modality, ("help_outline", one.modality))
        with ui.row().classes("w-full items-center gap-3 no-wrap py-1"):
            ui.icon({"good": "check_circle", "idle": "stop_circle", "bad": "error"}[state], size="1.3rem").classes(
                {"good": "good", "idle": "soft", "bad": "bad"}[state]
            ).props('aria-hidden="true"')
            with ui.column().classes("gap-0 grow min-w-0"):
                ui.link(one.camera, addresses.vehicles_at(one.camera)).classes("max-w-full truncate")
                words = figures_of(one, now.at, view.services.zone)
                figures[one.camera] = ui.label(words).classes("text-sm soft")
            with ui.row().classes("items-center gap-1 no-wrap soft text-sm whitespace-nowrap"):
                ui.icon(icon).props('aria-hidden="true"')
                ui.label(band)
    return figures


def _sightings(view: View, now: _Now) -> None:
    with ui.element("section").classes("panel w-full").props('aria-label="Latest sightings"'):
        ui.label("Latest sightings").props('role="heading" aria-level="2"').classes("text-subtitle1 mb-2")
        if not now.sightings:
            empty("No vehicle has been seen yet.", "directions_car")
            return
        with (
            ui.element("div")
            .classes("grid gap-3")
            .style(f"grid-template-columns: repeat(auto-fill, minmax({_THUMBNAIL}px, 1fr))")
        ):
            for one in now.sightings:
                _sighting(view, one, wording.moment(one.started_at, now.at, view.services.zone))


def _sighting(view: View, one: LateSighting, when: str) -> None:
    seen = f"{one.vehicle_class}, {one.camera}, {when}"
    target = "/vehicles"
    if one.vehicle_id is not None:
        target = addresses.vehicle(one.vehicle_id, at=one.tracklet_id)
    with ui.link(target=target).classes("block no-underline text-inherit"):
        square = "width: 100%; height: auto; aspect-ratio: 1"
        if one.crop_image is None:
            with ui.element("div").classes("thumbnail grid place-items-center").style(square):
                ui.icon("no_photography", size="2rem").classes("soft").props('aria-hidden="true"')
        else:
            thumbnail(view, one.crop_image, alt=seen, size=_THUMBNAIL).style(square)
        ui.label(one.camera).classes("text-sm truncate")
        ui.label(f"{one.vehicle_class} · {when}").classes("text-xs soft")
