from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.matcher.co_visibility import SharedStay, ViewMap, learn_view_map, shared_stay
from streamer.matcher.ground_path import GroundPath

#: From metres of road to the pixels of two cameras that look at it from either side.
FIRST = np.array([[40.0, 6.0, 300.0], [2.0, -14.0, 900.0], [0.001, 0.012, 1.0]])
SECOND = np.array([[-35.0, 9.0, 1500.0], [3.0, 16.0, 300.0], [0.002, -0.009, 1.0]])


def _seen(homography: NDArray[np.float64], road: NDArray[np.float64], rng: np.random.Generator) -> GroundPath:
    projected = np.c_[road[:, 1:], np.ones(len(road))] @ homography.T
    points = projected[:, :2] / projected[:, 2:]
    return GroundPath(road[:, 0], points + rng.normal(0, 2.0, points.shape), np.full(len(road), 60.0))


def _drive(rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, 3) time, and place on the road in metres."""
    times = np.arange(0, rng.uniform(2.5, 4.0), 0.2)
    speed = rng.choice([-1, 1]) * rng.uniform(5, 9)
    lane = rng.choice([2.0, 6.0, 10.0, 14.0]) + rng.normal(0, 0.3)
    return np.stack([times, 14 - speed * 1.6 + speed * times, lane + rng.normal(0, 0.4) * times], axis=1)


def _stay(first: NDArray[np.float64], second: NDArray[np.float64], rng: np.random.Generator) -> SharedStay:
    found = shared_stay(_seen(FIRST, first, rng), _seen(SECOND, second, rng))
    assert found is not None
    return found


def _true_pairs(count: int, rng: np.random.Generator) -> list[SharedStay]:
    drives = [_drive(rng) for _ in range(count)]
    return [_stay(drive, drive, rng) for drive in drives]


def _wrong_pairs(count: int, rng: np.random.Generator) -> list[SharedStay]:
    return [_stay(_drive(rng), _drive(rng), rng) for _ in range(count)]


@pytest.mark.parametrize("wrong", [0, 8, 16])
@pytest.mark.parametrize("seed", range(4))
def test_the_map_is_found_among_wrong_pairs(seed: int, wrong: int) -> None:
    rng = np.random.default_rng(seed)
    stays = [*_true_pairs(40 - wrong, rng), *_wrong_pairs(wrong, rng)]

    found = learn_view_map(stays, np.full(len(stays), 0.7))

    assert found is not None
    assert np.median([found.difference(stay) for stay in _true_pairs(20, rng)]) < 0.3
    assert min(found.llr(stay) for stay in _true_pairs(20, rng)) > 0
    assert np.median([found.llr(stay) for stay in _true_pairs(20, rng)]) > 2


def test_a_pair_that_is_far_apart_on_the_map_is_hardly_one_vehicle() -> None:
    rng = np.random.default_rng(5)
    found = learn_view_map(_true_pairs(20, rng), np.ones(20))
    drive = _drive(rng)

    assert found is not None
    assert found.llr(_stay(drive, drive + np.array([0, 8.0, 0]), rng)) < -4


@pytest.mark.parametrize("seed", range(6))
def test_views_that_share_no_road_have_no_map(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def anywhere() -> GroundPath:
        times = np.arange(0, 3, 0.2)
        entry, leave = rng.uniform(0, 1000, (2, 2))
        points = entry + np.outer(times / times[-1], leave - entry)
        return GroundPath(times, points, np.full(len(times), 60.0))

    stays = [stay for stay in (shared_stay(anywhere(), anywhere()) for _ in range(40)) if stay is not None]

    assert learn_view_map(stays, np.full(len(stays), 0.7)) is None


def test_too_few_pairs_make_no_map() -> None:
    assert learn_view_map(_true_pairs(4, np.random.default_rng(0)), np.ones(4)) is None
    assert learn_view_map([], np.zeros(0)) is None


def test_a_map_is_the_same_after_it_was_kept() -> None:
    rng = np.random.default_rng(1)
    found = learn_view_map(_true_pairs(20, rng), np.ones(20))
    assert found is not None

    back = ViewMap.from_json(json.loads(json.dumps(found.to_json())))

    assert np.array_equal(back.forward, found.forward)
    assert np.array_equal(back.backward, found.backward)
    assert (back.spread, back.pairs) == (found.spread, found.pairs)


def test_a_map_is_learned_the_same_twice() -> None:
    stays = [*_true_pairs(20, np.random.default_rng(2)), *_wrong_pairs(8, np.random.default_rng(3))]
    first, second = (learn_view_map(stays, np.full(28, 0.7)) for _ in range(2))

    assert first is not None
    assert second is not None
    assert first.to_json() == second.to_json()


def test_two_that_were_hardly_in_view_together_say_nothing() -> None:
    rng = np.random.default_rng(4)
    drive = _drive(rng)
    later = drive + np.array([drive[-1, 0] - 0.3, 0, 0])

    assert shared_stay(_seen(FIRST, drive, rng), _seen(SECOND, later, rng)) is None
