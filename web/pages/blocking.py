"""Questions of a view, asked beside the loop that all open pages share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from nicegui import run

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def answered(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What that function returns, run in a thread.

    Raises:
        StorageError: The function's; or the program is ending.
    """

    def kept() -> tuple[_T]:
        return (work(*args, **kwargs),)

    # In a tuple, since the library answers None where it is shutting down.
    found = await run.io_bound(kept)
    if found is None:
        raise StorageError("the program is ending")
    return found[0]


class Latest:
    """Answers one question of an open page at a time, and of those put meanwhile only the last.

    Who moves a slider would otherwise have a thread for each of its steps, of those that all pages share.

    Args:
        answer: Asks as things stand when it is called, and shows what came of it unless `is_outdated`.
    """

    def __init__(self, answer: Callable[[], Awaitable[None]]) -> None:
        self._answer = answer
        self._is_answering = False
        self.is_outdated = False

    async def ask(self) -> None:
        """Has it answered: now, or as soon as the question before it is."""
        self.is_outdated = True
        if self._is_answering:
            return
        self._is_answering = True
        try:
            while self.is_outdated:
                self.is_outdated = False
                await self._answer()
        finally:
            self._is_answering = False
