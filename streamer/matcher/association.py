"""Who is who, given what speaks for each pair: the tracklets of a window and the vehicles already known, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cluster(evidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Joins what belongs together, the surest pair first, as long as anything speaks for it.

    Correlation clustering by greedy additive edge contraction (Keuper et al., ICCV 2015): when two nodes are joined,
    what speaks for either of them and a third adds up, and what forbids one forbids both. Nobody is forced into a
    cluster: "somebody new" is what is left alone.

    Args:
        evidence: (N, N) symmetric log-odds that two nodes are one vehicle; minus infinity where a hard rule forbids it.
            The diagonal is not read.

    Returns:
        (N,) for each node the lowest node of its cluster. No cluster holds a forbidden pair.
    """
    weights = evidence.astype(np.float64)
    np.fill_diagonal(weights, -np.inf)
    labels = np.arange(len(weights))
    while len(weights):
        row, column = np.unravel_index(np.argmax(weights), weights.shape)
        if weights[row, column] <= 0:
            break
        kept, joined = min(row, column), max(row, column)
        weights[kept] += weights[joined]
        weights[:, kept] = weights[kept]
        weights[joined] = weights[:, joined] = -np.inf
        weights[kept, kept] = -np.inf
        labels[labels == joined] = kept
    return labels


def support(evidence: NDArray[np.float64], labels: NDArray[np.int64], node: int) -> tuple[float | None, float | None]:
    """How well a node sits where it is.

    Args:
        evidence: As given to `cluster`.
        labels: As it answered.
        node: The node.

    Returns:
        The summed evidence for the others of its cluster, None where it is alone; and by how much that (0 where it is
        alone) beats the better of being alone and the best other cluster that no hard rule forbids, None where it is
        alone and no cluster is possible.
    """
    totals: dict[int, float] = {}
    for label in np.unique(labels):
        others = np.flatnonzero(labels == label)
        totals[int(label)] = float(evidence[node, others[others != node]].sum())
    own = int(labels[node])
    score = totals.pop(own)
    rivals = [total for total in totals.values() if np.isfinite(total)]
    if np.count_nonzero(labels == own) == 1:
        return None, -max(rivals) if rivals else None
    return score, score - max([0.0, *rivals])
