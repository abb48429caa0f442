"""`python -m streamer.calibrate`: what similarity says at a site whose truth is known, per pair of modalities."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reid.modality import Modality
from storage.database import Database
from storage.errors import StorageError
from storage.matcher_state import load_regions, load_tracklets
from storage.trajectories import trajectory, vehicles
from streamer.box_matching import MIN_IOU, EvaluationError, TruthBoxes, intersection_over_union
from streamer.evaluate import read_truth
from streamer.matcher.calibration import Calibration, ModalityPair, fit_logistic, modality_pair, save_calibration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.matcher_state import StoredTracklet
    from storage.trajectories import PathPoints

app = typer.Typer(add_completion=False)

#: (N,) cosine similarities, and (N,) whether both are one vehicle.
Similarities = tuple[NDArray[np.float64], NDArray[np.bool_]]

#: Of a tracklet's boxes, how many must be one true vehicle for the tracklet to be it.
_MAJORITY = 0.5


@dataclass(frozen=True, slots=True)
class LabelledTracklet:
    """A stored tracklet whose true vehicle is known.

    Attributes:
        camera: The camera's id.
        vehicle: The truth's name for the vehicle, unique over all sites that are read together.
        model_id: The embedder.
        vectors: By modality, (D,) float32, unit norm.
        tokens: By modality, packed points, where some are stored.
    """

    camera: str
    vehicle: str
    model_id: str
    vectors: dict[Modality, NDArray[np.float32]]
    tokens: dict[Modality, bytes] = field(default_factory=dict)


def mean_vectors(tracklets: Sequence[LabelledTracklet]) -> dict[Modality, NDArray[np.float32]]:
    """Mean vector (D,) float32 of each modality: what all its vehicles share."""
    vectors: dict[Modality, list[NDArray[np.float32]]] = defaultdict(list)
    for tracklet in tracklets:
        for modality, vector in tracklet.vectors.items():
            vectors[modality].append(vector)
    return {modality: np.mean(found, axis=0).astype(np.float32) for modality, found in sorted(vectors.items())}


def pair_similarities(tracklets: Sequence[LabelledTracklet], centring: Calibration) -> dict[ModalityPair, Similarities]:
    """Similarities of every two tracklets of different cameras, and whether both are one vehicle, by modality pair."""
    found: dict[ModalityPair, list[tuple[float, bool]]] = defaultdict(list)
    for first, second in combinations(tracklets, 2):
        if first.camera == second.camera:
            continue
        for modality, vector in first.vectors.items():
            for other, candidate in second.vectors.items():
                similarity = float(centring.centred(modality, vector) @ centring.centred(other, candidate))
                found[modality_pair(modality, other)].append((similarity, first.vehicle == second.vehicle))
    return {
        pair: (np.array([row[0] for row in rows]), np.array([row[1] for row in rows], bool))
        for pair, rows in sorted(found.items())
    }


def ranking_quality(similarity: NDArray[np.float64], is_same: NDArray[np.bool_]) -> float:
    """Chance that a pair of one vehicle is more alike than a pair of two (the area under the ROC curve)."""
    ranks = np.empty(len(similarity))
    ranks[np.argsort(similarity, kind="stable")] = np.arange(1, len(similarity) + 1)
    same, different = int(is_same.sum()), int((~is_same).sum())
    return float((ranks[is_same].sum() - same * (same + 1) / 2) / (same * different))


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
    boxes = _by_frame(truth)
    labelled = []
    for entry in stored:
        record, vectors = entry.tracklet, {Modality(e.modality): e.vector for e in entry.embeddings}
        vehicle = _true_vehicle(record.camera, paths[record.tracklet_id], boxes)
        if vehicle is not None and vectors:
            model_id = entry.embeddings[0].model_id
            tokens = {Modality(e.modality): e.tokens for e in entry.embeddings if e.tokens is not None}
            labelled.append(LabelledTracklet(record.camera, f"{name}-{vehicle}", model_id, vectors, tokens))
    return labelled


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
            stops = [stop for one in vehicles(session) for stop in trajectory(session, one.vehicle_id).stops]
            stored = [entry for region in load_regions(session) for entry in load_tracklets(session, region)]
    finally:
        database.close()
    paths = {stop.tracklet_id: stop.path for stop in stops}
    return paths, [entry for entry in stored if entry.tracklet.tracklet_id in paths]


Frames = dict[tuple[str, int], tuple[list[str], NDArray[np.float64]]]


def _by_frame(truth: TruthBoxes) -> Frames:
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in np.flatnonzero(truth.evaluated):
        rows[str(truth.cameras[row]), int(truth.frames[row])].append(int(row))
    return {key: ([str(truth.vehicles[row]) for row in found], truth.boxes[found]) for key, found in rows.items()}


def _true_vehicle(camera: str, path: PathPoints, boxes: Frames) -> str | None:
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


@app.command()
def main(
    database: Annotated[list[str], typer.Option(help="URL of a run's database; may be given several times.")],
    truth: Annotated[list[Path], typer.Option(help="truth.csv of that run's site; as many as databases.")],
    trained_on: Annotated[
        Path | None, typer.Option(help="samples.csv of `reid.site_crops`: vehicles of its split `train` are left out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the fits here; `matcher.calibration` reads them.")] = None,
) -> None:
    """Fit what a similarity says for two tracklets being one vehicle, from runs whose truth is known.

    Vehicles that the embedder was trained on look more alike to it than any that it will meet: leave them out. A
    vehicle's name is its site's folder and its number in the truth, `site_train-44`.
    """
    if len(database) != len(truth):
        _fail(f"wanted one --truth for each --database, got {len(truth)} and {len(database)}")
    labelled: list[list[LabelledTracklet]] = []
    try:
        for url, path in zip(database, truth, strict=True):
            labelled.append(label_tracklets(url, read_truth(path), path.resolve().parent.name))
        known = trained_vehicles(trained_on) if trained_on else set()
    except (StorageError, EvaluationError) as error:
        _fail(str(error))
    calibration = _fit([[tracklet for tracklet in site if tracklet.vehicle not in known] for site in labelled])
    if out is not None:
        save_calibration(out, calibration)


def _fit(sites: Sequence[Sequence[LabelledTracklet]]) -> Calibration:
    models = {tracklet.model_id for site in sites for tracklet in site}
    if len(models) != 1:
        _fail(f"wanted vectors of one embedder, got {', '.join(sorted(models)) or 'none'}")
    centring = Calibration(models.pop(), {}, mean_vectors([tracklet for site in sites for tracklet in site]))
    found: dict[ModalityPair, list[Similarities]] = defaultdict(list)
    for site in sites:
        for pair, similarities in pair_similarities(site, centring).items():
            found[pair].append(similarities)
    table = Table("pair", "same", "different", "AUC", "slope", "intercept", title="Similarity as evidence")
    fits = {}
    for pair, parts in sorted(found.items()):
        similarity, is_same = (np.concatenate(column) for column in zip(*parts, strict=True))
        fit = fits[pair] = fit_logistic(similarity, is_same)
        quality = ranking_quality(similarity, is_same)
        counts = (str(int(is_same.sum())), str(int((~is_same).sum())))
        table.add_row("~".join(pair), *counts, f"{quality:.3f}", f"{fit.slope:.2f}", f"{fit.intercept:.2f}")
    Console().print(table)
    return replace(centring, fits=fits)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
