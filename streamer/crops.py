"""Which pictures of a vehicle are worth embedding. Pure: arrays and event time in, decisions out, no clock, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from streamer.blur import blurred_scene, is_cut
from streamer.sightings import MAX_CROP_BYTES

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from reid.modality import Modality

#: Of the box's width and height, on each side: detectors cut mirrors and wheels.
MARGIN = 0.03
#: A first crop of this quality is taken at once.
GOOD_QUALITY = 0.5
#: After this long without a good one, a fair one will do; after the second, any.
FAIR_QUALITY, FAIR_AFTER_S, ANY_AFTER_S = 0.25, 0.5, 2.0
#: A crop that shows the vehicle otherwise joins the mean if it has this share of the best one's quality.
DIVERSE_SHARE = 0.6
#: It shows it otherwise when its centre has moved by this share of its height, or its height has changed by that.
MOVED_SHARE, SCALED_BY = 0.5, 1.2
#: Crops of one tracklet; beyond it only better ones are embedded.
MAX_DIVERSE_CROPS = 12

_FULL_SIZE_PX = 128.0
_SHARP_VARIANCE = 100.0
_SHARPNESS_SIDE = 64
_BORDER_PX = 2.0
_LONGEST_SIDE_PX = 320


def geometric_qualities(
    boxes: NDArray[np.float32], confidences: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """What can be said of crops without looking at pixels: an upper bound of `quality`.

    The product of size (root of height over 128 px), completeness (a box at the image's border is cut off), freedom
    from occlusion (by boxes that end lower, which are nearer to the camera) and the detector's confidence.

    Args:
        boxes: (N, 4) float32 xyxy, all vehicles of one frame, source pixels.
        confidences: (N,) in 0-1.
        shape: Height and width of the frame.

    Returns:
        (N,) float32 in 0-1.
    """
    if not len(boxes):
        return np.zeros(0, np.float32)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    size = np.sqrt(np.minimum(sides[:, 1] / _FULL_SIZE_PX, 1))
    product = size * _completeness(boxes, sides, shape) * (1 - _occlusion(boxes)) ** 2 * (0.5 + 0.5 * confidences)
    return np.asarray(product, np.float32)


def _completeness(
    boxes: NDArray[np.float32], sides: NDArray[np.float32], shape: tuple[int, int]
) -> NDArray[np.float32]:
    limits = np.array([shape[1], shape[0]], np.float32)
    distance = np.minimum(boxes[:, :2], limits - boxes[:, 2:]) - _BORDER_PX
    free = np.clip(distance / (0.05 * sides), 0, 1).min(axis=1)
    return np.asarray(0.3 + 0.7 * free, np.float32)


def _occlusion(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of each box that boxes with a lower bottom edge cover, summed and capped at 1."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    nearer = boxes[None, :, 3] > boxes[:, None, 3]
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
    covered = (shared * nearer).sum(axis=1) / areas
    return np.asarray(np.minimum(covered, 1), np.float32)


def cut(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The box and its margin, clipped to the image.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) xyxy.

    Returns:
        A view (h, w, 3), at least one pixel high and wide.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = box.tolist()
    dx, dy = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    left, top = min(max(int(x1 - dx), 0), width - 1), min(max(int(y1 - dy), 0), height - 1)
    right, bottom = max(min(round(x2 + dx), width), left + 1), max(min(round(y2 + dy), height), top + 1)
    return image[top:bottom, left:right]


def sharpness(crop: NDArray[np.uint8]) -> float:
    """How sharp a crop is, 0.4-1: the variance of the Laplacian of its gray 64 x 64 copy, squashed.

    Squashed so that a soft thermal picture keeps enough quality to be embedded: only the order within a camera counts.
    """
    small = cv2.resize(crop, (_SHARPNESS_SIDE, _SHARPNESS_SIDE), interpolation=cv2.INTER_LINEAR)
    laplacian = cv2.Laplacian(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    deviation = float(cv2.meanStdDev(laplacian)[1][0, 0])
    return 0.4 + 0.6 * deviation**2 / (deviation**2 + _SHARP_VARIANCE)


def encode_crop(crop: NDArray[np.uint8], quality: int, limit: int = MAX_CROP_BYTES) -> bytes:
    """A crop as JPEG for people, at most `limit` bytes: long sides are shrunk to 320 px, then quality gives way."""
    scale = _LONGEST_SIDE_PX / max(crop.shape[:2])
    if scale < 1:
        crop = np.asarray(cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    data = encode_jpeg(crop, quality)
    while len(data) > limit and quality > 10:
        quality -= 10
        data = encode_jpeg(crop, quality)
    return data


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """An RGB image as JPEG."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return bytes(data)


class Scene:
    """A frame as context for its crops: shrunk and encoded only when somebody asks, once for all of its vehicles.

    Args:
        image: (H, W, 3) uint8 RGB; must not be written to afterwards.
        width: Wider frames are shrunk to this, in pixels.
        quality: Of the JPEG.
        hidden: (N, 4) float32 xyxy in the image's pixels, vehicles that are blurred in the JPEG; None: none is.
    """

    def __init__(
        self, image: NDArray[np.uint8], width: int, quality: int, hidden: NDArray[np.float32] | None = None
    ) -> None:
        self.image = image
        self._hidden = hidden
        self._source_height, self._source_width = image.shape[:2]
        self._width, self._quality = width, quality
        self._jpeg: bytes | None = None

    def cuts(self, box: tuple[float, float, float, float]) -> bool:
        """Whether its upper or lower edge cuts a vehicle's box, xyxy in source pixels."""
        return is_cut(box, self._source_height)

    def hold(self) -> Scene:
        """Shrinks a scene of twice the width; for one that outlives its frame, so that 4K costs what HD does."""
        if self.image.shape[1] >= 2 * self._width:
            self._shrink(cv2.INTER_LINEAR)
        return self

    def jpeg(self) -> bytes:
        """The picture; the second call is free."""
        if self._jpeg is None:
            if self.image.shape[1] > self._width:
                self._shrink(cv2.INTER_AREA)
            self._jpeg = encode_jpeg(self._fit_to_be_seen(), self._quality)
        return self._jpeg

    def _fit_to_be_seen(self) -> NDArray[np.uint8]:
        if self._hidden is None:
            return self.image
        scale = self.image.shape[1] / self._source_width
        return blurred_scene(self.image, np.asarray(self._hidden * scale, np.float32))

    def _shrink(self, method: int) -> None:
        height = round(self.image.shape[0] * self._width / self.image.shape[1])
        self.image = np.asarray(cv2.resize(self.image, (self._width, height), interpolation=method), np.uint8)


@dataclass(frozen=True, slots=True)
class VehicleCrop:
    """One picture of one vehicle, on its way to the embedder.

    Attributes:
        image: (h, w, 3) uint8 RGB, the box and its margin in source pixels.
        quality: 0-1, comparable within one camera.
        captured_at: When its frame was captured, aware UTC.
        modality: The band of its frame.
        box: xyxy in source pixels, without the margin.
        scene: The frame that it was cut from.
    """

    image: NDArray[np.uint8]
    quality: float
    captured_at: datetime
    modality: Modality
    box: tuple[float, float, float, float]
    scene: Scene = field(compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """A crop that is to be embedded, and whether it is clearly better than all before it."""

    crop: VehicleCrop
    is_better: bool


class CropSelector:
    """Chooses the crops of one tracklet, by event time alone.

    The first as soon as it is good, or after a while the best so far; then at most one every `min_interval_s`: one
    that is clearly better (`better_by` times the best of its modality), or one that shows the vehicle otherwise.

    Args:
        started_s: When the tracklet began, seconds since the Unix epoch.
        min_interval_s: Between two choices.
        better_by: Factor of quality.
    """

    def __init__(self, started_s: float, *, min_interval_s: float, better_by: float) -> None:
        self._started_s, self._min_interval_s, self._better_by = started_s, min_interval_s, better_by
        self._candidate: VehicleCrop | None = None
        self._chosen_s = -np.inf
        #: Band and box of the last choice: not the crop, whose frame is megabytes.
        self._last: tuple[Modality, tuple[float, float, float, float]] | None = None
        self._best: dict[Modality, float] = {}
        self._count = 0

    def wanted_quality(self, modality: Modality, box: NDArray[np.float32]) -> float:
        """A crop of this box is worth offering only if its quality is above this."""
        best = self._best.get(modality)
        floor = 0.0
        if best is not None:
            floor = best * (DIVERSE_SHARE if self._shows_otherwise(modality, box) else self._better_by)
        waiting = self._candidate
        return max(floor, waiting.quality) if waiting is not None and waiting.modality is modality else floor

    def offer(self, crop: VehicleCrop) -> None:
        """Keeps the crop as the best since the last choice. The caller has compared it with `wanted_quality`."""
        self._candidate = crop

    def choose(self, now_s: float) -> Choice | None:
        """The crop to embed at this moment, if any."""
        crop = self._candidate
        if crop is None or not self._is_time(crop, now_s):
            return None
        return self._take(crop, now_s)

    def choose_last(self, now_s: float) -> Choice | None:
        """The tracklet has ended: the waiting crop, if it is clearly better than the chosen ones or there are none."""
        crop = self._candidate
        if crop is None or not self._is_better(crop):
            return None
        return self._take(crop, now_s)

    def _take(self, crop: VehicleCrop, now_s: float) -> Choice:
        choice = Choice(crop, self._is_better(crop))
        self._best[crop.modality] = max(crop.quality, self._best.get(crop.modality, 0.0))
        self._candidate, self._chosen_s, self._last = None, now_s, (crop.modality, crop.box)
        self._count += 1
        return choice

    def _is_time(self, crop: VehicleCrop, now_s: float) -> bool:
        if self._last is not None:
            return now_s - self._chosen_s >= self._min_interval_s
        waited_s = now_s - self._started_s
        wanted = 0.0 if waited_s >= ANY_AFTER_S else FAIR_QUALITY if waited_s >= FAIR_AFTER_S else GOOD_QUALITY
        return crop.quality >= wanted

    def _is_better(self, crop: VehicleCrop) -> bool:
        return crop.quality >= self._better_by * self._best.get(crop.modality, 0.0)

    def _shows_otherwise(self, modality: Modality, box: NDArray[np.float32]) -> bool:
        if self._last is None:
            return True
        last_modality, last_box = self._last
        if self._count >= MAX_DIVERSE_CROPS:
            return False
        return last_modality is not modality or has_moved(last_box, box, MOVED_SHARE, SCALED_BY)


def has_moved(
    before: tuple[float, float, float, float], after: NDArray[np.float32], share: float, scaled_by: float
) -> bool:
    """Whether the centre went further than `share` of the height, or the height changed by more than `scaled_by`."""
    x1, y1, x2, y2 = after.tolist()
    height_before, height_after = max(before[3] - before[1], 1.0), max(y2 - y1, 1.0)
    shift = math.hypot(x1 + x2 - before[0] - before[2], y1 + y2 - before[1] - before[3]) / 2
    ratio = max(height_before / height_after, height_after / height_before)
    return shift > share * height_before or ratio > scaled_by
