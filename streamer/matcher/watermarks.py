"""Event time: up to which moment everything of a region has been seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class _Camera:
    session: str
    watermark: float
    is_finished: bool


class Watermarks:
    """The cameras' promises of one region, and the moment up to which all of them have been kept.

    A camera that has finished holds nobody back, nor does one that is `silence_s` behind the foremost camera. One that
    has said nothing yet counts as having stood at the region's first moment. All in event time: no clock is read.
    """

    def __init__(self, cameras: Iterable[str], *, silence_s: float) -> None:
        self._unheard = set(cameras)
        self._cameras: dict[str, _Camera] = {}
        self._silence_s = silence_s
        self._first = -math.inf
        self._foremost = -math.inf

    def promise(self, camera: str, session: str, watermark: float, *, is_finished: bool) -> None:
        """Takes in a heartbeat: seconds since the epoch, up to which the camera's sightings have all been sent."""
        known = self._cameras.get(camera)
        if known is None or known.session != session:
            self._cameras[camera] = _Camera(session, watermark, is_finished)
        else:
            known.watermark = max(known.watermark, watermark)
            known.is_finished = known.is_finished or is_finished
        self._unheard.discard(camera)
        if self._first == -math.inf:
            self._first = watermark
        self._foremost = max(self._foremost, watermark)

    def silent(self) -> list[tuple[str, str]]:
        """The sessions, as (camera, session), that no longer hold the others back because they say nothing."""
        return [
            (name, camera.session)
            for name, camera in self._cameras.items()
            if not camera.is_finished and self._is_silent(camera.watermark)
        ]

    @property
    def region(self) -> float:
        """The region's watermark in seconds since the epoch; infinity once every camera has finished."""
        going_on = [camera.watermark for camera in self._cameras.values() if not camera.is_finished]
        waited_for = going_on + [self._first] * bool(self._unheard)
        heard = [watermark for watermark in waited_for if not self._is_silent(watermark)]
        if heard:
            return min(heard)
        return self._foremost if waited_for else math.inf

    def _is_silent(self, watermark: float) -> bool:
        return watermark < self._foremost - self._silence_s
