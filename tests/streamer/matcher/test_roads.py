import math

import pytest

from streamer.config import LinkConfig
from streamer.matcher.evidence import gap_s
from streamer.matcher.roads import RoadGraph, TravelTime
from streamer.matcher.tracklet import Tracklet


def _link(first: str, second: str, min_s: float, max_s: float) -> LinkConfig:
    return LinkConfig(between=(first, second), min_s=min_s, max_s=max_s)


def _seen(started_at: float, ended_at: float) -> Tracklet:
    return Tracklet("cam/s/1", "cam", "s", started_at, ended_at)


def test_without_links_any_pair_is_possible_at_any_time() -> None:
    assert RoadGraph(None, dwell_s=30).travel_time("a", "b") == TravelTime(0.0, math.inf)


def test_a_link_holds_both_ways() -> None:
    roads = RoadGraph([_link("a", "b", 2, 30)], dwell_s=30)

    assert roads.travel_time("a", "b") == roads.travel_time("b", "a") == TravelTime(2, 30)


def test_a_chain_adds_up_with_a_stay_in_the_view_between() -> None:
    roads = RoadGraph([_link("a", "b", 2, 30), _link("b", "c", 3, 10)], dwell_s=20)

    assert roads.travel_time("a", "c") == TravelTime(5, 30 + 20 + 10)


def test_cameras_that_no_road_joins_are_not_linked() -> None:
    roads = RoadGraph([_link("a", "b", 2, 30)], dwell_s=30)

    assert roads.travel_time("a", "c") is None


@pytest.mark.parametrize(
    ("first", "second", "gap"),
    [((0, 5), (8, 9), 3), ((8, 9), (0, 5), 3), ((0, 5), (4, 9), -1), ((0, 10), (2, 3), -3)],
)
def test_the_gap_lies_between_leaving_and_entering_whoever_came_first(
    first: tuple[float, float], second: tuple[float, float], gap: float
) -> None:
    assert gap_s(_seen(*first), _seen(*second)) == gap
