"""What the three rankers share and where they must differ."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.rankers import EmbeddingRanker, PointRanker, ShortListRanker, match_scores, reorder

PICTURES, TOP = 40, 6
ROWS, COLUMNS = np.arange(10), np.arange(5, PICTURES)
ITSELF = ROWS[:, None] == COLUMNS[None, :]


def embedding() -> EmbeddingRanker:
    vectors = np.random.default_rng(0).normal(size=(PICTURES, 8))
    return EmbeddingRanker((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))


def compare(queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
    """A matcher that takes dot products."""
    return np.asarray(np.einsum("qlpc,glpc->qg", queries, gallery), dtype=np.float32)


def points(mix: float = 0.0) -> PointRanker:
    tokens = np.random.default_rng(1).normal(size=(PICTURES, 2, 3, 4)).astype(np.float32)
    return PointRanker(embedding(), tokens, compare, mix)


def test_the_embedding_ranks_by_cosine_and_removed_pairs_last() -> None:
    order = embedding().order(ROWS, COLUMNS, ITSELF)
    cosines = np.take_along_axis(embedding().cosines(ROWS, COLUMNS), order, axis=1)
    kept = ~np.take_along_axis(ITSELF, order, axis=1)
    assert all(np.all(np.diff(row[own]) <= 0) for row, own in zip(cosines, kept, strict=True))
    assert not kept[5:, -1].any()


@pytest.mark.parametrize("top", [1, TOP, len(COLUMNS) - 1])
def test_what_lies_behind_the_short_list_stays(top: int) -> None:
    before = embedding().order(ROWS, COLUMNS, ITSELF)
    after = ShortListRanker(points(), top).order(ROWS, COLUMNS, ITSELF)
    assert np.array_equal(after[:, top:], before[:, top:])
    assert np.array_equal(np.sort(after[:, :top]), np.sort(before[:, :top]))


def test_the_short_list_is_in_the_order_of_the_matcher() -> None:
    after = ShortListRanker(points(), TOP).order(ROWS, COLUMNS, ITSELF)
    scores = np.take_along_axis(points().scores(ROWS, COLUMNS), after[:, :TOP], axis=1)
    assert np.all(np.diff(scores) <= 0)
    assert not np.array_equal(after, embedding().order(ROWS, COLUMNS, ITSELF))


@pytest.mark.parametrize("top", [len(COLUMNS), 1000])
@pytest.mark.parametrize("mix", [0.0, 0.7])
def test_a_short_list_of_the_whole_gallery_is_pom(top: int, mix: float) -> None:
    nothing = np.zeros_like(ITSELF)
    expected = points(mix).order(ROWS, COLUMNS, nothing)
    assert np.array_equal(ShortListRanker(points(mix), top).order(ROWS, COLUMNS, nothing), expected)


def test_a_removed_pair_takes_no_place_in_the_short_list() -> None:
    order = ShortListRanker(points(), TOP).order(ROWS, COLUMNS, ITSELF)
    assert not np.take_along_axis(ITSELF, order[:, :TOP], axis=1).any()


def test_a_large_mix_leaves_the_order_of_the_embedding() -> None:
    assert np.array_equal(points(1e6).order(ROWS, COLUMNS, ITSELF), embedding().order(ROWS, COLUMNS, ITSELF))
    none = match_scores(np.array([20.0], np.float32), np.array([0.5], np.float32), 0.0)
    some = match_scores(np.array([20.0], np.float32), np.array([0.5], np.float32), 2.0)
    assert (none.tolist(), some.tolist()) == ([2.0], [3.0])


def test_sure_pairs_are_still_told_apart() -> None:
    # sigmoid(400 / 10) and sigmoid(500 / 10) are both 1 in float32.
    scores = match_scores(np.array([400.0, 500.0], np.float32), np.zeros(2, np.float32), 0.0)
    assert scores[1] > scores[0]


def test_equal_scores_keep_the_order_they_had() -> None:
    order = np.array([[3, 1, 2, 0]])
    assert reorder(order, np.array([[0.5, 0.9, 0.5]], np.float32)).tolist() == [[1, 3, 2, 0]]


def test_bytes_are_of_what_a_ranker_looks_at() -> None:
    vector, tokens = 8 * 4, 2 * 3 * 4 * 4
    assert embedding().picture_bytes == vector
    assert points().picture_bytes == tokens
    assert points(mix=1.0).picture_bytes == ShortListRanker(points()).picture_bytes == vector + tokens
