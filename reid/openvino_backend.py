"""Runs an exported network with OpenVINO. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid.backend import EmbedderError
from reid.exported_folder import TRUNK, ExportedBackend, stem_name
from reid.modality import Modality
from reid.quiet import openvino

#: A part that is ready: its input to its outputs, by number.
_Compiled = Callable[[NDArray[Any]], Any]


class OpenVinoBackend(ExportedBackend):
    """Stems and trunk, compiled.

    The trunk's file holds the way to the tokens too. What embeds is compiled without it, so that embeddings alone cost
    what they do without a matcher; what makes tokens is compiled when it is first asked for.

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
        super().__init__(folder)
        self._folder, self._device = folder, device or "CPU"
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        if precision is not None:
            self._options["INFERENCE_PRECISION_HINT"] = precision
        self._stems = {modality: self._compile(stem_name(modality)) for modality in Modality}
        self._trunk = self._compile(TRUNK, outputs=1)

    @cached_property
    def _describe(self) -> _Compiled:
        return self._compile(TRUNK)

    def _compile(self, name: str, outputs: int | None = None) -> _Compiled:
        """Compile a part for its first outputs, or for all."""
        try:
            core = openvino.Core()
            model = core.read_model(self._folder / f"{name}.xml")
            wanted = openvino.Model(model.outputs[:outputs], model.get_parameters(), name)
            compiled: _Compiled = core.compile_model(wanted, self._device, self._options)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise EmbedderError(f"{self._folder}: OpenVINO can't load it on {self._device}: {reason}") from error
        return compiled

    def run_stem(self, modality: Modality, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB -> (B, 64, H / 4, W / 4)."""
        maps: NDArray[np.float32] = self._stems[modality](pixels)[0]
        return maps

    def run_trunk(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings."""
        vectors: NDArray[np.float32] = self._trunk(maps)[0]
        return vectors

    def run_describe(self, maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings and (B, L, P, C) tokens."""
        outputs = self._describe(maps)
        return outputs[0], outputs[1]
