"""Tiny data sets and networks for the tests of `reid`."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from reid.checkpoint import save_network
from reid.config import ModelConfig
from reid.modality import Modality
from reid.model import Porsche

SMALL = {"name": "tiny", "height": 64, "width": 64, "stages": [{"layer": "layer1", "dimension": 16}]}


def picture(seed: int, height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """A smooth colourful picture, the same for the same seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), dtype=np.uint8)


def network(**changes: object) -> Porsche:
    """A small network with random weights and lively batch-norm statistics."""
    torch.manual_seed(0)
    made = Porsche(ModelConfig.model_validate({**SMALL, **changes}))
    liven_norms(made, 0.1)
    return made.eval()


def liven_norms(network: torch.nn.Module, mean: float) -> None:
    """Give batch norms statistics of their own: variances 0.5 to 2, means up to `mean` from 0."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-mean, mean)
            module.running_var.uniform_(0.5, 2.0)


def weights(folder: Path) -> Path:
    """A file of small random weights."""
    path = folder / "tiny.pt"
    save_network(path, network(), "random")
    return path


def write_table(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write `samples.csv`."""
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def dataset(folder: Path, vehicles: int = 4, views: int = 2) -> Path:
    """A folder of pictures of vehicles in three modalities, half a split each for train and val."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for vehicle in range(vehicles):
        for modality in Modality:
            for view in range(2 * views):
                path = f"{vehicle}-{modality}-{view}.png"
                noise = np.random.default_rng((vehicle, view)).integers(0, 30, (40, 60, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / path), picture(vehicle) // 2 + noise)
                split = "train" if view < views else "val"
                row = {"path": path, "vehicle": str(vehicle), "modality": modality.value}
                rows.append({**row, "view": str(view), "split": split, "camera": f"cam-{modality}"})
    write_table(folder, rows)
    return folder
