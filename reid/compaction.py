"""Fewer numbers a point, without training: `python -m reid.compaction --weights W --data DIR --out W2`.

A point's numbers meet those of other points in dot products only. The directions in which points differ most are an
orthonormal basis that keeps nearly all of every product, and it folds into the projection that makes the points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from torch import Tensor

from reid.checkpoint import load_network, save_network
from reid.command import run_command
from reid.datasets import Sample
from reid.errors import ReidError
from reid.image_batches import sample_batches
from reid.layouts import read_dataset, training_split
from reid.model import Description, Porsche
from reid.point_matcher import PointMatcher
from reid.torch_files import read_checkpoint


class CompactionError(ReidError):
    """A network whose points can't be made so small."""


def compact(network: Porsche, tokens: Tensor, channels: int, layers: int | None = None) -> Porsche:
    """Make a network whose points have fewer numbers.

    Args:
        network: with a matcher; left as it is.
        tokens: (B, L, P, D) its points of B pictures like those that it will see.
        channels: C, at most D; with D the scores stay as they are.
        layers: keep only so many decoder layers, the first ones; all when None.

    Returns:
        A network for inference, its points (B, layers, P, C).

    Raises:
        CompactionError: no matcher, or not so many channels or layers.
    """
    return fold(network, bases(second_moments(tokens)), channels, layers)


def second_moments(tokens: Tensor) -> Tensor:
    """(B, L, P, D) points -> (L, D, D) float64, the sum over points of each with itself."""
    points = tokens.transpose(0, 1).flatten(1, 2).double()  # (L, B P, D)
    return torch.einsum("lpd,lpe->lde", points, points)


def bases(moments: Tensor) -> Tensor:
    """The directions that points differ in, the most important first: uncentred principal components.

    Args:
        moments: (L, D, D) of `second_moments`, or the sum of several.

    Returns:
        (L, D, D) float32; a layer's columns are orthonormal, and their signs do not depend on the machine.
    """
    vectors: Tensor = torch.linalg.eigh(moments).eigenvectors.flip(2)  # (L, D, D), largest eigenvalue first
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    return (vectors * vectors.gather(1, largest).sign()).float()


def fold(network: Porsche, directions: Tensor, channels: int, layers: int | None = None) -> Porsche:
    """As `compact`, from the `bases` of a network's points, (L, D, D)."""
    matcher = _matcher(network)
    kept, width = layers or len(matcher.decoder), directions.shape[1]
    if not 1 <= channels <= width or not 1 <= kept <= len(matcher.decoder):
        most = f"{width} channels and {len(matcher.decoder)} layers"
        raise CompactionError(f"{network.config.name}: has {most}, so not {channels} and {kept}")
    settings = network.config.matcher.model_copy(update={"channels": channels, "layers": kept})  # type: ignore[union-attr]
    compacted = Porsche(network.config.model_copy(update={"matcher": settings}))
    state = network.state_dict()
    prefix = f"matchers.{network.config.matching_stage}"
    for index, basis in enumerate(directions[:kept, :, :channels].to(state[f"{prefix}.total.weight"].device)):
        for name in ("weight", "bias"):
            key = f"{prefix}.decoder.{index}.project.{name}"
            state[key] = basis.T @ state[key]
    # A dropped layer's score is, on average over training's pairs, the bias of its last norm.
    for index in range(kept, len(matcher.decoder)):
        state[f"{prefix}.total.running_mean"] = (
            state[f"{prefix}.total.running_mean"] - state[f"{prefix}.decoder.{index}.scale.bias"]
        )
    compacted.load_state_dict({name: state[name] for name in compacted.state_dict()})
    return compacted.eval()


def _matcher(network: Porsche) -> PointMatcher:
    if network.matcher is None:
        raise CompactionError(f"{network.config.name}: has no point matcher")
    return network.matcher


@torch.inference_mode()
def describe_samples(
    network: Porsche, samples: Sequence[Sample], batch: int = 32
) -> Iterator[tuple[list[int], Description]]:
    """Decode and describe pictures, a batch at a time.

    Args:
        network: for inference, on any device.
        samples: N rows.
        batch: pictures at a time.

    Yields:
        Indices into the samples, and what the network says of them, on the CPU.
    """
    size, device = (network.config.height, network.config.width), next(network.parameters()).device
    for chosen, images in sample_batches(samples, size, device, batch):
        said = network.describe(images)
        yield chosen, Description(said.embedding.cpu(), None if said.tokens is None else said.tokens.cpu())


def learn_bases(network: Porsche, samples: Sequence[Sample]) -> Tensor:
    """`bases` of the points of pictures, (L, D, D), without holding all of them.

    Raises:
        CompactionError: a network without a matcher.
        DatasetError: a picture that can't be read.
    """
    _matcher(network)
    described = (said.tokens for _, said in describe_samples(network, samples) if said.tokens is not None)
    return bases(reduce(torch.add, map(second_moments, described)))


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Up to `count` samples, evenly over them."""
    return [samples[int(index)] for index in np.linspace(0, len(samples), min(count, len(samples)), endpoint=False)]


def main(
    weights: Annotated[Path, typer.Option(help="A .pt file with a point matcher.")],
    data: Annotated[Path, typer.Option(help="Folder with samples.csv, or of a published set as it comes.")],
    out: Annotated[Path, typer.Option(help="Write the compacted .pt file here.")],
    split: Annotated[
        str | None, typer.Option(help="Pictures to learn the directions from; default: those of training.")
    ] = None,
    channels: Annotated[int, typer.Option(help="Numbers of a point.", min=1)] = 64,
    layers: Annotated[int | None, typer.Option(help="Decoder layers to keep, from the first.", min=1)] = None,
    pictures: Annotated[int, typer.Option(help="Pictures to learn from, at most.", min=1)] = 1000,
) -> None:
    """Fold an orthonormal basis of a matcher's points into its projections."""
    cv2.setNumThreads(1)
    network, model_id = load_network(weights)
    split = split or training_split(data)
    samples = spread(read_dataset(data, split), pictures)
    compacted = fold(network, learn_bases(network, samples), channels, layers)
    origin = read_checkpoint(weights).get("description", "")
    made = f"{model_id}, its points made {channels} numbers by {len(samples)} pictures of {data.name} {split}"
    save_network(out, compacted, f"{made}. {origin}".strip())
    points = compacted.config.points(compacted.config.matching_stage)
    typer.echo(f"{out}: {len(_matcher(compacted).decoder)} x {points[0]} x {points[1]} x {channels} numbers a picture")


if __name__ == "__main__":
    run_command(main)
