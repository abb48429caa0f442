"""Looking out for watched vehicles, and what waits to be told: the work of a program that runs all the time.

A vehicle returns with every tracklet that becomes its own after the watch was made and was not its own then: one that
has just been seen, or one of long ago that a correction gives it. That is noted once for each tracklet, at the first
decision, although it is provisional: the final one comes when the tracklet has ended, which may take hours. A notice
stays where the tracklet proves to be another's. What one correction gives a vehicle is told together, by the first of
its notices: that of the tracklet seen last.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import Table, exists, func, select, update
from sqlalchemy.orm import aliased

from storage.matcher_state import newest_decision
from storage.models import AssignmentRow, TrackletRow, WatchNoticeRow, WatchRow
from storage.statements import add_numbered, wait_for_decisions
from storage.watch_heirs import going_on, heirs
from storage.watches import Notice, find_notices, is_first
from storage.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.orm import Session

#: Under which name `consumer_offsets` keep up to which decision has been looked at, and whose turn it is to look.
OFFSET_TOPIC = "watches"
_LOOKED_AT, _TURN = 0, 1
#: Decisions looked at in one transaction: matchers may wait for it.
BATCH = 1000
MAX_ERROR_LENGTH = 500
#: A turn that lasts longer than this from now was written by a clock that ran ahead: it would be nobody's for years.
LONGEST_TURN_MS = 600_000

_NOTICES = cast("Table", WatchNoticeRow.__table__)


class _Seen(NamedTuple):
    """A decision on a tracklet, which still holds."""

    assignment_id: int
    tracklet_id: str
    vehicle_id: str
    camera: str
    started_at: datetime
    correction_id: int | None


def look_out(session: Session, at: datetime) -> bool:
    """Looks at the decisions made since the last time, and notes which watched vehicles they bring back.

    None is missed: where decisions are being made, it waits for them, `statements.READER_TIMEOUT_S` at most. Of several
    who look at once, one is heard.

    Args:
        session: Of `Database.transaction`.
        at: Now, by the clock.

    Returns:
        Whether there may be more to look at.

    Raises:
        OffsetConflictError: Another has looked meanwhile.
        TransientStorageError: It waited in vain.
    """
    watches = going_on(session)
    if not watches:
        return False
    looked_at = Writer(session).next_offset(OFFSET_TOPIC, _LOOKED_AT)
    after = max(min(found.after for found in watches), looked_at or 0)
    if newest_decision(session) <= after:
        return False
    wait_for_decisions(session)
    numbers = select(AssignmentRow.assignment_id).where(AssignmentRow.assignment_id > after)
    last = session.scalars(numbers.order_by(AssignmentRow.assignment_id).limit(BATCH)).all()
    until = _end_of_correction(session, last[-1])
    # First, so that whoever looks beside this one stands aside before it writes anything.
    Writer(session).advance_offset(OFFSET_TOPIC, _LOOKED_AT, expected=looked_at, next_offset=until)
    _note(session, watches, _seen(session, after, until), at)
    return len(last) == BATCH


def has_work(session: Session) -> bool:
    """Whether anything is watched, or waits to be told."""
    watched = select(WatchRow.watch_id).where(WatchRow.ended_at.is_(None)).limit(1)
    waits = select(WatchNoticeRow.notice_id).where(WatchNoticeRow.delivered_at.is_(None)).limit(1)
    return any(session.execute(asked).first() is not None for asked in (waits, watched))


def take_turn(session: Session, held: int | None, now_ms: int, until_ms: int) -> int | None:
    """Has the turn to look and to tell, or goes on having it: of several programs one does.

    Args:
        session: Of `Database.transaction`.
        held: What this function gave last time; None where it was nothing.
        now_ms: Milliseconds since the Unix epoch.
        until_ms: How long it is wanted, `LONGEST_TURN_MS` at most; a turn that isn't renewed by then is another's to
            take.

    Returns:
        The turn; None where another has it.
    """
    found = Writer(session).next_offset(OFFSET_TOPIC, _TURN)
    if found is not None and found != held and now_ms < found <= now_ms + LONGEST_TURN_MS:
        return None
    Writer(session).advance_offset(OFFSET_TOPIC, _TURN, expected=found, next_offset=until_ms)
    return until_ms


def waiting(session: Session) -> list[int]:
    """The numbers of what is to be told; what has failed most often last."""
    row = WatchNoticeRow
    wanted = select(row.notice_id).where(row.delivered_at.is_(None), is_first()).order_by(row.attempts, row.notice_id)
    return list(session.scalars(wanted))


def to_tell(session: Session, numbers: Sequence[int]) -> list[Notice]:
    """The notices of these numbers that are still there, in the order of `waiting`; three SQL statements."""
    row = WatchNoticeRow
    return find_notices(session, row.notice_id.in_(numbers), order=(row.attempts, row.notice_id))


def note_delivery(session: Session, notice_id: int, at: datetime) -> None:
    """Everybody has been told."""
    session.execute(update(_NOTICES).where(_of_one_deed(notice_id)).values(delivered_at=at))


def note_failure(session: Session, notice_id: int, error: str) -> None:
    """Somebody could not be told; why, in one line without secrets."""
    failed = {"attempts": WatchNoticeRow.attempts + 1, "error": error[:MAX_ERROR_LENGTH]}
    session.execute(update(_NOTICES).where(_of_one_deed(notice_id)).values(failed))


def _of_one_deed(notice_id: int) -> ColumnElement[bool]:
    """A notice, and those that are told of with it."""
    told = aliased(WatchNoticeRow)
    of_it = (told.watch_id == WatchNoticeRow.watch_id) & (told.correction_id == WatchNoticeRow.correction_id)
    return (WatchNoticeRow.notice_id == notice_id) | exists().where(told.notice_id == notice_id, of_it)


def _end_of_correction(session: Session, number: int) -> int:
    """The last decision of the correction that this decision is a part of; itself where it is of none."""
    of_it = aliased(AssignmentRow)
    same = select(func.max(of_it.assignment_id)).join(AssignmentRow, AssignmentRow.correction_id == of_it.correction_id)
    return session.scalar(same.where(AssignmentRow.assignment_id == number)) or number


def _seen(session: Session, after: int, until: int) -> list[_Seen]:
    """The decisions between two numbers that still hold."""
    rows = session.execute(
        select(
            AssignmentRow.assignment_id,
            AssignmentRow.tracklet_id,
            AssignmentRow.vehicle_id,
            TrackletRow.camera,
            TrackletRow.started_at,
            AssignmentRow.correction_id,
        )
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .where(AssignmentRow.assignment_id > after, AssignmentRow.assignment_id <= until, AssignmentRow.is_current)
        .order_by(AssignmentRow.assignment_id)
    )
    return [_Seen(*row) for row in rows]


def _note(session: Session, watches: Sequence[Row[*tuple[Any, ...]]], seen: Sequence[_Seen], at: datetime) -> None:
    vehicles = heirs(session, watches)
    returned = [one for one in seen if one.vehicle_id in set(vehicles.values())]
    names = sorted({one.tracklet_id for one in returned})
    history = _history(session, names)
    told = select(WatchNoticeRow.watch_id, WatchNoticeRow.tracklet_id).where(WatchNoticeRow.tracklet_id.in_(names))
    known = {(row.watch_id, row.tracklet_id) for row in session.execute(told)}
    add = add_numbered(session.get_bind().dialect.name, WatchNoticeRow)
    for one in _by_deed(returned):
        for found in watches:
            is_asked = vehicles[found.watch_id] == one.vehicle_id and one.assignment_id > found.after
            is_known = (found.watch_id, one.tracklet_id) in known
            if is_asked and not is_known and _owner(history[one.tracklet_id], found.after) != found.vehicle_id:
                session.execute(add, _notice_values(found.watch_id, one, at))


def _by_deed(seen: Sequence[_Seen]) -> list[_Seen]:
    """By number; what one correction said together, and of that the tracklet seen last first."""
    begun: dict[int | None, int] = {}
    for one in seen:
        begun.setdefault(one.correction_id, one.assignment_id)
    latest_first = sorted(seen, key=lambda one: one.started_at, reverse=True)
    return sorted(
        latest_first, key=lambda one: one.assignment_id if one.correction_id is None else begun[one.correction_id]
    )


def _notice_values(watch_id: int, one: _Seen, at: datetime) -> dict[str, object]:
    place = {"tracklet_id": one.tracklet_id, "camera": one.camera, "seen_at": one.started_at}
    made = {"correction_id": one.correction_id, "made_at": at, "attempts": 0, "error": ""}
    return {"watch_id": watch_id, **place, **made}


def _history(session: Session, names: Sequence[str]) -> dict[str, list[tuple[int, str]]]:
    """All decisions on these tracklets: their numbers and vehicles, earliest first."""
    asked = select(AssignmentRow.tracklet_id, AssignmentRow.assignment_id, AssignmentRow.vehicle_id)
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    rows = asked.where(AssignmentRow.tracklet_id.in_(names)).order_by(AssignmentRow.assignment_id)
    for tracklet_id, number, vehicle_id in session.execute(rows):
        found[tracklet_id].append((number, vehicle_id))
    return found


def _owner(history: Iterable[tuple[int, str]], at_number: int) -> str | None:
    """Whose a tracklet was when the decisions had come to a number."""
    owner = None
    for number, vehicle_id in history:
        if number <= at_number:
            owner = vehicle_id
    return owner
