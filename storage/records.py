"""The values that go into this room and come out of it.

Times are aware UTC; arrays are numpy's. A record that breaks its contract raises `ValueError` when it is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

Box = tuple[float, float, float, float]

#: Who decides, unless a person does.
MATCHER = "matcher"


@dataclass(frozen=True, slots=True)
class CameraRecord:
    """A camera of the site.

    Attributes:
        camera: Its id.
        region: The region it stands in.
        modality: The band it sees, or `auto` for a camera that changes between day and night.
        x: Position on the site plan, in the plan's pixels, or None.
        y: As `x`.
        lat: Latitude in degrees, or None.
        lon: Longitude in degrees, or None.
        started_at: Start of the first frame ever read, from which an export's `t` counts; None until one was.
    """

    camera: str
    region: str
    modality: str
    x: float | None = None
    y: float | None = None
    lat: float | None = None
    lon: float | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TrackletRecord:
    """One vehicle in one camera.

    Attributes:
        tracklet_id: Stable across replays.
        region: The region of its camera.
        camera: The camera's id.
        session: One connection of that camera.
        number: The tracker's number of the vehicle in that session.
        vehicle_class: By vote of all frames so far.
        class_votes: Share of each class in that vote, by name, summing to 1.
        started_at: First frame.
        ended_at: Last frame seen so far.
        end_reason: Why it ended; None while it goes on.
        context_image: Path below the crop store of the picture that shows it in its scene, or None.
    """

    tracklet_id: str
    region: str
    camera: str
    session: str
    number: int
    vehicle_class: str
    class_votes: dict[str, float]
    started_at: datetime
    ended_at: datetime
    end_reason: str | None = None
    context_image: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PathSegment:
    """Where a vehicle was, frame by frame, between two sightings of its tracklet. May be empty.

    Attributes:
        sighting_id: The sighting that brought it.
        tracklet_id: Whose path.
        sequence: The sighting's number within the tracklet, from 0.
        frames: (N,) int64, index of the decoded source frame.
        times: (N,) float64, seconds since the Unix epoch.
        boxes: (N, 4) float32, xyxy in source pixels, half-open.
    """

    sighting_id: str
    tracklet_id: str
    sequence: int
    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    boxes: NDArray[np.float32]

    def __post_init__(self) -> None:
        check_path(self.frames, self.times, self.boxes)

    def __len__(self) -> int:
        return len(self.frames)


def check_path(frames: NDArray[np.int64], times: NDArray[np.float64], boxes: NDArray[np.float32]) -> None:
    """Compares a path's arrays with their contract.

    Raises:
        ValueError: A wrong shape or type; the message has the one wanted and the one given.
    """
    count = len(frames)
    _check("frames", frames, (count,), np.int64)
    _check("times", times, (count,), np.float64)
    _check("boxes", boxes, (count, 4), np.float32)


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...], kind: type[np.generic]) -> None:
    if array.shape != shape or array.dtype != kind:
        raise ValueError(f"{name}: wanted {shape} {np.dtype(kind)}, got {array.shape} {array.dtype}")


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingRecord:
    """What the embedder made of one crop.

    Attributes:
        sighting_id: The sighting that brought it.
        tracklet_id: Whose crop.
        modality: The band of the crop.
        model_id: The embedder.
        vector: (D,) float32, unit norm; kept as float16, so what comes back differs by up to 2^-11 of each value.
        quality: Of the crop, 0-1, comparable within one camera.
        captured_at: The crop's frame.
        box: The crop's box, xyxy in source pixels.
        crop_image: Path below the crop store, or None.
        tokens: Compact point-matching tokens, or None.
    """

    sighting_id: str
    tracklet_id: str
    modality: str
    model_id: str
    vector: NDArray[np.float32]
    quality: float
    captured_at: datetime
    box: Box
    crop_image: str | None = None
    tokens: bytes | None = None

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or self.vector.dtype != np.float32:
            raise ValueError(f"vector: wanted (D,) float32, got {self.vector.shape} {self.vector.dtype}")
        if len(self.box) != 4:
            raise ValueError(f"box: wanted x1, y1, x2, y2, got {len(self.box)} numbers")


@dataclass(frozen=True, slots=True)
class AssignmentRecord:
    """One decision: this tracklet belongs to that vehicle.

    Attributes:
        tracklet_id: Whose decision.
        vehicle_id: The vehicle it was given to.
        reason: Why, in a word.
        is_provisional: Whether it was said before the tracklet ended, to be said again then.
        score: Log-odds of the link; None for a new vehicle, which was linked to nothing.
        margin: By how much the score beat the next best candidate's; None without one.
        modality_pair: The two bands compared, such as `visible-thermal`; None for a new vehicle.
        transit_s: Seconds from the vehicle's previous camera to this one; None for a new vehicle.
        model_id: The embedder whose vectors were compared; empty where a person decided.
        decided_at: Event time of the decision; of a person's, the time on the clock.
        evidence: Whatever else was used, as JSON.
        decided_by: Whose word it is: `MATCHER`'s, or a person's, which the matcher must leave as it is.
    """

    tracklet_id: str
    vehicle_id: str
    reason: str
    is_provisional: bool
    score: float | None
    margin: float | None
    modality_pair: str | None
    transit_s: float | None
    model_id: str
    decided_at: datetime
    evidence: dict[str, Any] = field(default_factory=dict)
    decided_by: str = MATCHER


@dataclass(frozen=True, slots=True)
class CameraStatus:
    """How a camera is doing. Counts are since the program started.

    Attributes:
        camera: Its id.
        updated_at: When this was written.
        state: What it is doing, in a word.
        modality: The band it sees now.
        fps: Frames decoded a second, of late.
        decoded: Frames decoded.
        detected: Frames the detector saw.
        gated: Frames skipped by the motion gate.
        dropped: Frames lost because nobody took them in time.
        reconnects: Times the source was opened again.
        decode_errors: Frames that could not be decoded.
        detections: Vehicles found.
        tracklets: Tracklets begun.
        last_frame_at: Capture time of the last frame; None before the first.
        message: The last thing that went wrong, or nothing.
        stalled_s: Without pictures between two connections, in all.
        skew_s: From capture by the stream's clock to decoding, of the last frame of a live camera.
        packets_lost: Of streams that may lose some (RTP over UDP).
        health: `ok`, or what is wrong with the picture; empty while it was not looked at.
    """

    camera: str
    updated_at: datetime
    state: str
    modality: str
    fps: float
    decoded: int
    detected: int
    gated: int
    dropped: int
    reconnects: int
    decode_errors: int
    detections: int
    tracklets: int
    last_frame_at: datetime | None = None
    message: str = ""
    stalled_s: float = 0.0
    skew_s: float = 0.0
    packets_lost: int = 0
    health: str = ""


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Counters of a stage that serves all cameras, such as the embedder.

    Attributes:
        stage: Its name.
        updated_at: When this was written.
        counters: Value by name.
    """

    stage: str
    updated_at: datetime
    counters: dict[str, float]


@dataclass(frozen=True, slots=True)
class CameraWatermark:
    """How far a session of a camera has come in event time.

    Attributes:
        camera: The camera's id.
        session: One connection of it.
        watermark: Every sighting up to here has been read.
        is_finished: Whether no more will come.
    """

    camera: str
    session: str
    watermark: datetime
    is_finished: bool
