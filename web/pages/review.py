"""Review: what the matcher is not sure of, to be confirmed or corrected with one key; and who did what."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal

from nicegui import events, ui

from storage.accounts import Role
from storage.errors import StorageError
from storage.records import MATCHER
from web import addresses, reviewing
from web.pages import frame
from web.pages.blocking import answered
from web.pages.doubt import KEYS, show_doubt
from web.pages.frame import View, page
from web.reviewing import SettledError, Verdict, Work

if TYPE_CHECKING:
    from storage.history import Correction
    from storage.review import DoubtfulLink

_VERDICT_OF_KEY = {"c": Verdict.CONFIRM, "s": Verdict.SPLIT, "m": Verdict.MERGE}
_BUTTONS = {
    Verdict.CONFIRM: ("check", "positive"),
    Verdict.SPLIT: ("call_split", "warning"),
    Verdict.MERGE: ("merge", "primary"),
}
#: The second click of a double click falls on whatever stands there by then: the next link, the next correction.
_FIRST_CLICK = "(event) => { if (event.detail < 2) emit(); }"
_DONE = {
    "confirm": "confirmed",
    "split": "split",
    "merge": "merged",
    "move": "moved",
    "undo": "taken back",
}


@page("/review", "Review")
async def review(view: View) -> None:
    """The most doubtful link first; the latest correction first."""
    bench = _Bench(view, await answered(reviewing.work, view.services, view.caller))
    with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-[minmax(0,1fr)_20rem] gap-6 w-full items-start"):
        bench.build_link()
        bench.build_book()
    # Keys work after a button was clicked, too, but not while somebody writes.
    ui.keyboard(on_key=bench.key, repeating=False, ignore=["input", "select", "textarea"])


class _Bench:
    """One open page of the review."""

    def __init__(self, view: View, work: Work) -> None:
        self._view = view
        self._may_decide = view.caller.may(Role.OPERATOR)
        self._links = deque(work.links)
        self._corrections = work.corrections
        # Buttons are gone by the time their deed is done: what is said of it is said to the page.
        self._page = ui.context.client
        # What was decided here, and not to be shown again before the database says so.
        self._deciding: set[tuple[str, str]] = set()
        self._notes: dict[tuple[str, str], str] = {}
        self._turns = asyncio.Lock()
        self._key_before = ""

    def build_link(self) -> None:
        """Where the pair is shown, and decided on."""
        with ui.column().classes("w-full gap-3"):
            self._place = ui.column().classes("w-full gap-3").props('aria-live="polite"')
            if self._may_decide:
                self._note = ui.input("Note, kept with the decision", on_change=self._noted).classes("w-full")
                self._note.props("maxlength=500")
            keys = [words for words, decides in KEYS if self._may_decide or not decides]
            ui.label(f"Keys: {' · '.join(keys)}").classes("text-xs max-[699px]:hidden")
        self._show_link()

    def build_book(self) -> None:
        """Where it is told who did what."""
        with ui.column().classes("w-full gap-2 min-w-0").props('role="region" aria-label="Who did what"'):
            ui.label("Who did what").classes("text-h6")
            self._book = ui.column().classes("w-full gap-2")
        self._show_book()

    async def key(self, event: events.KeyEventArguments) -> None:
        """One key, one deed."""
        modifiers = event.modifiers
        if not event.action.keydown or modifiers.ctrl or modifiers.alt or modifiers.meta or self._is_covered():
            return
        name, before = str(event.key), self._key_before
        self._key_before = name
        if before == "g":
            # The page's own keys for its views: "g s" leads to the search, and splits nothing.
            return
        if name in ("n", "ArrowRight"):
            self._turn(-1)
        elif name in ("p", "ArrowLeft"):
            self._turn(1)
        elif self._may_decide and name == "u":
            await self._undo_last()
        elif self._may_decide and name in _VERDICT_OF_KEY:
            await self._decide(_VERDICT_OF_KEY[name])

    def _is_covered(self) -> bool:
        """Whether a dialogue is open, such as the list of keys: nobody decides on what lies behind it."""
        return any(isinstance(one, ui.dialog) and one.value for one in self._page.elements.values())

    def _noted(self) -> None:
        """A note belongs to the link that was shown when it was written."""
        if self._links:
            self._notes[_pair(self._links[0])] = self._note.value or ""

    def _turn(self, by: int) -> None:
        self._links.rotate(by)
        self._show_link()

    async def _decide(self, verdict: Verdict) -> None:
        if not self._links:
            return
        link = self._links[0]
        if verdict not in reviewing.verdicts(link):
            self._tell(f"This is a {link.kind}: {_wanted(link)}")
            return
        note = self._notes.pop(_pair(link), "")
        self._links.popleft()
        self._deciding.add(_pair(link))
        # The next one is shown before this one is stored: whoever decides quickly waits for nothing.
        self._show_link()
        view = self._view
        async with self._turns:
            try:
                done = await answered(reviewing.decide, view.services, view.caller, link, verdict, note=note.strip())
                said = f"{_DONE[done.kind].capitalize()}: correction {done.correction_id}. u takes it back."
                self._tell(said, "positive")
            except SettledError as error:
                self._tell(str(error))
            except StorageError as error:
                # To the end: another link is being looked at by now.
                self._links.append(link)
                self._notes[_pair(link)] = note
                self._tell(f"{error}. The link comes again.", "negative")
            finally:
                self._deciding.discard(_pair(link))
            await self._reload()

    async def _undo_last(self) -> None:
        # In its turn: what is being decided at this moment is the last that was decided.
        async with self._turns:
            last = reviewing.last_of(self._corrections, self._view.caller.person)
            if last is None:
                self._tell("You have decided nothing here that could be taken back.")
            else:
                await self._undo(last)

    async def _undo(self, correction: Correction) -> None:
        view = self._view
        try:
            await answered(reviewing.take_back, view.services, view.caller, correction.correction_id)
            self._tell(f"Correction {correction.correction_id} is taken back.", "positive")
        except StorageError as error:
            self._tell(str(error), "negative")
        await self._reload()

    async def _reload(self) -> None:
        """Reads both lists again; what is on the screen stays there if it is still doubtful."""
        try:
            work = await answered(reviewing.work, self._view.services, self._view.caller)
        except StorageError as error:
            self._tell(frame.told(self._view, "/review", error), "negative")
            return
        shown = _pair(self._links[0]) if self._links else None
        links = deque(link for link in work.links if _pair(link) not in self._deciding)
        place = next((index for index, link in enumerate(links) if _pair(link) == shown), 0)
        links.rotate(-place)
        is_same = bool(links) and bool(self._links) and links[0] == self._links[0]
        self._links, self._corrections = links, work.corrections
        if is_same:
            self._more.text = self._rest()
        else:
            self._show_link()
        self._show_book()

    def _show_link(self) -> None:
        if self._may_decide:
            self._note.value = self._notes.get(_pair(self._links[0]), "") if self._links else ""
        self._place.clear()
        with self._place:
            if not self._links:
                frame.empty("Nothing is in doubt: the matcher is sure of all that nobody has decided.", "task_alt")
                ui.button("Look again", icon="refresh", on_click=self._reload).props("flat no-caps")
                return
            link = self._links[0]
            show_doubt(self._view, link)
            with ui.row().classes("w-full gap-2 items-center"):
                if self._may_decide:
                    for verdict in reviewing.verdicts(link):
                        self._verdict_button(link, verdict)
                ui.button("Next (n)", icon="navigate_next", on_click=lambda: self._turn(-1)).props("flat no-caps")
                if self._may_decide:
                    undo = ui.button("Undo my last (u)", icon="undo").props("flat no-caps")
                    undo.on("click", self._undo_last, js_handler=_FIRST_CLICK)
            self._more = ui.label(self._rest()).classes("text-sm")

    def _rest(self) -> str:
        more = len(self._links) - 1
        return "the last one" if more == 0 else f"{more} more after this one"

    def _verdict_button(self, link: DoubtfulLink, verdict: Verdict) -> None:
        icon, colour = _BUTTONS[verdict]
        button = ui.button(_words(link, verdict), icon=icon, color=colour).props("no-caps")
        button.on("click", lambda: self._decide(verdict), js_handler=_FIRST_CLICK)

    def _show_book(self) -> None:
        self._book.clear()
        with self._book:
            if not self._corrections:
                ui.label("Nobody has corrected anything yet.").classes("text-sm")
            for correction in self._corrections:
                self._show_correction(correction)

    def _show_correction(self, correction: Correction) -> None:
        moved = correction.moved
        with ui.card().classes("w-full p-2 gap-1").props("flat bordered"):
            who = "the matcher" if correction.made_by == MATCHER else correction.made_by
            what = correction.kind if correction.undoes is None else f"undo of {correction.undoes}"
            ui.label(f"{correction.correction_id} · {what} by {who}").classes("text-subtitle2 break-words w-full")
            ui.label(self._view.time(correction.made_at, "%Y-%m-%d %H:%M:%S")).classes("text-xs")
            if correction.note:
                ui.label(f"“{correction.note}”").classes("text-sm break-words w-full")
            count = len(moved) or len(correction.changes)
            deed = "moved" if moved else "kept where they were"
            with ui.row().classes("gap-2 items-center w-full"):
                ui.label(f"{count} {'stop' if count == 1 else 'stops'} {deed}").classes("text-xs")
                if correction.changes:
                    vehicle = (moved or correction.changes)[0].after
                    ui.link(vehicle[:8], addresses.vehicle(vehicle)).classes("text-xs")
                ui.space()
                if correction.undone_by is not None:
                    ui.label(f"taken back by {correction.undone_by}").classes("text-xs")
                elif self._may_decide:
                    undo = ui.button("Undo", icon="undo").props(
                        f'flat dense no-caps size="sm" aria-label="Undo correction {correction.correction_id}"'
                    )
                    undo.on("click", lambda: self._undo(correction), js_handler=_FIRST_CLICK)

    def _tell(self, text: str, kind: Literal["positive", "negative"] | None = None) -> None:
        with self._page:
            # Beside the buttons, which the next key or click is for.
            ui.notify(text, type=kind, position="bottom-right", close_button=kind == "negative")


def _pair(link: DoubtfulLink) -> tuple[str, str]:
    return link.tracklet_id, link.other_tracklet_id


def _words(link: DoubtfulLink, verdict: Verdict) -> str:
    if verdict is Verdict.CONFIRM:
        return "Same vehicle: confirm (c)" if link.kind == "link" else "Two vehicles: keep apart (c)"
    return "Two vehicles: split (s)" if verdict is Verdict.SPLIT else "Same vehicle: merge (m)"


def _wanted(link: DoubtfulLink) -> str:
    if link.kind == "link":
        return "the two are one already; c confirms it, s splits them"
    return "the two are apart already; c keeps them so, m merges them"
