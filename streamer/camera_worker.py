"""A camera worker: decode threads, one batched detector, a tracker and a book per camera, in a process of its own.

Three stages in a line, each a thread, with a queue of one batch between two: *prepare* takes frames from the cameras,
asks the motion gate and converts; *detect* runs the network; *follow* tracks, chooses crops and publishes. A full queue
makes the stage before it wait, up to the cameras: a file's decoder then waits too, a live camera drops its oldest
frame and counts it. A stage that fails brings the whole worker down; the supervisor starts it anew, and what was in
flight is counted as dropped. What was published is in the outbox and stays.
"""

from __future__ import annotations

import contextlib
import queue
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from reid.modality import Modality
from streamer.camera_session import CameraSession, say_absent
from streamer.counters import Field, RowState
from streamer.frames import Frame, SessionEnd
from streamer.lanes import SETTLED, FilePace, Lane
from streamer.sightings import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from detector.detections import Detections
    from streamer.camera_session import CropTag, Services
    from streamer.config import CameraConfig, SiteConfig
    from streamer.counters import Row
    from streamer.embedding_client import Answer

_log = structlog.get_logger(__name__)

#: How long an idle stage waits before it looks whether it should end.
IDLE_S = 0.05
#: How soon a file that is ahead of the others is looked at again.
_HELD_S = 0.002
_BATCHES_BETWEEN_STAGES = 1
#: Frames of a batch, per frame that the detector takes: those of a still road wait with their pictures for the others.
_FRAMES_PER_DETECTED = 4
_LEFT = "no longer a camera of the site"
_BANDS = {modality: number for number, modality in enumerate(Modality, start=1)}


class BatchDetector(Protocol):
    """What finds vehicles in a batch of frames; picks the network by camera and modality."""

    def detect(self, cameras: Sequence[CameraConfig], frames: Sequence[Frame]) -> list[Detections]:
        """One result per frame."""
        ...


@dataclass(slots=True)
class Item:
    """One thing that a camera delivered, and what the detector made of it."""

    lane: Lane
    what: Frame | SessionEnd
    wants_detector: bool = False
    detections: Detections | None = None


@dataclass(frozen=True, slots=True)
class LaneChange:
    """What becomes of a worker's cameras while it runs.

    Attributes:
        site: The site from now on.
        leaving: Ids of cameras that go; their tracklets end and are published.
        joining: Cameras that come. One of the same id as one that goes waits until that one has gone.
        files: The rows of all file cameras of the site.
    """

    site: SiteConfig
    leaving: frozenset[str]
    joining: tuple[Lane, ...]
    files: tuple[Row, ...]


class CameraWorker:
    """Runs some cameras to their end. `run` blocks in the thread that calls it, which is the following stage.

    Args:
        lanes: The cameras.
        detector: Finds vehicles.
        services: What the sessions use.
        row: The worker's own counters.
        pace: Keeps files of one site together.
    """

    def __init__(
        self, lanes: Sequence[Lane], detector: BatchDetector, services: Services, *, row: Row, pace: FilePace
    ) -> None:
        self._lanes, self._detector, self._services, self._row, self._pace = lanes, detector, services, row, pace
        self._batch_size = services.site.detector.batch_size
        self._prepared: queue.Queue[list[Item]] = queue.Queue(_BATCHES_BETWEEN_STAGES)
        self._detected: queue.Queue[list[Item]] = queue.Queue(_BATCHES_BETWEEN_STAGES)
        # The lanes are replaced by the following stage alone; the preparing one reads them at each round.
        self._changes: queue.SimpleQueue[LaneChange] = queue.SimpleQueue()
        self._joining: tuple[Lane, ...] = ()
        self._turn = 0
        self._batches_prepared = self._batches_followed = 0
        self._is_aborted = False

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Follows the cameras until all are over, or until told to stop; then ends every tracklet and publishes it.

        Args:
            should_stop: Asked at least every `IDLE_S`.
        """
        for lane in self._lanes:
            lane.take_over()
            lane.stream.start()
        with ThreadPoolExecutor(2, thread_name_prefix="stage") as pool:
            stages = [pool.submit(self._prepare, should_stop), pool.submit(self._detect)]
            try:
                self._follow(stages)
                if self._services.trace is not None:
                    self._services.trace.note_threads()
            finally:
                self._is_aborted = True
                for lane in self._lanes:
                    lane.stream.ask_to_stop()
        for lane in self._lanes:
            lane.stream.stop()
            self._tell_if_absent(lane)
            lane.row.state = lane.row.state if lane.row.state in SETTLED else RowState.STOPPED

    def change(self, change: LaneChange) -> None:
        """Takes up a change of the cameras, soon; from any thread. Those that it doesn't name go on undisturbed.

        A worker all of whose cameras are over may end before it has; the next one begins with the new site.
        """
        self._changes.put(change)

    def _prepare(self, should_stop: Callable[[], bool]) -> None:
        is_stopping = False
        while not (self._is_aborted or self._has_no_more()):
            if not is_stopping and should_stop():
                is_stopping = self._pace.is_off = True
                for lane in self._lanes:
                    lane.stream.ask_to_stop()
            batch = self._gather()
            if batch:
                self._batches_prepared += 1
                self._hand_on(self._prepared, batch)
            elif is_stopping:
                break
        self._hand_on(self._prepared, [])

    def _has_no_more(self) -> bool:
        # In this order: a camera that joins is among the lanes before it is no longer among those that wait to.
        return not self._joining and all(lane.is_exhausted for lane in self._lanes)

    def _gather(self) -> list[Item]:
        """What the cameras have, in rounds of one frame each; blocks up to `IDLE_S` where they have nothing."""
        began = time.perf_counter()
        batch: list[Item] = []
        room = self._batch_size
        while room > 0 and len(batch) < _FRAMES_PER_DETECTED * self._batch_size:
            items = [item for lane in self._lanes for item in self._take(lane)]
            batch += items
            room -= sum(item.wants_detector for item in items)
            if not items:
                break
        if batch:
            self._row.add(Field.PREPARE_S, time.perf_counter() - began)
        return batch or self._wait_for_one()

    def _wait_for_one(self) -> list[Item]:
        # One camera in turn is waited for; another's frame then waits at most that long.
        waiting = [lane for lane in self._lanes if not lane.is_exhausted]
        if not waiting:
            time.sleep(_HELD_S)
            return []
        self._turn = (self._turn + 1) % len(waiting)
        lane = waiting[self._turn]
        if lane.head is not None:
            time.sleep(_HELD_S)
        return self._take(lane, IDLE_S / len(waiting))

    def _take(self, lane: Lane, timeout_s: float = 0.0) -> list[Item]:
        if lane.is_exhausted:
            return []
        is_leaving = lane.is_leaving
        what = lane.head or lane.stream.take(timeout_s=timeout_s)
        if what is None and is_leaving:
            what = SessionEnd(lane.camera.id, "", EndReason.SHUTDOWN, is_final=True, message=_LEFT)
        if what is None:
            return []
        if isinstance(what, Frame) and not lane.camera.is_live and not is_leaving:
            lane.head = self._pace.hold(lane.row, what)
            if lane.head is not None:
                return []
        if isinstance(what, Frame) and self._services.trace is not None:
            self._services.trace.take(what.camera, what.captured_at)
        item = Item(lane, what)
        if isinstance(what, SessionEnd):
            lane.is_exhausted = what.is_final
            return [item]
        lane.look_after(what)
        if lane.is_moving(what):
            item.wants_detector = True
            what.image()
        return [item]

    def _detect(self) -> None:
        while not self._is_aborted:
            batch = _get(self._prepared)
            if batch is None:
                continue
            if not batch:
                break
            self._detect_batch(batch)
            self._hand_on(self._detected, batch)
        self._hand_on(self._detected, [])

    def _detect_batch(self, batch: list[Item]) -> None:
        began = time.perf_counter()
        wanted = [(item, item.what) for item in batch if item.wants_detector and isinstance(item.what, Frame)]
        if not wanted:
            return
        results = self._detector.detect([item.lane.camera for item, _ in wanted], [frame for _, frame in wanted])
        for (item, _), detections in zip(wanted, results, strict=True):
            item.detections = detections
        took_s = time.perf_counter() - began
        self._row.add(Field.DETECT_S, took_s)
        self._row.add(Field.BATCHES)
        self._row.add(Field.HANDLED, len(wanted))
        self._row.observe(took_s)

    def _hand_on(self, to: queue.Queue[list[Item]], batch: list[Item]) -> None:
        """Waits for room; an empty batch says that no more will come."""
        while not self._is_aborted:
            with contextlib.suppress(queue.Full):
                to.put(batch, timeout=IDLE_S)
                return

    def _follow(self, stages: Sequence[Future[None]]) -> None:
        is_open = True
        while is_open or self._is_answer_due():
            batch = _get(self._detected) if is_open else None
            began = time.perf_counter()
            _raise_failures(stages)
            self._deliver_answers(0.0 if is_open else IDLE_S)
            if batch is not None:
                self._follow_batch(batch)
                self._batches_followed += bool(batch)
                is_open = bool(batch)
            for lane in self._lanes:
                lane.report()
            if is_open:
                self._rearrange()
            if batch is not None or self._batches_prepared == self._batches_followed:
                self._row[Field.ALIVE_S] = time.monotonic()
            self._row.add(Field.TRACK_S, time.perf_counter() - began)
            if not is_open:
                self._shut_down()

    def _rearrange(self) -> None:
        """Takes up changes of the cameras: who has said all leaves, and whose place is free joins."""
        with contextlib.suppress(queue.Empty):
            self._take_up(self._changes.get_nowait())
        self._lanes = [lane for lane in self._lanes if not lane.has_left]
        taken = {lane.camera.id for lane in self._lanes}
        ready = [lane for lane in self._joining if lane.camera.id not in taken]
        for lane in ready:
            lane.take_over()
            lane.row.state, lane.row.note = RowState.STARTING, ""
            lane.stream.start()
        if ready:
            self._lanes = [*self._lanes, *ready]
            self._joining = tuple(lane for lane in self._joining if lane.camera.id in taken)

    def _take_up(self, change: LaneChange) -> None:
        self._services = replace(self._services, site=change.site)
        self._pace.files = change.files
        for lane in self._lanes:
            if lane.camera.id in change.leaving and not lane.is_leaving:
                lane.leave()
        staying = (lane for lane in self._joining if lane.camera.id not in change.leaving)
        self._joining = (*staying, *change.joining)

    def _follow_batch(self, batch: list[Item]) -> None:
        for item in batch:
            if isinstance(item.what, SessionEnd):
                item.lane.end_session(item.what)
            else:
                self._session(item.lane, item.what).follow(item.what, item.detections)

    def _session(self, lane: Lane, frame: Frame) -> CameraSession:
        if lane.session is None or lane.session.id != frame.session:
            # Where there still is one, its end was dropped with its last frames.
            lane.close(EndReason.DISCONNECTED, is_final=False)
            if not lane.row[Field.FIRST_CAPTURED_AT]:
                lane.row[Field.FIRST_CAPTURED_AT] = frame.captured_at.timestamp()
            lane.session = CameraSession(lane.camera, frame.session, lane.frame_rate, lane.row, self._services)
            lane.row.state = RowState.RUNNING
        lane.row[Field.MODALITY] = _BANDS[frame.modality]
        return lane.session

    def _deliver_answers(self, timeout_s: float) -> None:
        sessions: dict[int, CameraSession] = {}
        answers: list[Answer[CropTag]] = self._services.client.take_answers(timeout_s)
        for answer in answers:
            session = answer.tag.session
            session.answer(answer.tag.question, answer.vector, answer.tokens)
            sessions[id(session)] = session
        for session in sessions.values():
            session.flush()
        for lane in self._lanes:
            lane.closing = [session for session in lane.closing if not session.is_over]

    def _shut_down(self) -> None:
        for lane in self._lanes:
            lane.close(EndReason.SHUTDOWN, is_final=False)

    def _tell_if_absent(self, lane: Lane) -> None:
        session, reached_s = lane.stream.session_hint, self._pace.foremost_s
        if lane.is_unreadable and not lane.stream.counters.decoded and session and reached_s:
            say_absent(lane.camera, session, datetime.fromtimestamp(reached_s, UTC), self._services)

    def _is_answer_due(self) -> bool:
        return any(lane.closing or lane.session is not None for lane in self._lanes)


def _get(source: queue.Queue[list[Item]]) -> list[Item] | None:
    """The next batch; an empty one says that no more will come, None that nothing came in time."""
    try:
        return source.get(timeout=IDLE_S)
    except queue.Empty:
        return None


def _raise_failures(stages: Sequence[Future[None]]) -> None:
    for stage in stages:
        if stage.done():
            stage.result()
