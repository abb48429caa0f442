"""Recall and precision of boxes against truth, with truth that does not count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from detector.suppression import overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detector.truth import FrameTruth

MIN_MATCH_IOU = 0.5
MIN_IGNORED_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Counts:
    """How many truths were there, how many boxes were given, and how many of each belong together."""

    truths: int = 0
    boxes: int = 0
    matches: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.truths + other.truths, self.boxes + other.boxes, self.matches + other.matches)

    @property
    def recall(self) -> float:
        """Matches per truth; NaN without truth."""
        return self.matches / self.truths if self.truths else float("nan")

    @property
    def precision(self) -> float:
        """Matches per box; NaN without boxes."""
        return self.matches / self.boxes if self.boxes else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; NaN where there is neither truth nor box."""
        both = self.truths + self.boxes
        return 2 * self.matches / both if both else float("nan")


def judged(boxes: NDArray[np.float32], truth: FrameTruth) -> NDArray[np.bool_]:
    """Which boxes an evaluation looks at: not those that overlap only truth that does not count.

    Args:
        boxes: (N, 4) xyxy in source pixels.
        truth: What is in the frame.

    Returns:
        (N,) False where a box overlaps such truth by more than 0.3 and no counted truth by as much.
    """
    near = overlaps(boxes, truth.boxes) > MIN_IGNORED_IOU  # (N, M)
    counted = truth.counted
    kept = np.any(near[:, counted], axis=1) | ~np.any(near[:, ~counted], axis=1)
    return np.asarray(kept, np.bool_)


def match(boxes: NDArray[np.float32], truths: NDArray[np.float32], min_iou: float = MIN_MATCH_IOU) -> Counts:
    """Match boxes (N, 4) to truths (M, 4) one to one, as many as possible, where they overlap by `min_iou`."""
    overlap = overlaps(boxes, truths)
    allowed = overlap >= min_iou
    # Any allowed pair outweighs all overlaps together, so the number of matches comes first.
    rows, columns = linear_sum_assignment(allowed * (1.0 + len(boxes)) + overlap * allowed, maximize=True)
    return Counts(len(truths), len(boxes), int(allowed[rows, columns].sum()))


def count(boxes: NDArray[np.float32], truth: FrameTruth, min_iou: float = MIN_MATCH_IOU) -> Counts:
    """Match one frame's boxes to its truth by the evaluation's rule."""
    return match(boxes[judged(boxes, truth)], truth.boxes[truth.counted], min_iou)
