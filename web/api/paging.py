"""Pages by key: a page begins behind the last row of the one before, whatever was added or removed in between."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Row = TypeVar("Row")
Key = tuple[Any, ...]


class Page(BaseModel, Generic[Item]):
    """A part of a list."""

    items: list[Item] = Field(description="In the order that the question has.")
    next: str | None = Field(
        default=None,
        description="`cursor` of the page behind this one; null: there is none.",
    )


def encode(question: str, key: Key) -> str:
    """Where a page ended, as text that says nothing to anybody else."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in key]
    return base64.urlsafe_b64encode(json.dumps([question, *parts]).encode()).decode().rstrip("=")


def decode(question: str, kinds: tuple[type, ...], cursor: str | None) -> Key | None:
    """Where the page before ended; None at the first one.

    Args:
        question: As it was encoded with: a cursor of another question is refused.
        kinds: Of the key's parts.
        cursor: As it was given.

    Raises:
        RequestValidationError: It isn't one of this question's.
    """
    if cursor is None:
        return None
    try:
        name, *parts = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if name != question or len(parts) != len(kinds):
            raise ValueError(cursor)
        return tuple(_part(kind, part) for kind, part in zip(kinds, parts, strict=True))
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as error:
        fault = {"loc": ("query", "cursor"), "msg": "wanted `next` of this question's page before", "type": "cursor"}
        raise RequestValidationError([fault]) from error


def _part(kind: type, part: object) -> object:
    if kind is datetime:
        if not isinstance(part, str):
            raise ValueError(part)
        return datetime.fromisoformat(part).astimezone(UTC)
    if not isinstance(part, kind) or isinstance(part, bool):
        raise ValueError(part)
    if isinstance(part, str) and not part.isprintable():
        raise ValueError(part)
    if isinstance(part, int) and abs(part) >= 2**63:
        raise ValueError(part)
    return part


def cut(
    rows: Sequence[Row], limit: int, question: str, key: Callable[[Row], Key], shown: Callable[[Row], Item]
) -> Page[Item]:
    """A page of rows that were asked for with one more than it may have.

    Args:
        rows: At most `limit` + 1.
        limit: So many are shown.
        question: Whose.
        key: What the next page begins behind.
        shown: What is answered for a row.
    """
    page = rows[:limit]
    return Page(items=[shown(row) for row in page], next=encode(question, key(page[-1])) if len(rows) > limit else None)


def behind(rows: Sequence[Row], limit: int, cursor: Key | None, key: Callable[[Row], Key]) -> list[Row]:
    """The rows of a page, and one more, of a short answer that is whole: sorted by key, those behind the cursor."""
    ordered = sorted(rows, key=key)
    return [row for row in ordered if cursor is None or key(row) > cursor][: limit + 1]
