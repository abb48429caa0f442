"""What people read for what the database holds: bands, times between, and why something was decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

_REASONS = {
    "new": "Nothing known fitted well enough, so it became a vehicle of its own.",
    "linked": "Of all vehicles that could have come here, this one fitted best.",
    "joined": "Its tracklet at this camera had broken off, and seemed to go on here.",
    "returned": "A vehicle that had been away for long seemed to come back: its looks decided.",
    "merge": "Somebody said that two vehicles are one.",
    "split": "Somebody said that this is another vehicle.",
    "move": "Somebody moved it here.",
    "confirm": "Somebody said that it is right.",
    "undo": "A correction was taken back: what had been decided before holds again.",
}


def reason(name: str) -> str:
    """A decision's reason, in a sentence; one that has none is told by its name."""
    return _REASONS.get(name, name)


def band(name: str) -> str:
    """A band, or a pair of them, as people say it: `near_infrared~thermal` is near infrared with thermal."""
    return name.replace("_", " ").replace("~", " with ")


def span(first: datetime, last: datetime, zone: ZoneInfo) -> str:
    """From when to when, with the day once where it is one."""
    begin, end = first.astimezone(zone), last.astimezone(zone)
    until = "%H:%M:%S" if begin.date() == end.date() else "%Y-%m-%d %H:%M:%S"
    return f"{begin:%Y-%m-%d %H:%M:%S} to {end.strftime(until)}"


def moment(at: datetime, now: datetime, zone: ZoneInfo) -> str:
    """When, with its day unless that is today."""
    there = at.astimezone(zone)
    return there.strftime("%H:%M:%S" if there.date() == now.astimezone(zone).date() else "%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def stops(count: int) -> str:
    """So many stops."""
    return f"{count} stop{'' if count == 1 else 's'}"
