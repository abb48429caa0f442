"""Good traffic of a small site, and messages that must not be let in, each with the reason that must be given."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from reid.calibration import Calibration
from reid.modality import Modality
from streamer import identity_events, sighting_rules
from streamer.identity_events import Identity
from streamer.sighting_codec import encode
from streamer.sightings import CropEmbedding, Heartbeat, Message, Sighting, SightingKind
from tests.streamer.matcher.matcher_builders import CALIBRATION, DIMENSION, EPOCH, heartbeat, looks, sighting

if TYPE_CHECKING:
    import pytest
    from numpy.typing import NDArray

FIRST, END = SightingKind.FIRST, SightingKind.END
#: With centres, as every calibration that ships: they tell how long the embedder's vectors are.
CENTRED = Calibration(
    CALIBRATION.model_id, CALIBRATION.fits, {modality: np.zeros(DIMENSION, np.float32) for modality in Modality}
)
_SECONDS_APART = 4.0


def good_messages(vehicles: int) -> list[Message]:
    """Vehicles that pass `a`, then `b`; those that look alike a minute apart at least, all cameras' promises kept."""
    events: list[tuple[float, Message]] = []
    for number in range(vehicles):
        start = number * _SECONDS_APART
        look = number % DIMENSION
        for camera, entered in (("a", start), ("b", start + 8)):
            first = sighting(camera, number, 0, FIRST, (entered, entered + 1), vehicle=look)
            end = sighting(camera, number, 1, END, (entered, entered + 3), vehicle=look)
            events += [(entered + 1, first), (entered + 3, end), (entered + 3, heartbeat(camera, entered + 3))]
    events.sort(key=lambda event: event[0])
    last = events[-1][0] + 60
    return [message for _, message in events] + [heartbeat(camera, last, finished=True) for camera in ("a", "b")]


def poisons(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[bytes, str]]:
    """By what is wrong: the message, and how the reason must begin."""
    with monkeypatch.context() as without_rules, np.errstate(all="ignore"):
        without_rules.setattr(sighting_rules, "check", lambda _message: None)
        out_of_contract = {name: (encode(message), reason) for name, (message, reason) in _messages().items()}
    return {**_no_messages(), **out_of_contract}


def _stranger(**changes: object) -> Sighting:
    usual = sighting("a", 900_000, 0, FIRST, (5, 6), vehicle=1)
    return replace(usual, **changes)  # type: ignore[arg-type]


def _with(vector: NDArray[np.float32]) -> Sighting:
    embedding = CropEmbedding(Modality.VISIBLE, vector, 0.8, EPOCH, (10, 20, 60, 50))
    return _stranger(embeddings=(embedding,))


def _messages() -> dict[str, tuple[Message, str]]:
    """Records of the schema that break the contract, or don't fit the site."""
    past, future = datetime(1970, 1, 2, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
    return {
        "NaN vector": (_with(np.full(DIMENSION, np.nan, np.float32)), "vector: wanted unit norm, got nan"),
        "infinite vector": (_with(np.full(DIMENSION, np.inf, np.float32)), "vector: wanted unit norm, got inf"),
        "zero vector": (_with(np.zeros(DIMENSION, np.float32)), "vector: wanted unit norm, got 0"),
        "vector of no length": (_with(np.zeros(0, np.float32)), "vector: wanted (D,)"),
        "from 1970": (_stranger(occurred_at=past), "occurred_at: wanted a time between 2000 and 2100"),
        "from 2100": (_stranger(occurred_at=future), "occurred_at: wanted a time between 2000 and 2100"),
        "heartbeat of 1970": (replace(heartbeat("a", 0), watermark=past), "watermark: wanted a time"),
        "unknown camera": (_stranger(camera="roof"), "camera: the site file names no roof"),
        "wrong region": (_stranger(region="north"), "region: a stands in main, got north"),
        "another site": (_stranger(site="harbour"), "site: wanted crossing, got harbour"),
        "a name no column holds": (_stranger(session="s" * 100), "session: wanted 1-64 characters"),
        "a class no column holds": (_stranger(vehicle_class="x" * 40), "vehicle_class: wanted 1-32 characters"),
        "a zero byte in a name": (_stranger(class_votes={"c\x00": 1.0}), "class_votes: wanted 1-32 characters"),
        "a path out of the house": (_stranger(context_image="../../x"), "context_image: wanted a path below"),
    }


def _no_messages() -> dict[str, tuple[bytes, str]]:
    """Bytes that are no record of the schema."""
    good = encode(_stranger())
    event = Identity(1, "crossing", "main", "a/s/1", "a", "v", None, "new", False, None, EPOCH, "matcher", None)  # noqa: FBT003 - one of many
    return {
        "random bytes": (b"\x01" + random.Random(3).randbytes(300), "message: "),
        "nothing": (b"", "message: empty"),
        "cut short": (good[: len(good) // 2], "message: not a record of version 1"),
        "followed by more": (good + b"\x00", "message: 1 bytes too many"),
        "another schema": (identity_events.encode(event), "message: not a record of version 1"),
        "a later version": (b"\x09" + good[1:], "message: unknown version 9, this program reads 1"),
        "a length of an exabyte": (good[:4] + b"\x80" * 8 + b"\x20" + good[5:], "message: not a record of version 1"),
        "two megabytes": (bytes(2 << 20), f"message: {2 << 20} bytes, at most 262144 (65536 of {2 << 20} bytes kept)"),
    }


def of_another_length(number: int) -> Sighting:
    """A good sighting, but for a vector that its embedder can't have made: kept, and compared with nothing."""
    embedding = CropEmbedding(Modality.VISIBLE, np.eye(2 * DIMENSION, dtype=np.float32)[3], 0.8, EPOCH, (1, 2, 60, 50))
    return replace(sighting("a", number, 0, FIRST, (5, 6), vehicle=1), embeddings=(embedding,))


def from_2050() -> Heartbeat:
    """A promise that would silence every other camera for good."""
    return replace(heartbeat("a", 0), watermark=datetime(2050, 1, 1, tzinfo=UTC))


__all__ = ["CENTRED", "from_2050", "good_messages", "looks", "of_another_length", "poisons"]
