"""Laws of the losses."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from reid.losses import consistency_loss, weighted_triplet_loss


def test_triplet_of_one_positive_and_one_negative_is_the_soft_margin() -> None:
    features = torch.tensor([[0.0], [1.0], [3.0]])
    # Anchors 0 and 1 have each other at 1 and the negative at 3 and 2; the third has no positive.
    expected = (math.log1p(math.exp(1 - 3)) + math.log1p(math.exp(1 - 2))) / 2
    assert weighted_triplet_loss(features, torch.tensor([7, 7, 9])).item() == pytest.approx(expected)


def test_triplet_prefers_tight_and_distant_identities() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    good = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    bad = torch.tensor([[0.0], [9.0], [0.1], [9.1]])
    assert weighted_triplet_loss(good, labels) < weighted_triplet_loss(bad, labels)


@pytest.mark.parametrize("labels", [[1, 1], [1, 2], [1]])
def test_triplet_without_triplets_is_zero_with_a_gradient(labels: list[int]) -> None:
    features = torch.randn(len(labels), 4, requires_grad=True)
    loss = weighted_triplet_loss(features, torch.tensor(labels))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_triplet_gradient_is_finite_for_identical_features() -> None:
    features = torch.zeros(4, 3, requires_grad=True)
    weighted_triplet_loss(features, torch.tensor([0, 0, 1, 1])).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("form", ["patch", "pooled"])
def test_consistency_ignores_gain_and_offset(form: Literal["patch", "pooled"]) -> None:
    maps = torch.rand(2, 6, 8, 16)
    assert consistency_loss(maps, maps * 3 + 1, 2, form).item() == pytest.approx(0.0, abs=1e-9)
    assert consistency_loss(maps, torch.rand(2, 6, 8, 16), 2, form).item() > 0.0


def test_the_released_form_pools_windows_of_3_every_7_and_keeps_the_largest() -> None:
    """Of 8 x 16 positions two windows: rows 0-2, columns 0-2 and 7-9."""
    maps = torch.zeros(1, 3, 8, 16)
    maps[0, 0, 0, 7:10] = 6.0  # 6 * 3 / 9 = 2 in the second window: the largest channel
    maps[0, 1, 2, 2] = 9.0  # 9 / 9 = 1 in the first
    maps[0, 1, 1, 8] = 4.5  # 0.5 in the second, which is less
    unseen = maps.clone()
    unseen[:, :, 3:], unseen[:, :, :, 3:7], unseen[:, :, :, 10:] = 99.0, 99.0, 99.0
    other = torch.zeros(1, 3, 8, 16)
    other[0, 0, 0, 0] = 9.0
    assert consistency_loss(maps, unseen, 1, "pooled").item() == 0.0
    # Scaled to 0-1 over channels (1, 0.5, 0) and (1, 0, 0): a squared difference of 0.25 in one of three.
    assert consistency_loss(maps, other, 1, "pooled").item() == pytest.approx(0.25 / 3)


def test_the_released_form_averages_what_a_map_smaller_than_its_window_has() -> None:
    one, other = torch.tensor([4.0, 1.0, 0.0]).reshape(1, 3, 1, 1), torch.tensor([4.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
    # Over channels 1, 0.25, 0 against 1, 0, 0.
    assert consistency_loss(one, other, 1, "pooled").item() == pytest.approx(0.25**2 / 3)
    assert consistency_loss(one.expand(1, 3, 2, 2), one, 1, "pooled").item() == 0.0


def test_patch_consistency_sees_swapped_halves_where_their_average_does_not() -> None:
    maps = torch.rand(1, 6, 8, 16)
    swapped = maps.roll(8, dims=3)
    assert consistency_loss(maps, swapped, 2).item() > 0.0
    assert consistency_loss(maps, swapped, 1).item() == pytest.approx(0.0, abs=1e-9)
