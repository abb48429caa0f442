"""Small things to detect and track, and small models whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from detector.detections import Detections
from detector.truth import FrameTruth

COCO_NAMES = {number: f"thing {number}" for number in range(80)} | {2: "car", 3: "motorcycle", 5: "bus", 7: "truck"}
VEHICLE_NAMES = {0: "car", 1: "motorcycle", 2: "bus", 3: "truck"}


def detections(*boxes: Sequence[float], confidence: float = 0.9, class_id: int = 2) -> Detections:
    """Equally confident vehicles of one class."""
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), confidence, np.float32),
        np.full(len(boxes), class_id, np.int64),
    )


def truth(
    *boxes: Sequence[float], visible: Sequence[float] | None = None, truncated: Sequence[float] | None = None
) -> FrameTruth:
    """A frame's truth, by default all in plain sight."""
    count = len(boxes)
    return FrameTruth(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(count, dtype=np.int64),
        np.array([1.0] * count if visible is None else visible, np.float32),
        np.array([0.0] * count if truncated is None else truncated, np.float32),
    )


def model_that_answers(folder: Path, output: NDArray[np.float32], names: dict[int, str], size: int = 64) -> Path:
    """An OpenVINO model of (size, size) pictures whose output is always `output` plus the picture's mean times 0."""
    from openvino import Model, Type, opset13, save_model

    picture = opset13.parameter([1, 3, size, size], Type.f32)
    mean = opset13.reduce_mean(picture, np.array([0, 1, 2, 3]), keep_dims=False)
    nothing = opset13.multiply(mean, opset13.constant(np.float32(0)))
    answer = opset13.add(opset13.constant(output[None]), nothing)
    folder.mkdir(parents=True)
    save_model(Model([answer], [picture], "known"), folder / "known.xml", compress_to_fp16=False)
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"names": names, "imgsz": [size, size]}), encoding="utf-8")
    return folder


def raw_output(candidates: Sequence[tuple[Sequence[float], int, float]], classes: int) -> NDArray[np.float32]:
    """A network's raw output (4 + classes, A) for candidates of (centre and size, class, score)."""
    output = np.zeros((4 + classes, max(len(candidates), 7)), np.float32)
    for column, (box, number, score) in enumerate(candidates):
        output[:4, column] = box
        output[4 + number, column] = score
    return output
