"""A vehicle that looks like what was searched by: its picture, and how much that says."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from nicegui import ui

from storage.accounts import Role
from storage.errors import StorageError
from web import addresses, reviewing, wording
from web.pages import frame
from web.pages.blocking import answered
from web.pages.deeds import merge_button

if TYPE_CHECKING:
    from storage.history import Correction
    from storage.likeness import Likeness
    from web.pages.frame import View

MEANING = (
    "Similarity says how close the two looks are, from -1 to 1, without what all vehicles of their bands share. "
    "It does not compare between bands: 0.4 between thermal and visible may say more than 0.6 within visible.",
    "Log-odds say what such a similarity is worth: by +1 it is 2.7 times as likely that the two are one vehicle, "
    "below 0 it speaks against it. The list is in this order, so that visible and infrared stand side by side.",
    "The probability takes each look that was searched as equally likely beforehand. "
    "Times, places and ways between the cameras count for nothing here: it is a lead, and no proof.",
)
NOT_MEASURED = "not measured between these bands"


def show_likeness(view: View, one: Likeness, place: int, *, merge_with: str | None) -> None:
    """One answer of a search.

    Args:
        view: Where it is shown.
        one: The answer.
        place: From 1.
        merge_with: The vehicle that was searched by, where the two may be called one; None: it was a picture.
    """
    band = wording.band(one.modality)
    with ui.card().classes("w-full p-2").props("flat bordered"), ui.row().classes("w-full items-center gap-3"):
        ui.label(str(place)).classes("text-h6 w-6 text-right shrink-0")
        if one.crop_image is None:
            ui.icon("no_photography", size="3rem").props('aria-label="the picture was not kept"')
        else:
            frame.thumbnail(view, one.crop_image, alt=f"{one.vehicle_class} at {one.camera}, {band}", size=88)
        with ui.column().classes("gap-0 grow basis-36 min-w-0"):
            vehicle = addresses.vehicle(one.vehicle_id, at=one.tracklet_id)
            ui.link(f"{one.vehicle_class} {one.vehicle_id[:8]}", vehicle).classes("text-subtitle1")
            ui.label(f"{one.camera} · {view.time(one.captured_at, '%Y-%m-%d %H:%M:%S')}").classes("text-sm")
            ui.badge(band).props("outline")
        with ui.column().classes("gap-0 basis-52"):
            _figures(one)
        with ui.column().classes("gap-0 items-start"):
            again = f"/search?tracklet={quote(one.tracklet_id, safe='')}"
            ui.button("Search with this", icon="image_search", on_click=lambda: ui.navigate.to(again)).props(
                "flat dense no-caps"
            )
            if merge_with is not None and view.caller.may(Role.OPERATOR):
                _merge_or_undo(view, merge_with, one)


def _figures(one: Likeness) -> None:
    if one.probability is not None:
        ui.label(_likely(one.probability)).classes("text-subtitle1")
        ui.linear_progress(one.probability, show_value=False).classes("w-36").props('aria-hidden="true" rounded')
    says = NOT_MEASURED if one.log_odds is None else f"log-odds {one.log_odds:+.1f}"
    ui.label(f"similarity {one.similarity:.2f}, {says}").classes("text-sm")


def _likely(probability: float) -> str:
    if probability < 0.01:
        return "under 1% likely the same"
    return f"{min(probability, 0.99):.0%} likely the same"


def _merge_or_undo(view: View, keep: str, one: Likeness) -> None:
    def merged(made: Correction) -> None:
        merge.set_visibility(False)
        with place:
            _undo_button(view, made.correction_id, merge)

    place = ui.element("div")
    merge = merge_button(view, keep, one.vehicle_id, label="These are one: merge", done=merged)


def _undo_button(view: View, correction_id: int, merge: ui.button) -> None:
    async def undone() -> None:
        button.disable()
        try:
            await answered(reviewing.take_back, view.services, view.caller, correction_id)
        except StorageError as error:
            ui.notify(str(error), type="negative", close_button=True)
            button.enable()
            return
        ui.notify("Undone: they are two vehicles again.", type="positive")
        merge.set_visibility(True)
        button.delete()

    button = ui.button("Merged: undo", icon="undo", on_click=undone).props("flat dense no-caps")
