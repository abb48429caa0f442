"""Runs an exported network with TensorRT; torch holds the memory on the GPU.

No test runs this: it needs TensorRT 10 and the kind of GPU that the engines were built on.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reid.backend import EmbedderError, require
from reid.exported_folder import DESCRIBE, EMBEDDING, MAPS, PIXELS, TOKENS, TRUNK, ExportedBackend, stem_name
from reid.modality import Modality


class _Engine:
    """One part, ready; float32 outputs."""

    def __init__(self, path: Path, device: torch.device) -> None:
        tensorrt = require("tensorrt", f"{path}: a TensorRT export")
        try:
            plan = path.read_bytes()
        except OSError as error:
            raise EmbedderError(f"{path}: {error.strerror}") from error
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EmbedderError(f"{path}: TensorRT can't load it: built on another kind of GPU or another version?")
        self._context = self._engine.create_execution_context()
        self._path, self._device = path, device

    def run(self, name: str, values: NDArray[Any], outputs: tuple[str, ...]) -> list[NDArray[np.float32]]:
        """One input by name to the named outputs."""
        given = torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
        if not self._context.set_input_shape(name, tuple(given.shape)):
            raise EmbedderError(f"{self._path}: no engine for an input of {tuple(given.shape)}: too large a batch?")
        made = [torch.empty(tuple(self._context.get_tensor_shape(o)), device=self._device) for o in outputs]
        for key, tensor in zip((name, *outputs), (given, *made), strict=True):
            self._context.set_tensor_address(key, tensor.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise EmbedderError(f"{self._path}: TensorRT failed")
        return [tensor.cpu().numpy() for tensor in made]  # waits for the stream


class TensorRtBackend(ExportedBackend):
    """Stems, trunk, and the second trunk that makes tokens, loaded when first asked for.

    Args:
        folder: what `reid.export` wrote.
        device: `cuda`, `cuda:1`, ...; cuda when None.

    Raises:
        EmbedderError: not such a folder, broken, no TensorRT, or no GPU.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        super().__init__(folder)
        if not torch.cuda.is_available():
            raise EmbedderError(f"{folder}: a TensorRT export needs an NVIDIA GPU, and torch sees none")
        self._folder, self._device = folder, torch.device(device or "cuda")
        self._stems = {modality: self._load(stem_name(modality)) for modality in Modality}
        self._trunk = self._load(TRUNK)

    @cached_property
    def _describe(self) -> _Engine:
        return self._load(DESCRIBE)

    def _load(self, name: str) -> _Engine:
        return _Engine(self._folder / f"{name}.engine", self._device)

    def run_stem(self, modality: Modality, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 RGB -> (B, 64, H / 4, W / 4)."""
        return self._stems[modality].run(PIXELS, pixels, (MAPS,))[0]

    def run_trunk(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings."""
        return self._trunk.run(MAPS, maps, (EMBEDDING,))[0]

    def run_describe(self, maps: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, 64, H / 4, W / 4) -> (B, D) embeddings and (B, L, P, C) tokens."""
        vectors, tokens = self._describe.run(MAPS, maps, (EMBEDDING, TOKENS))
        return vectors, tokens
