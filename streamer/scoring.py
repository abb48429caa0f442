"""Identity scores of predicted vehicle boxes against the truth: arrays in, figures out. No files, no database.

All cameras together form one sequence: each camera's frames come after the last frame of the one before, in the order
of the cameras' names. A vehicle seen in three cameras is thus one identity with three appearances, and a tracker that
calls it by three names pays for it. TrackEval's own way, one sequence a camera, would sum up identities per camera and
never look across.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from trackeval.metrics import CLEAR, HOTA, Count, Identity

from reid.modality import Modality

MIN_IOU = 0.5
#: A predicted box that overlaps ignored truth by more than this, and evaluated truth by no more, is dropped.
MAX_IGNORED_IOU = 0.3
MIN_HEIGHT_PX = 24.0
MIN_VISIBLE_FRACTION = 0.5
MAX_TRUNCATION = 0.5
#: Frame rate of a camera whose truth has no row after its first instant to tell it from.
DEFAULT_FPS = 10.0
UNKNOWN = "unknown"
_LABELS: dict[str, str] = {Modality.VISIBLE: "RGB", Modality.NEAR_INFRARED: "NIR", Modality.THERMAL: "thermal"}

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


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
    frames: _Ints
    times: _Floats
    vehicles: NDArray[Any]
    boxes: _Floats
    visible_fractions: _Floats
    truncations: _Floats

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
    frames: _Ints
    vehicles: NDArray[Any]
    boxes: _Floats

    def __post_init__(self) -> None:
        _check_shapes(self.boxes, (self.cameras, self.frames, self.vehicles))


def _check_shapes(boxes: _Floats, columns: Iterable[NDArray[Any]]) -> None:
    shapes = [column.shape for column in columns]
    if boxes.ndim != 2 or boxes.shape[1] != 4 or any(shape != (len(boxes),) for shape in shapes):
        raise ValueError(f"expected boxes (N, 4) and columns (N,), got {boxes.shape} and {shapes}")


@dataclass(frozen=True, slots=True)
class OverallScores:
    """All cameras as one sequence. Ratios are 0-1 (MOTA has no lower bound).

    IDF1, IDP, IDR: Ristani et al., ECCV-W 2016. HOTA, DetA, AssA: Luiten et al., IJCV 2021, each the mean over the
    localisation thresholds 0.05-0.95. MOTA and switches: Bernardin and Stiefelhagen, 2008; a vehicle that enters the
    next camera under another id is a switch.
    """

    idf1: float
    idp: float
    idr: float
    hota: float
    det_a: float
    ass_a: float
    mota: float
    id_switches: int
    recall: float
    precision: float
    truth_boxes: int
    predicted_boxes: int
    truth_vehicles: int
    predicted_vehicles: int
    ignored_truth_boxes: int
    dropped_predicted_boxes: int


@dataclass(frozen=True, slots=True)
class CameraScores:
    """One camera by itself: identities count within it only."""

    camera: str
    modality: str
    recall: float
    precision: float
    idf1: float
    id_switches: int
    truth_boxes: int
    predicted_boxes: int
    truth_vehicles: int
    predicted_vehicles: int


@dataclass(frozen=True, slots=True)
class LinkScores:
    """How well one vehicle is recognised in two cameras.

    Attributes:
        name: the two cameras, or the two modalities, joined by `~`.
        truth: true links: (vehicle, pair of cameras in both of which it has evaluated boxes).
        found: those that a right predicted link covers.
        predicted: predicted links: (predicted vehicle, pair of cameras in both of which it has boxes).
        right: those whose two ends are, by the majority of their matched boxes, the same true vehicle.
        unmatched: those of which an end matches no true vehicle at all; wrong, but the detector's fault.
    """

    name: str
    truth: int
    found: int
    predicted: int
    right: int
    unmatched: int

    @property
    def recall(self) -> float | None:
        """Found over true links; None where there are none."""
        return self.found / self.truth if self.truth else None

    @property
    def precision(self) -> float | None:
        """Right over predicted links; None where there are none."""
        return self.right / self.predicted if self.predicted else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that one comparison says.

    Attributes:
        overall: all cameras as one sequence.
        cameras: one entry per camera of the truth, by name.
        links: all pairs of cameras together.
        camera_links: one entry per pair of cameras.
        modality_links: the same links, summed by pair of modalities.
        cameras_without_truth: cameras that only the prediction has; their boxes count in nothing.
    """

    overall: OverallScores
    cameras: tuple[CameraScores, ...]
    links: LinkScores
    camera_links: tuple[LinkScores, ...]
    modality_links: tuple[LinkScores, ...]
    cameras_without_truth: tuple[str, ...]


def evaluate(
    truth: TruthBoxes,
    predicted: PredictedBoxes,
    *,
    modalities: Mapping[str, str],
    from_t: float = 0.0,
    until_t: float = math.inf,
) -> Evaluation:
    """Score predicted boxes with ids against the truth, at IoU 0.5.

    Frames 0 to the last one of a camera's truth are evaluated; predictions after it count in nothing. Truth lower than
    24 px, less than half visible or more than half outside the picture is neither missed nor found; a predicted box
    that matches no evaluated truth and overlaps only ignored truth is dropped.

    Args:
        truth: the truth, ignored boxes included.
        predicted: what the tracker said; may be empty.
        modalities: camera name -> a `Modality` value; cameras it lacks are `unknown`.
        from_t: seconds of the cameras' truth from which to evaluate.
        until_t: seconds of the cameras' truth before which to evaluate.

    Returns:
        The figures.

    Raises:
        EvaluationError: a vehicle has two boxes in one frame, or no truth is left to evaluate.
    """
    if not len(truth.boxes):
        raise EvaluationError("truth: no boxes")
    timeline = _timeline(truth, from_t, until_t)
    true = _table("truth", truth, timeline, truth.evaluated)
    said = _table("prediction", predicted, timeline, np.ones(len(predicted.boxes), dtype=bool))
    if not true.evaluated.any():
        raise EvaluationError(f"no evaluated truth box between {from_t:g} and {until_t:g} seconds")
    steps = list(_steps(true, said))
    names = [modalities.get(camera, UNKNOWN) for camera in timeline.cameras]
    links = _links(steps, true, said, len(names))
    return Evaluation(
        overall=_overall_scores(steps, true, said),
        cameras=tuple(
            _camera_scores(camera, names[index], [step for step in steps if step.camera == index], true, said)
            for index, camera in enumerate(timeline.cameras)
        ),
        links=_link_scores("all", links.values()),
        camera_links=tuple(
            _link_scores("~".join(timeline.cameras[end] for end in pair), [counts]) for pair, counts in links.items()
        ),
        modality_links=_modality_links(links, names),
        cameras_without_truth=tuple(sorted({str(name) for name in predicted.cameras} - set(timeline.cameras))),
    )


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Which frames of which cameras are evaluated, and where they lie in the one sequence.

    `first` and `end` are half-open frame numbers; a frame's step is `offsets[camera] + frame`.
    """

    cameras: tuple[str, ...]
    first: _Ints
    end: _Ints
    offsets: _Ints


def _timeline(truth: TruthBoxes, from_t: float, until_t: float) -> _Timeline:
    cameras = tuple(sorted({str(name) for name in truth.cameras}))
    ranges = [_frame_range(truth, truth.cameras == camera, from_t, until_t) for camera in cameras]
    first, end = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    return _Timeline(cameras, first, end, np.concatenate([[0], np.cumsum(end)[:-1]]).astype(np.int64))


def _frame_range(truth: TruthBoxes, own: NDArray[np.bool_], from_t: float, until_t: float) -> tuple[int, int]:
    frames, times = truth.frames[own], truth.times[own]
    latest = int(np.argmax(times))
    fps = float(frames[latest] / times[latest]) if times[latest] > 0 else DEFAULT_FPS
    rounding = 1e-6  # 8.1 s at 10 fps is frame 81, though 8.1 * 10 is a little more
    end = min(float(frames.max()) + 1, math.inf if math.isinf(until_t) else math.ceil(until_t * fps - rounding))
    first = math.ceil(from_t * fps - rounding)
    return max(first, 0), max(int(end), 0)


@dataclass(frozen=True, slots=True)
class _Table:
    """The boxes of the evaluated frames, sorted by step.

    `ids` count from 0 in the order of first appearance, so that no figure depends on what a vehicle is called.
    """

    cameras: _Ints  # (N,)
    steps: _Ints  # (N,)
    ids: _Ints  # (N,)
    boxes: _Floats  # (N, 4)
    evaluated: NDArray[np.bool_]  # (N,)


def _table(what: str, boxes: TruthBoxes | PredictedBoxes, timeline: _Timeline, evaluated: NDArray[np.bool_]) -> _Table:
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
    return _Table(cameras[rows], steps, ids, boxes.boxes[rows].astype(np.float64), evaluated[rows])


def _codes(values: NDArray[Any]) -> _Ints:
    """Number values from 0 in the order of their first appearance."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def _refuse_twins(what: str, boxes: TruthBoxes | PredictedBoxes, rows: _Ints, steps: _Ints, ids: _Ints) -> None:
    _, first = np.unique(np.stack([steps, ids], axis=1), axis=0, return_index=True)
    twins = np.setdiff1d(np.arange(len(rows)), first)
    if len(twins):
        row = rows[twins[0]]
        where = f"camera {boxes.cameras[row]}, frame {boxes.frames[row]}"
        raise EvaluationError(f"{what}: {where}: vehicle {boxes.vehicles[row]} has two boxes, wanted at most one")


@dataclass(frozen=True, slots=True)
class _Step:
    """One frame of one camera, after the ignore rule.

    Attributes:
        camera: index of the camera.
        truth: (G,) rows of evaluated truth.
        predicted: (P,) rows of predicted boxes that were kept.
        iou: (G, P).
        matches: (P,) the row of truth that each predicted box matches, or -1.
    """

    camera: int
    truth: _Ints
    predicted: _Ints
    iou: _Floats
    matches: _Ints


def _steps(true: _Table, said: _Table) -> Iterator[_Step]:
    """Yields the frames that have boxes; TrackEval's figures don't depend on the others."""
    steps = np.union1d(true.steps, said.steps)
    true_ends = np.searchsorted(true.steps, steps, side="right")
    said_ends = np.searchsorted(said.steps, steps, side="right")
    true_start = said_start = 0
    for true_end, said_end in zip(true_ends, said_ends, strict=True):
        yield _step(true, said, np.arange(true_start, true_end), np.arange(said_start, said_end))
        true_start, said_start = int(true_end), int(said_end)


def _step(true: _Table, said: _Table, truth: _Ints, predicted: _Ints) -> _Step:
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
    kept = (matches >= 0) | ~on_ignored | on_evaluated
    return _Step(int(camera), truth, predicted[kept], iou[:, kept], matches[kept])


def intersection_over_union(first: _Floats, second: _Floats) -> _Floats:
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
    overlaps: _Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def _sequence(steps: Sequence[_Step], true: _Table, said: _Table) -> dict[str, Any]:
    """What TrackEval's datasets hand to its metrics; ids count from 0 without a gap, as it wants them."""
    truth_ids = _renumbered([true.ids[step.truth] for step in steps])
    predicted_ids = _renumbered([said.ids[step.predicted] for step in steps])
    return {
        "gt_ids": truth_ids,
        "tracker_ids": predicted_ids,
        "similarity_scores": [step.iou for step in steps],
        "num_timesteps": len(steps),
        "num_gt_ids": _count_ids(truth_ids),
        "num_tracker_ids": _count_ids(predicted_ids),
        "num_gt_dets": sum(map(len, truth_ids)),
        "num_tracker_dets": sum(map(len, predicted_ids)),
    }


def _renumbered(ids: Sequence[_Ints]) -> list[_Ints]:
    if not ids:
        return []
    _, inverse = np.unique(np.concatenate(ids), return_inverse=True)
    return np.split(inverse.astype(np.int64), np.cumsum([len(part) for part in ids])[:-1])


def _count_ids(ids: Sequence[_Ints]) -> int:
    return max((int(part.max()) + 1 for part in ids if len(part)), default=0)


def _identity(sequence: dict[str, Any]) -> dict[str, float]:
    scores: dict[str, float] = Identity({"THRESHOLD": MIN_IOU, "PRINT_CONFIG": False}).eval_sequence(sequence)
    return scores


def _clear(sequence: dict[str, Any]) -> dict[str, float]:
    scores: dict[str, float] = CLEAR({"THRESHOLD": MIN_IOU, "PRINT_CONFIG": False}).eval_sequence(sequence)
    return scores


def _counts(sequence: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = Count().eval_sequence(sequence)
    return {
        "truth_boxes": counts["GT_Dets"],
        "predicted_boxes": counts["Dets"],
        "truth_vehicles": counts["GT_IDs"],
        "predicted_vehicles": counts["IDs"],
    }


def _overall_scores(steps: Sequence[_Step], true: _Table, said: _Table) -> OverallScores:
    sequence = _sequence(steps, true, said)
    identity, clear, hota = _identity(sequence), _clear(sequence), HOTA().eval_sequence(sequence)
    return OverallScores(
        idf1=float(identity["IDF1"]),
        idp=float(identity["IDP"]),
        idr=float(identity["IDR"]),
        hota=float(np.mean(hota["HOTA"])),
        det_a=float(np.mean(hota["DetA"])),
        ass_a=float(np.mean(hota["AssA"])),
        mota=float(clear["MOTA"]),
        id_switches=int(clear["IDSW"]),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        **_counts(sequence),
        ignored_truth_boxes=int(np.count_nonzero(~true.evaluated)),
        dropped_predicted_boxes=len(said.ids) - sequence["num_tracker_dets"],
    )


def _camera_scores(camera: str, modality: str, steps: Sequence[_Step], true: _Table, said: _Table) -> CameraScores:
    sequence = _sequence(steps, true, said)
    identity, clear = _identity(sequence), _clear(sequence)
    return CameraScores(
        camera=camera,
        modality=str(modality),
        recall=float(clear["CLR_Re"]),
        precision=float(clear["CLR_Pr"]),
        idf1=float(identity["IDF1"]),
        id_switches=int(clear["IDSW"]),
        **_counts(sequence),
    )


_Pair = tuple[int, int]


def _links(steps: Sequence[_Step], true: _Table, said: _Table, cameras: int) -> dict[_Pair, Counter[str]]:
    """Counts true and predicted links by pair of camera indices, under the names of `LinkScores`."""
    truth = _true_links(steps, true)
    tally: dict[_Pair, Counter[str]] = {pair: Counter() for pair in combinations(range(cameras), 2)}
    found: set[tuple[int, _Pair]] = set()
    for ends in _majorities(steps, true, said).values():
        for pair in combinations(sorted(ends), 2):
            first, second = ends[pair[0]], ends[pair[1]]
            right = first == second and first is not None
            tally[pair].update(predicted=1, right=int(right), unmatched=int(None in (first, second)))
            if right and first is not None:
                found.add((first, pair))
    for links, key in ((truth, "truth"), (found, "found")):
        for _, pair in links:
            tally[pair][key] += 1
    return tally


def _true_links(steps: Sequence[_Step], true: _Table) -> set[tuple[int, _Pair]]:
    cameras: dict[int, set[int]] = defaultdict(set)
    for step in steps:
        for vehicle in true.ids[step.truth].tolist():
            cameras[vehicle].add(step.camera)
    return {(vehicle, pair) for vehicle, seen in cameras.items() for pair in combinations(sorted(seen), 2)}


def _majorities(steps: Sequence[_Step], true: _Table, said: _Table) -> dict[int, dict[int, int | None]]:
    """Says which true vehicle each predicted one is in each camera: most of its matched boxes, the earlier on a tie."""
    votes: dict[int, dict[int, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    for step in steps:
        for vehicle, match in zip(said.ids[step.predicted].tolist(), step.matches.tolist(), strict=True):
            ballot = votes[vehicle][step.camera]
            if match >= 0:
                ballot[int(true.ids[match])] += 1
    return {
        vehicle: {camera: ballot.most_common(1)[0][0] if ballot else None for camera, ballot in ballots.items()}
        for vehicle, ballots in votes.items()
    }


def _link_scores(name: str, links: Iterable[Mapping[str, int]]) -> LinkScores:
    total: Counter[str] = Counter()
    for counts in links:
        total.update(counts)
    return LinkScores(
        name, total["truth"], total["found"], total["predicted"], right=total["right"], unmatched=total["unmatched"]
    )


def _modality_links(pairs: Mapping[_Pair, Mapping[str, int]], modalities: Sequence[str]) -> tuple[LinkScores, ...]:
    order = [*Modality, UNKNOWN]
    groups: dict[tuple[str, str], list[Mapping[str, int]]] = defaultdict(list)
    for pair, counts in pairs.items():
        ends = [modalities[end] if modalities[end] in order else UNKNOWN for end in pair]
        first, second = sorted(ends, key=order.index)
        groups[first, second].append(counts)
    ranked = sorted(groups, key=lambda ends: (order.index(ends[0]), order.index(ends[1])))
    return tuple(_link_scores("~".join(_LABELS.get(end, end) for end in ends), groups[ends]) for ends in ranked)
