"""From 16-bit thermal counts to 8-bit gray: automatic gain by percentiles, smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import structlog

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ThermalRange:
    """The counts that become black and white.

    Attributes:
        low: Sensor counts that map to 0, as do all below.
        high: Sensor counts that map to 255, as do all above; exceeds `low`.
    """

    low: float
    high: float

    def to_gray8(self, gray16: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Maps (H, W) uint16 counts to (H, W) uint8, linearly within the range, saturating beyond it."""
        low = round(self.low)
        above = cv2.subtract(gray16, np.full_like(gray16, low))  # saturates at 0 where the counts are below
        return cv2.convertScaleAbs(above, alpha=255 / max(self.high - low, 1.0)).astype(np.uint8, copy=False)


class ThermalAgc:
    """Percentile gain control with temporal smoothing.

    A sensor's raw counts span a few hundred of 65536 values, drift with its temperature and jump when its shutter
    calibrates. Percentiles ignore dead pixels and the sun; smoothing keeps a hot truck from dimming the whole road,
    which would look like motion to the gate and like another vehicle to the embedder.

    Args:
        camera: Named in the log.
        low_percentile: Of the counts, mapped to black.
        high_percentile: Of the counts, mapped to white.
        smoothing: Share of the step towards a new frame's percentiles that each frame takes, in (0, 1].
        min_span: Counts; a narrower range is widened about its middle, or noise of a flat scene would fill the image.
    """

    #: Every 4th pixel of every 4th row: 640x512 gives 20 480 counts, so that a percentile costs 0.2 ms instead of 3.
    _STEP = 4
    #: The log says so when an end of the range has moved by this share of its span.
    _MOVED = 0.25

    def __init__(
        self,
        camera: str = "",
        *,
        low_percentile: float = 1.0,
        high_percentile: float = 99.5,
        smoothing: float = 0.1,
        min_span: float = 64.0,
    ) -> None:
        if not 0 <= low_percentile < high_percentile <= 100:
            raise ValueError(f"percentiles: wanted 0 <= low < high <= 100, got {low_percentile}, {high_percentile}")
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing: wanted within (0, 1], got {smoothing}")
        self._camera = camera
        self._percentiles = (low_percentile, high_percentile)
        self._smoothing = smoothing
        self._min_span = min_span
        self._low = 0.0
        self._high = 0.0
        self._logged: ThermalRange | None = None

    def measure(self, gray16: NDArray[np.uint16]) -> ThermalRange:
        """Takes a frame's counts into the smoothed range and returns it. Each frame once, in order.

        Args:
            gray16: (H, W) uint16 sensor counts.
        """
        low, high = np.percentile(gray16[:: self._STEP, :: self._STEP], self._percentiles)
        if self._logged is None or high < self._low or low > self._high:
            # The first frame, or a shutter calibration: nothing of the old range is left to smooth with.
            self._low, self._high = float(low), float(high)
        else:
            self._low += self._smoothing * (float(low) - self._low)
            self._high += self._smoothing * (float(high) - self._high)
        current = self._widened()
        self._log_moves(current)
        return current

    def apply(self, gray16: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """`measure`, then the frame in that range: (H, W) uint16 -> (H, W) uint8."""
        return self.measure(gray16).to_gray8(gray16)

    def _widened(self) -> ThermalRange:
        missing = max(0.0, self._min_span - (self._high - self._low))
        low = max(0.0, self._low - missing / 2)
        return ThermalRange(low, max(self._high + missing / 2, low + self._min_span))

    def _log_moves(self, current: ThermalRange) -> None:
        last = self._logged
        if last is not None:
            allowed = self._MOVED * (last.high - last.low)
            if abs(current.low - last.low) <= allowed and abs(current.high - last.high) <= allowed:
                return
        self._logged = current
        _log.info("thermal range", camera=self._camera, low=round(current.low), high=round(current.high))
