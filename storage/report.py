"""Answers on the terminal, as a table for people or as JSON or CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from storage.export import utc_text
from storage.records import MATCHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.answers import Stop, Trajectory, VehicleSummary
    from storage.dead_letters import DeadLetter
    from storage.history import Correction

Value = str | int | float | bool | datetime | tuple[str, ...] | None


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Report:
    """An answer: named columns and their rows.

    Attributes:
        columns: Their names.
        rows: As many values each.
        title: Above the table; programs don't get it.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]
    title: str = ""


VEHICLE_COLUMNS = ("vehicle", "class", "first_seen", "last_seen", "cameras", "tracklets", "modalities")
STOP_COLUMNS = (
    "vehicle",
    "stop",
    "camera",
    "arrival",
    "departure",
    "modalities",
    "frames",
    "transit_s",
    "probability",
    "reason",
    "provisional",
    "decided_by",
    "tracklet",
    "crop_image",
    "context_image",
    "camera_trouble",
)
# A terminal has no room for what every row repeats, nor for paths.
_NOT_IN_TABLES = frozenset({"vehicle", "crop_image", "context_image"})
CORRECTION_COLUMNS = (
    "correction",
    "made_at",
    "by",
    "kind",
    "moved",
    "from",
    "to",
    "confirmed",
    "undoes",
    "undone_by",
    "note",
)
DEAD_LETTER_COLUMNS = ("at", "topic", "partition", "offset", "reason", "bytes")


def vehicles_report(vehicles: Sequence[VehicleSummary]) -> Report:
    """A list of vehicles, one row each."""
    rows = [
        (
            vehicle.vehicle_id,
            vehicle.vehicle_class,
            vehicle.first_seen,
            vehicle.last_seen,
            vehicle.cameras,
            vehicle.tracklets,
            vehicle.modalities,
        )
        for vehicle in vehicles
    ]
    return Report(VEHICLE_COLUMNS, rows, f"{len(rows)} vehicle{'' if len(rows) == 1 else 's'}")


def trajectory_report(trajectory: Trajectory, form: Format) -> Report:
    """A vehicle's stops, one row each; as a table without the columns that only programs want."""
    rows = [_stop_row(trajectory, number, stop) for number, stop in enumerate(trajectory.stops, start=1)]
    title = f"{trajectory.vehicle_class} {trajectory.vehicle_id}"
    if form is not Format.TABLE:
        return Report(STOP_COLUMNS, rows, title)
    is_all_the_matchers = all(stop.decided_by == MATCHER for stop in trajectory.stops)
    left_out = _NOT_IN_TABLES | ({"decided_by"} if is_all_the_matchers else set())
    if all(stop.camera_trouble is None for stop in trajectory.stops):
        left_out |= {"camera_trouble"}
    shown = [index for index, name in enumerate(STOP_COLUMNS) if name not in left_out]
    columns = tuple(STOP_COLUMNS[index] for index in shown)
    return Report(columns, [tuple(row[index] for index in shown) for row in rows], title)


def corrections_report(corrections: Sequence[Correction]) -> Report:
    """What was corrected, one row each."""
    rows: list[tuple[Value, ...]] = [
        (
            made.correction_id,
            made.made_at,
            made.made_by,
            made.kind,
            len(made.moved),
            tuple(sorted({change.before for change in made.moved if change.before is not None})),
            tuple(sorted({change.after for change in made.moved})),
            len(made.changes) - len(made.moved),
            made.undoes,
            made.undone_by,
            made.note,
        )
        for made in corrections
    ]
    return Report(CORRECTION_COLUMNS, rows, f"{len(rows)} correction{'' if len(rows) == 1 else 's'}")


def dead_letters_report(letters: Sequence[DeadLetter]) -> Report:
    """What could not be used, one row each; of the message itself its length, since most are no text."""
    rows: list[tuple[Value, ...]] = [
        (letter.at, letter.topic, letter.partition, letter.offset, letter.reason, len(letter.payload))
        for letter in letters
    ]
    return Report(DEAD_LETTER_COLUMNS, rows, f"{len(rows)} dead letter{'' if len(rows) == 1 else 's'}")


def show(report: Report, form: Format) -> None:
    """Prints an answer to the standard output."""
    if form is Format.JSON:
        items = [dict(zip(report.columns, map(_json_value, row), strict=True)) for row in report.rows]
        json.dump(items, sys.stdout, indent=2, ensure_ascii=False)
        sys.stdout.write("\n")
    elif form is Format.CSV:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(report.columns)
        table.writerows([[_text(value, " ") for value in row] for row in report.rows])
    else:
        _show_table(report)


def _stop_row(trajectory: Trajectory, number: int, stop: Stop) -> tuple[Value, ...]:
    return (
        trajectory.vehicle_id,
        number,
        stop.camera,
        stop.arrival,
        stop.departure,
        stop.modalities,
        len(stop.path),
        None if stop.transit_s is None else round(stop.transit_s, 3),
        None if stop.probability is None else round(stop.probability, 4),
        stop.reason,
        stop.is_provisional,
        stop.decided_by,
        stop.tracklet_id,
        stop.crop_image,
        stop.context_image,
        stop.camera_trouble,
    )


def _json_value(value: Value) -> str | int | float | bool | list[str] | None:
    if isinstance(value, datetime):
        return utc_text(value)
    return list(value) if isinstance(value, tuple) else value


def _text(value: Value, separator: str, timespec: str = "microseconds") -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return utc_text(value, timespec)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return separator.join(value) if isinstance(value, tuple) else str(value)


def _show_table(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # In a pipe there is no width to keep to, and a value cut short is of no use to the next program.
    console = Console() if sys.stdout.isatty() else Console(width=240)
    table = Table(title=report.title or None, title_justify="left")
    for name in report.columns:
        table.add_column(name, overflow="fold")
    for row in report.rows:
        # Text, since a name with [brackets] in it is no markup.
        table.add_row(
            *(
                Text(_text(value, " > " if name == "cameras" else ", ", "milliseconds"))
                for name, value in zip(report.columns, row, strict=True)
            )
        )
    console.print(table)
