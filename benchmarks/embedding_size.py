"""Which features make the embedding, how many numbers, how many bits: a table of bytes against mAP.

Measured on a validation split. Directions are learned from the training split (uncentred principal components: with
all of them cosines stay as they are, and they would fold into one matrix behind the features).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reid.checkpoint import load_network
from reid.command import run_command
from reid.compaction import spread
from reid.datasets import Sample, load_pictures, read_samples
from reid.modality import Modality
from reid.model import AuxiliaryBranch, Porsche, normalise
from reid.protocols import Protocol
from reid.retrieval import Result, evaluate

DIMENSIONS = (256, 128, 64)
NUMBERS = {"float32": 4, "float16": 2, "int8": 1}
BASIS_SPLIT, BASIS_PICTURES = "train", 3000

Vectors = NDArray[np.float32]
#: Of N pictures, by stage and `after_neck` or `before_neck`: (N, D).
Features = dict[tuple[int, str], Vectors]


@dataclass(frozen=True, slots=True)
class Row:
    """How an embedding does.

    Attributes:
        stages: whose features are joined.
        feature: `after_neck` or `before_neck`.
        dimension: numbers of a vector.
        is_cut: principal components instead of the features themselves.
        numbers: how a number is written.
        bytes: of a picture.
        mean_ap: mAP, 0-1, the mean over directions.
        cross_mean_ap: over those between two modalities.
    """

    stages: tuple[int, ...]
    feature: str
    dimension: int
    is_cut: bool
    numbers: str
    bytes: int
    mean_ap: float
    cross_mean_ap: float


@torch.inference_mode()
def features_of(network: Porsche, samples: Sequence[Sample], device: str, batch: int = 64) -> Features:
    """Describe pictures once by every stage's branch; what `Porsche.describe` joins."""
    found: Features = {}
    size = (network.config.height, network.config.width)
    for modality in Modality:
        own = [index for index, sample in enumerate(samples) if sample.modality is modality]
        for start in range(0, len(own), batch):
            chosen = own[start : start + batch]
            pictures = normalise(torch.from_numpy(load_pictures([samples[i] for i in chosen], *size)).to(device))
            layers = network.trunk.layers(network.trunk.stem({modality: pictures}))
            for stage, branch in enumerate(network.branches):
                assert isinstance(branch, AuxiliaryBranch)
                output = branch(layers[network.config.stages[stage].layer])
                for name, value in (("after_neck", output.neck), ("before_neck", output.feature)):
                    shape = (len(samples), value.shape[1])
                    found.setdefault((stage, name), np.empty(shape, np.float32))[chosen] = value.float().cpu().numpy()
    return found


def joined(features: Features, stages: Sequence[int], feature: str) -> Vectors:
    """(N, D) embeddings of unit norm, as a network with these `embedding_stages` and `embedding_feature` makes."""
    return unit(np.concatenate([unit(features[stage, feature]) for stage in stages], axis=1))


def unit(vectors: Vectors) -> Vectors:
    """(N, D) -> (N, D) of unit norm."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def components(vectors: Vectors) -> Vectors:
    """(N, D) -> (D, D) orthonormal columns, the most important first."""
    _, found = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    return np.asarray(found[:, ::-1], dtype=np.float32)


def written(vectors: Vectors, numbers: str) -> Vectors:
    """Vectors as whoever receives them reads them; a cosine needs no scale to come along."""
    if numbers == "int8":
        return unit(np.rint(vectors / np.abs(vectors).max(axis=1, keepdims=True) * 127).astype(np.float32))
    return unit(vectors.astype(numbers).astype(np.float32))


def mean_aps(results: Sequence[Result]) -> tuple[float, float]:
    """Mean over all directions, and over those between two modalities."""
    every = [result.scores.mean_ap for result in results]
    cross = [result.scores.mean_ap for result in results if result.query is not result.gallery]
    return float(np.mean(every)), float(np.mean(cross or [np.nan]))


def rows_of(known: Features, asked: Features, samples: Sequence[Sample]) -> Iterator[Row]:
    """Measure every form.

    Args:
        known: features of training pictures.
        asked: features of the N validation pictures.
        samples: N.
    """
    stages = sorted({stage for stage, _ in asked})
    for chosen in [*((stage,) for stage in stages), *([tuple(stages)] if len(stages) > 1 else [])]:
        for feature in ("after_neck", "before_neck"):
            vectors, basis = joined(asked, chosen, feature), components(joined(known, chosen, feature))
            for dimension in (vectors.shape[1], *(own for own in DIMENSIONS if own < vectors.shape[1])):
                is_cut = dimension < vectors.shape[1]
                cut = unit(vectors @ basis[:, :dimension]) if is_cut else vectors
                for numbers, width in NUMBERS.items():
                    scores = mean_aps(evaluate(written(cut, numbers), samples, Protocol.ALL))
                    yield Row(chosen, feature, dimension, is_cut, numbers, dimension * width, *scores)


def table_of(rows: Sequence[Row], title: str) -> Table:
    """Bytes against mAP for the terminal."""
    table = Table(title=title)
    for name in ("stages", "feature", "numbers of a vector", "as", "bytes", "mAP", "mAP between modalities"):
        table.add_column(name)
    for row in rows:
        stages = "+".join(str(stage + 1) for stage in row.stages)
        size = f"{row.dimension}{' (PCA)' if row.is_cut else ''}"
        scores = f"{row.mean_ap:.4f}", f"{row.cross_mean_ap:.4f}"
        table.add_row(stages, row.feature.replace("_", " "), size, row.numbers, str(row.bytes), *scores)
    return table


def main(
    weights: Annotated[Path, typer.Option(help="A .pt file.")],
    data: Annotated[Path, typer.Option(help="Folder with samples.csv.")],
    split: Annotated[str, typer.Option(help="Rows to choose on; never the test split.")] = "val",
    device: Annotated[str, typer.Option(help="Embeds the pictures.")] = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Print the table of bytes against mAP, protocol `all`."""
    cv2.setNumThreads(1)
    network, model_id = load_network(weights)
    network.to(device)
    samples = read_samples(data, split)
    known = features_of(network, spread(read_samples(data, BASIS_SPLIT), BASIS_PICTURES), device)
    rows = list(rows_of(known, features_of(network, samples, device), samples))
    Console(width=120).print(table_of(rows, f"{model_id} on {data.name} {split}"))
    if json_file:
        json_file.write_text(json.dumps({"model": model_id, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
