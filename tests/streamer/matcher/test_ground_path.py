from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.matcher.ground_path import GroundPath, ground_path


def _same(first: GroundPath, second: GroundPath) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("times", "points", "heights"))


@settings(deadline=None)
@given(
    steps=st.lists(st.floats(0.001, 2.0), min_size=1, max_size=40),
    cuts=st.lists(st.integers(1, 40), max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_path_is_the_same_however_it_comes_in_parts(steps: list[float], cuts: list[int], seed: int) -> None:
    times = 1_767_268_800.0 + np.cumsum(steps)
    boxes = np.random.default_rng(seed).uniform(0, 1000, (len(times), 4)).astype(np.float32)
    edges = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})

    path = ground_path(times[: edges[1]], boxes[: edges[1]])
    for begin, end in pairwise(edges[1:]):
        path = path.joined(times[begin:end], boxes[begin:end])

    assert _same(path, ground_path(times, boxes))


def test_what_is_told_twice_changes_nothing() -> None:
    times, boxes = np.arange(20) / 10, np.tile(np.array([0, 0, 40, 30], np.float32), (20, 1))
    path = ground_path(times, boxes)

    assert _same(path.joined(times[5:], boxes[5:]), path)


def test_a_vehicle_touches_the_road_at_the_middle_of_its_lower_edge() -> None:
    path = ground_path(np.array([7.0]), np.array([[10, 20, 50, 80]], np.float32))

    assert (path.entry.tolist(), path.exit.tolist(), path.heights.tolist()) == ([30.0, 80.0], [30.0, 80.0], [60.0])


def test_a_path_keeps_few_moments_and_its_last() -> None:
    times = np.arange(0, 10.01, 0.02)
    path = ground_path(times, np.tile(np.array([0, 0, 40, 30], np.float32), (len(times), 1)))

    assert len(path) <= 52
    assert (path.times[0], path.times[-1]) == (times[0], times[-1])


def test_ahead_goes_on_with_the_last_speed() -> None:
    times = np.arange(0, 4, 0.1)
    left = np.where(times < 3, 0.0, 100 * (times - 3)).astype(np.float32)
    path = ground_path(times, np.stack([left, 0 * left, left + 40, 0 * left + 30], axis=1))

    point, height = path.ahead(times[-1] + 2.0)

    assert point == pytest.approx([path.points[-1][0] + 200, 30], abs=1.0)
    assert height == 30


def test_ahead_of_a_single_moment_is_where_it_was() -> None:
    point, _ = ground_path(np.array([7.0]), np.array([[10, 20, 50, 80]], np.float32)).ahead(9.0)

    assert point.tolist() == [30.0, 80.0]
