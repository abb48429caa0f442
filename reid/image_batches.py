"""Pictures for a network, a batch of one modality at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid.datasets import Sample, load_pictures
from reid.modality import Modality
from reid.model import normalise

BATCH = 64
#: Indices of a batch's pictures, and its images as networks take them, all of one modality.
Images = tuple[list[int], dict[Modality, Tensor]]


def image_batches(
    modalities: Sequence[Modality],
    read: Callable[[list[int]], NDArray[np.uint8]],
    device: torch.device | str = "cpu",
    batch: int = BATCH,
) -> Iterator[Images]:
    """Normalise N pictures, modality by modality.

    Args:
        modalities: N bands.
        read: gets the indices of up to `batch` pictures; gives them, (B, H, W, 3) uint8 RGB of the network's size.
        device: where the images go.
        batch: pictures at a time.

    Yields:
        Indices, and of one modality (B, 3, H, W) float images. Every picture comes once.
    """
    for modality in Modality:
        own = [index for index, other in enumerate(modalities) if other is modality]
        for start in range(0, len(own), batch):
            chosen = own[start : start + batch]
            yield chosen, {modality: normalise(torch.from_numpy(read(chosen)).to(device))}


def sample_batches(
    samples: Sequence[Sample], size: tuple[int, int], device: torch.device | str = "cpu", batch: int = BATCH
) -> Iterator[Images]:
    """As `image_batches`, of files that are decoded as they are needed.

    Args:
        samples: N rows.
        size: height and width the network wants.
        device: where the images go.
        batch: pictures at a time.

    Raises:
        DatasetError: a picture that can't be read.
    """

    def read(chosen: list[int]) -> NDArray[np.uint8]:
        return load_pictures([samples[index] for index in chosen], *size)

    return image_batches([sample.modality for sample in samples], read, device, batch)
