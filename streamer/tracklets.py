"""One vehicle in one camera: what has been seen of it, and what is still to be said of it. Pure: no clock, no I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from streamer.crops import CropSelector, has_moved
from streamer.path_codec import POINTS_THAT_ALWAYS_FIT
from streamer.sightings import CropEmbedding, EndReason, Sighting, SightingKind, TrackPath

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from detector.detections import TrackedVehicle, VehicleClass
    from reid.modality import Modality
    from streamer.config import CropsConfig
    from streamer.crops import VehicleCrop

#: What is seen for less is noise, and never becomes a sighting: three frames at 10 frames/s.
MIN_POINTS, MIN_SPAN_S = 3, 0.19
#: Between updates that carry no crop; doubles while the vehicle stands still.
FIRST_PERIOD_S, LONGEST_PERIOD_S = 10.0, 600.0
#: A vehicle stands still while its centre stays within this share of its height, and its height within this factor.
STILL_SHARE, STILL_SCALE = 0.15, 1.15
#: After standing still for so long, one point a second describes it: a parked car would fill the disk otherwise.
THIN_AFTER_S, THIN_PERIOD_S = 30.0, 1.0


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose tracklets a book holds."""

    site: str
    region: str
    camera: str
    session: str


@dataclass(frozen=True, slots=True)
class Moment:
    """A frame without its pixels.

    Attributes:
        frame: 0-based index of the decoded source frame.
        captured_at: Aware UTC.
        modality: The band of the frame.
    """

    frame: int
    captured_at: datetime
    modality: Modality

    @property
    def time_s(self) -> float:
        """Seconds since the Unix epoch."""
        return self.captured_at.timestamp()


@dataclass(slots=True)
class AskedCrop:
    """What is kept of a crop that the embedder was asked for, and its answer once there is one.

    Not the pictures: a parked vehicle's tracklet may last for hours, and a frame is megabytes.
    """

    modality: Modality
    quality: float
    captured_at: datetime
    box: tuple[float, float, float, float]
    jpeg: bytes
    is_answered: bool = False
    vector: NDArray[np.float32] | None = None
    tokens: bytes | None = None

    @classmethod
    def of(cls, crop: VehicleCrop, jpeg: bytes) -> AskedCrop:
        """A crop that is being asked for."""
        return cls(crop.modality, crop.quality, crop.captured_at, crop.box, jpeg)

    def answer(self, vector: NDArray[np.float32] | None, tokens: bytes | None) -> None:
        """Takes the answer; no vector says that the crop was dropped."""
        self.is_answered, self.vector, self.tokens = True, vector, tokens

    def embedding(self, vector: NDArray[np.float32]) -> CropEmbedding:
        """What a sighting says of this crop."""
        return CropEmbedding(self.modality, vector, self.quality, self.captured_at, self.box, self.jpeg, self.tokens)


@dataclass(frozen=True, slots=True)
class Draft:
    """A sighting that is decided, but for the vectors of the crops that it waits for."""

    sighting: Sighting
    crops: tuple[AskedCrop, ...]
    model_id: str

    @property
    def is_ready(self) -> bool:
        """Whether every crop has its answer."""
        return all(crop.is_answered for crop in self.crops)

    def complete(self) -> Sighting:
        """The sighting with its vectors."""
        embeddings = tuple(combine(self.crops))
        if not embeddings:
            return self.sighting
        if self.sighting.kind is SightingKind.UPDATE:
            # Decisions wait for the end, which says it again; only a vehicle's first identity is given before.
            embeddings = tuple(replace(embedding, tokens=None) for embedding in embeddings)
        known = {name: getattr(self.sighting, name) for name in self.sighting.__dataclass_fields__}
        return Sighting(**known | {"embeddings": embeddings, "model_id": self.model_id})


def combine(crops: Sequence[AskedCrop]) -> list[CropEmbedding]:
    """One embedding per modality: the best crop's, its vector the quality-weighted mean of all of that modality.

    Points stay the best crop's: those of two pictures have no mean, since none is at the same place of the vehicle.
    Several views of one vehicle say more than the best alone. Summed in the order in which the crops were chosen, never
    in that of the answers, so that a replay gives the same bits.

    Args:
        crops: Answered crops of one tracklet; those that were dropped count for nothing.

    Returns:
        At most one per modality, in the order of first appearance.
    """
    by_modality: dict[Modality, list[tuple[AskedCrop, NDArray[np.float32]]]] = defaultdict(list)
    for crop in crops:
        if crop.vector is not None:
            by_modality[crop.modality].append((crop, crop.vector))
    result = []
    for members in by_modality.values():
        best, vector = max(members, key=lambda member: member[0].quality)
        if len(members) > 1:
            total = np.sum([crop.quality * vector.astype(np.float64) for crop, vector in members], axis=0)
            norm = float(np.linalg.norm(total))
            # Vectors that cancel out say nothing together; the best one still does.
            vector = (total / norm).astype(np.float32) if norm > 1e-6 else vector
        result.append(best.embedding(vector))
    return result


class Tracklet:
    """What has been seen of one vehicle since it appeared.

    Args:
        number: In its session.
        moment: The first frame.
        rules: When crops are chosen.
    """

    def __init__(self, number: int, moment: Moment, rules: CropsConfig) -> None:
        self.number = number
        self.started = moment
        self.last = moment
        self.selector = CropSelector(moment.time_s, min_interval_s=rules.min_interval_s, better_by=rules.better_by)
        self.crops: list[AskedCrop] = []
        self.sequence = 0
        self.context_image: str | None = None
        self.count = 0
        self._box = np.zeros(4, np.float32)
        self._points: list[tuple[int, float, NDArray[np.float32]]] = []
        self._votes: dict[VehicleClass, float] = defaultdict(float)
        self._anchor: tuple[float, float, float, float] | None = None
        self._still_since_s = moment.time_s
        self._told_s = moment.time_s
        self._period_s = FIRST_PERIOD_S

    def see(self, moment: Moment, vehicle: TrackedVehicle) -> None:
        """Adds one frame."""
        self.last, self._box = moment, vehicle.box
        self.count += 1
        # A detector that is sure of nothing must still leave a class behind.
        self._votes[vehicle.vehicle_class] += max(vehicle.confidence, 1e-6)
        if self._anchor is None or has_moved(self._anchor, vehicle.box, STILL_SHARE, STILL_SCALE):
            x1, y1, x2, y2 = vehicle.box.tolist()
            self._anchor, self._still_since_s = (x1, y1, x2, y2), moment.time_s
        if not self._is_redundant(moment.time_s):
            self._points.append((moment.frame, moment.time_s, vehicle.box))

    def has_better_than(self, crop: VehicleCrop) -> bool:
        """Whether a crop that was asked for shows it as well or better, in the same band."""
        return any(asked.modality is crop.modality and asked.quality >= crop.quality for asked in self.crops)

    @property
    def is_confirmed(self) -> bool:
        """Whether it was seen often and long enough to be told of."""
        return self.count >= MIN_POINTS and self.last.time_s - self.started.time_s >= MIN_SPAN_S

    @property
    def is_update_due(self) -> bool:
        """Whether something must be said although there is no better crop."""
        waited_s = self.last.time_s - self._told_s
        return waited_s >= self._period_s or len(self._points) >= POINTS_THAT_ALWAYS_FIT

    def say(self, kind: SightingKind, key: SessionKey, reason: EndReason | None = None) -> Sighting:
        """Makes the next sighting, without embeddings, and starts a new stretch of path."""
        if kind is SightingKind.END:
            self._add_last_point()
        total = sum(self._votes.values())
        sighting = Sighting(
            kind=kind,
            site=key.site,
            region=key.region,
            camera=key.camera,
            session=key.session,
            number=self.number,
            sequence=self.sequence,
            started_at=self.started.captured_at,
            occurred_at=self.last.captured_at,
            vehicle_class=str(max(self._votes, key=lambda name: self._votes[name])),
            class_votes={str(name): votes / total for name, votes in self._votes.items()},
            path=self._take_path(),
            context_image=self.context_image,
            end_reason=reason,
        )
        self._schedule()
        self.sequence += 1
        return sighting

    def _is_redundant(self, now_s: float) -> bool:
        stood_s = now_s - self._still_since_s
        return stood_s > THIN_AFTER_S and bool(self._points) and now_s - self._points[-1][1] < THIN_PERIOD_S

    def _add_last_point(self) -> None:
        if self._points and self._points[-1][0] < self.last.frame:
            self._points.append((self.last.frame, self.last.time_s, self._box))

    def _schedule(self) -> None:
        stood_still = self._still_since_s <= self._told_s and self.sequence > 0
        self._period_s = min(2 * self._period_s, LONGEST_PERIOD_S) if stood_still else FIRST_PERIOD_S
        self._told_s = self.last.time_s

    def _take_path(self) -> TrackPath:
        points, self._points = self._points, []
        return TrackPath(
            np.array([point[0] for point in points], np.int64),
            np.array([point[1] for point in points], np.float64),
            np.array([point[2] for point in points], np.float32).reshape(-1, 4),
        )
