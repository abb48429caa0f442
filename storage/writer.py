"""Writes that may be done twice: the second time changes nothing.

The caller owns the transaction, so that results and the offset they came from are stored together or not at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.blobs import encode_path, encode_vector
from storage.errors import OffsetConflictError, StorageError
from storage.models import (
    AssignmentRow,
    Base,
    CameraRow,
    CameraStatusRow,
    CameraWatermarkRow,
    ConsumerOffsetRow,
    DeadLetterRow,
    EmbeddingRow,
    SightingRow,
    StageStatusRow,
    TrackletRow,
    VehicleRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.orm import Session

    from storage.records import (
        AssignmentRecord,
        CameraRecord,
        CameraStatus,
        CameraWatermark,
        EmbeddingRecord,
        PathSegment,
        StageStatus,
        TrackletRecord,
    )

    Insert = sqlite.Insert | postgresql.Insert

#: `last_sequence` of a tracklet that was closed before any sighting of it came.
NO_SIGHTING = -1


class _Current(NamedTuple):
    assignment_id: int
    vehicle_id: str
    is_provisional: bool


class Writer:
    """Writes into one session.

    Args:
        session: Of `Database.transaction`; nothing is committed here.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def register_cameras(self, cameras: Sequence[CameraRecord]) -> None:
        """Makes the cameras known, or brings them up to date.

        `started_at` only ever moves back: a camera's times count from the first frame ever read of it.
        """
        if not cameras:
            return
        statement = self._insert(CameraRow).values([asdict(camera) for camera in cameras])
        new, known = statement.excluded, CameraRow.started_at
        earliest = case((known.is_(None), new.started_at), (new.started_at < known, new.started_at), else_=known)
        changes = {column.name: column for column in new if column.name != "camera"} | {"started_at": earliest}
        self._session.execute(statement.on_conflict_do_update(index_elements=["camera"], set_=changes))

    def store_sighting(
        self, tracklet: TrackletRecord, path: PathSegment | None, embeddings: Sequence[EmbeddingRecord]
    ) -> bool:
        """Stores what one sighting says.

        The tracklet takes over what the sighting says of it unless a later one has been stored already.

        Args:
            tracklet: As this sighting tells it.
            path: Since the previous sighting; may be empty. None when there is no sighting, and the matcher itself
                closes a tracklet that it will hear no more of: then only a tracklet still open is changed.
            embeddings: At most one per modality.

        Returns:
            False when this sighting was stored before, or the tracklet was closed; then nothing has changed.

        Raises:
            ValueError: `path` or an embedding is of another tracklet or sighting.
        """
        if path is None:
            if embeddings:
                raise ValueError(f"{tracklet.tracklet_id}: embeddings need the path of their sighting")
            is_new = self._close_tracklet(tracklet)
        else:
            _check_same(tracklet, path, embeddings)
            self._update_tracklet(tracklet, path.sequence)
            is_new = self._add_sighting(path)
        if is_new:
            self._add_embeddings(embeddings)
            current = self._current(tracklet.tracklet_id)
            if current is not None:
                self._refresh_vehicle(current.vehicle_id)
        return is_new

    def assign(self, assignment: AssignmentRecord) -> int:
        """Adds a decision, which takes the place of the tracklet's current one.

        The vehicle is made when it is new; its class and times, and those of the vehicle that loses the tracklet,
        follow from their tracklets.

        Returns:
            The row's id; the current row's when that says the same (same vehicle, same `is_provisional`), and then
            nothing has changed.

        Raises:
            StorageError: The tracklet isn't stored.
        """
        current = self._current(assignment.tracklet_id)
        if current is not None and _says_the_same(current, assignment):
            return current.assignment_id
        self._add_vehicle(assignment)
        if current is not None:
            self._retire(current.assignment_id, assignment.tracklet_id)
        values = asdict(assignment) | {"supersedes": current and current.assignment_id, "is_current": True}
        added = insert(AssignmentRow).values(values).returning(AssignmentRow.assignment_id)
        assignment_id = self._session.execute(added).scalar_one()
        self._refresh_vehicle(assignment.vehicle_id)
        if current is not None and current.vehicle_id != assignment.vehicle_id:
            self._refresh_vehicle(current.vehicle_id)
        return assignment_id

    def next_offset(self, topic: str, partition: int) -> int | None:
        """Where to read on; None when nothing was read yet."""
        return self._session.execute(
            select(ConsumerOffsetRow.next_offset).where(_is_partition(topic, partition))
        ).scalar_one_or_none()

    def advance_offset(self, topic: str, partition: int, *, expected: int | None, next_offset: int) -> None:
        """Moves the offset from `expected` to `next_offset`.

        Args:
            topic: The topic's name.
            partition: Its partition.
            expected: What `next_offset` said before; None when it said None.
            next_offset: Where to read on.

        Raises:
            OffsetConflictError: The offset is another one: somebody else reads this partition.
        """
        statement: Any
        if expected is None:
            values = {"topic": topic, "partition": partition, "next_offset": next_offset}
            statement = self._insert(ConsumerOffsetRow).values(values).on_conflict_do_nothing()
        else:
            found = _is_partition(topic, partition) & (ConsumerOffsetRow.next_offset == expected)
            statement = update(ConsumerOffsetRow).where(found).values(next_offset=next_offset)
        changed = self._session.execute(statement.returning(ConsumerOffsetRow.next_offset)).scalar_one_or_none()
        if changed is None:
            found_offset = self.next_offset(topic, partition)
            raise OffsetConflictError(f"{topic}/{partition}: expected offset {expected}, found {found_offset}")

    def set_watermark(self, watermark: CameraWatermark) -> None:
        """Moves a camera's watermark on; it never goes back, and a finished session stays so."""
        statement = self._insert(CameraWatermarkRow).values(asdict(watermark))
        new, known = statement.excluded, CameraWatermarkRow
        latest = case((new.watermark > known.watermark, new.watermark), else_=known.watermark)
        changes = {"watermark": latest, "is_finished": known.is_finished | new.is_finished}
        self._session.execute(statement.on_conflict_do_update(index_elements=["camera", "session"], set_=changes))

    def store_camera_status(self, rows: Sequence[CameraStatus]) -> None:
        """Replaces the status of these cameras."""
        self._replace(CameraStatusRow, "camera", [asdict(row) for row in rows])

    def store_stage_status(self, rows: Sequence[StageStatus]) -> None:
        """Replaces the counters of these stages."""
        self._replace(StageStatusRow, "stage", [asdict(row) for row in rows])

    def store_dead_letter(
        self, topic: str, partition: int, offset: int, payload: bytes, reason: str, at: datetime
    ) -> None:
        """Keeps a message that can't be read.

        Args:
            topic: Where it was.
            partition: Where in the topic.
            offset: Where in the partition.
            payload: The message.
            reason: Why it can't be read, in one line.
            at: When it was found.
        """
        values = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "payload": payload,
            "reason": reason,
            "at": at,
        }
        self._session.execute(self._insert(DeadLetterRow).values(values).on_conflict_do_nothing())

    def _insert(self, table: type[Base]) -> Insert:
        is_sqlite = self._session.get_bind().dialect.name == "sqlite"
        return sqlite.insert(table) if is_sqlite else postgresql.insert(table)

    def _replace(self, table: type[Base], key: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        statement = self._insert(table).values(rows)
        changes = {column.name: column for column in statement.excluded if column.name != key}
        self._session.execute(statement.on_conflict_do_update(index_elements=[key], set_=changes))

    def _update_tracklet(self, tracklet: TrackletRecord, sequence: int) -> None:
        statement = self._insert(TrackletRow).values(asdict(tracklet) | {"last_sequence": sequence})
        new = statement.excluded
        taken = ("vehicle_class", "class_votes", "ended_at", "end_reason", "last_sequence")
        changes: dict[str, Any] = {name: new[name] for name in taken}
        # A sighting that brings no picture doesn't take the earlier one away.
        changes["context_image"] = func.coalesce(new.context_image, TrackletRow.context_image)
        is_later = new.last_sequence > TrackletRow.last_sequence
        self._session.execute(
            statement.on_conflict_do_update(index_elements=["tracklet_id"], set_=changes, where=is_later)
        )

    def _close_tracklet(self, tracklet: TrackletRecord) -> bool:
        statement = self._insert(TrackletRow).values(asdict(tracklet) | {"last_sequence": NO_SIGHTING})
        changes = {name: statement.excluded[name] for name in ("ended_at", "end_reason")}
        closed = statement.on_conflict_do_update(
            index_elements=["tracklet_id"], set_=changes, where=TrackletRow.end_reason.is_(None)
        )
        return self._is_changed(closed, TrackletRow.tracklet_id)

    def _add_sighting(self, path: PathSegment) -> bool:
        blob = encode_path(path.frames, path.times, path.boxes) if len(path) else None
        values = {
            "sighting_id": path.sighting_id,
            "tracklet_id": path.tracklet_id,
            "sequence": path.sequence,
            "path": blob,
        }
        statement = self._insert(SightingRow).values(values).on_conflict_do_nothing(index_elements=["sighting_id"])
        return self._is_changed(statement, SightingRow.sighting_id)

    def _is_changed(self, statement: Insert, key: Any) -> bool:  # noqa: ANN401 - any mapped column
        return self._session.execute(statement.returning(key)).scalar_one_or_none() is not None

    def _add_embeddings(self, embeddings: Sequence[EmbeddingRecord]) -> None:
        if embeddings:
            self._session.execute(insert(EmbeddingRow), [_embedding_values(embedding) for embedding in embeddings])

    def _current(self, tracklet_id: str) -> _Current | None:
        columns = (AssignmentRow.assignment_id, AssignmentRow.vehicle_id, AssignmentRow.is_provisional)
        found = select(*columns).where(AssignmentRow.tracklet_id == tracklet_id, AssignmentRow.is_current)
        row = self._session.execute(found).one_or_none()
        return None if row is None else _Current(*row)

    def _retire(self, assignment_id: int, tracklet_id: str) -> None:
        found = (AssignmentRow.assignment_id == assignment_id) & AssignmentRow.is_current
        statement = update(AssignmentRow).where(found).values(is_current=False)
        if self._session.execute(statement.returning(AssignmentRow.assignment_id)).scalar_one_or_none() is None:
            raise StorageError(f"{tracklet_id}: somebody else has just decided on it")

    def _add_vehicle(self, assignment: AssignmentRecord) -> None:
        vehicle_class = self._session.execute(
            select(TrackletRow.vehicle_class).where(TrackletRow.tracklet_id == assignment.tracklet_id)
        ).scalar_one_or_none()
        if vehicle_class is None:
            raise StorageError(f"{assignment.tracklet_id}: no such tracklet")
        values = {"vehicle_id": assignment.vehicle_id, "vehicle_class": vehicle_class}
        self._session.execute(self._insert(VehicleRow).values(values).on_conflict_do_nothing())

    def _refresh_vehicle(self, vehicle_id: str) -> None:
        columns = (TrackletRow.started_at, TrackletRow.ended_at, TrackletRow.vehicle_class, TrackletRow.class_votes)
        members = self._session.execute(
            select(*columns)
            .join(AssignmentRow, AssignmentRow.tracklet_id == TrackletRow.tracklet_id)
            .where(AssignmentRow.vehicle_id == vehicle_id, AssignmentRow.is_current)
        ).all()
        values: dict[str, Any] = {
            "first_seen": min((member.started_at for member in members), default=None),
            "last_seen": max((member.ended_at for member in members), default=None),
        }
        if members:
            votes = (member.class_votes or {member.vehicle_class: 1.0} for member in members)
            values["vehicle_class"] = _elected(votes)
        self._session.execute(update(VehicleRow).where(VehicleRow.vehicle_id == vehicle_id).values(values))


def _check_same(tracklet: TrackletRecord, path: PathSegment, embeddings: Sequence[EmbeddingRecord]) -> None:
    if path.tracklet_id != tracklet.tracklet_id:
        raise ValueError(f"path is of {path.tracklet_id}, not of {tracklet.tracklet_id}")
    for embedding in embeddings:
        if (embedding.tracklet_id, embedding.sighting_id) != (path.tracklet_id, path.sighting_id):
            raise ValueError(f"embedding is of {embedding.sighting_id}, not of {path.sighting_id}")


def _says_the_same(current: _Current, assignment: AssignmentRecord) -> bool:
    return (current.vehicle_id, current.is_provisional) == (assignment.vehicle_id, assignment.is_provisional)


def _is_partition(topic: str, partition: int) -> Any:  # noqa: ANN401 - a SQL expression
    return (ConsumerOffsetRow.topic == topic) & (ConsumerOffsetRow.partition == partition)


def _elected(votes: Iterable[dict[str, float]]) -> str:
    """The class with most votes; of equals the first by name, so that a replay elects the same."""
    total: Counter[str] = Counter()
    for vote in votes:
        for name, share in vote.items():
            total[name] += share  # type: ignore[assignment]  # typeshed wants counts, shares add up as well
    return min(total, key=lambda name: (-total[name], name))


def _embedding_values(embedding: EmbeddingRecord) -> dict[str, Any]:
    x1, y1, x2, y2 = embedding.box
    return {
        "sighting_id": embedding.sighting_id,
        "tracklet_id": embedding.tracklet_id,
        "modality": embedding.modality,
        "model_id": embedding.model_id,
        "vector": encode_vector(embedding.vector),
        "quality": embedding.quality,
        "captured_at": embedding.captured_at,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "crop_image": embedding.crop_image,
        "tokens": embedding.tokens,
    }
