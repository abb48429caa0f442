"""What runs an embedder: the contract between `reid.embedder` and its backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid.errors import ReidError
from reid.modality import Modality


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
    """

    model_id: str
    dimension: int
    crop_height: int
    crop_width: int


class Backend(Protocol):
    """A network that is loaded and ready."""

    info: EmbedderInfo

    def embed(self, pixels: dict[Modality, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed per modality (B_m, H, W, 3) pictures: (sum of B_m, D) unit norm, in the mapping's order."""
        ...
