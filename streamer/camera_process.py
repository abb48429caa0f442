"""What a camera worker is made of, and its life as a process."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import cv2

from detector.motion import MotionGate
from detector.tracker import VehicleTracker
from storage.crop_store import CropStore
from streamer.bus.factory import open_publisher
from streamer.camera_health import PictureWatch
from streamer.camera_session import CropTag, Services
from streamer.camera_worker import CameraWorker
from streamer.children import ChildContext, StartError
from streamer.counters import Order, RowState
from streamer.detector_pool import DetectorPool
from streamer.embedding_client import EmbeddingClient
from streamer.lanes import FilePace, Lane, keep_alive_frames
from streamer.reference import ReferencePictureError, load_reference
from streamer.site_watch import SiteWatch, file_rows
from streamer.stream import CameraStream
from streamer.trace import SightingTrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from reid.embedder import EmbedderInfo
    from streamer.config import CameraConfig, CameraHealthConfig, SiteConfig
    from streamer.counters import Board
    from streamer.lanes import Gate
    from streamer.setups import CameraSetup

#: Files of one site stay this close together in event time, or a third of the matcher's patience if that is less.
MAX_LEAD_S = 5.0
#: How long one stage may keep the interpreter from another. By default 5 ms, a quarter of a frame's time in the
#: network, in which both cores may wait for the next picture to be drawn.
SWITCH_INTERVAL_S = 0.0005
#: How long a camera worker waits for the embedder to load; the supervisor restarts it after that.
EMBEDDER_START_S = 120.0


def run_camera_worker(context: ChildContext, setup: CameraSetup) -> None:
    """Loads the detectors and follows the cameras, until they are over or all cameras are told to stop.

    Raises:
        StartError: A detector can't be loaded, or the embedder doesn't come up.
    """
    # The libraries' own threads would fight for the cores that the stages already share.
    cv2.setNumThreads(1)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    site, row = setup.site, context.board.stage(setup.stage)
    cameras = [site.camera(name) for name in setup.cameras]
    detector = DetectorPool(site.detector, cameras)
    client: EmbeddingClient[CropTag] = EmbeddingClient(setup.embedder_address, site.embedder)
    client.start()
    publisher = open_publisher(site)
    trace = None if setup.trace is None else SightingTrace(setup.trace, time.monotonic)
    services = Services(
        site, client, _wait_for_embedder(client), publisher, CropStore(site.crops_dir), _tracker_of(site), trace
    )
    # The first tracker loads its library: seconds that no frame should wait.
    services.make_tracker(1.0)
    context.say_started()
    lanes = [_lane(camera, site, context.board) for camera in cameras]
    worker = CameraWorker(lanes, detector, services, row=row, pace=_pace(site, context.board))
    watch = SiteWatch(setup, context.board, detector, lambda camera, new: _lane(camera, new, context.board), worker)
    row.state = RowState.RUNNING
    try:
        watch.start()
        worker.run(lambda: context.is_told(Order.STOP_CAMERAS))
    finally:
        watch.stop()
        publisher.close()
        if trace is not None:
            trace.close()
    client.close()
    row.state = RowState.FINISHED


def _wait_for_embedder(client: EmbeddingClient[CropTag]) -> EmbedderInfo:
    info = client.wait_for_info(EMBEDDER_START_S)
    if info is None:
        raise StartError(f"embedder: no answer within {EMBEDDER_START_S:g} s")
    return info


def _tracker_of(site: SiteConfig) -> Callable[[float], VehicleTracker]:
    def make(frame_rate: float) -> VehicleTracker:
        return VehicleTracker(frame_rate=frame_rate, max_seconds_lost=site.tracker.max_seconds_lost)

    return make


def _lane(camera: CameraConfig, site: SiteConfig, board: Board) -> Lane:
    def make_gate(frame_rate: float) -> Gate:
        return MotionGate(keep_alive_frames=keep_alive_frames(frame_rate, site.tracker.max_seconds_lost))

    gate = make_gate if site.detector.motion_gate else None
    lane = Lane(camera, CameraStream(camera, site.source), board.camera(camera.id), gate)
    lane.watch = _watch(camera, site.camera_health)
    return lane


def _watch(camera: CameraConfig, rules: CameraHealthConfig) -> PictureWatch | None:
    if not rules.enabled:
        return None
    try:
        reference = None if rules.references is None else load_reference(rules.references, camera.id)
    except ReferencePictureError as error:
        raise StartError(str(error)) from error
    return PictureWatch(rules.period_s, rules.persist_s, reference)


def _pace(site: SiteConfig, board: Board) -> FilePace:
    return FilePace(file_rows(site, board), min(MAX_LEAD_S, site.matcher.camera_silence_s / 3))
