"""Who asked for a vehicle, and who had one held, forgotten or corrected.

The commands of `python -m storage` note every question before it is answered: see `storage.terminal`. The functions of
this room note nothing by themselves, since a matcher asks them too; a program that answers people calls `note`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, or_, select, tuple_

from storage.errors import StorageError
from storage.lookup import find_tracklet, find_vehicle
from storage.models import AssignmentRow, AuditRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

MAX_PERSON_LENGTH = 64
_MAX_SUBJECT_LENGTH = 192


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question about vehicles, or a deed.

    Attributes:
        action: The command: `trajectory`, `export`, `forget`.
        person: Who asks.
        subject: A vehicle or a tracklet (with a `/` in it), by its id or a part of it; empty: a question about many.
        details: Filters, notes and whatever else the command was told, as JSON.
    """

    action: str
    person: str
    subject: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < len(self.person) <= MAX_PERSON_LENGTH:
            raise StorageError(f"who asks? wanted a name of at most {MAX_PERSON_LENGTH} letters, got {self.person!r}")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One note.

    Attributes:
        at: When, by the clock.
        person: Who.
        action: What was asked or done.
        subject: The vehicle or tracklet; empty: a question about many.
        details: Filters and notes.
        number: Later ones are higher.
    """

    at: datetime
    person: str
    action: str
    subject: str
    details: dict[str, Any]
    number: int = field(default=0, compare=False)


def note(session: Session, inquiry: Inquiry, at: datetime) -> None:
    """Notes who asks what. The question must not be answered unless the session's transaction is committed.

    Args:
        session: Of `Database.transaction`.
        inquiry: The subject is noted by its whole id where it is known, and as given where not.
        at: The clock.
    """
    given = {name: value for name, value in inquiry.details.items() if value not in (None, "", [], ())}
    values = {
        "at": at,
        "person": inquiry.person,
        "action": inquiry.action,
        "subject": _whole(session, inquiry.subject)[:_MAX_SUBJECT_LENGTH],
        "details": given,
    }
    session.execute(insert(AuditRow), [values])


def entries(
    session: Session,
    *,
    vehicle: str | None = None,
    person: str | None = None,
    start: datetime | None = None,
    behind: tuple[datetime, int] | None = None,
    limit: int | None = None,
) -> list[AuditEntry]:
    """What was noted, latest first.

    Args:
        session: To read from.
        vehicle: Only what named this vehicle, or a tracklet that is its own by now; by the beginning of its id. One
            that is forgotten is found too.
        person: Only what this person asked.
        start: Only what was asked at this moment or later.
        behind: Only what comes after the note of this time and number.
        limit: At most so many.
    """
    row = AuditRow
    wanted = select(row.at, row.person, row.action, row.subject, row.details, row.audit_id)
    if vehicle is not None:
        begins_so = AssignmentRow.vehicle_id.startswith(vehicle, autoescape=True)
        own = select(AssignmentRow.tracklet_id).where(begins_so, AssignmentRow.is_current)
        wanted = wanted.where(or_(row.subject.startswith(vehicle, autoescape=True), row.subject.in_(own)))
    if person is not None:
        wanted = wanted.where(row.person == person)
    if start is not None:
        wanted = wanted.where(row.at >= start)
    if behind is not None:
        wanted = wanted.where(tuple_(row.at, row.audit_id) < behind)
    rows = session.execute(wanted.order_by(row.at.desc(), row.audit_id.desc()).limit(limit))
    return [AuditEntry(*found) for found in rows]


def _whole(session: Session, subject: str) -> str:
    if not subject:
        return subject
    try:
        return (
            find_tracklet(session, subject).tracklet_id if "/" in subject else find_vehicle(session, subject).vehicle_id
        )
    except StorageError:
        return subject  # not known, or not clear: the command itself will say so
