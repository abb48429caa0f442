"""What augmentations promise: each key does its own thing, to each picture on its own, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid.config import AugmentConfig
from reid.modality import Modality
from reid.transforms import augment, erase, exchange_channels, lower_resolution, move_box
from tests.reid.reid_builders import picture

NOTHING = AugmentConfig(
    flip=0, box_jitter=0, low_resolution=0, erasing=0, channel=0, photometric=0, blur=0, low_resolution_height=4
)
SIZE = (64, 128)


def pictures(count: int = 3) -> Tensor:
    return torch.from_numpy(np.stack([picture(seed, *SIZE) for seed in range(count)]))


def planes(batch: Tensor) -> Tensor:
    return batch.permute(0, 3, 1, 2).float()


def changed(chances: AugmentConfig, modality: Modality, seed: int = 0, source: Tensor | None = None) -> Tensor:
    batch = pictures() if source is None else source
    return augment(batch, modality, chances, SIZE, np.random.default_rng(seed))


@pytest.mark.parametrize("modality", list(Modality))
def test_augmenting_keeps_its_source_and_follows_its_generator(modality: Modality) -> None:
    source = pictures()
    kept = source.clone()
    for seed in range(5):
        first = changed(AugmentConfig(), modality, seed, source)
        assert first.shape == (3, 3, *SIZE)
        assert first.min() >= 0
        assert first.max() <= 255
        assert torch.equal(first, changed(AugmentConfig(), modality, seed, source))
    assert torch.equal(source, kept)
    assert not torch.equal(changed(AugmentConfig(), modality, 1), changed(AugmentConfig(), modality, 2))


def test_no_chance_no_change() -> None:
    assert torch.equal(changed(NOTHING, Modality.THERMAL), planes(pictures()))


def test_flipping_alone_mirrors() -> None:
    mirrored = move_box(planes(pictures()), NOTHING.model_copy(update={"flip": 1.0}), np.random.default_rng(0))
    torch.testing.assert_close(mirrored, planes(pictures()).flip(3), atol=0.1, rtol=0)


def test_padding_and_cropping_shifts_by_as_many_pixels_at_most() -> None:
    ramp = torch.arange(128.0).expand(40, 3, 64, 128)
    moved = move_box(ramp, NOTHING.model_copy(update={"crop_padding": 10}), np.random.default_rng(0))
    shifts = (moved - ramp)[:, 0, 32, 64]
    assert 8 < shifts.abs().max() <= 10
    assert shifts.std() > 3


def test_a_lower_resolution_loses_detail_of_the_chosen_only() -> None:
    noise = torch.rand(4, 3, *SIZE) * 255
    lowered = lower_resolution(noise.clone(), np.array([0, 2]), 8, np.random.default_rng(0))
    assert torch.equal(lowered[[1, 3]], noise[[1, 3]])
    assert lowered[0].std() < 0.8 * noise[0].std()


@pytest.mark.parametrize("shape", [(64, 64), (64, 128)])
def test_a_lower_resolution_is_that_of_a_box_1_4_times_as_wide_as_high(shape: tuple[int, int]) -> None:
    """Whatever the input's shape, a box 20 high was 28 wide."""
    noise = torch.rand(1, 3, *shape)
    boxed = functional.interpolate(functional.interpolate(noise, (20, 28), mode="area"), shape, mode="bilinear")
    lowered = lower_resolution(noise.repeat(60, 1, 1, 1), np.arange(60), 20, np.random.default_rng(0))
    assert any(torch.allclose(one, boxed[0]) for one in lowered)


def test_channel_exchange_makes_gray_of_the_chosen_only() -> None:
    source = planes(pictures(8))
    chosen = np.arange(8) % 2 == 0
    gray = exchange_channels(source, chosen, np.random.default_rng(0))
    assert torch.equal(gray[1::2], source[1::2])
    assert (gray[::2].amax(dim=1) - gray[::2].amin(dim=1)).max() == 0


def test_erasing_fills_a_rectangle_of_2_to_25_percent() -> None:
    source = torch.full((50, 3, *SIZE), -1.0)
    erased = erase(source, np.ones(50, dtype=np.bool_), np.random.default_rng(0)) != -1.0
    shares = erased[:, 0].float().mean(dim=(1, 2))
    assert shares.min() > 0.01
    assert shares.max() < 0.27
    for mask in erased[:, 0]:
        assert torch.equal(mask, mask.any(dim=1)[:, None] & mask.any(dim=0)[None, :])


@pytest.mark.parametrize(
    "key", ["flip", "low_resolution", "erasing", "channel", "photometric", "blur", "box_jitter", "crop_padding"]
)
def test_every_augmentation_key_changes_pictures(key: str) -> None:
    source = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8))
    value = {"box_jitter": 0.5, "crop_padding": 10}.get(key, 1.0)
    alone = NOTHING.model_copy(update={key: value})
    assert not torch.equal(changed(alone, Modality.VISIBLE, source=source), planes(source))


def test_infrared_keeps_its_channels_alike_and_visible_alone_loses_its_colours() -> None:
    gray = pictures()[..., :1].repeat(1, 1, 1, 3)
    strong = NOTHING.model_copy(update={"photometric": 1.0, "channel": 1.0, "blur": 1.0})
    infrared = changed(strong, Modality.NEAR_INFRARED, source=gray)
    assert (infrared.amax(dim=1) - infrared.amin(dim=1)).max() < 1e-3
    assert torch.equal(changed(NOTHING.model_copy(update={"channel": 1.0}), Modality.THERMAL), planes(pictures()))


def test_pictures_come_in_the_size_that_is_asked_for() -> None:
    half = augment(pictures(), Modality.VISIBLE, NOTHING, (32, 64), np.random.default_rng(0))
    assert half.shape == (3, 3, 32, 64)
    torch.testing.assert_close(half.mean(), planes(pictures()).mean(), rtol=1e-3, atol=0)
