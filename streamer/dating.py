"""Chooses the clock of one connection and dates its pictures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from streamer.capture_clock import FileClock, LiveClock
from streamer.recordings import is_sequence, sequence_files
from streamer.sources import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamer.config import CameraConfig, SourceConfig
    from streamer.sources import Decoded, SourceInfo

_log = structlog.get_logger(__name__)

#: For sources that declare no frame rate; used only to date frames that have no timestamp of their own.
FALLBACK_FPS = 25.0


class ClockSkewError(SourceError):
    """The camera's clock is too far off, and the site file says to refuse such a camera."""


def file_start(camera: CameraConfig, info: SourceInfo) -> tuple[datetime, str]:
    """When a file's first frame was captured, and what says so: the config, the recording, or the file's own time."""
    if camera.start_time is not None:
        return camera.start_time.astimezone(UTC), "start_time of the config + timestamps"
    if info.created_at is not None:
        return info.created_at, "creation_time of the recording + timestamps"
    if is_sequence(camera.url):
        first = sequence_files(camera.url)[0]
        return datetime.fromtimestamp(first.stat().st_mtime, UTC), "modification time of the first image + frame rate"
    written = datetime.fromtimestamp(Path(camera.url.removeprefix("file://")).stat().st_mtime, UTC)
    return written - timedelta(seconds=info.duration_s or 0.0), "modification time of the file - duration + timestamps"


class SessionClock:
    """The clock of one connection.

    Args:
        camera: Whose.
        source: How far a live source's own clock may be off, and what is done then.
        info: What the source says of itself.
        wall_clock: Aware UTC; read once per frame of a live source, never for a file.

    Attributes:
        skew_s: From capture to decoding of the last frame of a live source: by its sender's clock, believed or not,
            where that is known, else by what it was dated.
    """

    def __init__(
        self, camera: CameraConfig, source: SourceConfig, info: SourceInfo, wall_clock: Callable[[], datetime]
    ) -> None:
        self.skew_s = 0.0
        self._camera, self._config, self._shown = camera, source, info.shown
        self._wall_clock = wall_clock
        self._is_skew_told = False
        self._frame_s = 1 / (camera.fps or info.fps or FALLBACK_FPS)
        self._live = LiveClock(self._frame_s, source.max_clock_skew_s) if camera.is_live else None
        self._file: FileClock | None = None
        self._first_pts_s = info.first_pts_s
        self._start_s, self._start_source = 0.0, ""
        if not camera.is_live:
            start, self._start_source = file_start(camera, info)
            self._start_s = start.timestamp()

    @property
    def source(self) -> str:
        """Where the time comes from, in words."""
        if self._live is None:
            return self._start_source
        if self._live.held and not self._live.is_dated:
            return "arrival"
        return "sender report (RTCP)" if self._live.has_sender_time else "arrival + timestamps"

    @property
    def is_checked(self) -> bool:
        """Whether the sender has said by now what time it has."""
        return self._live is not None and self._live.sender_skew_s is not None

    @property
    def held(self) -> int:
        """Frames so far that had no timestamp."""
        clock = self._live or self._file
        return 0 if clock is None else clock.held

    def date(self, decoded: Decoded) -> float:
        """When a picture was captured, seconds since the epoch; each picture once, in order.

        Raises:
            ClockSkewError: The sender's clock is too far off, and `clock_skew` says to refuse it.
        """
        if self._live is None:
            return self._file_clock(decoded).date(decoded.pts_s)
        arrived_s = self._wall_clock().timestamp()
        captured_s = self._live.date(decoded.pts_s, arrived_s, decoded.sender_offset_s)
        if decoded.pts_s is None and self._live.held == 1:
            _log.warning("frames without a timestamp, dated by arrival", camera=self._camera.id)
        if decoded.pts_s is not None and decoded.sender_offset_s is not None:
            self.skew_s = arrived_s - decoded.pts_s - decoded.sender_offset_s
        else:
            self.skew_s = arrived_s - captured_s
        if self._live.is_disbelieved:
            self._mind_skew(self._live.sender_skew_s or 0.0)
        return captured_s

    def _mind_skew(self, skew_s: float) -> None:
        """Refuses the camera, or says once that its frames are dated by their arrival."""
        direction = "behind" if skew_s > 0 else "ahead of"
        told = f"its clock is {abs(skew_s):.1f} s {direction} ours, and {self._config.max_clock_skew_s:g} s are allowed"
        if self._config.clock_skew == "refuse":
            raise ClockSkewError(f"{self._shown}: {told}")
        if not self._is_skew_told:
            self._is_skew_told = True
            _log.warning("dated by arrival", camera=self._camera.id, reason=told)

    def _file_clock(self, decoded: Decoded) -> FileClock:
        if self._file is None:
            first_pts_s = self._first_pts_s if self._first_pts_s is not None else decoded.pts_s or 0.0
            self._file = FileClock(self._start_s, first_pts_s, self._frame_s)
        return self._file
