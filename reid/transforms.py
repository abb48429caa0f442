"""Augmentations of a batch, on its device: what a stream does to a crop, and what keeps a network honest.

Chance is drawn on the CPU with numpy, one set of numbers per picture, so that a seed means the same on every device
(the infrared noise alone is drawn where the pictures are).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reid.config import AugmentConfig
from reid.modality import Modality

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
RESOLUTION_LEVELS = 8
BLUR_RADIUS = 4  # pixels; 2.7 deviations of the widest blur

Draws = NDArray[np.float64]


def augment(
    pictures: Tensor, modality: Modality, chances: AugmentConfig, size: tuple[int, int], generator: np.random.Generator
) -> Tensor:
    """Change training pictures at random, each on its own.

    Args:
        pictures: (B, H, W, 3) uint8 RGB, on any device; left as they are.
        modality: channel augmentation is for visible pictures, contrast and noise for infrared ones.
        chances: how likely and how strong.
        size: height and width wanted.
        generator: the only source of chance.

    Returns:
        (B, 3, height, width) float in 0-255, on the same device.
    """
    batch = pictures.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
    count = len(batch)
    if chances.box_jitter or chances.flip or chances.crop_padding:
        batch = move_box(batch, chances, generator)
    lowered = generator.random(count) < chances.low_resolution
    batch = lower_resolution(batch, np.flatnonzero(lowered), chances.low_resolution_height, generator)
    batch = blur(batch, np.flatnonzero((generator.random(count) < chances.blur) & ~lowered), generator)
    batch = photometric(batch, modality, generator.random(count) < chances.photometric, generator)
    if modality is Modality.VISIBLE:
        batch = exchange_channels(batch, generator.random(count) < chances.channel, generator)
    batch = erase(batch, generator.random(count) < chances.erasing, generator)
    return resize(batch, size).clamp(0, 255)


def resize(batch: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) -> (B, 3, height, width), averaging the pixels it joins."""
    return batch if batch.shape[2:] == size else F.interpolate(batch, size, mode="area")


def move_box(batch: Tensor, chances: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """Move each side of the box, shift the whole, mirror it; what lies outside repeats the border.

    A detector's boxes are off by as much as `box_jitter`.
    """
    count, _, height, width = batch.shape
    sides = generator.uniform(-chances.box_jitter, chances.box_jitter, (4, count))  # left, right, top, bottom
    shifts = generator.uniform(-chances.crop_padding, chances.crop_padding, (2, count)) * 2
    mirror = np.where(generator.random(count) < chances.flip, -1.0, 1.0)
    # In grid_sample's coordinates, -1 to 1 over the picture: source = scale * target + offset.
    matrix = np.zeros((count, 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 2] = mirror * (1 + sides[1] - sides[0]), sides[0] + sides[1] + shifts[0] / width
    matrix[:, 1, 1], matrix[:, 1, 2] = 1 + sides[3] - sides[2], sides[2] + sides[3] + shifts[1] / height
    grid = F.affine_grid(_column(matrix, batch, 0), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def lower_resolution(batch: Tensor, chosen: NDArray[np.int64], smallest: int, generator: np.random.Generator) -> Tensor:
    """Shrink and enlarge: most crops of a stream come from boxes far smaller than the network's input.

    The height is one of a few steps between `smallest` and the picture's, evenly spread over its logarithm, so
    that every halving is equally likely and pictures of one step are resized together.
    """
    height, width = batch.shape[2:]
    heights = np.geomspace(min(smallest, height), height, RESOLUTION_LEVELS).round().astype(int)
    levels = generator.integers(0, RESOLUTION_LEVELS, len(chosen))
    for level, small in enumerate(heights.tolist()):
        members = torch.from_numpy(chosen[levels == level]).to(batch.device)
        if len(members) and small < height:
            # Real boxes are about 1.4 wide for 1 high, whatever shape the picture is stretched to.
            size = (small, min(width, max(4, round(1.4 * small))))
            shrunk = F.interpolate(batch[members], size, mode="area")
            batch[members] = F.interpolate(shrunk, (height, width), mode="bilinear", align_corners=False)
    return batch


def blur(batch: Tensor, chosen: NDArray[np.int64], generator: np.random.Generator) -> Tensor:
    """Gaussian blur of some pictures, deviation 0.5 to 1.5 pixels."""
    deviations = generator.uniform(0.5, 1.5, len(chosen))
    if not len(chosen):
        return batch
    distances = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernels = np.exp(-0.5 * (distances[None, :] / deviations[:, None]) ** 2)
    weights = _column(kernels / kernels.sum(axis=1, keepdims=True), batch, 0).repeat_interleave(3, dim=0)  # (3 n, K)
    members = torch.from_numpy(chosen).to(batch.device)
    planes = batch[members].flatten(0, 1)[None]  # (1, 3 n, H, W)
    groups = planes.shape[1]
    padded = F.pad(planes, (BLUR_RADIUS,) * 4, mode="replicate")
    rows = F.conv2d(padded, weights[:, None, :, None], groups=groups)
    batch[members] = F.conv2d(rows, weights[:, None, None, :], groups=groups)[0].reshape(
        len(chosen), 3, *batch.shape[2:]
    )
    return batch


def photometric(batch: Tensor, modality: Modality, chosen: NDArray[np.bool_], generator: np.random.Generator) -> Tensor:
    """Change gain and gamma; for infrared, whose range depends on the sensor, also offset and noise."""
    count = len(batch)
    gamma = np.where(chosen, generator.uniform(0.7, 1.4, count), 1.0)
    visible = modality is Modality.VISIBLE
    low = np.zeros(count) if visible else np.where(chosen, generator.uniform(0.0, 0.25, count), 0.0)
    high = np.where(chosen, generator.uniform(0.7, 1.3 if visible else 1.25, count), 1.0)
    scaled = (batch / 255).clamp(0, 1) ** _column(gamma, batch)
    changed = (_column(low, batch) + scaled * _column(high - low, batch)) * 255
    if not visible:
        strength = np.where(chosen, generator.uniform(0.0, 8.0, count), 0.0)
        source = torch.Generator(batch.device).manual_seed(int(generator.integers(2**62)))
        noise = torch.randn(count, 1, *batch.shape[2:], generator=source, device=batch.device)
        changed = changed + noise * _column(strength, batch)
    return changed.clamp(0, 255)


def exchange_channels(batch: Tensor, chosen: NDArray[np.bool_], generator: np.random.Generator) -> Tensor:
    """Copy one channel to all, or gray (channel augmentation, Ye et al., ICCV 2021)."""
    options = np.vstack([np.eye(3), LUMA])  # (4, 3)
    weights = options[generator.integers(0, 4, len(batch))]  # (B, 3)
    single = (batch * _column(weights, batch, 2)).sum(dim=1, keepdim=True).expand_as(batch)
    return torch.where(_column(chosen.astype(float), batch) > 0, single, batch)


def erase(batch: Tensor, chosen: NDArray[np.bool_], generator: np.random.Generator) -> Tensor:
    """Fill a random rectangle, 2-25 % of the area, with one random gray (Zhong et al., AAAI 2020)."""
    count, _, height, width = batch.shape
    area = generator.uniform(0.02, 0.25, count)
    aspect = np.exp(generator.uniform(np.log(0.4), np.log(2.5), count))
    tall, wide = np.minimum(1, np.sqrt(area * aspect)), np.minimum(1, np.sqrt(area / aspect))
    top, left = generator.random(count) * (1 - tall), generator.random(count) * (1 - wide)
    rows = _between(height, top, np.where(chosen, tall, 0.0), batch)[:, None, :, None]
    columns = _between(width, left, wide, batch)[:, None, None, :]
    gray = _column(generator.integers(0, 256, count).astype(float), batch)
    return torch.where(rows & columns, gray, batch)


def _between(length: int, start: Draws, extent: Draws, batch: Tensor) -> Tensor:
    """(B, length) bool: pixels whose centres lie in [start, start + extent), as parts of the side."""
    centres = (torch.arange(length, device=batch.device) + 0.5) / length
    first = _column(start, batch, 1)
    return (centres >= first) & (centres < first + _column(extent, batch, 1))


def _column(values: Draws, batch: Tensor, trailing: int = 3) -> Tensor:
    """Numbers per picture as a float tensor beside the batch, with `trailing` axes of length one after them."""
    made = torch.from_numpy(values.astype(np.float32)).to(batch.device)
    return made.reshape(*made.shape, *([1] * trailing))
