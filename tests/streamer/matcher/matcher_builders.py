"""Sightings and heartbeats of a small site, for tests of the matcher."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from reid.calibration import Calibration, Logistic, modality_pair
from reid.modality import Modality
from streamer.config import LinkConfig, MatcherConfig, SiteConfig
from streamer.matcher.ground_path import ground_path
from streamer.matcher.tracklet import Tracklet
from streamer.sightings import (
    CameraState,
    CropEmbedding,
    EndReason,
    Heartbeat,
    Sighting,
    SightingKind,
    TrackPath,
)

EPOCH = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL = "stub-1"
DIMENSION = 16
#: Vectors of different vehicles are orthogonal, so that evidence is about +6 for the same and -6 for another.
CALIBRATION = Calibration(
    MODEL,
    {modality_pair(first, second): Logistic(12.0, -6.0) for first in Modality for second in Modality},
)


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def looks(vehicle: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.eye(DIMENSION, dtype=np.float32)[vehicle]
    return found


def tracklet(name: str, start: float, end: float, vehicle: int, modality: Modality = Modality.VISIBLE) -> Tracklet:
    camera = name.split("/")[0]
    return Tracklet(name, camera, "s", start, end, {"car": 1.0}, {modality: looks(vehicle)}, is_ended=True)


def links(*rows: tuple[str, str, float, float]) -> tuple[LinkConfig, ...]:
    return tuple(LinkConfig(between=(first, second), min_s=low, max_s=high) for first, second, low, high in rows)


def site(database: str, **matcher: float | str) -> SiteConfig:
    return SiteConfig.model_validate(
        {
            "site": "crossing",
            "database": database,
            "cameras": [{"id": "a", "url": "a.mp4"}, {"id": "b", "url": "b.mp4"}],
            "matcher": MatcherConfig.model_validate(matcher),
        }
    )


def sighting(
    camera: str,
    number: int,
    sequence: int,
    kind: SightingKind,
    seconds: tuple[float, float],
    vehicle: int | None,
    session: str = "s",
) -> Sighting:
    """One that tells of a tracklet seen in that stretch of seconds, with a picture unless `vehicle` is None."""
    start, end = seconds
    count = max(2, round((end - start) * 10))
    times = np.linspace(at(start).timestamp(), at(end).timestamp(), count)
    frames = np.arange(count, dtype=np.int64) + round(start * 10)
    box = np.array([10, 20, 60, 50], np.float32)
    embedding = CropEmbedding(Modality.VISIBLE, looks(vehicle or 0), 0.8, at(end), (10, 20, 60, 50), b"\xff\xd8jpeg")
    return Sighting(
        kind=kind,
        site="crossing",
        region="main",
        camera=camera,
        session=session,
        number=number,
        sequence=sequence,
        started_at=at(start),
        occurred_at=at(end),
        vehicle_class="car",
        class_votes={"car": 1.0},
        path=TrackPath(frames, times, np.tile(box, (count, 1))),
        embeddings=() if vehicle is None else (embedding,),
        model_id=MODEL,
        end_reason=EndReason.LEFT if kind is SightingKind.END else None,
    )


def heartbeat(camera: str, seconds: float, *, finished: bool = False, session: str = "s") -> Heartbeat:
    state = CameraState.FINISHED if finished else CameraState.ALIVE
    return Heartbeat("crossing", "main", camera, session, at(seconds), state)


def between(vehicle: int, other: int, cosine: float) -> NDArray[np.float32]:
    """A look that has this cosine with the one vehicle's, and the rest in common with the other's."""
    rest = float(np.sqrt(1 - cosine**2))
    return np.asarray(cosine * looks(vehicle) + rest * looks(other), np.float32)


def seen(
    name: str,
    start: float,
    end: float,
    vector: NDArray[np.float32],
    *,
    enters: tuple[float, float] = (100.0, 400.0),
    leaves: tuple[float, float] = (100.0, 400.0),
    modality: Modality = Modality.VISIBLE,
    votes: dict[str, float] | None = None,
) -> Tracklet:
    """A tracklet that goes straight from one place of the picture to another; its box is 60 pixels high."""
    camera = name.split("/")[0]
    found = Tracklet(name, camera, "s", start, end, votes or {"car": 1.0}, {modality: vector}, is_ended=True)
    times = np.linspace(start, end, max(2, round((end - start) * 10)))
    share = (times - start) / (end - start)
    feet = np.outer(1 - share, enters) + np.outer(share, leaves)
    boxes = np.c_[feet[:, 0] - 40, feet[:, 1] - 60, feet[:, 0] + 40, feet[:, 1]].astype(np.float32)
    found.follow(ground_path(times, boxes))
    return found
