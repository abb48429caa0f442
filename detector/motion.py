"""Is anything moving? A gate before the detector, so that a still road costs next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Source pixels per sample in each direction: the smallest vehicle that matters still covers 6 x 6 samples.
_PIXELS_PER_SAMPLE = 4
SMALLEST_VEHICLE_PX = 24
#: A sample has changed when it is this far from the background, in gray levels, and clearly beyond the noise.
_MIN_CHANGE = 7.0
_NOISE_SIGMAS = 6.0
#: The background moves one gray level every so many frames: a vehicle that stops stays "moving" for some 10-30 s.
_FRAMES_PER_BACKGROUND_STEP = 8


class MotionGate:
    """Compares each picture of one camera with a slow background. Not for use by two threads at once.

    It errs towards True: the first pictures, a change of light, a shaking camera and a picture of another size all
    count as motion. It can only miss what differs from the road by less than some 7 gray levels.

    Args:
        min_changed_fraction: How much of some square of `SMALLEST_VEHICLE_PX` must have changed, 0-1.
        hold_frames: The gate stays open for so many frames after the last change.
        keep_alive_frames: On a still road one frame in so many passes, so that what stands there is still seen
            now and then. Keep it below the time after which the tracker gives a vehicle up (2 s): otherwise
            each of these frames begins a new track of every parked vehicle.
        first_frames: So many frames pass before the gate trusts its background.

    Raises:
        ValueError: The fraction is not in 0-1, or a number of frames is out of range.
    """

    def __init__(
        self,
        *,
        min_changed_fraction: float = 0.2,
        hold_frames: int = 10,
        keep_alive_frames: int = 10,
        first_frames: int = 10,
    ) -> None:
        if not 0 < min_changed_fraction <= 1:
            raise ValueError(f"min_changed_fraction must be in (0, 1], got {min_changed_fraction}")
        if hold_frames < 0 or keep_alive_frames < 1 or first_frames < 1:
            raise ValueError("hold_frames must be at least 0, keep_alive_frames and first_frames at least 1")
        self._min_changed_fraction = min_changed_fraction
        self._hold_frames = hold_frames
        self._keep_alive_frames = keep_alive_frames
        self._first_frames = first_frames
        self._background: NDArray[np.float32] | None = None
        self._frames_seen = 0
        self._frames_open = 0
        self._frames_shut = 0

    def is_moving(self, image: NDArray[np.uint8]) -> bool:
        """Look at the next picture, gray (H, W) or RGB (H, W, 3), and say whether it needs the detector."""
        samples = _samples(image)
        if self._background is None or self._background.shape != samples.shape:
            self._background, self._frames_seen = samples.astype(np.float32), 0
            self._frames_open = self._first_frames
        elif self._has_changed(samples, self._background):
            self._frames_open = self._hold_frames + 1
        self._learn(samples, self._background)
        return self._passes()

    def _passes(self) -> bool:
        """Count this frame against the open gate, or against the time until the next keep-alive."""
        if self._frames_open > 0:
            self._frames_open -= 1
            self._frames_shut = 0
            return True
        self._frames_shut = (self._frames_shut + 1) % self._keep_alive_frames
        return self._frames_shut == 0

    def _has_changed(self, samples: NDArray[np.uint8], background: NDArray[np.float32]) -> bool:
        difference = cv2.absdiff(samples, background.astype(np.uint8))
        # The median of |x| is 0.6745 sigma of Gaussian noise; a thin grid of samples is enough to estimate it.
        sigma = float(np.median(difference[::5, ::5])) / 0.6745
        changed = cv2.threshold(difference, max(_MIN_CHANGE, _NOISE_SIGMAS * sigma), 255, cv2.THRESH_BINARY)[1]
        side = SMALLEST_VEHICLE_PX // _PIXELS_PER_SAMPLE
        return float(cv2.blur(changed, (side, side)).max()) >= 255 * self._min_changed_fraction

    def _learn(self, samples: NDArray[np.uint8], background: NDArray[np.float32]) -> None:
        """Follow the median of the past: one gray level at a time, fast in the first frames."""
        self._frames_seen += 1
        if self._frames_seen <= self._first_frames:
            cv2.accumulateWeighted(samples, background, 1 / self._frames_seen)
        elif self._frames_seen % _FRAMES_PER_BACKGROUND_STEP == 0:
            background += np.clip(samples - background, -1, 1)


def _samples(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink one channel fourfold and blur it, so that the sensor's noise is a fifth of what it was."""
    rows = image[::4, ::2] if image.ndim == 2 else image[::4, ::2, 1]
    size = (max(1, rows.shape[1] // 2), rows.shape[0])
    small = cv2.resize(np.ascontiguousarray(rows), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.blur(small, (3, 3)), np.uint8)
