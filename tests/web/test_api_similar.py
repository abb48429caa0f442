"""Likeness over HTTP: by tracklet and by picture, within what somebody may see, and with what is no picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from storage.accounts import Role
from storage.writer import Writer
from tests.storage.storage_builders import START, assignment, embedding, path, tracklet
from tests.web.api_site import filled_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.database import Session
    from tests.web.asking import Asker

pytest_plugins = ("tests.web.pillow",)


class Describer:
    """Says of every picture the same as of looks in direction 3; notes what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[tuple[int, ...], str]] = []

    def describe(self, image: NDArray[np.uint8], modality: str) -> tuple[NDArray[np.float32], str]:
        self.shown.append((image.shape, str(modality)))
        vector = np.zeros(8, np.float32)
        vector[3] = 1.0
        return vector, "test"


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asker]:
    """As an operator; two vehicles look otherwise than all others, in directions 3 and 5."""
    with filled_site(tmp_path) as found:
        database = found.services.database
        for number, direction in ((60, 3), (61, 5)):
            with database.transaction() as session:
                _look(session, number, direction)
        yield found.with_token("otto", Role.OPERATOR)


def _look(session: Session, number: int, direction: int) -> None:
    seen = tracklet("gate", number, start=10.0 * number, end=10.0 * number + 1)
    writer = Writer(session)
    writer.store_sighting(seen, path(seen), [embedding(seen, direction=direction, at=10.0 * number)])
    writer.assign(assignment(seen.tracklet_id, f"v{number}"))


def _picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(data, "PNG")
    return data.getvalue()


def _send(ask: Asker, data: bytes, modality: str = "visible", **asked: Any) -> Any:  # noqa: ANN401 - a response
    files = {"picture": ("crop.png", data, "image/png")}
    return ask("POST", "/v1/similar", files=files, data={"picture_modality": modality}, params=asked)


def test_vehicles_like_a_tracklet_come_best_first_without_its_own(ask: Asker) -> None:
    found = ask("GET", "/v1/similar", params={"tracklet": "gate/s1/1", "limit": 30}).json()["items"]
    ids = [one["vehicle_id"] for one in found]
    assert "v01" not in ids
    assert len(ids) == len(set(ids))
    sure = [one["similarity"] for one in found]
    assert sure == sorted(sure, reverse=True)
    assert set(ids[-2:]) == {"v60", "v61"}


def test_filters_leave_out_what_was_not_asked_for(ask: Asker) -> None:
    asked = {"tracklet": "gate/s1/1", "camera": "yard", "vehicle_class": "truck", "end": "2026-01-01T12:01:00Z"}
    found = ask("GET", "/v1/similar", params=asked).json()["items"]
    assert [(one["vehicle_id"], one["camera"]) for one in found] == [("v04", "yard")]


def test_a_picture_is_described_and_sought(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    describer = Describer()
    monkeypatch.setattr(ask.services, "pictures", describer)
    answer = _send(ask, _picture(), "thermal", limit=1)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["items"]
    assert (found["vehicle_id"], found["modality"], found["crop"]) == ("v60", "visible", None)
    assert found["captured_at"] > START.isoformat()
    assert describer.shown == [((30, 40, 3), "thermal")]


def test_a_viewer_finds_what_their_cameras_saw(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask.services, "pictures", Describer())
    vera = ask.with_token("vera")
    assert {one["camera"] for one in _send(vera, _picture()).json()["items"]} == {"yard"}
    assert vera("GET", "/v1/similar", params={"tracklet": "gate/s1/1"}).status_code == 404
    assert {one["camera"] for one in vera("GET", "/v1/similar", params={"tracklet": "yard/s1/1"}).json()["items"]} == {
        "yard"
    }


def test_what_is_no_picture_is_refused_in_one_line(ask: Asker) -> None:
    answer = _send(ask, b"GIF89a and nothing more")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["detail"].startswith("picture: ")
    assert _send(ask, _picture(), "x-ray").status_code == 422
    assert ask("POST", "/v1/similar", data={"picture_modality": "visible"}).status_code == 422


def test_a_site_without_weights_says_so(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ask.services.site.embedder.model_copy(update={"weights": "nowhere"})
    monkeypatch.setattr(ask.services.pictures, "_settings", settings)
    answer = _send(ask, _picture())
    assert answer.status_code == 503
    assert "weights" in answer.json()["detail"]
    assert "nowhere" not in answer.text


def test_a_missing_calibration_is_told_in_one_line(ask: Asker) -> None:
    services = ask.services
    matcher = services.site.matcher.model_copy(update={"calibration": "none.json"})
    services.site = services.site.model_copy(update={"matcher": matcher})
    answer = ask("GET", "/v1/similar", params={"tracklet": "gate/s1/60"})
    assert answer.status_code == 503
    assert "calibration" in answer.json()["detail"]
