"""A camera worker among fakes: cameras without video, a detector that reads boxes from the picture, no processes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections, TrackedVehicle, VehicleClass
from reid.modality import Modality
from storage.crop_store import CropStore
from streamer.bus import BusError
from streamer.camera_session import CropTag, Services
from streamer.camera_worker import CameraWorker
from streamer.config import CameraConfig, SiteConfig
from streamer.counters import Board
from streamer.embedding_client import Answer
from streamer.frames import ArrayPicture, Frame, SessionEnd
from streamer.lanes import FilePace, Gate, Lane
from streamer.sighting_codec import decode
from streamer.sightings import EndReason, Heartbeat, Sighting
from streamer.stream import StreamCounters
from tests.streamer.book_builders import START, texture
from tests.streamer.fake_embedder import INFO

STAGE = "cameras-0"
TOKENS = b"points"


@dataclass
class FakeStream:
    """Gives what it was told to give, one thing a call; like a live camera's, its frames may have gaps."""

    items: list[Frame | SessionEnd]
    session_hint: str | None = "session"
    counters: StreamCounters = field(default_factory=StreamCounters)
    is_stopped: bool = False

    def start(self) -> None:
        self.counters.fps = 10.0

    def take(self, *, timeout_s: float) -> Frame | SessionEnd | None:
        if self.is_stopped or not self.items:
            threading.Event().wait(timeout_s)
            return None
        item = self.items.pop(0)
        if isinstance(item, Frame):
            self.counters.dropped += item.index + 1 - self.counters.decoded - 1
            self.counters.decoded = item.index + 1
            self.counters.last_captured_at = item.captured_at
        else:
            self.counters.message = item.message
        return item

    def ask_to_stop(self) -> None:
        self.is_stopped = True

    def stop(self) -> None:
        self.is_stopped = True


class OneVehicle:
    """A detector that sees the same vehicle in each frame, unless the frame is dark."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, cameras: Sequence[CameraConfig], frames: Sequence[Frame]) -> list[Detections]:
        assert len(cameras) == len(frames)
        self.batches.append(len(frames))
        return [_one() if frame.image().any() else Detections.empty() for frame in frames]


def _one() -> Detections:
    return Detections(np.array([[50, 50, 150, 150]], np.float32), np.array([0.9], np.float32), np.array([2], np.int64))


class PassingTracker:
    """Every detection is vehicle 1."""

    def update(self, detections: Detections) -> list[TrackedVehicle]:
        return [
            TrackedVehicle(1, box, float(confidence), VehicleClass.CAR)
            for box, confidence in zip(detections.boxes, detections.confidences, strict=True)
        ]


class EvenFrames:
    """A gate that lets every second frame through."""

    def __init__(self) -> None:
        self._count = 0

    def is_moving(self, image: NDArray[np.uint8]) -> bool:
        assert image.ndim == 2
        self._count += 1
        return self._count % 2 == 1


class InstantClient:
    """Answers at once, or only drops."""

    def __init__(self, *, drops: bool = False) -> None:
        self._answers: list[Answer[CropTag]] = []
        self._drops = drops
        self.droppable: set[bool] = set()

    def ask(
        self, tag: CropTag, crop: NDArray[np.uint8], modality: Modality, *, droppable: bool, wants_tokens: bool
    ) -> None:
        assert crop.shape == (INFO.crop_height, INFO.crop_width, 3)
        assert isinstance(modality, Modality)
        self.droppable.add(droppable)
        vector = np.array([1, 0, 0, 0], np.float32)
        tokens = TOKENS if wants_tokens and not self._drops else None
        self._answers.append(Answer(tag, None if self._drops else vector, tokens))

    def take_answers(self, _timeout_s: float = 0.0) -> list[Answer[CropTag]]:
        answers, self._answers = self._answers, []
        return answers


class Bus:
    """Keeps what is published; refuses when told to."""

    def __init__(self) -> None:
        self.messages: list[Sighting | Heartbeat] = []
        self.droppable: list[bool] = []
        self.is_full = False

    def publish(self, key: str, payload: bytes, *, droppable: bool) -> None:
        if self.is_full:
            raise BusError("outbox: disk full")
        message = decode(payload)
        assert key == message.region
        self.messages.append(message)
        self.droppable.append(droppable)

    def close(self) -> None:
        pass

    @property
    def sightings(self) -> list[Sighting]:
        return [message for message in self.messages if isinstance(message, Sighting)]

    @property
    def heartbeats(self) -> list[Heartbeat]:
        return [message for message in self.messages if isinstance(message, Heartbeat)]


def frame(index: int, *, camera: str = "cam1", session: str = "session", step_s: float = 0.1, size: int = 200) -> Frame:
    captured_at = START + timedelta(seconds=index * step_s)
    picture = ArrayPicture(texture(index % 4, size, size))
    return Frame(camera, session, index, captured_at, Modality.VISIBLE, size, size, picture)


def end(*, camera: str = "cam1", session: str = "session", is_final: bool = True) -> SessionEnd:
    reason = EndReason.SOURCE_ENDED if is_final else EndReason.DISCONNECTED
    return SessionEnd(camera, session, reason, is_final, f"{camera}: over")


class Rig:
    """A worker of some cameras, everything around it fake.

    Args:
        folder: For pictures.
        streams: By camera id.
        live: Whether the cameras' addresses are live.
        gated: Whether a gate lets only every second frame through.
        drops: Whether the embedder drops all crops.
    """

    def __init__(
        self,
        folder: Path,
        streams: dict[str, FakeStream],
        *,
        live: bool = False,
        gated: bool = False,
        drops: bool = False,
        max_lead_s: float = 5.0,
    ) -> None:
        self._is_live, self._streams = live, list(streams.values())
        scheme = "rtsp://host/" if live else "/videos/"
        cameras = tuple(CameraConfig(id=name, url=f"{scheme}{name}") for name in streams)
        self.site = SiteConfig(site="site", database="sqlite:///x.db", cameras=cameras, crops_dir=folder)
        self.board = Board(list(streams), [STAGE])
        self.bus, self.client, self.detector = Bus(), InstantClient(drops=drops), OneVehicle()
        services = Services(
            self.site,
            self.client,  # type: ignore[arg-type]
            INFO,
            self.bus,
            CropStore(folder),
            lambda _: PassingTracker(),
        )
        rows = [self.board.camera(name) for name in streams]
        lanes = [
            Lane(camera, streams[camera.id], row, make_gate if gated else None)  # type: ignore[arg-type]
            for camera, row in zip(cameras, rows, strict=True)
        ]
        pace = FilePace([] if live else rows, max_lead_s)
        self.worker = CameraWorker(lanes, self.detector, services, row=self.board.stage(STAGE), pace=pace)

    def run(self, *, stop_after: int | None = None) -> None:
        """Runs until the files have ended, live cameras have given all, or `stop_after` messages were published."""
        self.worker.run(lambda: self._is_over(stop_after))

    def _is_over(self, stop_after: int | None) -> bool:
        if stop_after is not None:
            return len(self.bus.messages) >= stop_after
        return self._is_live and not any(stream.items for stream in self._streams)


def make_gate(_: float) -> Gate:
    return EvenFrames()
