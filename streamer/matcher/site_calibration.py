"""What similarity says at one site, from the pairs that the site labels by itself; until there are enough, as shipped.

Labelled similarities are counted in a histogram per pair of modalities and kind, whole numbers, so that neither their
order nor a restart changes a digit of what follows. From it comes the likeliest `Logistic` under a normal prior about
the shipped one (a maximum a posteriori estimate, as ridge regression is; Bishop, 2006, ch. 4.5): with few pairs it is
the shipped one, with many the site's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from reid.calibration import Calibration, Logistic, ModalityPair, modality_pair
from reid.modality import Modality

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamer.matcher.centring import Centring
    from streamer.matcher.sure_pairs import SurePair

#: Bins of the similarity, from -1 to 1.
_BINS = 100
#: Their middles, (_BINS,).
MIDDLES = (np.arange(_BINS) + 0.5) * (2 / _BINS) - 1
#: With fewer pairs of either kind the shipped fit stands.
_FEWEST = 10
#: How far a site's own fit is expected from the shipped one: by this share of the slope, and by so many nats where the
#: shipped one says nothing either way. Between rendered sites and drawn traffic it is twice that.
_SLOPE_SPREAD, _OFFSET_SPREAD = 0.5, 2.0
#: Of the pairs labelled as one vehicle so many are two, or have a picture of something else: about what the training
#: sites show. Of those labelled as two hardly one is wrong.
_WRONG_SAME = 0.04


@dataclass(slots=True, eq=False)
class Counts:
    """Labelled similarities of a pair of modalities.

    Attributes:
        same: (bins,) how many pairs of one vehicle had a similarity about each of `MIDDLES`.
        different: (bins,) those of two vehicles.
    """

    same: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    different: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, similarity: float, *, is_same: bool) -> None:
        """Counts one."""
        at = int(np.clip((similarity + 1) * (_BINS / 2), 0, _BINS - 1))
        (self.same if is_same else self.different)[at] += 1

    @property
    def total(self) -> tuple[int, int]:
        """How many of one vehicle and of two."""
        return int(self.same.sum()), int(self.different.sum())

    def labelled(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(N,) similarities, to the middle of their bin, and (N,) whether they are of one vehicle."""
        same, different = np.repeat(MIDDLES, self.same), np.repeat(MIDDLES, self.different)
        return np.concatenate([same, different]), np.arange(len(same) + len(different)) < len(same)


class SiteCalibration:
    """A calibration that a site makes its own.

    Args:
        prior: The one shipped with the embedder.

    Attributes:
        current: What holds now.
        counts: What was counted, by pair of modalities.
        fitted: The pairs of which `current` has the site's own fit.
    """

    def __init__(self, prior: Calibration) -> None:
        self._prior = prior
        self.current = prior
        self.counts: dict[ModalityPair, Counts] = {}
        self.fitted: frozenset[ModalityPair] = frozenset()

    def learn(self, pairs: Iterable[SurePair], centring: Centring) -> bool:
        """Counts labelled pairs and fits anew.

        Returns:
            Whether there were any.
        """
        has_any = False
        for pair in pairs:
            for first in sorted(pair.first.vectors):
                for second in sorted(pair.second.vectors):
                    similarity = centring.centred(pair.first, first) @ centring.centred(pair.second, second)
                    counts = self.counts.setdefault(modality_pair(first, second), Counts())
                    counts.add(float(similarity), is_same=pair.is_same)
                    has_any = True
        if has_any:
            self._fit()
        return has_any

    def to_json(self) -> dict[str, Any]:
        """What was counted, as plain values: bin and number, of those that are not empty."""
        return {
            "model_id": self._prior.model_id,
            "bins": _BINS,
            "counts": [
                [*pair, *([[at, int(row[at])] for at in np.flatnonzero(row).tolist()] for row in rows)]
                for pair, rows in ((pair, (found.same, found.different)) for pair, found in sorted(self.counts.items()))
            ],
        }

    def load(self, values: dict[str, Any]) -> None:
        """Takes up what `to_json` gave; of another embedder, or in other bins, nothing."""
        if values["model_id"] != self._prior.model_id or values["bins"] != _BINS:
            return
        for first, second, *kinds in values["counts"]:
            counts = Counts()
            for row, found in zip((counts.same, counts.different), kinds, strict=True):
                for at, number in found:
                    row[at] = number
            self.counts[modality_pair(Modality(first), Modality(second))] = counts
        self._fit()

    def _fit(self) -> None:
        own = {pair: fit_site(counts, self._prior.of(*pair)) for pair, counts in sorted(self.counts.items())}
        known = {pair: fit for pair, fit in own.items() if fit is not None}
        self.fitted = frozenset(known)
        self.current = replace(self._prior, fits={**self._prior.fits, **known})


def fit_site(counts: Counts, prior: Logistic) -> Logistic | None:
    """The likeliest fit to what a site has counted, same and different weighing alike.

    Either kind counts as often as the rarer of the two was seen.

    Args:
        counts: Of one pair of modalities.
        prior: The shipped fit of that pair.

    Returns:
        The fit, or None where it can't be told yet: too few of a kind, or labels that say that the alike are two.
    """
    totals = counts.total
    rarer = min(totals)
    if rarer < _FEWEST or prior.slope <= 0:
        return None
    sign = np.repeat([1.0, -1.0], _BINS)
    seen = zip((counts.same, counts.different), totals, strict=True)
    weight = np.concatenate([row * (rarer / total) for row, total in seen])
    undecided = -prior.intercept / prior.slope
    similarity = np.tile(MIDDLES - undecided, 2)
    # In units of what is expected: the first number moves the slope, the second the offset.
    scale = np.array([_SLOPE_SPREAD * prior.slope, _OFFSET_SPREAD])

    def evidence(moved: NDArray[np.float64]) -> NDArray[np.float64]:
        slope, offset = np.array([prior.slope, 0.0]) + scale * moved
        return np.asarray(slope * similarity + offset)

    def loss(moved: NDArray[np.float64]) -> float:
        # Of the labels of one vehicle some are of two, so that none of them, however unlike, says too much.
        labelled = np.logaddexp(np.log1p(-_WRONG_SAME) + evidence(moved), np.log(_WRONG_SAME))
        return float(np.sum(weight * np.logaddexp(0, -sign * labelled)) + 0.5 * np.sum(moved**2))

    def gradient(moved: NDArray[np.float64]) -> NDArray[np.float64]:
        logit = evidence(moved)
        labelled = np.logaddexp(np.log1p(-_WRONG_SAME) + logit, np.log(_WRONG_SAME))
        is_meant = expit(logit + np.log1p(-_WRONG_SAME) - np.log(_WRONG_SAME))
        error = -sign * weight * expit(-sign * labelled) * is_meant
        return np.asarray(scale * np.array([np.sum(error * similarity), np.sum(error)]) + moved)

    moved = minimize(loss, np.zeros(2), jac=gradient, method="BFGS").x
    slope, offset = np.array([prior.slope, 0.0]) + scale * moved
    if slope <= 0:
        return None
    return Logistic(float(slope), float(offset - slope * undecided), sum(totals))
