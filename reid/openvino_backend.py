"""Runs an exported network with OpenVINO. Never imports torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.backend import EmbedderError, EmbedderInfo
from reid.modality import Modality
from reid.quiet import openvino

METADATA = "metadata.json"
FORMAT = "reid-openvino-1"
TRUNK = "trunk.xml"


def stem_file(modality: Modality) -> str:
    """Name of a modality's stem in an exported folder."""
    return f"stem_{modality.value}.xml"


class OpenVinoBackend:
    """One stem per modality and the shared trunk, so that a batch of several modalities runs the trunk once.

    Args:
        folder: what `reid.export` wrote.
        device: OpenVINO's name; CPU when None.
        threads: CPU threads; OpenVINO's choice when None.
        precision: `f32` to compute as exactly as torch; when None OpenVINO computes in bf16 where the
            processor has instructions for it, which is twice as fast.

    Raises:
        EmbedderError: not such a folder, broken, or no such device.
    """

    def __init__(
        self, folder: Path, device: str | None = None, threads: int | None = None, precision: str | None = None
    ) -> None:
        self.info = read_metadata(folder)
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            options["INFERENCE_PRECISION_HINT"] = precision
        try:
            core = openvino.Core()
            load = {name: core.read_model(folder / name) for name in (*map(stem_file, Modality), TRUNK)}
            compiled = {n: core.compile_model(model, device or "CPU", options) for n, model in load.items()}
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise EmbedderError(f"{folder}: OpenVINO can't load it on {device or 'CPU'}: {reason}") from error
        self._stems = {modality: compiled[stem_file(modality)] for modality in Modality}
        self._trunk = compiled[TRUNK]

    def embed(self, pixels: dict[Modality, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed per modality (B_m, H, W, 3) uint8 pictures: (sum of B_m, D), in the mapping's order."""
        parts = [self._stems[modality](batch)[0] for modality, batch in pixels.items()]
        maps = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.asarray(self._trunk(maps)[0], dtype=np.float32)


def read_metadata(folder: Path) -> EmbedderInfo:
    """Read an exported folder's `metadata.json`.

    Raises:
        EmbedderError: the folder is none of `reid.export`'s.
    """
    try:
        values = json.loads((folder / METADATA).read_text())
        if values.pop("format") != FORMAT:
            raise ValueError(f"wanted format {FORMAT}")
        return EmbedderInfo(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmbedderError(f"{folder}: not a folder that reid.export wrote ({METADATA}: {error})") from error
