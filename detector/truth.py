"""Rendered sites: their truth, their clips, and what of the truth an evaluation counts."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

#: Truth outside these limits is neither asked for nor held against a detector.
MIN_COUNTED_HEIGHT_PX = 24.0
MIN_COUNTED_VISIBLE = 0.5
MAX_COUNTED_TRUNCATED = 0.5


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """All vehicles of one frame of one camera, also hidden ones.

    Attributes:
        boxes: (N, 4) float32, xyxy in source pixels: the whole vehicle, also where something hides it.
        vehicles: (N,) int64, the site's vehicle numbers.
        visible: (N,) float32, the part of the vehicle inside the picture that nothing hides, 0-1.
        truncated: (N,) float32, the part of the vehicle outside the picture, 0-1.
    """

    boxes: NDArray[np.float32]
    vehicles: NDArray[np.int64]
    visible: NDArray[np.float32]
    truncated: NDArray[np.float32]

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(N,) whether the evaluation asks for this vehicle."""
        high = self.boxes[:, 3] - self.boxes[:, 1] >= MIN_COUNTED_HEIGHT_PX
        shown = (self.visible >= MIN_COUNTED_VISIBLE) & (self.truncated <= MAX_COUNTED_TRUNCATED)
        counted: NDArray[np.bool_] = high & shown
        return counted

    @classmethod
    def empty(cls) -> FrameTruth:
        """A frame without vehicles."""
        return cls(
            np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.float32)
        )


@dataclass(frozen=True, slots=True)
class SiteTruth:
    """What is known of one rendered site.

    Attributes:
        fps: Frames per second, the same for all its cameras.
        duration_s: Length of its clips.
        bodies: Vehicle number -> body (`sedan`, `boxtruck`, ...).
        frames: (camera, 0-based frame) -> its vehicles; frames without any are missing.
    """

    fps: float
    duration_s: float
    bodies: dict[int, str]
    frames: dict[tuple[str, int], FrameTruth]

    def at(self, camera: str, frame: int) -> FrameTruth:
        """The vehicles of one frame."""
        return self.frames.get((camera, frame), FrameTruth.empty())


def read_site(site: Path) -> SiteTruth:
    """Read `truth.csv` and `gt.json` of a rendered site."""
    described = json.loads((site / "gt.json").read_text(encoding="utf-8"))
    rows: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)
    with (site / "truth.csv").open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            rows[row["camera"], int(row["frame"])].append(row)
    bodies = {int(number): str(vehicle["cls"]) for number, vehicle in described["vehicles"].items()}
    clip = next(iter(sorted(site.glob("*.mp4"))))
    fps = float(described["fps"])
    frames = {key: _frame_truth(found) for key, found in rows.items()}
    return SiteTruth(fps, frame_count(clip) / fps, bodies, frames)


def frames_of(clip: Path, *, every: int = 1, start: int = 0) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Decode a clip: (0-based frame, picture (H, W, 3) RGB), every `every`-th from `start` on."""
    reader = cv2.VideoCapture(str(clip))
    try:
        frame = 0
        while reader.grab():
            if frame >= start and (frame - start) % every == 0:
                found, image = reader.retrieve()
                if found:
                    yield frame, np.ascontiguousarray(image[..., ::-1])
            frame += 1
    finally:
        reader.release()


def frame_count(clip: Path) -> int:
    """Count a clip's frames by decoding it: a container may promise more than it holds."""
    reader = cv2.VideoCapture(str(clip))
    count = 0
    while reader.grab():
        count += 1
    reader.release()
    return count


def _frame_truth(rows: Sequence[dict[str, str]]) -> FrameTruth:
    return FrameTruth(
        np.array([[float(row[side]) for side in ("x1", "y1", "x2", "y2")] for row in rows], np.float32),
        np.array([int(row["vehicle"]) for row in rows], np.int64),
        np.array([float(row["visible_fraction"]) for row in rows], np.float32),
        np.array([float(row["truncated"]) for row in rows], np.float32),
    )
