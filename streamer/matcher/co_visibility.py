"""Views that overlap: a point of the road in one picture is a point of the road in the other.

Where two cameras see one piece of road, the pictures' points of the ground are joined by a homography (Hartley and
Zisserman, 2004, ch. 2). It is learned from tracklets of both cameras at one time: those that truly are one vehicle
agree on one map, while the others don't. Where a map is known, a vehicle's place in one view says where it must be in
the other, whatever it looks like: what links heat to colour at a crossing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamer.matcher.ground_path import GroundPath

#: Moments at which two paths are compared.
_MOMENTS = 12
#: Paths in view together for less than this say too little.
_MIN_SHARED_S = 0.5
#: A pair agrees with a map when its places differ by less than this, in heights of the vehicle's box.
_AGREES = 0.6
#: So many pairs must agree, and this share of those that look like one vehicle, before a map is believed.
_MIN_PAIRS, _MIN_SHARE = 5, 0.4
#: Times that a map is fitted anew to the pairs that agree with it.
_ROUNDS = 3
#: Spread of the differences, in box heights, of pairs that are no vehicle in common: what chance offers.
_CHANCE = 5.0
#: The best that a map's spread can be: boxes jitter.
_MIN_SPREAD = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class SharedStay:
    """Two tracklets of different cameras while both were in view.

    Attributes:
        first: (T, 2) places in the first camera's picture, pixels.
        second: (T, 2) places in the second's, at the same moments.
        first_height: (T,) heights of the boxes, pixels.
        second_height: (T,) those in the second camera.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    first_height: NDArray[np.float64]
    second_height: NDArray[np.float64]


def shared_stay(first: GroundPath, second: GroundPath) -> SharedStay | None:
    """What both paths say of the time they have in common; None where that is too short."""
    begin, end = max(first.times[0], second.times[0]), min(first.times[-1], second.times[-1])
    if end - begin < _MIN_SHARED_S:
        return None
    moments = np.linspace(begin, end, _MOMENTS)
    (points, heights), (others, other_heights) = first.at(moments), second.at(moments)
    return SharedStay(points, others, heights, other_heights)


def difference_llr(difference: float, spread: float) -> float:
    """Log p(difference | one vehicle) / p(difference | two) of two places, in nats.

    Both are Student's with 3 degrees of freedom, so that a single bad box does not decide.

    Args:
        difference: Between where a vehicle is and where it should be, in heights of its box.
        spread: Half-width of what is usual for one vehicle, likewise.
    """
    same = -math.log(spread) - 2 * math.log1p((difference / spread) ** 2 / 3)
    chance = -math.log(_CHANCE) - 2 * math.log1p((difference / _CHANCE) ** 2 / 3)
    return same - chance


@dataclass(frozen=True, slots=True, eq=False)
class ViewMap:
    """The road in one camera's picture, laid over another's.

    Attributes:
        forward: (3, 3) homography from the first camera's pixels to the second's.
        backward: (3, 3) the way back, fitted by itself.
        spread: Half-width of the differences of pairs that agree, in box heights.
        pairs: How many agreed.
    """

    forward: NDArray[np.float64]
    backward: NDArray[np.float64]
    spread: float
    pairs: int

    def difference(self, stay: SharedStay) -> float:
        """By how many box heights the two paths miss each other, the median over the moments of the worse way."""
        there = np.linalg.norm(_mapped(self.forward, stay.first) - stay.second, axis=1) / stay.second_height
        back = np.linalg.norm(_mapped(self.backward, stay.second) - stay.first, axis=1) / stay.first_height
        return float(np.median(np.maximum(there, back)))

    def llr(self, stay: SharedStay) -> float:
        """Log p(difference | one vehicle) / p(difference | two), in nats."""
        return difference_llr(self.difference(stay), self.spread)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "forward": self.forward.tolist(),
            "backward": self.backward.tolist(),
            "spread": self.spread,
            "pairs": self.pairs,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ViewMap:
        """What `to_json` wrote."""
        forward, backward = np.array(values["forward"]), np.array(values["backward"])
        return cls(forward, backward, values["spread"], values["pairs"])


def learn_view_map(stays: Sequence[SharedStay], weights: NDArray[np.float64]) -> ViewMap | None:
    """The map that most of the likely pairs agree on: consensus over whole pairs (Fischler and Bolles, 1981).

    Args:
        stays: Pairs that may be one vehicle.
        weights: (N,) how likely each is, 0-1.

    Returns:
        The map, or None where too few agree: the views don't overlap, or too little was seen yet.
    """
    if len(stays) < _MIN_PAIRS:
        return None
    found: ViewMap | None = _fit(stays)
    for _ in range(_ROUNDS):
        if found is None:
            return None
        agrees = _agreeing(found, stays)
        if agrees.sum() < _MIN_PAIRS or weights[agrees].sum() < _MIN_SHARE * weights.sum():
            return None
        found = _fit([stay for stay, is_in in zip(stays, agrees, strict=True) if is_in])
    return found


def _fit(stays: Sequence[SharedStay]) -> ViewMap | None:
    """The map of most of the points: of a vehicle that enters or leaves, the box shows a part only."""
    first, second = (np.concatenate([getattr(stay, name) for stay in stays]) for name in ("first", "second"))
    # In box heights, so that one threshold fits any picture size.
    unit = float(np.median(np.concatenate([stay.first_height for stay in stays])))
    other_unit = float(np.median(np.concatenate([stay.second_height for stay in stays])))
    forward, _ = cv2.findHomography(first / unit, second / other_unit, cv2.USAC_MAGSAC, _AGREES)
    backward, _ = cv2.findHomography(second / other_unit, first / unit, cv2.USAC_MAGSAC, _AGREES)
    if forward is None or backward is None:
        return None
    here, there = np.diag([unit, unit, 1.0]), np.diag([other_unit, other_unit, 1.0])
    forward, backward = there @ forward @ np.linalg.inv(here), here @ backward @ np.linalg.inv(there)
    raw = ViewMap(forward, backward, 1.0, len(stays))
    spread = max(_MIN_SPREAD, float(np.median([raw.difference(stay) for stay in stays])))
    return ViewMap(forward, backward, spread, len(stays))


def _agreeing(view_map: ViewMap, stays: Sequence[SharedStay]) -> NDArray[np.bool_]:
    return np.array([view_map.difference(stay) < _AGREES for stay in stays])


def _mapped(homography: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    projected = np.c_[points, np.ones(len(points))] @ homography.T
    depth = projected[:, 2:]
    # A point on the horizon goes to infinity: far from anything, but no fault.
    return np.asarray(projected[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth))
