"""What travels from the edge to the matcher: `Sighting` and `Heartbeat`.

Their form on the wire is `streamer.sighting_codec`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from reid.modality import Modality

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

SCHEMA_VERSION = 1
MAX_PATH_BYTES = 64 * 1024
MAX_CROP_BYTES = 20 * 1024
MAX_TOKEN_BYTES = 16 * 1024


class SightingError(Exception):
    """A message that can't be read, or one that breaks the contract; the text says why, in one line."""


class SightingKind(StrEnum):
    """What a sighting says of its tracklet."""

    FIRST = "first"
    UPDATE = "update"
    END = "end"


class EndReason(StrEnum):
    """Why a tracklet ended."""

    LEFT = "left"
    SOURCE_ENDED = "source_ended"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"
    SESSION_LOST = "session_lost"


class CameraState(StrEnum):
    """What a heartbeat says of its camera."""

    ALIVE = "alive"
    FINISHED = "finished"


def tracklet_id(camera: str, session: str, number: int) -> str:
    """`camera/session/number`: stable across replays, since a session id is."""
    return f"{camera}/{session}/{number}"


@dataclass(frozen=True, slots=True)
class TrackPath:
    """Where a vehicle was, frame by frame, since the previous sighting of its tracklet.

    Attributes:
        frames: (N,) int64, 0-based index of the decoded source frame, rising.
        times: (N,) float64, seconds since the Unix epoch, the frames' `captured_at`.
        boxes: (N, 4) float32, xyxy in source pixels, half-open.
    """

    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    boxes: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.frames)
        if self.frames.shape != (count,) or self.times.shape != (count,) or self.boxes.shape != (count, 4):
            raise SightingError(
                f"path: wanted (N,), (N,) and (N, 4), got {self.frames.shape}, {self.times.shape}, {self.boxes.shape}"
            )

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, slots=True)
class CropEmbedding:
    """What the embedder made of one crop.

    Attributes:
        modality: The band of the crop.
        vector: (D,) float32, unit norm; float16 on the wire.
        quality: Of the crop, 0-1, comparable within one camera.
        captured_at: When the crop's frame was captured, aware UTC.
        box: The crop's box, xyxy in source pixels.
        crop_jpeg: The crop as shown to people, at most 20 KB.
        tokens: Compact point-matching tokens, at most 16 KB.
    """

    modality: Modality
    vector: NDArray[np.float32]
    quality: float
    captured_at: datetime
    box: tuple[float, float, float, float]
    crop_jpeg: bytes | None = None
    tokens: bytes | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is said of a tracklet at one moment.

    Attributes:
        kind: `first`, `update` or `end`.
        site: The site's name.
        region: The key on the bus.
        camera: The camera's id.
        session: One connection of one camera.
        number: The tracker's number of the vehicle in that session.
        sequence: 0 for the first sighting of the tracklet, then rising by one.
        started_at: When the tracklet's first frame was captured, aware UTC.
        occurred_at: The moment that this sighting speaks of; the last frame of the path, aware UTC.
        vehicle_class: COCO's name, by the confidence-weighted vote of all frames so far.
        class_votes: Share of each class in that vote, by name, summing to 1.
        path: Since the previous sighting.
        embeddings: `first` and `update`: at most one; `end`: the best per modality.
        model_id: The embedder that made the vectors.
        context_image: Path below `crops_dir` of the picture that shows the vehicle in its scene, or None.
        end_reason: Set for `end` alone.
    """

    kind: SightingKind
    site: str
    region: str
    camera: str
    session: str
    number: int
    sequence: int
    started_at: datetime
    occurred_at: datetime
    vehicle_class: str
    class_votes: dict[str, float]
    path: TrackPath
    embeddings: tuple[CropEmbedding, ...] = ()
    model_id: str = ""
    context_image: str | None = None
    end_reason: EndReason | None = None
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def tracklet_id(self) -> str:
        """The tracklet's id, stable across replays."""
        return tracklet_id(self.camera, self.session, self.number)

    @property
    def sighting_id(self) -> str:
        """Tracklet id and sequence; what makes a second delivery recognisable."""
        return f"{self.tracklet_id}/{self.sequence}"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A camera's promise: every sighting of it up to `watermark` has been sent before this message.

    Attributes:
        site: The site's name.
        region: The key on the bus.
        camera: The camera's id.
        session: The connection that is alive, or has just finished.
        watermark: Event time, aware UTC.
        state: `finished` when no more will come from this session.
    """

    site: str
    region: str
    camera: str
    session: str
    watermark: datetime
    state: CameraState = CameraState.ALIVE
    schema_version: int = field(default=SCHEMA_VERSION)


Message = Sighting | Heartbeat
