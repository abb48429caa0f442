"""Retrieval quality: `python -m reid.evaluate --weights W --data DIR --split test`."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from reid.command import run_command
from reid.datasets import Sample, read_picture, read_samples
from reid.embedder import Embedder
from reid.errors import DatasetError
from reid.modality import Modality
from reid.ranking import Scores, rank

RANKS = (1, 5, 10, 20)


class Protocol(StrEnum):
    """What a query's gallery leaves out.

    ALL: only the query itself. SAME_SCENE: also the same vehicle in the same scene. SAME_CAMERA: also the
    same vehicle from the same camera, or view where no camera is known. TRACKLETS: everything of the same
    camera and of other sites; what the stream's matcher faces.
    """

    ALL = "all"
    SAME_SCENE = "same_scene"
    SAME_CAMERA = "same_camera"
    TRACKLETS = "tracklets"


@dataclass(frozen=True, slots=True)
class Result:
    """Scores of one direction."""

    query: Modality
    gallery: Modality
    protocol: Protocol
    scores: Scores
    ms_per_query: float

    def record(self) -> dict[str, str | int | float]:
        """As a flat JSON record, scores in 0-1."""
        ranks = {f"rank{n}": round(float(self.scores.cmc[n - 1]), 5) for n in RANKS}
        return {
            "ranker": "embedding",
            "query": self.query.value,
            "gallery": self.gallery.value,
            "protocol": self.protocol.value,
            "queries": self.scores.queries,
            "excluded": self.scores.excluded,
            "mAP": round(self.scores.mean_ap, 5),
            "mINP": round(self.scores.mean_inp, 5),
            **ranks,
            "ms_per_query": round(self.ms_per_query, 4),
        }


def evaluate(
    vectors: NDArray[np.float32],
    samples: Sequence[Sample],
    protocol: Protocol,
    queries: NDArray[np.bool_] | None = None,
) -> list[Result]:
    """Score every direction between the modalities that occur.

    Args:
        vectors: (N, D) unit norm.
        samples: what the N vectors show.
        protocol: what galleries leave out.
        queries: (N,) which may be queries; the others are distractors. All when None.

    Returns:
        One result per ordered pair of modalities.
    """
    bands = np.array([sample.modality.value for sample in samples])
    asked = np.ones(len(samples), dtype=np.bool_) if queries is None else queries
    present = [modality for modality in Modality if modality in bands]
    results = []
    for query in present:
        for gallery in present:
            rows, columns = np.flatnonzero((bands == query) & asked), np.flatnonzero(bands == gallery)
            if len(rows):
                scores, milliseconds = _score(vectors, samples, protocol, rows, columns)
                results.append(Result(query, gallery, protocol, scores, milliseconds))
    return results


def _score(
    vectors: NDArray[np.float32],
    samples: Sequence[Sample],
    protocol: Protocol,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> tuple[Scores, float]:
    """Scores of one direction, and milliseconds per query to compare and rank."""
    labels = _codes([(sample.site, sample.vehicle) for sample in samples])
    removed = _removed(samples, labels, protocol, rows, columns)
    started = time.perf_counter()
    scores = rank(vectors[rows] @ vectors[columns].T, labels[rows], labels[columns], removed)
    return scores, (time.perf_counter() - started) * 1000 / len(rows)


def _removed(
    samples: Sequence[Sample],
    labels: NDArray[np.int64],
    protocol: Protocol,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """(Q, G), true where a gallery picture is not in a query's gallery."""

    def same(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(codes[rows][:, None] == codes[columns][None, :], dtype=np.bool_)

    itself: NDArray[np.bool_] = rows[:, None] == columns[None, :]
    if protocol is Protocol.TRACKLETS:
        return same(_codes([s.camera for s in samples])) | ~same(_codes([s.site for s in samples]))
    if protocol is Protocol.SAME_SCENE:
        return itself | (same(labels) & same(_codes([s.scene for s in samples])))
    if protocol is Protocol.SAME_CAMERA:
        return itself | (same(labels) & same(_codes([s.camera or s.view for s in samples])))
    return itself


def _codes(values: Sequence[object]) -> NDArray[np.int64]:
    """Number equal values alike."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def protocols_for(samples: Sequence[Sample]) -> list[Protocol]:
    """Protocols the columns of a data set allow."""
    allowed = [Protocol.ALL]
    if all(sample.scene for sample in samples):
        allowed.append(Protocol.SAME_SCENE)
    if all(sample.camera or sample.view for sample in samples):
        allowed.append(Protocol.SAME_CAMERA)
    return allowed


def average_tracklets(
    vectors: NDArray[np.float32], samples: Sequence[Sample], crops: int
) -> tuple[NDArray[np.float32], list[Sample], NDArray[np.int64]]:
    """Average the crops of each vehicle in each camera, as the stream does.

    Args:
        vectors: (N, D) unit norm.
        samples: what they show, with cameras.
        crops: how many crops of a tracklet to average at most, evenly over its rows.

    Returns:
        (T, D) unit norm, T samples that stand for the tracklets, (T,) index of each one's first row.

    Raises:
        DatasetError: a sample without a camera.
    """
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if not sample.camera:
            raise DatasetError(f"{sample.path}: tracklets need the column camera in samples.csv")
        members[sample.site, sample.camera, sample.vehicle].append(index)
    chosen = [np.array(own)[_spread(len(own), crops)] for own in members.values()]
    means = np.stack([vectors[own].mean(axis=0) for own in chosen])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    firsts = np.array([own[0] for own in members.values()], dtype=np.int64)
    return means, [samples[first] for first in firsts], firsts


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """Up to `count` indices spread evenly over `total`, the middle one for one."""
    count = min(count, total)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)


def embed_samples(embedder: Embedder, samples: Sequence[Sample], batch: int = 64) -> NDArray[np.float32]:
    """Decode and embed N samples: (N, D) float32."""
    parts = []
    for start in track(range(0, len(samples), batch), "embedding", console=Console(stderr=True), transient=True):
        chosen = samples[start : start + batch]
        pictures = [read_picture(sample.path) for sample in chosen]
        parts.append(embedder.embed(pictures, [sample.modality for sample in chosen]))
    return np.concatenate(parts)


def table_of(results: Sequence[Result], title: str) -> Table:
    """A table for the terminal, one row a direction."""
    columns = ("query", "gallery", "protocol", "queries", "excluded", "mAP", "mINP", *(f"rank{n}" for n in RANKS))
    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for result in results:
        record = result.record()
        table.add_row(*(f"{v:.3f}" if isinstance(v := record[name], float) else str(v) for name in columns))
    return table


def main(
    weights: Annotated[Path, typer.Option(help="A .pt file or an *_openvino_model folder.")],
    data: Annotated[Path, typer.Option(help="Folder with samples.csv.")],
    split: Annotated[str | None, typer.Option(help="Rows to ask about; default: all.")] = None,
    distractors: Annotated[str | None, typer.Option(help="Split that joins the galleries only.")] = None,
    tracklets: Annotated[int, typer.Option(help="Average so many crops per vehicle and camera.", min=0)] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write records here.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
) -> None:
    """Rank every modality against every other and print CMC, mAP and mINP."""
    cv2.setNumThreads(1)
    embedder = Embedder(weights, threads=threads)
    samples = read_samples(data, split)
    asked = len(samples)
    samples += read_samples(data, distractors) if distractors else []
    vectors = embed_samples(embedder, samples)
    queries = np.arange(len(samples)) < asked
    protocols = protocols_for(samples)
    if tracklets:
        vectors, samples, firsts = average_tracklets(vectors, samples, tracklets)
        queries, protocols = queries[firsts], [Protocol.TRACKLETS]
    results = [result for protocol in protocols for result in evaluate(vectors, samples, protocol, queries)]
    Console(width=120).print(table_of(results, f"{embedder.info.model_id} on {data} {split or ''}"))
    if json_file:
        json_file.write_text(json.dumps([result.record() for result in results], indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
