"""Who is who, given what speaks for each pair: the tracklets of a window and the vehicles already known, together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

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
    for nodes in _connected(weights):
        labels[nodes] = nodes[_contracted(weights[np.ix_(nodes, nodes)])]
    return labels


def _connected(weights: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """The groups of two nodes or more that anything at all speaks for: clusters never reach beyond them."""
    rows, columns = np.nonzero(weights > 0)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=weights.shape)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _contracted(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    labels = np.arange(len(weights))
    while True:
        row, column = np.unravel_index(np.argmax(weights), weights.shape)
        if weights[row, column] <= 0:
            return labels
        kept, joined = min(row, column), max(row, column)
        weights[kept] += weights[joined]
        weights[:, kept] = weights[kept]
        weights[joined] = weights[:, joined] = -np.inf
        weights[kept, kept] = -np.inf
        labels[labels == joined] = kept


def totals(evidence: NDArray[np.float64], labels: NDArray[np.int64], node: int) -> dict[int, float]:
    """The summed evidence for a node and each cluster that it has anything to do with, itself left out.

    Args:
        evidence: As given to `cluster`.
        labels: As it answered.
        node: The node.

    Returns:
        By the cluster's lowest node; minus infinity where a hard rule forbids it. A node that is alone is missing.
    """
    others = np.flatnonzero(np.arange(len(labels)) != node)
    clusters, index = np.unique(labels[others], return_inverse=True)
    forbidden = np.isneginf(evidence[node, others])
    summed = np.bincount(index, np.where(forbidden, 0.0, evidence[node, others]), len(clusters)).astype(np.float64)
    summed[np.unique(index[forbidden])] = -np.inf
    return {int(label): float(total) for label, total in zip(clusters, summed, strict=True)}


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
    found = totals(evidence, labels, node)
    is_alone = np.count_nonzero(labels == labels[node]) == 1
    score = None if is_alone else found.pop(int(labels[node]))
    rivals = [total for total in found.values() if np.isfinite(total)]
    if score is None:
        return None, -max(rivals) if rivals else None
    return score, score - max([0.0, *rivals])
