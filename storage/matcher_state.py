"""What a matcher needs to go on where it, or another, has stopped."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import exists, func, literal_column, or_, select, true, union, union_all
from sqlalchemy.orm import aliased

from storage.blobs import decode_vector
from storage.history import assignment_record
from storage.models import (
    AssignmentRow,
    CameraWatermarkRow,
    CorrectionRow,
    EmbeddingRow,
    LearnedRow,
    SightingRow,
    TrackletRow,
)
from storage.paths import PathPoints, merged
from storage.records import MATCHER, AssignmentRecord, CameraWatermark, EmbeddingRecord, TrackletRecord
from storage.statements import wait_for_decisions

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Select, SelectBase
    from sqlalchemy.orm import Session


# SQLite takes 500 queries in a union.
_MAX_UNION = 400


@dataclass(frozen=True, slots=True, eq=False)
class StoredTracklet:
    """A tracklet with what is known of it.

    Attributes:
        tracklet: As its newest sighting tells it.
        last_sequence: Of that sighting; -1 when it was closed before any came.
        embeddings: The newest of each modality, in the order of the modalities' names: a tracklet's end sums up
            all of its crops.
        assignment: The current decision; None while there is none. A person's, by its `decided_by`, is pinned.
    """

    tracklet: TrackletRecord
    last_sequence: int
    embeddings: tuple[EmbeddingRecord, ...]
    assignment: AssignmentRecord | None


@dataclass(frozen=True, slots=True)
class OperatorDecision:
    """What a person has decided on a tracklet.

    Attributes:
        assignment_id: Its number; later decisions have higher ones.
        tracklet_id: The tracklet.
        vehicle_id: The vehicle it belongs to by now.
        is_pinned: Whether the matcher must leave it there. False after an undo that gave the tracklet back to the
            matcher: it belongs to that vehicle now, and may be moved again.
    """

    assignment_id: int
    tracklet_id: str
    vehicle_id: str
    is_pinned: bool = True


@dataclass(frozen=True, slots=True)
class DecisionEvent:
    """A decision as others are told of it.

    Attributes:
        assignment_id: Its number.
        region: The tracklet's region.
        camera: The tracklet's camera.
        said: What was decided.
        previous_vehicle_id: The vehicle that the tracklet belonged to until then; None at its first.
        correction_id: The correction that it is a part of; None for an ordinary decision.
    """

    assignment_id: int
    region: str
    camera: str
    said: AssignmentRecord
    previous_vehicle_id: str | None
    correction_id: int | None


def load_tracklets(
    session: Session, region: str, *, seen_since: datetime | None = None, newest: int = 0
) -> list[StoredTracklet]:
    """The region's tracklets, earliest first.

    Two SQL statements, or three with `newest`, however many there are; their cost grows with what they give, not with
    what else there is.

    Args:
        session: To read from.
        region: Whose tracklets.
        seen_since: Leaves out those last seen before this whose vehicle has been decided; None takes all.
        newest: So many of each camera's last ones with picture and path are taken all the same.
    """
    chosen = _chosen(session, region, seen_since, newest)
    embeddings = _newest_embeddings(session, chosen)
    rows = session.execute(
        select(TrackletRow, AssignmentRow)
        .outerjoin(AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current)
        .where(TrackletRow.tracklet_id.in_(chosen))
        .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
    )
    return [
        StoredTracklet(
            _tracklet(tracklet),
            tracklet.last_sequence,
            tuple(embeddings.get(tracklet.tracklet_id, ())),
            assignment_record(assignment) if assignment is not None else None,
        )
        for tracklet, assignment in rows
    ]


def load_paths(
    session: Session, region: str, *, seen_since: datetime | None = None, newest: int = 0
) -> dict[str, PathPoints]:
    """Where those tracklets were that `load_tracklets` gives, by id; none of those that no path has come of.

    One SQL statement, or two with `newest`, however many there are.

    Args:
        session: To read from.
        region: Whose tracklets.
        seen_since: As for `load_tracklets`.
        newest: Likewise.
    """
    rows = session.execute(
        select(SightingRow.tracklet_id, SightingRow.path)
        .where(SightingRow.tracklet_id.in_(_chosen(session, region, seen_since, newest)), SightingRow.path.is_not(None))
        .order_by(SightingRow.tracklet_id, SightingRow.sequence)
    )
    return {
        tracklet_id: merged(row.path for row in group)
        for tracklet_id, group in groupby(rows, key=lambda row: row.tracklet_id)
    }


def load_learned(session: Session, region: str) -> dict[str, bytes]:
    """What the region's matcher has learned, by name, in its own form."""
    rows = session.execute(select(LearnedRow.name, LearnedRow.value).where(LearnedRow.region == region))
    return {name: value for name, value in rows}  # noqa: C416 - a row is no pair to mypy


def load_operator_decisions(session: Session, region: str, *, after: int) -> list[OperatorDecision]:
    """What people have decided in the region, in the order they did, as far as it still stands.

    One SQL statement; its cost grows with these decisions, not with the matcher's. None is missed by a reader who asks
    with the highest number it has seen, of these or of any decision (see `Writer.correct`).

    Args:
        session: To read from.
        region: Whose tracklets.
        after: Leaves out the decisions up to this number.
    """
    # With the name spelled out, or the databases don't see that ix_assignments_corrected has all there is to find.
    matcher: ColumnElement[str] = literal_column(f"'{MATCHER}'")
    corrected = or_(AssignmentRow.correction_id.is_not(None), AssignmentRow.decided_by != matcher)
    # No bare column, or SQLite would begin with the region's tracklets, all of them.
    in_region = func.coalesce(TrackletRow.region, "") == region
    by_a_person = or_(AssignmentRow.decided_by != MATCHER, CorrectionRow.made_by != MATCHER)
    rows = session.execute(
        select(
            AssignmentRow.assignment_id, AssignmentRow.tracklet_id, AssignmentRow.vehicle_id, AssignmentRow.decided_by
        )
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .outerjoin(CorrectionRow, CorrectionRow.correction_id == AssignmentRow.correction_id)
        .where(AssignmentRow.is_current, corrected, AssignmentRow.assignment_id > after)
        .where(in_region, by_a_person)
        .order_by(AssignmentRow.assignment_id)
    )
    return [
        OperatorDecision(assignment_id, tracklet_id, vehicle_id, is_pinned=decided_by != MATCHER)
        for assignment_id, tracklet_id, vehicle_id, decided_by in rows
    ]


def load_assignments_after(
    session: Session, after: int, limit: int, *, until: int | None = None
) -> list[DecisionEvent]:
    """The decisions of all regions from there on, whoever made them, by number: the table is its own outbox.

    A number that isn't there now never will be, so that a reader may go on from the last one it was given. SQLite has
    one writer at a time anyway. With PostgreSQL a lower number may be committed after a higher one; this function waits
    there for everybody who is deciding, `statements.READER_TIMEOUT_S` at most, and they for its transaction: keep it
    short. One that waits in vain is refused, and may ask again.

    Args:
        session: To read from, of `Database.transaction`: a snapshot would be older than what was waited for.
        after: Leaves out the decisions up to this number.
        limit: At most so many.
        until: Only those up to this number, where it has been waited for before: nobody is held up, and a snapshot will
            do. None: up to the newest.
    """
    if until is None:
        if newest_decision(session) <= after:
            return []
        wait_for_decisions(session)
    before = aliased(AssignmentRow)
    rows = session.execute(
        select(AssignmentRow, TrackletRow.region, TrackletRow.camera, before.vehicle_id)
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .outerjoin(before, before.assignment_id == AssignmentRow.supersedes)
        .where(AssignmentRow.assignment_id > after, true() if until is None else AssignmentRow.assignment_id <= until)
        .order_by(AssignmentRow.assignment_id)
        .limit(limit)
    )
    return [
        DecisionEvent(row.assignment_id, region, camera, assignment_record(row), previous, row.correction_id)
        for row, region, camera, previous in rows
    ]


def newest_decision(session: Session) -> int:
    """The highest number of a decision, of any region; 0 before the first."""
    return session.execute(select(func.max(AssignmentRow.assignment_id))).scalar_one() or 0


def load_regions(session: Session) -> list[str]:
    """The regions that tracklets were seen in, by name."""
    return list(session.scalars(select(TrackletRow.region).distinct().order_by(TrackletRow.region)))


def load_watermarks(session: Session) -> list[CameraWatermark]:
    """How far each session of each camera has come."""
    rows = session.scalars(select(CameraWatermarkRow).order_by(CameraWatermarkRow.camera, CameraWatermarkRow.session))
    return [CameraWatermark(row.camera, row.session, row.watermark, row.is_finished) for row in rows]


def session_is_finished(session: Session, camera: str, session_id: str) -> bool:
    """Whether everything that this session of the camera will ever say has been read."""
    found = select(CameraWatermarkRow.is_finished).where(
        CameraWatermarkRow.camera == camera, CameraWatermarkRow.session == session_id
    )
    return bool(session.execute(found).scalar_one_or_none())


def _chosen(session: Session, region: str, seen_since: datetime | None, newest: int) -> SelectBase:
    """The ids. A union, since the databases find no index for conditions that are joined by OR."""
    in_region = select(TrackletRow.tracklet_id).where(TrackletRow.region == region)
    if seen_since is None:
        return in_region
    wanted = [in_region.where(TrackletRow.ended_at >= seen_since), in_region.where(~TrackletRow.is_decided)]
    if newest:
        last = [_last_of(region, camera, newest) for camera in _cameras(session, region)]
        groups = (last[begin : begin + _MAX_UNION] for begin in range(0, len(last), _MAX_UNION))
        wanted += [select(union_all(*group).subquery().c.tracklet_id) for group in groups]
    return union(*wanted)


def _last_of(region: str, camera: str, newest: int) -> Select[str]:
    looks = EmbeddingRow.tracklet_id == TrackletRow.tracklet_id
    path = (SightingRow.tracklet_id == TrackletRow.tracklet_id) & SightingRow.path.is_not(None)
    last = (
        select(TrackletRow.tracklet_id)
        .where(TrackletRow.region == region, TrackletRow.camera == camera, TrackletRow.is_decided)
        .where(exists().where(looks), exists().where(path))
        .order_by(TrackletRow.ended_at.desc(), TrackletRow.tracklet_id.desc())
        .limit(newest)
    )
    # SQLite takes no limit inside of a union but in a query of its own.
    return select(last.subquery().c.tracklet_id)


def _cameras(session: Session, region: str) -> list[str]:
    """The cameras that the region's tracklets are of, each found by one look into the index: DISTINCT reads all."""
    lowest = select(func.min(TrackletRow.camera).label("camera")).where(TrackletRow.region == region)
    found = lowest.cte("found", recursive=True)
    higher = lowest.where(TrackletRow.camera > found.c.camera).correlate(found).scalar_subquery()
    found = found.union_all(select(higher).where(found.c.camera.is_not(None)))
    return list(session.scalars(select(found.c.camera).where(found.c.camera.is_not(None))))


def _newest_embeddings(session: Session, chosen: SelectBase) -> dict[str, list[EmbeddingRecord]]:
    rank = func.row_number().over(
        partition_by=(EmbeddingRow.tracklet_id, EmbeddingRow.modality),
        order_by=EmbeddingRow.embedding_id.desc(),
    )
    ranked = (
        select(EmbeddingRow.embedding_id, rank.label("rank")).where(EmbeddingRow.tracklet_id.in_(chosen)).subquery()
    )
    rows = session.scalars(
        select(EmbeddingRow)
        .join(ranked, ranked.c.embedding_id == EmbeddingRow.embedding_id)
        .where(ranked.c.rank == 1)
        .order_by(EmbeddingRow.tracklet_id, EmbeddingRow.modality)
    )
    newest: dict[str, list[EmbeddingRecord]] = {}
    for row in rows:
        newest.setdefault(row.tracklet_id, []).append(_embedding(row))
    return newest


def _tracklet(row: TrackletRow) -> TrackletRecord:
    return TrackletRecord(
        tracklet_id=row.tracklet_id,
        region=row.region,
        camera=row.camera,
        session=row.session,
        number=row.number,
        vehicle_class=row.vehicle_class,
        class_votes=row.class_votes,
        started_at=row.started_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        context_image=row.context_image,
    )


def _embedding(row: EmbeddingRow) -> EmbeddingRecord:
    return EmbeddingRecord(
        sighting_id=row.sighting_id,
        tracklet_id=row.tracklet_id,
        modality=row.modality,
        model_id=row.model_id,
        vector=decode_vector(row.vector),
        quality=row.quality,
        captured_at=row.captured_at,
        box=(row.x1, row.y1, row.x2, row.y2),
        crop_image=row.crop_image,
        tokens=row.tokens,
    )
