"""What runs an embedder: the contract between `reid.embedder` and its backends."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid.errors import ReidError
from reid.modality import Modality

#: Per modality (B_m, H, W, 3) uint8 RGB pictures of the network's size.
Pixels = dict[Modality, NDArray[np.uint8]]


class EmbedderError(ReidError):
    """Weights that can't be loaded, or crops that can't be embedded."""


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """What an embedder makes.

    Attributes:
        model_id: name and a short hash of the weights: vectors of different ids can't be compared.
        dimension: length of an embedding.
        crop_height: height the network wants, pixels.
        crop_width: width the network wants, pixels.
        points: (L, P, C) of a picture's tokens: layers, points, channels; None without a matcher.
    """

    model_id: str
    dimension: int
    crop_height: int
    crop_width: int
    points: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        # JSON, which metadata and messages are, knows only lists; an info that has been through it stays equal.
        if self.points is not None:
            layers, points, channels = self.points
            object.__setattr__(self, "points", (layers, points, channels))


@dataclass(frozen=True, slots=True)
class Descriptions:
    """What an embedder says of N crops.

    Attributes:
        vectors: (N, D) float32 of unit norm, for a search among many.
        tokens: (N, L, P, C) float32 points for `Embedder.score`, for a short list; None without a matcher.
    """

    vectors: NDArray[np.float32]
    tokens: NDArray[np.float32] | None


class Backend(Protocol):
    """A network that is loaded and ready. Batches are answered in the order of the mapping that holds them."""

    info: EmbedderInfo

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Embed: (sum of B_m, D) of unit norm, at no cost for tokens."""
        ...

    def describe(self, pixels: Pixels) -> Descriptions:
        """Embed, and make the tokens where there is a matcher."""
        ...

    def score(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tokens (Q, L, P, C) against (G, L, P, C): (Q, G) logits. Only asked where `info.points` is set."""
        ...


def require(module: str, purpose: str) -> ModuleType:
    """Import a library that not every installation has.

    Raises:
        EmbedderError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EmbedderError(f"{purpose} needs {module}, which can't be imported: {error}") from error
