"""Reading what the site says of itself: its cameras, how they and its stages are doing, what they saw last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from storage.models import AssignmentRow, CameraRow, CameraStatusRow, EmbeddingRow, StageStatusRow, TrackletRow
from storage.records import CameraRecord, CameraStatus, StageStatus

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy.orm import Session

    from storage.models import Base


def load_cameras(session: Session) -> list[CameraRecord]:
    """The cameras that were ever registered, by id."""
    return [CameraRecord(**row) for row in _rows(session, CameraRow)]


def load_camera_status(session: Session) -> list[CameraStatus]:
    """How each camera was doing when it last said so, by id."""
    return [CameraStatus(**row) for row in _rows(session, CameraStatusRow)]


def load_stage_status(session: Session) -> list[StageStatus]:
    """The counters of each stage when it last gave them, by name."""
    return [StageStatus(**row) for row in _rows(session, StageStatusRow)]


@dataclass(frozen=True, slots=True)
class LateSighting:
    """A tracklet that began of late.

    Attributes:
        tracklet_id: The tracklet.
        vehicle_id: Its vehicle, as known now; None: none yet.
        vehicle_class: By vote of its frames.
        camera: Where.
        started_at: First frame.
        ended_at: Last frame so far.
        modality: The band of its best crop; None: no crop has come yet.
        crop_image: That crop, below the crop store; None: it was not kept.
    """

    tracklet_id: str
    vehicle_id: str | None
    vehicle_class: str
    camera: str
    started_at: datetime
    ended_at: datetime
    modality: str | None
    crop_image: str | None


def latest_sightings(
    session: Session, *, limit: int = 24, visible: Collection[str] | None = None
) -> list[LateSighting]:
    """The tracklets that began last, the latest first; two SQL statements.

    Args:
        session: To read from.
        limit: At most so many.
        visible: The only cameras that there are for whoever asks; None: all.
    """
    wanted = (
        select(TrackletRow, AssignmentRow.vehicle_id)
        .outerjoin(AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current)
        .order_by(TrackletRow.started_at.desc(), TrackletRow.tracklet_id)
        .limit(limit)
    )
    if visible is not None:
        wanted = wanted.where(TrackletRow.camera.in_(visible))
    rows = session.execute(wanted).all()
    best: dict[str, tuple[str, str | None]] = {}
    looks = session.execute(
        select(EmbeddingRow.tracklet_id, EmbeddingRow.modality, EmbeddingRow.crop_image)
        .where(EmbeddingRow.tracklet_id.in_([tracklet.tracklet_id for tracklet, _ in rows]))
        .order_by(EmbeddingRow.crop_image.is_(None), EmbeddingRow.quality.desc(), EmbeddingRow.embedding_id)
    )
    for tracklet_id, modality, crop_image in looks:
        best.setdefault(tracklet_id, (modality, crop_image))
    return [
        LateSighting(
            tracklet.tracklet_id,
            vehicle_id,
            tracklet.vehicle_class,
            tracklet.camera,
            tracklet.started_at,
            tracklet.ended_at,
            *best.get(tracklet.tracklet_id, (None, None)),
        )
        for tracklet, vehicle_id in rows
    ]


def _rows(session: Session, model: type[Base]) -> list[Any]:
    # These tables have the columns that their records have fields.
    table = model.__table__
    return list(session.execute(select(table).order_by(*table.primary_key)).mappings())
