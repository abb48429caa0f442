"""A camera's picture is called what it is, once that has lasted; nightfall and passing vehicles are no fault."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from storage.database import Database
from storage.errors import StorageError
from storage.models import CameraTroubleRow
from streamer.camera_health import PictureHealth, PictureWatch
from streamer.counters import Board, Field, RowState
from streamer.health import PICTURE_HEALTH
from streamer.trouble_log import TroubleLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Luma = NDArray[np.uint8]

PERSIST_S = 10.0
LEARNED_S = 90


class Scene:
    """A street of boxes, with noise, and vehicles of other places at each look."""

    def __init__(self, seed: int = 0, *, light: float = 1.0) -> None:
        self._rng, self.light = np.random.default_rng(seed), light
        self._still = np.full((180, 320), 90, np.uint8)
        for _ in range(120):
            x, y = int(self._rng.integers(320)), int(self._rng.integers(180))
            width, height = (int(size) for size in self._rng.integers(5, 45, 2))
            shade = int(self._rng.integers(20, 230))
            cv2.rectangle(self._still, (x, y), (x + width, y + height), shade, -1)

    def luma(self) -> Luma:
        picture = self._still.astype(np.float32) * self.light
        for _ in range(3):
            x, y = int(self._rng.integers(280)), int(self._rng.integers(150))
            picture[y : y + 25, x : x + 40] = 200 * self.light
        return np.clip(picture + self._rng.normal(0, 2.5, picture.shape), 0, 255).astype(np.uint8)


def _moved(luma: Luma, *, share: float = 0.0, degrees: float = 0.0) -> Luma:
    height, width = luma.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[0, 2] += share * width
    return cv2.warpAffine(luma, matrix, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)


FAULTS: dict[PictureHealth, list[Callable[[Luma], Luma]]] = {
    PictureHealth.COVERED: [lambda luma: np.full_like(luma, 3), lambda luma: np.full_like(luma, 250)],
    PictureHealth.DEFOCUSED: [lambda luma: cv2.GaussianBlur(luma, (0, 0), 2.0).astype(np.uint8)],
    PictureHealth.MOVED: [lambda luma: _moved(luma, share=0.05), lambda luma: _moved(luma, degrees=3)],
}
CASES = [(health, fault) for health, faults in FAULTS.items() for fault in faults]


class Camera:
    """A watch that is shown a scene, a look a second."""

    def __init__(self, scene: Scene | None = None, reference: Luma | None = None) -> None:
        self.scene, self.watch, self.now_s = scene or Scene(), PictureWatch(1.0, PERSIST_S, reference), 1_000.0

    def run(
        self, seconds: int, fault: Callable[[Luma], Luma] = lambda luma: luma, band: str = ""
    ) -> list[PictureHealth]:
        """What each look said."""
        said = []
        for _ in range(seconds):
            said.append(self.watch.look(fault(self.scene.luma()), self.now_s, band))
            self.now_s += 1.0
        return said


@pytest.fixture(scope="module")
def learned_camera() -> Camera:
    learned = Camera()
    learned.run(LEARNED_S)
    return learned


@pytest.fixture
def camera(learned_camera: Camera) -> Camera:
    return deepcopy(learned_camera)


def test_traffic_is_no_trouble(camera: Camera) -> None:
    assert set(camera.run(120)) == {PictureHealth.OK}


@pytest.mark.parametrize(("health", "fault"), CASES)
def test_a_fault_is_told_once_it_has_lasted_and_so_is_its_end(
    camera: Camera, health: PictureHealth, fault: Callable[[Luma], Luma]
) -> None:
    began_s = camera.now_s
    said = camera.run(30, fault)
    assert said.index(health) == PERSIST_S
    assert set(said[: int(PERSIST_S)]) == {PictureHealth.OK}
    assert set(said[int(PERSIST_S) :]) == {health}
    assert camera.watch.since_s == began_s
    over_s = camera.now_s
    said = camera.run(30)
    assert said.index(PictureHealth.OK) == PERSIST_S
    assert camera.watch.since_s == over_s


def test_a_frozen_picture_is_told_even_when_its_still_is_encoded_anew(camera: Camera) -> None:
    still = camera.scene.luma()
    camera.run(1, lambda _: still)
    said = camera.run(20, lambda _: still)
    assert said.index(PictureHealth.FROZEN) == PERSIST_S
    assert camera.run(15)[-1] is PictureHealth.OK


def test_a_scene_that_never_had_noise_is_not_called_frozen() -> None:
    camera = Camera()
    still = camera.scene.luma()
    assert set(camera.run(200, lambda _: still)) == {PictureHealth.OK}


@pytest.mark.parametrize(("_health", "fault"), CASES)
def test_what_passes_soon_is_not_told(camera: Camera, _health: PictureHealth, fault: Callable[[Luma], Luma]) -> None:
    for _ in range(5):
        assert set(camera.run(int(PERSIST_S) - 1, fault) + camera.run(2)) == {PictureHealth.OK}


def test_nightfall_and_dawn_are_no_trouble(camera: Camera) -> None:
    for light in (*np.linspace(1.0, 0.15, 300), *np.linspace(0.15, 1.0, 300)):
        camera.scene.light = float(light)
        assert set(camera.run(1)) == {PictureHealth.OK}


def test_a_switch_of_the_band_is_no_trouble(camera: Camera) -> None:
    infrared = Camera(Scene(light=0.8))
    for band in ("near_infrared", "visible", "near_infrared"):
        scene = infrared.scene if band == "near_infrared" else camera.scene
        soft = (lambda luma: cv2.GaussianBlur(luma, (0, 0), 1.5).astype(np.uint8)) if band != "visible" else np.asarray
        shown = camera.scene
        camera.scene = scene
        assert set(camera.run(90, soft, band)) == {PictureHealth.OK}
        camera.scene = shown


def test_a_reference_tells_of_a_camera_that_was_moved_before_the_start() -> None:
    scene = Scene()
    camera = Camera(scene, reference=scene.luma())
    assert camera.run(20)[-1] is PictureHealth.OK
    moved = Camera(scene, reference=scene.luma())
    assert moved.run(20, lambda luma: _moved(luma, share=0.05))[-1] is PictureHealth.MOVED


def test_a_gap_is_no_evidence(camera: Camera) -> None:
    fault = FAULTS[PictureHealth.COVERED][0]
    for _ in range(3):
        assert set(camera.run(2, fault)) == {PictureHealth.OK}
        camera.now_s += 3600.0


def test_it_looks_no_more_often_than_asked(camera: Camera) -> None:
    assert camera.watch.is_due(camera.now_s)
    camera.run(1)
    assert not camera.watch.is_due(camera.now_s - 0.5)
    assert camera.watch.is_due(camera.now_s)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 300), st.integers(0, 255)), min_size=1, max_size=5))
def test_any_sequence_of_sizes_is_borne(sizes: list[tuple[int, int, int]]) -> None:
    watch = PictureWatch(1.0, 2.0)
    for second, (width, height, shade) in enumerate(sizes):
        assert watch.look(np.full((height, width), shade, np.uint8), float(second)) in PictureHealth


def test_the_database_names_each_health() -> None:
    assert PICTURE_HEALTH[1:] == tuple(health.name.lower() for health in PictureHealth)[1:]


# What becomes of it.


def _say(board: Board, health: PictureHealth, since_s: float) -> None:
    row = board.camera("gate")
    row[Field.HEALTH_SINCE], row[Field.HEALTH] = since_s, health


def _rows(database: Database) -> list[tuple[str, float, float | None]]:
    with database.snapshot() as session:
        found = session.scalars(select(CameraTroubleRow).order_by(CameraTroubleRow.began_at)).all()
        return [
            (row.kind, row.began_at.timestamp(), None if row.ended_at is None else row.ended_at.timestamp())
            for row in found
        ]


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(f"sqlite:///{tmp_path}/health.db")


def test_troubles_are_written_with_the_times_of_their_pictures(database: Database) -> None:
    board, log = Board(["gate"], []), TroubleLog()
    changes = [(PictureHealth.OK, 100.0), (PictureHealth.COVERED, 200.0), (PictureHealth.MOVED, 300.0)]
    for health, since_s in [*changes, (PictureHealth.OK, 400.0)]:
        _say(board, health, since_s)
        log.look("gate", board.camera("gate"))
        with database.transaction() as session:
            log.write(session)
        log.written()
    assert _rows(database) == [("covered", 200.0, 300.0), ("moved", 300.0, 400.0)]


def _write_in_vain(database: Database, log: TroubleLog) -> None:
    with database.transaction() as session:
        log.write(session)
        raise StorageError("away")


def test_a_database_that_was_away_misses_no_trouble(database: Database) -> None:
    board, log = Board(["gate"], []), TroubleLog()
    for health, since_s in [(PictureHealth.FROZEN, 200.0), (PictureHealth.OK, 300.0), (PictureHealth.MOVED, 400.0)]:
        _say(board, health, since_s)
        log.look("gate", board.camera("gate"))
        with pytest.raises(StorageError):
            _write_in_vain(database, log)
    with database.transaction() as session:
        log.write(session)
    log.written()
    assert _rows(database) == [("frozen", 200.0, 300.0), ("moved", 400.0, None)]


def test_a_camera_that_is_over_is_in_no_trouble(database: Database) -> None:
    board, log = Board(["gate"], []), TroubleLog()
    _say(board, PictureHealth.COVERED, 200.0)
    log.look("gate", board.camera("gate"))
    board.camera("gate")[Field.LAST_CAPTURED_AT] = 250.0
    board.camera("gate").state = RowState.FINISHED
    for _ in range(2):
        log.look("gate", board.camera("gate"))
    with database.transaction() as session:
        log.write(session)
    assert _rows(database) == [("covered", 200.0, 250.0)]


def test_health_has_a_code_for_each_row_of_the_board() -> None:
    assert all(after == before + 1 for before, after in pairwise(PictureHealth))
