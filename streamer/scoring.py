"""Identity scores of predicted vehicle boxes against the truth: arrays in, figures out. No files, no database.

All cameras together form one sequence: each camera's frames come after the last frame of the one before, in the order
of the cameras' names. A vehicle seen in three cameras is thus one identity with three appearances, and a tracker that
calls it by three names pays for it. TrackEval's own way, one sequence a camera, would sum up identities per camera and
never look across.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from trackeval.metrics import CLEAR, HOTA, Count, Identity

from reid.modality import Modality
from streamer.box_matching import (
    MIN_IOU,
    EvaluationError,
    Ints,
    PredictedBoxes,
    Step,
    Table,
    TruthBoxes,
    lay_out,
    match_steps,
    sort_boxes,
)

__all__ = [
    "CameraScores",
    "Evaluation",
    "EvaluationError",
    "LinkScores",
    "OverallScores",
    "PredictedBoxes",
    "TruthBoxes",
    "evaluate",
]

UNKNOWN = "unknown"
_LABELS: dict[str, str] = {Modality.VISIBLE: "RGB", Modality.NEAR_INFRARED: "NIR", Modality.THERMAL: "thermal"}


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
    timeline = lay_out(truth, from_t, until_t)
    true = sort_boxes("truth", truth, timeline, truth.evaluated)
    said = sort_boxes("prediction", predicted, timeline, np.ones(len(predicted.boxes), dtype=bool))
    if not true.evaluated.any():
        raise EvaluationError(f"no evaluated truth box between {from_t:g} and {until_t:g} seconds")
    steps = list(match_steps(true, said))
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


def _sequence(steps: Sequence[Step], true: Table, said: Table) -> dict[str, Any]:
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


def _renumbered(ids: Sequence[Ints]) -> list[Ints]:
    if not ids:
        return []
    _, inverse = np.unique(np.concatenate(ids), return_inverse=True)
    return np.split(inverse.astype(np.int64), np.cumsum([len(part) for part in ids])[:-1])


def _count_ids(ids: Sequence[Ints]) -> int:
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


def _overall_scores(steps: Sequence[Step], true: Table, said: Table) -> OverallScores:
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


def _camera_scores(camera: str, modality: str, steps: Sequence[Step], true: Table, said: Table) -> CameraScores:
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


def _links(steps: Sequence[Step], true: Table, said: Table, cameras: int) -> dict[_Pair, Counter[str]]:
    """Counts true and predicted links by pair of camera indices, under the names of `LinkScores`."""
    truth = _true_links(steps, true)
    tally: dict[_Pair, Counter[str]] = {pair: Counter() for pair in combinations(range(cameras), 2)}
    found: set[tuple[int, _Pair]] = set()
    for ends in _majorities(steps, true, said).values():
        for pair in combinations(sorted(ends), 2):
            first, second = ends[pair[0]], ends[pair[1]]
            tally[pair].update(predicted=1, unmatched=int(None in (first, second)))
            if first is not None and first == second:
                tally[pair].update(right=1)
                found.add((first, pair))
    for links, key in ((truth, "truth"), (found, "found")):
        for _, pair in links:
            tally[pair][key] += 1
    return tally


def _true_links(steps: Sequence[Step], true: Table) -> set[tuple[int, _Pair]]:
    cameras: dict[int, set[int]] = defaultdict(set)
    for step in steps:
        for vehicle in true.ids[step.truth].tolist():
            cameras[vehicle].add(step.camera)
    return {(vehicle, pair) for vehicle, seen in cameras.items() for pair in combinations(sorted(seen), 2)}


def _majorities(steps: Sequence[Step], true: Table, said: Table) -> dict[int, dict[int, int | None]]:
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
