"""Writes that may be done twice: the second time changes nothing.

The caller owns the transaction, so that results and the offset they came from are stored together or not at all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from storage import statements
from storage.blobs import encode_path, encode_vector
from storage.errors import OffsetConflictError, StorageError, TransientStorageError
from storage.models import (
    AssignmentRow,
    Base,
    CameraStatusRow,
    ConsumerOffsetRow,
    CorrectionRow,
    DeadLetterRow,
    LearnedRow,
    SightingRow,
    StageStatusRow,
    VehicleRow,
)
from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
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

#: `last_sequence` of a tracklet that was closed before any sighting of it came.
NO_SIGHTING = -1
#: What is kept of a message that can't be used: its beginning, and of each partition the newest. A flood of the
#: biggest takes 64 MB a partition.
MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_DEAD_LETTERS = 1000


class _Standing(NamedTuple):
    """A tracklet's class and its current decision; without one the rest is None."""

    vehicle_class: str
    assignment_id: int | None
    vehicle_id: str | None
    is_provisional: bool | None
    decided_by: str | None
    reason: str | None


class Writer:
    """Writes into one session.

    Args:
        session: Of `Database.transaction`; nothing is committed here.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._dialect = session.get_bind().dialect.name
        self._has_joined = False
        self._unknown = 0

    @property
    def unknown(self) -> int:
        """The matcher's decisions that were dropped, since their tracklets had been removed meanwhile."""
        return self._unknown

    def register_cameras(self, cameras: Sequence[CameraRecord]) -> None:
        """Makes the cameras known, or brings them up to date.

        `started_at` only ever moves back: a camera's times count from the first frame ever read of it.
        """
        if cameras:
            rows = [_values(camera) for camera in cameras]
            self._session.execute(statements.register_camera(self._dialect), rows)

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
        self.join_decisions()
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
            standing = self._standing(tracklet.tracklet_id, of=MATCHER)
            if standing is not None and standing.vehicle_id is not None:
                self._refresh_vehicle(standing.vehicle_id)
        return is_new

    def assign(self, assignment: AssignmentRecord) -> int | None:
        """Adds a decision, which takes the place of the tracklet's current one.

        The vehicle is made when it is new; its class and times, and those of the vehicle that loses the tracklet,
        follow from their tracklets. A person's word stands: the matcher's decision, for whatever vehicle, makes it
        final where it is final itself, and changes nothing else.

        Returns:
            The row's id; the current row's when that says the same (same vehicle, same `is_provisional`, same
            `decided_by`) or is a person's word, and then nothing has changed. None where the matcher decides on a
            tracklet that isn't stored: it has been forgotten or has become too old since the matcher read of it; that
            is dropped and counted (`unknown`).

        Raises:
            StorageError: A person decides on a tracklet that isn't stored.
        """
        self.join_decisions()
        standing = self._standing(assignment.tracklet_id, of=assignment.decided_by)
        if standing is None:
            return None
        if assignment.decided_by == MATCHER:
            assignment = _under_a_persons_word(standing, assignment)
        if standing.assignment_id is not None and _says_the_same(standing, assignment):
            return standing.assignment_id
        assignment_id = self._add_assignment(standing, assignment, correction_id=None)
        self.refresh_vehicles({assignment.vehicle_id, standing.vehicle_id})
        return assignment_id

    def correct(
        self,
        kind: str,
        assignments: Sequence[AssignmentRecord],
        *,
        made_by: str,
        made_at: datetime,
        note: str = "",
        undoes: int | None = None,
    ) -> int | None:
        """Changes decisions together; each of them takes the place of its tracklet's current one, as by `assign`.

        A person's correction keeps other writers from deciding until the transaction ends: so the numbers of what
        people decide rise in the order in which others can see them.

        Args:
            kind: `merge`, `split`, `move`, `confirm` or `undo`.
            assignments: At most one per tracklet. One of the matcher's that says what its tracklet's current decision
                says is left out, and so is one for a tracklet on which a person has decided, or that isn't stored any
                more (`unknown`). Of a person's, all are kept where one says something new: what is confirmed is a part
                of what can be undone.
            made_by: `MATCHER`, or a person's name.
            made_at: Event time for the matcher, the clock for a person.
            note: Why, in that person's words.
            undoes: The correction that this one takes back.

        Returns:
            The correction's id; None where nothing changes, and then there is no correction.

        Raises:
            StorageError: A person decides on a tracklet that isn't stored.
        """
        if made_by == MATCHER:
            self.join_decisions()
        else:
            self.hold_decisions()
        values = {"kind": kind, "made_by": made_by, "made_at": made_at, "note": note, "undoes": undoes}
        changes = self._changes(assignments, made_by)
        if not changes:
            return None
        add = statements.add_numbered(self._dialect, CorrectionRow)
        correction_id: int = self._session.execute(add, values).scalar_one()
        touched: set[str | None] = set()
        for standing, assignment in changes:
            self._add_assignment(standing, assignment, correction_id=correction_id)
            touched |= {standing.vehicle_id, assignment.vehicle_id}
        self.refresh_vehicles(touched)
        return correction_id

    def hold_decisions(self) -> None:
        """Waits until no other writer is about to decide, and keeps it so until this transaction ends.

        What is read from here on stays true until then. Blocks `statements.DECISIONS_TIMEOUT_S` at most, with SQLite
        as long as any write may.
        """
        statements.hold_decisions(self._session)
        self._has_joined = True

    def join_decisions(self) -> None:
        """Waits for a person's correction that is being made; no other begins until this transaction ends.

        Whatever is stored or decided does so by itself. Blocks `statements.WRITER_TIMEOUT_S` at most; with SQLite the
        first write does as much.
        """
        if not self._has_joined:
            statements.join_decisions(self._session)
            self._has_joined = True

    def store_learned(self, region: str, values: Mapping[str, bytes], at: datetime) -> None:
        """Replaces what the region's matcher has learned under these names; what has other names stays.

        Args:
            region: The region.
            values: By name, in the matcher's own form.
            at: Event time up to which it learned.
        """
        for name, value in values.items():
            row = {"region": region, "name": name, "value": value, "updated_at": at}
            self._session.execute(statements.replace(self._dialect, LearnedRow), row)

    def next_offset(self, topic: str, partition: int) -> int | None:
        """Where to read on; None when nothing was read yet."""
        where = {"of": topic, "at": partition}
        return self._session.execute(statements.NEXT_OFFSET, where).scalar_one_or_none()

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
        if expected is None:
            values = {"topic": topic, "partition": partition, "next_offset": next_offset}
            is_moved = self._add_once(ConsumerOffsetRow, values)
        else:
            move = {"of": topic, "at": partition, "expected": expected, "new": next_offset}
            is_moved = self._session.execute(statements.ADVANCE_OFFSET, move).first() is not None
        if not is_moved:
            found = self.next_offset(topic, partition)
            raise OffsetConflictError(f"{topic}/{partition}: expected offset {expected}, found {found}")

    def set_watermark(self, watermark: CameraWatermark) -> None:
        """Moves a camera's watermark on; it never goes back, and a finished session stays so."""
        self._session.execute(statements.set_watermark(self._dialect), _values(watermark))

    def store_camera_status(self, rows: Sequence[CameraStatus]) -> None:
        """Replaces the status of these cameras."""
        self._replace(CameraStatusRow, rows)

    def store_stage_status(self, rows: Sequence[StageStatus]) -> None:
        """Replaces the counters of these stages."""
        self._replace(StageStatusRow, rows)

    def store_dead_letter(
        self, topic: str, partition: int, offset: int, payload: bytes, reason: str, at: datetime
    ) -> None:
        """Keeps a message that can't be used, once; of a longer one its first `MAX_DEAD_LETTER_BYTES`, and says so.

        The newest `MAX_DEAD_LETTERS` of a partition stay.

        Args:
            topic: Where it was.
            partition: Where in the topic.
            offset: Where in the partition.
            payload: The message.
            reason: Why it can't be used, in one line.
            at: When it was found.
        """
        if len(payload) > MAX_DEAD_LETTER_BYTES:
            reason += f" ({MAX_DEAD_LETTER_BYTES} of {len(payload)} bytes kept)"
        values = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "payload": payload[:MAX_DEAD_LETTER_BYTES],
            "reason": reason,
            "at": at,
        }
        if self._add_once(DeadLetterRow, values):
            partition_of = {"of": topic, "at": partition, "kept": MAX_DEAD_LETTERS}
            self._session.execute(statements.PRUNE_DEAD_LETTERS, partition_of)

    def _add_once(self, table: type[Base], values: dict[str, Any]) -> bool:
        return self._session.execute(statements.add_once(self._dialect, table), values).first() is not None

    def _replace(self, table: type[Base], rows: Sequence[CameraStatus] | Sequence[StageStatus]) -> None:
        if rows:
            self._session.execute(statements.replace(self._dialect, table), [_values(row) for row in rows])

    def _update_tracklet(self, tracklet: TrackletRecord, sequence: int) -> None:
        values = _values(tracklet) | {"last_sequence": sequence}
        self._session.execute(statements.update_tracklet(self._dialect), values)

    def _close_tracklet(self, tracklet: TrackletRecord) -> bool:
        values = _values(tracklet) | {"last_sequence": NO_SIGHTING}
        return self._session.execute(statements.close_tracklet(self._dialect), values).first() is not None

    def _add_sighting(self, path: PathSegment) -> bool:
        blob = encode_path(path.frames, path.times, path.boxes) if len(path) else None
        values = {
            "sighting_id": path.sighting_id,
            "tracklet_id": path.tracklet_id,
            "sequence": path.sequence,
            "path": blob,
        }
        return self._add_once(SightingRow, values)

    def _add_embeddings(self, embeddings: Sequence[EmbeddingRecord]) -> None:
        if embeddings:
            self._session.execute(statements.ADD_EMBEDDING, [_embedding_values(embedding) for embedding in embeddings])

    def _standing(self, tracklet_id: str, *, of: str) -> _Standing | None:
        """None where the matcher (`of`) may speak of what was removed meanwhile; a person sees what is there."""
        row = self._session.execute(statements.STANDING, {"of": tracklet_id}).one_or_none()
        if row is not None:
            return _Standing(*row)
        if of != MATCHER:
            raise StorageError(f"{tracklet_id}: no such tracklet")
        self._unknown += 1
        return None

    def _changes(
        self, assignments: Sequence[AssignmentRecord], made_by: str
    ) -> list[tuple[_Standing, AssignmentRecord]]:
        """What is to be written, with what stands; in one order, so that no two writers wait in a ring."""
        ordered = sorted(assignments, key=lambda each: each.tracklet_id)
        stored = [(self._standing(assignment.tracklet_id, of=made_by), assignment) for assignment in ordered]
        found = [(standing, assignment) for standing, assignment in stored if standing is not None]
        if made_by == MATCHER:
            found = [(standing, _under_a_persons_word(standing, assignment)) for standing, assignment in found]
        changes = [(standing, assignment) for standing, assignment in found if not _says_the_same(standing, assignment)]
        return found if changes and made_by != MATCHER else changes

    def _add_assignment(self, standing: _Standing, assignment: AssignmentRecord, *, correction_id: int | None) -> int:
        if standing.assignment_id is not None:
            self._retire(standing.assignment_id, assignment.tracklet_id)
        vehicle = {"vehicle_id": assignment.vehicle_id, "vehicle_class": standing.vehicle_class}
        self._add_once(VehicleRow, vehicle)
        place = {"supersedes": standing.assignment_id, "is_current": True, "correction_id": correction_id}
        add = statements.add_numbered(self._dialect, AssignmentRow)
        added: int = self._session.execute(add, _values(assignment) | place).scalar_one()
        if not assignment.is_provisional:
            self._session.execute(statements.MARK_DECIDED, {"of": assignment.tracklet_id})
        return added

    def refresh_vehicles(self, vehicle_ids: Collection[str | None]) -> None:
        """Brings class and times of these vehicles up to date with the tracklets that are theirs."""
        # Sorted, since two writers that lock the same rows in different order would wait for each other.
        for vehicle_id in sorted(known for known in vehicle_ids if known is not None):
            self._refresh_vehicle(vehicle_id)

    def _retire(self, assignment_id: int, tracklet_id: str) -> None:
        if self._session.execute(statements.RETIRE, {"of": assignment_id}).first() is None:
            raise TransientStorageError(f"{tracklet_id}: somebody else has just decided on it")

    def _refresh_vehicle(self, vehicle_id: str) -> None:
        members = self._session.execute(statements.MEMBERS, {"of": vehicle_id}).all()
        votes = (member.class_votes or {member.vehicle_class: 1.0} for member in members)
        values = {
            "of": vehicle_id,
            "first": min((member.started_at for member in members), default=None),
            "last": max((member.ended_at for member in members), default=None),
            "elected": _elected(votes) if members else None,
        }
        self._session.execute(statements.REFRESH_VEHICLE, values)


def _values(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any of our records
    # dataclasses.asdict copies every value deeply.
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _check_same(tracklet: TrackletRecord, path: PathSegment, embeddings: Sequence[EmbeddingRecord]) -> None:
    if path.tracklet_id != tracklet.tracklet_id:
        raise ValueError(f"path is of {path.tracklet_id}, not of {tracklet.tracklet_id}")
    for embedding in embeddings:
        if (embedding.tracklet_id, embedding.sighting_id) != (path.tracklet_id, path.sighting_id):
            raise ValueError(f"embedding is of {embedding.sighting_id}, not of {path.sighting_id}")


def _says_the_same(standing: _Standing, assignment: AssignmentRecord) -> bool:
    said = (assignment.vehicle_id, assignment.is_provisional, assignment.decided_by)
    return (standing.vehicle_id, standing.is_provisional, standing.decided_by) == said


def _under_a_persons_word(standing: _Standing, assignment: AssignmentRecord) -> AssignmentRecord:
    """What becomes of the matcher's decision where a person has decided before: that word again, at most made final."""
    person = standing.decided_by
    if person is None or person == MATCHER or standing.vehicle_id is None:
        return assignment
    word = replace(
        assignment,
        vehicle_id=standing.vehicle_id,
        reason=standing.reason or assignment.reason,
        is_provisional=bool(standing.is_provisional) and assignment.is_provisional,
        decided_by=person,
    )
    if assignment.vehicle_id == standing.vehicle_id and "upheld" not in assignment.evidence:
        # So that nobody reads the matcher's reasons as that person's.
        return replace(word, evidence={**assignment.evidence, "agrees": MATCHER})
    # The matcher hasn't weighed it, or not for that vehicle: then its numbers say nothing of it.
    upheld: dict[str, Any] = {"upheld": True}
    if assignment.vehicle_id != standing.vehicle_id:
        upheld["instead_of"] = assignment.vehicle_id
    return replace(word, score=None, margin=None, modality_pair=None, transit_s=None, evidence=upheld)


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
