r"""Real vehicles in two colour cameras: Rank-1 from one camera to the other, trained weights beside plain ImageNet's.

    python benchmarks/real_pictures.py --data ../shared/data/reid_khoa --weights runs/reid/khoa/model.pt \
        --imagenet ../shared/weights/resnet18_imagenet_to_layer3.pth

The ImageNet row averages layer3 of the trunk over the picture and compares by cosine: no vehicle was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reid.backbone import Trunk, load_imagenet
from reid.command import run_command
from reid.config import ModelConfig
from reid.datasets import Sample
from reid.embedder import Embedder
from reid.evaluation_data import describe_samples
from reid.image_batches import sample_batches
from reid.layouts import read_dataset
from reid.modality import Modality
from reid.protocols import Protocol
from reid.rankers import EmbeddingRanker
from reid.retrieval import Direction, Result, evaluate_ranker


@torch.no_grad()
def imagenet_vectors(samples: Sequence[Sample], weights: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """(N, 256) unit norm: the average of layer3, of pictures stretched to `size`."""
    trunk = Trunk("resnet18", "layer3")
    load_imagenet(trunk, weights)
    trunk.eval()
    vectors = np.empty((len(samples), trunk.channels("layer3")), np.float32)
    for chosen, images in sample_batches(samples, size):
        vectors[chosen] = F.normalize(trunk.layers(trunk.stem(images))["layer3"].mean(dim=(2, 3))).numpy()
    return vectors


def between_cameras(vectors: NDArray[np.float32], samples: Sequence[Sample], query: str, gallery: str) -> Result:
    """Rank one camera's pictures for the other's."""
    rows, columns = (np.array([i for i, s in enumerate(samples) if s.camera == name]) for name in (query, gallery))
    direction = Direction(Modality.VISIBLE, Modality.VISIBLE, rows, columns)
    (result,) = evaluate_ranker(EmbeddingRanker(vectors), samples, Protocol.ALL, [direction])
    return result


def main(
    data: Annotated[Path, typer.Option(help="The folder of Khoa's set.")],
    weights: Annotated[list[Path], typer.Option(help="Weights to rank with; may be given several times.")],
    imagenet: Annotated[Path, typer.Option(help="ImageNet state dict of ResNet-18.")],
    split: Annotated[str, typer.Option(help="Whose vehicles.")] = "val",
) -> None:
    """Print Rank-1 and mAP between the two cameras, with intervals over vehicles."""
    samples = read_dataset(data, split)
    vectors: dict[str, NDArray[np.float32]] = {}
    size = (ModelConfig().height, ModelConfig().width)
    for path in weights:
        embedder = Embedder(path)
        size = (embedder.info.crop_height, embedder.info.crop_width)
        vectors[embedder.info.model_id] = describe_samples(embedder, samples, tokens=False).vectors
    vectors[f"ImageNet, {size[0]} x {size[1]}"] = imagenet_vectors(samples, imagenet, size)
    table = Table("weights", "query", "gallery", "queries", "Rank-1", "low", "high", "mAP", "low", "high")
    for name, own in vectors.items():
        for query, gallery in (("cam1", "cam2"), ("cam2", "cam1")):
            result = between_cameras(own, samples, query, gallery)
            intervals = [interval for interval in (result.rank1(), result.mean_ap()) if interval]
            figures = [f"{value:.3f}" for i in intervals for value in (i.mean, i.low, i.high)]
            table.add_row(name, query, gallery, str(result.scores.queries), *figures)
    Console(width=140).print(table)


if __name__ == "__main__":
    run_command(main)
