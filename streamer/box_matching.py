"""Which predicted box is which true one, frame by frame, and which boxes count at all.

Boxes lie on one line of steps: each camera's frames come after the last frame of the one before, in the order of the
cameras' names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

MIN_IOU = 0.5
#: A predicted box that overlaps ignored truth by more than this, and evaluated truth by no more, is dropped.
MAX_IGNORED_IOU = 0.3
MIN_HEIGHT_PX = 24.0
MIN_VISIBLE_FRACTION = 0.5
MAX_TRUNCATION = 0.5
#: Frame rate of a camera whose truth has no row after its first instant to tell it from.
DEFAULT_FPS = 10.0

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class EvaluationError(Exception):
    """Truth or prediction can't be scored. The message is one line that names the culprit."""


@dataclass(frozen=True, slots=True)
class TruthBoxes:
    """Where every vehicle is, one row per camera, frame and vehicle.

    Attributes:
        cameras: (N,) camera names.
        frames: (N,) 0-based frame numbers of the camera.
        times: (N,) seconds since the camera's first frame.
        vehicles: (N,) ids, the same in all cameras.
        boxes: (N, 4) xyxy, source pixels.
        visible_fractions: (N,) share of the vehicle that nothing hides, 0-1.
        truncations: (N,) share of the vehicle outside the picture, 0-1.
    """

    cameras: NDArray[np.str_]
    frames: Ints
    times: Floats
    vehicles: NDArray[Any]
    boxes: Floats
    visible_fractions: Floats
    truncations: Floats

    def __post_init__(self) -> None:
        columns = (self.cameras, self.frames, self.times, self.vehicles, self.visible_fractions, self.truncations)
        _check_shapes(self.boxes, columns)

    @property
    def evaluated(self) -> NDArray[np.bool_]:
        """(N,) whether a box counts: at least 24 px high, half visible, and no more than half outside."""
        heights = self.boxes[:, 3] - self.boxes[:, 1]
        return (
            (heights >= MIN_HEIGHT_PX)
            & (self.visible_fractions >= MIN_VISIBLE_FRACTION)
            & (self.truncations <= MAX_TRUNCATION)
        )


@dataclass(frozen=True, slots=True)
class PredictedBoxes:
    """What the tracker said, one row per camera, frame and vehicle.

    Attributes:
        cameras: (N,) camera names, those of the truth.
        frames: (N,) 0-based frame numbers of the camera.
        vehicles: (N,) ids, any sortable type; the same id in two cameras says that it is one vehicle.
        boxes: (N, 4) xyxy, source pixels.
    """

    cameras: NDArray[np.str_]
    frames: Ints
    vehicles: NDArray[Any]
    boxes: Floats

    def __post_init__(self) -> None:
        _check_shapes(self.boxes, (self.cameras, self.frames, self.vehicles))


def _check_shapes(boxes: Floats, columns: Iterable[NDArray[Any]]) -> None:
    shapes = [column.shape for column in columns]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or any(shape != (len(boxes),) for shape in shapes):
        raise ValueError(f"expected boxes (N, 4) and columns (N,), got {boxes.shape} and {shapes}")


@dataclass(frozen=True, slots=True)
class Timeline:
    """Which frames of which cameras are evaluated, and where they lie on the one line of steps.

    `first` and `end` are half-open frame numbers, `offsets` what a camera adds to a frame number to make it a step;
    all (number of cameras,).
    """

    cameras: tuple[str, ...]
    first: Ints
    end: Ints
    offsets: Ints


def lay_out(truth: TruthBoxes, from_t: float, until_t: float) -> Timeline:
    """Say which frames are evaluated: 0 to the last one of each camera's truth, within the window.

    Args:
        truth: at least one box.
        from_t: seconds since each camera's first frame from which to evaluate.
        until_t: seconds before which to evaluate.
    """
    cameras = tuple(sorted({str(name) for name in truth.cameras}))
    ranges = [_frame_range(truth, truth.cameras == camera, from_t, until_t) for camera in cameras]
    first, end = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    return Timeline(cameras, first, end, np.concatenate([[0], np.cumsum(end)[:-1]]).astype(np.int64))


def _frame_range(truth: TruthBoxes, own: NDArray[np.bool_], from_t: float, until_t: float) -> tuple[int, int]:
    frames, times = truth.frames[own], truth.times[own]
    latest = int(np.argmax(times))
    fps = float(frames[latest] / times[latest]) if times[latest] > 0 else DEFAULT_FPS
    rounding = 0.01  # of a frame: the truth's times have three decimals, and so the rate is a little off
    end = min(float(frames.max()) + 1, math.inf if math.isinf(until_t) else math.ceil(until_t * fps - rounding))
    first = math.ceil(from_t * fps - rounding)
    return max(first, 0), max(int(end), 0)


@dataclass(frozen=True, slots=True)
class Table:
    """The boxes of the evaluated frames, sorted by step.

    `ids` count from 0 in the order of first appearance, so that no figure depends on what a vehicle is called.
    """

    cameras: Ints  # (N,)
    steps: Ints  # (N,)
    ids: Ints  # (N,)
    boxes: Floats  # (N, 4)
    evaluated: NDArray[np.bool_]  # (N,)


def sort_boxes(
    what: str, boxes: TruthBoxes | PredictedBoxes, timeline: Timeline, evaluated: NDArray[np.bool_]
) -> Table:
    """Take the boxes of the evaluated frames, in order.

    Args:
        what: what an error calls the boxes.
        boxes: N boxes.
        timeline: which frames.
        evaluated: (N,) whether a box counts.

    Raises:
        EvaluationError: a vehicle has two boxes in one frame.
    """
    index_of = {camera: index for index, camera in enumerate(timeline.cameras)}
    cameras = np.array([index_of.get(str(name), -1) for name in boxes.cameras], dtype=np.int64)
    frames = boxes.frames
    inside = (cameras >= 0) & (frames >= timeline.first[cameras]) & (frames < timeline.end[cameras])
    rows = np.flatnonzero(inside)
    steps = timeline.offsets[cameras[rows]] + frames[rows]
    order = np.argsort(steps, kind="stable")
    rows, steps = rows[order], steps[order]
    ids = _codes(boxes.vehicles[rows])
    _refuse_twins(what, boxes, rows, steps, ids)
    return Table(cameras[rows], steps, ids, boxes.boxes[rows].astype(np.float64), evaluated[rows])


def _codes(values: NDArray[Any]) -> Ints:
    """Number values from 0 in the order of their first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _refuse_twins(what: str, boxes: TruthBoxes | PredictedBoxes, rows: Ints, steps: Ints, ids: Ints) -> None:
    _, first = np.unique(np.stack([steps, ids], axis=1), axis=0, return_index=True)
    twins = np.setdiff1d(np.arange(len(rows)), first)
    if len(twins):
        row = rows[twins[0]]
        where = f"camera {boxes.cameras[row]}, frame {boxes.frames[row]}"
        raise EvaluationError(f"{what}: {where}: vehicle {boxes.vehicles[row]} has two boxes, wanted at most one")


@dataclass(frozen=True, slots=True)
class Step:
    """One frame of one camera, after the ignore rule.

    Attributes:
        camera: index of the camera.
        truth: (G,) rows of evaluated truth.
        predicted: (P,) rows of predicted boxes that were kept.
        iou: (G, P).
        matches: (P,) the row of truth that each predicted box matches, or -1.
    """

    camera: int
    truth: Ints
    predicted: Ints
    iou: Floats
    matches: Ints


def match_steps(true: Table, said: Table) -> Iterator[Step]:
    """Match the boxes of every frame that has any; no figure depends on the others.

    Evaluated truth is matched one to one at IoU 0.5 and more, for the largest sum of overlaps. A predicted box that
    is left over is dropped where it overlaps ignored truth, and ignored truth only, by more than 0.3.
    """
    steps = np.union1d(true.steps, said.steps)
    true_ends = np.searchsorted(true.steps, steps, side="right")
    said_ends = np.searchsorted(said.steps, steps, side="right")
    true_start = said_start = 0
    for true_end, said_end in zip(true_ends, said_ends, strict=True):
        yield _step(true, said, np.arange(true_start, true_end), np.arange(said_start, said_end))
        true_start, said_start = int(true_end), int(said_end)


def _step(true: Table, said: Table, truth: Ints, predicted: Ints) -> Step:
    camera = true.cameras[truth[0]] if len(truth) else said.cameras[predicted[0]]
    overlaps = intersection_over_union(true.boxes[truth], said.boxes[predicted])  # (G + ignored, P)
    counts = true.evaluated[truth]
    iou, truth = overlaps[counts], truth[counts]  # (G, P)
    matches = np.full(len(predicted), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(-np.where(iou >= MIN_IOU, iou, 0.0))
    good = iou[rows, columns] >= MIN_IOU
    matches[columns[good]] = truth[rows[good]]
    on_ignored = overlaps[~counts].max(axis=0, initial=0.0) > MAX_IGNORED_IOU
    on_evaluated = iou.max(axis=0, initial=0.0) > MAX_IGNORED_IOU
    kept = ~on_ignored | on_evaluated  # every match is: it overlaps evaluated truth by more
    return Step(int(camera), truth, predicted[kept], iou[:, kept], matches[kept])


def intersection_over_union(first: Floats, second: Floats) -> Floats:
    """Overlap of boxes.

    Args:
        first: (G, 4) xyxy, half-open.
        second: (P, 4) xyxy, in the same frame.

    Returns:
        (G, P) 0-1; 0 where both boxes are empty.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])  # (G, P, 2)
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])  # (G, P, 2)
    shared = np.clip(high - low, 0.0, None).prod(axis=2)  # (G, P)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - shared  # (G, P)
    overlaps: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps
