"""A letterbox keeps the picture whole, its shape as it is, and takes boxes there and back."""

from __future__ import annotations

import numpy as np
import pytest

from detector.letterbox import PADDING, Letterbox

SIZES = [(540, 960), (480, 640), (352, 640), (720, 1280), (100, 30), (384, 640), (7, 2000)]


@pytest.mark.parametrize("source", SIZES)
def test_a_picture_fills_one_direction_and_is_gray_around(source: tuple[int, int]) -> None:
    place = Letterbox.fit(source, (384, 640))
    canvas = np.zeros((384, 640, 3), np.uint8)
    place.draw(np.full((*source, 3), 255, np.uint8), canvas)
    inside = canvas == 255
    assert set(np.unique(canvas)) <= {PADDING, 255}
    assert inside.sum() == place.width * place.height * 3
    assert place.width == 640 or place.height == 384


@pytest.mark.parametrize("source", SIZES)
def test_boxes_come_back(source: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.5, (20, 2)) * [source[1], source[0]]
    high = low + rng.uniform(0.1, 0.5, (20, 2)) * [source[1], source[0]]
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    place = Letterbox.fit(source, (384, 640))
    assert np.allclose(place.to_source(place.from_source(boxes), source), boxes, atol=1e-2)


def test_what_lies_outside_is_clipped() -> None:
    place = Letterbox.fit((480, 640), (384, 640))
    (box,) = place.to_source(np.array([[0, 0, 640, 384]], np.float32), (480, 640))
    assert box.tolist() == [0, 0, 640, 480]
