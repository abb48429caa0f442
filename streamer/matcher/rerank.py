"""A second look at a short list: points compared beside the cosine, for as many pairs as there is time for.

Off by default: on tracklets, whose vectors average several crops, points add nothing that could be measured (see
`docs/decisions/0008-what-the-matcher-compares.md`).
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reid.rankers import MIX
from reid.tokens import TokensError, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from reid.point_scorer import PointScorer

#: Packed points of two pictures, None where none are stored, and the cosine of their centred vectors.
LookPair = tuple[bytes | None, bytes | None, float]

#: Pictures whose points are kept unpacked: 9 KB each with the shipped network, so some 5 MB.
MAX_UNPACKED = 512
#: 2 sigmoid(x / 10) - 1 = tanh(x / 20), for small x half of the logit / 10 that `MIX` was chosen beside.
_LOGIT_SCALE, _HALVES = 20.0, 2.0


@dataclass(frozen=True, slots=True)
class Expectation:
    """What points say on average of two tracklets with a given cosine: `slope * cosine + intercept`, in -1..1."""

    slope: float
    intercept: float


#: Of porsche-small, alike for all pairs of modalities within 0.02, by `benchmarks/tracklet_looks.py`.
PORSCHE_SMALL = Expectation(slope=0.28, intercept=-0.18)


def points_say(logit: float) -> float:
    """A matcher's logit as a number in -1..1: PORSCHE's score, sigmoid(logit / 10), stretched to both signs."""
    return math.tanh(logit / _LOGIT_SCALE)


def mixed_similarity(cosine: float, logit: float, expected: Expectation = PORSCHE_SMALL) -> float:
    """Cosine and points as one number on the scale of the cosine.

    Orders pairs as `reid.rankers.match_scores` does with its `MIX`, but that logits beyond 10 either way are dampened
    by more than 8 %. It is the cosine itself where the points say what was expected of it: a calibration of cosines
    therefore holds for it too, and pairs that were looked at again can be compared with those that were not.

    Args:
        cosine: Of the centred vectors, -1..1.
        logit: The matcher's.
        expected: Of this network.

    Returns:
        A number in -1..1.
    """
    mixed = (MIX * cosine + _HALVES * (points_say(logit) - expected.intercept)) / (MIX + _HALVES * expected.slope)
    return min(max(mixed, -1.0), 1.0)


class PointRescorer:
    """Looks again at the best pairs of a list, within a budget. Pure but for its cache; not for several threads.

    Args:
        scorer: Compares points.
        budget: Pairs that a call compares by their points at most; 20 with one picture in common take half a
            millisecond.
        expected: What the points of this network say on average.
        max_unpacked: Pictures whose points are kept unpacked; the one not used for longest goes first.
    """

    def __init__(
        self,
        scorer: PointScorer,
        budget: int,
        *,
        expected: Expectation = PORSCHE_SMALL,
        max_unpacked: int = MAX_UNPACKED,
    ) -> None:
        if budget < 0 or max_unpacked < 0:
            raise ValueError(f"budget and max_unpacked must not be negative, got {budget} and {max_unpacked}")
        self._scorer, self._budget, self._expected, self._max_unpacked = scorer, budget, expected, max_unpacked
        self._unpacked: OrderedDict[bytes, NDArray[np.float32] | None] = OrderedDict()

    def similarities(self, pairs: Sequence[LookPair]) -> list[float]:
        """Looks again at the pairs of the highest cosine; equal ones in the order given.

        Args:
            pairs: Of any tracklets and modalities; cheapest where many share their first picture.

        Returns:
            As many numbers in -1..1, see `mixed_similarity`; the cosine alone for pairs beyond the budget, and for
            those whose points are missing, can't be read or are another network's. Those cost no budget.
        """
        similarities = [cosine for _, _, cosine in pairs]
        galleries: dict[bytes, list[tuple[int, NDArray[np.float32]]]] = defaultdict(list)
        queries: dict[bytes, NDArray[np.float32]] = {}
        left = self._budget
        for index in sorted(range(len(pairs)), key=lambda index: -similarities[index]):
            if not left:
                break
            first, second, _ = pairs[index]
            query, candidate = self._points(first), self._points(second)
            if first is None or query is None or candidate is None or query.shape != candidate.shape:
                continue
            queries[first] = query
            galleries[first].append((index, candidate))
            left -= 1
        for first, members in galleries.items():
            logits = self._scorer.score(queries[first][np.newaxis], np.stack([points for _, points in members]))[0]
            for (index, _), logit in zip(members, logits.tolist(), strict=True):
                similarities[index] = mixed_similarity(similarities[index], logit, self._expected)
        return similarities

    def _points(self, packed: bytes | None) -> NDArray[np.float32] | None:
        """(L, P, C), or None where there are none that this scorer can compare."""
        if packed is None:
            return None
        if packed in self._unpacked:
            self._unpacked.move_to_end(packed)
            return self._unpacked[packed]
        points = self._unpacked[packed] = self._read(packed)
        if len(self._unpacked) > self._max_unpacked:
            self._unpacked.popitem(last=False)
        return points

    def _read(self, packed: bytes) -> NDArray[np.float32] | None:
        try:
            points = unpack(packed)
        except TokensError:
            # What came over the bus must not stop the matcher; the cosine is still there.
            return None
        return points if points.shape[:2] == self._scorer.priors.shape[:2] else None
