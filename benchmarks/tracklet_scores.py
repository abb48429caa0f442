"""How well tracklets were joined to vehicles: IDF1 and links, where every tracklet is one true vehicle's alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from road_traffic import TrueTracklet
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

LABELS = {"visible": "RGB", "near_infrared": "NIR", "thermal": "thermal"}


@dataclass(slots=True)
class LinkCounts:
    """Links as `streamer.scoring` has them: a vehicle and a pair of cameras that both saw it."""

    truth: int = 0
    predicted: int = 0
    right: int = 0

    @property
    def precision(self) -> float:
        """Right over predicted; NaN where nothing was predicted."""
        return self.right / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        """Right over true; NaN where nothing is true."""
        return self.right / self.truth if self.truth else float("nan")


@dataclass(slots=True)
class Scores:
    """What one way to join tracklets is worth.

    Attributes:
        idf1: Over the tracklets' frames, 0-1.
        identities: How many vehicles were told apart.
        links: All pairs of cameras together.
        by_modality: The same by pair of modalities, `RGB~thermal`.
    """

    idf1: float
    identities: int
    links: LinkCounts = field(default_factory=LinkCounts)
    by_modality: dict[str, LinkCounts] = field(default_factory=dict)


def score(truth: Mapping[str, TrueTracklet], said: Mapping[str, str]) -> Scores:
    """Scores identities by tracklet id against the truth; a tracklet that `said` lacks is a vehicle of its own."""
    names = {tracklet: said.get(tracklet, f"alone/{tracklet}") for tracklet in truth}
    scores = Scores(idf1(truth, names), len(set(names.values())))
    true_ends = _ends(truth, {tracklet: true.vehicle for tracklet, true in truth.items()})
    said_ends = _ends(truth, names)
    found = set()
    for ends in said_ends.values():
        for pair in combinations(sorted(ends), 2):
            vehicles = {ends[camera][0] for camera in pair}
            for counts in _counts(scores, ends, pair):
                counts.predicted += 1
            if len(vehicles) == 1:
                found.add((vehicles.pop(), pair))
    for vehicle, ends in true_ends.items():
        for pair in combinations(sorted(ends), 2):
            for counts in _counts(scores, ends, pair):
                counts.truth += 1
                counts.right += (vehicle, pair) in found
    return scores


def idf1(truth: Mapping[str, TrueTracklet], names: Mapping[str, str]) -> float:
    """IDF1 (Ristani et al., ECCV-W 2016) of the tracklets' frames under the names given to all of them.

    Every frame is predicted and true, so that IDF1 is the share of frames under the one name that fits its vehicle
    best, names and vehicles assigned one to one. Solved apart for each group that names and vehicles tie together.
    """
    weights: Counter[tuple[int, str]] = Counter()
    for tracklet, true in truth.items():
        weights[true.vehicle, names[tracklet]] += true.frames
    vehicle_rows = {vehicle: row for row, vehicle in enumerate(dict.fromkeys(vehicle for vehicle, _ in weights))}
    name_columns = {name: column for column, name in enumerate(dict.fromkeys(name for _, name in weights))}
    rows = np.array([vehicle_rows[vehicle] for vehicle, _ in weights])
    columns = np.array([name_columns[name] for _, name in weights])
    frames = np.array(list(weights.values()), float)
    size = len(vehicle_rows) + len(name_columns)
    _, groups = connected_components(coo_array((frames, (rows, columns + len(vehicle_rows))), shape=(size, size)))
    order = np.argsort(groups[rows], kind="stable")
    best = 0.0
    for part in np.split(order, np.flatnonzero(np.diff(groups[rows][order])) + 1):
        own_rows, row = np.unique(rows[part], return_inverse=True)
        own_columns, column = np.unique(columns[part], return_inverse=True)
        overlap = np.zeros((len(own_rows), len(own_columns)))
        overlap[row, column] = frames[part]
        best += float(overlap[linear_sum_assignment(overlap, maximize=True)].sum())
    return best / float(frames.sum())


def total(runs: Sequence[Scores]) -> Scores:
    """Mean IDF1, and summed identities and links, of several runs."""
    summed = Scores(float(np.mean([run.idf1 for run in runs])), sum(run.identities for run in runs))
    for run in runs:
        _accumulate(summed.links, run.links)
        for name, counts in run.by_modality.items():
            _accumulate(summed.by_modality.setdefault(name, LinkCounts()), counts)
    return summed


def _accumulate(summed: LinkCounts, counts: LinkCounts) -> None:
    summed.truth += counts.truth
    summed.predicted += counts.predicted
    summed.right += counts.right


#: By camera: the true vehicle of most of the frames there, and the camera's modality.
_Ends = dict[str, tuple[int, str]]


def _ends(truth: Mapping[str, TrueTracklet], names: Mapping[str, object]) -> dict[object, _Ends]:
    votes: dict[object, dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    modality = {}
    for tracklet, true in truth.items():
        votes[names[tracklet]][true.camera][true.vehicle] += true.frames
        modality[true.camera] = true.modality.value
    return {
        name: {camera: (ballot.most_common(1)[0][0], modality[camera]) for camera, ballot in ballots.items()}
        for name, ballots in votes.items()
    }


def _counts(scores: Scores, ends: _Ends, pair: tuple[str, str]) -> tuple[LinkCounts, LinkCounts]:
    first, second = sorted((ends[camera][1] for camera in pair), key=list(LABELS).index)
    name = f"{LABELS[first]}~{LABELS[second]}"
    return scores.links, scores.by_modality.setdefault(name, LinkCounts())
