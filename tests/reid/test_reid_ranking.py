"""Retrieval scores against tables worked by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from reid.ranking import descending, joined, rank, score_order


def test_a_ranking_worked_by_hand() -> None:
    # Query 1: right at ranks 1, 3: AP = (1/1 + 2/3) / 2; INP = 2/3. Query 2: right at rank 2: AP = INP = 1/2.
    similarities = np.array([[0.9, 0.8, 0.7, 0.1], [0.2, 0.9, 0.1, 0.8]], dtype=np.float32)
    scores = rank(similarities, np.array([1, 2]), np.array([1, 9, 1, 2]))
    assert scores.average_precisions == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    assert scores.inverse_penalties == pytest.approx([2 / 3, 1 / 2])
    assert scores.first_ranks.tolist() == [1, 2]
    assert scores.mean_ap == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert scores.mean_inp == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.cmc[:3].tolist() == [0.5, 1.0, 1.0]
    assert (scores.queries, scores.excluded) == (2, 0)


def test_a_query_without_a_match_counts_in_nothing() -> None:
    similarities = np.array([[0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    scores = rank(similarities, np.array([5, 1]), np.array([1, 2]))
    assert (scores.mean_ap, scores.queries, scores.excluded) == (1.0, 1, 1)
    assert scores.rows.tolist() == [1]


def test_no_valid_query_is_zero_and_not_an_error() -> None:
    scores = rank(np.zeros((1, 1), dtype=np.float32), np.array([1]), np.array([2]))
    assert (scores.mean_ap, scores.mean_inp, scores.cmc.max(), scores.excluded) == (0.0, 0.0, 0.0, 1)


def test_removed_pictures_are_no_part_of_the_gallery() -> None:
    similarities = np.array([[0.9, 0.8, 0.7]], dtype=np.float32)
    removed = np.array([[True, True, False]])
    assert rank(similarities, np.array([1]), np.array([1, 2, 1]), removed).mean_ap == 1.0
    assert descending(similarities, removed).tolist() == [[2, 0, 1]]


def test_removed_pictures_take_no_rank_wherever_a_list_has_them() -> None:
    # Left are gallery pictures 1, 3, 2 in this order: the match, 3, is at rank 2.
    scores = score_order(
        np.array([[0, 1, 3, 2]]), np.array([7]), np.array([7, 5, 6, 7]), np.array([[True, False, False, False]])
    )
    assert scores.first_ranks.tolist() == [2]
    assert scores.mean_ap == scores.mean_inp == 0.5


def test_a_perfect_and_the_worst_ranking() -> None:
    labels = np.arange(5)
    assert rank(np.eye(5, dtype=np.float32), labels, labels).mean_ap == 1.0
    worst = rank(1 - np.eye(5, dtype=np.float32), labels, labels)
    assert worst.mean_ap == pytest.approx(0.2)
    assert worst.cmc[3:5].tolist() == [0.0, 1.0]


def test_average_precision_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    similarities = rng.normal(size=(30, 40)).astype(np.float32)
    queries, gallery, removed = rng.integers(0, 8, 30), rng.integers(0, 8, 40), rng.random((30, 40)) < 0.2
    scores = rank(similarities, queries, gallery, removed)
    kept = ~removed
    expected = [
        metrics.average_precision_score(gallery[kept[row]] == queries[row], similarities[row, kept[row]])
        for row in scores.rows
    ]
    assert scores.average_precisions == pytest.approx(expected)


def test_equal_similarities_keep_the_order_of_the_gallery() -> None:
    assert descending(np.array([[0.5, 0.9, 0.5, 0.9]], dtype=np.float32)).tolist() == [[1, 3, 0, 2]]


def test_blocks_of_queries_join_to_the_whole() -> None:
    rng = np.random.default_rng(1)
    similarities = rng.normal(size=(10, 12)).astype(np.float32)
    queries, gallery = rng.integers(0, 6, 10), rng.integers(0, 5, 12)
    whole = rank(similarities, queries, gallery)
    numbers = np.arange(10)
    blocks = [numbers[:3], numbers[3:4], numbers[4:]]
    parts = joined([(block, rank(similarities[block], queries[block], gallery)) for block in blocks])
    assert parts.rows.tolist() == whole.rows.tolist()
    assert (parts.mean_ap, parts.mean_inp, parts.excluded) == (whole.mean_ap, whole.mean_inp, whole.excluded)


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        rank(np.zeros((2, 2), dtype=np.float32), np.array([1]), np.array([1, 2]))
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        score_order(np.zeros((2, 2), dtype=np.int64), np.array([1]), np.array([1, 2]))
