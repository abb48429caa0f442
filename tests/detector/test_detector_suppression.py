"""Overlaps worked by hand, and what suppression promises of any boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.suppression import MAX_CANDIDATES, overlaps, suppress


def _boxes(seed: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + rng.uniform(1, 30, (count, 2))], axis=1).astype(np.float32)


def test_overlaps_by_hand() -> None:
    first = np.array([[0, 0, 2, 2], [5, 5, 5, 5]], np.float32)
    second = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 4, 4]], np.float32)
    assert np.allclose(overlaps(first, second), np.array([[1, 1 / 3, 0], [0, 0, 0]]))


@given(st.integers(0, 10_000), st.integers(0, 40), st.floats(0.1, 0.9))
def test_the_kept_are_apart_and_the_dropped_are_near_a_better_one(seed: int, count: int, max_iou: float) -> None:
    boxes = _boxes(seed, count)
    scores = np.random.default_rng(seed).uniform(size=count).astype(np.float32)
    kept = suppress(boxes, scores, max_iou)
    among = overlaps(boxes[kept], boxes[kept])
    assert np.all(np.diff(scores[kept]) <= 0)
    assert np.all(among[~np.eye(len(kept), dtype=bool)] <= max_iou)
    for dropped in set(range(count)) - set(kept.tolist()):
        near = overlaps(boxes[[dropped]], boxes[kept])[0] > max_iou
        assert np.any(near & (scores[kept] >= scores[dropped]))


def test_noise_everywhere_is_bounded() -> None:
    count = 3 * MAX_CANDIDATES
    corners = np.arange(count, dtype=np.float32)[:, None] * 10
    boxes = np.concatenate([corners, corners, corners + 5, corners + 5], axis=1)
    assert len(suppress(boxes, np.linspace(0, 1, count, dtype=np.float32), 0.5)) == MAX_CANDIDATES
