"""Legal holds: tracklets that neither age nor anybody's wish removes, until somebody lets go of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from storage import statements
from storage.errors import StorageError, VehicleNotFoundError
from storage.lookup import find_tracklet, find_vehicle
from storage.models import AssignmentRow, HoldRow, TrackletRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Hold:
    """A tracklet that is kept.

    Attributes:
        tracklet_id: The tracklet.
        vehicle_id: Whose it is by now; None where that isn't decided.
        held_by: Who keeps it.
        held_at: Since when.
        note: Why.
    """

    tracklet_id: str
    vehicle_id: str | None
    held_by: str
    held_at: datetime
    note: str


def named(session: Session, what: str) -> list[str]:
    """The tracklets meant by an id: that tracklet's (it has a `/` in it), or all that a vehicle has by now.

    Raises:
        TrackletNotFoundError: No such tracklet, or several.
        VehicleNotFoundError: No such vehicle, or several.
    """
    if "/" in what:
        return [find_tracklet(session, what).tracklet_id]
    vehicle_id = find_vehicle(session, what).vehicle_id
    own = select(AssignmentRow.tracklet_id).where(AssignmentRow.vehicle_id == vehicle_id, AssignmentRow.is_current)
    return list(session.scalars(own.order_by(AssignmentRow.tracklet_id)))


def hold(session: Session, what: str, *, by: str, at: datetime, note: str = "") -> list[str]:
    """Keeps a tracklet, or all tracklets that a vehicle has by now; later ones of it are not held.

    Blocks until no decision and no removal is under way.

    Returns:
        The tracklets that were not held before.

    Raises:
        StorageError: No such tracklet or vehicle, or one that has no tracklet any more.
    """
    statements.hold_decisions(session)
    tracklets = named(session, what)
    if not tracklets:
        raise VehicleNotFoundError(f"vehicle {what}: its tracklets have been given to other vehicles: hold those")
    held = set(session.scalars(select(HoldRow.tracklet_id).where(HoldRow.tracklet_id.in_(tracklets))))
    new = [tracklet_id for tracklet_id in tracklets if tracklet_id not in held]
    rows = [{"tracklet_id": name, "held_by": by, "held_at": at, "note": note} for name in new]
    if rows:
        session.execute(insert(HoldRow), rows)
    return new


def release(session: Session, what: str) -> list[str]:
    """Lets go of a tracklet, or of all that a vehicle has by now; what is too old goes with the next retention.

    Returns:
        The tracklets that were held.

    Raises:
        StorageError: No such tracklet or vehicle, or none of it is held.
    """
    tracklets = named(session, what)
    letting_go = delete(HoldRow).where(HoldRow.tracklet_id.in_(tracklets)).returning(HoldRow.tracklet_id)
    released = sorted(session.scalars(letting_go))
    if not released:
        raise StorageError(f"release: nothing of {what} is held")
    return released


def holds(session: Session, *, vehicle_id: str | None = None) -> list[Hold]:
    """What is held, of that vehicle or of all, latest first."""
    own = [] if vehicle_id is None else [AssignmentRow.vehicle_id == vehicle_id]
    rows = session.execute(
        select(HoldRow.tracklet_id, AssignmentRow.vehicle_id, HoldRow.held_by, HoldRow.held_at, HoldRow.note)
        .join(TrackletRow, TrackletRow.tracklet_id == HoldRow.tracklet_id)
        .outerjoin(AssignmentRow, (AssignmentRow.tracklet_id == HoldRow.tracklet_id) & AssignmentRow.is_current)
        .where(*own)
        .order_by(HoldRow.held_at.desc(), HoldRow.tracklet_id)
    )
    return [Hold(*row) for row in rows]
