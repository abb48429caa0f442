from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.point_scorer import PointScorer
from reid.rankers import MIX, match_scores
from reid.tokens import pack, unpack
from streamer.matcher.rerank import PORSCHE_SMALL, LookPair, PointRescorer, mixed_similarity, points_say

LAYERS, POINTS, HIDDEN, CHANNELS = 2, 6, 5, 4
ALL = 1000


def scorer(seed: int = 0) -> PointScorer:
    generator = np.random.default_rng(seed)

    def some(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape).astype(np.float32)

    prior = np.abs(some(LAYERS, POINTS, POINTS))
    return PointScorer(
        prior + prior.transpose(0, 2, 1),
        some(LAYERS, HIDDEN, POINTS),
        np.abs(some(LAYERS, HIDDEN)),
        some(LAYERS, HIDDEN),
        some(LAYERS, HIDDEN),
        np.array(0.5, np.float32),
    )


class CountingScorer(PointScorer):
    """Says how many pairs were compared."""

    compared = 0

    def score(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
        type(self).compared += len(queries) * len(gallery)
        return super().score(queries, gallery)


@pytest.fixture
def counting() -> CountingScorer:
    made = scorer()
    CountingScorer.compared = 0
    return CountingScorer(made.priors, made.first, made.first_scale, made.first_bias, made.second, made.bias)


def picture(seed: int, points: int = POINTS, channels: int = CHANNELS) -> bytes:
    shape = (LAYERS, points, channels)
    return pack(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def logit_of(first: bytes, second: bytes) -> float:
    return float(scorer().score(unpack(first)[np.newaxis], unpack(second)[np.newaxis])[0, 0])


PAIRS: list[LookPair] = [
    (picture(0), picture(1), 0.2),
    (picture(0), picture(2), 0.8),
    (picture(3), picture(4), 0.5),
    (picture(0), picture(5), -0.4),
]


def test_each_pair_gets_the_mixture_of_its_own_points_and_cosine() -> None:
    wanted = [mixed_similarity(cosine, logit_of(first, second)) for first, second, cosine in PAIRS if first and second]

    assert PointRescorer(scorer(), ALL).similarities(PAIRS) == pytest.approx(wanted, abs=1e-5)
    assert PointRescorer(scorer(), ALL).similarities([]) == []


def test_who_asks_changes_nothing() -> None:
    turned: list[LookPair] = [(second, first, cosine) for first, second, cosine in PAIRS]

    rescorer = PointRescorer(scorer(), ALL)
    assert rescorer.similarities(turned) == pytest.approx(rescorer.similarities(PAIRS), abs=1e-5)


@pytest.mark.parametrize("budget", range(5))
def test_the_budget_goes_to_the_highest_cosines(budget: int, counting: CountingScorer) -> None:
    everything = PointRescorer(scorer(), ALL).similarities(PAIRS)
    found = PointRescorer(counting, budget).similarities(PAIRS)

    looked_at = [1, 2, 0, 3][:budget]
    for index, (_, _, cosine) in enumerate(PAIRS):
        assert found[index] == pytest.approx(everything[index] if index in looked_at else cosine, abs=1e-5)
    assert counting.compared == budget


def test_pairs_without_points_to_compare_keep_their_cosine_and_cost_no_budget() -> None:
    odd: list[LookPair] = [
        (None, picture(1), 0.99),
        (picture(1), None, 0.98),
        (picture(1), b"PT and then noise", 0.97),
        (picture(1), picture(2, points=POINTS + 1), 0.96),
        (picture(1), picture(2, channels=CHANNELS + 1), 0.95),
    ]
    found = PointRescorer(scorer(), 1).similarities([*odd, PAIRS[1]])

    assert found[:-1] == [cosine for _, _, cosine in odd]
    assert found[-1] != PAIRS[1][2]


@pytest.mark.parametrize("max_unpacked", [0, 1, 2, 100])
def test_what_is_forgotten_changes_nothing(max_unpacked: int) -> None:
    rescorer = PointRescorer(scorer(), ALL, max_unpacked=max_unpacked)
    wanted = PointRescorer(scorer(), ALL).similarities(PAIRS)

    assert [rescorer.similarities(PAIRS) for _ in range(3)] == [wanted] * 3


def test_a_picture_is_unpacked_once_while_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def unpack_and_note(data: bytes) -> NDArray[np.float32]:
        read.append(data)
        return unpack(data)

    monkeypatch.setattr("streamer.matcher.rerank.unpack", unpack_and_note)
    rescorer = PointRescorer(scorer(), ALL, max_unpacked=6)
    for _ in range(3):
        rescorer.similarities(PAIRS)
    assert len(read) == 6

    rescorer.similarities([(picture(0), picture(7), 0.0)])
    rescorer.similarities([(picture(0), picture(7), 0.0)])
    assert len(read) == 7


def test_the_mixture_orders_pairs_as_the_ranker_does() -> None:
    generator = np.random.default_rng(0)
    cosines = generator.uniform(-0.6, 0.9, 200).astype(np.float32)
    # Where tanh is straight; beyond it a sure matcher is not believed without bound.
    logits = generator.uniform(-3, 3, 200).astype(np.float32)

    ranked = np.argsort(match_scores(logits, cosines, MIX))
    mixed = [mixed_similarity(float(cosines[index]), float(logits[index])) for index in ranked]
    assert all(later > earlier - 1e-3 for earlier, later in pairwise(mixed))


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.4, 0.9])
def test_points_that_say_what_was_expected_leave_the_cosine_as_it_is(cosine: float) -> None:
    said = PORSCHE_SMALL.slope * cosine + PORSCHE_SMALL.intercept
    logit = 20 * float(np.arctanh(said))

    assert points_say(logit) == pytest.approx(said)
    assert mixed_similarity(cosine, logit) == pytest.approx(cosine)
    assert mixed_similarity(cosine, logit + 1) > cosine > mixed_similarity(cosine, logit - 1)


@pytest.mark.parametrize(("cosine", "logit"), [(1, 500), (-1, -500), (1, -500), (-1, 500)])
def test_no_similarity_leaves_its_range(cosine: float, logit: float) -> None:
    assert -1 <= mixed_similarity(cosine, logit) <= 1


@pytest.mark.parametrize(("budget", "max_unpacked"), [(-1, 1), (1, -1)])
def test_limits_below_zero_are_refused(budget: int, max_unpacked: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        PointRescorer(scorer(), budget, max_unpacked=max_unpacked)
