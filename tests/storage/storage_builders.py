"""Small records with sensible contents, and what tests measure with."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import event

from storage.records import AssignmentRecord, EmbeddingRecord, PathSegment, TrackletRecord
from storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.orm import Session

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
FRAMES_PER_SECOND = 10


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def tracklet(
    camera: str = "gate",
    number: int = 1,
    *,
    session: str = "s1",
    start: float = 0.0,
    end: float = 1.0,
    vehicle_class: str = "car",
    region: str = "main",
    **changes: Any,  # noqa: ANN401 - any further field
) -> TrackletRecord:
    return TrackletRecord(
        tracklet_id=f"{camera}/{session}/{number}",
        region=region,
        camera=camera,
        session=session,
        number=number,
        vehicle_class=vehicle_class,
        class_votes={vehicle_class: 1.0},
        started_at=after(start),
        ended_at=after(end),
        **changes,
    )


def path(of: TrackletRecord, sequence: int = 0, *, frames: Sequence[int] = (), shift: float = 0.0) -> PathSegment:
    """A path whose frames are `FRAMES_PER_SECOND` since `START`."""
    numbers = np.asarray(frames, np.int64)
    corners = np.stack([numbers + shift, numbers, numbers + shift + 20.5, numbers + 10.25], axis=1)  # (N, 4)
    return PathSegment(
        sighting_id=f"{of.tracklet_id}/{sequence}",
        tracklet_id=of.tracklet_id,
        sequence=sequence,
        frames=numbers,
        times=START.timestamp() + numbers / FRAMES_PER_SECOND,
        boxes=corners.astype(np.float32),
    )


def embedding(
    of: TrackletRecord,
    sequence: int = 0,
    *,
    modality: str = "visible",
    quality: float = 0.5,
    at: float = 0.0,
    crop_image: str | None = None,
    direction: int = 0,
) -> EmbeddingRecord:
    vector = np.zeros(8, np.float32)
    vector[direction] = 1.0
    return EmbeddingRecord(
        sighting_id=f"{of.tracklet_id}/{sequence}",
        tracklet_id=of.tracklet_id,
        modality=modality,
        model_id="test",
        vector=vector,
        quality=quality,
        captured_at=after(at),
        box=(1.0, 2.0, 3.5, 4.25),
        crop_image=crop_image,
        tokens=b"tokens",
    )


def assignment(
    tracklet_id: str,
    vehicle_id: str,
    *,
    is_provisional: bool = False,
    reason: str = "appearance",
    score: float | None = None,
) -> AssignmentRecord:
    return AssignmentRecord(
        tracklet_id=tracklet_id,
        vehicle_id=vehicle_id,
        reason=reason,
        is_provisional=is_provisional,
        score=score,
        margin=None,
        modality_pair=None,
        transit_s=None,
        model_id="test",
        decided_at=START,
        evidence={"candidates": 3, "nested": {"shares": [0.5, 0.5]}},
    )


def store(session: Session, of: TrackletRecord, vehicle_id: str | None = None, *, frames: Sequence[int] = ()) -> None:
    """A tracklet with one sighting and one embedding, given to a vehicle if there is one."""
    writer = Writer(session)
    image = f"{of.tracklet_id}.jpg"
    seconds = (of.started_at - START).total_seconds()
    writer.store_sighting(of, path(of, frames=frames), [embedding(of, crop_image=image, at=seconds)])
    if vehicle_id is not None:
        writer.assign(assignment(of.tracklet_id, vehicle_id))


@dataclass
class Statements:
    """What `counted` has seen so far."""

    count: int = 0


@contextmanager
def counted(session: Session) -> Iterator[Statements]:
    """Counts the SQL statements of the session's database."""
    statements = Statements()

    def seen(*_arguments: object) -> None:
        statements.count += 1

    engine = session.connection().engine
    event.listen(engine, "before_cursor_execute", seen)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", seen)
