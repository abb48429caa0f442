"""Trained checkpoint -> what ships: a half-precision .pt, and OpenVINO int8 calibrated on local pictures."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from detector.quiet import quiet_libraries

if TYPE_CHECKING:
    from torch import nn

#: More pictures move the int8 ranges no further; fewer miss the thermal cameras' extremes.
CALIBRATION_PICTURES = 300


def save_half(network: nn.Module, path: Path) -> None:
    """Write a network as an ordinary Ultralytics checkpoint in half precision."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    network.__class__ = DetectionModel  # so that it loads without this package
    for name in ("criterion", "args"):
        network.__dict__.pop(name, None)
    network.half().eval().requires_grad_(requires_grad=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": network, "epoch": -1, "train_args": {"task": "detect"}}, path)


def load_trained(checkpoint: Path) -> nn.Module:
    """The network of a training checkpoint: its running average where there is one."""
    import torch

    found = torch.load(checkpoint, map_location="cpu", weights_only=False)
    network: nn.Module = (found.get("ema") or found["model"]).float()
    return network


def export_int8(weights: Path, description: Path, folder: Path, *, size: tuple[int, int], split: str = "train") -> None:
    """Write `weights` as OpenVINO int8 for pictures of `size` (height, width), calibrated with NNCF.

    Args:
        weights: A torch checkpoint.
        description: The data.yaml of the data set with the pictures to calibrate on.
        folder: The folder to write; its name has to end in `_int8_openvino_model`. Replaced where it exists.
        size: (height, width) that the exported network takes; it takes one picture at a time.
        split: The part of the data set to calibrate on.
    """
    quiet_libraries()
    from ultralytics import YOLO

    pictures = len(list((description.parent / "images" / split).iterdir()))
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / weights.name
        shutil.copy(weights, copy)
        made = YOLO(copy).export(
            format="openvino",
            imgsz=list(size),
            quantize=8,
            data=str(description),
            split=split,
            fraction=min(1.0, CALIBRATION_PICTURES / pictures),
            batch=1,
            device="cpu",
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        _forget_machine(folder / "metadata.yaml")


def _forget_machine(metadata: Path) -> None:
    """Take this machine's paths and this minute out of the exporter's metadata."""
    described = yaml.safe_load(metadata.read_text(encoding="utf-8"))
    described.pop("date", None)
    for name in ("data", "fraction"):
        described.get("args", {}).pop(name, None)
    metadata.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
