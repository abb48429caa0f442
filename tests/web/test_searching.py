"""A search finds the vehicle that a picture shows, in the part of it that was chosen, among what the caller may see."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import QueuePool

from reid.modality import Modality
from storage.accounts import Role
from storage.errors import StorageError, TrackletNotFoundError, TransientStorageError
from storage.likeness import LikenessFilter
from storage.writer import Writer
from tests.storage.storage_builders import assignment, embedding, path, tracklet
from tests.web.asking import small_site
from web import searching
from web.callers import Caller
from web.searching import PREVIEW_SIDE, WHOLE, Part
from web.services import SEARCHES_AT_ONCE, Services
from web.uploads import MAX_SIDE, MIN_SIDE

OTTO = Caller("otto", Role.OPERATOR)
VERA = Caller("vera", Role.VIEWER, frozenset({"yard"}))
COLOURS = ((200, 30, 30), (30, 60, 200), (230, 220, 40))


def _vehicle(number: int) -> NDArray[np.uint8]:
    """(96, 160, 3): a body of its own colour and outline on a street."""
    image = np.full((96, 160, 3), 120, np.uint8)
    image[60:] = 90
    image[30 - 8 * number : 75, 20 : 140 - 25 * number] = COLOURS[number]
    image[70:84, 30:46] = image[70:84, 90:106] = 15
    return image


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Three vehicles; the first two at the gate, the third at the yard."""
    with small_site(tmp_path) as ask:
        described = [ask.services.pictures.describe(_vehicle(number), Modality.VISIBLE) for number in range(3)]
        with ask.services.database.transaction() as session:
            writer = Writer(session)
            for number, (vector, model_id) in enumerate(described):
                seen = tracklet("yard" if number == 2 else "gate", number, start=10.0 * number, end=10.0 * number + 2)
                look = replace(embedding(seen, crop_image=f"{number}.jpg"), vector=vector, model_id=model_id)
                writer.store_sighting(seen, path(seen), [look])
                writer.assign(assignment(seen.tracklet_id, f"v{number}"))
        yield ask.services


def _found(services: Services, image: NDArray[np.uint8], caller: Caller = OTTO) -> list[str]:
    chosen = LikenessFilter(visible=caller.cameras)
    return [one.vehicle_id for one in searching.like_picture(services, caller, image, Modality.VISIBLE, chosen=chosen)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_vehicles_own_crop_comes_first(services: Services, number: int) -> None:
    written = io.BytesIO()
    Image.fromarray(_vehicle(number)).save(written, "JPEG", quality=70)
    found = _found(services, np.array(Image.open(written)))
    assert found[0] == f"v{number}"
    assert sorted(found) == ["v0", "v1", "v2"]


def test_only_cameras_of_the_caller_are_searched(services: Services) -> None:
    assert _found(services, _vehicle(0), VERA) == ["v2"]


def test_search_by_a_stop_leaves_its_vehicle_out(services: Services) -> None:
    first = tracklet("gate", 0).tracklet_id
    stop = searching.known_stop(services, OTTO, first)
    assert (stop.vehicle_id, stop.camera, stop.crop_images) == ("v0", "gate", ("0.jpg",))
    found = searching.like_tracklet(services, OTTO, stop.tracklet_id, chosen=LikenessFilter())
    assert sorted(one.vehicle_id for one in found) == ["v1", "v2"]


def test_stop_at_a_hidden_camera_is_not_known(services: Services) -> None:
    first = tracklet("gate", 0).tracklet_id
    with pytest.raises(TrackletNotFoundError):
        searching.known_stop(services, VERA, first)
    with pytest.raises(TrackletNotFoundError):
        searching.like_tracklet(services, VERA, first, chosen=LikenessFilter(visible=VERA.cameras))


def test_who_waits_for_other_searches_holds_no_connection_and_is_told_so(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.services.SEARCH_WAIT_S", 0.01)

    def no_connection(*_arguments: object) -> None:
        raise AssertionError("asked the database")

    with ExitStack() as others:
        for _ in range(SEARCHES_AT_ONCE):
            others.enter_context(services.searching())
        with monkeypatch.context() as patch:
            patch.setattr(services.database, "snapshot", no_connection)
            patch.setattr(services.database, "transaction", no_connection)
            with pytest.raises(TransientStorageError, match="other searches are under way"):
                _found(services, _vehicle(0))
            with pytest.raises(TransientStorageError, match="other searches are under way"):
                searching.like_tracklet(services, OTTO, "any", chosen=LikenessFilter())
    assert _found(services, _vehicle(0))[0] == "v0"


def test_a_picture_is_described_while_no_transaction_stands_still(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe, pool = services.pictures.describe, services.database._engine.pool
    assert isinstance(pool, QueuePool)
    held = []

    def watched(image: NDArray[np.uint8], modality: Modality) -> tuple[NDArray[np.float32], str]:
        held.append(pool.checkedout())
        return describe(image, modality)

    monkeypatch.setattr(services.pictures, "describe", watched)
    _found(services, _vehicle(0))
    assert held == [0]


def test_missing_calibration_is_one_line(services: Services, tmp_path: Path) -> None:
    matcher = services.site.matcher.model_copy(update={"calibration": str(tmp_path / "none.json")})
    services.site = services.site.model_copy(update={"matcher": matcher})
    with pytest.raises(StorageError, match=r"^looks can't be compared: [^\n]*none\.json"):
        _found(services, _vehicle(0))


def test_part_is_cut_out_within_the_picture() -> None:
    image = np.arange(100 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3)
    assert np.array_equal(WHOLE.of(image), image)
    assert np.array_equal(Part(0.5, 0.25, 1.0, 0.75).of(image), image[25:75, 100:200])
    assert np.array_equal(Part(1.0, 0.75, 0.5, 0.25).of(image), image[25:75, 100:200])
    assert Part(-3.0, -3.0, 7.0, 7.0).of(image).shape == image.shape
    assert Part(1.0, 1.0, 1.0, 1.0).of(image).shape == (MIN_SIDE, MIN_SIDE, 3)
    assert WHOLE.of(image[:3, :2]).shape == (3, 2, 3)


def test_picture_without_colours_is_guessed_as_infrared() -> None:
    colourful = _vehicle(0)
    grey = np.repeat(colourful.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    assert searching.band_guess(colourful) is Modality.VISIBLE
    assert searching.band_guess(grey) is Modality.NEAR_INFRARED


def test_a_picture_is_kept_smaller_than_a_camera_takes_it_and_shown_smaller_still() -> None:
    written = io.BytesIO()
    Image.new("RGB", (4000, 1000), "red").save(written, "JPEG")
    sent = searching.received(written.getvalue(), max_bytes=1 << 20, max_pixels=4_000_000)
    assert sent.image.shape == (MAX_SIDE // 4, MAX_SIDE, 3)
    assert sent.band is Modality.VISIBLE
    kind, _, data = sent.preview.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (PREVIEW_SIDE, PREVIEW_SIDE // 4)


def test_a_part_of_a_sent_picture_is_searched_as_it_was_sent() -> None:
    written = io.BytesIO()
    Image.fromarray(_vehicle(0)).save(written, "PNG")
    sent = searching.received(written.getvalue(), max_bytes=1 << 20, max_pixels=4_000_000)
    assert np.array_equal(sent.image, _vehicle(0))
