"""The statements of the writer, built once.

Building a statement takes SQLAlchemy longer than running it on SQLite, and the writer runs ten for every tracklet.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, bindparam, case, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.models import (
    AssignmentRow,
    Base,
    CameraRow,
    CameraWatermarkRow,
    ConsumerOffsetRow,
    DeadLetterRow,
    EmbeddingRow,
    TrackletRow,
    VehicleRow,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.dml import ReturningInsert

    Insert = sqlite.Insert | postgresql.Insert

#: How long PostgreSQL lets a person's correction wait for those who are deciding: a matcher's transaction takes a
#: second or two. SQLite has its own time-out for all writes.
DECISIONS_TIMEOUT_S = 10
#: How long a reader of decisions may wait: matchers wait behind it.
READER_TIMEOUT_S = 2
#: How long a matcher waits for a person's correction, or for a reader: both are done within a second.
WRITER_TIMEOUT_S = 30


def _table(model: type[Base]) -> Table:
    # The table rather than its class: what the class adds is for loading objects, and doubles the time.
    return cast("Table", model.__table__)


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _insert(dialect: str, table: Table) -> Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


@cache
def add_once(dialect: str, model: type[Base]) -> ReturningInsert[Any]:
    """Adds a row unless its key is there; returns the key if it was added."""
    table = _table(model)
    statement = _insert(dialect, table).on_conflict_do_nothing(index_elements=_key(table))
    return statement.returning(*table.primary_key)


@cache
def replace(dialect: str, model: type[Base]) -> Insert:
    """Adds a row, or replaces the one of its key."""
    table = _table(model)
    statement = _insert(dialect, table)
    changes = {column.name: column for column in statement.excluded if not column.primary_key}
    return statement.on_conflict_do_update(index_elements=_key(table), set_=changes)


@cache
def register_camera(dialect: str) -> Insert:
    """Replaces a camera's row, but for the earliest start of all."""
    statement = _insert(dialect, _table(CameraRow))
    new, known = statement.excluded, CameraRow.started_at
    earliest = case((known.is_(None), new.started_at), (new.started_at < known, new.started_at), else_=known)
    changes = {column.name: column for column in new if column.name != "camera"} | {"started_at": earliest}
    return statement.on_conflict_do_update(index_elements=["camera"], set_=changes)


@cache
def set_watermark(dialect: str) -> Insert:
    """Moves a watermark on, never back."""
    statement = _insert(dialect, _table(CameraWatermarkRow))
    new, known = statement.excluded, CameraWatermarkRow
    latest = case((new.watermark > known.watermark, new.watermark), else_=known.watermark)
    changes = {"watermark": latest, "is_finished": known.is_finished | new.is_finished}
    return statement.on_conflict_do_update(index_elements=["camera", "session"], set_=changes)


@cache
def update_tracklet(dialect: str) -> Insert:
    """Adds a tracklet, or takes over what a later sighting says of it."""
    statement = _insert(dialect, _table(TrackletRow))
    new = statement.excluded
    taken = ("vehicle_class", "class_votes", "ended_at", "last_sequence")
    changes: dict[str, Any] = {name: new[name] for name in taken}
    # A sighting that brings no picture doesn't take the earlier one away.
    changes["context_image"] = func.coalesce(new.context_image, TrackletRow.context_image)
    # Nor does one that comes late open a tracklet again that the matcher has closed.
    changes["end_reason"] = func.coalesce(new.end_reason, TrackletRow.end_reason)
    is_later = new.last_sequence > TrackletRow.last_sequence
    return statement.on_conflict_do_update(index_elements=["tracklet_id"], set_=changes, where=is_later)


@cache
def close_tracklet(dialect: str) -> ReturningInsert[Any]:
    """Adds a tracklet, or ends it if it is open; returns its id if something changed."""
    statement = _insert(dialect, _table(TrackletRow))
    changes = {name: statement.excluded[name] for name in ("ended_at", "end_reason")}
    is_open = TrackletRow.end_reason.is_(None)
    closed = statement.on_conflict_do_update(index_elements=["tracklet_id"], set_=changes, where=is_open)
    return closed.returning(TrackletRow.tracklet_id)


@cache
def add_numbered(dialect: str, model: type[Base]) -> ReturningInsert[Any]:
    """Adds a row under the next number of its table; returns the number. None comes twice, whatever was removed."""
    table = _table(model)
    number = table.primary_key.columns.values()[0]
    statement = insert(table)
    if dialect == "sqlite":
        # It would number on from the highest row that is left; listeners have been told of those that are not.
        highest = select(func.coalesce(func.max(number), 0)).scalar_subquery()
        given = select(ConsumerOffsetRow.next_offset - 1).where(ConsumerOffsetRow.topic == given_numbers(table.name))
        statement = statement.values(
            {number.name: func.max(highest, func.coalesce(given.scalar_subquery(), 0), type_=number.type) + 1}
        )
    return statement.returning(number)


def given_numbers(table: str) -> str:
    """Under which name SQLite's `consumer_offsets` keep what number a table goes on with, once its last was removed."""
    return f"numbers of {table}"


def hold_decisions(session: Session) -> None:
    """Keeps every other transaction from adding decisions until this one ends; waits for those that have."""
    if session.get_bind().dialect.name == "sqlite":
        # Any write takes the one lock there is, one that changes nothing too.
        session.execute(text("UPDATE corrections SET note = note WHERE 0"))
    else:
        _lock_assignments(session, "SHARE ROW EXCLUSIVE", DECISIONS_TIMEOUT_S)


def wait_for_decisions(session: Session) -> None:
    """Waits for the transactions that have added decisions; none adds any from then on until this one ends."""
    if session.get_bind().dialect.name != "sqlite":
        _lock_assignments(session, "SHARE", READER_TIMEOUT_S)


def join_decisions(session: Session) -> None:
    """Waits for who holds the decisions; nobody comes to hold them from then on until this transaction ends.

    Before the first row is locked: one who locks a vehicle first, and a person's correction that holds the decisions
    and needs that vehicle, would wait for each other for ever.
    """
    if session.get_bind().dialect.name != "sqlite":
        _lock_assignments(session, "ROW EXCLUSIVE", WRITER_TIMEOUT_S)


def _lock_assignments(session: Session, mode: str, timeout_s: int) -> None:
    # Writers hold ROW EXCLUSIVE, from before their first row until they commit: any of the other modes waits for it.
    # In one message to the server, since every transaction of a matcher begins so.
    session.connection().exec_driver_sql(
        f"SET LOCAL lock_timeout = '{timeout_s}s'; LOCK TABLE assignments IN {mode} MODE"
    )


ADD_EMBEDDING = insert(_table(EmbeddingRow))

#: The class of the tracklet `of`, and its current decision, if any.
STANDING = (
    select(
        TrackletRow.vehicle_class,
        AssignmentRow.assignment_id,
        AssignmentRow.vehicle_id,
        AssignmentRow.is_provisional,
        AssignmentRow.decided_by,
        AssignmentRow.reason,
    )
    .outerjoin(AssignmentRow, (AssignmentRow.tracklet_id == TrackletRow.tracklet_id) & AssignmentRow.is_current)
    .where(TrackletRow.tracklet_id == bindparam("of"))
)

#: Notes that a decision on the tracklet `of` was not provisional.
MARK_DECIDED = (
    update(_table(TrackletRow))
    .where(TrackletRow.tracklet_id == bindparam("of"), ~TrackletRow.is_decided)
    .values(is_decided=True)
)

#: Makes the decision `of` no longer the current one; returns its id if it was.
RETIRE = (
    update(_table(AssignmentRow))
    .where(AssignmentRow.assignment_id == bindparam("of"), AssignmentRow.is_current)
    .values(is_current=False)
    .returning(AssignmentRow.assignment_id)
)

#: The tracklets of the vehicle `of`. In order, since a sum of shares depends on it in its last digit.
MEMBERS = (
    select(TrackletRow.started_at, TrackletRow.ended_at, TrackletRow.vehicle_class, TrackletRow.class_votes)
    .join(AssignmentRow, AssignmentRow.tracklet_id == TrackletRow.tracklet_id)
    .where(AssignmentRow.vehicle_id == bindparam("of"), AssignmentRow.is_current)
    .order_by(TrackletRow.started_at, TrackletRow.tracklet_id)
)

#: Brings the vehicle `of` up to date; without an `elected` class it keeps its own.
REFRESH_VEHICLE = (
    update(_table(VehicleRow))
    .where(VehicleRow.vehicle_id == bindparam("of"))
    .values(
        first_seen=bindparam("first", type_=VehicleRow.first_seen.type),
        last_seen=bindparam("last", type_=VehicleRow.last_seen.type),
        vehicle_class=func.coalesce(
            bindparam("elected", type_=VehicleRow.vehicle_class.type), VehicleRow.vehicle_class
        ),
    )
)

_IS_PARTITION = (ConsumerOffsetRow.topic == bindparam("of")) & (ConsumerOffsetRow.partition == bindparam("at"))

NEXT_OFFSET = select(ConsumerOffsetRow.next_offset).where(_IS_PARTITION)

#: Compare and set: returns the new offset if the old one was `expected`.
ADVANCE_OFFSET = (
    update(_table(ConsumerOffsetRow))
    .where(_IS_PARTITION, ConsumerOffsetRow.next_offset == bindparam("expected"))
    .values(next_offset=bindparam("new"))
    .returning(ConsumerOffsetRow.next_offset)
)

_IS_DEAD_PARTITION = (DeadLetterRow.topic == bindparam("of")) & (DeadLetterRow.partition == bindparam("at"))

#: Removes a partition's oldest dead letters but for the `kept` newest. Answered by the primary key's index alone, so
#: that a flood costs no look at the payloads.
PRUNE_DEAD_LETTERS = delete(_table(DeadLetterRow)).where(
    _IS_DEAD_PARTITION,
    DeadLetterRow.offset
    <= select(DeadLetterRow.offset)
    .where(_IS_DEAD_PARTITION)
    .order_by(DeadLetterRow.offset.desc())
    .limit(1)
    .offset(bindparam("kept"))
    .scalar_subquery(),
)
