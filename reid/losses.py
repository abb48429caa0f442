"""The parts of PORSCHE's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_triplet_loss(features: Tensor, identities: Tensor) -> Tensor:
    """Weighted regularised triplet loss (AGW, Ye et al., TPAMI 2021, eq. 3).

    All positives and negatives of an anchor count, far positives and near negatives more (softmax of the
    distance), with a soft margin, so that there is no margin to tune.

    Args:
        features: (B, D) float.
        identities: (B,) integer.

    Returns:
        Scalar: mean over the anchors that have a positive and a negative; zero if none has.
    """
    distances = torch.cdist(features, features)  # (B, B)
    same = identities[:, None] == identities[None, :]
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    anchors = positive.any(dim=1) & (~same).any(dim=1)
    if not anchors.any():
        return features.sum() * 0.0
    distances, positive, negative = distances[anchors], positive[anchors], ~same[anchors]  # (A, B)
    far = (_masked_softmax(distances, positive) * distances).sum(dim=1)  # (A,)
    near = (_masked_softmax(-distances, negative) * distances).sum(dim=1)  # (A,)
    return F.softplus(far - near).mean()


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the columns where `mask` holds; zero elsewhere."""
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=1)


def matching_loss(scores: Sequence[Tensor], identities: Tensor, blocks: Sequence[tuple[slice, slice]]) -> Tensor:
    """Whether the matcher tells pairs of one vehicle from others (PORSCHE's L_ps).

    Binary cross-entropy with logits, summed over the gallery, averaged over the queries. A query with a score
    that is not finite is dropped before its loss is made.

    Args:
        scores: per block (Q, G) logits.
        identities: (B,) integer, of the whole batch.
        blocks: rows and columns of each block in the batch; a picture is not compared with itself.

    Returns:
        Scalar; zero if no query is left.
    """
    total, queries = identities.new_zeros((), dtype=torch.float32), identities.new_zeros(())
    for logits, (rows, columns) in zip(scores, blocks, strict=True):
        finite = torch.isfinite(logits).all(dim=1, keepdim=True)  # (Q, 1)
        same = (identities[rows][:, None] == identities[columns][None, :]).float()  # (Q, G)
        losses = F.binary_cross_entropy_with_logits(torch.where(finite, logits, 0.0), same, reduction="none")
        places = torch.arange(len(identities), device=logits.device)
        counted = finite & (places[rows][:, None] != places[columns][None, :])
        total = total + (losses * counted).sum()
        queries = queries + finite.sum()
    return total / queries.clamp_min(1)


def consistency_loss(first: Tensor, second: Tensor, tiles: int, form: Literal["patch", "pooled"] = "patch") -> Tensor:
    """How far corresponding patches of aligned pairs disagree (PORSCHE's L_mc).

    Args:
        first: (B, D, h, w) projected maps of one modality.
        second: (B, D, h, w) maps of the same shots in another.
        tiles: patches per side for the figure's form.
        form: `patch`: one descriptor a tile; `pooled`: the released code's, one for the whole map.

    Returns:
        Scalar mean squared difference of descriptors scaled to 0-1 over channels.
    """
    return F.mse_loss(_descriptors(first, tiles, form), _descriptors(second, tiles, form))


def _descriptors(maps: Tensor, tiles: int, form: Literal["patch", "pooled"]) -> Tensor:
    """(B, D, h, w) -> (B, D, patches), each scaled to 0-1 over D."""
    if form == "patch":
        pooled = F.adaptive_avg_pool2d(maps.float(), tiles).flatten(2)  # (B, D, n n)
    else:
        # As released, windows start at 0, 7, 14, ... and what is left over is not seen. A side below 3 has no window
        # without padding; its zeros are not counted.
        padding = [int(side < 3) for side in maps.shape[2:]]
        windows = F.avg_pool2d(maps.float(), 3, stride=7, padding=padding, count_include_pad=False)
        pooled = windows.amax(dim=(2, 3)).unsqueeze(2)  # (B, D, 1)
    low, high = pooled.amin(dim=1, keepdim=True), pooled.amax(dim=1, keepdim=True)
    return (pooled - low) / (high - low).clamp_min(1e-6)
