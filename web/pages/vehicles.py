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
from web.listing import MAX_ROWS, PART, Filters, Listed, filters_of
from web.pages import frame
from web.pages.blocking import answered
from web.pages.following import follow
from web.pages.frame import View, page

#: How often it is asked whether there are newer ones.
REFRESH_S = 5.0
#: Who wants to see what is new begins at the top.
_FROM_THE_TOP = "sessionStorage.removeItem('vehicles:' + location.search); location.reload()"
_ANY = ""
_STYLE = """
.vehicle-list { height: max(20rem, calc(100vh - 21rem)); }
@media (min-width: 1024px) { .vehicle-list { height: max(20rem, calc(100vh - 17rem)); } }
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
        listed: What is in it.
    """

    def __init__(self, view: View, listed: Listed) -> None:
        super().__init__()
        self.props["count"], self.props["part"] = len(listed.ids), PART
        self._view, self._listed = view, listed
        self.on("want", self._fill)
        self.on("return", self._find)

    async def _fill(self, event: events.GenericEventArguments) -> None:
        number = event.args
        if not isinstance(number, int) or not 0 <= number <= MAX_ROWS // PART:
            return
        try:
            rows = await answered(listing.part, self._view.services, self._view.caller, self._listed, number)
        except StorageError as error:
            self.run_method("failed", number)
            ui.notify(frame.told(self._view, "/vehicles", error), type="negative", close_button=True)
            return
        self.run_method("fill", number, rows)

    def _find(self, event: events.GenericEventArguments) -> None:
        """Who comes back finds the row that was on top, however many have come before it meanwhile."""
        if event.args in self._listed.ids:
            self.run_method("show", self._listed.ids.index(event.args))


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
    listed = await answered(listing.opened, view.services, view.caller, filters)
    count = len(listed.ids)
    with ui.row().classes("items-center min-h-9 gap-3 w-full"):
        ui.label(f"{count:,} vehicle{'s' if count != 1 else ''}, latest first").classes("text-subtitle2").props(
            'role="status"'
        )
        _newer(view, listed)
    if count == MAX_ROWS:
        ui.label("These are the latest: narrow the time to see others.").classes("text-sm")
    if not count:
        _nobody(filters)
        return
    VehicleList(view, listed)


def _newer(view: View, listed: Listed) -> None:
    """The list stays as it was opened; that others were seen since is told above it."""
    show = ui.button("", icon="refresh", on_click=lambda: ui.run_javascript(_FROM_THE_TOP)).props("flat dense no-caps")
    show.set_visibility(False)

    def told(count: int) -> None:
        show.text = f"{count:,} seen since: show"
        show.set_visibility(count > 0)

    follow(view, lambda: listing.newer(view.services, view.caller, listed), told, every_s=REFRESH_S)


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
