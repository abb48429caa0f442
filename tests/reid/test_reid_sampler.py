"""The sampler's law over an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid.config import BatchConfig
from reid.modality import Modality
from reid.sampler import IdentitySampler, PairSampler


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


def test_pairs_follow_the_seed_and_the_epoch() -> None:
    one, other = pair_sampler(5, 3, "any"), pair_sampler(5, 3, "any")
    assert list(one.epoch(3)) == list(other.epoch(3))
    assert list(one.epoch(3)) != list(one.epoch(4))
