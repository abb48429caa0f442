"""What the matcher could not use, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from storage.models import DeadLetterRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was put aside.

    Attributes:
        at: When it was found.
        topic: Where it was read.
        partition: Where in the topic.
        offset: Where in the partition.
        reason: Why it could not be used, in one line.
        payload: Its bytes, or the first `storage.writer.MAX_DEAD_LETTER_BYTES` of them.
    """

    at: datetime
    topic: str
    partition: int
    offset: int
    reason: str
    payload: bytes


def load_dead_letters(session: Session, *, limit: int | None = None) -> list[DeadLetter]:
    """The messages put aside, the newest first.

    Args:
        session: Where to ask.
        limit: At most so many.
    """
    table = DeadLetterRow.__table__
    newest = select(table).order_by(table.c.at.desc(), table.c.topic, table.c.partition, table.c.offset.desc())
    return [DeadLetter(**row) for row in session.execute(newest.limit(limit)).mappings()]


def count_dead_letters(session: Session) -> int:
    """How many there are."""
    return session.execute(select(func.count()).select_from(DeadLetterRow)).scalar_one()
