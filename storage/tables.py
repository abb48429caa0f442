"""Answers for other programs: pandas, CSV, Parquet and GeoJSON.

Only what is asked for loads pandas or pyarrow.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from sqlalchemy import select

from storage.answers import Trajectory, link_probability
from storage.errors import StorageError
from storage.export import utc_text, whole_file
from storage.models import AssignmentRow, CameraRow, TrackletRow, VehicleRow
from storage.paths import PathPoints
from storage.windows import at_visible

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from sqlalchemy.orm import Session

# Rows fetched at a time.
_BATCH = 4096


class Stay(Protocol):
    """A stay in one camera's view; `storage.answers.Stop` is one."""

    @property
    def camera(self) -> str:
        """Where."""

    @property
    def arrival(self) -> datetime:
        """First frame."""

    @property
    def departure(self) -> datetime:
        """Last frame."""

    @property
    def probability(self) -> float | None:
        """Of the link that made it this vehicle's; None where nothing was linked."""


class Way(Protocol):
    """Where a vehicle went; `storage.answers.Trajectory` is one."""

    @property
    def vehicle_id(self) -> str:
        """The vehicle."""

    @property
    def vehicle_class(self) -> str:
        """Its class."""

    @property
    def stops(self) -> Sequence[Stay]:
        """By arrival."""


@dataclass(frozen=True, slots=True)
class StopRow:
    """A stay of a vehicle in one camera's view, without its path and pictures; one row of a table.

    Attributes:
        vehicle_id: The vehicle.
        vehicle_class: By vote of all its tracklets.
        tracklet_id: The tracklet.
        camera: Where.
        arrival: First frame.
        departure: Last frame, so far.
        reason: Why it was linked, in a word.
        probability: Of the link; None where nothing was linked.
    """

    vehicle_id: str
    vehicle_class: str
    tracklet_id: str
    camera: str
    arrival: datetime
    departure: datetime
    reason: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class _Way:
    vehicle_id: str
    vehicle_class: str
    stops: Sequence[StopRow]


def stops(session: Session, *, visible: Collection[str] | None = None) -> Generator[StopRow, None, None]:
    """Every stay of every vehicle, as known now: by vehicle, then arrival.

    Args:
        session: To read from; it must stay open until the last row is taken.
        visible: The only cameras that there are for whoever asks; None: all.
    """
    statement = at_visible(
        select(VehicleRow.vehicle_id, VehicleRow.vehicle_class, TrackletRow, AssignmentRow)
        .join(AssignmentRow, (AssignmentRow.vehicle_id == VehicleRow.vehicle_id) & AssignmentRow.is_current)
        .join(TrackletRow, TrackletRow.tracklet_id == AssignmentRow.tracklet_id)
        .order_by(VehicleRow.vehicle_id, TrackletRow.started_at, TrackletRow.tracklet_id),
        visible,
    )
    # Closed as well where nobody takes the last row.
    with session.execute(statement, execution_options={"yield_per": _BATCH}) as rows:
        for vehicle_id, vehicle_class, seen, said in rows:
            times = (seen.started_at, seen.ended_at)
            sure = link_probability(said.score, said.evidence, vehicle_id, visible)
            yield StopRow(vehicle_id, vehicle_class, seen.tracklet_id, seen.camera, *times, said.reason, sure)


def ways(rows: Iterable[StopRow]) -> Iterator[Way]:
    """The ways of the vehicles whose stops these are, which lie side by side."""
    for (vehicle_id, vehicle_class), own in groupby(rows, key=lambda row: (row.vehicle_id, row.vehicle_class)):
        yield _Way(vehicle_id, vehicle_class, tuple(own))


def places(session: Session) -> dict[str, tuple[float, float]]:
    """Of each camera that is placed on the earth its latitude and longitude, in degrees."""
    rows = session.execute(select(CameraRow.camera, CameraRow.lat, CameraRow.lon).order_by(CameraRow.camera))
    return {camera: (lat, lon) for camera, lat, lon in rows if lat is not None and lon is not None}


def frame(rows: Trajectory | Iterable[Any], *, of: type[Any] | None = None) -> pd.DataFrame:
    """An answer as a table, with a column for each field; a trajectory's rows are its stops.

    Paths and evidence are left out: boxes have a question of their own. Times are UTC.

    Args:
        rows: What a question of `storage.trajectories` answers: dataclasses of one kind.
        of: Their kind; wanted where there may be none of them, or the table would have no columns.
    """
    import pandas as pd

    if isinstance(rows, Trajectory):
        from storage.answers import Stop

        rows, of = rows.stops, Stop
    listed = list(rows)
    kind = of if of is not None else type(listed[0]) if listed else None
    if kind is None:
        return pd.DataFrame()
    if not is_dataclass(kind):
        raise TypeError(f"wanted dataclasses, got {kind.__name__}")
    names = [field.name for field in fields(kind) if not _is_left_out(str(field.type))]
    table = pd.DataFrame({name: [getattr(row, name) for row in listed] for name in names}, columns=names)
    for field in fields(kind):
        if str(field.type).startswith("datetime") and field.name in names:
            table[field.name] = pd.to_datetime(table[field.name], utc=True)
    return table


def write_csv(table: pd.DataFrame, path: Path) -> int:
    """Writes a table as CSV, whole or not at all: times as ISO 8601 in UTC, names in one field with blanks between.

    Returns:
        How many rows it holds.

    Raises:
        StorageError: The file can't be written.
    """
    with whole_file(path) as stream:
        table.map(_text).to_csv(stream, index=False, lineterminator="\n")
    return len(table)


def write_parquet(table: pd.DataFrame, path: Path) -> int:
    """Writes a table as Parquet, whole or not at all; names in one field become a list.

    Returns:
        How many rows it holds.

    Raises:
        StorageError: The file can't be written, or pyarrow is not installed.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            table.map(lambda value: list(value) if isinstance(value, tuple) else value).to_parquet(
                temporary, engine="pyarrow", index=False
            )
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except ImportError as error:
        raise StorageError("parquet: wanted pyarrow; pip install pyarrow") from error
    except OSError as error:
        raise StorageError(f"export {path}: {error.strerror or error}") from error
    return len(table)


def geojson(found: Iterable[Way], places: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Ways as a FeatureCollection (RFC 7946): a LineString each through its cameras, a Point where it passed but one.

    The coordinates are longitude and latitude in degrees, WGS 84, one pair for each stop; `cameras`, `arrivals`,
    `departures` and `probabilities` in its properties are as long.

    Args:
        found: The ways, or trajectories.
        places: Latitude and longitude of each camera, as `places` gives them.

    Raises:
        StorageError: A camera on a way isn't placed on the earth.
    """
    return {"type": "FeatureCollection", "features": [_feature(way, places) for way in found]}


def write_geojson(found: Iterable[Way], places: Mapping[str, tuple[float, float]], path: Path) -> int:
    """Writes `geojson`, whole or not at all, one vehicle at a time.

    Returns:
        How many vehicles it holds.

    Raises:
        StorageError: As for `geojson`, or the file can't be written.
    """
    count = 0
    with whole_file(path) as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for count, way in enumerate(found, start=1):
            stream.write(f"{',' if count > 1 else ''}\n{json.dumps(_feature(way, places), ensure_ascii=False)}")
        stream.write("\n]}\n")
    return count


def _feature(way: Way, places: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    unplaced = sorted({stop.camera for stop in way.stops} - places.keys())
    if unplaced:
        raise StorageError(
            f"geojson: camera {unplaced[0]} has no lat and lon in the site file; a place on the plan is not enough"
        )
    points = [[places[stop.camera][1], places[stop.camera][0]] for stop in way.stops]
    is_line = len(points) > 1
    return {
        "type": "Feature",
        "id": way.vehicle_id,
        "geometry": {"type": "LineString", "coordinates": points} if is_line else _point(points),
        "properties": {
            "vehicle": way.vehicle_id,
            "class": way.vehicle_class,
            "cameras": [stop.camera for stop in way.stops],
            "arrivals": [utc_text(stop.arrival) for stop in way.stops],
            "departures": [utc_text(stop.departure) for stop in way.stops],
            "probabilities": [stop.probability for stop in way.stops],
        },
    }


def _point(points: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    return {"type": "Point", "coordinates": points[0]} if points else None


def _is_left_out(kind: str) -> bool:
    return PathPoints.__name__ in kind or kind.startswith("dict")


def _text(value: Any) -> Any:  # noqa: ANN401 - a cell
    if isinstance(value, tuple):
        return " ".join(value)
    # What is no time, as pandas has it, is not equal to itself.
    return utc_text(value) if isinstance(value, datetime) and value == value else value
