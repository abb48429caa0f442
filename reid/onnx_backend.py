"""Runs an exported network with ONNX Runtime. Never imports torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reid.backend import EmbedderError, require
from reid.exported_folder import DESCRIBE, MAPS, PIXELS, TRUNK, ExportedBackend, stem_name
from reid.modality import Modality

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class _Session(Protocol):
    """A part that is ready."""

    def run(self, outputs: None, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Inputs by name to all outputs."""
        ...


class OnnxBackend(ExportedBackend):
    """Stems, trunk, and what makes tokens: a second trunk, loaded when first asked for.

    ONNX Runtime computes all of a file's outputs, asked for or not, so embeddings have a file of their own.

    Args:
        folder: what `reid.export` wrote.
        device: `cpu` or `cuda`; cpu when None.
        threads: CPU threads; ONNX Runtime's choice when None.

    Raises:
        EmbedderError: not such a folder, broken, no such device, or no ONNX Runtime.
    """

    def __init__(self, folder: Path, device: str | None = None, threads: int | None = None) -> None:
        super().__init__(folder)
        self._runtime = require("onnxruntime", f"{folder}: an ONNX export")
        self._folder, self._threads = folder, threads
        self._provider = PROVIDERS.get(device or "cpu", device)
        if self._provider not in self._runtime.get_available_providers():
            raise EmbedderError(f"{folder}: ONNX Runtime here can't compute on {device!r}")
        self._stems = {modality: self._load(stem_name(modality)) for modality in Modality}
        self._trunk = self._load(TRUNK)

    @cached_property
    def _describe(self) -> _Session:
        return self._load(DESCRIBE)

    def _load(self, name: str) -> _Session:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads or 0
        options.log_severity_level = 3  # errors alone: they are raised, too
        path = self._folder / f"{name}.onnx"
        try:
            session: _Session = self._runtime.InferenceSession(path, options, providers=[self._provider])
        except Exception as error:  # its exceptions share no other base
            raise EmbedderError(f"{path}: ONNX Runtime can't load it: {str(error).splitlines()[0]}") from error
        return session

    def run_stem(self, modality: Modality, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB -> (B, 64, H / 4, W / 4)."""
        return self._stems[modality].run(None, {PIXELS: pixels})[0]

    def run_trunk(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings."""
        return self._trunk.run(None, {MAPS: maps})[0]

    def run_describe(self, maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings and (B, L, P, C) tokens."""
        vectors, tokens = self._describe.run(None, {MAPS: maps})
        return vectors, tokens
