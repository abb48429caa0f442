"""One vehicle's way as the page tells it: what each stop was compared with, where it stood, and when."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from storage.accounts import Role
from storage.database import Database
from storage.errors import CorrectionError, VehicleNotFoundError
from storage.looks import looks_of_vehicle
from storage.records import AssignmentRecord, EmbeddingRecord
from storage.writer import Writer
from tests.storage.storage_builders import after, path, store, tracklet
from tests.web.asking import site_file
from web import reviewing
from web.callers import Caller
from web.services import Services
from web.way import way_of, way_of_heir

with warnings.catch_warnings():
    # The page's library imports a client for Kafka, if it is there, which reads its files by an old way.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"(read|open)_text is deprecated")
    from web.pages.frame import View
    from web.pages.time_line import drawing
    from web.pages.vehicle import _halts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANNA = Caller("anna", Role.OPERATOR)
SCENE = "context/gate/s1/1.jpg"
GATE, YARD = "gate/s1/1", "yard/s1/2"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """`v1` was at the gate, whose camera saw it thrice, and then in the yard, where it was linked to that."""
    site = site_file(tmp_path)
    database = Database.open(site.database)
    made = Services(site, database)
    first = tracklet("gate", 1, start=0.0, end=4.0, context_image=SCENE, end_reason="left")
    second = tracklet("yard", 2, start=9.0, end=12.0, end_reason="left")
    # The second look is better by enough to be the scene's, the third is not.
    looks = [(1.0, 0.5, (10.0, 20.0, 30.0, 40.0)), (2.0, 0.6, (100.0, 50.0, 200.0, 150.0)), (3.0, 0.61, (0, 0, 9, 9))]
    with database.transaction() as session:
        writer = Writer(session)
        writer.store_sighting(first, path(first), [_look(first.tracklet_id, *look) for look in looks[:1]])
        for number, look in enumerate(looks[1:], start=1):
            segment = path(first, number)
            writer.store_sighting(first, segment, [_look(first.tracklet_id, *look, sequence=number)])
        writer.store_sighting(second, path(second), [_look(second.tracklet_id, 10.0, 0.5, (0, 0, 9, 9))])
        writer.assign(_decision(GATE, "new", None, []))
        writer.assign(_decision(YARD, "linked", 2.0, [_candidate()]))
    picture = BytesIO()
    Image.new("RGB", (400, 200)).save(picture, "JPEG")
    made.crops.save(SCENE, picture.getvalue())
    yield made
    made.close()


def _look(
    of: str, at: float, quality: float, box: tuple[float, float, float, float], *, sequence: int = 0
) -> EmbeddingRecord:
    return EmbeddingRecord(
        sighting_id=f"{of}/{sequence}",
        tracklet_id=of,
        modality="visible",
        model_id="m",
        vector=np.array([1.0, 0.0], np.float32),
        quality=quality,
        captured_at=after(at),
        box=box,
        crop_image=f"{of}.jpg",
    )


def _decision(of: str, reason: str, score: float | None, candidates: list[dict[str, Any]]) -> AssignmentRecord:
    return AssignmentRecord(
        of,
        "v1",
        reason,
        is_provisional=False,
        score=score,
        margin=score,
        modality_pair=None if score is None else "visible~visible",
        transit_s=None if score is None else 5.0,
        model_id="m",
        decided_at=after(20.0),
        evidence={"candidates": candidates, "halved": True},
    )


def _candidate() -> dict[str, Any]:
    return {"vehicle_id": "v1", "tracklet_id": GATE, "camera": "gate", "similarity": 0.75}


def test_a_stop_stands_beside_the_one_that_it_was_compared_with(services: Services) -> None:
    way = way_of(services, ANNA, "v1")
    first, second = way.hops
    assert (first.other, second.other) == (None, first.stop)
    assert second.similarity == 0.75
    assert "fitted best" in second.reason
    assert [halt.camera for halt in _halts(way)] == ["gate", "yard"]
    assert _halts(way)[1].label == "5.0 s"


def test_the_box_stands_where_the_scene_was_taken(services: Services) -> None:
    first, second = way_of(services, ANNA, "v1").hops
    assert first.box == pytest.approx((100 / 400, 50 / 200, 200 / 400, 150 / 200))
    assert second.box is None


def test_no_box_is_drawn_where_its_scale_is_not_known(services: Services) -> None:
    picture = BytesIO()
    Image.new("RGB", (services.site.crops.context_width_px, 540)).save(picture, "JPEG")
    services.crops.save(SCENE, picture.getvalue())
    assert way_of(services, ANNA, "v1").hops[0].box is None
    services.crops.remove(SCENE)
    assert way_of(services, ANNA, "v1").hops[0].box is None


def test_who_sees_one_camera_hears_of_no_other(services: Services) -> None:
    mira = Caller("mira", Role.VIEWER, frozenset({"yard"}))
    (hop,) = way_of(services, mira, "v1").hops
    assert (hop.stop.camera, hop.other, hop.similarity, hop.stop.transit_s) == ("yard", None, None, None)
    with pytest.raises(VehicleNotFoundError):
        way_of(services, Caller("tom", Role.VIEWER, frozenset({"port"})), "v1")


def test_the_latest_stops_are_told_and_the_one_that_is_asked_for(services: Services) -> None:
    assert [hop.stop.tracklet_id for hop in way_of(services, ANNA, "v1", latest=1).hops] == [YARD]
    assert [hop.stop.tracklet_id for hop in way_of(services, ANNA, "v1", latest=1, at=GATE).hops] == [GATE, YARD]


def test_a_stop_is_confirmed_and_split_by_operators_alone(services: Services) -> None:
    with pytest.raises(CorrectionError, match="left to operators"):
        reviewing.split(services, Caller("mira", Role.VIEWER), YARD, "v1")
    made = reviewing.confirm(services, ANNA, YARD, "v1")
    assert "anna's word" in way_of(services, ANNA, "v1").hops[1].reason
    reviewing.take_back(services, ANNA, made.correction_id)
    made = reviewing.split(services, ANNA, YARD, "v1")
    (left,) = way_of(services, ANNA, made.moved[0].after).hops
    (stays,) = way_of(services, ANNA, "v1").hops
    assert left.reason == "Somebody said that this is another vehicle. It is anna's word."
    assert stays.reason == "Somebody said that it is right. It is anna's word."


def test_who_asks_for_a_vehicle_that_was_given_away_is_led_to_whose_it_is_now(services: Services) -> None:
    with services.database.transaction() as session:
        for number in (7, 9):
            store(session, tracklet("port", number, start=50, end=51), f"v{number}")
    made = [reviewing.merge(services, ANNA, keep, other) for keep, other in (("v7", "v1"), ("v9", "v7"))]
    assert way_of_heir(services, ANNA, "v1").trajectory.vehicle_id == "v9"
    mira = Caller("mira", Role.VIEWER, frozenset({"port"}))
    with pytest.raises(VehicleNotFoundError):
        way_of_heir(services, mira, "v1")
    # What she may see of it is not where all of it went, but where that went.
    assert [stop.camera for stop in way_of_heir(services, mira, "v7").trajectory.stops] == ["port", "port"]
    for one in reversed(made):
        reviewing.take_back(services, ANNA, one.correction_id)
    assert way_of_heir(services, ANNA, "v1").trajectory.vehicle_id == "v1"
    with pytest.raises(VehicleNotFoundError):
        way_of_heir(services, ANNA, "nobody")


def test_each_moment_of_a_tracklet_has_one_look(services: Services) -> None:
    with services.database.snapshot() as session:
        found = looks_of_vehicle(session, "v1")
    assert [look.quality for look in found[GATE]] == pytest.approx([0.5, 0.6, 0.61])
    assert len(found[YARD]) == 1


def test_a_time_line_has_a_bar_for_each_stop_and_names_as_text(services: Services) -> None:
    stops = way_of(services, ANNA, "v1").trajectory.stops
    root = ElementTree.fromstring(drawing(View(services, ANNA), stops))
    assert len(root.findall(".//rect")) == 2
    assert {text.text for text in root.findall("text")} >= {"gate", "yard", "12:00:00", "12:00:12"}
    # The first is not among those that are shown one by one.
    late = [replace(stops[0], arrival=stops[0].arrival - timedelta(hours=13)), stops[1]]
    root = ElementTree.fromstring(drawing(View(services, ANNA), late, left_out=1))
    assert [link.get("href") for link in root.findall("a")] == ["?at=gate%2Fs1%2F1", "#stop-2"]
    assert {text.text for text in root.findall("text")} >= {"2025-12-31 23:00", "2026-01-01 12:00"}
    nasty = "<img src=x onerror=alert(1)>"
    text = drawing(View(services, ANNA), [replace(stops[0], camera=nasty)])
    ElementTree.fromstring(text)
    assert "<img" not in text
