"""Which features make the embedding, how many numbers, how many bits: a table of bytes against mAP.

Measured on a validation split. Directions are learned from the training split (uncentred principal components: with
all of them cosines stay as they are, and they would fold into one matrix behind the features). Weights for inference
hold the stages that their embedding and matcher need; a run's `last.pt` holds all.
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
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from reid.checkpoint import load_network, model_id
from reid.command import run_command
from reid.compaction import spread
from reid.config import ModelConfig
from reid.datasets import Sample
from reid.errors import CheckpointError
from reid.image_batches import sample_batches
from reid.layouts import read_dataset, training_split
from reid.model import Porsche
from reid.protocols import Protocol
from reid.retrieval import Result, evaluate
from reid.torch_files import read_checkpoint

DIMENSIONS = (256, 128, 64)
NUMBERS = {"float32": 4, "float16": 2, "int8": 1}
BASIS_PICTURES = 3000

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


def load_stages(path: Path) -> tuple[Porsche, str]:
    """Load all stages of a run's `last.pt`, its averaged weights, or those that weights for inference hold.

    Raises:
        CheckpointError: no such file, or not one of ours.
    """
    contents = read_checkpoint(path)
    if "average" not in contents:
        return load_network(path)
    try:
        state, config = contents["average"], ModelConfig.model_validate(contents["config"]["model"])
        identities = next((len(value) for name, value in state.items() if ".classifiers." in name), 0)
        network = Porsche(config, identities)
        network.load_state_dict(state)
    except (KeyError, RuntimeError, ValidationError) as error:
        raise CheckpointError(f"{path}: not a training checkpoint: {str(error).splitlines()[0]}") from error
    return network.eval(), model_id(path, config.name)


@torch.inference_mode()
def features_of(network: Porsche, samples: Sequence[Sample], device: str) -> Features:
    """Describe pictures once by every stage's branch that there is; what `Porsche.embed` joins."""
    found: Features = {}
    stages = [int(name) for name in network.branches]
    for chosen, images in sample_batches(samples, (network.config.height, network.config.width), device):
        for stage, output in network.read_stages(network.trunk.stem(images), stages).items():
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
    weights: Annotated[Path, typer.Option(help="A .pt file; last.pt of a run has all stages.")],
    data: Annotated[Path, typer.Option(help="Folder with samples.csv, or of a published set as it comes.")],
    split: Annotated[str, typer.Option(help="Rows to choose on; never the test split.")] = "val",
    device: Annotated[str, typer.Option(help="Embeds the pictures.")] = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Print the table of bytes against mAP, protocol `all`."""
    cv2.setNumThreads(1)
    network, name = load_stages(weights)
    network.to(device)
    samples = read_dataset(data, split)
    known = features_of(network, spread(read_dataset(data, training_split(data)), BASIS_PICTURES), device)
    rows = list(rows_of(known, features_of(network, samples, device), samples))
    Console(width=120).print(table_of(rows, f"{name} on {data.name} {split}"))
    if json_file:
        json_file.write_text(json.dumps({"model": name, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
