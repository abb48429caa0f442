"""What any question may be asked with: times that have a zone and lie in order, seconds that can be counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from storage.errors import QuestionError

#: The longest that is asked for in seconds: a leap year.
MAX_S = 366 * 86_400.0
# Before a window's beginning is looked for what goes on in it.
_BEFORE = timedelta(days=1)


def check_window(start: datetime | None, end: datetime | None) -> None:
    """Checks the times of [start, end); None: no such end.

    Raises:
        QuestionError: One of them has no zone or is out of range, or the window ends before it begins.
    """
    for name, moment in (("start", start), ("end", end)):
        if moment is not None:
            check_moment(name, moment)
    if start is not None and end is not None and start >= end:
        raise QuestionError(f"end: wanted a time after the start {start.isoformat()}, got {end.isoformat()}")


def check_moment(name: str, moment: datetime) -> None:
    """Checks a time.

    Raises:
        QuestionError: It has no zone, or is out of range.
    """
    if moment.utcoffset() is None:
        raise QuestionError(f"{name}: wanted a time with its zone, got {moment.isoformat()}")
    try:
        _ = moment.astimezone(UTC) - _BEFORE
    except OverflowError as error:
        raise QuestionError(f"{name}: {moment.isoformat()} is out of range") from error


def check_seconds(name: str, seconds: float, *, least: float = 0.0) -> None:
    """Checks how long something takes.

    Raises:
        QuestionError: It is no number of seconds from `least` to `MAX_S`.
    """
    if not least <= seconds <= MAX_S:
        raise QuestionError(f"{name}: wanted {least:g} to {MAX_S:.0f} seconds, got {seconds:g}")
