"""Exported folders: what lies in them, and the steps that are the same whichever library runs them. No torch.

A folder holds `metadata.json`, one stem per modality, a trunk (stem's map to embedding), so that a batch of several
modalities runs the trunk once, and with a matcher `matcher.npz` and the part that makes the tokens.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reid.backend import Descriptions, EmbedderError, EmbedderInfo, Pixels
from reid.modality import Modality
from reid.point_scorer import PointScorer

METADATA = "metadata.json"
MATCHER = "matcher.npz"
TRUNK = "trunk"
#: Stem's map to embedding and tokens; where one file can't serve for both without paying for the tokens.
DESCRIBE = "describe"

#: The names of a part's inputs and outputs.
PIXELS, MAPS, EMBEDDING, TOKENS = "pixels", "maps", "embedding", "tokens"


class Runtime(StrEnum):
    """The library that runs an export."""

    OPENVINO = "openvino"
    ONNX = "onnx"
    TENSORRT = "tensorrt"

    @property
    def metadata_format(self) -> str:
        """What `metadata.json` calls it."""
        return f"reid-{self.value}-1"


def stem_name(modality: Modality) -> str:
    """A modality's stem, without the ending of its file."""
    return f"stem_{modality.value}"


def write_metadata(folder: Path, runtime: Runtime, info: EmbedderInfo) -> None:
    """Write what `read_metadata` reads."""
    (folder / METADATA).write_text(json.dumps({"format": runtime.metadata_format, **asdict(info)}, indent=2) + "\n")


def read_metadata(folder: Path) -> tuple[Runtime, EmbedderInfo]:
    """Read an exported folder's `metadata.json`.

    Raises:
        EmbedderError: the folder is none of `reid.export`'s.
    """
    try:
        values = json.loads((folder / METADATA).read_text())
        runtimes = {runtime.metadata_format: runtime for runtime in Runtime}
        form = values.pop("format")
        if form not in runtimes:
            raise ValueError(f"format {form!r} is none of {', '.join(runtimes)}")
        return runtimes[form], EmbedderInfo(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmbedderError(f"{folder}: not a folder that reid.export wrote ({METADATA}: {error})") from error


class ExportedBackend(ABC):
    """A folder of `reid.export`; each library says only how it runs a part.

    Args:
        folder: what `reid.export` wrote.

    Raises:
        EmbedderError: not such a folder, or a broken matcher.
    """

    def __init__(self, folder: Path) -> None:
        _, self.info = read_metadata(folder)
        self._scorer = PointScorer.load(folder / MATCHER) if self.info.points else None

    @abstractmethod
    def run_stem(self, modality: Modality, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB -> (B, 64, H / 4, W / 4)."""

    @abstractmethod
    def run_trunk(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings."""

    @abstractmethod
    def run_describe(self, maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings and (B, L, P, C) tokens; only with a matcher."""

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Embed: (sum of B_m, D) of unit norm, in the mapping's order."""
        return np.asarray(self.run_trunk(self._stem_maps(pixels)), dtype=np.float32)

    def describe(self, pixels: Pixels) -> Descriptions:
        """Embed, and make the tokens where there is a matcher, in the mapping's order."""
        if self._scorer is None:
            return Descriptions(self.embed(pixels), None)
        vectors, tokens = self.run_describe(self._stem_maps(pixels))
        return Descriptions(np.asarray(vectors, dtype=np.float32), np.asarray(tokens, dtype=np.float32))

    def score(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tokens (Q, L, P, C) against (G, L, P, C): (Q, G) logits."""
        if self._scorer is None:
            raise EmbedderError("an export without a matcher can't score")
        return self._scorer.score(queries, gallery)

    def _stem_maps(self, pixels: Pixels) -> NDArray[np.float32]:
        parts = [self.run_stem(modality, batch) for modality, batch in pixels.items()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
