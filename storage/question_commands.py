"""The commands of `python -m storage` that ask where vehicles went, when, with whom, and how many there were."""

from __future__ import annotations

import webbrowser
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from storage.errors import StorageError
from storage.question_limits import MAX_S
from storage.report import Format, Report, show, trajectory_report, vehicles_report
from storage.terminal import DatabaseUrl, OutputFormat, Person, moment, reading

if TYPE_CHECKING:
    from collections.abc import Sequence

#: More are asked for by leaving the limit out.
MAX_ROWS = 1_000_000_000
MAX_CAMERAS = 1000
#: Where `python -m web` answers unless told.
PAGE = "http://127.0.0.1:8080"

Start = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="ISO 8601, such as 2026-01-01T12:30; UTC without a zone.")
]
End = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only what was before this time.")]
Class = Annotated[str | None, typer.Option("--class", metavar="CLASS", help="Only vehicles of this class.")]
Camera = Annotated[str | None, typer.Option(help="Only this camera.")]
Limit = Annotated[int | None, typer.Option(min=1, max=MAX_ROWS, help="At most so many.")]
Modality = Annotated[str | None, typer.Option(help="Only with a look in this band: visible, thermal, near_infrared...")]
Within = Annotated[float, typer.Option(min=0, max=MAX_S, metavar="SECONDS", help="At most so many seconds apart.")]
Opened = Annotated[bool, typer.Option("--open", help="Open it in the browser too; `python -m web` must be running.")]
Page = Annotated[str, typer.Option("--page", metavar="URL", help="Where that page is.")]

# What a field is called in the head of a table.
_NAMES = {"vehicle_id": "vehicle", "vehicle_class": "class", "tracklet_id": "tracklet"}


def vehicles(  # noqa: PLR0913 - a parameter for each option
    database: DatabaseUrl,
    camera: Annotated[str | None, typer.Option(help="Only vehicles that this camera saw.")] = None,
    min_cameras: Annotated[
        int, typer.Option(min=1, max=MAX_CAMERAS, help="Only vehicles that this many cameras saw.")
    ] = 1,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Only vehicles in view at this time or later.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Only vehicles in view before this time.")
    ] = None,
    vehicle_class: Class = None,
    modality: Modality = None,
    newest: Annotated[bool, typer.Option("--newest", help="By their last sight, the latest first.")] = False,
    limit: Limit = None,
    opened: Opened = False,
    page: Page = PAGE,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List vehicles, in the order they were first seen.

    TIME is ISO 8601, such as 2026-01-01T12:30 or 2026-01-01T13:30+01:00; UTC where it names no zone.

    Example: vehicles --database sqlite:///demo.db --camera gate --from 2026-01-01T12:00 --format csv
    """
    asked: dict[str, Any] = {"camera": camera, "start": start, "end": end, "min_cameras": min_cameras}
    asked |= {"vehicle_class": vehicle_class, "modality": modality, "limit": limit}
    with reading(database, "vehicles", by, newest_first=newest or None, **asked) as session:
        from storage.lookup import check_cameras
        from storage.trajectories import vehicles as find

        check_cameras(session, camera)
        asked |= {"start": moment("--from", start), "end": moment("--to", end)}
        show(vehicles_report(find(session, newest_first=newest, **asked)), output)
        if opened:
            _open(page, "/vehicles")


def trajectory(
    vehicle: Annotated[str, typer.Argument(metavar="VEHICLE", help="Its id, or the first characters of it.")],
    database: DatabaseUrl,
    opened: Opened = False,
    page: Page = PAGE,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Show where one vehicle went: a row for each stay in a camera's view, and why it was taken for this vehicle's.

    Example: trajectory 3f2a --database sqlite:///demo.db --format json
    """
    with reading(database, "trajectory", by, vehicle) as session:
        from storage.trajectories import trajectory as find

        found = find(session, vehicle)
        show(trajectory_report(found, output), output)
        if opened:
            _open(page, f"/vehicles/{quote(found.vehicle_id, safe='')}")


def passed(  # noqa: PLR0913 - a parameter for each option
    first: Annotated[str, typer.Argument(metavar="CAMERA", help="The camera that it left.")],
    then: Annotated[str, typer.Argument(metavar="CAMERA", help="The one where it came into view afterwards.")],
    database: DatabaseUrl,
    within: Annotated[
        float, typer.Option(min=0, max=MAX_S, metavar="SECONDS", help="At most so many from one to the other.")
    ],
    start: Start = None,
    end: End = None,
    vehicle_class: Class = None,
    limit: Limit = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List vehicles that passed one camera and then another within a time, by when they left the first one's view.

    Other cameras may lie between. --from and --to are of the departure.

    Example: passed gate bridge --within 60 --database sqlite:///demo.db
    """
    asked: dict[str, Any] = {"within_s": within, "start": start, "end": end}
    asked |= {"vehicle_class": vehicle_class, "limit": limit}
    with reading(database, "passed", by, first=first, then=then, **asked) as session:
        from storage.lookup import check_cameras
        from storage.trajectories import Passage, passages

        check_cameras(session, first, then)
        asked |= {"start": moment("--from", start), "end": moment("--to", end)}
        found = passages(session, first, then, **asked)
        show(_report(Passage, found, f"{len(found)} passed {first} and then {then}"), output)


def companions(
    vehicle: Annotated[str, typer.Argument(metavar="VEHICLE", help="Its id, or the first characters of it.")],
    database: DatabaseUrl,
    within: Within = 10.0,
    min_cameras: Annotated[int, typer.Option(min=1, max=MAX_CAMERAS, help="At so many cameras at least.")] = 2,
    limit: Limit = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List vehicles that came to the same cameras as one at about the same times; those of most cameras first.

    Example: companions 3f2a --within 5 --min-cameras 3 --database sqlite:///demo.db
    """
    asked: dict[str, Any] = {"within_s": within, "min_cameras": min_cameras, "limit": limit}
    with reading(database, "companions", by, vehicle, **asked) as session:
        from storage.trajectories import Companion
        from storage.trajectories import companions as find

        found = find(session, vehicle, **asked)
        show(_report(Companion, found, f"{len(found)} with {vehicle}"), output)


def dwell(
    database: DatabaseUrl,
    camera: Camera = None,
    vehicle_class: Class = None,
    start: Start = None,
    end: End = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Show how long vehicles stay in view of each camera, in seconds; p85: 85 of 100 stay no longer.

    Example: dwell --camera gate --class truck --database sqlite:///demo.db
    """
    asked: dict[str, Any] = {"camera": camera, "vehicle_class": vehicle_class, "start": start, "end": end}
    with reading(database, "dwell", by, **asked) as session:
        from storage.lookup import check_cameras
        from storage.trajectories import DwellTime, dwell_times

        check_cameras(session, camera)
        asked |= {"start": moment("--from", start), "end": moment("--to", end)}
        show(_report(DwellTime, dwell_times(session, **asked), "Seconds in view"), output)


def journeys(
    database: DatabaseUrl,
    vehicle_class: Class = None,
    start: Start = None,
    end: End = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Show how long vehicles take from each camera to the next that sees them, in seconds between the two views.

    Below 0: in view of both for a while. --from and --to are of the departure.

    Example: journeys --from 2026-01-01T07:00 --to 2026-01-01T09:00 --database sqlite:///demo.db
    """
    asked: dict[str, Any] = {"vehicle_class": vehicle_class, "start": start, "end": end}
    with reading(database, "journeys", by, **asked) as session:
        from storage.trajectories import JourneyTime, journey_times

        asked |= {"start": moment("--from", start), "end": moment("--to", end)}
        show(_report(JourneyTime, journey_times(session, **asked), "Seconds on the way"), output)


def counts(  # noqa: PLR0913 - a parameter for each option
    database: DatabaseUrl,
    every: Annotated[
        float, typer.Option(min=1, max=MAX_S, metavar="SECONDS", help="Seconds of one interval.")
    ] = 3600.0,
    camera: Camera = None,
    vehicle_class: Class = None,
    modality: Modality = None,
    start: Start = None,
    end: End = None,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """Count the vehicles that came into view, by interval, camera and class. Intervals without any are left out.

    Example: counts --every 900 --camera gate --format csv --database sqlite:///demo.db
    """
    asked: dict[str, Any] = {"every_s": every, "camera": camera, "vehicle_class": vehicle_class}
    asked |= {"modality": modality, "start": start, "end": end}
    with reading(database, "counts", by, **asked) as session:
        from storage.lookup import check_cameras
        from storage.trajectories import Count
        from storage.trajectories import counts as count

        check_cameras(session, camera)
        asked |= {"start": moment("--from", start), "end": moment("--to", end)}
        show(_report(Count, count(session, **asked), "Vehicles that came into view"), output)


def similar(  # noqa: PLR0913 - a parameter for each option
    tracklet: Annotated[str, typer.Argument(metavar="TRACKLET", help="Its id, or the first or last characters of it.")],
    database: DatabaseUrl,
    camera: Camera = None,
    vehicle_class: Class = None,
    modality: Modality = None,
    start: Start = None,
    end: End = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="At most so many.")] = 20,
    by: Person = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """List vehicles that look like a tracklet's, the most similar first, whatever band they were seen in.

    Its own vehicle is left out. Reads all looks first, which takes a while on a large site, unless `index-vectors` has
    been there; the page keeps them. By a picture: on the page, or POST /v1/similar.

    Example: similar gate/s1/7 --limit 5 --database sqlite:///demo.db
    """
    asked: dict[str, Any] = {"camera": camera, "vehicle_class": vehicle_class, "modality": modality}
    with reading(database, "similar", by, tracklet, start=start, end=end, limit=limit, **asked) as session:
        from storage.likeness import Likeness, LikenessFilter
        from storage.lookup import check_cameras
        from storage.vector_table import similar_to_tracklet

        check_cameras(session, camera)
        chosen = LikenessFilter(start=moment("--from", start), end=moment("--to", end), **asked)
        found = similar_to_tracklet(session, tracklet, chosen=chosen, limit=limit)
        hidden = frozenset({"crop_image", "log_odds", "probability"} if output is Format.TABLE else ())
        show(_report(Likeness, found, f"{len(found)} like {tracklet}", hidden), output)


COMMANDS = (vehicles, trajectory, passed, companions, dwell, journeys, counts, similar)


def _report(kind: type[Any], rows: Sequence[Any], title: str, hidden: frozenset[str] = frozenset()) -> Report:
    """A row for each answer, with its fields as columns; seconds to milliseconds, probabilities to four places."""
    names = [field.name for field in fields(kind) if field.name not in hidden]
    told = [tuple(_rounded(name, getattr(row, name)) for name in names) for row in rows]
    return Report(tuple(_NAMES.get(name, name) for name in names), told, title)


def _rounded(name: str, value: Any) -> Any:  # noqa: ANN401 - a field's
    if not isinstance(value, float):
        return value
    return round(value, 3 if name.endswith("_s") else 4)


def _open(page: str, path: str) -> None:
    """Opens an address of the page in this person's browser.

    Raises:
        StorageError: It is no address of a page, or there is no browser.
    """
    if not page.startswith(("http://", "https://")):
        raise StorageError(f"--page: wanted an address such as {PAGE}, got {page!r}")
    address = page.rstrip("/") + path
    if not webbrowser.open(address):
        raise StorageError(f"--open: there is no browser here; the page is {address}")
