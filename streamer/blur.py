"""Making pictures fit for people to see: windows and plates of vehicles are taken out of them.

Where these are is not looked for but known of the box: of every vehicle the upper part, where windows and the heads
behind them are, and a band in the lower part, where plates are. Within these a picture keeps the means of cells, twelve
along the vehicle's longer side, and nothing else, so that no later program can bring back what was there. Of a vehicle
that the picture's upper or lower edge cuts, nobody knows which part is seen: all of it is blurred. What lies in no
vehicle's box, such as a person on foot or a vehicle that the detector missed, stays as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Of a vehicle's height, from its top: windscreens, side windows, the rider of a motorcycle.
WINDOWS = (0.0, 0.55)
#: Plates in front and behind, on whatever side of the vehicle.
PLATES = (0.6, 0.95)
#: Along the longer side of a vehicle: a plate of a fifth of it is two or three cells.
CELLS = 12
#: Smaller cells would leave letters of few pixels readable.
LEAST_CELL_PX = 4
#: So near to the picture's upper or lower edge a vehicle is cut by it.
EDGE_PX = 2.0
#: Of the box on each side, since detectors cut mirrors and bumpers.
_MARGIN = 0.03
_BANDS = (WINDOWS, PLATES)
_WHOLE = ((0.0, 1.0),)


def is_cut(box: tuple[float, float, float, float], height: int) -> bool:
    """Whether the upper or lower edge of a picture of that height, in pixels, cuts the box (xyxy)."""
    return box[1] <= EDGE_PX or box[3] >= height - EDGE_PX


def blurred_crop(crop: NDArray[np.uint8], *, whole: bool = False) -> NDArray[np.uint8]:
    """A vehicle's crop, blurred where windows and plates are.

    Args:
        crop: (h, w, 3) uint8 RGB, the vehicle's box with or without its margin; not written to.
        whole: Blur all of it: a vehicle that is cut.

    Returns:
        A copy of the same shape.
    """
    blurred = crop.copy()
    _blur_vehicle(blurred, (0, 0, crop.shape[1], crop.shape[0]), _WHOLE if whole else _BANDS)
    return blurred


def blurred_scene(image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A whole picture, blurred where windows and plates of its vehicles are.

    Args:
        image: (H, W, 3) uint8 RGB; not written to.
        boxes: (N, 4) float32 xyxy in this picture's pixels; parts outside of it are passed over.

    Returns:
        A copy of the same shape.
    """
    blurred = image.copy()
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in boxes.tolist():
        dx, dy = _MARGIN * (x2 - x1), _MARGIN * (y2 - y1)
        left, top = max(int(x1 - dx), 0), max(int(y1 - dy), 0)
        right, bottom = min(int(np.ceil(x2 + dx)), width), min(int(np.ceil(y2 + dy)), height)
        if left < right and top < bottom:
            bands = _WHOLE if is_cut((x1, y1, x2, y2), height) else _BANDS
            _blur_vehicle(blurred, (left, top, right, bottom), bands)
    return blurred


def _blur_vehicle(
    image: NDArray[np.uint8], box: tuple[int, int, int, int], bands: Sequence[tuple[float, float]]
) -> None:
    left, top, right, bottom = box
    height = bottom - top
    cell = max(LEAST_CELL_PX, -(-max(height, right - left) // CELLS))
    for upper, lower in bands:
        first, last = top + int(upper * height), top + int(np.ceil(lower * height))
        if first < last:
            image[first:last, left:right] = _means(image[first:last, left:right], cell)


def _means(part: NDArray[np.uint8], cell: int) -> NDArray[np.uint8]:
    """The part (h, w, 3) with the means of its cells alone, drawn smoothly."""
    height, width = part.shape[:2]
    cells = max(1, width // cell), max(1, height // cell)
    small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8).reshape(part.shape)
