from __future__ import annotations

from datetime import timedelta

import cv2
import numpy as np
import pytest

from reid.modality import Modality
from streamer.crops import (
    CropSelector,
    Scene,
    VehicleCrop,
    cut,
    encode_crop,
    geometric_qualities,
    sharpness,
)
from streamer.sightings import MAX_CROP_BYTES
from tests.streamer.book_builders import START, texture

SHAPE = (480, 640)


def qualities(*boxes: tuple[float, float, float, float], confidence: float = 0.9) -> list[float]:
    array = np.array(boxes, np.float32)
    return [float(q) for q in geometric_qualities(array, np.full(len(boxes), confidence, np.float32), SHAPE)]


def crop(quality: float, second: float, box: tuple[float, float, float, float] = (0, 0, 50, 50)) -> VehicleCrop:
    image = texture(0, 8, 8)
    moment = START + timedelta(seconds=second)
    return VehicleCrop(image, quality, moment, Modality.VISIBLE, box, Scene(image, 960, 85))


def selector() -> CropSelector:
    return CropSelector(START.timestamp(), min_interval_s=1.0, better_by=1.15)


def seconds(value: float) -> float:
    return START.timestamp() + value


def test_bigger_is_better_up_to_the_network_s_own_size() -> None:
    small, large, larger = (qualities((100, 100, 100 + side, 100 + side))[0] for side in (30, 128, 200))

    assert small < large == larger


def test_a_box_cut_by_the_border_is_worse_than_the_same_box_inside() -> None:
    inside, outside = qualities((100, 100, 200, 200))[0], qualities((0, 100, 100, 200))[0]

    assert outside < 0.5 * inside


def test_only_what_is_nearer_to_the_camera_hides_a_vehicle() -> None:
    far, near = qualities((100, 100, 200, 200), (150, 120, 250, 240))
    alone_far, alone_near = qualities((100, 100, 200, 200))[0], qualities((150, 120, 250, 240))[0]

    assert far < alone_far
    assert near == alone_near


def test_confidence_counts() -> None:
    assert qualities((100, 100, 200, 200), confidence=0.2)[0] < qualities((100, 100, 200, 200), confidence=0.9)[0]


def test_no_boxes_no_qualities() -> None:
    assert geometric_qualities(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), SHAPE).shape == (0,)


def test_a_blurred_crop_is_less_sharp() -> None:
    image = texture(3, 100, 100)
    blurred = np.asarray(cv2.GaussianBlur(image, (0, 0), 4), np.uint8)

    assert 0.4 <= sharpness(blurred) < sharpness(image) <= 1


@pytest.mark.parametrize(
    "box", [(-5.0, -5.0, 10.0, 10.0), (635, 475, 645, 490), (10, 10, 10.2, 10.2), (700, 500, 720, 520)]
)
def test_a_cut_always_has_pixels(box: tuple[float, float, float, float]) -> None:
    assert cut(texture(0, *SHAPE), np.array(box, np.float32)).size > 0


def test_a_cut_has_a_margin() -> None:
    assert cut(texture(0, *SHAPE), np.array([100, 100, 200, 300], np.float32)).shape == (212, 106, 3)


def test_a_crop_fits_its_message_whatever_its_size() -> None:
    assert len(encode_crop(texture(1, 900, 900), 95)) <= MAX_CROP_BYTES


def test_a_scene_is_shrunk_once_and_encoded_once() -> None:
    scene = Scene(texture(2, 400, 2000), 960, 80)

    first = scene.jpeg()
    assert scene.image.shape == (192, 960, 3)
    assert scene.jpeg() is first


def test_a_good_crop_is_taken_at_once_a_fair_one_later_a_poor_one_last() -> None:
    for quality, waited_s in ((0.6, 0.0), (0.3, 0.5), (0.1, 2.0)):
        chooser = selector()
        chooser.offer(crop(quality, 0))
        if waited_s:
            assert chooser.choose(seconds(waited_s - 0.01)) is None
        assert chooser.choose(seconds(waited_s)) is not None


def test_after_the_first_only_better_or_different_ones_are_wanted() -> None:
    chooser = selector()
    chooser.offer(crop(0.6, 0))
    chooser.choose(seconds(0))

    same_place, elsewhere = np.array([0, 0, 50, 50], np.float32), np.array([60, 0, 110, 50], np.float32)
    assert chooser.wanted_quality(Modality.VISIBLE, same_place) == pytest.approx(0.6 * 1.15)
    assert chooser.wanted_quality(Modality.VISIBLE, elsewhere) == pytest.approx(0.6 * 0.6)
    assert chooser.wanted_quality(Modality.THERMAL, same_place) == 0


def test_a_better_crop_says_so_and_waits_for_its_turn() -> None:
    chooser = selector()
    chooser.offer(crop(0.6, 0))
    chooser.choose(seconds(0))
    chooser.offer(crop(0.8, 0.4))

    assert chooser.choose(seconds(0.9)) is None
    choice = chooser.choose(seconds(1.0))
    assert choice is not None
    assert choice.is_better
    assert choice.crop.quality == 0.8


def test_the_last_word_goes_to_a_better_crop_alone() -> None:
    chooser = selector()
    chooser.offer(crop(0.6, 0))
    chooser.choose(seconds(0))
    chooser.offer(crop(0.65, 0.3))
    assert chooser.choose_last(seconds(0.5)) is None

    chooser.offer(crop(0.9, 0.4))
    assert chooser.choose_last(seconds(0.5)) is not None
