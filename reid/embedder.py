"""Crops in, unit vectors out. Loads torch only for a `.pt` file, OpenVINO only for an exported folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reid.backend import Backend, EmbedderError, EmbedderInfo
from reid.modality import Modality

__all__ = ["Embedder", "EmbedderError", "EmbedderInfo", "prepare_crop"]


def prepare_crop(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Stretch a crop to the network's size.

    Shrinking averages the pixels it joins (no aliasing), enlarging interpolates.

    Args:
        image: (h, w, 3) uint8 RGB, any size above zero.
        height: wanted height, pixels.
        width: wanted width, pixels.

    Returns:
        (height, width, 3) uint8 RGB, C-contiguous; the image itself if it has that size already.

    Raises:
        EmbedderError: not an (h, w, 3) uint8 image, or an empty one.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise EmbedderError(f"a crop must be (h, w, 3) uint8 with pixels, got {image.shape} {image.dtype}")
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method), np.uint8)


class Embedder:
    """Embeds crops of any size and modality; what runs it depends on the weights.

    Not for several threads at once. Blocks while it computes.

    Args:
        weights: a folder `*_openvino_model` of `reid.export`, or a `.pt` file of `reid.train`.
        device: `cpu` or `cuda` for a `.pt` file (default: cuda where there is one); OpenVINO's name
            of a device for a folder (default: CPU).
        max_batch: crops computed together at most.
        threads: CPU threads; the library's choice when None.

    Attributes:
        info: model id, dimension, crop size.

    Raises:
        EmbedderError: weights that are missing, broken or of the wrong kind, or no such device.
    """

    def __init__(
        self, weights: Path | str, *, device: str | None = None, max_batch: int = 32, threads: int | None = None
    ) -> None:
        if max_batch < 1:
            raise EmbedderError(f"max_batch must be at least 1, got {max_batch}")
        self._backend = _load(Path(weights), device, threads)
        self._max_batch = max_batch
        self.info = self._backend.info

    def embed(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        """Embed crops; the order of the batch and its other members change nothing.

        Args:
            crops: N images (h, w, 3) uint8 RGB of any size; `prepare_crop` is applied here.
            modalities: N bands.

        Returns:
            (N, D) float32 of unit norm; (0, D) for no crops.

        Raises:
            EmbedderError: as many crops as modalities were not given, or a crop is no RGB image.
        """
        if len(crops) != len(modalities):
            raise EmbedderError(f"{len(crops)} crops but {len(modalities)} modalities")
        vectors = np.empty((len(crops), self.info.dimension), dtype=np.float32)
        for start in range(0, len(crops), self._max_batch):
            chosen = slice(start, start + self._max_batch)
            vectors[chosen] = self._embed_batch(crops[chosen], modalities[chosen])
        return vectors

    def _embed_batch(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        members: dict[Modality, list[int]] = {}
        for index, modality in enumerate(modalities):
            members.setdefault(modality, []).append(index)
        size = (self.info.crop_height, self.info.crop_width)
        pixels = {m: np.stack([prepare_crop(crops[i], *size) for i in own]) for m, own in members.items()}
        vectors = np.empty((len(crops), self.info.dimension), dtype=np.float32)
        vectors[[i for own in members.values() for i in own]] = self._backend.embed(pixels)
        return vectors


def _load(weights: Path, device: str | None, threads: int | None) -> Backend:
    """Choose the backend by the kind of `weights`; imports its library only now."""
    if weights.is_dir():
        from reid.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(weights, device, threads)
    if not weights.exists():
        raise EmbedderError(f"{weights}: no such weights")
    if weights.suffix != ".pt":
        raise EmbedderError(f"{weights}: not a kind of weights we load (a .pt file or an *_openvino_model folder)")
    from reid.torch_backend import TorchBackend

    return TorchBackend(weights, device, threads)
