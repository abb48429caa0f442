"""The commands of `python -m storage` that wait for vehicles, and say which of them returned."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from storage.report import Format, Report, show
from storage.terminal import DatabaseUrl, OutputFormat, Person, person, reading, writing

if TYPE_CHECKING:
    from storage.report import Value

_WATCH_COLUMNS = ("watch", "vehicle", "by", "since", "returns", "last_seen", "last_camera", "ended_at", "note")
_NOTICE_COLUMNS = (
    "notice",
    "watch",
    "vehicle",
    "camera",
    "seen_at",
    "tracklet",
    "tracklets",
    "found_at",
    "delivered_at",
    "attempts",
    "error",
)


def watch(
    vehicle: Annotated[str, typer.Argument(metavar="VEHICLE", help="Its id, or the first characters of it.")],
    database: DatabaseUrl,
    by: Person = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; it is told with every return.")] = "",
) -> None:
    """Wait for a vehicle: each of its returns is noted, and told to whom the site file names.

    It is `python -m web` that looks out and tells; while none runs, nothing is noted, and nothing is missed either.
    Follow it through corrections with `watches`.

    Example: watch 3f2a --note 'case 17/26' --database sqlite:///demo.db
    """
    with writing(database, "watch", by, vehicle, note=note) as session:
        from storage.watches import watch as begin

        made = begin(session, vehicle, by=person(by), at=datetime.now(UTC), note=note)
    sys.stdout.write(f"watch {made.watch_id} waits for vehicle {made.vehicle_id}; unwatch {made.watch_id} ends it\n")


def unwatch(
    number: Annotated[int, typer.Argument(metavar="WATCH", help="Its number, as `watches` lists it.")],
    database: DatabaseUrl,
    by: Person = None,
) -> None:
    """Wait for a vehicle no longer. What returned until now stays to be read.

    Example: unwatch 3 --database sqlite:///demo.db
    """
    with writing(database, "unwatch", by, watch=number) as session:
        from storage.watches import unwatch as end

        end(session, number, by=person(by), at=datetime.now(UTC))
    sys.stdout.write(f"watch {number} has ended\n")


def watches(
    database: DatabaseUrl,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that have ended.")] = False,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List the vehicles that are waited for, and how often each returned.

    Example: watches --database sqlite:///demo.db
    """
    with reading(database, "watches", by, ended=ended) as session:
        from storage.watches import watches as find

        rows: list[tuple[Value, ...]] = [
            (
                one.watch_id,
                one.vehicle_id,
                one.made_by,
                one.made_at,
                one.notices,
                one.last_seen,
                one.last_camera,
                one.ended_at,
                one.note,
            )
            for one in find(session, ended=ended)
        ]
        show(Report(_WATCH_COLUMNS, rows, f"{len(rows)} watched"), output)


def notices(
    database: DatabaseUrl,
    number: Annotated[int | None, typer.Option("--watch", metavar="WATCH", help="Only of this watch.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List which watched vehicles returned, the latest first, and who could not be told of it yet.

    Example: notices --watch 3 --database sqlite:///demo.db
    """
    with reading(database, "notices", by, watch=number, limit=limit) as session:
        from storage.watches import notices as find

        rows: list[tuple[Value, ...]] = [
            (
                one.notice_id,
                one.watch_id,
                one.vehicle_id,
                one.camera,
                one.seen_at,
                one.tracklet_id,
                one.tracklets,
                one.made_at,
                one.delivered_at,
                one.attempts,
                one.error,
            )
            for one in find(session, watch_id=number, limit=limit)
        ]
        show(Report(_NOTICE_COLUMNS, rows, f"{len(rows)} returns"), output)


COMMANDS = (watch, unwatch, watches, notices)
