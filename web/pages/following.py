"""Views that stay up to date while they are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nicegui import ui

from storage.errors import StorageError
from web.callers import EndedError
from web.pages.blocking import answered
from web.pages.frame import View, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")


def follow(
    view: View, ask: Callable[[], _T], show: Callable[[_T], None], *, every_s: float
) -> Callable[[], Awaitable[None]]:
    """Asks again and again, and says where that fails that what is shown is not up to date.

    Args:
        view: What is open.
        ask: Run in a thread; by `Services.following`, since whoever looks was noted when they opened the view.
        show: Draws what was found. Nothing that has not changed should be drawn anew: whoever reads by keyboard would
            lose their place.
        every_s: How often.

    Returns:
        Asks at once.
    """
    trouble = ui.label().classes("trouble bad").props('role="status"')

    said = ""

    async def refresh() -> None:
        nonlocal said
        try:
            found = await answered(ask)
        except StorageError as error:
            if str(error) == said:
                return  # it is on the page and in the log: the same every two seconds would bury what else is there
            said = str(error)
            trouble.text = f"Not up to date: {told(view, 'an open view', error)}"
            if isinstance(error, EndedError):
                timer.cancel()
            return
        said = trouble.text = ""
        show(found)

    timer = ui.timer(every_s, refresh, immediate=False)
    return refresh
