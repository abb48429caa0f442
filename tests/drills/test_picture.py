"""A camera whose picture goes bad: from its decoder through a camera worker to the database, with the times of it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest
from sqlalchemy import select

from storage.crop_store import CropStore
from storage.database import Database
from storage.models import CameraTroubleRow
from streamer.camera_health import PictureHealth, PictureWatch
from streamer.camera_session import Services
from streamer.camera_worker import CameraWorker
from streamer.config import CameraConfig, SiteConfig
from streamer.counters import Board, Field, RowState
from streamer.health import StatusWriter
from streamer.lanes import FilePace, Lane
from streamer.stream import CameraStream
from tests.drills.figures import note
from tests.servers.need import wait_until
from tests.streamer.fake_embedder import INFO
from tests.streamer.test_camera_health import Scene
from tests.streamer.worker_builders import STAGE, Bus, InstantClient, OneVehicle, PassingTracker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.integration, pytest.mark.drill]

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
FPS, PERIOD_S, PERSIST_S = 5, 0.2, 2.0
#: When the fault begins and ends, and the clip: a reference is learned from 60 looks, 12 s.
BEGINS_S, ENDS_S, LENGTH_S = 15.0, 22.0, 28.0
#: How exactly the times of a trouble are known: an encoder goes on to mend a still picture for a while.
NEAR_S = 2.5
STEP_S = 1.0

FAULTS: dict[str, Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "frozen": lambda _, still: still,
    "covered": lambda luma, _: np.full_like(luma, 2),
    "defocused": lambda luma, _: cv2.GaussianBlur(luma, (0, 0), 3.0).astype(np.uint8),
    "moved": lambda luma, _: np.roll(luma, luma.shape[1] // 12, axis=1),
}


def _film(path: Path, fault: str) -> None:
    """A clip that is good, then bad, then good again; H.264, as cameras send it."""
    scene = Scene()
    still = scene.luma()
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = still.shape[1], still.shape[0], "yuv420p"
        for index in range(int(LENGTH_S * FPS)):
            luma = scene.luma()
            if BEGINS_S <= index / FPS < ENDS_S:
                luma = FAULTS[fault](luma, still)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(luma, format="gray")))
        output.mux(stream.encode())


class Site:
    """A worker that follows one file, at a pace that the test gives."""

    def __init__(self, folder: Path) -> None:
        camera = CameraConfig(id="gate", url=str(folder / "gate.mp4"), start_time=START)
        self.site = SiteConfig(site="site", database=f"sqlite:///{folder}/s.db", cameras=(camera,), crops_dir=folder)
        self.board = Board(["gate", "pace"], [STAGE])
        self.row, self._pace = self.board.camera("gate"), self.board.camera("pace")
        self.reach(0.0)
        lane = Lane(camera, CameraStream(camera, self.site.source), self.row, None)
        lane.watch = PictureWatch(PERIOD_S, PERSIST_S)
        services = Services(
            self.site,
            InstantClient(),  # type: ignore[arg-type]
            INFO,
            Bus(),
            CropStore(folder),
            lambda _: PassingTracker(),
        )
        pace = FilePace([self.row, self._pace], STEP_S)
        self._worker = CameraWorker([lane], OneVehicle(), services, row=self.board.stage(STAGE), pace=pace)

    def reach(self, seconds: float) -> None:
        """Lets the camera go on to so far from its start."""
        self._pace[Field.REACHED_AT] = START.timestamp() + seconds

    def has_reached(self, seconds: float) -> bool:
        return self.row[Field.LAST_CAPTURED_AT] >= START.timestamp() + seconds or self.row.state is RowState.FINISHED

    @contextmanager
    def running(self) -> Iterator[None]:
        stopping = threading.Event()
        thread = threading.Thread(target=self._worker.run, args=(stopping.is_set,))
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(60.0)
        assert not thread.is_alive()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_picture_that_goes_bad_is_told_and_dated(tmp_path: Path, fault: str) -> None:
    _film(tmp_path / "gate.mp4", fault)
    site = Site(tmp_path)
    database = Database.open(site.site.database)
    status = StatusWriter(site.site, database, site.board, site.board.stage(STAGE))
    told_s: list[float] = []
    with site.running():
        for second in np.arange(STEP_S, LENGTH_S, STEP_S):
            site.reach(float(second))
            wait_until(lambda until=float(second): site.has_reached(until), what=f"second {second}")  # type: ignore[misc]
            status.write()
            if PictureHealth(site.row.count(Field.HEALTH)).is_trouble:
                told_s.append(float(second))
    with database.snapshot() as session:
        (trouble,) = session.scalars(select(CameraTroubleRow)).all()
        began_at, ended_at, kind = trouble.began_at, trouble.ended_at, trouble.kind
    database.close()
    assert kind == fault
    near = timedelta(seconds=NEAR_S)
    assert abs(began_at - START - timedelta(seconds=BEGINS_S)) <= near
    assert ended_at is not None
    assert abs(ended_at - START - timedelta(seconds=ENDS_S)) <= near
    note("picture", fault, told_after_s=round(told_s[0] - BEGINS_S, 1), persist_s=PERSIST_S, doubled=0, lost=0)
