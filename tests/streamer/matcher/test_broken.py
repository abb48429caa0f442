"""Halves of broken tracklets."""

from __future__ import annotations

from streamer.config import MatcherConfig
from streamer.matcher.broken import NO_BREAKS, Breaks, find_breaks, mark_breaks
from streamer.matcher.centring import Centring
from streamer.matcher.evidence import Scales
from streamer.matcher.roads import RoadGraph
from streamer.matcher.topology import Topology
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import CALIBRATION, looks, seen

_SCALES = Scales(MatcherConfig(), CALIBRATION, Centring({}), Topology(RoadGraph(None, dwell_s=30.0)))


def _half(name: str, start: float, end: float, enters: float, leaves: float, vehicle: int = 1) -> Tracklet:
    return seen(name, start, end, looks(vehicle), enters=(enters, 300.0), leaves=(leaves, 300.0))


def test_who_goes_on_in_the_same_place_and_looks_alike_is_the_other_half() -> None:
    first, second = _half("a/s/1", 0, 4, 100, 300), _half("a/s/2", 5, 9, 350, 600)

    found = find_breaks([second], [first], _SCALES)

    assert found == Breaks(frozenset({"a/s/1"}), frozenset({"a/s/2"}))


def test_who_begins_elsewhere_or_looks_different_or_comes_late_is_no_other_half() -> None:
    first = _half("a/s/1", 0, 4, 100, 300)

    for other in (
        _half("a/s/2", 5, 9, 350, 600, vehicle=2),
        _half("a/s/3", 20, 24, 350, 600),
        _half("a/s/4", 3, 7, 350, 600),
        _half("b/s/5", 5, 9, 350, 600),
    ):
        assert find_breaks([first, other], [], _SCALES) == NO_BREAKS


def test_of_two_that_might_go_on_only_the_better_one_does() -> None:
    first, better, worse = (
        _half("a/s/1", 0, 4, 100, 300),
        _half("a/s/2", 5, 9, 350, 600),
        _half("a/s/3", 5, 9, 420, 700),
    )

    assert find_breaks([first, better, worse], [], _SCALES).going_on == {"a/s/2"}


def test_known_vehicles_halves_are_not_asked_among_themselves() -> None:
    assert find_breaks([], [_half("a/s/1", 0, 4, 100, 300), _half("a/s/2", 5, 9, 350, 600)], _SCALES) == NO_BREAKS


def test_a_vehicles_halves_are_marked_and_what_is_taken_away_is_no_half_any_more() -> None:
    first, second, later = (
        _half("a/s/1", 0, 4, 100, 300),
        _half("a/s/2", 5, 9, 350, 600),
        _half("b/s/1", 20, 24, 100, 600),
    )
    mark_breaks([later, second, first])
    halves = [(one.breaks_off, one.goes_on) for one in (first, second, later)]
    mark_breaks([first, later])

    assert halves == [(True, False), (False, True), (False, False)]
    assert not first.breaks_off


def test_between_a_half_and_what_its_other_half_knows_better_time_and_place_are_not_asked() -> None:
    first, second, after = (
        _half("a/s/1", 0, 4, 100, 300),
        _half("a/s/2", 5, 9, 350, 600),
        _half("b/s/1", 20, 24, 100, 600),
    )
    breaks = find_breaks([first, second], [], _SCALES)

    [[broken_off], [gone_on]] = _SCALES.totals([first, second], [after], breaks).tolist()

    assert broken_off == 0.0
    assert gone_on == _SCALES.totals([second], [after])[0, 0] != 0.0
