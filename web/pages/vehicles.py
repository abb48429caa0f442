"""Vehicles: who passed when."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from nicegui import events, ui
from nicegui.element import Element

from reid.modality import Modality
from storage.errors import StorageError
from web import listing, wording
from web.listing import PART, Filters, filters_of
from web.pages import frame
from web.pages.blocking import answered
from web.pages.frame import View, page

#: More rows than this are taller than browsers draw; nobody scrolls to them: the filters are the way there.
MAX_ROWS = 150_000
_ANY = ""
_STYLE = """
.vehicle-list { height: max(20rem, calc(100vh - 21rem)); }
.vehicle-place { left: 0; right: 0; }
.vehicle-row { height: 100%; display: flex; gap: .75rem; padding: .25rem .5rem; overflow: hidden; color: inherit;
  text-decoration: none; border: 1px solid rgba(128,128,128,.35); border-radius: .5rem; align-items: center; }
.vehicle-row:hover { background: rgba(128,128,128,.15); }
.vehicle-row:focus { outline: 2px solid var(--q-primary); outline-offset: -2px; }
.vehicle-pictures { display: flex; gap: .25rem; flex: none; min-width: 5rem; max-width: 45%; overflow: hidden; }
.vehicle-pictures img { height: 80px; width: 104px; object-fit: contain; background: rgba(128,128,128,.2);
  border-radius: .25rem; flex: 0 1 104px; min-width: 0; }
.vehicle-pictures .q-icon { font-size: 3rem; }
.vehicle-words { display: flex; flex-direction: column; min-width: 0; font-size: .85rem; line-height: 1.3; }
.vehicle-words > * { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.vehicle-faint { opacity: .8; }
.vehicle-blank { height: 1rem; flex: 1; border-radius: .25rem; background: rgba(128,128,128,.25); }
.vehicle-blank.picture { height: 80px; flex: 0 0 104px; }
"""


class VehicleList(Element, component="../static/vehicle_list.js"):
    """A list that asks for its rows as one scrolls to them.

    Args:
        view: Where it is shown.
        filters: What it is of.
        count: How many rows it has.
    """

    def __init__(self, view: View, filters: Filters, count: int) -> None:
        super().__init__()
        self.props["count"], self.props["part"] = count, PART
        self._view, self._filters = view, filters
        self.on("want", self._fill)

    async def _fill(self, event: events.GenericEventArguments) -> None:
        number = event.args
        if not isinstance(number, int) or not 0 <= number <= MAX_ROWS // PART:
            return
        try:
            rows = await answered(listing.part, self._view.services, self._view.caller, self._filters, number)
        except StorageError as error:
            self.run_method("failed", number)
            ui.notify(str(error), type="negative", close_button=True)
            return
        self.run_method("fill", number, rows)


@page("/vehicles", "Vehicles")
async def vehicles(
    view: View,
    start: str = "",
    end: str = "",
    camera: str = "",
    vehicle_class: str = "",
    modality: str = "",
    min_cameras: str = "",
) -> None:
    """The list that the address names."""
    said = {
        "start": start,
        "end": end,
        "camera": camera,
        "vehicle_class": vehicle_class,
        "modality": modality,
        "min_cameras": min_cameras,
    }
    ui.add_css(_STYLE)
    try:
        filters = filters_of(said, view.services.zone)
    except StorageError as error:
        _form(view, said)
        frame.failed(str(error))
        return
    _form(view, said | {"start": _shown(filters.start), "end": _shown(filters.end)})
    count = await answered(listing.how_many, view.services, view.caller, filters)
    ui.label(f"{count:,} vehicle{'s' if count != 1 else ''}, latest first").classes("text-subtitle2").props(
        'role="status"'
    )
    if count > MAX_ROWS:
        ui.label(f"The latest {MAX_ROWS:,} are listed: narrow the time to see others.").classes("text-sm")
    if not count:
        _nobody(filters)
        return
    VehicleList(view, filters, min(count, MAX_ROWS))


def _nobody(filters: Filters) -> None:
    if filters == Filters():
        frame.empty("No vehicle has passed yet: they are listed here as soon as a camera sees one.", "directions_car")
        return
    frame.empty("No vehicle passed that these filters let through: widen the time, or drop one.", "search_off")
    if filters.start or filters.end:
        wider = replace(filters, start=None, end=None).address()
        ui.link("The same at any time", wider)
    ui.link("All vehicles", "/vehicles")


def _form(view: View, said: dict[str, str]) -> None:
    cameras = {one.id: one.id for one in view.services.site.cameras if view.caller.sees(one.id)}
    bands = {band.value: wording.band(band) for band in Modality}
    with ui.element("div").classes("grid grid-cols-2 md:grid-cols-4 lg:grid-cols-7 gap-2 w-full items-end"):
        fields: dict[str, Any] = {
            "start": ui.input("From", value=said["start"]).props('type="datetime-local" step=1 stack-label'),
            "end": ui.input("Until", value=said["end"]).props('type="datetime-local" step=1 stack-label'),
            "camera": _choice("Camera", cameras, said["camera"]),
            "vehicle_class": ui.input("Class", value=said["vehicle_class"], placeholder="any"),
            "modality": _choice("Band", bands, said["modality"]),
            "min_cameras": ui.input("Cameras, at least", value=said["min_cameras"] or "1").props("type=number min=1"),
        }

        def go() -> None:
            # What the form holds as it stands: the view that it leads to says what can't be read.
            wanted = {name: str(field.value or "") for name, field in fields.items()}
            try:
                address = filters_of(wanted, view.services.zone).address()
            except StorageError as error:
                ui.notify(str(error), type="negative")
                return
            ui.navigate.to(address)

        for field in fields.values():
            field.props("dense").classes("min-w-0").on("keydown.enter", go)
        with ui.row().classes("gap-1"):
            ui.button(icon="search", on_click=go).props('aria-label="Show these"')
            ui.button(icon="clear", on_click=lambda: ui.navigate.to("/vehicles")).props(
                'flat aria-label="Drop the filters"'
            )


def _choice(name: str, options: dict[str, str], value: str) -> ui.select:
    # A name that the site file doesn't have any more may still be in the database.
    kept = {value: value} if value and value not in options else {}
    return ui.select({_ANY: "any", **options, **kept}, value=value, label=name)


def _shown(moment: datetime | None) -> str:
    """As the browser's field takes it: in the site's zone, without naming it."""
    return "" if moment is None else moment.replace(tzinfo=None).isoformat(timespec="seconds")
