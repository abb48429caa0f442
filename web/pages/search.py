"""Search by picture: which vehicles look like this one, in whatever band they were seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from nicegui import events, ui
from numpy.typing import NDArray

from reid.modality import Modality
from storage.accounts import Role
from storage.errors import QuestionError, StorageError
from storage.likeness import Likeness, LikenessFilter
from web import addresses, searching
from web.pages import frame
from web.pages.alike import MEANING, show_likeness
from web.pages.blocking import Latest, answered
from web.pages.frame import View, page
from web.picture_search import PictureSearchError
from web.searching import WHOLE, KnownStop, Part, Sent
from web.uploads import UploadError

BANDS = {Modality.VISIBLE: "visible", Modality.NEAR_INFRARED: "near infrared", Modality.THERMAL: "thermal"}
_BAND_NAMES = {band.value: name for band, name in BANDS.items()}
ANY = "any"
#: What is said while a search goes on: reading the vectors of a million looks takes some 20 s, once.
SEARCHING = "Searching. The first search after a start takes longer: it reads the model and all looks."
_FORMATS = "image/jpeg,image/png,image/webp,image/tiff,image/bmp"
#: Hands a picture from the clipboard to the uploader, wherever on the page it is pasted.
_PASTE = """
document.addEventListener('paste', (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith('image/'));
  const uploader = getElement(%d);
  if (files.length && uploader) { uploader.$refs.qRef.addFiles(files.slice(0, 1)); event.preventDefault(); }
});
"""
#: Chooses a file; Quasar's own button has a sign alone, and no name for who doesn't see it.
_CHOOSE = """
<div class="row items-center no-wrap gap-2 p-3">
  <div class="col">Drop a picture of one vehicle, paste it, or</div>
  <q-btn v-if="props.canAddFiles" type="a" outline no-caps color="white" icon="add_photo_alternate"
    label="Choose a file" @click="props.pickFiles"><q-uploader-add-trigger /></q-btn>
</div>
"""
#: The best answers may be out of sight: on a phone they stand below the form, and beside a long one above its button.
_TO_RESULTS = """
const results = getHtmlElement(%d), begin = results.getBoundingClientRect().top;
if (begin < 0 || begin > window.innerHeight / 2) results.scrollIntoView({behavior: 'smooth', block: 'start'});
"""


@page("/search", "Search")
async def search(view: View, tracklet: str = "") -> None:
    """Begins with a picture that is given here, or with a stop that the address names."""
    stop = None
    if tracklet:
        stop = await answered(searching.known_stop, view.services, view.caller, tracklet)
    desk = _Desk(view, stop)
    with ui.element("div").classes("grid grid-cols-1 md:grid-cols-[22rem_minmax(0,1fr)] gap-6 w-full items-start"):
        with ui.column().classes("w-full gap-4"):
            desk.build_query()
            desk.build_filters()
        with ui.column().classes("w-full gap-2"):
            desk.build_results()
    if stop is not None:
        # Once the page is there, which would otherwise be sent with its answers, after 20 s perhaps.
        ui.timer(0, desk.begin, once=True)


@dataclass
class _Query:
    """What is sought by: a picture that was sent, or else the stop."""

    image: NDArray[np.uint8] | None = None
    part: Part = WHOLE
    modality: Modality = Modality.VISIBLE


class _Desk:
    """One open page of the search."""

    def __init__(self, view: View, stop: KnownStop | None) -> None:
        self._view = view
        self._stop = stop
        self._query = _Query()
        self._drag: tuple[float, float] | None = None
        self._question = Latest(self._search)

    def build_query(self) -> None:
        """Where a picture is given, and what is sought by is shown."""
        if self._stop is not None:
            self._build_stop(self._stop)
        web = self._view.services.site.web
        largest = web.max_upload_bytes
        with ui.column().classes("w-full gap-1"):
            uploader = (
                ui.upload(
                    auto_upload=True,
                    max_file_size=largest,
                    on_upload=self._take,
                    on_rejected=lambda: self._refuse(
                        f"this is not taken: wanted a picture of at most {largest / (1 << 20):.0f} MiB"
                    ),
                )
                .props(f'accept="{_FORMATS}" flat bordered aria-label="Picture to search by"')
                .classes("w-full picture-drop")
            )
            uploader.add_slot("header", _CHOOSE)
            # The guard lets nothing in whose sender it can't look up, or who has logged out meanwhile.
            uploader.on("failed", self._not_sent, args=[])
            self._uploader = uploader
            self._fault = ui.column().classes("w-full")
        self._sent = ui.column().classes("w-full gap-2")
        ui.context.client.on_connect(lambda: ui.run_javascript(_PASTE % uploader.id))

    def _build_stop(self, stop: KnownStop) -> None:
        with ui.column().classes("w-full gap-1") as self._shown_stop:
            ui.label("Searching by this stop").classes("text-subtitle2")
            with ui.row().classes("gap-2"):
                for image in stop.crop_images:
                    frame.thumbnail(self._view, image, alt=f"The vehicle at {stop.camera}", size=120)
            ui.label(f"{stop.camera}, {self._view.time(stop.started_at, '%Y-%m-%d %H:%M:%S')}").classes("text-sm")
            if stop.vehicle_id is not None:
                ui.link(f"Vehicle {stop.vehicle_id[:8]}", addresses.vehicle(stop.vehicle_id))

    def build_filters(self) -> None:
        """Among which looks is sought."""
        cameras = [one.id for one in self._view.services.site.cameras if self._view.caller.sees(one.id)]
        with ui.column().classes("w-full gap-2"):
            ui.label("Among looks").classes("text-subtitle2")
            self._band = ui.select({ANY: "in any band", **_BAND_NAMES}, value=ANY, label="Band").classes("w-full")
            self._camera = ui.select({ANY: "at any camera", **{one: one for one in cameras}}, value=ANY, label="Camera")
            self._camera.classes("w-full")
            self._class = ui.input("Class", placeholder="any, or car, truck, bus …").classes("w-full")
            self._start = ui.input("From").props('type="datetime-local" stack-label').classes("w-full")
            self._end = ui.input("Until").props('type="datetime-local" stack-label').classes("w-full")
            for chosen in (self._band, self._camera):
                chosen.on_value_change(self._filtered)
            for field in (self._class, self._start, self._end):
                field.on("keydown.enter", self.ask)
            self._button = ui.button("Search", icon="image_search", on_click=self.ask).classes("w-full")

    def build_results(self) -> None:
        """Where answers appear."""
        with ui.expansion("What the figures mean", icon="help_outline").classes("w-full").props("dense"):
            for line in MEANING:
                ui.label(line).classes("text-sm pb-2")
        self._results = ui.column().classes("w-full gap-2 scroll-mt-20").props('aria-live="polite"')
        if self._stop is not None:
            self._show_busy()
            return
        with self._results:
            frame.empty("Give a picture of one vehicle: who looks like it is listed here, the likest first.", "search")

    async def _take(self, event: events.UploadEventArguments) -> None:
        web = self._view.services.site.web
        data = await event.file.read()
        self._uploader.reset()
        try:
            sent = await answered(
                searching.received, data, max_bytes=web.max_upload_bytes, max_pixels=web.max_upload_pixels
            )
        except UploadError as error:
            self._refuse(str(error))
            return
        self._fault.clear()
        self._query = _Query(sent.image, WHOLE, sent.band)
        self._show_sent(sent)
        await self.begin()

    def _not_sent(self) -> None:
        self._uploader.reset()
        self._refuse("The picture was not taken: the database does not answer, or your login has ended.")

    def _go_to_results(self) -> None:
        ui.run_javascript(_TO_RESULTS % self._results.id)

    def _refuse(self, reason: str) -> None:
        self._fault.clear()
        with self._fault:
            frame.failed(reason)

    def _show_sent(self, sent: Sent) -> None:
        if self._stop is not None:
            self._shown_stop.set_visibility(False)
        self._sent.clear()
        with self._sent:
            self._preview = (
                ui.interactive_image(sent.preview, on_mouse=self._mouse, events=["mousedown", "mousemove", "mouseup"])
                .classes("w-full rounded")
                .props('alt="The picture that is searched by"')
            )
            ui.label("Drag over the picture to cut one vehicle out, or set its edges:").classes("text-sm")
            # Room for the sliders' handles, which stand over their ends.
            with ui.column().classes("w-full gap-0 px-3"):
                self._across = _edges("Left and right")
                self._down = _edges("Top and bottom")
            for edges in (self._across, self._down):
                edges.on("change", self._edged)
            ui.label("Which band was it taken in?").classes("text-subtitle2")
            ui.radio(_BAND_NAMES, value=sent.band.value, on_change=self._choose_band).props("dense")
            self._band_words = ui.label(_band_words(sent.band, sent.band)).classes("text-sm").props('role="status"')
            self._guess = sent.band

    async def _mouse(self, event: events.MouseEventArguments) -> None:
        image = self._query.image
        if image is None:
            return
        # The picture is shown smaller than it was sent; the overlay counts in pixels of what is shown.
        height, width = image.shape[:2]
        shown = min(1.0, searching.PREVIEW_SIDE / max(width, height))
        here = event.image_x / (width * shown), event.image_y / (height * shown)
        if event.type == "mousedown":
            self._drag = here
        elif self._drag is not None:
            (x1, x2), (y1, y2) = sorted((self._drag[0], here[0])), sorted((self._drag[1], here[1]))
            # It may have been let go of beside the picture, of which nothing is heard until it is over it again.
            is_over = not event.buttons & 1
            if is_over:
                self._drag = None
            # A click without a drag means the whole picture again.
            is_click = is_over and (x2 - x1 < 0.01 or y2 - y1 < 0.01)
            self._query.part = WHOLE if is_click else Part(max(x1, 0), max(y1, 0), min(x2, 1), min(y2, 1))
            self._show_part()
            if is_over:
                await self.ask()

    async def _edged(self) -> None:
        across, down = self._across.value, self._down.value
        self._query.part = Part(across["min"] / 100, down["min"] / 100, across["max"] / 100, down["max"] / 100)
        self._show_part()
        await self.ask()

    def _show_part(self) -> None:
        image, part = self._query.image, self._query.part
        if image is None:
            return
        height, width = image.shape[:2]
        shown = min(1.0, searching.PREVIEW_SIDE / max(width, height))
        x, y = part.left * width * shown, part.top * height * shown
        w, h = (part.right - part.left) * width * shown, (part.bottom - part.top) * height * shown
        box = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"'
        pen = f'fill="none" stroke-width="{max(width, height) * shown / 150:.1f}"'
        self._preview.content = "" if part == WHOLE else f'<rect {box} {pen} stroke="#ffb300"/>'
        self._across.value = {"min": round(part.left * 100), "max": round(part.right * 100)}
        self._down.value = {"min": round(part.top * 100), "max": round(part.bottom * 100)}

    async def _choose_band(self, event: events.ValueChangeEventArguments[Any]) -> None:
        self._query.modality = Modality(event.value)
        self._band_words.text = _band_words(self._guess, self._query.modality)
        await self.ask()

    async def _filtered(self) -> None:
        if self._query.image is not None or self._stop is not None:
            await self.ask()

    def _chosen(self) -> LikenessFilter:
        return LikenessFilter(
            start=self._moment(self._start, "From"),
            end=self._moment(self._end, "Until"),
            camera=None if self._camera.value == ANY else self._camera.value,
            vehicle_class=(self._class.value or "").strip() or None,
            modality=None if self._band.value == ANY else self._band.value,
            visible=self._view.caller.cameras,
        )

    def _moment(self, field: ui.input, name: str) -> datetime | None:
        if not field.value:
            return None
        try:
            return datetime.fromisoformat(field.value).replace(tzinfo=self._view.services.zone)
        except ValueError as error:
            raise QuestionError(f"{name}: {field.value!r} is no date and time") from error

    async def begin(self) -> None:
        """Searches, and leads whoever does not see the best answers to them."""
        self._go_to_results()
        await self.ask()
        # Once more: before there were answers, the page was too short to go all the way.
        self._go_to_results()

    async def ask(self) -> None:
        """Searches, and shows what was found; what is chosen meanwhile is searched next."""
        if self._query.image is None and self._stop is None:
            self._refuse("give a picture first")
            return
        self._show_busy()
        await self._question.ask()

    def _show_busy(self) -> None:
        self._results.clear()
        with self._results:
            ui.spinner(size="lg").classes("self-center").props('aria-label="searching"')
            ui.label(SEARCHING).classes("self-center text-sm")

    async def _search(self) -> None:
        fault, found = "", list[Likeness]()
        try:
            found = await answered(self._answer, self._chosen())
        except StorageError as error:
            fault = _told(self._view, error)
        if self._question.is_outdated:
            return
        self._results.clear()
        with self._results:
            if fault:
                frame.failed(fault)
            elif not found:
                frame.empty("No vehicle that these filters let through has been described yet.", "search_off")
            else:
                self._show(found)

    def _answer(self, chosen: LikenessFilter) -> list[Likeness]:
        query, services, caller = self._query, self._view.services, self._view.caller
        if query.image is not None:
            part = query.part.of(query.image)
            return searching.like_picture(services, caller, part, query.modality, chosen=chosen)
        if self._stop is None:
            return []
        return searching.like_tracklet(services, caller, self._stop.tracklet_id, chosen=chosen)

    def _show(self, found: list[Likeness]) -> None:
        own = self._stop.vehicle_id if self._stop is not None and self._query.image is None else None
        ui.label(f"{len(found)} vehicles, the likest first").classes("text-subtitle2")
        for place, one in enumerate(found, 1):
            show_likeness(self._view, one, place, merge_with=own)


def _edges(name: str) -> ui.range:
    ui.label(name).classes("text-xs").props('aria-hidden="true"')
    return ui.range(min=0, max=100, value={"min": 0, "max": 100}).props(f'aria-label="Edges, {name.lower()}" label')


def _band_words(guess: Modality, chosen: Modality) -> str:
    """What is said of the band that was chosen, where the picture's colours make us guess another."""
    if guess is Modality.VISIBLE:
        if chosen is guess:
            return "It has colours, so visible is chosen."
        return f"It has colours, which {BANDS[chosen]} pictures of this site have not: little may be found."
    if chosen is Modality.VISIBLE:
        return "It has no colours, by which visible pictures are told apart: little may be found."
    return "It has no colours: choose near infrared or thermal, whichever it is."


def _told(view: View, error: StorageError) -> str:
    """Where weights and calibration lie is no matter of viewers."""
    if isinstance(error, PictureSearchError) and not view.caller.may(Role.OPERATOR):
        return "Looks can't be compared here: the site's weights or calibration can't be used."
    return frame.told(view, "/search", error)
