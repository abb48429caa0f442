"""Fitting pictures of any size into the one rectangle a network takes, and boxes back out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The gray that YOLO models saw around pictures while they were trained.
PADDING = 114


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture lies inside the network's rectangle: scaled by one factor, centred, gray around.

    Attributes:
        scale: Rectangle pixels per source pixel.
        left: Gray columns before the picture.
        top: Gray rows above the picture.
        width: Columns of the scaled picture.
        height: Rows of the scaled picture.
    """

    scale: float
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def fit(cls, source: tuple[int, int], target: tuple[int, int]) -> Letterbox:
        """Place a picture of `source` (height, width) in the middle of `target` (height, width)."""
        scale = min(target[0] / source[0], target[1] / source[1])
        width, height = max(1, round(source[1] * scale)), max(1, round(source[0] * scale))
        return cls(scale, (target[1] - width) // 2, (target[0] - height) // 2, width, height)

    def draw(self, image: NDArray[np.uint8], canvas: NDArray[np.uint8]) -> None:
        """Write `image` (h, w, 3) into `canvas` (H, W, 3), gray where it does not reach."""
        canvas[: self.top] = PADDING
        canvas[self.top + self.height :] = PADDING
        rows = canvas[self.top : self.top + self.height]
        rows[:, : self.left] = PADDING
        rows[:, self.left + self.width :] = PADDING
        inside = rows[:, self.left : self.left + self.width]
        if image.shape[:2] == (self.height, self.width):
            inside[:] = image
        else:
            inside[:] = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_LINEAR)

    def to_source(self, boxes: NDArray[np.float32], source: tuple[int, int]) -> NDArray[np.float32]:
        """Take xyxy boxes (N, 4) in the rectangle to source pixels, clipped to `source` (height, width)."""
        moved = (boxes - np.array([self.left, self.top] * 2, np.float32)) / np.float32(self.scale)
        limits = np.array([source[1], source[0]] * 2, np.float32)
        return np.asarray(np.clip(moved, 0, limits), np.float32)

    def from_source(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take xyxy boxes (N, 4) in source pixels into the rectangle."""
        moved = boxes * np.float32(self.scale) + np.array([self.left, self.top] * 2, np.float32)
        return np.asarray(moved, np.float32)
