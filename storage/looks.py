"""When and where the crops of a vehicle were taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from storage.models import AssignmentRow, EmbeddingRow

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
