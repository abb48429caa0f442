"""Questions of a view, asked beside the loop that all open pages share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from nicegui import run

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

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
