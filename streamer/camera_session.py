"""One connection of one camera after the detector: tracker, book, and what is published of them.

All of it runs in the worker's following thread. `publish` waits for the disk; `ask` blocks only for files, when the
embedder is behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from detector.detections import Detections
from reid.embedder import EmbedderInfo, prepare_crop
from reid.modality import Modality
from storage.errors import StorageError
from streamer.bus import BusError
from streamer.counters import Field
from streamer.sighting_codec import encode
from streamer.sightings import CameraState, EndReason, Heartbeat, Sighting, SightingError, SightingKind
from streamer.tracklet_book import BookRules, TrackletBook
from streamer.tracklets import Moment, SessionKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

    from detector.detections import TrackedVehicle
    from storage.crop_store import CropStore
    from streamer.bus import Publisher
    from streamer.config import CameraConfig, SiteConfig
    from streamer.counters import Row
    from streamer.embedding_client import EmbeddingClient
    from streamer.frames import Frame
    from streamer.trace import SightingTrace
    from streamer.tracklet_book import Picture, Question

_log = structlog.get_logger(__name__)

#: Event time between two heartbeats.
HEARTBEAT = timedelta(seconds=1)


class Tracker(Protocol):
    """`detector.tracker.VehicleTracker`, or a fake."""

    def update(self, detections: Detections) -> list[TrackedVehicle]:
        """The vehicles of one frame."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What all sessions of a camera worker use.

    Attributes:
        site: The site.
        client: Embeds.
        info: What the client's worker embeds.
        publisher: Takes sightings.
        crops: Takes context pictures.
        make_tracker: A tracker for a frame rate.
        trace: Notes when frames were taken and sightings published, for measuring.
    """

    site: SiteConfig
    client: EmbeddingClient[CropTag]
    info: EmbedderInfo
    publisher: Publisher
    crops: CropStore
    make_tracker: Callable[[float], Tracker]
    trace: SightingTrace | None = None


@dataclass(frozen=True, slots=True)
class CropTag:
    """Whose crop an answer is for."""

    session: CameraSession
    question: int


@dataclass(frozen=True, slots=True)
class _Ending:
    reason: EndReason
    is_final: bool


class CameraSession:
    """One connection of one camera.

    Args:
        camera: The camera.
        session: The connection's id.
        frame_rate: Of the stream; the tracker counts frames where its limit is in seconds.
        row: The camera's counters.
        services: Shared with the worker's other sessions.
    """

    def __init__(self, camera: CameraConfig, session: str, frame_rate: float, row: Row, services: Services) -> None:
        site = services.site
        self._camera, self._row, self._services = camera, row, services
        self._key = SessionKey(site.site, site.region_of(camera), camera.id, session)
        self._max_empty = math.ceil(site.tracker.max_seconds_lost * frame_rate) + 1
        self._tracker = services.make_tracker(frame_rate)
        rules = BookRules.of_camera(camera, site.crops, site.tracker.max_seconds_lost, blur=site.privacy.blur)
        self._book = TrackletBook(self._key, rules, services.info.model_id)
        self._begun = self._ignored = 0
        self._next_index = 0
        self._last: Moment | None = None
        self._promised: datetime | None = None
        self._ending: _Ending | None = None
        self._unanswered = 0
        #: Whether it has ended, and all that will be said of it is published.
        self.is_over = False

    @property
    def id(self) -> str:
        """The connection's id."""
        return self._key.session

    def follow(self, frame: Frame, detections: Detections | None) -> None:
        """The next frame.

        Args:
            frame: Later than the one before; indices in between were dropped.
            detections: Its vehicles; None when nothing moved and the detector was spared.
        """
        moment = Moment(frame.index, frame.captured_at, frame.modality)
        for _ in range(min(frame.index - self._next_index, self._max_empty)):
            self._tracker.update(Detections.empty())
        self._next_index, self._last = frame.index + 1, moment
        vehicles = self._tracker.update(Detections.empty() if detections is None else detections)
        if detections is None:
            self._book.skip(moment)
            self._row.add(Field.GATED)
        else:
            self._book.observe(moment, frame.image(), vehicles, detected=detections.boxes)
            self._row.add(Field.DETECTED)
            self._row.add(Field.DETECTIONS, len(vehicles))
        self.flush()

    def finish(self, reason: EndReason, *, is_final: bool) -> None:
        """Ends every tracklet; `is_over` once the embedder has answered for all of them."""
        self._ending = _Ending(reason, is_final)
        self._book.finish(reason)
        self.flush()

    def leave(self) -> None:
        """Ends nothing and says nothing more; crops on their way count as dropped, and nobody waits for them."""
        self._row.add(Field.CROPS_DROPPED, self._unanswered)
        self._count()
        self.is_over = True

    def answer(self, question: int, vector: NDArray[np.float32] | None, tokens: bytes | None) -> None:
        """The embedder's answer to one of this session's crops."""
        if self.is_over:
            return
        self._unanswered -= 1
        self._row.add(Field.CROPS_DROPPED if vector is None else Field.CROPS_EMBEDDED)
        self._book.answer(question, vector, tokens)

    def flush(self) -> None:
        """Asks for crops, and publishes what is ready; call it when answers have come."""
        if self.is_over:
            return
        self._ask(self._book.take_questions())
        self._store(self._book.take_pictures())
        for sighting in self._book.take_sightings():
            self._publish_sighting(sighting)
        self._count()
        if self._ending is not None and self._book.is_settled:
            self._say_last(self._ending)
        else:
            self._say_alive()

    def _ask(self, questions: Sequence[Question]) -> None:
        info = self._services.info
        for question in questions:
            self._row.add(Field.CROPS_ASKED)
            self._unanswered += 1
            crop = prepare_crop(question.image, info.crop_height, info.crop_width)
            tag = CropTag(self, question.id)
            self._services.client.ask(
                tag,
                crop,
                Modality(question.modality),
                droppable=self._camera.is_live,
                wants_tokens=question.is_best,
            )

    def _store(self, pictures: Sequence[Picture]) -> None:
        for picture in pictures:
            try:
                self._services.crops.save(picture.path, picture.jpeg)
            except StorageError as error:
                self._row.add(Field.PICTURES_LOST)
                _log.warning("context picture lost", camera=self._camera.id, reason=str(error))

    def _publish_sighting(self, sighting: Sighting) -> None:
        if self._publish(sighting, droppable=sighting.kind is SightingKind.UPDATE):
            self._row.add(Field.SIGHTINGS)
            self._row.add(Field.TOKEN_BYTES, sum(len(found.tokens or b"") for found in sighting.embeddings))
            if self._services.trace is not None:
                self._services.trace.publish(sighting)

    def _publish(self, message: Sighting | Heartbeat, *, droppable: bool) -> bool:
        try:
            self._services.publisher.publish(message.region, encode(message), droppable=droppable)
        except (BusError, SightingError) as error:
            self._row.add(Field.SIGHTINGS_LOST)
            _log.error("message lost", camera=self._camera.id, reason=str(error))
            return False
        return True

    def _say_alive(self) -> None:
        watermark = self._book.watermark
        if watermark is None or (self._promised is not None and watermark - self._promised < HEARTBEAT):
            return
        self._promised = watermark
        self._publish(self._heartbeat(watermark, CameraState.ALIVE), droppable=True)

    def _say_last(self, ending: _Ending) -> None:
        self.is_over = True
        if self._last is not None:
            state = CameraState.FINISHED if ending.is_final else CameraState.ALIVE
            self._publish(self._heartbeat(self._last.captured_at, state), droppable=False)

    def _heartbeat(self, watermark: datetime, state: CameraState) -> Heartbeat:
        key = self._key
        return Heartbeat(key.site, key.region, key.camera, key.session, watermark, state)

    def _count(self) -> None:
        book = self._book
        self._row.add(Field.TRACKLETS, book.begun - self._begun)
        self._row.add(Field.TRACKLETS_IGNORED, book.ignored - self._ignored)
        self._begun, self._ignored = book.begun, book.ignored


def say_absent(camera: CameraConfig, session: str, at: datetime, services: Services) -> None:
    """Tells that a file gave no frame at all, so that the matcher doesn't wait for its camera.

    Args:
        camera: The camera.
        session: The file's session id.
        at: A moment that the other cameras have reached.
        services: To publish.

    Raises:
        BusError: It could not be published.
    """
    site = services.site
    region = site.region_of(camera)
    heartbeat = Heartbeat(site.site, region, camera.id, session, at, CameraState.FINISHED)
    services.publisher.publish(region, encode(heartbeat), droppable=False)
