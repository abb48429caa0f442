"""Crops in, unit vectors and points to compare out.

Loads torch only for a `.pt` file, OpenVINO, ONNX Runtime or TensorRT only for a folder exported for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reid.backend import Backend, Descriptions, EmbedderError, EmbedderInfo, Pixels
from reid.exported_folder import Runtime, read_metadata
from reid.modality import Modality
from reid.point_scorer import check_tokens

__all__ = ["Descriptions", "Embedder", "EmbedderError", "EmbedderInfo", "prepare_crop"]


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
        weights: a folder of `reid.export`, or a `.pt` file of `reid.train`.
        device: `cpu` or `cuda` for a `.pt` file (default: cuda where there is one) or an ONNX folder
            (default: cpu); OpenVINO's name of a device for its folder (default: CPU).
        max_batch: crops computed together at most.
        threads: CPU threads; the library's choice when None.
        mirrored: average each vector with that of the mirrored crop: better by one to two points of mAP on rendered
            vehicles, at twice the time. Vectors with and without can be compared.

    Attributes:
        info: model id, dimension, crop size, shape of the tokens.

    Raises:
        EmbedderError: weights that are missing, broken or of the wrong kind, or no such device.
    """

    def __init__(
        self,
        weights: Path | str,
        *,
        device: str | None = None,
        max_batch: int = 32,
        threads: int | None = None,
        mirrored: bool = False,
    ) -> None:
        if max_batch < 1:
            raise EmbedderError(f"max_batch must be at least 1, got {max_batch}")
        self._backend = _load(Path(weights), device, threads)
        self._max_batch = max_batch
        self._mirrored = mirrored
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
        vectors = np.empty((len(crops), self.info.dimension), dtype=np.float32)
        for members, pixels in self._batches(crops, modalities):
            vectors[members] = self._with_mirrored(self._backend.embed(pixels), pixels)
        return vectors

    def describe(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> Descriptions:
        """Embed crops, and make the tokens that `score` compares; dearer than `embed`.

        Args:
            crops: N images (h, w, 3) uint8 RGB of any size; `prepare_crop` is applied here.
            modalities: N bands.

        Returns:
            (N, D) vectors as of `embed`, and (N, L, P, C) float32 tokens, L, P, C as in `info.points`;
            without a matcher no tokens.

        Raises:
            EmbedderError: as of `embed`.
        """
        vectors = np.empty((len(crops), self.info.dimension), dtype=np.float32)
        tokens = None if self.info.points is None else np.empty((len(crops), *self.info.points), dtype=np.float32)
        for members, pixels in self._batches(crops, modalities):
            made = self._backend.describe(pixels)
            vectors[members] = self._with_mirrored(made.vectors, pixels)
            if tokens is not None and made.tokens is not None:
                tokens[members] = made.tokens
        return Descriptions(vectors, tokens)

    def score(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compare pictures point by point, each query with each of the gallery.

        Args:
            queries: (Q, L, P, C) float tokens of `describe`.
            gallery: (G, L, P, C) float tokens.

        Returns:
            (Q, G) float32 logits, above 0 where the matcher says "the same vehicle"; `sigmoid(logits / 10)` is
            PORSCHE's reported score.

        Raises:
            EmbedderError: the weights have no matcher, or tokens are of another shape than `info.points`.
        """
        if self.info.points is None:
            raise EmbedderError(f"{self.info.model_id} has no matcher: it can't score")
        check_tokens(queries, gallery, self.info.points)
        return self._backend.score(queries, gallery)

    def _with_mirrored(self, vectors: NDArray[np.float32], pixels: Pixels) -> NDArray[np.float32]:
        if not self._mirrored:
            return vectors
        mirror = {modality: np.ascontiguousarray(batch[:, :, ::-1]) for modality, batch in pixels.items()}
        both = vectors + self._backend.embed(mirror)
        return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True), dtype=np.float32)

    def _batches(
        self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]
    ) -> Iterator[tuple[list[int], Pixels]]:
        """Batches for the backend, and which crops they hold, in the order it answers."""
        if len(crops) != len(modalities):
            raise EmbedderError(f"{len(crops)} crops but {len(modalities)} modalities")
        size = (self.info.crop_height, self.info.crop_width)
        for start in range(0, len(crops), self._max_batch):
            members: dict[Modality, list[int]] = {}
            for index in range(start, min(start + self._max_batch, len(crops))):
                members.setdefault(modalities[index], []).append(index)
            pixels = {m: np.stack([prepare_crop(crops[i], *size) for i in own]) for m, own in members.items()}
            yield [index for own in members.values() for index in own], pixels


def _load(weights: Path, device: str | None, threads: int | None) -> Backend:
    """Choose the backend by the kind of `weights`; imports its library only now."""
    if weights.is_dir():
        return _load_folder(weights, device, threads)
    if not weights.exists():
        raise EmbedderError(f"{weights}: no such weights")
    if weights.suffix != ".pt":
        raise EmbedderError(f"{weights}: not a kind of weights we load (a .pt file or a folder of reid.export)")
    from reid.torch_backend import TorchBackend

    return TorchBackend(weights, device, threads)


def _load_folder(folder: Path, device: str | None, threads: int | None) -> Backend:
    runtime, _ = read_metadata(folder)
    if runtime is Runtime.OPENVINO:
        from reid.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(folder, device, threads)
    if runtime is Runtime.ONNX:
        from reid.onnx_backend import OnnxBackend

        return OnnxBackend(folder, device, threads)
    from reid.tensorrt_backend import TensorRtBackend

    return TensorRtBackend(folder, device)
