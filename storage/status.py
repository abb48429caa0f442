"""Reading what the site says of itself: its cameras, and how they and its stages are doing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from storage.models import CameraRow, CameraStatusRow, StageStatusRow
from storage.records import CameraRecord, CameraStatus, StageStatus

if TYPE_CHECKING:
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


def _rows(session: Session, model: type[Base]) -> list[Any]:
    # These tables have the columns that their records have fields.
    table = model.__table__
    return list(session.execute(select(table).order_by(*table.primary_key)).mappings())
