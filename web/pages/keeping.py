"""What of a vehicle is held, by whom and why; operators hold it and let go of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from storage.errors import StorageError
from web import holding, wording
from web.pages.blocking import answered
from web.pages.frame import View

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storage.holds import Hold


async def hold_panel(view: View, vehicle_id: str, stops: int) -> None:
    """Who holds the vehicle, with a button to hold it and one to let go.

    Args:
        view: Where it is shown.
        vehicle_id: The vehicle.
        stops: How many it has by now.
    """
    place = ui.row().classes("w-full items-center gap-2")

    async def deed(work: Callable[[], list[str]]) -> None:
        try:
            await answered(work)
            await show()
        except StorageError as error:
            ui.notify(str(error), type="negative", close_button=True)

    async def show() -> None:
        held = await answered(holding.held, view.services, view.caller, vehicle_id)
        place.clear()
        with place:
            _tell(view, held, stops)
            if len(held) < stops:
                _asking(
                    "Hold the others, too" if held else "Hold",
                    "lock",
                    "Its pictures, vectors, paths and decisions stay past their days, and nobody can have it "
                    "forgotten, until it is released. Stops that it is given later are not held.",
                    lambda note: deed(lambda: holding.hold(view.services, view.caller, vehicle_id, note=note)),
                    is_noted=True,
                )
            if held:
                _asking(
                    "Release",
                    "lock_open",
                    "What has become too old meanwhile goes with the next retention. Nothing brings it back.",
                    lambda _: deed(lambda: holding.release(view.services, view.caller, vehicle_id)),
                )

    await show()


def _tell(view: View, held: list[Hold], stops: int) -> None:
    said = dict.fromkeys((one.held_by, one.held_at, one.note) for one in held)
    for who, since, note in said:
        count = sum((one.held_by, one.held_at, one.note) == (who, since, note) for one in held)
        of = "" if count == stops else f"{count} of {wording.stops(stops)} "
        why = f": “{note}”" if note else ""
        told = f"{of}held by {who} since {view.time(since, '%Y-%m-%d %H:%M:%S')}{why}"
        ui.label(told[0].upper() + told[1:]).classes("text-sm break-words max-w-full")


def _asking(
    label: str, icon: str, text: str, work: Callable[[str], Awaitable[None]], *, is_noted: bool = False
) -> None:
    """A button that says what it does before it is done."""

    async def pressed() -> None:
        dialog.close()
        await work((note.value or "").strip())

    with ui.dialog() as dialog, ui.card():
        ui.label(text)
        note = ui.input("Note: why, such as a file number").classes("w-full").props("maxlength=500 autofocus")
        note.set_visibility(is_noted)
        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).props("flat no-caps")
            ui.button(label, on_click=pressed).props("no-caps")
    ui.button(label, icon=icon, on_click=dialog.open).props("flat dense no-caps")
