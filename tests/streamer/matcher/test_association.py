import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.matcher.association import cluster, support

_NEVER = -np.inf


def _symmetric(rows: list[list[float]]) -> NDArray[np.float64]:
    lower: NDArray[np.float64] = np.tril(np.array(rows, float), -1)
    return lower + lower.T


def test_what_speaks_for_a_cluster_adds_up() -> None:
    # 2 likes 0 a little more than 1 does, but 1 and 0 agree on 3 together.
    evidence = _symmetric([[0, 0, 0], [5, 0, 0], [1, -2, 0]])

    assert cluster(evidence).tolist() == [0, 0, 2]


def test_the_surest_pair_goes_first_and_forbids_the_rest() -> None:
    evidence = _symmetric([[0, 0, 0], [_NEVER, 0, 0], [3, 4, 0]])

    assert cluster(evidence).tolist() == [0, 1, 1]


def test_nothing_that_speaks_for_it_nothing_joined() -> None:
    assert cluster(_symmetric([[0, 0], [-0.1, 0]])).tolist() == [0, 1]
    assert cluster(np.zeros((0, 0))).tolist() == []


def test_support_is_the_sum_within_and_the_distance_to_the_next_best() -> None:
    evidence = _symmetric([[0, 0, 0, 0], [_NEVER, 0, 0, 0], [4, 1, 0, 0], [3, -1, 2, 0]])
    labels = cluster(evidence)

    assert labels.tolist() == [0, 1, 0, 0]
    assert support(evidence, labels, 2) == (6.0, 5.0)
    assert support(evidence, labels, 3) == (5.0, 5.0)


def test_one_alone_has_no_score_but_a_distance_to_what_it_might_have_joined() -> None:
    evidence = _symmetric([[0, 0], [-1.5, 0]])

    assert support(evidence, cluster(evidence), 1) == (None, 1.5)
    assert support(np.full((1, 1), 0.0), np.array([0]), 0) == (None, None)


_SIZES = st.integers(1, 8)


@given(_SIZES, st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_no_cluster_holds_a_forbidden_pair(count: int, seed: int, forbidden: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 3, (count, count))
    rows[rng.random((count, count)) < forbidden] = _NEVER
    evidence = np.tril(rows, -1) + np.tril(rows, -1).T

    labels = cluster(evidence)

    for first in range(count):
        for second in range(first):
            assert labels[first] != labels[second] or evidence[first, second] > _NEVER


@given(_SIZES, st.integers(0, 2**32 - 1))
def test_the_order_of_nodes_does_not_matter(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.tril(rng.normal(0, 3, (count, count)), -1)
    evidence = rows + rows.T
    order = rng.permutation(count)

    straight, shuffled = cluster(evidence), cluster(evidence[np.ix_(order, order)])

    together = straight[:, None] == straight[None, :]
    assert np.array_equal(together[np.ix_(order, order)], shuffled[:, None] == shuffled[None, :])
    assert support(evidence, straight, int(order[0]))[0] == pytest.approx(
        support(evidence[np.ix_(order, order)], shuffled, 0)[0]
    )
