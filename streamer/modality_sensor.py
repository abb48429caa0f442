"""Senses the IR-cut switch of a day/night camera: by night its picture loses all colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from reid.modality import Modality

if TYPE_CHECKING:
    from numpy.typing import NDArray


def chroma_spread(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """How much colour varies over a picture: the standard deviation of both chroma planes together.

    The spread and not the distance from gray: a camera whose night picture has a tint is colourless all the same.

    Args:
        first: (h, w) uint8, U of YUV, subsampled as coarsely as wanted.
        second: (h, w) uint8, V of YUV.
    """
    return float(np.hypot(np.std(first), np.std(second)))


class IrCutSensor:
    """VISIBLE or NEAR_INFRARED, by chroma collapse with hysteresis in level and in time.

    The first picture decides at once; later the spread must stay beyond the other threshold for `hold_s` without a
    break, so that a passing gray truck, a flash or the gray seconds of the switch itself change nothing.

    Args:
        collapsed_below: A spread below this says near infrared. Coded night pictures show 0-1.
        coloured_above: A spread above this says visible. Gray winter roads show 4, most scenes 7-12.
        hold_s: Stream time for which a change must last.
    """

    def __init__(self, *, collapsed_below: float = 1.5, coloured_above: float = 2.5, hold_s: float = 0.5) -> None:
        if not 0 < collapsed_below <= coloured_above:
            raise ValueError(f"wanted 0 < collapsed_below <= coloured_above, got {collapsed_below}, {coloured_above}")
        self._collapsed_below = collapsed_below
        self._coloured_above = coloured_above
        self._hold_s = hold_s
        self._modality: Modality | None = None
        self._contrary_since: float | None = None

    def sense(self, spread: float, at_s: float) -> Modality:
        """The band of a picture.

        Args:
            spread: Its `chroma_spread`.
            at_s: When it was captured, seconds; never falls.
        """
        if self._modality is None:
            middle = (self._collapsed_below + self._coloured_above) / 2
            self._modality = Modality.VISIBLE if spread >= middle else Modality.NEAR_INFRARED
        elif not self._is_contrary(spread):
            self._contrary_since = None
        elif self._contrary_since is None:
            self._contrary_since = at_s
        elif at_s - self._contrary_since >= self._hold_s:
            self._modality = self._other()
            self._contrary_since = None
        return self._modality

    def _is_contrary(self, spread: float) -> bool:
        if self._modality is Modality.VISIBLE:
            return spread < self._collapsed_below
        return spread > self._coloured_above

    def _other(self) -> Modality:
        return Modality.NEAR_INFRARED if self._modality is Modality.VISIBLE else Modality.VISIBLE
