"""Vehicle: where one went, and why it is taken for one."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import quote

from nicegui import ui

from storage.accounts import Role
from storage.records import MATCHER
from web import wording
from web.pages.blocking import answered
from web.pages.deeds import merge_button, stop_deeds
from web.pages.doubt import show_explanation
from web.pages.frame import View, page, thumbnail
from web.pages.keeping import hold_panel
from web.pages.site_plan import Halt, site_plan
from web.pages.time_line import time_line
from web.way import Hop, Way, way_of_heir

if TYPE_CHECKING:
    from storage.trajectories import Stop

_CROP = 176
#: Stops that are shown one by one, unless all are asked for.
LATEST = 50


@page("/vehicles/{vehicle_id}", "Vehicle")
async def vehicle(view: View, vehicle_id: str, at: str = "", whole: bool = False) -> None:
    """Its way on the plan and in time, then stop by stop; `at` names a tracklet that is brought into view."""
    latest = None if whole else LATEST
    way = await answered(way_of_heir, view.services, view.caller, vehicle_id, at=at, latest=latest)
    if not way.trajectory.vehicle_id.startswith(vehicle_id):
        told = f"The stops of vehicle {vehicle_id[:8]} have been given to this one."
        ui.label(told).classes("warn").props('role="status"')
    await _summary(view, way)
    left_out = len(way.trajectory.stops) - len(way.hops)
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-[minmax(0,3fr)_minmax(0,2fr)] gap-4 w-full"):
        with ui.element("section").classes("panel").props('aria-label="On the plan"'):
            site_plan(view, way=_halts(way))
        with ui.element("section").classes("panel").props('aria-label="In time"'):
            time_line(view, way.trajectory.stops, left_out)
    if left_out:
        name = quote(way.trajectory.vehicle_id, safe="")
        ui.link(f"{wording.stops(left_out)} before these: show all", f"/vehicles/{name}?whole=true")
    for number, hop in enumerate(way.hops, start=1 + left_out):
        _hop(view, way, number, hop)
        if at and hop.stop.tracklet_id == at:
            ui.run_javascript(f"document.getElementById('stop-{number}')?.scrollIntoView({{block: 'center'}})")


async def _summary(view: View, way: Way) -> None:
    found = way.trajectory
    with ui.element("section").classes("panel w-full").props('aria-label="Summary"'):
        with ui.row().classes("items-center gap-3 w-full"):
            best: dict[str, str] = {}
            for stop in found.stops:
                for band, image in stop.crop_images.items():
                    best.setdefault(band, image)
            for band, image in sorted(best.items()):
                thumbnail(view, image, alt=f"{found.vehicle_class}, {wording.band(band)}", size=88)
            with ui.column().classes("gap-0 grow min-w-0"):
                ui.label(f"{found.vehicle_class} {found.vehicle_id[:8]}").classes("text-h6")
                seen = wording.span(found.first_seen, found.last_seen, view.services.zone)
                ui.label(f"{seen}, {wording.stops(len(found.stops))}").classes("soft")
                ui.label(found.vehicle_id).classes("text-xs soft break-all")
        with ui.row().classes("gap-1 mt-2"):
            name = quote(found.vehicle_id, safe="")
            if view.caller.may(Role.OPERATOR):
                _link("Watch for it", "notification_add", f"/watch?vehicle={name}")
                merge_button(view, found.vehicle_id, label="Merge with another")
            _link("What looks alike", "image_search", f"/search?tracklet={quote(found.stops[0].tracklet_id, safe='')}")
            _link("JSON", "data_object", f"/v1/vehicles/{name}/trajectory")
        if view.caller.may(Role.OPERATOR):
            await hold_panel(view, found.vehicle_id, len(found.stops))


def _halts(way: Way) -> list[Halt]:
    """The stops in order; stays at one camera that follow each other are one."""
    stops = way.trajectory.stops
    halts = [Halt(stops[0].camera)]
    for left, reached in pairwise(stops):
        if left.camera != reached.camera:
            between = (reached.arrival - left.departure).total_seconds()
            halts.append(Halt(reached.camera, wording.duration(between) if between >= 0 else "in both"))
    return halts


def _hop(view: View, way: Way, number: int, hop: Hop) -> None:
    stop = hop.stop
    with ui.element("section").classes("panel w-full").props(f'id=stop-{number} aria-label="Stop {number}"'):
        with ui.row().classes("items-baseline gap-3 w-full"):
            ui.label(f"{number}. {stop.camera}").props('role="heading" aria-level="2"').classes("text-subtitle1")
            ui.label(wording.span(stop.arrival, stop.departure, view.services.zone)).classes("soft")
            if stop.camera_trouble:
                ui.label(f"the camera's picture was {stop.camera_trouble}").classes("bad")
        with ui.element("div").classes(
            "grid grid-cols-1 md:grid-cols-[auto_minmax(0,1fr)_minmax(0,22rem)] gap-4 w-full"
        ):
            _side_by_side(view, hop)
            with ui.column().classes("gap-1 min-w-0"):
                _sureness(hop)
                ui.label(hop.reason)
                for line in _figures(hop):
                    ui.label(line).classes("text-sm soft")
                show_explanation(view, stop.tracklet_id)
                if view.caller.may(Role.OPERATOR):
                    stop_deeds(view, way.trajectory.vehicle_id, stop, is_alone=len(way.trajectory.stops) == 1)
            with ui.column().classes("gap-1 min-w-0 w-full"):
                _scene(view, hop)
                _player(view, stop)


def _side_by_side(view: View, hop: Hop) -> None:
    """The stop it was compared with on the left, this one on the right, in the bands that were compared."""
    with ui.row().classes("gap-2 no-wrap items-start"):
        if hop.other is not None:
            _crop(view, hop.other, _band(hop, of_other=True))
        _crop(view, hop.stop, _band(hop, of_other=False))


def _band(hop: Hop, *, of_other: bool) -> str | None:
    bands = (hop.stop.modality_pair or "").split("~")
    return bands[-1 if of_other else 0] if len(bands) == 2 else None


def _crop(view: View, stop: Stop, band: str | None) -> None:
    image = stop.crop_images.get(band or "") or stop.crop_image
    with ui.column().classes("gap-0 items-start").style(f"max-width: {_CROP}px"):
        if image is None:
            ui.icon("no_photography", size="3rem").classes("soft").props('aria-label="no picture was kept"')
        else:
            thumbnail(view, image, alt=f"The vehicle at {stop.camera}", size=_CROP)
        bands = ", ".join(wording.band(one) for one in stop.modalities)
        ui.label(f"{stop.camera}, {bands}").classes("text-xs soft break-words w-full")


def _sureness(hop: Hop) -> None:
    sure = hop.stop.probability
    if sure is None or hop.stop.decided_by != MATCHER:
        # What is somebody's word is as sure as that person was: what the matcher thought is told among its figures.
        return
    with ui.row().classes("items-center gap-2 w-full no-wrap"):
        ui.label(f"{sure:.0%}").classes("figure")
        bar = ui.linear_progress(sure, show_value=False).classes("grow").props("rounded size=8px")
        bar.props["aria-label"] = f"probability {sure:.0%}"


def _figures(hop: Hop) -> list[str]:
    stop = hop.stop
    told = []
    if stop.probability is not None and stop.decided_by != MATCHER:
        told.append(f"The matcher had held it for {stop.probability:.0%} likely.")
    if stop.modality_pair is not None:
        told.append(f"Compared: {wording.band(stop.modality_pair)}.")
    if hop.similarity is not None:
        told.append(f"Similarity of the looks: {hop.similarity:.2f}.")
    if stop.transit_s is not None:
        gap = stop.transit_s
        told.append(
            f"Time between: {wording.duration(gap)}." if gap >= 0 else f"In both views for {wording.duration(-gap)}."
        )
    if stop.margin is not None and stop.score is not None:
        told.append(f"Ahead of the next best by {stop.margin:.1f} in log-odds.")
    return told


def _scene(view: View, hop: Hop) -> None:
    """The context picture, with the vehicle's box where it is known."""
    if hop.stop.context_image is None:
        return
    with ui.element("div").classes("relative w-full self-start"):
        picture = ui.element("img").classes("w-full block rounded")
        picture.props["src"] = view.services.links.picture(hop.stop.context_image)
        picture.props["alt"] = f"The scene at {hop.stop.camera}"
        picture.props["loading"] = "lazy"
        if hop.box is not None:
            left, top, right, bottom = (100 * side for side in hop.box)
            ui.element("div").classes("scene-box").style(
                f"left: {left:.2f}%; top: {top:.2f}%; width: {right - left:.2f}%; height: {bottom - top:.2f}%"
            )


def _player(view: View, stop: Stop) -> None:
    """The moment itself, where the camera's source was a file: cut when somebody wants to see it."""
    if not view.services.clips.has(stop.tracklet_id, stop.camera):
        return

    def play() -> None:
        button.set_visibility(False)
        with place:
            video = ui.element("video").classes("w-full rounded").props("controls autoplay muted playsinline")
            video.props["src"] = view.services.links.clip(stop.tracklet_id)
            video.props["aria-label"] = f"The vehicle at {stop.camera}"
            video.on("error", lambda: give_up(video), args=[])

    def give_up(video: ui.element) -> None:
        video.delete()
        button.set_visibility(True)
        ui.notify("This moment can't be played now: try again in a moment.", type="warning")

    place = ui.element("div").classes("w-full")
    with place:
        button = ui.button("Play the moment", icon="play_circle", on_click=play).props("flat dense no-caps")


def _link(label: str, icon: str, address: str) -> None:
    ui.button(label, icon=icon, on_click=lambda: ui.navigate.to(address)).props("flat dense no-caps")
