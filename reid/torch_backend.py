"""Runs a `.pt` checkpoint with torch: half precision on CUDA, bfloat16 on CPUs that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from reid.backend import Descriptions, EmbedderError, EmbedderInfo, Pixels
from reid.checkpoint import load_network
from reid.errors import CheckpointError
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.point_scorer import score_blocks

#: Numbers that scoring holds at once: 64 MB.
BLOCK_NUMBERS = 2**24

Made = TypeVar("Made")


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
        self.info = describe_network(network, model_id)
        self._type = torch.float16 if self._device.type == "cuda" else torch.bfloat16
        self._low_precision = not exact and (self._device.type == "cuda" or _has_bfloat16())

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Embed: (sum of B_m, D) of unit norm, in the mapping's order."""
        return _to_numpy(self._run(self._network.embed, pixels))

    def describe(self, pixels: Pixels) -> Descriptions:
        """Embed, and make the tokens where there is a matcher, in the mapping's order."""
        made = self._run(self._network.describe, pixels)
        return Descriptions(_to_numpy(made.embedding), None if made.tokens is None else _to_numpy(made.tokens))

    def _run(self, step: Callable[[Mapping[Modality, torch.Tensor]], Made], pixels: Pixels) -> Made:
        images = {m: normalise(torch.from_numpy(batch).to(self._device)) for m, batch in pixels.items()}
        autocast = torch.autocast(self._device.type, self._type, enabled=self._low_precision)
        with torch.inference_mode(), autocast:
            return step(images)

    def score(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tokens (Q, L, P, C) against (G, L, P, C): (Q, G) logits, in float32, about 100 MB at a time."""
        settings = self._network.config.matcher
        if self._network.matcher is None or settings is None:
            raise EmbedderError("weights without a matcher can't score")
        scores = np.empty((len(queries), len(gallery)), dtype=np.float32)
        # Of a pair: similarities before and after the prior, and two hidden layers, each before and after its norm.
        pairs = max(1, BLOCK_NUMBERS // (2 * queries.shape[2] ** 2 + 4 * settings.head))
        columns = min(pairs, max(1, len(gallery)))
        with torch.inference_mode():
            for block in score_blocks(*scores.shape, pairs // columns, columns):
                asked, others = (
                    torch.from_numpy(np.array(tokens[part], dtype=np.float32)).to(self._device)
                    for tokens, part in zip((queries, gallery), block, strict=True)
                )
                scores[block] = _to_numpy(self._network.matcher.score(asked, others))
        return scores


def describe_network(network: Porsche, model_id: str) -> EmbedderInfo:
    """What a network makes, as an embedder tells it."""
    config = network.config
    points = None
    if config.matcher:
        rows, columns = config.points(config.matching_stage)
        channels = config.matcher.channels or config.stages[config.matching_stage].dimension
        points = (config.matcher.layers, rows * columns, channels)
    return EmbedderInfo(model_id, config.dimension, config.height, config.width, points)


def _to_numpy(values: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(values.float().cpu().numpy(), dtype=np.float32)


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated, it is slower than float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _processor_flags()


def _processor_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
