"""Export for inference: `python -m reid.export --weights weights/porsche-small.pt`."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor, nn

from reid.checkpoint import load_network
from reid.command import run_command
from reid.embedder import Embedder, EmbedderInfo
from reid.errors import ReidError
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.openvino_backend import FORMAT, METADATA, TRUNK, OpenVinoBackend, stem_file
from reid.quiet import openvino

MAX_DIFFERENCE = 1e-3


class ExportError(ReidError):
    """The exported network does not compute what torch does."""


class StemOfPixels(nn.Module):
    """A stem with its preprocessing: (B, H, W, 3) uint8 to (B, 64, H / 4, W / 4) float."""

    def __init__(self, stem: nn.Module) -> None:
        super().__init__()
        self.stem = stem

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise, then run the stem."""
        maps: Tensor = self.stem(normalise(pixels))
        return maps


class EmbeddingTrunk(nn.Module):
    """Everything behind the stems: (B, 64, H / 4, W / 4) to (B, D) of unit norm."""

    def __init__(self, network: Porsche) -> None:
        super().__init__()
        self.network = network

    def forward(self, stem_maps: Tensor) -> Tensor:
        """Embed on whole maps."""
        return self.network.embed_maps(stem_maps)


def export_openvino(weights: Path, folder: Path) -> float:
    """Write a folder that `Embedder` loads without torch: half-precision weights, any batch size.

    Args:
        weights: a `.pt` file of `reid.train`.
        folder: replaced if it exists.

    Returns:
        Largest difference of an embedding's element from torch's, both in float32.

    Raises:
        ExportError: that difference is above 1e-3.
        CheckpointError: `weights` can't be loaded.
    """
    network, model_id = load_network(weights)
    config = network.config
    info = EmbedderInfo(model_id, config.dimension, config.height, config.width)
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    pixels = torch.zeros(2, config.height, config.width, 3, dtype=torch.uint8)
    for modality in Modality:
        stem = StemOfPixels(network.trunk.stems[modality.value])
        _save(stem, pixels, [-1, *pixels.shape[1:]], partial / stem_file(modality))
    maps = network.trunk.stem({Modality.VISIBLE: normalise(pixels)})
    _save(EmbeddingTrunk(network), maps, [-1, *maps.shape[1:]], partial / TRUNK)
    (partial / METADATA).write_text(json.dumps({"format": FORMAT, **asdict(info)}, indent=2) + "\n")
    difference = parity(network, partial)
    if difference > MAX_DIFFERENCE:
        raise ExportError(f"{folder}: differs from torch by {difference:.1e}, more than {MAX_DIFFERENCE:.0e}")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return difference


def _save(module: nn.Module, example: Tensor, shape: list[int], path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        # OpenVINO traces with TorchScript, whose deprecation is not ours to act on.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(module.eval(), example_input=example.detach(), input=shape)
    openvino.save_model(model, path, compress_to_fp16=True)


def parity(network: Porsche, folder: Path) -> float:
    """Compare an export with its network on noise of every modality, both in float32.

    Returns:
        The largest absolute difference of an element.
    """
    generator = np.random.default_rng(0)
    size = (3, network.config.height, network.config.width, 3)
    pixels: dict[Modality, NDArray[np.uint8]] = {
        modality: generator.integers(0, 256, size, dtype=np.uint8) for modality in Modality
    }
    with torch.no_grad():
        expected = network.embed({m: normalise(torch.from_numpy(batch)) for m, batch in pixels.items()})
    actual = OpenVinoBackend(folder, precision="f32").embed(pixels)
    return float(np.abs(expected.numpy() - actual).max())


def milliseconds_per_crop(weights: Path, batch: int, threads: int, repeats: int = 20) -> float:
    """Time an embedder on crops that mix the modalities, resizing included.

    Args:
        weights: what `Embedder` loads.
        batch: crops per call.
        threads: CPU threads.
        repeats: calls; the fastest counts, since other programs only ever slow a call down.

    Returns:
        Milliseconds per crop.
    """
    embedder = Embedder(weights, threads=threads, max_batch=batch)
    crops = [np.full((60 + index, 90, 3), index, dtype=np.uint8) for index in range(batch)]
    modalities = [list(Modality)[index % len(Modality)] for index in range(batch)]
    fastest = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        embedder.embed(crops, modalities)
        fastest = min(fastest, time.perf_counter() - started)
    return fastest * 1000 / batch


def main(
    weights: Annotated[Path, typer.Option(help="A .pt file of reid.train.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: beside the weights.")] = None,
    measure: Annotated[bool, typer.Option("--time", help="Also print milliseconds per crop.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads to measure with.", min=1)] = 2,
) -> None:
    """Export weights to OpenVINO and check them against torch."""
    folder = out or weights.with_name(f"{weights.stem}_openvino_model")
    difference = export_openvino(weights, folder)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    typer.echo(f"{folder}: {size:.1f} MB, differs from torch by at most {difference:.1e}")
    for batch in (1, 8, 16) if measure else ():
        milliseconds = milliseconds_per_crop(folder, batch, threads)
        typer.echo(f"batch {batch}: {milliseconds:.1f} ms per crop, {threads} threads")


if __name__ == "__main__":
    run_command(main)
