"""Times in which a camera's picture was not to be trusted: told by the supervisor, asked for beside tracklets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, or_, select, update

from storage.models import AssignmentRow, CameraTroubleRow, TrackletRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import Session


def begin_trouble(session: Session, camera: str, kind: str, began_at: datetime, message: str = "") -> None:
    """Writes that a camera's picture is in trouble from then on. Said again it changes nothing; another's end it is.

    Args:
        session: Of a transaction.
        camera: The camera's id.
        kind: `frozen`, `covered`, `defocused` or `moved`.
        began_at: Event time.
        message: In one line.
    """
    going_on = session.execute(
        select(CameraTroubleRow.kind).where(CameraTroubleRow.camera == camera, CameraTroubleRow.ended_at.is_(None))
    ).scalars()
    if kind in set(going_on):
        return
    end_trouble(session, camera, began_at)
    values = {"camera": camera, "kind": kind, "began_at": began_at, "ended_at": None, "message": message}
    session.execute(insert(CameraTroubleRow).values(values))


def end_trouble(session: Session, camera: str, ended_at: datetime) -> None:
    """Writes that whatever trouble a camera's picture was in is over; nothing where it was in none.

    Args:
        session: Of a transaction.
        camera: The camera's id.
        ended_at: Event time.
    """
    session.execute(
        update(CameraTroubleRow)
        .where(CameraTroubleRow.camera == camera, CameraTroubleRow.ended_at.is_(None))
        .values(ended_at=ended_at),
        execution_options={"synchronize_session": False},
    )


@dataclass(frozen=True, slots=True)
class OpenTrouble:
    """A camera whose picture is not to be trusted now.

    Attributes:
        camera: Which.
        kind: `frozen`, `covered`, `defocused` or `moved`.
        began_at: Event time.
        message: What was seen.
    """

    camera: str
    kind: str
    began_at: datetime
    message: str


def open_troubles(session: Session, *, visible: Collection[str] | None = None) -> list[OpenTrouble]:
    """What goes on now, the longest first.

    Args:
        session: To read from.
        visible: The only cameras that there are for whoever asks; None: all.
    """
    row = CameraTroubleRow
    wanted = select(row.camera, row.kind, row.began_at, row.message).where(row.ended_at.is_(None))
    if visible is not None:
        wanted = wanted.where(row.camera.in_(visible))
    return [OpenTrouble(*found) for found in session.execute(wanted.order_by(row.began_at, row.camera))]


def troubles_of_vehicle(session: Session, vehicle_id: str) -> dict[str, str]:
    """The troubles that a camera was in while it saw a vehicle, by tracklet; none of those that were seen well."""
    is_its_own = (AssignmentRow.vehicle_id == vehicle_id) & AssignmentRow.is_current
    rows = session.execute(
        select(TrackletRow.tracklet_id, CameraTroubleRow.kind)
        .join(AssignmentRow, AssignmentRow.tracklet_id == TrackletRow.tracklet_id)
        .join(CameraTroubleRow, _is_meanwhile())
        .where(is_its_own)
        .order_by(CameraTroubleRow.began_at)
    ).all()
    return _by_tracklet((tracklet_id, kind) for tracklet_id, kind in rows)


def troubles_of_tracklet(session: Session, tracklet_id: str) -> str | None:
    """The troubles that the camera was in while it saw a tracklet, or None."""
    rows = session.execute(
        select(TrackletRow.tracklet_id, CameraTroubleRow.kind)
        .join(CameraTroubleRow, _is_meanwhile())
        .where(TrackletRow.tracklet_id == tracklet_id)
        .order_by(CameraTroubleRow.began_at)
    ).all()
    return _by_tracklet((found, kind) for found, kind in rows).get(tracklet_id)


def _is_meanwhile() -> ColumnElement[bool]:
    has_not_ended = or_(CameraTroubleRow.ended_at.is_(None), CameraTroubleRow.ended_at >= TrackletRow.started_at)
    is_same = CameraTroubleRow.camera == TrackletRow.camera
    return is_same & (CameraTroubleRow.began_at <= TrackletRow.ended_at) & has_not_ended


def _by_tracklet(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    kinds: dict[str, dict[str, None]] = {}
    for tracklet_id, kind in rows:
        kinds.setdefault(tracklet_id, {})[kind] = None
    return {tracklet_id: ", ".join(found) for tracklet_id, found in kinds.items()}
