"""Reading a run's tracklets again, in the order in which they ended, and carrying them over into another database.

Rows are carried over as they stand, whatever columns they have; decisions are not: whoever reads again decides anew.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, func, insert, select, tuple_

from storage.blobs import decode_vector, encode_vector
from storage.matcher_state import StoredTracklet
from storage.models import (
    AssignmentRow,
    Base,
    CameraRow,
    CameraWatermarkRow,
    EmbeddingRow,
    SightingRow,
    TrackletRow,
)
from storage.paths import PathPoints, merged
from storage.records import MATCHER, EmbeddingRecord, TrackletRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

_TRACKLET_FIELDS = tuple(field.name for field in fields(TrackletRecord))
_CORNERS = ("x1", "y1", "x2", "y2")
# Rows fetched at a time where there is one small row per tracklet.
_ROWS = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class RecordedTracklet:
    """A tracklet with all that was ever said of it but decisions.

    Attributes:
        stored: As a matcher loads it, undecided.
        path: Where it was; None when no path has come.
        embeddings: All of them, oldest first; `stored` has the newest of each modality.
    """

    stored: StoredTracklet
    path: PathPoints | None
    embeddings: tuple[EmbeddingRecord, ...]

    def described_anew(self, embeddings: Sequence[EmbeddingRecord]) -> RecordedTracklet:
        """The same with other embeddings, oldest first."""
        stored = replace(self.stored, embeddings=_newest_of_each_modality(embeddings))
        return RecordedTracklet(stored, self.path, tuple(embeddings))


@dataclass(frozen=True, slots=True)
class Membership:
    """Whose a tracklet is by now.

    Attributes:
        tracklet_id: The tracklet.
        camera: Its camera.
        vehicle_id: The vehicle.
    """

    tracklet_id: str
    camera: str
    vehicle_id: str


@dataclass(frozen=True, slots=True)
class Pin:
    """A person's word on a tracklet.

    Attributes:
        tracklet_id: The tracklet.
        vehicle_id: The vehicle it belongs to.
        decided_by: The person.
        decided_at: When it was said, by the clock.
    """

    tracklet_id: str
    vehicle_id: str
    decided_by: str
    decided_at: datetime


def count_tracklets(session: Session) -> int:
    """How many there are, of all regions."""
    return session.execute(select(func.count()).select_from(TrackletRow)).scalar_one()


def load_model_ids(session: Session) -> list[str]:
    """The embedders that vectors are of, by name."""
    return list(session.scalars(select(EmbeddingRow.model_id).distinct().order_by(EmbeddingRow.model_id)))


def memberships(session: Session) -> Iterator[Membership]:
    """The tracklets that belong to a vehicle, provisionally too, in the order in which they began."""
    rows = session.execute(
        select(TrackletRow.tracklet_id, TrackletRow.camera, AssignmentRow.vehicle_id)
        .join(AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current)
        .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
        .execution_options(yield_per=_ROWS)
    )
    return (Membership(*row) for row in rows)


def load_pins(session: Session) -> list[Pin]:
    """What people's word still holds, in the order in which the tracklets began."""
    rows = session.execute(
        select(AssignmentRow.tracklet_id, AssignmentRow.vehicle_id, AssignmentRow.decided_by, AssignmentRow.decided_at)
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .where(AssignmentRow.is_current, AssignmentRow.decided_by != MATCHER)
        .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
    )
    return [Pin(*row) for row in rows]


def recorded_tracklets(session: Session, region: str, *, page: int) -> Iterator[list[RecordedTracklet]]:
    """The region's tracklets in the order in which they ended, so many at a time.

    Three SQL statements a page; no more than a page is held.

    Args:
        session: Of `Database.snapshot`, or pages may not fit together.
        region: Whose tracklets.
        page: Tracklets at a time.
    """
    place = tuple_(TrackletRow.ended_at, TrackletRow.tracklet_id)
    wanted = select(TrackletRow).where(TrackletRow.region == region).order_by(*place).limit(page)
    rows = session.scalars(wanted).all()
    while rows:
        yield _recorded(session, rows)
        last = tuple_(rows[-1].ended_at, rows[-1].tracklet_id)
        session.expunge_all()
        rows = session.scalars(wanted.where(place > last)).all()


def carry_over_site(source: Session, target: Session) -> None:
    """Copies the cameras, and how far their sessions have come."""
    for model in (CameraRow, CameraWatermarkRow):
        _add(target, model, source.execute(select(_table(model))).all())


def carry_over(source: Session, target: Session, tracklets: Sequence[RecordedTracklet]) -> None:
    """Copies tracklets and their sightings, and gives them the embeddings that they have here.

    Args:
        source: Where they were read.
        target: Where none of them is yet.
        tracklets: Perhaps described anew since they were read.
    """
    ids = [tracklet.stored.tracklet.tracklet_id for tracklet in tracklets]
    for model, order in ((TrackletRow, "tracklet_id"), (SightingRow, "sighting_id")):
        table = _table(model)
        # There, nothing is decided yet.
        columns = [column for column in table.columns if column.name != "is_decided"]
        _add(target, model, source.execute(select(*columns).where(table.c.tracklet_id.in_(ids)).order_by(order)).all())
    embeddings = [_embedding_values(embedding) for tracklet in tracklets for embedding in tracklet.embeddings]
    if embeddings:
        target.execute(insert(_table(EmbeddingRow)), embeddings)


def _recorded(session: Session, rows: Sequence[TrackletRow]) -> list[RecordedTracklet]:
    ids = [row.tracklet_id for row in rows]
    paths: dict[str, list[bytes]] = defaultdict(list)
    for tracklet_id, blob in session.execute(
        select(SightingRow.tracklet_id, SightingRow.path)
        .where(SightingRow.tracklet_id.in_(ids), SightingRow.path.is_not(None))
        .order_by(SightingRow.tracklet_id, SightingRow.sequence)
    ):
        paths[tracklet_id].append(blob)  # type: ignore[arg-type]  # NULL is left out, which mypy can't see
    embeddings: dict[str, list[EmbeddingRecord]] = defaultdict(list)
    table = _table(EmbeddingRow)
    found = select(table).where(table.c.tracklet_id.in_(ids)).order_by(table.c.embedding_id)
    for row in session.execute(found).mappings():
        embeddings[row["tracklet_id"]].append(_embedding(dict(row)))
    return [
        RecordedTracklet(
            StoredTracklet(
                TrackletRecord(**{name: getattr(row, name) for name in _TRACKLET_FIELDS}),
                row.last_sequence,
                _newest_of_each_modality(embeddings[row.tracklet_id]),
                None,
            ),
            merged(paths[row.tracklet_id]) if row.tracklet_id in paths else None,
            tuple(embeddings[row.tracklet_id]),
        )
        for row in rows
    ]


def _newest_of_each_modality(embeddings: Iterable[EmbeddingRecord]) -> tuple[EmbeddingRecord, ...]:
    """The last of each, in the order of the modalities' names: what a matcher compares."""
    newest = {embedding.modality: embedding for embedding in embeddings}
    return tuple(newest[modality] for modality in sorted(newest))


def _embedding(values: dict[str, Any]) -> EmbeddingRecord:
    del values["embedding_id"]
    box = tuple(values.pop(corner) for corner in _CORNERS)
    return EmbeddingRecord(**values | {"vector": decode_vector(values["vector"]), "box": box})


def _embedding_values(embedding: EmbeddingRecord) -> dict[str, Any]:
    values = {field.name: getattr(embedding, field.name) for field in fields(embedding)}
    corners = dict(zip(_CORNERS, values.pop("box"), strict=True))
    return values | corners | {"vector": encode_vector(embedding.vector)}


def _add(target: Session, model: type[Base], rows: Sequence[Row[Any]]) -> None:
    if rows:
        target.execute(insert(_table(model)), [dict(row._mapping) for row in rows])


def _table(model: type[Base]) -> Table:
    return cast("Table", model.__table__)
