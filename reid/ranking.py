"""Retrieval scores over arrays: CMC, mAP and mINP. No files, no network, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_RANK = 20


@dataclass(frozen=True, slots=True)
class Scores:
    """What V valid queries, those with a match in their gallery, score; figures are 0-1.

    Attributes:
        rows: (V,) int64, which queries these are: indices into those that were ranked.
        average_precisions: (V,) float64.
        inverse_penalties: (V,) float64, matches divided by the rank of the last one.
        first_ranks: (V,) int64, rank of the first match, from 1.
        excluded: queries without a match; they count in nothing.
    """

    rows: NDArray[np.int64]
    average_precisions: NDArray[np.float64]
    inverse_penalties: NDArray[np.float64]
    first_ranks: NDArray[np.int64]
    excluded: int

    @property
    def queries(self) -> int:
        """Valid queries, V."""
        return len(self.rows)

    @property
    def mean_ap(self) -> float:
        """Mean average precision; 0 without a valid query."""
        return float(self.average_precisions.mean()) if self.queries else 0.0

    @property
    def mean_inp(self) -> float:
        """Mean inverse negative penalty; 0 without a valid query."""
        return float(self.inverse_penalties.mean()) if self.queries else 0.0

    @property
    def cmc(self) -> NDArray[np.float64]:
        """(20,) share of valid queries with a match at rank 1, 2, ...; the last repeats in a small gallery."""
        found: NDArray[np.bool_] = self.first_ranks[:, None] <= np.arange(1, MAX_RANK + 1)[None, :]
        return found.mean(axis=0) if self.queries else np.zeros(MAX_RANK)


def descending(similarities: NDArray[np.float32], removed: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Rank galleries by similarity.

    Args:
        similarities: (Q, G), higher is more alike. Equal ones rank in the gallery's order.
        removed: (Q, G), pairs to rank last.

    Returns:
        (Q, G) gallery indices, the best match first.
    """
    distances = -similarities if removed is None else np.where(removed, np.inf, -similarities)
    return np.argsort(distances, axis=1, kind="stable")


def score_order(
    order: NDArray[np.int64],
    queries: NDArray[np.int64],
    gallery: NDArray[np.int64],
    removed: NDArray[np.bool_] | None = None,
) -> Scores:
    """Score ranked lists.

    Average precision is the mean, over a query's matches, of the precision at each match's rank
    (no interpolation; scikit-learn's definition). Inverse negative penalty: Ye et al., TPAMI 2021, eq. 6.

    Args:
        order: (Q, G) gallery indices, the best match first.
        queries: (Q,) identities.
        gallery: (G,) identities.
        removed: (Q, G), pairs that are no part of a query's gallery, wherever they stand in its list.

    Returns:
        Scores of the queries with a match.

    Raises:
        ValueError: shapes disagree.
    """
    shape = (len(queries), len(gallery))
    if order.shape != shape or (removed is not None and removed.shape != shape):
        raise ValueError(f"expected lists and removed of shape {shape}, got {order.shape}")
    kept = np.ones(shape, np.bool_) if removed is None else ~np.take_along_axis(removed, order, axis=1)
    hits = kept & (gallery[order] == queries[:, None])  # (Q, G)
    rows = np.flatnonzero(hits.any(axis=1))
    hits = hits[rows]  # (V, G)
    ranks: NDArray[np.int64] = np.cumsum(kept[rows], axis=1)  # (V, G); a hit's is 1 or more
    found = np.cumsum(hits, axis=1)
    matches = hits.sum(axis=1)
    precisions = (found / np.maximum(ranks, 1) * hits).sum(axis=1) / matches
    firsts = np.take_along_axis(ranks, hits.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Scores(rows, precisions, matches / (ranks * hits).max(axis=1, initial=1), firsts, len(queries) - len(rows))


def rank(
    similarities: NDArray[np.float32],
    queries: NDArray[np.int64],
    gallery: NDArray[np.int64],
    removed: NDArray[np.bool_] | None = None,
) -> Scores:
    """Score the ranking that similarities (Q, G) make; see `descending` and `score_order`.

    Raises:
        ValueError: shapes disagree.
    """
    shape = (len(queries), len(gallery))
    if similarities.shape != shape or (removed is not None and removed.shape != shape):
        raise ValueError(f"expected similarities and removed of shape {shape}, got {similarities.shape}")
    return score_order(descending(similarities, removed), queries, gallery, removed)


def joined(parts: Sequence[tuple[NDArray[np.int64], Scores]]) -> Scores:
    """Join the scores of blocks of queries.

    Args:
        parts: at least one; per block the numbers that its rows, 0 to Q - 1, stand for, and its scores.

    Returns:
        Scores whose `rows` are those numbers.
    """
    return Scores(
        np.concatenate([numbers[scores.rows] for numbers, scores in parts]),
        np.concatenate([scores.average_precisions for _, scores in parts]),
        np.concatenate([scores.inverse_penalties for _, scores in parts]),
        np.concatenate([scores.first_ranks for _, scores in parts]),
        sum(scores.excluded for _, scores in parts),
    )
