"""`python -m storage`: ask the database where vehicles went, and why; and correct it."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from storage.care_commands import COMMANDS as CARE_COMMANDS
from storage.correction_commands import COMMANDS as CORRECTION_COMMANDS
from storage.errors import StorageError
from storage.export import write_boxes, write_crops
from storage.likeness_commands import COMMANDS as LIKENESS_COMMANDS
from storage.question_commands import COMMANDS as QUESTION_COMMANDS
from storage.report import Format, Report, dead_letters_report, show
from storage.terminal import CropsDir, DatabaseUrl, OutputFormat, Person, crop_store, reading
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
        "Ask who passed two cameras, who travelled together, how long it takes, and how many there were:\n\n"
        "  python -m storage passed gate bridge --within 60 --database sqlite:///demo.db\n\n"
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
    geojson: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the way of every vehicle; all cameras need lat and lon.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every stay of every vehicle at a camera, as a table.")
    ] = None,
    crops_dir: CropsDir = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Write boxes, ways, crops or people's corrections to files.

    The boxes' columns are camera,t,captured_at,frame,vehicle,x1,y1,x2,y2: t in seconds since that camera's start,
    frame from 0, coordinates in source pixels; one row at most for a vehicle in a frame. A row of pairs.csv
    has two crops of which a person has said that they are of one vehicle (same 1) or of two (same 0). --geojson and
    --parquet tell what is known now.

    Example: export --database sqlite:///demo.db --boxes boxes.csv --as-of decision
    """
    files = {"boxes": boxes, "crops": crops, "labels": labels, "geojson": geojson, "parquet": parquet}
    noted = {name: str(path) for name, path in files.items() if path is not None}
    with reading(database, "export", by, **noted, as_of=as_of.value) as session:
        if not noted:
            raise StorageError(
                "export: say what to write: " + ", ".join(f"--{name}" for name in files) + ", or several"
            )
        decisions: Literal["decision", "final"] = "final" if as_of is AsOf.FINAL else "decision"
        rows: list[tuple[str | int, ...]] = []
        if boxes is not None:
            rows.append(_export_boxes(session, boxes, decisions))
        if crops is not None:
            rows.append(_export_crops(session, crops, crop_store("export", database, crops_dir), decisions))
        if labels is not None:
            rows += _export_labels(session, labels, crop_store("export", database, crops_dir))
        if geojson is not None:
            rows.append(_export_geojson(session, geojson))
        if parquet is not None:
            rows.append(_export_parquet(session, parquet))
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


def _export_geojson(session: Session, path: Path) -> tuple[str | int, ...]:
    from storage import tables

    places = tables.places(session)
    with closing(tables.stops(session)) as rows:
        return ("geojson", str(path), tables.write_geojson(tables.ways(rows), places, path), 0)


def _export_parquet(session: Session, path: Path) -> tuple[str | int, ...]:
    from storage import tables

    table = tables.frame(tables.stops(session), of=tables.StopRow)
    return ("parquet", str(path), tables.write_parquet(table, path), 0)


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


for _command in (*QUESTION_COMMANDS, *CORRECTION_COMMANDS, *WATCH_COMMANDS, *CARE_COMMANDS, *LIKENESS_COMMANDS):
    app.command(_command.__name__.replace("_", "-"))(_command)


if __name__ == "__main__":
    app(prog_name="python -m storage")
