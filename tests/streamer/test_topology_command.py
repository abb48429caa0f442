"""What was learned of the cameras can be seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from storage.database import Database
from storage.records import CameraRecord
from storage.writer import Writer
from streamer.__main__ import app
from streamer.matcher.co_visibility import ViewMap
from streamer.matcher.passages import Passages, ViewTraffic
from streamer.matcher.roads import RoadGraph
from streamer.matcher.topology import Topology
from streamer.sighting_codec import encode
from streamer.topology_picture import draw, layout
from streamer.topology_report import Learned, Overlap, SeenCamera, TopologyError, Way, read_learned, weighted_quantiles
from tests.storage.storage_builders import START, store, tracklet
from tests.streamer.matcher.test_replay import USUAL, Road
from tests.streamer.matcher.traffic_builders import traffic


def _topology(gaps: Sequence[float] = (3.0, 4.0, 5.0, 6.0, 7.0)) -> Topology:
    """Five passages from gate to yard, none back, and an overlap of yard and [dock]."""
    count = len(gaps)
    places = np.zeros((count, 2))
    seen = ViewTraffic(places, places, 0.2, 6.5)
    return Topology(
        RoadGraph(None, dwell_s=1.0),
        dict.fromkeys(("gate", "yard", "[dock]"), seen),
        {("gate", "yard"): Passages(np.array(gaps), places, places, np.full(count, 0.9))},
        {("[dock]", "yard"): ViewMap(np.eye(3), np.eye(3), 0.25, 12)},
    )


def _database(
    folder: Path, *regions: str, topology: Topology | None = None, cameras: Sequence[CameraRecord] = ()
) -> str:
    url = f"sqlite:///{folder}/site.db"
    database = Database.open(url)
    with database.transaction() as session:
        for number, region in enumerate(regions):
            store(session, tracklet(number=number, region=region))
            if topology is not None:
                state = json.dumps({"topology": topology.to_json(), "learned_at": []}).encode()
                Writer(session).store_learned(region, {"topology": state}, START)
        Writer(session).register_cameras(cameras)
    database.close()
    return url


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["topology", *map(str, arguments)])


def _refused(*arguments: str | Path) -> str:
    done = _run(*arguments)
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    return line


def test_a_learned_pair_is_told(tmp_path: Path) -> None:
    cameras = [CameraRecord("gate", "main", "thermal", x=10.0, y=20.0)]
    url = _database(tmp_path, "main", topology=_topology(), cameras=cameras)

    database = Database.open(url)
    with database.snapshot() as session:
        (learned,) = read_learned(session, None)
    database.close()

    (way,) = learned.ways
    assert (way.left, way.entered, way.passages) == ("gate", "yard", 5)
    assert (way.sure, way.shortest_s, way.median_s, way.longest_s) == pytest.approx((4.5, 3.0, 5.0, 7.0))
    assert learned.overlaps == (Overlap("[dock]", "yard", 12, 0.25),)
    by_name = {seen.camera: seen for seen in learned.cameras}
    gate = by_name["gate"]
    assert (gate.modality, gate.place, gate.stay_s) == ("thermal", (10.0, -20.0), 6.5)
    assert gate.per_minute == pytest.approx(12.0)
    assert by_name["yard"].place is None


def test_the_table_has_both_ways_of_an_overlap(tmp_path: Path) -> None:
    done = _run("--database", _database(tmp_path, "main", topology=_topology()))

    assert done.exit_code == 0, done.output
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert ["gate", "yard", "5", "4.5", "3.0 s", "5.0 s", "7.0 s", "", ""] in rows
    assert ["[dock]", "yard", *["-"] * 5, "12", "0.25 heights"] in rows
    assert ["yard", "[dock]", *["-"] * 5, "12", "0.25 heights"] in rows


def test_what_a_matcher_has_learned_can_be_read(tmp_path: Path) -> None:
    road = Road(tmp_path, USUAL)
    road.play([encode(message) for message in traffic(0, vehicles=14).messages])
    with road.database.snapshot() as session:
        (learned,) = read_learned(session, "main")
    road.database.close()

    # b and c share 20 m of road; between a and b lie some seconds of it.
    assert [(one.first, one.second) for one in learned.overlaps] == [("b", "c")]
    ways = {(way.left, way.entered): way for way in learned.ways}
    assert 4 < ways["a", "b"].median_s < 9
    assert ways["b", "c"].median_s < 0
    assert all(way.shortest_s <= way.median_s <= way.longest_s for way in learned.ways)


@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("html", b"<!doctype html>")])
def test_a_picture_is_drawn(tmp_path: Path, kind: str, begins: bytes) -> None:
    out = tmp_path / f"ways.{kind.upper()}"

    done = _run("--database", _database(tmp_path, "main", topology=_topology()), "--out", out)

    assert done.exit_code == 0, done.output
    data = out.read_bytes()
    assert data.startswith(begins)
    if kind == "html":
        text = data.decode()
        assert text.count("<svg") == 1
        assert "<td>0.25</td>" in text
        assert "http" not in text.partition("</svg>")[2]


def test_one_state_gives_one_picture() -> None:
    cameras = tuple(SeenCamera(name, "visible", None, 1.0, 1.0) for name in ("a", "b"))
    learned = Learned("main", cameras, (Way("a", "b", 3, 2.5, -1.0, 2.0, 3.0),), ())

    assert draw(learned, "svg") == draw(learned, "svg")


def test_cameras_are_drawn_where_they_stand_but_apart() -> None:
    places = {"south": (0.0, 0.0), "north": (0.0, 10.0), "beside north": (0.0, 10.0), "east": (10.0, 0.0)}
    drawn, is_placed = layout([SeenCamera(name, "", place, 1.0, 1.0) for name, place in places.items()])

    assert is_placed
    assert drawn["north"][1] > drawn["south"][1]
    assert drawn["east"][0] > drawn["south"][0]
    distances = [float(np.linalg.norm(drawn[one] - drawn[other])) for one in drawn for other in drawn if one != other]
    assert min(distances) > 0.2


def test_cameras_of_unknown_place_stand_in_a_circle() -> None:
    drawn, is_placed = layout([SeenCamera(name, "", (1.0, 2.0) if name == "a" else None, 1.0, 1.0) for name in "abcde"])

    assert not is_placed
    assert len({tuple(place) for place in drawn.values()}) == 5


def test_quantiles_weigh() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])

    assert weighted_quantiles(values, weights, (0.0, 0.5, 1.0)) == [1.0, 2.0, 3.0]
    assert weighted_quantiles(values, np.array([100.0, 1e-9, 1e-9]), (0.5,)) == [pytest.approx(3.0)]


def test_bad_input_is_one_line_and_exit_2(tmp_path: Path) -> None:
    for name in ("empty", "two", "odd"):
        (tmp_path / name).mkdir()
    empty = _database(tmp_path / "empty", "main")
    two = _database(tmp_path / "two", "north", "south", topology=_topology())

    assert "no such file" in _refused("--database", f"sqlite:///{tmp_path}/none.db")
    assert "nothing learned yet" in _refused("--database", empty)
    assert "region main: nothing learned yet" in _refused("--database", empty, "--region", "main")
    assert "region west: not known (the database has north, south)" in _refused("--database", two, "--region", "west")
    assert "--region north|south" in _refused("--database", two, "--out", tmp_path / "ways.svg")
    assert ".png, .svg, .html" in _refused("--database", two, "--out", tmp_path / "ways.pdf")
    assert "ways.svg" in _refused("--database", two, "--region", "north", "--out", tmp_path / "none" / "ways.svg")


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    url = _database(tmp_path, "main")
    database = Database.open(url)
    with database.transaction() as session:
        Writer(session).store_learned("main", {"topology": b"{}"}, START)
        with pytest.raises(TopologyError, match="another version wrote it"):
            read_learned(session, None)
    database.close()
