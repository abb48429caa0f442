"""What all vehicles of one camera share is taken out of their looks: it says nothing of who they are.

Vectors of one modality point in a common direction, and those of one camera in one of their own besides: its light, its
angle, its lens. What taking both out gives is said in docs/decisions/0010.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from reid.modality import Modality

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from streamer.matcher.tracklet import Tracklet

#: Vectors' worth of trust in the modality's mean over the camera's own.
_TRUST = 10.0
#: A camera's mean is taken over about so many of its newest vectors: light changes.
_MEMORY = 300.0
#: The mean in use is renewed when so much more, or so many more vectors, have come: each renewal makes stale what was
#: centred before.
_GROWTH, _MOST_NEW = 1.1, 30


@dataclass(slots=True)
class _Mean:
    """A running mean, and the one in use.

    Attributes:
        total: (D,) sum of the newest vectors.
        count: How many those are.
        seen: How many there ever were.
        used: (D,) `total` when the mean was last renewed.
        used_count: `count` at that moment.
        renewed_at: `seen` at that moment.
    """

    total: NDArray[np.float64]
    used: NDArray[np.float64]
    count: float = 0.0
    used_count: float = 0.0
    seen: int = 0
    renewed_at: int = 0

    def add(self, vector: NDArray[np.float32]) -> None:
        if self.count >= _MEMORY:
            self.total *= (_MEMORY - 1) / self.count
            self.count = _MEMORY - 1
        self.total += vector
        self.count += 1
        self.seen += 1

    def renew(self) -> None:
        if self.seen >= min(_GROWTH * self.renewed_at, self.renewed_at + _MOST_NEW):
            self.used, self.used_count, self.renewed_at = self.total.copy(), self.count, self.seen


class Centring:
    """The mean look of each camera in each modality, learned as its vehicles pass.

    Args:
        modality_means: Mean vector (D,) of each modality, as shipped with the embedder; missing ones count as zero.
    """

    def __init__(self, modality_means: Mapping[Modality, NDArray[np.float32]]) -> None:
        self._modality_means = modality_means
        self._means: dict[tuple[str, Modality], _Mean] = {}

    def learn(self, tracklets: Iterable[Tracklet]) -> None:
        """Takes in tracklets that are new; their order matters in the last digits."""
        touched: dict[tuple[str, Modality], _Mean] = {}
        for tracklet in tracklets:
            for modality, vector in sorted(tracklet.vectors.items()):
                key = (tracklet.camera, modality)
                if key not in self._means:
                    self._means[key] = _Mean(np.zeros(len(vector)), np.zeros(len(vector)))
                self._means[key].add(vector)
                touched[key] = self._means[key]
        for mean in touched.values():
            mean.renew()

    def centred(self, tracklet: Tracklet, modality: Modality) -> NDArray[np.float32]:
        """The tracklet's vector (D,) of that modality without what its camera's vehicles share, unit norm again."""
        mean = self._means.get((tracklet.camera, modality))
        renewed_at = mean.renewed_at if mean else 0
        kept = tracklet.centred.get(modality)
        if kept is not None and kept[0] == renewed_at:
            return kept[1]
        vector = tracklet.vectors[modality]
        base: NDArray[Any] = self._modality_means.get(modality, np.zeros(len(vector), np.float32))
        if mean is not None:
            base = (mean.used + _TRUST * base) / (mean.used_count + _TRUST)
        rest = vector - base
        norm = float(np.linalg.norm(rest))
        found = (rest / norm).astype(np.float32) if norm > 0 else vector
        tracklet.centred[modality] = (renewed_at, found)
        return found

    def to_json(self) -> list[list[Any]]:
        """As plain values."""
        return [
            [camera, modality.value, *(_plain(getattr(mean, column.name)) for column in fields(mean))]
            for (camera, modality), mean in sorted(self._means.items())
        ]

    def load(self, values: list[list[Any]]) -> None:
        """Takes up what `to_json` gave."""
        for camera, modality, total, used, *counts in values:
            sums, in_use = (np.frombuffer(base64.b64decode(text), np.float64).copy() for text in (total, used))
            self._means[camera, Modality(modality)] = _Mean(sums, in_use, *counts)


def _plain(value: NDArray[np.float64] | float) -> str | float:
    return base64.b64encode(value.tobytes()).decode() if isinstance(value, np.ndarray) else value
