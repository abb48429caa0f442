"""Whom a watch is for by now: it follows its vehicle through corrections.

As long as a tracklet is the vehicle's that was named, it is the one. Once all have been given to others, the watch
goes with them: to the vehicle that now has the one seen last of those that left it in the end. Where the tracklets come
back, as by an undo, so does the watch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, select
from sqlalchemy.orm import aliased

from storage.models import AssignmentRow, TrackletRow, WatchRow

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session


def find_watches(session: Session, *wanted: ColumnElement[bool]) -> list[Row[*tuple[Any, ...]]]:
    """The rows of the watches that meet all the conditions, the oldest first; one SQL statement."""
    # Of the table, not of its class: what was loaded as an object before would come back as it was then.
    table = cast("Table", WatchRow.__table__)
    return list(session.execute(select(table).where(*wanted).order_by(table.c.watch_id)))


def going_on(session: Session) -> list[Row[*tuple[Any, ...]]]:
    """The rows of the watches that have not ended."""
    return find_watches(session, WatchRow.ended_at.is_(None))


def heirs(session: Session, watches: Collection[Row[*tuple[Any, ...]]]) -> dict[int, str]:
    """Of each watch, by its number, the vehicle by now; two SQL statements.

    Args:
        session: To read from.
        watches: Their rows, or any that have `watch_id` and `vehicle_id`.
    """
    vehicles = sorted({found.vehicle_id for found in watches})
    is_own = AssignmentRow.is_current & AssignmentRow.vehicle_id.in_(vehicles)
    lives = set(session.scalars(select(AssignmentRow.vehicle_id).where(is_own).distinct()))
    gone_to = inheritances(session, [vehicle for vehicle in vehicles if vehicle not in lives])
    return {found.watch_id: gone_to.get(found.vehicle_id, found.vehicle_id) for found in watches}


def inheritances(session: Session, empty: Collection[str], *, visible: Collection[str] | None = None) -> dict[str, str]:
    """Who has now what these vehicles, which have no tracklet any more, had in the end; as those cameras saw it."""
    seen = [] if visible is None else [TrackletRow.camera.in_(visible)]
    before, left, now = AssignmentRow, aliased(AssignmentRow), aliased(AssignmentRow)
    rows = session.execute(
        select(
            before.vehicle_id,
            left.assignment_id,
            left.correction_id,
            TrackletRow.started_at,
            TrackletRow.tracklet_id,
            now.vehicle_id.label("heir"),
        )
        .join(left, left.supersedes == before.assignment_id)
        .join(now, (now.tracklet_id == before.tracklet_id) & now.is_current)
        .join(TrackletRow, TrackletRow.tracklet_id == before.tracklet_id)
        .where(before.vehicle_id.in_(empty), left.vehicle_id != before.vehicle_id, *seen)
    ).all()
    gone_to = {}
    for vehicle in empty:
        own = [row for row in rows if row.vehicle_id == vehicle]
        if own:
            last = max(own, key=lambda row: row.assignment_id)
            in_the_end = [row for row in own if row.correction_id == last.correction_id is not None] or [last]
            gone_to[vehicle] = max(in_the_end, key=lambda row: (row.started_at, row.tracklet_id)).heir
    return gone_to
