"""Decisions as they were made, one after the other, and corrected."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, select
from sqlalchemy.orm import aliased

from storage.models import AssignmentRow, CorrectionRow, TrackletRow
from storage.records import MATCHER, AssignmentRecord
from storage.windows import at_visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from sqlalchemy import ColumnExpressionArgument, Row
    from sqlalchemy.orm import Session

_ON_TRACKLET = TrackletRow.tracklet_id == AssignmentRow.tracklet_id
_FIELDS = tuple(field.name for field in fields(AssignmentRecord))


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the decisions' book.

    Attributes:
        assignment_id: Its number; later ones are higher.
        said: What was decided.
        supersedes: The number of the decision on the same tracklet that it took the place of; None for the first.
        is_current: Whether none has taken its place.
        correction_id: The correction that it is a part of; None for an ordinary decision.
    """

    assignment_id: int
    said: AssignmentRecord
    supersedes: int | None
    is_current: bool
    correction_id: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What a correction did to one tracklet.

    Attributes:
        tracklet_id: The tracklet.
        before: The vehicle it belonged to; None where none had been decided.
        after: The vehicle it belonged to then; the same where it was only confirmed there.
    """

    tracklet_id: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class Correction:
    """Decisions that were changed together.

    Attributes:
        correction_id: Its number; later ones are higher.
        kind: `merge`, `split`, `move`, `confirm` or `undo`.
        made_by: `matcher`, or a person's name.
        made_at: Event time for the matcher, the clock for a person.
        note: Why, in that person's words.
        undoes: The correction that it takes back, or None.
        undone_by: The correction that takes it back, or None.
        changes: By tracklet.
    """

    correction_id: int
    kind: str
    made_by: str
    made_at: datetime
    note: str
    undoes: int | None
    undone_by: int | None
    changes: tuple[Change, ...]

    @property
    def moved(self) -> tuple[Change, ...]:
        """The changes that gave a tracklet another vehicle; the others confirmed the one that it had."""
        return tuple(change for change in self.changes if change.before != change.after)


def assignment_record(row: AssignmentRow | Row[Any]) -> AssignmentRecord:
    """What the columns of that row say."""
    return AssignmentRecord(**{name: getattr(row, name) for name in _FIELDS})


def decisions(session: Session, *conditions: ColumnExpressionArgument[bool]) -> list[Decision]:
    """The decisions that meet all the conditions, earliest first; one SQL statement."""
    # Of the table, not of its class: what was loaded as an object before would come back as it was then.
    table = cast("Table", AssignmentRow.__table__)
    return _decisions(session.execute(select(table).where(*conditions).order_by(table.c.assignment_id)))


def _decisions(rows: Iterable[Row[Any]]) -> list[Decision]:
    return [
        Decision(row.assignment_id, assignment_record(row), row.supersedes, row.is_current, row.correction_id)
        for row in rows
    ]


def corrections(
    session: Session,
    *,
    limit: int | None = None,
    before: int | None = None,
    people_only: bool = False,
    tracklet_id: str | None = None,
    visible: Collection[str] | None = None,
) -> list[Correction]:
    """What was corrected, latest first; two SQL statements.

    Args:
        session: To read from.
        limit: At most so many.
        before: Only those of a lower number.
        people_only: Leaves out what the matcher's second look did.
        tracklet_id: Only those that decided on this tracklet.
        visible: The only cameras whose tracklets there are: of others no change is told, nor a correction that changed
            nothing else; None: all.
    """
    later = aliased(CorrectionRow)
    chosen = select(CorrectionRow.correction_id).order_by(CorrectionRow.correction_id.desc()).limit(limit)
    if before is not None:
        chosen = chosen.where(CorrectionRow.correction_id < before)
    if people_only:
        chosen = chosen.where(CorrectionRow.made_by != MATCHER)
    if tracklet_id is not None:
        own = select(AssignmentRow.correction_id).where(AssignmentRow.tracklet_id == tracklet_id)
        chosen = chosen.where(CorrectionRow.correction_id.in_(own.where(AssignmentRow.correction_id.is_not(None))))
    if visible is not None:
        seen = at_visible(select(AssignmentRow.correction_id).join(TrackletRow, _ON_TRACKLET), visible)
        chosen = chosen.where(CorrectionRow.correction_id.in_(seen.where(AssignmentRow.correction_id.is_not(None))))
    ids = chosen.subquery()
    rows = session.execute(
        select(
            CorrectionRow.correction_id,
            CorrectionRow.kind,
            CorrectionRow.made_by,
            CorrectionRow.made_at,
            CorrectionRow.note,
            CorrectionRow.undoes,
            later.correction_id.label("undone_by"),
        )
        .join(ids, ids.c.correction_id == CorrectionRow.correction_id)
        .outerjoin(later, later.undoes == CorrectionRow.correction_id)
        .order_by(CorrectionRow.correction_id.desc())
    ).all()
    changes = _changes(session, AssignmentRow.correction_id.in_(select(ids.c.correction_id)), visible)
    return [Correction(*row, changes=tuple(changes.get(row.correction_id, ()))) for row in rows]


def _changes(
    session: Session, condition: ColumnExpressionArgument[bool], visible: Collection[str] | None
) -> dict[int | None, list[Change]]:
    before = aliased(AssignmentRow)
    changed = (
        select(AssignmentRow.correction_id, AssignmentRow.tracklet_id, before.vehicle_id, AssignmentRow.vehicle_id)
        .join(TrackletRow, _ON_TRACKLET)
        .outerjoin(before, before.assignment_id == AssignmentRow.supersedes)
        .where(condition)
        .order_by(AssignmentRow.tracklet_id)
    )
    found: dict[int | None, list[Change]] = {}
    for correction_id, *change in session.execute(at_visible(changed, visible)):
        found.setdefault(correction_id, []).append(Change(*change))
    return found
