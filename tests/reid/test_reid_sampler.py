"""The sampler's law over an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid.config import BatchConfig
from reid.modality import Modality
from reid.sampler import IdentitySampler


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
