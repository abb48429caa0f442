"""What every view stands in: head, navigation, foot; who looks, and what is shown when something can't be answered."""

from __future__ import annotations

import inspect
import logging
import typing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nicegui import app, ui

from storage.accounts import Role
from storage.errors import NewerSchemaError, StorageError, TransientStorageError
from web.callers import Caller
from web.guard import caller_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from web.services import Services

#: Where the program's source is had, and under which terms: whoever is served may ask for it.
SOURCE = "https://www.gnu.org/licenses/agpl-3.0.html"
VIEWS = (
    ("Live", "/", "sensors", "l"),
    ("Vehicles", "/vehicles", "directions_car", "v"),
    ("Search", "/search", "image_search", "s"),
    ("Review", "/review", "rule", "r"),
    ("Watch", "/watch", "notifications", "w"),
    ("Health", "/health", "monitor_heart", "h"),
)
#: How long a view may wait for its answer; the library's 3 s would end it while the database is busy for a moment.
PATIENCE_S = 90.0
_STATIC = Path(__file__).resolve().parent.parent / "static"
#: Light or dark is the browser's own matter: it is kept there, and set before anything is painted.
_DARK_KEY = "vehicle-tracker-dark"
_READ_DARK = f"localStorage.getItem({_DARK_KEY!r})"
_IS_DARK = "document.body.classList.contains('body--dark')"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class View:
    """What a view is built with.

    Attributes:
        services: The site, its database and pictures.
        caller: Who looks.
    """

    services: Services
    caller: Caller

    def time(self, moment: datetime, pattern: str = "%H:%M:%S") -> str:
        """A moment as people here read it."""
        return moment.astimezone(self.services.zone).strftime(pattern)


def page(path: str, title: str, *, role: Role = Role.VIEWER) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function a view: `async def build(view: View, ...)`, the rest from path and query.

    Args:
        path: Below the root, as NiceGUI's `ui.page` takes it.
        title: Of the browser's tab and of the view.
        role: Who may look.
    """

    def decorate(build: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(build, localns={"View": View})
        parameters = list(inspect.signature(build).parameters.values())[1:]

        async def shown(**parts: Any) -> None:  # noqa: ANN401 - whatever the path and the query say
            caller = caller_of(ui.context.client.request)
            if caller is None:
                ui.navigate.to("/login")
                return
            view = View(app.state.services, caller)
            _head(view, path)
            with ui.element("main").props("id=main tabindex=-1").classes("page-body flex flex-col") as body:
                ui.label(title).props('role="heading" aria-level="1"').classes("page-title")
                try:
                    if not caller.may(role):
                        failed(f"{title} is for people with the role {role}; {caller.person} is a {caller.role}.")
                    else:
                        done = build(view, **parts)
                        if inspect.isawaitable(done):
                            await done
                except StorageError as error:
                    is_passing = isinstance(error, TransientStorageError)
                    _failed_view(body, title, told(view, path, error), is_passing=is_passing)
                except Exception:  # noqa: BLE001 - whatever fails, see below
                    # Whoever looks has a page with a way out of it, and the log has the rest.
                    _log.exception("a view failed: %s", path)
                    _failed_view(body, title, "This could not be shown. The program's log says why.", is_passing=True)
            _foot(view)

        shown.__name__ = build.__name__
        shown.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(annotation=hints.get(one.name, str)) for one in parameters]
        )
        return ui.page(path, title=f"{title} · Vehicle tracker", response_timeout=PATIENCE_S)(shown)

    return decorate


def empty(text: str, icon: str = "inbox") -> None:
    """Says that there is nothing to show, and what could be done about it.

    Args:
        text: In a sentence.
        icon: A Material icon's name.
    """
    with ui.element("div").classes("state").props('role="status"'):
        ui.icon(icon, size="2.5rem").props('aria-hidden="true"')
        ui.label(text)


def failed(text: str) -> None:
    """Says that something can't be shown, and why."""
    with ui.element("div").classes("state").props('role="alert"'):
        ui.icon("error_outline", size="2.5rem").classes("bad").props('aria-hidden="true"')
        ui.label(text)


def told(view: View, path: str, error: StorageError) -> str:
    """What is said of a question that failed: where a database or a file lies is no matter of viewers."""
    is_of_storage = type(error) is StorageError or isinstance(error, TransientStorageError | NewerSchemaError)
    if not is_of_storage:
        return str(error)
    _log.warning("a view was not answered: %s: %s", path, error)
    return str(error) if view.caller.may(Role.OPERATOR) else "The database does not answer at the moment."


def thumbnail(view: View, relative: str, *, alt: str, size: int) -> ui.element:
    """A crop or a context picture, whole, in a square.

    Args:
        view: Where it is shown.
        relative: Its path below the crop store.
        alt: What it shows, for whoever doesn't see it.
        size: Of the square's side, pixels.
    """
    picture = ui.element("img").classes("thumbnail").style(f"width: {size}px; height: {size}px")
    # Set as values, not as text that would be taken apart: the description names what the database holds.
    picture.props["src"] = view.services.links.picture(relative)
    picture.props["alt"] = alt
    picture.props["loading"] = "lazy"
    return picture


def _failed_view(body: ui.element, title: str, reason: str, *, is_passing: bool) -> None:
    body.clear()
    with body:
        ui.label(title).props('role="heading" aria-level="1"').classes("page-title")
        failed(reason)
        if is_passing:
            ui.button("Try again", icon="refresh", on_click=ui.navigate.reload).classes("self-center")


def _head(view: View, path: str) -> None:
    ui.add_css(_STATIC / "page.css")
    ui.colors(primary="#1554a8", negative="#b3261e", positive="#1b7f4b", warning="#a15c00")
    dark = ui.dark_mode(value=None)
    with ui.header(elevated=False).classes("page-head items-center justify-between gap-2 no-wrap"):
        ui.link("To the content", "#main").classes("skip-link")
        ui.link("Vehicle tracker", "/").classes("page-name")
        with ui.element("nav").classes("page-nav flex").props('aria-label="Views"'):
            for name, address, icon, _ in VIEWS:
                _nav_link(name, address, icon, is_here=_is_here(path, address))
        with ui.row().classes("items-center gap-1 no-wrap"):
            ui.button(icon="contrast", on_click=lambda: _switch(dark)).props(
                'flat round dense aria-label="Light or dark"'
            ).tooltip("Light or dark")
            help_dialog = _shortcuts()
            ui.button(icon="keyboard", on_click=help_dialog.open).props(
                'flat round dense aria-label="Keyboard shortcuts"'
            ).classes("max-[699px]:hidden")
            _person(view)
    _remember(dark)


def _nav_link(name: str, address: str, icon: str, *, is_here: bool) -> None:
    with ui.link(target=address) as link:
        ui.icon(icon, size="20px").props('aria-hidden="true"')
        ui.label(name)
    if is_here:
        link.props('aria-current="page"')


def _is_here(path: str, address: str) -> bool:
    return path == address or (address != "/" and path.startswith(f"{address}/"))


async def _switch(dark: ui.dark_mode) -> None:
    try:
        # Until somebody chooses, the browser goes by its system, and it alone knows that.
        was_dark = await ui.run_javascript(_IS_DARK, timeout=5.0)
    except TimeoutError:
        return  # the page was left meanwhile
    dark.value = not was_dark
    ui.run_javascript(f"localStorage.setItem({_DARK_KEY!r}, {str(dark.value).lower()!r})")


def _remember(dark: ui.dark_mode) -> None:
    async def recall() -> None:
        try:
            kept = await ui.run_javascript(_READ_DARK, timeout=5.0)
        except TimeoutError:
            return  # the page was left meanwhile
        if kept in ("true", "false"):
            dark.value = kept == "true"

    ui.context.client.on_connect(recall)


def _shortcuts() -> ui.dialog:
    """A view by `g` and its letter, the list of them by `?`."""
    with ui.dialog() as dialog, ui.card():
        ui.label("Keyboard").classes("text-h6")
        for name, _, _, letter in VIEWS:
            ui.label(f"g {letter}: {name}")
        ui.label("?: this list; Tab: from link to link")
        ui.button("Close", on_click=dialog.close).props("flat")
    ways = {letter: address for _, address, _, letter in VIEWS}
    began = {"g": False}

    def pressed(event: Any) -> None:  # noqa: ANN401 - NiceGUI's own
        if not event.action.keydown or event.modifiers.ctrl or event.modifiers.meta or event.modifiers.alt:
            return
        key = str(event.key)
        if began["g"] and key in ways:
            ui.navigate.to(ways[key])
        elif key == "?":
            dialog.open()
        began["g"] = key == "g"

    ui.keyboard(pressed, ignore=["input", "select", "textarea"])
    return dialog


def _person(view: View) -> None:
    if view.caller.token_id is None:
        return
    with ui.element("form").props('method="post" action="/logout"').classes("flex items-center gap-1"):
        ui.label(view.caller.person).classes("text-sm max-[699px]:hidden")
        ui.button(icon="logout").props('flat round dense type="submit" aria-label="Log out"').tooltip("Log out")


def _foot(view: View) -> None:
    with ui.footer(elevated=False, fixed=False).classes("page-foot gap-4 items-center"):
        ui.label(f"Site {view.services.site.site}")
        ui.label(f"Times are {view.services.site.time_zone}")
        ui.link("Source (AGPL-3.0)", SOURCE)
