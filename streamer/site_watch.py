"""How a camera worker hears that its site has changed, and what that means for its cameras."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from streamer.camera_worker import LaneChange
from streamer.children import StartError
from streamer.counters import RowState
from streamer.setups import camera_entry, read_news

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamer.camera_worker import CameraWorker
    from streamer.config import CameraConfig, SiteConfig
    from streamer.counters import Board, Row
    from streamer.detector_pool import DetectorPool
    from streamer.lanes import Lane
    from streamer.setups import CameraSetup

_log = structlog.get_logger(__name__)

#: Between two looks whether there is a new edition.
LOOK_S = 0.2


class SiteWatch:
    """A thread beside a camera worker. It loads what new cameras need, which takes seconds, while the others go on.

    Args:
        setup: What the worker began with.
        board: Tells of new editions.
        detector: Learns what new cameras want.
        make_lane: A lane for a camera.
        worker: Told what changes.
    """

    def __init__(
        self,
        setup: CameraSetup,
        board: Board,
        detector: DetectorPool,
        make_lane: Callable[[CameraConfig, SiteConfig], Lane],
        worker: CameraWorker,
    ) -> None:
        self._setup, self._board, self._detector = setup, board, detector
        self._make_lane, self._worker = make_lane, worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="site-watch", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end; doesn't wait for weights that it may be loading."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            if self._board.edition > self._setup.edition:
                self._take_up(read_news(self._setup.news))

    def _take_up(self, new: CameraSetup) -> None:
        old, self._setup = self._setup, new
        before = {name: camera_entry(old.site, name) for name in old.cameras}
        after = {camera.id: camera_entry(new.site, camera.id) for camera in new.site.cameras}
        leaving = frozenset(name for name, entry in before.items() if after.get(name) != entry)
        joining = [new.site.camera(name) for name in new.cameras if before.get(name) != after[name]]
        lanes = tuple(lane for camera in joining if (lane := self._lane_of(camera, new.site)) is not None)
        self._worker.change(LaneChange(new.site, leaving, lanes, file_rows(new.site, self._board)))

    def _lane_of(self, camera: CameraConfig, site: SiteConfig) -> Lane | None:
        """None where a camera lacks what it needs: the others, and the next editions, are taken up all the same."""
        try:
            self._detector.learn([camera])
            return self._make_lane(camera, site)
        except StartError as error:
            row = self._board.camera(camera.id)
            row.state, row.note = RowState.FAILED, str(error)
            _log.error("camera can't be taken up", camera=camera.id, reason=str(error))
            return None


def file_rows(site: SiteConfig, board: Board) -> tuple[Row, ...]:
    """The rows of all file cameras of a site, in whichever worker they run."""
    return tuple(board.camera(camera.id) for camera in site.cameras if not camera.is_live)
