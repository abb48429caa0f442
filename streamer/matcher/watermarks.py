"""Event time: up to which moment everything of a region has been seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class _Camera:
    session: str
    watermark: float
    is_finished: bool
    past_sessions: set[str] = field(default_factory=set)


class Watermarks:
    """The cameras' promises of one region, and the moment up to which all of them have been kept.

    A camera that has finished holds nobody back, nor does one that is `silence_s` behind the foremost of those that go
    on. One that has said nothing yet counts as having stood at the region's first moment. All in event time: no clock
    is read.

    Attributes:
        heard: The sessions, as (camera, session), in the order in which they were first heard of.
        first: The region's first moment, seconds since the epoch; minus infinity before anything was heard.
    """

    def __init__(self, cameras: Iterable[str], *, silence_s: float) -> None:
        self._unheard = set(cameras)
        self._cameras: dict[str, _Camera] = {}
        self._silence_s = silence_s
        self.heard: list[tuple[str, str]] = []
        self.first = -math.inf

    def promise(self, camera: str, session: str, watermark: float, *, is_finished: bool) -> None:
        """Takes in a heartbeat: seconds since the epoch, up to which the camera's sightings have all been sent.

        One of a session that the camera has left behind comes late and says nothing of where the camera is now.
        """
        known = self._cameras.get(camera)
        if known is None:
            self._cameras[camera] = _Camera(session, watermark, is_finished)
            self.heard.append((camera, session))
        elif known.session == session:
            known.watermark = max(known.watermark, watermark)
            known.is_finished = known.is_finished or is_finished
        elif session not in known.past_sessions:
            past = known.past_sessions | {known.session}
            self._cameras[camera] = _Camera(session, watermark, is_finished, past)
            self.heard.append((camera, session))
        self._unheard.discard(camera)
        if self.first == -math.inf and not is_finished:
            self.first = watermark

    def silent(self) -> list[tuple[str, str]]:
        """The sessions, as (camera, session), that no longer hold the others back because they say nothing."""
        foremost = self._foremost
        return [
            (name, camera.session)
            for name, camera in self._cameras.items()
            if not camera.is_finished and camera.watermark < foremost - self._silence_s
        ]

    @property
    def region(self) -> float:
        """The region's watermark in seconds since the epoch; infinity once every camera has finished."""
        waited_for = [camera.watermark for camera in self._cameras.values() if not camera.is_finished]
        waited_for += [self.first] * bool(self._unheard)
        foremost = self._foremost
        return min((mark for mark in waited_for if mark >= foremost - self._silence_s), default=math.inf)

    @property
    def _foremost(self) -> float:
        """Of the cameras that go on: a file that ended at noon says nothing of one that is played from the morning."""
        going_on = [camera.watermark for camera in self._cameras.values() if not camera.is_finished]
        return max(going_on, default=-math.inf)
