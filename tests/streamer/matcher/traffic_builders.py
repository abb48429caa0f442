"""A few dozen vehicles on one road past three cameras, as the messages that the cameras would send.

The views of b and c overlap; between a and b there are some seconds of road. Vehicles go both ways. Some models look
much alike, so that who is who is not always clear at once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from reid.modality import Modality
from streamer.sightings import (
    CropEmbedding,
    EndReason,
    Heartbeat,
    Message,
    Sighting,
    SightingKind,
    TrackPath,
)
from tests.streamer.matcher.matcher_builders import DIMENSION, EPOCH, MODEL, at, heartbeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

CAMERAS = ("a", "b", "c")
#: Where each view begins on the road, in metres, and how long it is; b and c share 20 m.
_VIEWS = {"a": (0.0, 50.0), "b": (130.0, 50.0), "c": (160.0, 50.0)}
_FRAME_S = 0.1
_HEARTBEAT_S = 2.0
_SILENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the cameras sent, and what is true.

    Attributes:
        messages: In the order of the moments that they speak of.
        vehicle_of: By tracklet id, the vehicle's number.
    """

    messages: list[Message]
    vehicle_of: dict[str, int] = field(default_factory=dict)


def traffic(seed: int, *, vehicles: int = 18, models: int = 4, noise: float = 0.35) -> Traffic:
    """Makes up traffic.

    Args:
        seed: Another seed, another day.
        vehicles: How many come.
        models: So many kinds of vehicle; two of a kind look nearly alike.
        noise: How far a look lies from the vehicle's own.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(models, DIMENSION))
    numbers = {camera: count(1) for camera in CAMERAS}
    sent: list[tuple[float, str, Message]] = []
    vehicle_of: dict[str, int] = {}
    enters = 2.0
    for vehicle in range(vehicles):
        enters += float(rng.exponential(4.0))
        own = kinds[rng.integers(models)] + 0.35 * rng.normal(size=DIMENSION)
        speed = float(rng.normal(13.0, 0.6)) * (1 if rng.random() < 0.6 else -1)
        for camera, (begins, length) in _VIEWS.items():
            way = begins if speed > 0 else _VIEWS["c"][0] + _VIEWS["c"][1] - begins - length
            start = enters + way / abs(speed)
            number = next(numbers[camera])
            for sighting in _tracklet(camera, number, start, length, speed, own, noise, rng):
                vehicle_of[sighting.tracklet_id] = vehicle
                sent.append((_seconds(sighting), camera, sighting))
    last = max(moment for moment, _, _ in sent) + _HEARTBEAT_S
    for camera in CAMERAS:
        beats = [*np.arange(0.0, last, _HEARTBEAT_S).tolist(), last]
        sent += [(beat, camera, heartbeat(camera, beat, finished=beat == last)) for beat in beats]
    # A heartbeat comes after the sightings of its own moment: it promises that they have been sent.
    sent.sort(key=lambda one: (one[0], one[1], isinstance(one[2], Heartbeat)))
    return Traffic([message for _, _, message in sent], vehicle_of)


def in_another_order(messages: list[Message], seed: int, *, most_late_s: float) -> list[Message]:
    """The same, with cameras that lag behind each other by other times, and tracklets between two heartbeats mixed.

    What one camera says of one tracklet stays in order, and each heartbeat keeps its promise.
    """
    rng = np.random.default_rng(seed)
    sent: list[tuple[float, float, Message]] = []
    for camera in CAMERAS:
        late_s, promised = float(rng.uniform(0, most_late_s)), 0.0
        run: list[Sighting] = []
        for message in (one for one in messages if one.camera == camera):
            if isinstance(message, Heartbeat):
                arrives = max(promised, _seconds(message) + late_s)
                sent += [(arrives, float(number), one) for number, one in enumerate(_mixed(run, rng))]
                sent.append((arrives, float("inf"), message))
                run, promised = [], arrives
            else:
                run.append(message)
    sent.sort(key=lambda one: one[:2])
    return [message for _, _, message in sent]


def _mixed(run: list[Sighting], rng: np.random.Generator) -> list[Sighting]:
    waiting: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in run:
        waiting[sighting.tracklet_id].append(sighting)
    turns = [name for name, own in waiting.items() for _ in own]
    return [waiting[str(name)].pop(0) for name in rng.permutation(turns)]


def _seconds(message: Message) -> float:
    moment = message.watermark if isinstance(message, Heartbeat) else message.occurred_at
    return (moment - EPOCH).total_seconds()


def _tracklet(
    camera: str,
    number: int,
    start: float,
    length: float,
    speed: float,
    own: NDArray[np.float64],
    noise: float,
    rng: np.random.Generator,
) -> list[Sighting]:
    stay_s = length / abs(speed)
    times = start + np.arange(0.0, stay_s, _FRAME_S)
    boxes = _boxes(camera, (times - start) * abs(speed), speed, length) + rng.normal(0, 0.5, (len(times), 4))
    cuts = [0, 6, len(times) // 2, len(times)]
    found = []
    for sequence, kind in enumerate((SightingKind.FIRST, SightingKind.UPDATE, SightingKind.END)):
        part = slice(cuts[sequence], cuts[sequence + 1])
        end = float(times[part][-1])
        modalities = [Modality.NEAR_INFRARED if camera == "c" else Modality.VISIBLE]
        if camera == "b" and kind is SightingKind.END:
            modalities.append(Modality.NEAR_INFRARED)
        embeddings = tuple(_look(own, noise, modality, end, rng) for modality in modalities)
        found.append(
            Sighting(
                kind=kind,
                site="crossing",
                region="main",
                camera=camera,
                session="s",
                number=number,
                sequence=sequence,
                started_at=at(start),
                occurred_at=at(end),
                vehicle_class="car",
                class_votes={"car": 0.9, "truck": 0.1},
                path=TrackPath(
                    np.rint(times[part] / _FRAME_S).astype(np.int64),
                    times[part] + EPOCH.timestamp(),
                    boxes[part].astype(np.float32),
                ),
                embeddings=() if kind is SightingKind.UPDATE else embeddings,
                model_id=MODEL,
                end_reason=EndReason.LEFT if kind is SightingKind.END else None,
            )
        )
    return found


def _look(
    own: NDArray[np.float64], noise: float, modality: Modality, seconds: float, rng: np.random.Generator
) -> CropEmbedding:
    vector = own + noise * rng.normal(size=len(own))
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return CropEmbedding(modality, unit, 0.8, at(seconds), (10, 20, 60, 50))


def _boxes(camera: str, driven: NDArray[np.float64], speed: float, length: float) -> NDArray[np.float64]:
    """(N, 4) in the picture of a camera that looks along the road a little."""
    along = driven if speed > 0 else length - driven
    depth = (20.0 + 0.4 * along) * {"a": 1.0, "b": 1.1, "c": 0.9}[camera]
    x = 100.0 + 1600.0 * along / length
    y = 200.0 + 12_000.0 / depth + (0.0 if speed > 0 else 60.0)
    height, width = 1200.0 / depth, 1800.0 / depth
    return np.stack([x - width / 2, y - height, x + width / 2, y], axis=1)
