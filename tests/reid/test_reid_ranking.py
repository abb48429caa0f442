"""Retrieval scores against tables worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reid.ranking import rank


def test_a_ranking_worked_by_hand() -> None:
    # Query 1: right at ranks 1, 3: AP = (1/1 + 2/3) / 2; INP = 2/3. Query 2: right at rank 2: AP = INP = 1/2.
    similarities = np.array([[0.9, 0.8, 0.7, 0.1], [0.2, 0.9, 0.1, 0.8]], dtype=np.float32)
    scores = rank(similarities, np.array([1, 2]), np.array([1, 9, 1, 2]))
    assert scores.mean_ap == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert scores.mean_inp == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores.cmc[:3].tolist() == [0.5, 1.0, 1.0]
    assert (scores.queries, scores.excluded) == (2, 0)


def test_a_query_without_a_match_counts_in_nothing() -> None:
    similarities = np.array([[0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    scores = rank(similarities, np.array([1, 5]), np.array([1, 2]))
    assert (scores.mean_ap, scores.queries, scores.excluded) == (1.0, 1, 1)


def test_no_valid_query_is_zero_and_not_an_error() -> None:
    scores = rank(np.zeros((1, 1), dtype=np.float32), np.array([1]), np.array([2]))
    assert (scores.mean_ap, scores.mean_inp, scores.cmc.max(), scores.excluded) == (0.0, 0.0, 0.0, 1)


def test_removed_pictures_are_no_part_of_the_gallery() -> None:
    similarities = np.array([[0.9, 0.8, 0.7]], dtype=np.float32)
    removed = np.array([[True, True, False]])
    assert rank(similarities, np.array([1]), np.array([1, 2, 1]), removed).mean_ap == 1.0


def test_a_perfect_and_the_worst_ranking() -> None:
    labels = np.arange(5)
    assert rank(np.eye(5, dtype=np.float32), labels, labels).mean_ap == 1.0
    worst = rank(1 - np.eye(5, dtype=np.float32), labels, labels)
    assert worst.mean_ap == pytest.approx(0.2)
    assert worst.cmc[3:5].tolist() == [0.0, 1.0]


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\)"):
        rank(np.zeros((2, 2), dtype=np.float32), np.array([1]), np.array([1, 2]))
