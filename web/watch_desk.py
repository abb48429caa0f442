"""Who may put a vehicle on the list of those that are waited for, and take it off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import watches as book
from storage.accounts import Role
from storage.watches import Watch, WatchError

if TYPE_CHECKING:
    from datetime import datetime

    from web.callers import Caller
    from web.services import Services


def start(services: Services, caller: Caller, vehicle_id: str, at: datetime, *, note: str = "") -> Watch:
    """Waits for a vehicle from now on, as `storage.watches.watch` does.

    Raises:
        WatchError: The caller may not, or it is watched already.
        VehicleNotFoundError: No such vehicle, or several.
    """
    _check_role(caller)
    with services.deciding(caller, "watch", vehicle_id, note=note) as session:
        return book.watch(session, vehicle_id, by=caller.person, at=at, note=note)


def end(services: Services, caller: Caller, watch_id: int, at: datetime) -> None:
    """Waits no longer.

    Raises:
        WatchError: The caller may not, there is no such watch, or it has ended.
    """
    _check_role(caller)
    with services.deciding(caller, "unwatch", "", watch=watch_id) as session:
        book.unwatch(session, watch_id, by=caller.person, at=at)


def _check_role(caller: Caller) -> None:
    if not caller.may(Role.OPERATOR):
        raise WatchError(f"{caller.person} is a {caller.role}: to watch is left to operators")
