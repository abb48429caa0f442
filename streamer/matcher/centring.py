"""What all vehicles of one camera share is taken out of their looks: it says nothing of who they are.

Vectors of one modality point in a common direction, and those of one camera in one of their own besides: its light, its
angle, its lens. Taking both out of them halves the mistakes between modalities (docs/decisions/0009).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
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


@dataclass(slots=True)
class _Mean:
    total: NDArray[np.float64]
    count: float

    def add(self, vector: NDArray[np.float32]) -> None:
        if self.count >= _MEMORY:
            self.total *= (_MEMORY - 1) / self.count
            self.count = _MEMORY - 1
        self.total += vector
        self.count += 1


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
        for tracklet in tracklets:
            for modality, vector in sorted(tracklet.vectors.items()):
                if (tracklet.camera, modality) not in self._means:
                    self._means[tracklet.camera, modality] = _Mean(np.zeros(len(vector)), 0.0)
                self._means[tracklet.camera, modality].add(vector)

    def centred(self, tracklet: Tracklet, modality: Modality) -> NDArray[np.float32]:
        """The tracklet's vector (D,) of that modality without what its camera's vehicles share, unit norm again."""
        vector = tracklet.vectors[modality]
        base: NDArray[Any] = self._modality_means.get(modality, np.zeros(len(vector), np.float32))
        mean = self._means.get((tracklet.camera, modality))
        if mean is not None:
            base = (mean.total + _TRUST * base) / (mean.count + _TRUST)
        rest = vector - base
        norm = float(np.linalg.norm(rest))
        return (rest / norm).astype(np.float32) if norm > 0 else vector

    def to_json(self) -> list[list[Any]]:
        """As plain values."""
        return [
            [camera, modality.value, mean.count, base64.b64encode(mean.total.tobytes()).decode()]
            for (camera, modality), mean in sorted(self._means.items())
        ]

    def load(self, values: list[list[Any]]) -> None:
        """Takes up what `to_json` gave."""
        for camera, modality, count, total in values:
            sums = np.frombuffer(base64.b64decode(total), np.float64).copy()
            self._means[camera, Modality(modality)] = _Mean(sums, count)
