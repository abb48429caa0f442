"""Watch: vehicles whose return is told, and what was told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nicegui import ui

from storage.accounts import Role
from storage.errors import StorageError
from web import addresses, wording
from web.pages import frame
from web.pages.blocking import answered
from web.pages.following import follow
from web.pages.frame import View, page
from web.watch_desk import Listed, end, followed, opened, start

if TYPE_CHECKING:
    from storage.watches import Notice, Watch
    from streamer.config import SiteConfig

#: How often the lists are read again, in seconds.
PERIOD_S = 20.0
_CELL = "min-w-0 break-words"


@page("/watch", "Watch")
async def watch(view: View, vehicle: str = "") -> None:
    """Whom somebody waits for; a vehicle in the address stands in the form already."""
    desk = _Desk(view)
    known = await answered(opened, view.services, view.caller)
    ui.label(told_to(view.services.site)).classes("text-sm break-words")
    desk.build_trouble()
    if view.caller.may(Role.OPERATOR):
        desk.build_form(vehicle)
    desk.build_lists(known)


def told_to(site: SiteConfig) -> str:
    """Where notices go, in words, without a secret and without a password."""
    settings = site.web.watch
    ways = []
    if settings.webhook is not None:
        parts = urlsplit(settings.webhook)
        port = f":{parts.port}" if parts.port else ""
        signed = ", signed" if settings.webhook_secret else ""
        ways.append(f"the webhook at {parts.hostname}{port}{signed}")
    if settings.mqtt is not None:
        ways.append(f"the MQTT topic {settings.mqtt.topic} at {settings.mqtt.host}")
    if not ways:
        return "Nobody is told of a return beside this page: see web.watch in the site file."
    return f"A return is told to {' and to '.join(ways)}, and on this page."


class _Desk:
    """One open page of the watches."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._may_decide = view.caller.may(Role.OPERATOR)
        self._shown: Listed | None = None

    def build_trouble(self) -> None:
        """Where is said that nobody looks out."""
        self._trouble = ui.label().classes("bad text-sm break-words").props('role="status"')

    def build_form(self, vehicle: str) -> None:
        """Where a vehicle is put on the list."""
        with ui.row().classes("w-full gap-3 items-end"):
            self._vehicle = ui.input("Vehicle: its id, or the beginning of it", value=vehicle)
            self._vehicle.classes("grow basis-64").props("maxlength=64")
            self._note = ui.input("Note: why").classes("grow basis-64").props("maxlength=500")
            for field in (self._vehicle, self._note):
                field.on("keydown.enter", self._start)
            ui.button("Watch", icon="add_alert", on_click=self._start)
        self._fault = ui.label().classes("text-negative text-sm").props('role="alert"')
        self._fault.set_visibility(False)

    def build_lists(self, known: Listed) -> None:
        """Where the lists are shown."""
        with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-6 w-full items-start"):
            with ui.column().classes("w-full gap-2 min-w-0"):
                ui.label("Watched").classes("text-h6").props('role="heading" aria-level="2"')
                self._watched = ui.column().classes("w-full gap-2")
            with ui.column().classes("w-full gap-2 min-w-0"):
                ui.label("Returns").classes("text-h6").props('role="heading" aria-level="2"')
                self._returns = ui.column().classes("w-full gap-2").props('aria-live="polite"')
        self._show(known)
        view = self._view
        self._refresh = follow(view, lambda: followed(view.services, view.caller), self._show, every_s=PERIOD_S)

    async def _start(self) -> None:
        vehicle = (self._vehicle.value or "").strip()
        if not vehicle:
            self._tell("which vehicle? Its id stands on its page")
            return
        note = (self._note.value or "").strip()
        view = self._view
        try:
            made = await answered(start, view.services, view.caller, vehicle, datetime.now(UTC), note=note)
        except StorageError as error:
            self._tell(str(error))
            return
        self._tell("")
        self._vehicle.value = self._note.value = ""
        ui.notify(f"Vehicle {made.vehicle_id[:8]} is watched.", type="positive", position="bottom-right")
        await self._refresh()

    async def _end(self, watch_id: int) -> None:
        view = self._view
        try:
            await answered(end, view.services, view.caller, watch_id, datetime.now(UTC))
        except StorageError as error:
            ui.notify(str(error), type="negative", position="bottom-right", close_button=True)
        await self._refresh()

    def _tell(self, fault: str) -> None:
        self._fault.text = fault
        self._fault.set_visibility(bool(fault))

    def _show(self, known: Listed) -> None:
        before, self._shown = self._shown, known
        self._trouble.text = f"This program can't look out for returns now: {known.trouble}" if known.trouble else ""
        if before is None or before.watches != known.watches:
            self._watched.clear()
            with self._watched:
                if not known.watches:
                    frame.empty("No vehicle is watched. Put one on the list by its id.", "notifications_none")
                for one in known.watches:
                    self._show_watch(one)
        if before is None or before.notices != known.notices:
            self._returns.clear()
            with self._returns:
                if not known.notices:
                    frame.empty("No watched vehicle has returned yet.", "history")
                for notice in known.notices:
                    self._show_notice(notice)

    def _show_watch(self, one: Watch) -> None:
        with ui.card().classes("w-full p-2").props("flat bordered"), ui.row().classes("w-full gap-3 items-center"):
            for band, image in sorted(one.crop_images.items()):
                frame.thumbnail(self._view, image, alt=f"The vehicle, {wording.band(band)}", size=72)
            with ui.column().classes(f"gap-0 grow basis-40 {_CELL}"):
                ui.link(f"vehicle {one.vehicle_id[:8]}", addresses.vehicle(one.vehicle_id))
                if one.note:
                    ui.label(f"“{one.note}”").classes(f"text-sm {_CELL}")
                ui.label(f"watched by {one.made_by} since {self._time(one.made_at)}").classes(f"text-xs {_CELL}")
                seen = "not in view any more" if one.last_seen is None else f"last seen {self._time(one.last_seen)}"
                place = "" if one.last_camera is None else f" at {one.last_camera}"
                returns = "1 return" if one.notices == 1 else f"{one.notices} returns"
                ui.label(f"{seen}{place} · {returns}").classes(f"text-xs {_CELL}")
            if self._may_decide:
                stop = ui.button("Stop", icon="notifications_off", on_click=lambda: self._end(one.watch_id))
                stop.props(f'flat dense no-caps aria-label="Stop watching {one.vehicle_id[:8]}"')

    def _show_notice(self, notice: Notice) -> None:
        with ui.card().classes("w-full p-2 gap-0").props("flat bordered"):
            with ui.row().classes("w-full gap-2 items-baseline"):
                address = addresses.vehicle(notice.vehicle_id, at=notice.tracklet_id)
                ui.link(f"vehicle {notice.vehicle_id[:8]}", address)
                more = f" and {notice.tracklets - 1} more, by one correction" if notice.tracklets > 1 else ""
                ui.label(f"at {notice.camera}{more}").classes(_CELL)
                ui.space()
                ui.label(self._time(notice.seen_at)).classes("text-sm")
            if notice.note:
                ui.label(f"“{notice.note}”").classes(f"text-sm {_CELL}")
            ui.label(self._delivery(notice)).classes(f"text-xs {_CELL}")

    def _delivery(self, notice: Notice) -> str:
        tries = "" if not notice.attempts else f" after {notice.attempts} failed {_tries(notice.attempts)}"
        if notice.delivered_at is not None:
            return f"told {self._time(notice.delivered_at)}{tries}"
        error = f": {notice.error}" if notice.error else ""
        return f"not told yet{tries}{error}"

    def _time(self, moment: datetime) -> str:
        return self._view.time(moment, "%Y-%m-%d %H:%M:%S")


def _tries(count: int) -> str:
    return "try" if count == 1 else "tries"
