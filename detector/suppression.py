"""Greedy non-maximum suppression over all classes, for the few hundred candidates of a road scene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: More candidates than this are cut to the most confident ones: a picture full of noise must not stall a camera.
MAX_CANDIDATES = 1000


def overlaps(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of every pair.

    Args:
        first: (N, 4) boxes, xyxy.
        second: (M, 4) boxes, xyxy, in the same frame.

    Returns:
        (N, M) float32 in 0-1; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])  # (N, M, 2)
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])  # (N, M, 2)
    shared = np.clip(high - low, 0, None).prod(axis=2)  # (N, M)
    union = _areas(first)[:, None] + _areas(second)[None, :] - shared  # (N, M)
    ratio: NDArray[np.float32] = (shared / np.maximum(union, 1e-9)).astype(np.float32)
    return ratio


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], max_iou: float) -> NDArray[np.int64]:
    """Keep each box that overlaps no better one by more than `max_iou`.

    Args:
        boxes: (N, 4) boxes, xyxy.
        scores: (N,) how sure each box is.
        max_iou: The greatest overlap at which two boxes are still two vehicles.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    clash = overlaps(boxes[order], boxes[order]) > max_iou  # (N, N)
    alive = np.ones(len(order), bool)
    for rank in range(len(order)):
        if alive[rank]:
            alive[rank + 1 :] &= ~clash[rank, rank + 1 :]
    kept: NDArray[np.int64] = order[alive].astype(np.int64)
    return kept


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    areas: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas
