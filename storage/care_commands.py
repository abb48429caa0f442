"""The commands of `python -m storage` on what is kept, for how long, and who asked for it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from storage.errors import StorageError
from storage.locations import database_folder
from storage.report import Format, Report, show
from storage.terminal import (
    CropsDir,
    DatabaseUrl,
    OutputFormat,
    Person,
    crop_store,
    moment,
    opened,
    person,
    reading,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.disk_forecast import Growth
    from storage.forget import Belongings
    from storage.removal import Removed
    from storage.report import Value

Held = Annotated[
    str, typer.Argument(metavar="ID", help="A tracklet's id (with a / in it), or the first characters of a vehicle's.")
]
Days = Annotated[float | None, typer.Option(min=0.1, help="Older ones go, by event time. Default: they stay.")]
_DISK_COLUMNS = ("what", "folder", "bytes_per_tracklet", "bytes_per_day", "bytes_free", "days_left")


def hold(
    what: Held,
    database: DatabaseUrl,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why, such as a file number.")] = "",
    by: Person = None,
) -> None:
    """Keep a tracklet, or all tracklets that a vehicle has by now, past their days: a legal hold.

    Pictures, vectors, paths and decisions stay until `release`, and `forget` is refused. Tracklets that the vehicle is
    given later are not held.

    Example: hold 3f2a --note 'case 17/26' --database sqlite:///demo.db
    """
    with writing(database, "hold", by, what, note=note) as session:
        from storage import holds as book

        new = book.hold(session, what, by=person(by), at=datetime.now(UTC), note=note)
    sys.stdout.write(f"{len(new)} tracklets held; release {what} lets go of them\n")


def release(what: Held, database: DatabaseUrl, by: Person = None) -> None:
    """Let go of what is held. What has become too old meanwhile goes with the next retention.

    Example: release 3f2a --database sqlite:///demo.db
    """
    with writing(database, "release", by, what) as session:
        from storage import holds as book

        released = book.release(session, what)
    sys.stdout.write(f"{len(released)} tracklets released\n")


def holds(database: DatabaseUrl, by: Person = None, output: OutputFormat = Format.TABLE) -> None:
    """List what is held, by whom, and why.

    Example: holds --database sqlite:///demo.db
    """
    with reading(database, "holds", by) as session:
        from storage.holds import holds as find

        rows = [(one.tracklet_id, one.vehicle_id, one.held_by, one.held_at, one.note) for one in find(session)]
        show(Report(("tracklet", "vehicle", "by", "since", "note"), rows, f"{len(rows)} held"), output)


def forget(
    vehicle: Annotated[str, typer.Argument(metavar="VEHICLE", help="Its id, or the first characters of it.")],
    database: DatabaseUrl,
    crops_dir: CropsDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, what would go is shown, and stays.")] = False,
    in_view: Annotated[
        bool, typer.Option("--in-view", help="Although no end of it has come: what is said of it next begins anew.")
    ] = False,
    by: Person = None,
) -> None:
    """Have a vehicle forgotten: its tracklets, paths, vectors, decisions and pictures. Nothing brings them back.

    A running matcher lets go of it within seconds. Refused while a part of it is held. Who did it and when stays in
    the audit, with the vehicle's id. Decisions on other vehicles may still name its tracklets among those that were
    weighed: ids and figures, no picture and no vector. What lies in Kafka until its own retention, in a backup or in
    an export is not touched: a site that reads its topic from the beginning into an EMPTY database would store it
    again.

    Example: forget 3f2a --database sqlite:///demo.db --yes
    """
    from storage import forget as forgetting

    if not yes:
        with reading(database, "forget?", by, vehicle) as session:
            sys.stdout.write(f"{_would_go(forgetting.belongings(session, vehicle))}\nNothing is done without --yes.\n")
        return
    with writing(database, forgetting.FORGET, by, vehicle) as session:
        crops = crop_store("forget", database, crops_dir)
        removed = forgetting.forget(session, crops, vehicle, although_in_view=in_view)
    sys.stdout.write(f"forgotten: {_told(removed)}\n")


def audit(
    database: DatabaseUrl,
    vehicle: Annotated[
        str | None,
        typer.Option(help="Only what named this vehicle, forgotten or not, or a tracklet that is its own by now."),
    ] = None,
    of_person: Annotated[str | None, typer.Option("--person", metavar="NAME", help="Only what NAME asked.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Only from this time on.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List who asked what, and who held, corrected or had forgotten which vehicle; latest first.

    Example: audit --vehicle 3f2a --database sqlite:///demo.db
    """
    with reading(database, "audit", by, vehicle or "", of_person=of_person, start=start) as session:
        from storage.audit import entries

        found = entries(session, vehicle=vehicle, person=of_person, start=moment("--from", start), limit=limit)
        rows = [
            (one.at, one.person, one.action, one.subject, json.dumps(one.details, ensure_ascii=False)) for one in found
        ]
        show(Report(("at", "person", "action", "subject", "details"), rows, f"{len(rows)} questions"), output)


def retain(  # noqa: PLR0913 - a parameter for each option
    database: DatabaseUrl,
    crops_dir: CropsDir = None,
    crops_days: Days = None,
    embeddings_days: Days = None,
    tracklets_days: Days = None,
    audit_days: Days = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is too old, and remove nothing.")] = False,
    by: Person = None,
) -> None:
    """Remove what is too old, as a running matcher does by itself with `retention` in its site file.

    Days count from now, by event time. What is held stays. It may be broken off and begun again, and cameras may be
    running.

    Example: retain --database sqlite:///demo.db --crops-days 30 --tracklets-days 365 --dry-run
    """
    days = {"crops": crops_days, "embeddings": embeddings_days, "tracklets": tracklets_days, "audit": audit_days}
    with opened(database, "retain", by, dry_run=dry_run, days=days) as found:
        from storage.retention import Limits, Retention

        if all(limit is None for limit in days.values()):
            raise StorageError("retain: say what goes: --crops-days, --embeddings-days, --tracklets-days, --audit-days")
        limits = Limits(crops_days, embeddings_days, tracklets_days, audit_days)
        retention, now = Retention(found, crop_store("retain", database, crops_dir), limits), datetime.now(UTC)
        with found.snapshot() as session:
            due = retention.due(session, now)
        if dry_run:
            told = ", ".join(f"{count} {name}" for name, count in due.items() if count)
            sys.stdout.write(f"too old, held ones among them: {told or 'nothing'}\n")
            return
        sys.stdout.write(f"removed: {_told(_all(retention.run(now), sum(due.values())))}\n")
        if retention.trouble:
            raise StorageError(f"retain: not all pictures could be removed: {retention.trouble}")


def disk(
    database: DatabaseUrl, crops_dir: CropsDir = None, by: Person = None, output: OutputFormat = Format.TABLE
) -> None:
    """Say how long the disk will last, by what the last seven days have added.

    What retention will remove is not counted back, so that it lasts at least so long. The rate counts from now, or
    from the newest event where that is older than a week.

    Example: disk --database sqlite:///demo.db
    """
    with reading(database, "disk", by) as session:
        from storage.disk_forecast import recent_growth

        crops = crop_store("disk", database, crops_dir)
        found = recent_growth(session, crops, datetime.now(UTC))
        title = f"{found.tracklets_per_day:.0f} tracklets a day, over {found.days:.1f} days"
        show(Report(_DISK_COLUMNS, _disk_rows(found, crops.root, database_folder(database)), title), output)


COMMANDS = (hold, release, holds, forget, audit, retain, disk)


def _would_go(found: Belongings) -> str:
    told = (
        f"vehicle {found.vehicle_id}, at {', '.join(found.cameras) or 'no camera'}: "
        f"{len(found.tracklet_ids)} tracklets, {found.sightings} sightings, {found.embeddings} vectors, "
        f"{len(found.pictures)} pictures"
    )
    held = f"\nheld, so it can't go: {', '.join(found.held)}" if found.held else ""
    in_view = f"\nmay still be in view: {', '.join(found.in_view)}" if found.in_view else ""
    return f"{told}{held}{in_view}"


def _told(removed: Removed) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in removed.counts().items()) or "nothing"


def _all(passes: Iterator[Removed], due: int) -> Removed:
    """The sum of what was removed, with a bar for people who watch."""
    from rich.console import Console
    from rich.progress import Progress

    from storage.removal import Removed as Sum

    console, total = Console(stderr=True), Sum()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("removing", total=due or None)
        for removed in passes:
            total += removed
            bar.update(task, advance=removed.pictures + removed.missing + removed.embeddings + removed.tracklets)
    return total


def _disk_rows(growth: Growth, crops: Path, database: Path | None) -> list[tuple[Value, ...]]:
    pictures, rows = growth.picture_bytes_per_day, growth.database_bytes_per_day
    # On one disk they fill it together.
    is_shared = database is not None and crops.stat().st_dev == database.stat().st_dev
    total = pictures + rows
    return [
        _disk_row("pictures", crops, growth.picture_bytes_per_tracklet, pictures, total if is_shared else pictures),
        _disk_row("database", database, growth.database_bytes_per_tracklet, rows, total if is_shared else rows),
    ]


def _disk_row(
    what: str, folder: Path | None, bytes_per_tracklet: float, bytes_per_day: float, added_per_day: float
) -> tuple[Value, ...]:
    from storage.disk_forecast import disk_days_left, free_bytes

    days = None if folder is None else disk_days_left(folder, added_per_day)
    return (
        what,
        None if folder is None else str(folder),
        round(bytes_per_tracklet),
        round(bytes_per_day),
        None if folder is None else free_bytes(folder),
        None if days is None else round(days, 1),
    )
