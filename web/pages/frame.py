"""What every view stands in: head, navigation, foot; who looks, and what is shown when something can't be answered."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nicegui import app, ui

from storage.accounts import Role
from storage.errors import StorageError
from web.callers import Caller
from web.guard import caller_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from web.services import Services

SOURCE = "https://www.gnu.org/licenses/agpl-3.0.html"
VIEWS = (
    ("Live", "/", "sensors"),
    ("Vehicles", "/vehicles", "directions_car"),
    ("Search", "/search", "image_search"),
    ("Review", "/review", "rule"),
    ("Watch", "/watch", "notifications"),
    ("Health", "/health", "monitor_heart"),
)


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
            _head(title)
            with ui.column().classes("w-full max-w-screen-xl mx-auto p-4") as body:
                try:
                    if not view.caller.may(role):
                        raise StorageError(f"{title} is for {role}s")
                    done = build(view, **parts)
                    if inspect.isawaitable(done):
                        await done
                except StorageError as error:
                    body.clear()
                    ui.label(str(error)).classes("text-negative")
            _foot()

        shown.__name__ = build.__name__
        shown.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [one.replace(annotation=hints.get(one.name, str)) for one in parameters]
        )
        return ui.page(path, title=f"{title} · Vehicle tracker")(shown)

    return decorate


def _head(title: str) -> None:
    ui.dark_mode(None)
    with ui.header().classes("items-center gap-2"), ui.element("nav").classes("flex gap-1"):
        for name, address, icon in VIEWS:
            ui.button(name, icon=icon, on_click=lambda address=address: ui.navigate.to(address)).props("flat dense")
    ui.label(title).classes("text-h6 px-4")


def _foot() -> None:
    with ui.footer().classes("text-xs"):
        ui.link("Source (AGPL-3.0)", SOURCE)
