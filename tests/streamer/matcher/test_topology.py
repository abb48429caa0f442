"""What is learned of the ways between cameras from tracklets whose vehicles nobody has told, and how it is kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.matcher.learner import TopologyLearner
from streamer.matcher.roads import RoadGraph
from streamer.matcher.topology import Topology, learn_topology
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import links, looks, seen

ROADS = RoadGraph(None, dwell_s=30.0)
#: Two ways lead from a to b: the short one leaves a on its left and enters b there; the long one is on the right.
LEFT, RIGHT = (100.0, 400.0), (1700.0, 500.0)
SHORT_S, LONG_S = 8.0, 25.0
PLACES = {SHORT_S: LEFT, LONG_S: RIGHT}


def _looks(first: Sequence[Tracklet], second: Sequence[Tracklet]) -> NDArray[np.float64]:
    """Log-likelihood ratios as of an embedder that is right more often than not; the number in the id is the truth."""
    found = np.empty((len(first), len(second)))
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            numbers = int(one.tracklet_id.rpartition("/")[2]), int(other.tracklet_id.rpartition("/")[2])
            noise = np.random.default_rng(sorted(numbers)).normal(0, 1.5)
            found[row, column] = (2.5 if numbers[0] == numbers[1] else -3.0) + noise
    return found


def _passes(name: str, number: int, start: float, enters: tuple[float, float], leaves: tuple[float, float]) -> Tracklet:
    return seen(f"{name}/s/{number}", start, start + 3, looks(0), enters=enters, leaves=leaves)


@cache
def _day() -> dict[str, list[Tracklet]]:
    """60 vehicles that go from a to b by one of two ways; z sees as many others, that none of the two ever sees."""
    rng = np.random.default_rng(0)
    day: dict[str, list[Tracklet]] = {"a": [], "b": [], "z": []}
    for number in range(60):
        start = 6.0 * number + float(rng.uniform(0, 4))
        travel_s = SHORT_S if rng.random() < 0.5 else LONG_S
        place = PLACES[travel_s]
        near = (place[0] + float(rng.normal(0, 15)), place[1] + float(rng.normal(0, 15)))
        day["a"].append(_passes("a", number, start, (900.0, 900.0), near))
        day["b"].append(_passes("b", number, start + 3 + travel_s + float(rng.normal(0, 0.4)), near, (900.0, 900.0)))
        day["z"].append(_passes("z", 1000 + number, start + float(rng.uniform(0, 9)), LEFT, RIGHT))
    return day


@cache
def _learned() -> Topology:
    return learn_topology(_day(), _looks, Topology(ROADS), [("a", "b"), ("a", "z"), ("b", "z")])


def _log_odds(travel_s: float, left: tuple[float, float], entered: tuple[float, float], *, way: str = "ab") -> float:
    first = _passes(way[0], 1, 1000, (900.0, 900.0), left)
    second = _passes(way[1], 2, 1003 + travel_s, entered, (900.0, 900.0))
    return _learned().relation(first, second).log_odds


def test_the_usual_time_on_the_usual_way_speaks_for_one_vehicle() -> None:
    never_seen = Topology(ROADS).relation(_day()["a"][0], _day()["b"][0]).log_odds
    assert _log_odds(SHORT_S, LEFT, LEFT) > 0.5
    # Longer ways take times that differ more, and more vehicles come by within them.
    assert _log_odds(LONG_S, RIGHT, RIGHT) > -1 > never_seen + 2


def test_an_unusual_time_speaks_against_it() -> None:
    assert _log_odds(3 * LONG_S, LEFT, LEFT) < -3
    assert _log_odds(SHORT_S / 4, LEFT, LEFT) < -2


def test_the_time_of_one_way_is_unusual_on_another() -> None:
    assert _log_odds(LONG_S, LEFT, LEFT) < _log_odds(SHORT_S, LEFT, LEFT) - 3
    assert _log_odds(SHORT_S, RIGHT, RIGHT) < _log_odds(LONG_S, RIGHT, RIGHT) - 3


def test_nobody_leaves_by_one_way_and_enters_by_another() -> None:
    assert _log_odds(SHORT_S, LEFT, RIGHT) < -2
    assert _log_odds(LONG_S, RIGHT, LEFT) < -2


def test_the_other_direction_is_another_matter() -> None:
    assert _log_odds(SHORT_S, LEFT, LEFT, way="ba") < -2


@pytest.mark.parametrize("travel_s", [0.5, SHORT_S, LONG_S, 200.0])
def test_cameras_that_share_no_vehicle_are_unlikely_and_no_more(travel_s: float) -> None:
    for way in ("az", "za", "bz", "zb"):
        log_odds = _log_odds(travel_s, LEFT, LEFT, way=way)
        assert math.isfinite(log_odds)
        assert log_odds < -2


def test_the_way_is_found_though_looks_are_often_wrong() -> None:
    found = _learned().passages["a", "b"]

    usual = [min(abs(gap_s - travel_s) for travel_s in PLACES) < 2 for gap_s in found.gap_s.tolist()]
    assert len(found) > 30
    assert np.average(usual, weights=found.weights) > 0.9


def test_a_relation_does_not_depend_on_who_asks() -> None:
    for first in _day()["a"][:8]:
        for second in _day()["b"][:8]:
            assert _learned().relation(first, second) == _learned().relation(second, first)


def test_many_pairs_at_once_are_weighed_as_one_by_one() -> None:
    pairs = [(first, second) for first in _day()["a"][:8] for second in (*_day()["b"][:8], *_day()["z"][:4])]

    together = _learned().log_odds(pairs)

    assert together == pytest.approx([_learned().relation(*pair).log_odds for pair in pairs], abs=1e-9)


def test_cameras_that_have_shown_nothing_are_possible() -> None:
    empty = Topology(ROADS)

    relation = empty.relation(_day()["a"][0], _day()["b"][0])

    assert -6 < relation.log_odds < 0


def test_a_way_that_is_known_limits_for_how_long_a_vehicle_is_waited_for() -> None:
    learned = _learned()

    assert LONG_S < learned.reach_s("a", "b", otherwise=600.0) < 120
    assert learned.reach_s("b", "a", otherwise=600.0) == learned.reach_s("a", "z", otherwise=600.0) == 600


def test_what_the_road_forbids_is_not_learned_from() -> None:
    roads = RoadGraph(links(("a", "b", 1.0, 15.0)), dwell_s=30.0)

    learned = learn_topology(_day(), _looks, Topology(roads), [("a", "b")])

    assert ((learned.passages["a", "b"].gap_s >= 1) & (learned.passages["a", "b"].gap_s <= 15)).all()


def test_overlapping_views_are_found_and_places_decide_there() -> None:
    rng = np.random.default_rng(1)
    day: dict[str, list[Tracklet]] = {"a": [], "b": []}
    for number in range(40):
        start = 9.0 * number
        enters, leaves = ((float(x), float(rng.uniform(200, 800))) for x in (100, 1700))
        # The same road from the other side, at half the size.
        day["a"].append(_passes("a", number, start, enters, leaves))
        day["b"].append(_passes("b", number, start, *((1000 - x / 2, 500 - y / 2) for x, y in (enters, leaves))))

    learned = learn_topology(day, _looks, Topology(ROADS), [("a", "b")])

    here = _passes("a", 1, 1000, (100, 300), (1700, 300))
    there, elsewhere = (_passes("b", 2, 1000, (950, y), (150, y)) for y in (350, 100))
    same, other = learned.relation(here, there), learned.relation(here, elsewhere)
    assert same.log_odds > 1
    assert other.log_odds < -3
    assert same.co_visibility is not None
    assert other.co_visibility is not None
    assert learned.relation(there, here) == same


def test_what_was_learned_is_the_same_after_it_was_kept() -> None:
    kept = Topology.from_json(ROADS, json.loads(json.dumps(_learned().to_json())))

    pairs = [(first, second) for first in _day()["a"][:10] for second in _day()["b"][:10]]
    assert kept.to_json() == _learned().to_json()
    assert kept.log_odds(pairs).tolist() == _learned().log_odds(pairs).tolist()


def _taught(learner: TopologyLearner, day: Sequence[Tracklet]) -> list[str]:
    """What the learner knows after each few of a day's tracklets."""
    known = []
    for at in range(0, len(day), 5):
        learner.learn(day[at : at + 5], _looks)
        known.append(json.dumps(learner.topology.to_json()))
    return known


def _in_order() -> list[Tracklet]:
    return sorted((one for own in _day().values() for one in own), key=lambda one: (one.ended_at, one.tracklet_id))


@pytest.mark.parametrize("stop", [5, 40, 65])
def test_a_learner_goes_on_where_another_has_stopped(stop: int) -> None:
    day = _in_order()[:120]
    straight, first, second = (TopologyLearner(ROADS) for _ in range(3))
    _taught(first, day[:stop])
    second.load(json.loads(json.dumps(first.dump().decode())).encode())
    second.seen = dict(first.seen)
    for one in reversed(day[:stop]):
        second.remember(one)

    assert _taught(second, day[stop:]) == _taught(straight, day)[stop // 5 :]


def test_a_learner_learns_only_now_and_then() -> None:
    learner = TopologyLearner(ROADS)

    times = sum(learner.learn([one], _looks) for one in _in_order()[:60])

    assert 3 <= times < 30


def test_tracklets_without_picture_or_path_teach_nothing() -> None:
    learner = TopologyLearner(ROADS)
    blind = [Tracklet(f"{camera}/s/{n}", camera, "s", n, n + 1.0) for camera in "ab" for n in range(20)]

    assert not learner.learn(blind, _looks)
    assert learner.topology.passages == {}
