"""What a training step minimises: the parts of PORSCHE's loss for one stage of one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from reid.config import LossConfig
from reid.losses import consistency_loss, matching_loss, weighted_triplet_loss
from reid.modality import Modality
from reid.model import StageOutput, modality_slices
from reid.point_matcher import Block


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of several modalities, ready for the network.

    Attributes:
        images: per modality (B_m, 3, H, W) float, normalised.
        identities: (B,) int64, in the mapping's order.
        views: B labels; pictures of one vehicle and one (non-empty) label are aligned shots. All empty where
            batches are not made of such shots (`batch.pairing: any`): then nothing is held to be consistent.
    """

    images: Mapping[Modality, Tensor]
    identities: Tensor
    views: list[str]


def pair_blocks(images: Mapping[Modality, Tensor], pairs: str) -> list[Block]:
    """Which pairs of a batch a matcher is trained on.

    Args:
        images: per modality (B_m, ...).
        pairs: `cross`: every two modalities; `all`: every two pictures.

    Returns:
        Rows and columns of each block; none where a batch has one modality only and `cross` is asked.
    """
    slices = list(modality_slices(images).values())
    if pairs == "all":
        whole = slice(0, slices[-1].stop)
        return [(whole, whole)]
    return list(combinations(slices, 2))


def loss_parts(
    output: StageOutput, batch: Batch, weights: LossConfig, tiles: int, blocks: list[Block]
) -> dict[str, Tensor]:
    """Weighted parts whose sum is the loss of one stage.

    Args:
        output: of all B pictures.
        batch: their identities and views.
        weights: of the parts.
        tiles: the stage's tiles per side, for patch consistency.
        blocks: the pairs whose scores the output holds.
    """
    identities, smoothing = batch.identities, weights.label_smoothing
    identity = F.cross_entropy(output.logits.float(), identities, label_smoothing=smoothing)
    parts = {
        "identity": weights.identity * identity,
        "triplet": weights.triplet * weighted_triplet_loss(output.feature, identities),
    }
    if output.scores:
        parts["matching"] = weights.matching * matching_loss(output.scores, identities, blocks)
    first, second = aligned_pairs(batch)
    if weights.consistency and first:
        consistency = consistency_loss(output.maps[first], output.maps[second], tiles, weights.consistency_form)
        # PORSCHE ties its size to the matching loss; without a matcher, to what there is.
        lead = parts.get("matching", torch.stack(list(parts.values())).sum()).detach()
        share = lead / consistency.detach().clamp_min(1e-6)
        parts["consistency"] = weights.consistency * share * consistency
    return parts


def aligned_pairs(batch: Batch) -> tuple[list[int], list[int]]:
    """Positions of a visible picture and an infrared one of the same vehicle and (known) view."""
    visible = len(batch.images.get(Modality.VISIBLE, ()))
    keys = list(zip(batch.identities.tolist(), batch.views, strict=True))
    index = {key: position for position, key in enumerate(keys[:visible]) if key[1]}
    pairs = [(index[key], visible + offset) for offset, key in enumerate(keys[visible:]) if key in index]
    return [first for first, _ in pairs], [second for _, second in pairs]
