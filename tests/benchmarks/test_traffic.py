"""The made-up traffic keeps the cameras' contract and its own promises; the matcher loses none of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from looks import MODALITIES, Looks, load_looks, mean_picture
from matcher_runs import BusRun, calibrate, run_core
from rival_linkers import (
    EndedTracklet,
    Join,
    Setting,
    join_clustered,
    join_clustered_calibrated,
    join_nearest,
    join_nearest_calibrated,
    tune,
)
from road_traffic import Roads, Traffic, TrafficConfig, TrueTracklet, made_up_site
from trackeval.metrics import Identity
from tracklet_scores import LinkCounts, idf1, score

from detector.detections import VehicleClass
from reid.calibration import Calibration, Logistic
from reid.modality import Modality
from streamer.config import MatcherConfig
from streamer.sighting_codec import decode, encode
from streamer.sightings import CameraState, Heartbeat, Message, Sighting, SightingKind

SMALL = TrafficConfig(vehicles=60, cameras=6, vehicles_per_hour=3600)
#: Standard deviations that a share may be off.
SIGMAS = 4.0


@pytest.fixture(scope="module")
def looks() -> Looks:
    return load_looks()


def _messages(config: TrafficConfig, looks: Looks) -> list[Message]:
    return [arrival.message for arrival in Traffic(config, looks).arrivals()]


def _is_share(found: int, of: int, share: float) -> bool:
    return abs(found / of - share) <= SIGMAS * math.sqrt(share * (1 - share) / of)


# --- Traffic.


def test_a_seed_gives_the_same_messages_again_and_another_seed_others(looks: Looks) -> None:
    first, again, other = (
        [encode(message) for message in _messages(replace(SMALL, vehicles=10, seed=seed), looks)] for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_faults_come_as_often_as_asked_for(looks: Looks) -> None:
    perfect = TrafficConfig(
        250, 9, 14400, missed=0, broken=0, class_errors=0, late=0, duplicated=0, parked=0, turning_off=0
    )
    missed = Traffic(replace(perfect, missed=0.2, heartbeat_s=60), looks)
    broken = Traffic(replace(perfect, broken=0.3, heartbeat_s=60), looks)
    flawed = Traffic(replace(perfect, class_errors=0.25, duplicated=0.1), looks)
    list(missed.arrivals()), list(broken.arrivals())
    arrivals = list(flawed.arrivals())

    assert len(flawed.truth) == flawed.stays
    assert _is_share(missed.stays - len(missed.truth), missed.stays, 0.2)
    # A part of a broken tracklet may be too short to be told of.
    assert _is_share(len(broken.truth) - broken.stays, broken.stays, 0.3)
    deliveries = Counter(encode(arrival.message) for arrival in arrivals)
    assert _is_share(len(arrivals) - len(deliveries), len(deliveries), 0.1)
    ends = {
        m.tracklet_id: m for _, m in arrivals if isinstance(m, Sighting) and m.kind is SightingKind.END
    }  # fmt: skip
    mistaken = sum(end.vehicle_class != flawed.truth[name].vehicle_class for name, end in ends.items())
    assert _is_share(mistaken, len(ends), 0.25)


def test_clocks_err_and_half_of_the_cameras_see_infrared() -> None:
    views = Roads(TrafficConfig(cameras=200, clock_skew_s=0.2)).views
    assert np.std([view.skew_s for view in views]) == pytest.approx(0.2, rel=0.2)
    bands = Counter(view.modality for view in views)
    assert bands == {Modality.VISIBLE: 100, Modality.THERMAL: 50, Modality.NEAR_INFRARED: 50}


def test_every_camera_is_reached_from_every_other() -> None:
    roads = Roads(TrafficConfig(cameras=13, seed=5))
    for origin in range(13):
        for destination in range(13):
            way = roads.route(origin, destination)
            assert (way[0], way[-1]) == (origin, destination)
            assert all(np.isfinite(roads.metres[step]) for step in pairwise(way))


def test_cameras_keep_their_contract(looks: Looks) -> None:
    """As `streamer.sightings` has it: order within a tracklet, and no sighting at or before a promise."""
    told: dict[str, list[Sighting]] = defaultdict(list)
    promised: dict[str, float] = defaultdict(float)
    finished, last_s = set(), 0.0
    config = replace(SMALL, duplicated=0, parked=0.05, late=0.1)
    for time_s, message in Traffic(config, looks).arrivals():
        encode(message)
        assert time_s >= last_s
        last_s = time_s
        assert message.camera not in finished
        if isinstance(message, Heartbeat):
            assert message.watermark.timestamp() >= promised[message.camera]
            promised[message.camera] = message.watermark.timestamp()
            finished |= {message.camera} if message.state is CameraState.FINISHED else set()
        else:
            assert message.occurred_at.timestamp() > promised[message.camera]
            told[message.tracklet_id].append(message)

    assert len(finished) == config.cameras
    for sightings in told.values():
        kinds = [sighting.kind for sighting in sightings]
        assert [sighting.sequence for sighting in sightings] == list(range(len(sightings)))
        assert kinds == [SightingKind.FIRST, *[SightingKind.UPDATE] * (len(kinds) - 2), SightingKind.END]
        assert (np.diff(np.concatenate([sighting.path.times for sighting in sightings])) > 0).all()
        assert (np.diff(np.concatenate([sighting.path.frames for sighting in sightings])) > 0).all()


# --- Looks.


def test_a_vehicle_resembles_itself_more_than_others_in_every_pair_of_modalities(looks: Looks) -> None:
    rng = np.random.default_rng(0)
    drawn = [looks.vehicle(rng)[1] for _ in range(200)]
    pictures = np.array([[mean_picture(looks.pictures(own, m, 3, rng)) for m in MODALITIES] for own in drawn])
    centred = pictures - looks.centres
    for first in range(3):
        for second in range(first):
            similarity = centred[:, first] @ centred[:, second].T
            same = np.diag(similarity)
            assert (same[:, np.newaxis] > similarity).sum() > 0.95 * (similarity.size - len(same))


# --- Scores.


def _true(vehicle: int, camera: str, frames: int, modality: Modality = Modality.VISIBLE) -> TrueTracklet:
    return TrueTracklet(vehicle, VehicleClass.CAR, camera, modality, frames)


@pytest.mark.parametrize("seed", range(5))
def test_idf1_is_what_trackeval_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = {f"t{n}": _true(int(rng.integers(6)), "a", int(rng.integers(1, 9))) for n in range(30)}
    names = {tracklet: f"v{rng.integers(8)}" for tracklet in truth}
    vehicles, identities = (np.unique(ids, return_inverse=True)[1] for ids in (
        [true.vehicle for true in truth.values()], list(names.values()),
    ))  # fmt: skip
    frames = [true.frames for true in truth.values()]
    rows = np.repeat(np.arange(30), frames)
    sequence = {
        "gt_ids": [vehicles[[row]] for row in rows],
        "tracker_ids": [identities[[row]] for row in rows],
        "similarity_scores": [np.ones((1, 1)) for _ in rows],
        "num_gt_ids": vehicles.max() + 1,
        "num_tracker_ids": identities.max() + 1,
        "num_gt_dets": len(rows),
        "num_tracker_dets": len(rows),
    }
    expected = Identity({"THRESHOLD": 0.5, "PRINT_CONFIG": False}).eval_sequence(sequence)["IDF1"]
    assert idf1(truth, names) == pytest.approx(expected)


def test_links_are_counted_by_pair_of_modalities() -> None:
    truth = {
        "a/1": _true(1, "a", 5),
        "b/1": _true(1, "b", 5, Modality.THERMAL),
        "c/1": _true(1, "c", 5),
        "a/2": _true(2, "a", 5),
        "b/2": _true(2, "b", 5, Modality.THERMAL),
    }
    scores = score(truth, {"a/1": "x", "c/1": "x", "b/2": "x", "a/2": "y", "b/1": "z"})
    assert scores.links == LinkCounts(truth=4, predicted=3, right=1)
    assert scores.by_modality == {"RGB~RGB": LinkCounts(1, 1, 1), "RGB~thermal": LinkCounts(3, 2, 0)}
    assert scores.idf1 == pytest.approx(3 / 5)


# --- Rivals.

CALIBRATION = Calibration(
    "any",
    {
        (Modality.VISIBLE, Modality.VISIBLE): Logistic(30.0, -25.5),
        (Modality.THERMAL, Modality.VISIBLE): Logistic(20, -10),
    },
)


def _ended(name: str, start_s: float, angle: float, modality: Modality = Modality.VISIBLE) -> EndedTracklet:
    vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return EndedTracklet(name, name.split("/")[0], modality, start_s, start_s + 5, vector)


def test_rivals_join_what_looks_alike_but_never_two_in_one_view_at_one_time() -> None:
    tracklets = [_ended("a/1", 0, 0.0), _ended("a/2", 3, 0.1), _ended("b/1", 20, 0.02), _ended("b/2", 20, 1.5)]
    plain, evidence = Setting(0.9), Setting(3.0)
    for said in (
        join_nearest(tracklets, plain),
        join_clustered(tracklets)(plain),
        join_nearest_calibrated(tracklets, CALIBRATION)(evidence),
        join_clustered_calibrated(tracklets, CALIBRATION)(evidence),
    ):
        assert said["a/1"] == said["b/1"]
        assert len({said["a/1"], said["a/2"], said["b/2"]}) == 3


@pytest.mark.parametrize("join", [join_nearest_calibrated, join_clustered_calibrated])
def test_calibrated_rivals_weigh_pairs_of_bands_each_by_its_fit(join: Callable[..., Join]) -> None:
    """At one cosine of 0.8, two of one band are strangers and two of different bands are one."""
    angle = float(np.arccos(0.8))
    one_band = [_ended("a/1", 0, 0.0), _ended("b/1", 20, angle)]
    two_bands = [one_band[0], _ended("b/1", 20, angle, Modality.THERMAL)]
    assert len(set(join(one_band, CALIBRATION)(Setting(0.0)).values())) == 2
    assert len(set(join(two_bands, CALIBRATION)(Setting(0.0)).values())) == 1


@pytest.mark.parametrize("join", [join_nearest_calibrated, join_clustered_calibrated])
def test_calibrated_rivals_split_what_was_away_for_longer_than_the_gap(join: Callable[..., Join]) -> None:
    """Sightings end at 5, 25 and 105 s: pauses of 15 and 75 s."""
    tracklets = [_ended("a/1", 0, 0.0), _ended("b/1", 20, 0.0), _ended("c/1", 100, 0.0)]
    joined = join(tracklets, CALIBRATION)
    assert [len(set(joined(Setting(0.0, gap_s)).values())) for gap_s in (14, 16, 74, 76)] == [3, 2, 2, 1]


def test_the_setting_with_the_best_score_is_taken() -> None:
    settings = [Setting(threshold, gap_s) for threshold in (0.5, 0.7, 0.9) for gap_s in (30.0, 60.0)]
    best = tune(
        lambda setting: {"t": f"{setting.threshold + setting.max_gap_s}"},
        lambda said: -abs(float(said["t"]) - 60.7),
        settings,
    )
    assert best == Setting(0.7, 60.0)


# --- Through outbox, worker and database.


def test_no_tracklet_is_lost_and_second_deliveries_change_nothing(tmp_path: Path, looks: Looks) -> None:
    """All of it, with second deliveries, decides what the core decides without them."""
    traffic = Traffic(replace(SMALL, duplicated=0.2, heartbeat_s=5.0), looks)
    payloads = [encode(arrival.message) for arrival in traffic.arrivals()]
    once = list(dict.fromkeys(payloads))
    matcher = MatcherConfig(calibration=str(calibrate(looks, tmp_path / "calibration.json")))
    site = made_up_site(traffic, "sqlite:///unused.db", matcher)

    with BusRun(site) as bus:
        for payload in payloads:
            bus.feed(decode(payload))
        run = bus.finish()
        assert (bus.counters.lost, bus.counters.rejected, bus.counters.uncompared) == (0, 0, 0)
        assert bus.counters.messages == len(payloads) > len(once)

    expected = run_core(site, map(decode, once))
    assert run.final.keys() == traffic.truth.keys()
    assert run.decided == expected.decided
    assert run.final == expected.final
