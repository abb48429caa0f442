"""What of a network an export holds: its parts as modules that can be traced, and the matcher's decoder folded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reid.exported_folder import DESCRIBE, EMBEDDING, MAPS, PIXELS, TOKENS, TRUNK, Runtime, stem_name
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.point_matcher import DecoderLayer, PointMatcher
from reid.point_scorer import PointScorer

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the network that becomes a file of its own.

    Attributes:
        name: the file's, without its ending.
        module: in evaluation mode; one input.
        example: an input; the first axis is the batch.
        input: the input's name.
        outputs: the outputs' names.
    """

    name: str
    module: nn.Module
    example: Tensor
    input: str
    outputs: tuple[str, ...]


class StemOfPixels(nn.Module):
    """A stem with its preprocessing: (B, H, W, 3) uint8 to (B, 64, H / 4, W / 4) float."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise, then run the stem."""
        maps: Tensor = self.stem(normalise(pixels))
        return maps


class EmbeddingTrunk(nn.Module):
    """Behind the stems: (B, 64, H / 4, W / 4) to (B, D) of unit norm."""

    def __init__(self, network: Porsche) -> None:
        super().__init__()
        self.network = network

    def forward(self, stem_maps: Tensor) -> Tensor:
        """Embed on whole maps."""
        return self.network.embed_maps(stem_maps)


class DescribingTrunk(nn.Module):
    """Behind the stems: (B, 64, H / 4, W / 4) to (B, D) of unit norm and tokens (B, L, P, C)."""

    def __init__(self, network: Porsche) -> None:
        super().__init__()
        self.network = network

    def forward(self, stem_maps: Tensor) -> tuple[Tensor, Tensor | None]:
        """Describe on whole maps."""
        made = self.network.describe_maps(stem_maps)
        return made.embedding, made.tokens


def parts_of(network: Porsche, runtime: Runtime) -> list[Part]:
    """Cut a network into the parts that a runtime loads.

    Args:
        network: in evaluation mode; shared, not copied.
        runtime: OpenVINO leaves out of a file what isn't asked of it, so one trunk serves for both; the others
            compute all that a file holds, so there a matcher adds a second trunk.

    Returns:
        A stem per modality, and a trunk or two.
    """
    # A batch of 1 would be taken for a constant.
    pixels = torch.zeros(2, network.config.height, network.config.width, 3, dtype=torch.uint8)
    with torch.no_grad():
        maps = network.trunk.stem({Modality.VISIBLE: normalise(pixels)})
    stems = [
        Part(stem_name(modality), StemOfPixels(network.trunk.stems[modality.value]).eval(), pixels, PIXELS, (MAPS,))
        for modality in Modality
    ]
    embed = Part(TRUNK, EmbeddingTrunk(network).eval(), maps, MAPS, (EMBEDDING,))
    if network.matcher is None:
        return [*stems, embed]
    describe = DescribingTrunk(network).eval()
    if runtime is Runtime.OPENVINO:
        return [*stems, Part(TRUNK, describe, maps, MAPS, (EMBEDDING, TOKENS))]
    return [*stems, embed, Part(DESCRIBE, describe, maps, MAPS, (EMBEDDING, TOKENS))]


def fold_matcher(matcher: PointMatcher) -> PointScorer:
    """Make a matcher's decoder a `PointScorer`: every norm, in evaluation, is a scale and an offset.

    Args:
        matcher: unchanged.
    """
    layers = [_fold_layer(layer) for layer in matcher.decoder if isinstance(layer, DecoderLayer)]
    scale, offset = _affine(matcher.total)
    priors, first, first_scale, first_bias, second, bias = (np.stack(values) for values in zip(*layers, strict=True))
    second, bias = second * scale, (bias.sum() * scale + offset)[0]
    values = (priors, first, first_scale, first_bias, second, bias)
    return PointScorer(*(np.asarray(value, dtype=np.float32) for value in values))


def _fold_layer(layer: DecoderLayer) -> tuple[Doubles, ...]:
    """Priors (P, P), first (H, P), its scale (H,) and bias (H,), second (H,), bias (1,)."""
    head = layer.head
    linear, norm, _, out = head.layers
    weights, wide = _array(linear.weight), _array(out.weight)[0]  # (H, P), (H,)
    spread, shift = _affine(head.spread)  # (1,), (1,)
    factor, offset = _affine(norm)  # (H,), (H,)
    scale, last = _affine(layer.scale)  # (1,), (1,)
    first_bias = factor * shift * weights.sum(axis=1) + offset  # (H,)
    # Both pictures' points pass the head, so its own bias counts twice.
    bias = 2 * scale * _array(out.bias) + last  # (1,)
    return _array(layer.weights()), weights, factor * spread, first_bias, wide * scale, bias


def _affine(norm: nn.Module) -> tuple[Doubles, Doubles]:
    """A batch norm in evaluation as scale and offset per channel."""
    if not isinstance(norm, nn.BatchNorm1d) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"expected a batch norm with statistics, got {norm}")
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _array(values: Tensor | nn.Module) -> Doubles:
    if not isinstance(values, Tensor):
        raise TypeError(f"expected a tensor, got {values}")
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float64)
