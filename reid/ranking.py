"""Retrieval scores over arrays: CMC, mAP and mINP. No files, no network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_RANK = 20


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one ranking, all 0-1.

    Attributes:
        mean_ap: mean average precision over the valid queries.
        mean_inp: mean inverse negative penalty: matches divided by the rank of the last one.
        cmc: (20,) share of valid queries with a match at rank 1, 2, ...; the last repeats in a small gallery.
        queries: valid queries, those with a match in their gallery.
        excluded: queries without one; they count in nothing.
    """

    mean_ap: float
    mean_inp: float
    cmc: NDArray[np.float64]
    queries: int
    excluded: int


def rank(
    similarities: NDArray[np.float32],
    queries: NDArray[np.int64],
    gallery: NDArray[np.int64],
    removed: NDArray[np.bool_] | None = None,
) -> Scores:
    """Score a ranking.

    Average precision is the mean, over a query's matches, of the precision at each match's rank
    (no interpolation; scikit-learn's definition). Inverse negative penalty: Ye et al., TPAMI 2021, eq. 6.

    Args:
        similarities: (Q, G), higher is more alike. Equal ones rank in the gallery's order.
        queries: (Q,) identities.
        gallery: (G,) identities.
        removed: (Q, G), pairs that are no part of a query's gallery, such as the query itself.

    Returns:
        Scores over the queries with a match; all zero when there is none.

    Raises:
        ValueError: shapes disagree.
    """
    shape = (len(queries), len(gallery))
    if similarities.shape != shape or (removed is not None and removed.shape != shape):
        raise ValueError(f"expected similarities and removed of shape {shape}, got {similarities.shape}")
    precisions, penalties, firsts = [], [], []
    order = np.argsort(-similarities, axis=1, kind="stable")
    for query, ranked in enumerate(order):
        kept = ranked if removed is None else ranked[~removed[query, ranked]]
        ranks = np.flatnonzero(gallery[kept] == queries[query]) + 1
        if len(ranks):
            precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
            penalties.append(len(ranks) / float(ranks[-1]))
            firsts.append(int(ranks[0]))
    excluded = len(queries) - len(firsts)
    if not firsts:
        return Scores(0.0, 0.0, np.zeros(MAX_RANK), 0, excluded)
    cmc = (np.array(firsts)[:, None] <= np.arange(1, MAX_RANK + 1)[None, :]).mean(axis=0)
    return Scores(float(np.mean(precisions)), float(np.mean(penalties)), cmc, len(firsts), excluded)
