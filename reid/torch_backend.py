"""Runs a `.pt` checkpoint with torch: half precision on CUDA, bfloat16 on CPUs that have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reid.backend import EmbedderError, EmbedderInfo
from reid.checkpoint import load_network
from reid.errors import CheckpointError
from reid.modality import Modality
from reid.model import normalise


class TorchBackend:
    """The whole network in torch.

    Args:
        weights: a `.pt` file of `reid.train`.
        device: `cpu`, `cuda`, ...; cuda where there is one when None.
        threads: CPU threads of this process; torch's choice when None.
        exact: compute in float32.

    Raises:
        EmbedderError: not such a file, broken, or no such device.
    """

    def __init__(
        self, weights: Path, device: str | None = None, threads: int | None = None, *, exact: bool = False
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            network, model_id = load_network(weights)
            self._network = network.to(self._device).to(memory_format=torch.channels_last)
        except CheckpointError as error:
            raise EmbedderError(str(error)) from error
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise EmbedderError(f"{weights}: can't be put on device {device!r}: {reason}") from error
        config = network.config
        self.info = EmbedderInfo(model_id, config.dimension, config.height, config.width)
        self._type = torch.float16 if self._device.type == "cuda" else torch.bfloat16
        self._low_precision = not exact and (self._device.type == "cuda" or _has_bfloat16())

    def embed(self, pixels: dict[Modality, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embed per modality (B_m, H, W, 3) uint8 pictures: (sum of B_m, D), in the mapping's order."""
        images = {m: normalise(torch.from_numpy(batch).to(self._device)) for m, batch in pixels.items()}
        autocast = torch.autocast(self._device.type, self._type, enabled=self._low_precision)
        with torch.inference_mode(), autocast:
            vectors = self._network.embed(images)
        return np.asarray(vectors.float().cpu().numpy(), dtype=np.float32)


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _processor_flags()


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
