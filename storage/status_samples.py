"""How cameras and stages were doing, minute by minute, over the last days."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, or_, select, tuple_

from storage.models import StatusSampleRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy.orm import Session

    from storage.records import CameraStatus, StageStatus

CAMERA, STAGE = "camera", "stage"
#: How long samples are kept.
KEPT = timedelta(hours=48)
#: What of a camera's row is a figure that people look back at.
_FIGURES = (
    "fps",
    "decoded",
    "detected",
    "gated",
    "dropped",
    "reconnects",
    "decode_errors",
    "packets_lost",
    "tracklets",
    "stalled_s",
    "skew_s",
)


@dataclass(frozen=True, slots=True)
class StatusSample:
    """One minute of a camera or a stage.

    Attributes:
        kind: `camera` or `stage`.
        source: The camera's id, or the stage's name.
        at: When, by the clock.
        counters: By name; counts are since the program that wrote them started.
    """

    kind: str
    source: str
    at: datetime
    counters: dict[str, float]


def store_samples(
    session: Session, cameras: Iterable[CameraStatus], stages: Iterable[StageStatus], at: datetime
) -> None:
    """Adds a sample of each, and removes those older than `KEPT`; three SQL statements.

    Args:
        session: Of `Database.transaction`.
        cameras: As they are written over their rows.
        stages: Likewise.
        at: The clock. What was stored for the same moment stays as it is.
    """
    rows = [_row(CAMERA, one.camera, at, {name: asdict(one)[name] for name in _FIGURES}) for one in cameras]
    rows += [_row(STAGE, one.stage, at, one.counters) for one in stages]
    known = session.execute(select(StatusSampleRow.kind, StatusSampleRow.source).where(StatusSampleRow.at == at))
    there = {(kind, source) for kind, source in known}
    new = [row for row in rows if (row["kind"], row["source"]) not in there]
    if new:
        session.execute(insert(StatusSampleRow), new)
    session.execute(delete(StatusSampleRow).where(StatusSampleRow.at < at - KEPT))


def load_samples(
    session: Session,
    since: datetime,
    *,
    behind: tuple[datetime, str, str] | None = None,
    limit: int | None = None,
    visible: Collection[str] | None = None,
) -> list[StatusSample]:
    """Samples from that moment on, by time, kind and source.

    Args:
        session: To read from.
        since: The earliest wanted.
        behind: Only what comes after the sample of this time, kind and source.
        limit: At most so many; None: all.
        visible: The only cameras that there are for whoever asks; None: all. Stages are everybody's.
    """
    row = StatusSampleRow
    wanted = select(row.kind, row.source, row.at, row.counters).where(row.at >= since)
    if visible is not None:
        wanted = wanted.where(or_(row.kind == STAGE, row.source.in_(visible)))
    if behind is not None:
        wanted = wanted.where(tuple_(row.at, row.kind, row.source) > behind)
    rows = session.execute(wanted.order_by(row.at, row.kind, row.source).limit(limit))
    return [StatusSample(*found) for found in rows]


def _row(kind: str, source: str, at: datetime, counters: dict[str, float]) -> dict[str, object]:
    return {"kind": kind, "source": source, "at": at, "counters": counters}
