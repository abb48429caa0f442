"""Where a vehicle was in one camera, put together from the segments that its sightings brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from storage.blobs import decode_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class PathPoints:
    """Where a vehicle was in one camera, frame by frame.

    Attributes:
        frames: (N,) int64, index of the decoded source frame, rising.
        times: (N,) float64, seconds since the Unix epoch.
        boxes: (N, 4) float32, xyxy in source pixels, half-open.
    """

    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    boxes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)


def merged(blobs: Iterable[bytes]) -> PathPoints:
    """Segments as one path: by frame, each once, the first segment's where several have it."""
    segments = [decode_path(blob) for blob in blobs]
    if not segments:
        return PathPoints(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4), np.float32))
    frames, times, sides = (np.concatenate(parts) for parts in zip(*segments, strict=True))
    _, first = np.unique(frames, return_index=True)
    return PathPoints(frames[first], times[first], sides[first])  # (N,) (N,) (N, 4)
