"""What vehicles do at and between cameras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from storage.errors import VehicleNotFoundError
from storage.trajectories import (
    Companion,
    Count,
    DwellTime,
    JourneyTime,
    companions,
    counts,
    dwell_times,
    journey_times,
    passages,
)
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, store, tracklet

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
    """`v1`: gate, bridge, park, gate, bridge. `v2`, a bus 2 s behind: gate, bridge. `v3`: bridge, gate, long after."""
    for number, (camera, start, end) in enumerate(
        [("gate", 0, 4), ("bridge", 10, 14), ("park", 20, 24), ("gate", 30, 34), ("bridge", 36, 38)]
    ):
        store(session, tracklet(camera, number, start=start, end=end), "v1")
    store(session, tracklet("gate", 11, start=2, end=7, vehicle_class="bus"), "v2")
    store(session, tracklet("bridge", 12, start=12.5, end=18, vehicle_class="bus"), "v2")
    store(session, tracklet("bridge", 21, start=1000, end=1010), "v3")
    store(session, tracklet("gate", 22, start=1009, end=1012), "v3")
    return session


def _passed(session: Session, first: str, then: str, **question: Any) -> list[tuple[str, float]]:  # noqa: ANN401
    return [(one.vehicle_id, one.travel_s) for one in passages(session, first, then, **question)]


# Here, then there.


@pytest.mark.parametrize(
    ("way", "question", "answer"),
    [
        (("gate", "bridge"), {"within_s": 60}, [("v1", 6.0), ("v2", 5.5), ("v1", 2.0)]),
        (("gate", "bridge"), {"within_s": 5.5}, [("v2", 5.5), ("v1", 2.0)]),
        (("gate", "bridge"), {"within_s": 5.499}, [("v1", 2.0)]),
        (("gate", "bridge"), {"within_s": 60, "limit": 1}, [("v1", 6.0)]),
        (("gate", "bridge"), {"within_s": 60, "vehicle_class": "bus"}, [("v2", 5.5)]),
        # The park lies between.
        (("bridge", "gate"), {"within_s": 60}, [("v1", 16.0), ("v3", -1.0)]),
        (("gate", "gate"), {"within_s": 60}, [("v1", 26.0)]),
        (("gate", "bridge"), {"within_s": 60, "start": after(4), "end": after(7)}, [("v1", 6.0)]),
        (("gate", "bridge"), {"within_s": 60, "start": after(4.5), "end": after(7.5)}, [("v2", 5.5)]),
        # The window is of the departure, wherever the arrival lies.
        (("gate", "bridge"), {"within_s": 60, "start": after(34), "end": after(34.5)}, [("v1", 2.0)]),
        (("gate", "bridge"), {"within_s": 60, "visible": ["gate"]}, []),
        (("gate", "' OR 1=1 --"), {"within_s": 60}, []),
    ],
)
def test_who_passed_here_and_then_there(
    three: Session, way: tuple[str, str], question: dict[str, Any], answer: list[tuple[str, float]]
) -> None:
    assert _passed(three, *way, **question) == answer


def test_of_several_departures_the_last_before_the_arrival_counts(session: Session) -> None:
    for number, (camera, start) in enumerate([("gate", 0), ("gate", 10), ("bridge", 20), ("bridge", 30)]):
        store(session, tracklet(camera, number, start=start, end=start + 1), "v1")
    (found,) = passages(session, "gate", "bridge", within_s=100)
    assert (found.departed_at, found.arrived_at) == (after(11), after(20))


def test_a_departure_in_the_window_is_found_where_the_arrival_was_over_before_it(session: Session) -> None:
    store(session, tracklet("gate", 1, start=0, end=1000), "v1")
    store(session, tracklet("bridge", 2, start=5, end=8), "v1")
    assert _passed(session, "gate", "bridge", within_s=0, start=after(999)) == [("v1", -995.0)]


def test_a_passage_is_as_sure_as_the_less_sure_of_its_links(session: Session) -> None:
    for number, score in ((1, None), (2, 0.0), (3, 4.0)):
        of = tracklet("gate" if number % 2 else "bridge", number, start=number * 10, end=number * 10 + 1)
        store(session, of)
        Writer(session).assign(assignment(of.tracklet_id, "v1", score=score))
    assert passages(session, "gate", "bridge", within_s=60)[0].probability == 0.5
    assert passages(session, "bridge", "gate", within_s=60)[0].probability == 0.5


# Together.


def test_companions_came_to_the_same_cameras_at_about_the_same_times(three: Session) -> None:
    assert companions(three, "v1") == [Companion("v2", "bus", ("gate", "bridge"), 2, 2.5, after(2), after(12.5))]
    assert companions(three, "v2") == [Companion("v1", "car", ("gate", "bridge"), 2, 2.5, START, after(10))]
    assert companions(three, "v3", min_cameras=1) == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"within_s": 2.5}, ["v2"]),
        ({"within_s": 2.499}, []),
        ({"within_s": 2, "min_cameras": 1}, ["v2"]),
        ({"min_cameras": 3}, []),
        ({"visible": ["gate"]}, []),
        ({"visible": ["gate"], "min_cameras": 1}, ["v2"]),
        ({"limit": 0}, []),
    ],
)
def test_how_near_companions_are_is_asked(three: Session, question: dict[str, Any], answer: list[str]) -> None:
    assert [one.vehicle_id for one in companions(three, "v1", **question)] == answer


def test_whoever_was_seen_at_hidden_cameras_only_has_no_companions(three: Session) -> None:
    with pytest.raises(VehicleNotFoundError, match="v1: not known"):
        companions(three, "v1", visible=["nowhere"])


def test_those_of_most_cameras_come_first(three: Session) -> None:
    for number, (camera, start) in enumerate([("gate", 1), ("bridge", 11), ("park", 21)], start=30):
        store(three, tracklet(camera, number, start=start, end=start + 1), "v4")
    assert [one.vehicle_id for one in companions(three, "v1")] == ["v4", "v2"]
    assert [one.vehicle_id for one in companions(three, "v1", limit=1)] == ["v4"]


def test_of_two_arrivals_that_are_as_near_the_earlier_counts_and_of_two_cameras_the_first_by_name(
    session: Session,
) -> None:
    for number, (camera, start, vehicle) in enumerate(
        [("gate", 10, "v1"), ("bridge", 10, "v1"), ("gate", 12, "v2"), ("gate", 8, "v2"), ("bridge", 8, "v2")]
    ):
        store(session, tracklet(camera, number, start=start), vehicle)
    (found,) = companions(session, "v1")
    assert (found.cameras, found.first_at, found.last_at) == (("bridge", "gate"), after(8), after(8))


# How long.


def test_dwell_times_are_of_all_stays_at_a_camera(three: Session) -> None:
    bridge, gate, park = dwell_times(three)
    # 2, 4, 5.5 and 10 s: a quantile lies between its neighbours, in proportion.
    assert bridge == DwellTime("bridge", 4, 4.75, 5.375, 7.975, 9.325, 10.0)
    assert (gate.camera, gate.visits, gate.median_s, gate.longest_s) == ("gate", 4, 4.0, 5.0)
    assert park == DwellTime("park", 1, 4.0, 4.0, 4.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"camera": "park"}, [("park", 1)]),
        ({"vehicle_class": "bus"}, [("bridge", 1), ("gate", 1)]),
        ({"start": after(1000)}, [("bridge", 1), ("gate", 1)]),
        ({"start": after(4), "end": after(12)}, [("bridge", 1), ("gate", 2)]),
        ({"visible": ["park"]}, [("park", 1)]),
        ({"visible": []}, []),
    ],
)
def test_whose_stays_count_is_asked(three: Session, question: dict[str, Any], answer: list[tuple[str, int]]) -> None:
    assert [(one.camera, one.visits) for one in dwell_times(three, **question)] == answer


def test_journey_times_are_from_each_camera_to_the_next_other_one(three: Session) -> None:
    assert [(one.first, one.then, one.journeys, one.fastest_s) for one in journey_times(three)] == [
        ("bridge", "gate", 1, -1.0),
        ("bridge", "park", 1, 6.0),
        ("gate", "bridge", 3, 2.0),
        ("park", "gate", 1, 6.0),
    ]
    # 2, 5.5 and 6 s.
    assert journey_times(three)[2] == JourneyTime("gate", "bridge", 3, 2.0, 5.5, 4.5, 5.85, 5.95)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"vehicle_class": "bus"}, [("gate", "bridge", 1)]),
        ({"start": after(14), "end": after(25)}, [("bridge", "park", 1), ("park", "gate", 1)]),
        # Whoever can't see the park sees the next camera after it.
        ({"visible": ["gate", "bridge"]}, [("bridge", "gate", 2), ("gate", "bridge", 3)]),
    ],
)
def test_whose_journeys_count_is_asked(
    three: Session, question: dict[str, Any], answer: list[tuple[str, str, int]]
) -> None:
    assert [(one.first, one.then, one.journeys) for one in journey_times(three, **question)] == answer


def test_two_stays_at_one_camera_in_turn_are_no_journey(session: Session) -> None:
    for number, start in ((1, 0), (2, 10)):
        store(session, tracklet("gate", number, start=start), "v1")
    assert journey_times(session) == []


# How many.


def test_counts_are_of_different_vehicles_by_interval_camera_and_class(three: Session) -> None:
    assert counts(three, every_s=60) == [
        Count(START, "bridge", "bus", 1),
        Count(START, "bridge", "car", 1),
        Count(START, "gate", "bus", 1),
        Count(START, "gate", "car", 1),
        Count(START, "park", "car", 1),
        Count(after(960), "bridge", "car", 1),
        Count(after(960), "gate", "car", 1),
    ]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"camera": "park"}, [20]),
        ({"camera": "gate", "every_s": 0.5}, [0, 2, 30, 1009]),
        ({"vehicle_class": "bus", "every_s": 0.5}, [2, 12.5]),
        ({"start": after(20), "end": after(36), "every_s": 1}, [20, 30]),
        ({"visible": ["park"], "every_s": 1}, [20]),
        ({"modality": "visible", "camera": "park", "every_s": 1}, [20]),
        ({"modality": "thermal"}, []),
    ],
)
def test_what_is_counted_is_asked(three: Session, question: dict[str, Any], answer: list[float]) -> None:
    every_s = question.get("every_s", 3600.0)
    wanted = [after(seconds // every_s * every_s) for seconds in answer]
    assert [one.start for one in counts(three, **question)] == wanted


def test_an_arrival_a_microsecond_before_the_hour_counts_for_the_hour_before(session: Session) -> None:
    store(session, tracklet(number=1, start=-1e-6), "v1")
    store(session, tracklet(number=2), "v2")
    assert [one.start for one in counts(session)] == [after(-3600), START]


# What was corrected, and what has no vehicle yet.


def test_what_is_known_now_counts(three: Session) -> None:
    Writer(three).assign(assignment("bridge/s1/12", "v9", reason="second look"))
    store(three, tracklet("gate", 90, start=3, end=400))
    assert _passed(three, "gate", "bridge", within_s=60) == [("v1", 6.0), ("v1", 2.0)]
    assert companions(three, "v1") == []
    assert [one.visits for one in dwell_times(three, camera="gate")] == [4]


def test_the_number_of_statements_does_not_grow_with_the_rows(database: Database) -> None:
    questions = (
        lambda opened: passages(opened, "gate", "bridge", within_s=60),
        lambda opened: companions(opened, "v0", min_cameras=1),
        dwell_times,
        journey_times,
        counts,
    )
    taken = []
    for numbers in (range(2), range(2, 40)):
        with database.transaction() as session:
            for number in numbers:
                store(session, tracklet(number=number), f"v{number}")
                store(session, tracklet("bridge", number, start=2, end=3), f"v{number}")
                store(session, tracklet(number=number + 100), "v0")
        taken.append([_statements(database, question) for question in questions])
    assert taken[0] == taken[1] == [1, 2, 1, 1, 1]


def _statements(database: Database, question: Any) -> int:  # noqa: ANN401 - any of the questions
    with database.snapshot() as session, counted(session) as statements:
        assert question(session)
    return statements.count
