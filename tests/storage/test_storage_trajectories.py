"""Where vehicles went, as of the decision and as known now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from storage.errors import VehicleNotFoundError
from storage.records import CameraRecord
from storage.trajectories import BoxRow, boxes, crops, latest_vehicles, trajectory, vehicles
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        yield opened


@pytest.fixture
def three(session: Session) -> Session:
    """`v1` at the gate, the bridge and the gate again; `v2` at the bridge; `v3` at the gate."""
    store(session, tracklet("gate", 1, start=0, end=4), "v1", frames=range(4))
    store(session, tracklet("bridge", 1, start=10, end=14), "v1", frames=range(100, 104))
    store(session, tracklet("gate", 2, start=20, end=24), "v1", frames=range(200, 204))
    store(session, tracklet("bridge", 2, start=12, end=13, vehicle_class="bus"), "v2", frames=range(120, 122))
    store(session, tracklet("gate", 3, start=30, end=31), "v3", frames=range(300, 302))
    return session


# Lists of vehicles.


def test_a_summary_tells_the_whole_of_a_vehicle(three: Session) -> None:
    first, second, third = vehicles(three)
    assert (first.vehicle_id, first.vehicle_class, first.first_seen, first.last_seen) == ("v1", "car", START, after(24))
    assert (first.cameras, first.tracklets, first.modalities) == (("gate", "bridge"), 3, ("visible",))
    assert (second.vehicle_id, second.vehicle_class, third.vehicle_id) == ("v2", "bus", "v3")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"min_cameras": 2}, ["v1"]),
        ({"min_cameras": 3}, []),
        ({"limit": 2}, ["v1", "v2"]),
        ({"camera": "gate"}, ["v1", "v3"]),
        ({"camera": "nowhere"}, []),
        ({"start": after(24)}, ["v1", "v3"]),
        ({"start": after(24.5)}, ["v3"]),
        ({"end": after(12)}, ["v1"]),
        ({"end": after(12.5)}, ["v1", "v2"]),
        # v1 was at the gate, and was in view then, but at the bridge.
        ({"camera": "gate", "start": after(12), "end": after(13)}, []),
        ({"camera": "' OR 1=1 --"}, []),
        ({"among": ["v3", "v1", "v9"]}, ["v1", "v3"]),
        ({"among": []}, []),
        ({"among": ["v3", "v2"], "visible": {"gate"}}, ["v3"]),
    ],
)
def test_the_question_chooses_the_vehicles(three: Session, question: dict[str, Any], answer: list[str]) -> None:
    assert [vehicle.vehicle_id for vehicle in vehicles(three, **question)] == answer


@pytest.mark.parametrize(
    "question",
    [{}, {"camera": "gate"}, {"limit": 2}, {"visible": {"bridge"}}, {"start": after(12), "end": after(13)}],
)
def test_the_latest_are_named_in_the_order_in_which_they_are_listed(three: Session, question: dict[str, Any]) -> None:
    listed = [vehicle.vehicle_id for vehicle in vehicles(three, newest_first=True, **question)]
    assert latest_vehicles(three, **question) == listed
    assert listed


def test_a_vehicle_that_lost_its_tracklets_is_not_listed(three: Session) -> None:
    Writer(three).assign(assignment("gate/s1/3", "v2", reason="second look"))
    assert [vehicle.vehicle_id for vehicle in vehicles(three)] == ["v1", "v2"]
    assert [vehicle.vehicle_id for vehicle in vehicles(three, as_of="decision")] == ["v1", "v2", "v3"]
    with pytest.raises(VehicleNotFoundError, match="v3: its tracklets have been given to other vehicles"):
        trajectory(three, "v3")


# One vehicle.


def test_a_trajectory_has_a_stop_for_each_tracklet(three: Session) -> None:
    found = trajectory(three, "v1")
    assert (found.vehicle_id, found.vehicle_class, found.first_seen, found.last_seen) == ("v1", "car", START, after(24))
    assert [(stop.camera, stop.arrival, stop.departure) for stop in found.stops] == [
        ("gate", START, after(4)),
        ("bridge", after(10), after(14)),
        ("gate", after(20), after(24)),
    ]
    assert found.stops[1].path.frames.tolist() == [100, 101, 102, 103]
    assert found.stops[1].path.boxes.dtype == np.float32


def test_a_stop_tells_its_evidence(session: Session) -> None:
    writer, of = Writer(session), tracklet(context_image="context/1.jpg")
    writer.store_sighting(of, path(of, 0, frames=[3, 4]), [embedding(of, 0, quality=0.3, crop_image="dull.jpg")])
    writer.store_sighting(of, path(of, 1, frames=[5]), [embedding(of, 1, quality=0.8, crop_image="sharp.jpg")])
    thermal = embedding(of, 2, quality=0.5, modality="thermal", crop_image="warm.jpg")
    writer.store_sighting(of, path(of, 2), [thermal, embedding(of, 2, quality=0.9, modality="near_infrared")])
    made = assignment(of.tracklet_id, "v1", reason="appearance and travel time", score=2.0)
    made = replace(made, evidence={"halved": True})
    writer.assign(replace(made, margin=1.5, modality_pair="thermal-visible", transit_s=7.5))
    (stop,) = trajectory(session, "v1").stops
    assert stop.path.frames.tolist() == [3, 4, 5]
    assert stop.modalities == ("near_infrared", "thermal", "visible")
    assert stop.crop_images == {"visible": "sharp.jpg", "thermal": "warm.jpg"}
    assert (stop.crop_image, stop.context_image) == ("sharp.jpg", "context/1.jpg")
    assert (stop.reason, stop.score, stop.margin) == ("appearance and travel time", 2.0, 1.5)
    assert (stop.modality_pair, stop.transit_s, stop.is_provisional) == ("thermal-visible", 7.5, False)
    assert stop.probability == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_scores_from_before_they_were_halved_are_as_sure_as_those_from_afterwards(session: Session) -> None:
    store(session, tracklet(number=1))
    store(session, tracklet(number=2, start=5))
    earlier, later = assignment("gate/s1/1", "v1", score=4.0), assignment("gate/s1/2", "v1", score=2.0)
    Writer(session).assign(earlier)
    Writer(session).assign(replace(later, evidence={"halved": True}))
    first, second = trajectory(session, "v1").stops
    assert first.probability == second.probability == pytest.approx(1 / (1 + np.exp(-2.0)))


@pytest.mark.parametrize("score", [-1e6, 1e6])
def test_a_large_score_is_a_sure_one(session: Session, score: float) -> None:
    store(session, tracklet())
    Writer(session).assign(assignment("gate/s1/1", "v1", score=score))
    (stop,) = trajectory(session, "v1").stops
    assert stop.probability == (1.0 if score > 0 else 0.0)


def test_a_unique_beginning_of_the_id_is_enough(session: Session) -> None:
    for number, vehicle_id in enumerate(["3f2a-1", "3f2a-10", "3f2b-1", "a_c", "abc"]):
        store(session, tracklet(number=number), vehicle_id)
    assert trajectory(session, "3f2b").vehicle_id == "3f2b-1"
    assert trajectory(session, "3f2a-1").vehicle_id == "3f2a-1"
    assert trajectory(session, "a_").vehicle_id == "a_c"
    with pytest.raises(VehicleNotFoundError, match="3f2: more than one begins so: 3f2a-1, 3f2a-10, 3f2b-1"):
        trajectory(session, "3f2")
    with pytest.raises(VehicleNotFoundError, match="vehicle 9: not known"):
        trajectory(session, "9")


# Boxes.


def test_a_box_tells_where_and_when(session: Session) -> None:
    Writer(session).register_cameras([CameraRecord("gate", "main", "visible", started_at=after(-1.5))])
    store(session, tracklet(), "v1", frames=[7])
    assert list(boxes(session)) == [BoxRow("gate", 2.2, after(0.7), 7, "v1", 7.0, 7.0, 27.5, 17.25)]


def test_time_counts_from_the_first_tracklet_of_a_camera_without_a_start(session: Session) -> None:
    store(session, tracklet(number=2, start=0.5), "v2", frames=[7])
    store(session, tracklet(number=1, start=0.2), "v1", frames=[4])
    assert [row.t for row in boxes(session)] == [0.2, 0.5]


def _vehicle_of(session: Session, as_of: Any) -> str:  # noqa: ANN401 - a literal
    return {row.vehicle for row in boxes(session, as_of=as_of)}.pop()


@pytest.mark.parametrize(
    ("decisions", "at_decision", "finally_"),
    [
        (["a?"], "a", "a"),
        (["a?", "b?"], "b", "b"),
        (["a?", "b"], "b", "b"),
        (["a?", "b", "c"], "b", "c"),
        (["a", "b?"], "a", "b"),
        (["a?", "b", "c", "b"], "b", "b"),
    ],
)
def test_the_decision_is_the_first_that_was_meant_to_last(
    session: Session, decisions: list[str], at_decision: str, finally_: str
) -> None:
    store(session, tracklet(), frames=[1])
    for decision in decisions:
        vehicle_id, is_provisional = decision[0], decision.endswith("?")
        Writer(session).assign(assignment("gate/s1/1", vehicle_id, is_provisional=is_provisional))
    assert (_vehicle_of(session, "decision"), _vehicle_of(session, "final")) == (at_decision, finally_)


def test_a_tracklet_without_a_decision_has_no_boxes(session: Session) -> None:
    store(session, tracklet(), frames=[1, 2])
    assert list(boxes(session)) == []


_tracks = st.lists(
    st.tuples(st.sampled_from(["gate", "bridge"]), st.sampled_from(["v1", "v2"]), st.integers(0, 8), st.integers(0, 6)),
    max_size=6,
)


@settings(deadline=None)
@given(_tracks)
def test_a_vehicle_is_in_a_frame_once(memory: Database, tracks: list[tuple[str, str, int, int]]) -> None:
    with memory.transaction() as session:
        for number, (camera, vehicle_id, first, length) in enumerate(tracks):
            store(session, tracklet(camera, number), vehicle_id, frames=range(first, first + length))
        rows = list(boxes(session))
        for table in ("assignments", "vehicles", "embeddings", "sightings", "tracklets"):
            session.execute(text(f"DELETE FROM {table}"))
    keys = [(row.camera, row.vehicle, row.frame) for row in rows]
    expected = {
        (camera, vehicle_id, frame)
        for camera, vehicle_id, first, length in tracks
        for frame in range(first, first + length)
    }
    assert keys == sorted(expected)


def test_of_two_boxes_in_a_frame_the_older_tracklet_shows_its_own(session: Session) -> None:
    for number, start, shift in ((1, 0.5, 100.0), (2, 0.1, 200.0)):
        of = tracklet(number=number, start=start)
        Writer(session).store_sighting(of, path(of, frames=[6], shift=shift), [])
        Writer(session).assign(assignment(of.tracklet_id, "v1"))
    assert [row.x1 for row in boxes(session)] == [206.0]


# Crops.


def test_a_crop_told_twice_is_listed_once(session: Session) -> None:
    writer, of = Writer(session), tracklet()
    early = embedding(of, 0, at=1, crop_image="gate/1.jpg")
    writer.store_sighting(of, path(of, 0), [early])
    writer.store_sighting(of, path(of, 1), [embedding(of, 1, at=2)])
    writer.store_sighting(of, path(of, 2), [replace(early, sighting_id="gate/s1/1/2")])
    writer.assign(assignment(of.tracklet_id, "v1"))
    (found,) = crops(session)
    assert (found.vehicle, found.camera, found.modality, found.vehicle_class) == ("v1", "gate", "visible", "car")
    assert (found.captured_at, found.crop_image) == (after(1), "gate/1.jpg")


# Statements.


def test_the_number_of_statements_does_not_grow_with_the_rows(database: Database) -> None:
    taken = []
    for numbers in (range(2), range(2, 40)):
        with database.transaction() as session:
            for number in numbers:
                store(session, tracklet(number=number), f"v{number}", frames=range(3))
                store(session, tracklet("bridge", number=number), "v0", frames=range(3))
        taken.append([_statements(database, index) for index in range(4)])
    assert taken[0] == taken[1] == [2, 5, 2, 1]


def _statements(database: Database, question: int) -> int:
    questions = (
        lambda session: vehicles(session, camera="gate", start=START, min_cameras=1),
        lambda session: trajectory(session, "v0"),
        lambda session: list(boxes(session)),
        lambda session: list(crops(session)),
    )
    with database.snapshot() as session, counted(session) as statements:
        questions[question](session)
    return statements.count
