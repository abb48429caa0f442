"""Who may keep a vehicle from being removed, and let go of it again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from storage import holds as book
from storage.accounts import Role
from storage.errors import StorageError
from storage.holds import Hold

if TYPE_CHECKING:
    from web.callers import Caller
    from web.services import Services


def held(services: Services, caller: Caller, vehicle_id: str) -> list[Hold]:
    """What of a vehicle is held, latest first.

    Raises:
        StorageError: The caller may not know.
    """
    _check_role(caller)
    with services.asking(caller, "holds", vehicle_id) as session:
        return book.holds(session, vehicle_id=vehicle_id)


def hold(services: Services, caller: Caller, vehicle_id: str, *, note: str = "") -> list[str]:
    """Holds the tracklets that a vehicle has by now, as `storage.holds.hold` does.

    Raises:
        StorageError: The caller may not, or there is nothing to hold.
    """
    _check_role(caller)
    with services.deciding(caller, "hold", vehicle_id, note=note) as session:
        return book.hold(session, vehicle_id, by=caller.person, at=datetime.now(UTC), note=note)


def release(services: Services, caller: Caller, vehicle_id: str) -> list[str]:
    """Lets go of what a vehicle has by now.

    Raises:
        StorageError: The caller may not, or nothing of it is held.
    """
    _check_role(caller)
    with services.deciding(caller, "release", vehicle_id) as session:
        return book.release(session, vehicle_id)


def _check_role(caller: Caller) -> None:
    if not caller.may(Role.OPERATOR):
        raise StorageError(f"{caller.person} is a {caller.role}: to hold is left to operators")
