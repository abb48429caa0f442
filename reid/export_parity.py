"""How far an export is from torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reid.backend import Backend, Pixels
from reid.exported_folder import Runtime
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.openvino_backend import OpenVinoBackend


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an export is from torch at most, both in float32.

    Attributes:
        vectors: of an embedding's element.
        tokens: of a token's, as a part of the largest; 0 without a matcher.
        scores: of a score, as a part of the largest; 0 without a matcher.
    """

    vectors: float
    tokens: float = 0.0
    scores: float = 0.0

    @property
    def largest(self) -> float:
        """The worst of them; not a number if one is none."""
        return float(np.max([self.vectors, self.tokens, self.scores]))

    def __str__(self) -> str:
        return f"embeddings by {self.vectors:.1e}, tokens by {self.tokens:.1e}, scores by {self.scores:.1e}"


def parity(network: Porsche, folder: Path, runtime: Runtime = Runtime.OPENVINO) -> Parity:
    """Compare an export with its network on noise of every modality, both computing in float32.

    Args:
        network: in evaluation mode, on the CPU.
        folder: what was made of it.
        runtime: the library that runs the folder.
    """
    backend = _exact_backend(folder, runtime)
    pixels = _noise(network)
    with torch.no_grad():
        expected = network.describe({m: normalise(torch.from_numpy(batch)) for m, batch in pixels.items()})
    actual = backend.describe(pixels)
    wanted = expected.embedding.numpy()
    vectors = max(_difference(actual.vectors, wanted), _difference(backend.embed(pixels), wanted))
    if actual.tokens is None or expected.tokens is None or network.matcher is None:
        return Parity(vectors)
    with torch.no_grad():
        scores = network.matcher.score(expected.tokens, expected.tokens).numpy()
    tokens = expected.tokens.numpy()
    return Parity(vectors, _share(actual.tokens, tokens), _share(backend.score(tokens, tokens), scores))


def _difference(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(actual - expected).max())


def _share(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference as a part of the largest magnitude."""
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return _difference(actual, expected) / largest


def _noise(network: Porsche) -> Pixels:
    generator = np.random.default_rng(0)
    size = (3, network.config.height, network.config.width, 3)
    return {modality: generator.integers(0, 256, size, dtype=np.uint8) for modality in Modality}


def _exact_backend(folder: Path, runtime: Runtime) -> Backend:
    if runtime is Runtime.OPENVINO:
        return OpenVinoBackend(folder, precision="f32")
    if runtime is Runtime.ONNX:
        from reid.onnx_backend import OnnxBackend

        return OnnxBackend(folder)
    from reid.tensorrt_backend import TensorRtBackend

    return TensorRtBackend(folder)
