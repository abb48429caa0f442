"""What an operator may say of a vehicle and of its stops, and take back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from storage.errors import StorageError
from web import addresses, reviewing, wording
from web.pages.blocking import answered
from web.pages.frame import View, thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.history import Correction
    from storage.trajectories import Stop, VehicleSummary


def stop_deeds(view: View, vehicle_id: str, stop: Stop, *, is_alone: bool) -> None:
    """What may be said of one stop of a vehicle.

    Args:
        view: Where it is shown.
        vehicle_id: Whose stop it is.
        stop: The stop.
        is_alone: Whether it is all that the vehicle has.
    """

    def moved(to: str, note: str) -> Correction:
        return reviewing.move(view.services, view.caller, stop.tracklet_id, vehicle_id, to, note=note)

    with ui.row().classes("gap-1"):
        if stop.decided_by != view.caller.person:
            _deed(view, "Right: confirm", "check", reviewing.confirm, vehicle_id, stop)
        if not is_alone:
            _deed(view, "Another: split", "call_split", reviewing.split, vehicle_id, stop)
            title = f"Whose is the stop at {stop.camera}?"
            _button("Of another: move", "move_up", lambda: _Choice(view, title, "Move", vehicle_id, moved).opened())


def merge_button(
    view: View, keep: str, other: str | None = None, *, label: str, done: Callable[[Correction], None] | None = None
) -> ui.button:
    """A button that has two vehicles called one, once both have been looked at.

    Args:
        view: Where it is shown.
        keep: The vehicle whose id remains.
        other: The one whose stops it is given; None: asked for.
        label: Of the button.
        done: Told of the correction; None: it is said, and the view is loaded again.
    """

    def merged(given: str, note: str) -> Correction:
        return reviewing.merge(view.services, view.caller, keep, given, note=note)

    title = "Are they one vehicle?"
    return _button(label, "merge", lambda: _Choice(view, title, "Merge", keep, merged, done=done).opened(other))


class _Choice:
    """A dialogue: another vehicle is named, and looked at beside the one that is shown, before anything is done."""

    def __init__(
        self,
        view: View,
        title: str,
        deed: str,
        vehicle_id: str,
        decide: Callable[[str, str], Correction],
        *,
        done: Callable[[Correction], None] | None = None,
    ) -> None:
        self._view, self._vehicle_id, self._decide = view, vehicle_id, decide
        self._done = done or (lambda made: _say_done(view, made))
        self._seen: str | None = None
        with ui.dialog() as self._dialog, ui.card().classes("w-full"):
            ui.label(title).classes("text-h6").props('role="heading" aria-level="2"')
            self._naming = ui.row().classes("w-full items-end no-wrap gap-2")
            with self._naming:
                name = ui.input("The other's id, or the beginning of it").props("autofocus maxlength=64")
                name.classes("grow").on("keydown.enter", lambda: self._look(name.value or ""))
                ui.button("Look", on_click=lambda: self._look(name.value or "")).props("flat no-caps")
            self._pair = ui.column().classes("w-full gap-2").props('aria-live="polite"')
            self._note = ui.input("Note: why").classes("w-full").props("maxlength=500")
            self._fault = ui.label().classes("bad").props('role="alert"')
            with ui.row().classes("w-full justify-end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps")
                self._go = ui.button(deed, on_click=self._decided).props("no-caps")
        self._go.disable()
        self._dialog.on("hide", self._dialog.delete)

    async def opened(self, other: str | None = None) -> None:
        """Shows it; with the other vehicle, where it needs no name any more."""
        if other is not None:
            # Before, so that nothing moves under the pointer.
            self._naming.delete()
            await self._look(other)
        self._dialog.open()

    async def _look(self, other: str) -> None:
        self._seen, self._fault.text = None, ""
        self._go.disable()
        self._pair.clear()
        view = self._view
        try:
            pair = await answered(reviewing.pair, view.services, view.caller, self._vehicle_id, other)
        except StorageError as error:
            self._fault.text = str(error)
            return
        with self._pair:
            for one in pair:
                _sketch(view, one)
            first, second = (one.vehicle_class for one in pair)
            if first != second:
                ui.label(f"One was taken for a {first}, the other for a {second}: look twice.").classes("warn")
        self._seen = pair[1].vehicle_id
        self._go.enable()

    async def _decided(self) -> None:
        if self._seen is None:
            return
        self._go.disable()
        try:
            made = await answered(self._decide, self._seen, (self._note.value or "").strip())
        except StorageError as error:
            self._fault.text = str(error)
            self._go.enable()
            return
        self._dialog.close()
        self._done(made)


def _sketch(view: View, one: VehicleSummary) -> None:
    with ui.row().classes("w-full items-center gap-x-3 gap-y-1"):
        for band, image in sorted(one.crop_images.items()):
            thumbnail(view, image, alt=f"{one.vehicle_class}, {wording.band(band)}", size=72)
        with ui.column().classes("gap-0 grow basis-56 min-w-0"):
            ui.link(f"{one.vehicle_class} {one.vehicle_id[:8]}", addresses.vehicle(one.vehicle_id), new_tab=True)
            ui.label(wording.span(one.first_seen, one.last_seen, view.services.zone)).classes("text-sm")
            ui.label(f"{wording.stops(one.tracklets)}: {', '.join(one.cameras)}").classes(
                "text-sm soft break-words w-full"
            )


def _deed(view: View, label: str, icon: str, decide: Callable[..., Correction], vehicle_id: str, stop: Stop) -> None:
    async def pressed() -> None:
        button.disable()
        try:
            made = await answered(decide, view.services, view.caller, stop.tracklet_id, vehicle_id)
        except StorageError as error:
            button.enable()
            ui.notify(str(error), type="negative", close_button=True)
            return
        _say_done(view, made)

    button = _button(label, icon, pressed)


def _say_done(view: View, made: Correction) -> None:
    """What was done, with a way back and a way on."""
    # In the page itself: what was pressed may be gone by now.
    with ui.context.client, ui.dialog().props("persistent") as dialog, ui.card():
        ui.label(f"Correction {made.correction_id}: {made.kind} by {made.made_by}").classes("text-h6")
        stay = len(made.changes) - len(made.moved)
        ui.label(f"{wording.stops(len(made.moved))} moved, {stay} confirmed where they were.")
        for vehicle_id in sorted({change.after for change in made.moved}):
            ui.link(f"Vehicle {vehicle_id[:8]}", addresses.vehicle(vehicle_id))

        async def undo() -> None:
            try:
                await answered(reviewing.take_back, view.services, view.caller, made.correction_id)
            except StorageError as error:
                ui.notify(str(error), type="negative", close_button=True)
                return
            ui.navigate.reload()

        with ui.row().classes("w-full justify-end"):
            ui.button("Undo", icon="undo", on_click=undo).props("flat no-caps")
            ui.button("Good", on_click=ui.navigate.reload).props("no-caps autofocus")
    dialog.open()


def _button(label: str, icon: str, pressed: Callable[[], object]) -> ui.button:
    return ui.button(label, icon=icon, on_click=pressed).props("flat dense no-caps")
