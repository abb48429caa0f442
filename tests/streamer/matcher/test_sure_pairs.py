from __future__ import annotations

import math

import numpy as np

from streamer.matcher.co_visibility import ViewMap
from streamer.matcher.ground_path import ground_path
from streamer.matcher.passages import Passages, ViewTraffic
from streamer.matcher.roads import RoadGraph
from streamer.matcher.sure_pairs import sure_pairs
from streamer.matcher.topology import Topology
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import links, tracklet

ROADS = RoadGraph(None, dwell_s=30.0)
#: Both cameras see the road at the same pixels.
OVERLAP = Topology(ROADS, maps={("a", "b"): ViewMap(np.eye(3), np.eye(3), 0.2, 20)})


def _seen(name: str, start: float, end: float, x: float, *, until_x: float | None = None) -> Tracklet:
    """A vehicle 50 pixels high that drives along y = 100."""
    one = tracklet(name, start, end, vehicle=1)
    times = np.linspace(start, end, 21)
    left = np.linspace(x, x + 100 if until_x is None else until_x, 21)
    boxes = np.stack([left, np.full(21, 50.0), left + 80, np.full(21, 100.0)], axis=1).astype(np.float32)
    one.follow(ground_path(times, boxes))
    return one


def _labels(tracklets: list[Tracklet], topology: Topology, *, are_one: bool = False) -> dict[tuple[str, str], bool]:
    vehicles = {one.tracklet_id: "v" if are_one else one.tracklet_id for one in tracklets}
    found = sure_pairs(tracklets, vehicles, topology, since=-math.inf, until=math.inf)
    return {(pair.first.tracklet_id, pair.second.tracklet_id): pair.is_same for pair in found}


def test_two_in_one_view_at_one_time_are_two_unless_they_may_be_one_found_twice() -> None:
    apart = [_seen("a/s/1", 0, 4, 0), _seen("a/s/2", 1, 5, 500)]
    twice = [_seen("a/s/1", 0, 4, 0), _seen("a/s/2", 0, 4, 10)]

    assert _labels(apart, Topology(ROADS)) == {("a/s/1", "a/s/2"): False}
    assert _labels(twice, Topology(ROADS)) == {}


def test_the_same_spot_in_two_views_is_one_vehicle_and_another_spot_is_another() -> None:
    here, there, elsewhere = _seen("a/s/1", 0, 4, 0), _seen("b/s/1", 0, 4.5, 2, until_x=114), _seen("b/s/2", 0, 5, 600)

    assert _labels([here, there, elsewhere], OVERLAP) == {
        ("a/s/1", "b/s/1"): True,
        ("a/s/1", "b/s/2"): False,
        ("b/s/1", "b/s/2"): False,
    }


def test_what_has_a_rival_near_is_not_sure() -> None:
    here, there, near = _seen("a/s/1", 0, 4, 0), _seen("b/s/1", 0, 4.5, 2, until_x=114), _seen("b/s/2", 0, 5, 30)

    assert ("a/s/1", "b/s/1") not in _labels([here, there, near], OVERLAP)


def test_looks_and_decisions_have_no_part_in_what_places_say() -> None:
    seen = [_seen("a/s/1", 0, 4, 0), _seen("b/s/1", 0, 4.5, 2, until_x=114)]

    assert _labels(seen, OVERLAP, are_one=True) == _labels(seen, OVERLAP, are_one=False)


def test_views_that_many_passed_and_none_was_in_at_once_show_two_vehicles_at_one_time() -> None:
    seen = [_seen("a/s/1", 0, 4, 0), _seen("b/s/1", 1, 5, 0)]

    def topology(gaps: list[float]) -> Topology:
        places = np.zeros((len(gaps), 2))
        return Topology(ROADS, passages={("b", "a"): Passages(np.array(gaps), places, places, np.ones(len(gaps)))})

    assert _labels(seen, topology([5.0] * 8)) == {("a/s/1", "b/s/1"): False}
    assert _labels(seen, topology([5.0] * 7)) == {}
    assert _labels(seen, topology([5.0] * 8 + [-2.0])) == {}


def test_a_road_that_takes_time_says_the_same() -> None:
    seen = [_seen("a/s/1", 0, 4, 0), _seen("b/s/1", 1, 5, 0)]

    apart = Topology(RoadGraph(links(("a", "b", 3.0, 30.0)), dwell_s=30.0))
    assert _labels(seen, apart) == {("a/s/1", "b/s/1"): False}


def test_one_cameras_pictures_of_one_vehicle_teach_nothing() -> None:
    broken, rest = _seen("a/s/1", 0, 4, 0), _seen("a/s/2", 4.4, 8, 110)

    assert _labels([broken, rest], Topology(ROADS), are_one=True) == {}


def test_a_passage_is_sure_where_time_and_place_leave_no_other_and_it_was_decided_so() -> None:
    places = np.array([[90.0, 100.0]] * 20)
    passages = Passages(np.full(20, 10.0), places + np.array([50.0, 0.0]), places, np.ones(20))
    quiet = ViewTraffic(places, places, rate_hz=0.002, stay_s=4.0)
    topology = Topology(ROADS, traffic={"a": quiet, "b": quiet}, passages={("a", "b"): passages})
    left, entered = _seen("a/s/1", 0, 4, 0), _seen("b/s/1", 14, 18, 50)
    second = _seen("b/s/2", 14.2, 18.2, 50)

    assert _labels([left, entered], topology, are_one=True) == {("a/s/1", "b/s/1"): True}
    assert _labels([left, entered], topology, are_one=False) == {}
    assert ("a/s/1", "b/s/1") not in _labels([left, entered, second], topology, are_one=True)


def test_stretches_side_by_side_give_each_pair_once() -> None:
    seen = [_seen(f"a/s/{index}", 0, 4 + index, 500.0 * index) for index in range(5)]
    vehicles = {one.tracklet_id: one.tracklet_id for one in seen}

    def labelled(since: float, until: float) -> list[tuple[str, str]]:
        pairs = sure_pairs(seen, vehicles, Topology(ROADS), since=since, until=until)
        return [(pair.first.tracklet_id, pair.second.tracklet_id) for pair in pairs]

    whole = labelled(-math.inf, math.inf)
    assert len(whole) == len(set(whole)) == 10
    assert labelled(-math.inf, 6.0) + labelled(6.0, 7.0) + labelled(7.0, math.inf) == whole
