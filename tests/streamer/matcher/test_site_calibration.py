import json
import math
import random

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.calibration import Calibration, Logistic, ModalityPair
from reid.modality import Modality
from streamer.config import MatcherConfig
from streamer.matcher.centring import Centring
from streamer.matcher.ground_path import ground_path
from streamer.matcher.linker import Linker
from streamer.matcher.roads import RoadGraph
from streamer.matcher.site_calibration import Counts, SiteCalibration, fit_site
from streamer.matcher.sure_pairs import SurePair
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import CALIBRATION, tracklet

RGB: ModalityPair = (Modality.VISIBLE, Modality.VISIBLE)
PRIOR = Logistic(10.0, -5.0, 100)


def _counts(same: NDArray[np.float64], different: NDArray[np.float64]) -> Counts:
    counts = Counts()
    for kind, similarities in ((True, same), (False, different)):
        for similarity in similarities:
            counts.add(float(similarity), is_same=kind)
    return counts


def _drawn(number: int, seed: int = 0) -> Counts:
    # Normal densities of one width: their log ratio is a line, slope (0.8 - 0.2) / 0.2^2 = 15, zero at 0.5.
    rng = np.random.default_rng(seed)
    return _counts(rng.normal(0.8, 0.2, number), rng.normal(0.2, 0.2, 10 * number))


def test_with_many_pairs_it_is_the_sites_own_and_with_few_the_shipped_one() -> None:
    fits = [fit_site(_drawn(number), PRIOR) for number in (15, 100, 2000)]

    distances = [abs(fit.slope - 15.0) for fit in fits if fit is not None]
    assert len(distances) == 3
    # A little steeper than the truth: it reckons with wrong labels, and here there are none.
    assert distances[-1] < 2.0
    assert fit_site(_drawn(9), PRIOR) is None
    few, many = fits[0], fits[-1]
    assert few is not None
    assert many is not None
    assert abs(few.slope - PRIOR.slope) < abs(many.slope - PRIOR.slope)
    assert many.llr(0.5) == pytest.approx(0.0, abs=0.4)
    assert many.pairs == 22_000


def test_labels_of_one_vehicle_that_are_two_now_and_then_hardly_change_it() -> None:
    rng = np.random.default_rng(1)
    clean = rng.normal(0.8, 0.15, 200)
    different = rng.normal(0.1, 0.2, 2000)
    spoilt = np.concatenate([clean[:194], rng.normal(0.1, 0.2, 6)])

    fit, other = (fit_site(_counts(same, different), PRIOR) for same in (clean, spoilt))

    assert fit is not None
    assert other is not None
    assert other.slope == pytest.approx(fit.slope, rel=0.2)


def test_labels_against_all_reason_leave_the_shipped_fit() -> None:
    assert fit_site(_counts(np.full(500, -0.5), np.full(500, 0.9)), PRIOR) is None


def _pairs(number: int) -> list[SurePair]:
    rng = np.random.default_rng(2)
    found = []
    for index in range(number):
        vehicle, is_same = int(rng.integers(8)), index % 2 == 0
        other = vehicle if is_same else (vehicle + 1) % 8
        found.append(SurePair(tracklet("a/s/1", 0, 1, vehicle), tracklet("b/s/1", 0, 1, other), is_same))
    return found


def test_neither_order_nor_a_restart_changes_a_digit() -> None:
    pairs, centring = _pairs(60), Centring({})
    straight, shuffled, restarted = (SiteCalibration(CALIBRATION) for _ in range(3))
    straight.learn(pairs, centring)
    again = pairs[:]
    random.Random(0).shuffle(again)
    shuffled.learn(again[:25], centring)
    restarted.load(json.loads(json.dumps(shuffled.to_json())))
    assert restarted.current.fits == shuffled.current.fits
    restarted.learn(again[25:], centring)

    assert straight.counts[RGB].total == (30, 30)
    assert restarted.current.fits == straight.current.fits
    assert restarted.to_json() == straight.to_json()


def test_what_was_counted_for_another_embedder_is_not_taken_up() -> None:
    first, second = SiteCalibration(CALIBRATION), SiteCalibration(Calibration("other-2", {}))
    first.learn(_pairs(60), Centring({}))
    second.load(first.to_json())

    assert second.counts == {}
    assert second.current.fits == {}


def test_nothing_to_learn_changes_nothing() -> None:
    calibration = SiteCalibration(CALIBRATION)

    assert not calibration.learn([], Centring({}))
    assert calibration.current is CALIBRATION


def _crowd(seconds: int) -> list[Tracklet]:
    """Two vehicles in one view at a time, far apart, over and over."""
    found = []
    for start in range(0, seconds, 5):
        for lane in range(2):
            one = tracklet(f"a/s/{start}-{lane}", start, start + 4, vehicle=(start + 3 * lane) % 16)
            times = np.linspace(start, start + 4, 20)
            x = np.linspace(0, 400, 20)
            boxes = np.stack([x, np.full(20, 400.0 * lane), x + 60, np.full(20, 400.0 * lane + 40)], axis=1)
            one.follow(ground_path(times, boxes.astype(np.float32)))
            found.append(one)
    return found


def _linker() -> Linker:
    return Linker(
        MatcherConfig(settle_s=3.0, self_calibration=True), roads=RoadGraph(None, dwell_s=30.0), calibration=CALIBRATION
    )


def test_each_pair_is_counted_once_however_often_the_matcher_looks() -> None:
    at_once, in_steps = _linker(), _linker()
    for linker in (at_once, in_steps):
        for one in _crowd(200):
            linker.end(one)
    at_once.settle(math.inf)
    for mark in range(0, 250, 10):
        in_steps.settle(float(mark))
    in_steps.settle(math.inf)

    counted = [json.loads(linker.dump()["calibration"]) for linker in (at_once, in_steps)]
    assert counted[0] == counted[1]
    (_, _, same, different), *_ = counted[0]["counts"]
    # Of the 40 times two the last ones ended too late for the last look: others may still have been in view.
    assert same == []
    assert sum(number for _, number in different) == 39


def _both_views(seconds: int) -> list[Tracklet]:
    """Vehicles that two cameras see at the same pixels, one every 3 seconds, each in a lane of three."""
    rng, found = np.random.default_rng(3), []
    for number, start in enumerate(range(0, seconds, 3)):
        own = rng.normal(0, 1, 16)
        for camera in "ab":
            one = tracklet(f"{camera}/s/{number}", start, start + 4.0, vehicle=0)
            seen = (own + rng.normal(0, 0.5, 16)).astype(np.float32)
            one.look(Modality.VISIBLE, np.asarray(seen / np.linalg.norm(seen)))
            times = np.linspace(start, start + 4.0, 20)
            x, y = np.linspace(0, 600, 20) + rng.normal(0, 1, 20), 100 + 150 * (number % 3) + np.linspace(0, 60, 20)
            boxes = np.stack([x, y - 40, x + 60, y], axis=1).astype(np.float32)
            one.follow(ground_path(times, boxes))
            found.append(one)
    return found


def test_a_matcher_that_starts_again_goes_on_with_the_same_fits_and_decisions() -> None:
    seconds, stop = 300.0, 183.0
    straight, before, after = _linker(), _linker(), _linker()
    told: dict[str, str] = {}
    for linker in (straight, before):
        for one in _both_views(int(seconds)):
            if linker is straight or one.ended_at <= stop:
                linker.end(one)
    at_once = {one.tracklet_id: one.vehicle_id for one in straight.settle(math.inf).decisions}
    early = before.settle(stop)
    told.update((one.tracklet_id, one.vehicle_id) for one in early.decisions)
    for correction in early.corrections:
        told.update((one.tracklet_id, one.vehicle_id) for one in correction.decisions)
    after.load(before.dump())
    for one in _both_views(int(seconds)):
        if one.tracklet_id in told:
            after.remember(one, told[one.tracklet_id])
        else:
            after.end(one)

    seen = _both_views(9)
    assert after.scales.looks(seen, seen).tolist() == before.scales.looks(seen, seen).tolist()
    assert after.scales.looks(seen, seen).tolist() != _linker().scales.looks(seen, seen).tolist()
    late = {one.tracklet_id: one.vehicle_id for one in after.settle(math.inf).decisions}
    assert late
    assert {name: at_once[name] for name in late} == late
    calibrations = [json.loads(linker.dump()["calibration"]) for linker in (straight, after)]
    assert calibrations[0] == calibrations[1]
    (_, _, same, _), *_ = calibrations[0]["counts"]
    assert sum(number for _, number in same) > 60
