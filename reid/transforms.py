"""Augmentations, on RGB uint8 pictures: what a stream does to a crop, and what keeps a network honest."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from reid.config import AugmentConfig
from reid.modality import Modality

Picture = NDArray[np.uint8]


def augment(picture: Picture, modality: Modality, chances: AugmentConfig, generator: np.random.Generator) -> Picture:
    """Change a training picture at random.

    Args:
        picture: (H, W, 3) uint8 RGB; left as it is.
        modality: channel augmentation is for visible pictures, contrast and noise for infrared ones.
        chances: how likely and how strong.
        generator: the only source of chance.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = jitter_box(picture, chances.box_jitter, chances.flip, generator)
    if generator.random() < chances.low_resolution:
        picture = lower_resolution(picture, chances.low_resolution_height, generator)
    elif generator.random() < chances.blur:
        picture = _uint8(cv2.GaussianBlur(picture, (0, 0), generator.uniform(0.5, 1.5)))
    if generator.random() < chances.photometric:
        picture = photometric(picture, modality, generator)
    if modality is Modality.VISIBLE and generator.random() < chances.channel:
        picture = exchange_channels(picture, generator)
    if generator.random() < chances.erasing:
        picture = erase(picture, generator)
    return np.ascontiguousarray(picture)


def jitter_box(picture: Picture, amount: float, flip: float, generator: np.random.Generator) -> Picture:
    """Move each side of the box by up to `amount` of its length, and mirror it with chance `flip`.

    A detector's boxes are off by as much; what lies outside the picture repeats its border.
    """
    height, width = picture.shape[:2]
    left, right = generator.uniform(-amount, amount, 2) * width
    top, bottom = generator.uniform(-amount, amount, 2) * height
    scale_x, scale_y = width / (width + right - left), height / (height + bottom - top)
    matrix = np.array([[scale_x, 0, -left * scale_x], [0, scale_y, -top * scale_y]], dtype=np.float32)
    if generator.random() < flip:
        matrix[0] = [-scale_x, 0, width - 1 + left * scale_x]
    return _uint8(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE))


def lower_resolution(picture: Picture, smallest: int, generator: np.random.Generator) -> Picture:
    """Shrink and enlarge: most crops of a stream come from boxes far smaller than the network's input.

    The height is log-uniform between `smallest` and the picture's, so every halving is equally likely.
    """
    height, width = picture.shape[:2]
    small = round(float(np.exp(generator.uniform(np.log(min(smallest, height)), np.log(height)))))
    # Real boxes are about 1.4 wide for 1 high; pictures are stretched to 2:1.
    size = (max(4, round(small * 1.4 * width / (2 * height))), max(4, small))
    shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return _uint8(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR))


def photometric(picture: Picture, modality: Modality, generator: np.random.Generator) -> Picture:
    """Change gain and gamma; for infrared, whose range depends on the sensor, also offset and noise."""
    levels = np.linspace(0.0, 1.0, 256, dtype=np.float32) ** np.float32(generator.uniform(0.7, 1.4))
    if modality is Modality.VISIBLE:
        table = np.clip(levels * generator.uniform(0.7, 1.3) * 255, 0, 255).astype(np.uint8)
        return _uint8(table[picture])
    low, high = generator.uniform(0.0, 0.25), generator.uniform(0.7, 1.25)
    table = np.clip((low + levels * (high - low)) * 255, 0, 255).astype(np.uint8)
    noise = generator.normal(0.0, generator.uniform(0.0, 8.0), (*picture.shape[:2], 1)).astype(np.float32)
    return _uint8(np.clip(table[picture] + noise, 0, 255))


def exchange_channels(picture: Picture, generator: np.random.Generator) -> Picture:
    """Copy one channel to all, or gray (channel augmentation, Ye et al., ICCV 2021)."""
    choice = int(generator.integers(4))
    gray = picture[:, :, choice] if choice < 3 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return _uint8(np.repeat(np.asarray(gray)[:, :, None], 3, axis=2))


def erase(picture: Picture, generator: np.random.Generator) -> Picture:
    """Fill a random rectangle, 2-25 % of the area, with one random gray (Zhong et al., AAAI 2020)."""
    height, width = picture.shape[:2]
    area, aspect = generator.uniform(0.02, 0.25), np.exp(generator.uniform(np.log(0.4), np.log(2.5)))
    tall = min(height, max(1, round(height * float(np.sqrt(area * aspect)))))
    wide = min(width, max(1, round(width * float(np.sqrt(area / aspect)))))
    top, left = int(generator.integers(height - tall + 1)), int(generator.integers(width - wide + 1))
    erased = picture.copy()
    erased[top : top + tall, left : left + wide] = generator.integers(256)
    return erased


def _uint8(picture: object) -> Picture:
    return np.asarray(picture, dtype=np.uint8)
