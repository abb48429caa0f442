"""What each part of PORSCHE adds: the same training with one part more in each row, over several seeds.

    python benchmarks/ablation.py --data ../shared/data/reid_synthetic --scale 0.1

Every row sees as many pictures, of the same size, augmentation and schedule; a second stage takes a second optimiser
step on each batch, which the minutes show. Scores are of the split that is asked for, protocol `all`. Intervals: 95 %,
vehicles and seeds drawn anew together. A run that was finished before is read from `--out`, not run again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reid.command import run_command
from reid.config import TrainConfig
from reid.datasets import Sample
from reid.embedder import Embedder
from reid.evaluation_data import describe_samples
from reid.intervals import Interval, resampled_means
from reid.layouts import read_dataset
from reid.modality import Modality
from reid.protocols import Protocol
from reid.rankers import EmbeddingRanker, PointRanker, Ranker, ShortListRanker
from reid.retrieval import directions, evaluate_ranker
from reid.train import build_fabric, load_sources, run
from reid.trainer import Trainer

BASE = Path(__file__).parents[1] / "configs" / "reid" / "ablation.yaml"
# Tiles of the paper's size in pixels: at half its height and width, half as many a side.
COARSE = {"tiles": 2, "layer": "layer3", "dimension": 256}
WHOLE = {"tiles": 1, "layer": "layer3", "dimension": 256}
MATCHER = {"channels": 64, "feed_forward": 512, "head": 512}
#: Each row changes the one before.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "baseline": {},
    "+ PAM": {"model": {"stages": [COARSE]}, "loss": {"consistency": 0.01}},
    "+ POM": {"model": {"matcher": MATCHER}},
    "+ second stage, stepped": {"model": {"stages": [COARSE, WHOLE]}},
    "+ extras": {
        "model": {"embedding_stages": [0, 1], "matching_stage": 1, "matcher": {**MATCHER, "pairs": "all"}},
        "loss": {"label_smoothing": 0.1, "matching": 0.3},
        "optimiser": {"ema_decay": 0.99},
    },
    "- PAM": {"model": {"stages": [WHOLE, WHOLE]}},
}
#: What the mean is over: the directions between visible and infrared.
CROSSING = tuple(
    pair
    for infrared in (Modality.NEAR_INFRARED, Modality.THERMAL)
    for pair in ((Modality.VISIBLE, infrared), (infrared, Modality.VISIBLE))
)
Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run.

    Attributes:
        minutes: wall time of training.
        pictures: seen in training.
        scores: per `ranker visible->thermal` the average precision of every query.
    """

    minutes: float
    pictures: int
    scores: Scores


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change nested keys; lists are replaced whole."""
    deep = {k: merged(values.get(k) or {}, v) for k, v in changes.items() if isinstance(v, Mapping)}
    return {**values, **changes, **deep}


def row_config(row: str, data: Path, scale: float, seed: int) -> TrainConfig:
    """The configuration of a row: all changes up to its own."""
    values = yaml.safe_load(BASE.read_text())
    for name, changes in ROWS.items():
        values = merged(values, changes)
        if name == row:
            break
    epochs = max(1, round(values["epochs"] * scale))
    sources = [{"path": data, "split": "train"}]
    return TrainConfig.model_validate({**values, "sources": sources, "epochs": epochs, "seed": seed})


def run_row(config: TrainConfig, folder: Path, samples: Sequence[Sample]) -> Outcome:
    """Train and rank, or read what an earlier call with the same configuration and samples left."""
    asked = [str(sample.path) for sample in samples]
    key = hashlib.sha256(json.dumps([config.model_dump(mode="json"), asked], sort_keys=True).encode()).hexdigest()[:8]
    done = folder / f"outcome-{key}.npz"
    if not done.exists():
        started = time.monotonic()
        trainer = Trainer(config, load_sources(config), build_fabric(config, 1))
        run(trainer, folder)
        minutes = (time.monotonic() - started) / 60
        scores = rank_all(folder / "model.pt", samples)
        partial = done.with_name("outcome.part.npz")
        np.savez(partial, minutes=minutes, pictures=trainer.pictures_seen, **scores)  # type: ignore[arg-type]
        partial.rename(done)
    with np.load(done) as stored:
        scores = {name: stored[name] for name in stored.files if "->" in name}
        return Outcome(float(stored["minutes"]), int(stored["pictures"]), scores)


def rank_all(weights: Path, samples: Sequence[Sample]) -> Scores:
    """Average precision of every query by embedding, and re-ranked where there is a matcher."""
    embedder = Embedder(weights)
    described = describe_samples(embedder, samples)
    embedding = EmbeddingRanker(described.vectors)
    rankers: list[Ranker] = [embedding]
    if described.tokens is not None:
        rankers.append(ShortListRanker(PointRanker(embedding, described.tokens, embedder.score, mix=0.0)))
    chosen = [d for d in directions(samples) if (d.query, d.gallery) in CROSSING or d.query is d.gallery]
    results = [result for ranker in rankers for result in evaluate_ranker(ranker, samples, Protocol.ALL, chosen)]
    return {f"{r.ranker} {r.query}->{r.gallery}": r.scores.average_precisions for r in results}


def by_seed(outcomes: Iterable[Outcome], ranker: str) -> NDArray[np.float64] | None:
    """(seeds, queries of all crossing directions) average precisions; None without that ranker."""
    names = [f"{ranker} {query}->{gallery}" for query, gallery in CROSSING]
    runs = [o.scores for o in outcomes]
    if names[0] not in runs[0]:
        return None
    return np.array([np.concatenate([scores[name] for name in names]) for scores in runs])


def interval(values: NDArray[np.float64], vehicles: NDArray[np.int64]) -> Interval:
    """Percentile interval of a mean over seeds and queries, both drawn anew.

    Args:
        values: (seeds, queries).
        vehicles: (queries,) whose queries they are: a vehicle's are drawn together.
    """
    # The same seed of the draws: every run is judged by the same vehicles.
    means = np.array([resampled_means(own, vehicles) for own in values])  # (seeds, draws)
    drawn = np.random.default_rng(1).integers(len(values), size=means.shape)
    low, high = np.quantile(np.take_along_axis(means, drawn, axis=0).mean(axis=0), [0.025, 0.975])
    return Interval(float(low), float(values.mean()), float(high))


def query_vehicles(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Vehicles of the queries that `by_seed` holds, in its order."""
    numbers = {name: i for i, name in enumerate(sorted({sample.vehicle for sample in samples}))}
    of = {m: [numbers[s.vehicle] for s in samples if s.modality is m] for m in Modality}
    return np.array([vehicle for query, _ in CROSSING for vehicle in of[query]], dtype=np.int64)


def words(interval: Interval) -> str:
    """In points of mAP."""
    return f"{100 * interval.mean:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def print_tables(rows: Mapping[str, Sequence[Outcome]], vehicles: NDArray[np.int64], console: Console) -> None:
    """Two tables: directions by embedding, and the mean over those between visible and infrared."""
    pairs = [(Modality.VISIBLE, Modality.VISIBLE), *CROSSING]
    first = Table("row", "minutes", "pictures", *(f"{a} to {b}" for a, b in pairs), title="mAP by embedding")
    for name, runs in rows.items():
        minutes, pictures = np.mean([r.minutes for r in runs]), np.mean([r.pictures for r in runs])
        means = [np.mean([r.scores[f"embedding {a}->{b}"].mean() for r in runs]) for a, b in pairs]
        first.add_row(name, f"{minutes:.1f}", f"{pictures:.0f}", *(f"{mean:.3f}" for mean in means))
    console.print(first)
    columns = ("row", "embedding", "against the first", "seeds", "rerank", "against the first")
    second = Table(*columns, title="points of mAP between visible and infrared, 95 %")
    base = by_seed(next(iter(rows.values())), "embedding")
    for name, runs in rows.items():
        cells = [name]
        for ranker in ("embedding", "rerank"):
            values = by_seed(runs, ranker)
            if values is None or base is None:
                cells += ["", ""]
                continue
            cells += [words(interval(values, vehicles)), words(interval(values - base[: len(values)], vehicles))]
            if ranker == "embedding":
                cells.append(" ".join(f"{100 * mean:.1f}" for mean in values.mean(axis=1)))
        second.add_row(*cells)
    console.print(second)


def main(
    data: Annotated[Path, typer.Option(help="Folder with samples.csv and the splits train and test.")],
    split: Annotated[str, typer.Option(help="Whose scores are printed.")] = "test",
    scale: Annotated[float, typer.Option(help="Of the full 40 epochs; 0.1 for a machine without a GPU.")] = 1.0,
    seeds: Annotated[int, typer.Option(help="Runs a row.", min=1)] = 3,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/ablation"),
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write mAP by row, seed and direction.")] = None,
) -> None:
    """Train every row with every seed and print what each part adds."""
    if threads:
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    samples = read_dataset(data, split)
    rows: dict[str, list[Outcome]] = {name: [] for name in ROWS}
    # Seed by seed: cut short, whole comparisons are left.
    for seed in range(seeds):
        for name, outcomes in rows.items():
            folder = out / f"{name.replace(' ', '')}-{scale:g}-{seed}"
            outcomes.append(run_row(row_config(name, data, scale, seed), folder, samples))
        print_tables(rows, query_vehicles(samples), Console(width=160))
    if json_file:
        figures = {n: [{k: float(v.mean()) for k, v in o.scores.items()} for o in runs] for n, runs in rows.items()}
        json_file.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
