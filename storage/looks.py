"""Where a vehicle was in the picture: when its crops were taken, and frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from storage.errors import TrackletNotFoundError
from storage.models import AssignmentRow, EmbeddingRow, SightingRow, TrackletRow
from storage.paths import PathPoints, merged

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from storage.records import Box


@dataclass(frozen=True, slots=True)
class Look:
    """One crop.

    Attributes:
        captured_at: When its frame was captured.
        quality: 0-1, comparable within one camera.
        box: xyxy in source pixels.
    """

    captured_at: datetime
    quality: float
    box: Box


def looks_of_vehicle(session: Session, vehicle_id: str) -> dict[str, tuple[Look, ...]]:
    """Of each of its tracklets the crops by time, each moment once; one SQL statement.

    Args:
        session: To read from.
        vehicle_id: The whole id.
    """
    row = EmbeddingRow
    rows = session.execute(
        select(row.tracklet_id, row.captured_at, row.quality, row.x1, row.y1, row.x2, row.y2)
        .join(AssignmentRow, AssignmentRow.tracklet_id == row.tracklet_id)
        .where(AssignmentRow.vehicle_id == vehicle_id, AssignmentRow.is_current)
        .order_by(row.tracklet_id, row.captured_at, row.embedding_id)
    )
    found: dict[str, dict[datetime, Look]] = {}
    for tracklet_id, captured_at, quality, *box in rows:
        x1, y1, x2, y2 = box
        found.setdefault(tracklet_id, {}).setdefault(captured_at, Look(captured_at, quality, (x1, y1, x2, y2)))
    return {tracklet_id: tuple(looks.values()) for tracklet_id, looks in found.items()}


@dataclass(frozen=True, slots=True, eq=False)
class PathOfTracklet:
    """A tracklet's boxes.

    Attributes:
        camera: Where.
        session: The connection, or the file, that it was seen in.
        path: Frame by frame; empty where none is stored.
    """

    camera: str
    session: str
    path: PathPoints


def path_of_tracklet(session: Session, tracklet_id: str) -> PathOfTracklet:
    """The boxes of that tracklet, by its whole id; two SQL statements.

    Raises:
        TrackletNotFoundError: There is no such tracklet.
    """
    found = session.execute(
        select(TrackletRow.camera, TrackletRow.session).where(TrackletRow.tracklet_id == tracklet_id)
    ).one_or_none()
    if found is None:
        raise TrackletNotFoundError(f"tracklet {tracklet_id}: not known")
    blobs = session.scalars(
        select(SightingRow.path)
        .where(SightingRow.tracklet_id == tracklet_id, SightingRow.path.is_not(None))
        .order_by(SightingRow.sequence)
    )
    return PathOfTracklet(found.camera, found.session, merged(blob or b"" for blob in blobs))
