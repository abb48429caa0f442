"""`python -m storage`: ask the database where vehicles went, and why; and correct it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from storage.care_commands import COMMANDS as CARE_COMMANDS
from storage.correction_commands import COMMANDS as CORRECTION_COMMANDS
from storage.errors import StorageError
from storage.export import write_boxes, write_crops
from storage.likeness_commands import COMMANDS as LIKENESS_COMMANDS
from storage.report import Format, Report, dead_letters_report, show, trajectory_report, vehicles_report
from storage.terminal import CropsDir, DatabaseUrl, OutputFormat, Person, crop_store, moment, reading
from storage.watch_commands import COMMANDS as WATCH_COMMANDS

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from storage.crop_store import CropStore

app = typer.Typer(
    help=(
        "Ask where vehicles went and why, and correct what is wrong. All of it may be done while cameras are running; "
        "a correction loses nothing: it adds decisions, and `undo` takes it back. Who asks is noted: see `audit`.\n\n"
        "Begin with the list, then follow one vehicle by the first characters of its id:\n\n"
        "  python -m storage vehicles --database sqlite:///demo.db --min-cameras 2\n\n"
        "  python -m storage trajectory 3f2a --database sqlite:///demo.db\n\n"
        "Ask of one of its tracklets why it is there, and merge, split or move where that convinces nobody:\n\n"
        "  python -m storage why gate/s1/7 --database sqlite:///demo.db"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class AsOf(StrEnum):
    """Which decisions an export follows."""

    DECISION = "decision"
    FINAL = "final"


@app.command()
def vehicles(  # noqa: PLR0913 - a parameter for each option
    database: DatabaseUrl,
    camera: Annotated[str | None, typer.Option(help="Only vehicles that this camera saw.")] = None,
    min_cameras: Annotated[int, typer.Option(min=1, help="Only vehicles that this many cameras saw.")] = 1,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only vehicles in view at this time or later.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Only vehicles in view before this time.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List vehicles, in the order they were first seen.

    TIME is ISO 8601, such as 2026-01-01T12:30 or 2026-01-01T13:30+01:00; UTC where it names no zone.

    Example: vehicles --database sqlite:///demo.db --camera gate --from 2026-01-01T12:00 --format csv
    """
    with reading(database, "vehicles", by, camera=camera, start=start, end=end, min_cameras=min_cameras) as session:
        from storage.trajectories import vehicles as find

        found = find(
            session,
            start=moment("--from", start),
            end=moment("--to", end),
            camera=camera,
            min_cameras=min_cameras,
            limit=limit,
        )
        show(vehicles_report(found), output)


@app.command()
def trajectory(
    vehicle: Annotated[str, typer.Argument(metavar="VEHICLE", help="Its id, or the first characters of it.")],
    database: DatabaseUrl,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Show where one vehicle went: a row for each stay in a camera's view, and why it was taken for this vehicle's.

    Example: trajectory 3f2a --database sqlite:///demo.db --format json
    """
    with reading(database, "trajectory", by, vehicle) as session:
        from storage.trajectories import trajectory as find

        show(trajectory_report(find(session, vehicle), output), output)


@app.command()
def export(  # noqa: PLR0913 - a parameter for each option
    database: DatabaseUrl,
    boxes: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write every box of every vehicle to this file.")
    ] = None,
    as_of: Annotated[
        AsOf, typer.Option(help="Follow what was said when each tracklet ended, or what is known now.")
    ] = AsOf.FINAL,
    crops: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a folder that reid.train reads; new or empty.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="As --crops, only what people have decided, with pairs.csv; new or empty."),
    ] = None,
    crops_dir: CropsDir = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Write boxes, crops or people's corrections to files.

    The boxes' columns are camera,t,captured_at,frame,vehicle,x1,y1,x2,y2: t in seconds since that camera's start,
    frame from 0, coordinates in source pixels; one row at most for a vehicle in a frame. A row of pairs.csv
    has two crops of which a person has said that they are of one vehicle (same 1) or of two (same 0).

    Example: export --database sqlite:///demo.db --boxes boxes.csv --as-of decision
    """
    written = {"boxes": str(boxes or ""), "crops": str(crops or ""), "labels": str(labels or ""), "as_of": as_of.value}
    with reading(database, "export", by, **written) as session:
        if boxes is None and crops is None and labels is None:
            raise StorageError("export: say what to write: --boxes FILE.csv, --crops DIR, --labels DIR, or several")
        decisions: Literal["decision", "final"] = "final" if as_of is AsOf.FINAL else "decision"
        rows: list[tuple[str | int, ...]] = []
        if boxes is not None:
            rows.append(_export_boxes(session, boxes, decisions))
        if crops is not None:
            rows.append(_export_crops(session, crops, crop_store("export", database, crops_dir), decisions))
        if labels is not None:
            rows += _export_labels(session, labels, crop_store("export", database, crops_dir))
        show(Report(("what", "path", "rows", "missing"), rows), output)


def _export_boxes(session: Session, path: Path, as_of: Literal["decision", "final"]) -> tuple[str | int, ...]:
    from storage import trajectories

    return ("boxes", str(path), write_boxes(trajectories.boxes(session, as_of=as_of), path), 0)


def _export_crops(
    session: Session, folder: Path, source: CropStore, as_of: Literal["decision", "final"]
) -> tuple[str | int, ...]:
    from storage import trajectories

    done = write_crops(trajectories.crops(session, as_of=as_of), source, folder)
    return ("crops", str(folder), done.written, done.missing)


def _export_labels(session: Session, folder: Path, source: CropStore) -> list[tuple[str | int, ...]]:
    from storage.labels import PAIRS, write_labels

    done = write_labels(session, source, folder)
    return [("labels", str(folder), done.crops, done.missing), ("pairs", str(folder / PAIRS), done.pairs, 0)]


@app.command("dead-letters")
def dead_letters(
    database: DatabaseUrl,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List messages that the matcher could not use, the newest first, and why; docs/operations.md says what to do.

    Example: dead-letters --database sqlite:///demo.db --format json
    """
    with reading(database, "dead-letters", by) as session:
        from storage.dead_letters import load_dead_letters

        show(dead_letters_report(load_dead_letters(session, limit=limit)), output)


for _command in (*CORRECTION_COMMANDS, *WATCH_COMMANDS, *CARE_COMMANDS, *LIKENESS_COMMANDS):
    app.command(_command.__name__.replace("_", "-"))(_command)


if __name__ == "__main__":
    app(prog_name="python -m storage")
