import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamer.matcher.association import assign

_SCORES = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(0, 5)),
    elements=st.one_of(st.floats(-20, 20), st.just(-np.inf)),
)


def test_the_best_total_wins_over_the_best_single_score() -> None:
    # Greedy would give column 0 to row 0 (5.0) and leave row 1 with -3.
    scores = np.array([[5.0, 4.5], [4.8, -3.0]])

    choices = assign(scores, min_score=0.0, min_margin=-10.0)

    assert [choice.candidate for choice in choices] == [1, 0]


def test_somebody_new_has_a_price() -> None:
    scores = np.array([[0.4]])

    assert assign(scores, min_score=0.5, min_margin=0.0)[0].candidate is None
    assert assign(scores, min_score=0.3, min_margin=0.0)[0].candidate == 0


def test_a_choice_that_is_hardly_better_stays_split() -> None:
    scores = np.array([[3.0, 2.9]])

    choice = assign(scores, min_score=0.0, min_margin=0.5)[0]

    assert choice.candidate is None
    assert choice.score == 3.0
    assert choice.margin == pytest.approx(0.1)


def test_nobody_known_leaves_nothing_to_compare() -> None:
    choices = assign(np.zeros((2, 0)), min_score=0.0, min_margin=0.0)

    assert [(choice.candidate, choice.score, choice.margin) for choice in choices] == [(None, None, None)] * 2


@given(_SCORES, st.floats(-5, 5))
def test_no_candidate_twice_none_forbidden_none_below_its_price(scores: np.ndarray, min_score: float) -> None:
    choices = assign(scores, min_score=min_score, min_margin=0.0)

    chosen = [choice.candidate for choice in choices if choice.candidate is not None]
    assert len(chosen) == len(set(chosen))
    for row, choice in zip(scores, choices, strict=True):
        if choice.candidate is not None:
            assert row[choice.candidate] >= min_score


@given(_SCORES, st.integers(0, 2**32 - 1))
def test_the_order_of_tracklets_does_not_change_the_total(scores: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(scores))

    def total(rows: np.ndarray) -> float:
        choices = assign(rows, min_score=0.0, min_margin=-100.0)
        return sum(choice.score or 0.0 for choice in choices if choice.candidate is not None)

    assert total(scores) == pytest.approx(total(scores[order]))
