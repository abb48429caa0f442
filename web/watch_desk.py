"""The list of vehicles that are waited for: what an open page shows of it, and who may put one on and take it off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import watches as book
from storage.accounts import Role
from storage.watches import Watch, WatchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from storage.database import Session
    from storage.watches import Notice
    from web.callers import Caller
    from web.services import Services


#: Returns that are listed.
NOTICES = 100


@dataclass(frozen=True, slots=True)
class Listed:
    """Who is watched, and who returned, newest first.

    Attributes:
        watches: What goes on.
        notices: The latest returns, at most `NOTICES`.
        trouble: Why this program can't look out at the moment; empty where it can.
    """

    watches: Sequence[Watch]
    notices: Sequence[Notice]
    trouble: str


def opened(services: Services, caller: Caller) -> Listed:
    """Both lists, of the caller's cameras alone."""
    with services.asking(caller, "watches") as session:
        return _listed(services, caller, session)


def followed(services: Services, caller: Caller) -> Listed:
    """The same again, for who has them open."""
    with services.following(caller) as session:
        return _listed(services, caller, session)


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


def _listed(services: Services, caller: Caller, session: Session) -> Listed:
    trouble = services.watch.trouble
    if trouble and not caller.may(Role.OPERATOR):
        trouble = "those who run it know more"  # it may name addresses
    visible = caller.cameras
    return Listed(
        book.watches(session, visible=visible), book.notices(session, limit=NOTICES, visible=visible), trouble
    )


def _check_role(caller: Caller) -> None:
    if not caller.may(Role.OPERATOR):
        raise WatchError(f"{caller.person} is a {caller.role}: to watch is left to operators")
