"""Stored tracklets with the vehicle that each of them truly is, where a site's truth is known."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reid.modality import Modality
from storage.database import Database
from storage.matcher_state import load_paths, load_regions, load_tracklets
from streamer.box_matching import MIN_IOU, EvaluationError, TruthBoxes, intersection_over_union
from streamer.matcher.tracklet import Tracklet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storage.matcher_state import StoredTracklet
    from storage.paths import PathPoints

#: Of a tracklet's boxes, how many must be one true vehicle for the tracklet to be it.
_MAJORITY = 0.5
#: By camera and frame, the true vehicles and (N, 4) their boxes.
_Frames = dict[tuple[str, int], tuple[list[str], NDArray[np.float64]]]


@dataclass(frozen=True, slots=True)
class LabelledTracklet:
    """A stored tracklet whose true vehicle is known.

    Attributes:
        camera: The camera's id.
        vehicle: The truth's name for the vehicle, unique over all sites that are read together.
        model_id: The embedder.
        vectors: By modality, (D,) float32, unit norm.
        tokens: By modality, packed points, where some are stored.
        decided: The vehicle that the matcher decided it to be; None where it has not.
        score: Log-odds that it gave for that; None of a vehicle seen once.
    """

    camera: str
    vehicle: str
    model_id: str
    vectors: dict[Modality, NDArray[np.float32]]
    tokens: dict[Modality, bytes] = field(default_factory=dict)
    decided: str | None = None
    score: float | None = None

    def seen(self) -> Tracklet:
        """What the matcher would hold of its looks."""
        return Tracklet("", self.camera, "", 0.0, 0.0, {}, self.vectors)


def label_tracklets(url: str, truth: TruthBoxes, name: str) -> list[LabelledTracklet]:
    """The stored tracklets that are, by the majority of their boxes, one true vehicle.

    Args:
        url: The database of a run.
        truth: Of the same site.
        name: Goes before the truth's vehicle numbers, so that several sites can be joined.

    Raises:
        StorageError: The database can't be read.
    """
    paths, stored = _read(url)
    true = true_vehicles(truth, paths)
    labelled = []
    for entry in stored:
        record, vectors = entry.tracklet, {Modality(e.modality): e.vector for e in entry.embeddings}
        vehicle = true.get(record.tracklet_id)
        if vehicle is not None and vectors:
            model_id = entry.embeddings[0].model_id
            tokens = {Modality(e.modality): e.tokens for e in entry.embeddings if e.tokens is not None}
            decided = entry.assignment
            labelled.append(
                LabelledTracklet(
                    record.camera,
                    f"{name}-{vehicle}",
                    model_id,
                    vectors,
                    tokens,
                    decided.vehicle_id if decided else None,
                    decided.score if decided else None,
                )
            )
    return labelled


def true_vehicles(truth: TruthBoxes, paths: Mapping[str, PathPoints]) -> dict[str, str]:
    """The true vehicle of each tracklet, by its id and the truth's number; those that are none by majority are missing.

    Args:
        truth: Of a site.
        paths: By tracklet id, which begins with the camera.
    """
    boxes = _by_frame(truth)
    found = {name: _true_vehicle(name.split("/")[0], path, boxes) for name, path in paths.items()}
    return {name: vehicle for name, vehicle in found.items() if vehicle is not None}


def trained_vehicles(path: Path) -> set[str]:
    """The vehicles of a `samples.csv` that a network was trained on: those of its split `train`.

    Raises:
        EvaluationError: No such file, or one without the columns `vehicle` and `split`.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["vehicle"] for row in csv.DictReader(file) if row["split"] == "train"}
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror or error}") from error
    except KeyError as error:
        raise EvaluationError(f"{path}: wanted the columns vehicle and split, {error} is missing") from error


def _read(url: str) -> tuple[dict[str, PathPoints], list[StoredTracklet]]:
    database = Database.open(url, must_exist=True)
    try:
        with database.snapshot() as session:
            regions = load_regions(session)
            stored = [entry for region in regions for entry in load_tracklets(session, region)]
            paths = {name: path for region in regions for name, path in load_paths(session, region).items()}
    finally:
        database.close()
    return paths, [entry for entry in stored if entry.tracklet.tracklet_id in paths]


def _by_frame(truth: TruthBoxes) -> _Frames:
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in np.flatnonzero(truth.evaluated):
        rows[str(truth.cameras[row]), int(truth.frames[row])].append(int(row))
    return {key: ([str(truth.vehicles[row]) for row in found], truth.boxes[found]) for key, found in rows.items()}


def _true_vehicle(camera: str, path: PathPoints, boxes: _Frames) -> str | None:
    votes: Counter[str] = Counter()
    for frame, box in zip(path.frames, path.boxes, strict=True):
        names, true = boxes.get((camera, int(frame)), ([], np.zeros((0, 4))))
        if names:
            overlap = intersection_over_union(true, box[np.newaxis].astype(np.float64))[:, 0]
            best = int(overlap.argmax())
            if overlap[best] >= MIN_IOU:
                votes[names[best]] += 1
    if not votes:
        return None
    vehicle, count = votes.most_common(1)[0]
    return vehicle if count >= _MAJORITY * sum(votes.values()) else None
