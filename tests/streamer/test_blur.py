"""What is blurred is gone; everything else stays as it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.blur import PLATES, WINDOWS, blurred_crop, blurred_scene
from streamer.crops import Scene
from tests.streamer.book_builders import Drive, Run, approaching, drive, rules, standing


def _noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _rows(height: int) -> NDArray[np.bool_]:
    """(height,) whether a row is blurred."""
    is_blurred = np.zeros(height, bool)
    for upper, lower in (WINDOWS, PLATES):
        is_blurred[int(upper * height) : int(np.ceil(lower * height))] = True
    return is_blurred


def _detail(image: NDArray[np.uint8]) -> float:
    """The energy of what differs from pixel to pixel."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var())


def _plate(text: str) -> NDArray[np.uint8]:
    """A car's rear of 240 x 300 pixels with a plate of a fifth of its width."""
    picture = np.full((240, 300, 3), 90, np.uint8)
    picture[180:196, 120:180] = 255
    cv2.putText(picture, text, (122, 193), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1)
    return picture


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_what_is_outside_of_the_bands_stays_and_the_crop_itself_is_not_written_to(
    height: int, width: int, seed: int
) -> None:
    crop = _noise(height, width, seed)
    before = crop.copy()
    blurred = blurred_crop(crop)
    outside = ~_rows(height)
    assert (blurred.shape, blurred.dtype) == (crop.shape, crop.dtype)
    np.testing.assert_array_equal(blurred[outside], crop[outside])
    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize("size", [(48, 64), (240, 300), (700, 500)])
def test_detail_is_gone_where_it_is_blurred(size: tuple[int, int]) -> None:
    crop = _noise(*size)
    blurred = blurred_crop(crop)
    for upper, lower in (WINDOWS, PLATES):
        band = slice(int(upper * size[0]), int(lower * size[0]))
        assert _detail(blurred[band]) < 0.01 * _detail(crop[band])


def test_of_a_vehicle_that_the_edge_cuts_all_is_blurred() -> None:
    crop = _noise(240, 300)
    assert _detail(blurred_crop(crop, whole=True)) < 0.01 * _detail(crop)
    scene = Scene(crop, 300, 95)
    assert [scene.cuts((10, *edges)) for edges in ((1, 90, 100), (20, 90, 239), (20, 90, 200))] == [True, True, False]


def test_two_plates_can_not_be_told_apart() -> None:
    one, other = _plate("AB 1234"), _plate("XY 9876")
    before = np.abs(one.astype(int) - other).max()
    after = np.abs(blurred_crop(one).astype(int) - blurred_crop(other)).max()
    assert before == pytest.approx(255, abs=60)
    # A cell is as large as three letters: what is left is how much ink they take.
    assert after < 25


@given(st.integers(0, 5))
@settings(deadline=None, max_examples=5)
def test_nothing_but_the_means_of_cells_is_kept(seed: int) -> None:
    # Of this size a crop's upper band is 12 x 6 cells of 20 pixels, without a rest.
    height, width = 218, 240
    crop = _noise(height, width, seed)
    band = slice(0, 120)
    means = crop[band].reshape(6, 20, 12, 20, 3).mean(axis=(1, 3))
    flat = crop.copy()
    flat[band] = np.rint(means).repeat(20, axis=0).repeat(20, axis=1)
    one, other = blurred_crop(crop)[band], blurred_crop(flat)[band]
    np.testing.assert_allclose(one.astype(int), other, atol=1)


def test_in_a_scene_every_vehicle_is_blurred_and_nothing_else() -> None:
    scene = _noise(200, 300)
    boxes = np.array([[10, 20, 110, 90], [250, 150, 340, 260], [-50, -50, -5, -5]], np.float32)
    blurred = blurred_scene(scene, boxes)
    covered = np.zeros((200, 300), bool)
    covered[17:93, 6:114] = True
    covered[146:, 247:] = True
    np.testing.assert_array_equal(blurred[~covered], scene[~covered])
    assert _detail(blurred[20:55, 10:110]) < 0.02 * _detail(scene[20:55, 10:110])
    assert _detail(blurred[152:195, 252:]) < 0.02 * _detail(scene[152:195, 252:])


@pytest.mark.parametrize("is_held", [False, True])
def test_a_scene_is_blurred_in_the_size_in_which_it_is_told(is_held: bool) -> None:
    image = _noise(400, 600)
    boxes = np.array([[100, 100, 500, 300]], np.float32)
    scene = Scene(image, 300, 95, hidden=boxes)
    told = cv2.imdecode(np.frombuffer((scene.hold() if is_held else scene).jpeg(), np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.imdecode(np.frombuffer(Scene(image, 300, 95).jpeg(), np.uint8), cv2.IMREAD_COLOR)
    assert told is not None
    assert plain is not None
    assert told.shape == plain.shape == (200, 300, 3)
    window = (slice(55, 100), slice(60, 240))
    assert _detail(np.asarray(told[window], np.uint8)) < 0.05 * _detail(np.asarray(plain[window], np.uint8))
    np.testing.assert_array_equal(told[176:], plain[176:])


def test_a_book_blurs_what_people_see_and_not_what_the_embedder_sees() -> None:
    drives = [Drive(1, standing(x=40, size=120), range(20)), Drive(2, approaching(), range(20))]
    plain, blurred = (drive(drives, 40, book_rules=rules(blur=blur)) for blur in (False, True))
    for one, other in zip(plain.questions, blurred.questions, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
    for picture, hidden in zip(_pictures(plain), _pictures(blurred), strict=True):
        upper = slice(0, int(0.5 * len(picture)))
        assert _detail(hidden[upper]) < 0.1 * _detail(picture[upper])
    for told, hidden_told in zip(plain.book.take_pictures(), blurred.book.take_pictures(), strict=True):
        assert (told.path, told.jpeg == hidden_told.jpeg) == (hidden_told.path, False)


def _pictures(run: Run) -> list[NDArray[np.uint8]]:
    found = [embedding.crop_jpeg for sighting in run.sightings for embedding in sighting.embeddings]
    return [cv2.imdecode(np.frombuffer(jpeg or b"", np.uint8), cv2.IMREAD_COLOR) for jpeg in found]  # type: ignore[misc]
