"""Who is who, given scores: a one-to-one assignment in which "somebody new" has its price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Stands for minus infinity in the solver, which wants finite numbers.
_FORBIDDEN = -1e6


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one tracklet.

    Attributes:
        candidate: Column of the candidate, or None: somebody new.
        score: Its log-odds; for somebody new those of the best candidate, or None where there was none.
        margin: By how much it beats the best alternative of that tracklet, in nats; None where there was none.
    """

    candidate: int | None
    score: float | None
    margin: float | None


def assign(scores: NDArray[np.float64], *, min_score: float, min_margin: float) -> list[Choice]:
    """Gives each tracklet at most one candidate and each candidate at most one tracklet, at the highest total.

    "Somebody new" is worth `min_score` to every tracklet and can be given to any number of them. A choice that beats
    the tracklet's own second-best candidate by less than `min_margin` becomes somebody new: a wrong merge is worse
    than a split.

    Args:
        scores: (T, C) log-odds that tracklet t is candidate c; minus infinity where a hard rule forbids it.
        min_score: The price of somebody new, in nats.
        min_margin: In nats.

    Returns:
        One `Choice` per row.
    """
    tracklets, candidates = scores.shape
    if not candidates:
        return [Choice(None, None, None)] * tracklets
    newcomers = np.full((tracklets, tracklets), _FORBIDDEN)
    np.fill_diagonal(newcomers, min_score)
    gains = np.hstack([np.maximum(scores, _FORBIDDEN), newcomers])
    rows, columns = linear_sum_assignment(gains, maximize=True)
    return [
        _choose(scores[row], int(column), min_score=min_score, min_margin=min_margin)
        for row, column in zip(rows, columns, strict=True)
    ]


def _choose(row: NDArray[np.float64], column: int, *, min_score: float, min_margin: float) -> Choice:
    possible = np.flatnonzero(np.isfinite(row))
    best = float(row[possible].max()) if len(possible) else None
    if column >= len(row) or not np.isfinite(row[column]):
        return Choice(None, best, None if best is None else min_score - best)
    score = float(row[column])
    others = row[possible[possible != column]]
    margin = score - max(min_score, float(others.max()) if len(others) else min_score)
    if len(others) and score - float(others.max()) < min_margin:
        return Choice(None, score, margin)
    return Choice(column, score, margin)
