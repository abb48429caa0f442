"""Where a vehicle stood in the picture, moment by moment: what views are compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Moments kept per second: a vehicle moves less than its own length between two of them.
_RATE_HZ = 5.0
#: A vehicle that has moved by less than this, in heights of its box, stands: an hour of parking is two moments.
_STANDS = 0.1
#: How long the moments are that say where, and how fast, a vehicle entered or left the view.
_EDGE_S = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class GroundPath:
    """The middle of a box's lower edge over time: about where the vehicle touches the road.

    Attributes:
        times: (N,) float64, seconds since the Unix epoch, rising; N is 1 at least.
        points: (N, 2) float64, x and y in source pixels.
        heights: (N,) float64, the boxes' heights in pixels: the yardstick that makes errors near and far comparable.
        ends_idle: Whether the last moment is there only because it is the last.
    """

    times: NDArray[np.float64]
    points: NDArray[np.float64]
    heights: NDArray[np.float64]
    ends_idle: bool = False

    def __len__(self) -> int:
        return len(self.times)

    @property
    def entry(self) -> NDArray[np.float64]:
        """(2,) where the vehicle was first seen."""
        point: NDArray[np.float64] = np.median(self.points[self.times <= self.times[0] + _EDGE_S], axis=0)
        return point

    @property
    def exit(self) -> NDArray[np.float64]:
        """(2,) where it was last seen."""
        point: NDArray[np.float64] = np.median(self.points[self.times >= self.times[-1] - _EDGE_S], axis=0)
        return point

    def at(self, times: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points (T, 2) and heights (T,) at those moments, between the known ones by straight lines."""
        x, y = (np.interp(times, self.times, self.points[:, axis]) for axis in (0, 1))
        return np.stack([x, y], axis=1), np.interp(times, self.times, self.heights)

    def ahead(self, time: float) -> tuple[NDArray[np.float64], float]:
        """Where (2,) the vehicle would be at a moment after its last, had it kept its speed; and its last height."""
        first = int(np.searchsorted(self.times, self.times[-1] - _EDGE_S))
        span = self.times[-1] - self.times[first]
        speed = (self.points[-1] - self.points[first]) / span if span > 0 else np.zeros(2)
        return self.points[-1] + speed * (time - self.times[-1]), float(self.heights[-1])

    def joined(self, times: NDArray[np.float64], boxes: NDArray[np.float32]) -> GroundPath:
        """This path and what came after it (times (N,) and boxes (N, 4), xyxy); what came before is left out.

        The same as if the whole path had come at once.
        """
        later = times > self.times[-1]
        return _thinned(times[later], *_ground(boxes[later]), self) if later.any() else self


def ground_path(times: NDArray[np.float64], boxes: NDArray[np.float32]) -> GroundPath:
    """A path without the moments that say nothing new.

    Args:
        times: (N,) seconds since the Unix epoch, rising; at least one.
        boxes: (N, 4) xyxy in source pixels.
    """
    return _thinned(times, *_ground(boxes))


def _ground(boxes: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x1, y1, x2, y2 = boxes.astype(np.float64).T
    return np.stack([(x1 + x2) / 2, y2], axis=1), y2 - y1


def _thinned(
    times: NDArray[np.float64],
    points: NDArray[np.float64],
    heights: NDArray[np.float64],
    before: GroundPath | None = None,
) -> GroundPath:
    """The first moment of each slot of time in which it has moved, and the last of all; after what came before."""
    slots = np.floor(times * _RATE_HZ)
    last_slot = np.floor(before.times[-1] * _RATE_HZ) if before else -np.inf
    known = len(before) - before.ends_idle if before else 0
    # Of what came before only what was kept for its own sake.
    place = before.points[known - 1] if before else None
    kept = []
    for moment in np.flatnonzero(np.diff(slots, prepend=last_slot) > 0).tolist():
        if place is None or math.hypot(*(points[moment] - place)) >= _STANDS * heights[moment]:
            kept.append(moment)
            place = points[moment]
    ends_idle = not kept or kept[-1] != len(times) - 1
    if ends_idle:
        kept.append(len(times) - 1)
    found = GroundPath(times[kept], points[kept], heights[kept], ends_idle)
    if before is None:
        return found
    return GroundPath(
        np.concatenate([before.times[:known], found.times]),
        np.concatenate([before.points[:known], found.points]),
        np.concatenate([before.heights[:known], found.heights]),
        ends_idle,
    )
