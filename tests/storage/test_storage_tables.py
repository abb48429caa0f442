"""Answers as tables and as GeoJSON."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from storage import tables
from storage.__main__ import app
from storage.database import Database
from storage.errors import StorageError
from storage.records import CameraRecord
from storage.trajectories import JourneyTime, VehicleSummary, counts, journey_times, trajectory, vehicles
from storage.writer import Writer
from tests.storage.storage_builders import START, after, counted, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

pytest_plugins = ("tests.storage.storage_fixtures",)

PLACES = {"gate": (48.1, 11.5), "bridge": (48.2, 11.6)}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """`v1` passed the gate and the bridge, `v2` the gate; both cameras are placed on the earth."""
    with database.transaction() as opened:
        _fill(opened)
        yield opened


def _fill(session: Session, places: dict[str, tuple[float, float]] = PLACES) -> None:
    Writer(session).register_cameras(
        [CameraRecord(camera, "main", "visible", lat=lat, lon=lon) for camera, (lat, lon) in places.items()]
    )
    store(session, tracklet("gate", 1, start=0, end=4), "v1", frames=[1])
    store(session, tracklet("bridge", 1, start=10, end=14.5), "v1", frames=[2])
    store(session, tracklet("gate", 2, start=20, end=24, vehicle_class="bus"), "v2")


# Tables.


def test_a_table_has_a_row_for_each_answer_and_a_column_for_each_field(session: Session) -> None:
    table = tables.frame(vehicles(session))
    assert table["vehicle_id"].tolist() == ["v1", "v2"]
    assert table["cameras"].tolist() == [("gate", "bridge"), ("gate",)]
    assert (table["last_seen"] - table["first_seen"]).tolist() == [timedelta(seconds=14.5), timedelta(seconds=4)]
    assert str(table["first_seen"].dt.tz) == "UTC"


def test_a_trajectory_is_a_table_of_its_stops(session: Session) -> None:
    table = tables.frame(trajectory(session, "v1"))
    assert table["camera"].tolist() == ["gate", "bridge"]
    assert table["arrival"].tolist() == [START, after(10)]
    assert not {"path", "evidence", "crop_images"} & set(table.columns)


def test_a_table_of_nothing_has_its_columns_where_its_kind_is_said(session: Session) -> None:
    none = journey_times(session, vehicle_class="tank")
    assert tables.frame(none, of=JourneyTime).columns.tolist()[:3] == ["first", "then", "journeys"]
    assert tables.frame(none).empty
    assert str(tables.frame([], of=VehicleSummary)["first_seen"].dt.tz) == "UTC"


def test_what_has_no_fields_is_no_row() -> None:
    with pytest.raises(TypeError, match="wanted dataclasses, got int"):
        tables.frame([1])


def test_csv_reads_back(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "new" / "vehicles.csv"
    assert tables.write_csv(tables.frame(vehicles(session)), path) == 2
    head, first, _ = path.read_text(encoding="utf-8").splitlines()
    assert head == "vehicle_id,vehicle_class,first_seen,last_seen,cameras,tracklets,modalities"
    assert first == "v1,car,2026-01-01T12:00:00.000000Z,2026-01-01T12:00:14.500000Z,gate bridge,2,visible"


def test_a_moment_that_is_none_is_an_empty_field(tmp_path: Path) -> None:
    table = pd.DataFrame({"at": pd.to_datetime(["", START.isoformat()], utc=True), "camera": ["gate", "bridge"]})
    tables.write_csv(table, tmp_path / "times.csv")
    assert (tmp_path / "times.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        ",gate",
        "2026-01-01T12:00:00.000000Z,bridge",
    ]


def test_parquet_reads_back(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "new" / "vehicles.parquet"
    table = tables.frame(vehicles(session))
    assert tables.write_parquet(table, path) == 2
    back = pd.read_parquet(path)
    assert back.columns.tolist() == table.columns.tolist()
    assert [list(cameras) for cameras in back["cameras"]] == [["gate", "bridge"], ["gate"]]
    assert back["first_seen"].tolist() == [START, after(20)]
    assert [file.name for file in path.parent.iterdir()] == ["vehicles.parquet"]


def test_a_file_that_can_not_be_written_is_one_line(session: Session, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    table = tables.frame(counts(session))
    for write in (tables.write_csv, tables.write_parquet):
        with pytest.raises(StorageError, match=r"^export .*file/table: ") as caught:
            write(table, tmp_path / "file" / "table")
        assert "\n" not in str(caught.value)


# On the earth.


def test_geojson_has_a_line_for_each_way_and_a_point_where_there_is_but_one_stop(session: Session) -> None:
    found = tables.geojson(tables.ways(tables.stops(session)), tables.places(session))
    assert found["type"] == "FeatureCollection"
    line, point = found["features"]
    # Longitude first.
    assert line["geometry"] == {"type": "LineString", "coordinates": [[11.5, 48.1], [11.6, 48.2]]}
    assert point["geometry"] == {"type": "Point", "coordinates": [11.5, 48.1]}
    assert (line["id"], line["properties"]["cameras"]) == ("v1", ["gate", "bridge"])
    assert line["properties"]["arrivals"] == ["2026-01-01T12:00:00.000000Z", "2026-01-01T12:00:10.000000Z"]


def test_a_trajectory_has_the_same_geojson_as_its_way(session: Session) -> None:
    way, _ = tables.ways(tables.stops(session))
    assert tables.geojson([trajectory(session, "v1")], PLACES) == tables.geojson([way], PLACES)


def test_a_camera_that_is_nowhere_on_the_earth_is_named(session: Session) -> None:
    ways = list(tables.ways(tables.stops(session)))
    with pytest.raises(StorageError, match=r"^geojson: camera bridge has no lat and lon in the site file"):
        tables.geojson(ways, {"gate": (48.1, 11.5)})


def test_stops_at_hidden_cameras_are_not_told(session: Session) -> None:
    assert {row.camera for row in tables.stops(session, visible=["bridge"])} == {"bridge"}


def test_all_stops_are_one_statement(session: Session) -> None:
    with counted(session) as statements:
        assert len(list(tables.stops(session))) == 3
    assert statements.count == 1


# On the terminal.


def _export(tmp_path: Path, places: dict[str, tuple[float, float]], *arguments: str) -> Any:  # noqa: ANN401 - a result
    url = f"sqlite:///{tmp_path / 'site.db'}"
    database = Database.open(url)
    with database.transaction() as session:
        _fill(session, places)
    database.close()
    return CliRunner().invoke(app, ["export", "--database", url, "--format", "json", *arguments])


def test_ways_and_stays_are_exported(tmp_path: Path) -> None:
    ways, stays = tmp_path / "ways.geojson", tmp_path / "stays.parquet"
    done = _export(tmp_path, PLACES, "--geojson", str(ways), "--parquet", str(stays))
    assert [(row["what"], row["rows"]) for row in json.loads(done.stdout)] == [("geojson", 2), ("parquet", 3)]
    features = json.loads(ways.read_text(encoding="utf-8"))["features"]
    assert [feature["id"] for feature in features] == ["v1", "v2"]
    back = pd.read_parquet(stays)
    assert back["camera"].tolist() == ["gate", "bridge", "gate"]
    assert datetime.fromisoformat(str(back["departure"][1])) == after(14.5)


def test_ways_of_cameras_on_a_plan_alone_are_refused_in_one_line(tmp_path: Path) -> None:
    done = _export(tmp_path, {}, "--geojson", str(tmp_path / "ways.geojson"))
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "ways.geojson").exists()
