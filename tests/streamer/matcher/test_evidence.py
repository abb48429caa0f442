from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from reid.modality import Modality
from streamer.config import LinkConfig, MatcherConfig
from streamer.matcher.broken import BROKEN_S
from streamer.matcher.centring import Centring
from streamer.matcher.evidence import Scales, gap_s
from streamer.matcher.roads import RoadGraph
from streamer.matcher.topology import Topology, learn_topology
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import CALIBRATION, DIMENSION, between, links, looks, seen

CAMERAS = "abc"
REACH_S = 120.0


def _scales(
    topology: Topology | None = None, *, road: tuple[LinkConfig, ...] | None = None, **config: float | bool
) -> Scales:
    found = topology or Topology(RoadGraph(road, dwell_s=30.0))
    return Scales(MatcherConfig.model_validate({"reach_s": REACH_S, **config}), CALIBRATION, Centring({}), found)


@cache
def _day() -> list[Tracklet]:
    """Tracklets of a few vehicles anywhere and at any time, by day and by night, some with two looks."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(60):
        start = float(rng.uniform(0, 400))
        vector = looks(int(rng.integers(5))) + rng.normal(0, 0.15, DIMENSION)
        unit = np.asarray(vector / np.linalg.norm(vector), np.float32)
        enters, leaves = ((float(x), float(y)) for x, y in rng.uniform(0, 1000, (2, 2)))
        votes = [{"car": 1.0}, {"car": 0.7, "truck": 0.3}, {"motorcycle": 0.95, "car": 0.05}][int(rng.integers(3))]
        one = seen(
            f"{CAMERAS[number % 3]}/s/{number}", start, start + 6, unit, enters=enters, leaves=leaves, votes=votes
        )
        if number % 4 == 0:
            one.vectors[Modality.THERMAL] = looks(int(rng.integers(5)))
        found.append(one)
    return found


@cache
def _learned() -> Topology:
    by_camera = {camera: [one for one in _day() if one.camera == camera] for camera in CAMERAS}
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    return learn_topology(by_camera, _scales().looks, Topology(RoadGraph(None, dwell_s=30.0)), pairs)


@pytest.mark.parametrize("is_learned", [False, True])
def test_all_pairs_at_once_are_weighed_as_one_by_one_where_looks_leave_it_open(is_learned: bool) -> None:
    scales = _scales(_learned() if is_learned else None, prior_log_odds=0.5)
    totals = scales.totals(_day(), _day())
    weighed = 0

    for row, first in enumerate(_day()):
        for column, second in enumerate(_day()):
            evidence = scales.weigh(first, second)
            is_near = gap_s(first, second) <= (BROKEN_S if first.camera == second.camera else 20)
            is_open = evidence.appearance > -2.9 and is_near
            if is_open and scales.forbids(first, second) is None:
                weighed += 1
                assert totals[row, column] == pytest.approx(evidence.total, abs=1e-4)
    assert weighed >= 80


def test_evidence_does_not_depend_on_who_asks() -> None:
    totals = _scales(_learned()).totals(_day(), _day())

    assert np.allclose(totals, totals.T, atol=1e-4)


def test_what_is_far_apart_in_time_is_only_spoken_against() -> None:
    scales = _scales(_learned())
    totals, appearance = scales.totals(_day(), _day()), scales.looks(_day(), _day())
    far = np.array([[gap_s(first, second) > REACH_S for second in _day()] for first in _day()])

    assert far.any()
    assert (appearance[far] > 3).any()
    assert (totals[far] <= 0).all()


def test_a_forbidden_pair_is_forbidden_whatever_it_looks_like() -> None:
    scales = _scales(_learned())
    totals = scales.totals(_day(), _day())
    forbidden = np.array([[scales.forbids(one, other) is not None for other in _day()] for one in _day()])

    assert (totals[forbidden] == -np.inf).all()
    assert np.isfinite(totals[~forbidden]).all()


def _one_total(first: Tracklet, second: Tracklet, scales: Scales) -> float:
    return float(scales.totals([first], [second])[0, 0])


def test_nobody_is_twice_in_one_view_at_one_time() -> None:
    first, second, later = (seen(f"a/s/{n}", *times, looks(1)) for n, times in enumerate([(0, 5), (4, 9), (30, 35)]))

    assert _one_total(first, second, _scales()) == -math.inf
    assert _scales().forbids(first, second) == "twice in one view at one time"
    assert math.isfinite(_one_total(first, later, _scales()))


def test_the_road_sets_limits_either_way() -> None:
    scales = _scales(road=links(("a", "b", 5, 30)))
    first = seen("a/s/1", 0, 4, looks(1))

    totals = [_one_total(first, seen("b/s/1", at, at + 2, looks(1)), scales) for at in (6.0, 10.0, 40.0)]

    assert [math.isfinite(total) for total in totals] == [False, True, False]


def test_a_sure_motorcycle_is_no_car_and_an_unsure_one_may_be() -> None:
    car = seen("a/s/1", 0, 4, looks(1))
    sure, unsure = (seen("b/s/1", 8, 12, looks(1), votes={"motorcycle": p, "car": 1 - p}) for p in (0.95, 0.7))

    assert _one_total(car, sure, _scales()) == -math.inf
    assert math.isfinite(_one_total(car, unsure, _scales()))


def test_nobody_is_linked_without_a_look() -> None:
    blind = seen("a/s/1", 0, 4, looks(1))
    blind.vectors.clear()
    other = seen("b/s/1", 8, 12, looks(1))

    assert _one_total(blind, other, _scales()) == -math.inf
    assert _scales().weigh(blind, other).total == -math.inf


def test_a_broken_tracklet_goes_on_where_it_was_foreseen() -> None:
    first = seen("a/s/1", 0, 4, looks(1), enters=(100, 400), leaves=(500, 400))
    ahead, elsewhere = (seen("a/s/2", 4.5, 8, looks(1), enters=(x, 400), leaves=(x + 300, 400)) for x in (550, 1500))
    goes_on, jumps = (_scales().weigh(first, one).transit for one in (ahead, elsewhere))

    assert goes_on > jumps + 3


def test_two_that_look_alike_and_pass_one_camera_at_different_times_are_not_linked_by_that() -> None:
    first, much_later = seen("a/s/1", 0, 4, looks(1)), seen("a/s/2", 60, 64, looks(1))

    assert _one_total(first, much_later, _scales()) == 0


def test_each_kind_of_evidence_can_be_switched_off() -> None:
    first, second = seen("a/s/1", 0, 4, looks(1)), seen("b/s/1", 8, 12, between(1, 2, 0.6))
    usual = _scales(_learned()).weigh(first, second)

    assert _scales(_learned(), use_appearance=False).weigh(first, second).appearance == 0
    assert _scales(_learned(), use_class=False).weigh(first, second).vehicle_class == 0
    assert _scales(_learned(), use_transit=False, unknown_log_odds=-1.5).weigh(first, second).transit == -1.5
    assert usual.appearance != 0
    assert usual.vehicle_class != 0
