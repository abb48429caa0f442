"""The sampler's law over an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid.config import BatchConfig
from reid.modality import Modality
from reid.sampler import IdentitySampler, PairSampler, most_groups


def samples(vehicles: int, views: int) -> tuple[NDArray[np.int64], list[Modality], list[str]]:
    rows = [(v, m, str(view)) for v in range(vehicles) for m in Modality for view in range(views)]
    return np.array([v for v, _, _ in rows]), [m for _, m, _ in rows], [view for _, _, view in rows]


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 20), st.integers(2, 4), st.integers(1, 3), st.lists(st.integers(1, 4), min_size=20, max_size=20))
def test_every_batch_has_p_identities_and_k_pictures_of_each_modality(
    vehicles: int, per_batch: int, count: int, repeats: list[int]
) -> None:
    identities, modalities, views = samples(vehicles, 3)
    config = BatchConfig(vehicles=per_batch, images_per_modality=count)
    sampler = IdentitySampler(identities, modalities, views, config, repeats=repeats[:vehicles])
    drawn: Counter[int] = Counter()
    for batch in sampler.epoch(0):
        for modality, indices in batch.items():
            assert all(modalities[i] is modality for i in indices)
            assert len(set(indices)) == len(indices)
            assert sorted(Counter(identities[indices].tolist()).values()) == [count] * per_batch
        drawn.update(set(identities[batch[Modality.VISIBLE]].tolist()))
    assert all(drawn[v] <= repeats[v] for v in range(vehicles))
    # What is left over is too few identities for another batch.
    assert sum(drawn[v] < repeats[v] for v in range(vehicles)) < per_batch


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=15), st.integers(2, 5))
def test_every_epoch_has_as_many_batches_as_promised(repeats: list[int], per_batch: int) -> None:
    config = BatchConfig(vehicles=per_batch, images_per_modality=1)
    sampler = IdentitySampler(*samples(len(repeats), 1), config, repeats=repeats)
    assert {len(list(sampler.epoch(number))) for number in range(12)} == {len(sampler)}


@pytest.mark.parametrize(
    ("draws", "groups"), [([1, 1, 1, 1], 2), ([1, 1, 1], 1), ([9, 1, 1], 2), ([2, 2, 2], 3), ([5], 0), ([1], 0)]
)
def test_the_most_groups_of_two_different_ones(draws: list[int], groups: int) -> None:
    assert most_groups(np.array(draws), 2) == groups


def test_identities_with_many_draws_are_spread_over_the_epoch() -> None:
    repeats = [4] * 6 + [1] * 24
    sampler = IdentitySampler(*samples(30, 1), BatchConfig(vehicles=8, images_per_modality=1), repeats=repeats)
    identities = samples(30, 1)[0]
    often = [
        sum(identities[i] < 6 for i in batch[Modality.VISIBLE])
        for number in range(20)
        for batch in sampler.epoch(number)
    ]
    assert 3 < np.mean(often) < 5
    assert max(often) <= 6
    assert min(often) >= 1


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    data = samples(8, 3)
    config = BatchConfig(vehicles=4)

    def batches(seed: int, epoch: int) -> list[dict[Modality, list[int]]]:
        return list(IdentitySampler(*data, config, seed=seed).epoch(epoch))

    assert batches(0, 0) == batches(0, 0)
    assert batches(0, 0) != batches(0, 1)
    assert batches(0, 0) != batches(1, 0)
    assert len(IdentitySampler(*data, config)) == 2


def test_same_view_pairing_takes_the_same_views_everywhere() -> None:
    identities, modalities, views = samples(4, 6)
    config = BatchConfig(vehicles=2, images_per_modality=2, pairing="same_view")
    for batch in IdentitySampler(identities, modalities, views, config).epoch(0):
        shown = [[(identities[i], views[i]) for i in indices] for indices in batch.values()]
        assert shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("views", [["", "", "", ""], ["a", "a", "a", "b"], ["", "a", "", "a"]])
def test_same_view_pairing_draws_every_picture_in_time(views: list[str]) -> None:
    identities = np.array([0] * 8 + [1])
    modalities = [Modality.VISIBLE] * 4 + [Modality.THERMAL] * 4 + [Modality.VISIBLE]
    config = BatchConfig(vehicles=2, images_per_modality=1, pairing="same_view")
    sampler = IdentitySampler(identities, modalities, [*views, *views, ""], config)
    drawn = {i for number in range(60) for batch in sampler.epoch(number) for own in batch.values() for i in own}
    assert drawn == set(range(9))


def test_a_modality_an_identity_lacks_is_absent() -> None:
    identities = np.array([0, 0, 1, 2])
    bands = [Modality.VISIBLE, Modality.THERMAL, Modality.VISIBLE, Modality.VISIBLE]
    (batch,) = IdentitySampler(identities, bands, [""] * 4, BatchConfig(vehicles=3)).epoch(0)
    assert {modality: len(indices) for modality, indices in batch.items()} == {
        Modality.VISIBLE: 3,
        Modality.THERMAL: 1,
    }


def pair_sampler(vehicles: int, views: int, pairing: str, **changes: int) -> PairSampler:
    config = BatchConfig.model_validate({"sampling": "pairs", "pairs": 4, "pairing": pairing, **changes})
    return PairSampler(*samples(vehicles, views), config)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(1, 3), st.sampled_from(["same_view", "any"]))
def test_an_epoch_of_pairs_holds_each_visible_picture_with_each_infrared_modality(
    vehicles: int, views: int, pairing: str
) -> None:
    sampler = pair_sampler(vehicles, views, pairing, pairs=2)
    identities, modalities, labels = samples(vehicles, views)
    shots = 0
    for batch in sampler.epoch(0):
        drawn = [i for indices in batch.values() for i in indices]
        assert len(drawn) == len(set(drawn))
        visible = batch[Modality.VISIBLE]
        infrared = [i for i in drawn if modalities[i] is not Modality.VISIBLE]
        assert {identities[i] for i in infrared} == {identities[i] for i in visible}
        if pairing == "same_view":
            shown = {(identities[i], labels[i]) for i in visible}
            assert all((identities[i], labels[i]) in shown for i in infrared)
        shots += 2
    # Two infrared modalities: twice the visible pictures, the last odd one left out.
    assert shots == vehicles * views * 2 // 2 * 2


def test_pictures_without_a_visible_or_an_infrared_partner_come_alone() -> None:
    identities = np.array([0, 0, 1, 2])
    modalities = [Modality.VISIBLE, Modality.THERMAL, Modality.VISIBLE, Modality.NEAR_INFRARED]
    config = BatchConfig(sampling="pairs", pairs=3)
    (batch,) = PairSampler(identities, modalities, ["", "", "", ""], config).epoch(0)
    assert {m: sorted(indices) for m, indices in batch.items()} == {
        Modality.VISIBLE: [0, 2],
        Modality.THERMAL: [1],
        Modality.NEAR_INFRARED: [3],
    }


def test_repeats_multiply_the_pairs_of_an_identity() -> None:
    identities, modalities, views = samples(2, 3)
    config = BatchConfig(sampling="pairs", pairs=2)
    sampler = PairSampler(identities, modalities, views, config, repeats=[1, 3])
    # 3 visible pictures with 2 infrared modalities: 6 pairs of the one, 18 of the other.
    assert len(sampler) == 12
    drawn = Counter(int(identities[i]) for batch in sampler.epoch(0) for i in batch[Modality.VISIBLE])
    assert drawn[1] > drawn[0]


def test_pairs_follow_the_seed_and_the_epoch() -> None:
    one, other = pair_sampler(5, 3, "any"), pair_sampler(5, 3, "any")
    assert list(one.epoch(3)) == list(other.epoch(3))
    assert list(one.epoch(3)) != list(one.epoch(4))
