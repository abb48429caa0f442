"""The moment of a stop, as a film: cut out of the camera's file, with the vehicle's box in it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC
from fractions import Fraction
from pathlib import Path
from threading import Lock, Timer
from typing import TYPE_CHECKING

import cv2
import numpy as np

from storage.errors import StorageError
from storage.looks import PathOfTracklet, path_of_tracklet
from streamer.recordings import file_session, is_sequence

if TYPE_CHECKING:
    from collections.abc import Iterator

    import av
    from av.container import InputContainer
    from numpy.typing import NDArray

    from storage.database import Database
    from streamer.config import CameraConfig, SiteConfig

#: Shown before the stop and after it, in seconds.
AROUND_S = 1.0
#: Wider films are shrunk to this, in pixels.
WIDEST = 960
#: All films that are kept together; the oldest go first.
KEPT_BYTES = 200 << 20
#: How long a film waits for another one that is being cut.
BUSY_S = 20.0
_COLOUR = (255, 90, 54)
_TICKS = 90_000


class ClipError(StorageError):
    """There is no film of that stop, and why."""


class ClipBusyError(ClipError):
    """Others are being cut: it may be asked for again."""


def no_clip_reason(site: SiteConfig, camera_id: str, session: str) -> str | None:
    """Why there is no film of what a camera saw in a session; None: there is one.

    Args:
        site: The site file.
        camera_id: The camera.
        session: Of the tracklet: a file's is known by its name, size and start.
    """
    camera = next((one for one in site.cameras if one.id == camera_id), None)
    if camera is None or camera.is_live:
        return "the camera's source is no file of this site"
    if is_sequence(camera.url):
        return "the camera's source is a sequence of images, which is not played"
    if site.privacy.blur:
        return "this site hides windows and plates, which its films would show"
    if not _path(camera).is_file() or session != file_session(camera):
        return "the camera's file is no longer the one that was watched"
    return None


class Clips:
    """Cuts films, one at a time, and keeps each for as long as its address is good. Safe for several threads.

    Args:
        site: The site file.
        database: Where tracklets went.
    """

    def __init__(self, site: SiteConfig, database: Database) -> None:
        self._site = site
        self._database = database
        self._lock = Lock()
        self._folder: Path | None = None

    def film(self, tracklet_id: str) -> Path:
        """The film of a tracklet, as an MP4 file that browsers play.

        Blocks while it is cut: some seconds.

        Raises:
            TrackletNotFoundError: There is no such tracklet.
            ClipBusyError: Others are being cut.
            ClipError: There is no film of it.
        """
        with self._database.snapshot() as session:
            tracklet = path_of_tracklet(session, tracklet_id)
        reason = no_clip_reason(self._site, tracklet.camera, tracklet.session)
        if reason is None and not len(tracklet.path):
            reason = "where it was is no longer stored"
        if reason is not None:
            raise ClipError(f"no film: {reason}")
        if not self._lock.acquire(timeout=BUSY_S):
            raise ClipBusyError("other films are being cut: ask again in a moment")
        try:
            # Named after how long it was in view, too: one that goes on is cut anew.
            name = hashlib.sha256(f"{tracklet_id}\n{tracklet.path.times[-1]}".encode()).hexdigest()
            film = self._room() / f"{name}.mp4"
            if not film.exists():
                self._cut(tracklet, film)
                self._drop_old(film)
                # No longer than its address is good: what is forgotten meanwhile must not lie here for days.
                timer = Timer(self._site.web.link_minutes * 60, film.unlink, kwargs={"missing_ok": True})
                timer.daemon = True
                timer.start()
            return film
        finally:
            self._lock.release()

    def has(self, tracklet_id: str, camera: str) -> bool:
        """Whether there is a film of that tracklet, as far as can be told without reading the file."""
        parts = tracklet_id.split("/")
        return len(parts) == 3 and no_clip_reason(self._site, camera, parts[1]) is None

    def close(self) -> None:
        """Removes all films."""
        with self._lock:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _room(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="vehicle-tracker-clips-"))
        return self._folder

    def _drop_old(self, newest: Path) -> None:
        films = sorted(self._room().glob("*.mp4"), key=lambda film: film.stat().st_mtime, reverse=True)
        total = 0
        for film in films:
            total += film.stat().st_size
            if total > KEPT_BYTES and film != newest:
                film.unlink()

    def _cut(self, tracklet: PathOfTracklet, film: Path) -> None:
        import av

        camera = self._site.camera(tracklet.camera)
        part = film.with_suffix(".part")
        try:
            with av.open(str(_path(camera))) as source, av.open(str(part), "w", format="mp4", options=_FAST) as target:
                _copy(source, target, camera, tracklet, self._site.web.max_clip_s)
            part.replace(film)
        except (av.FFmpegError, OSError, ValueError) as error:
            # Without the library's own words, which name the file's place.
            raise ClipError("no film: the camera's file can't be read") from error
        finally:
            part.unlink(missing_ok=True)


_FAST = {"movflags": "+faststart"}


@dataclass(frozen=True, slots=True)
class _Shot:
    """A frame of the film: when, in seconds since it begins, and its picture, (h, w, 3) uint8 RGB."""

    at_s: float
    image: NDArray[np.uint8]


def _copy(
    source: InputContainer,
    target: av.container.OutputContainer,
    camera: CameraConfig,
    tracklet: PathOfTracklet,
    longest_s: float,
) -> None:
    import av

    stream = None
    for shot in _shots(source, camera, tracklet, longest_s):
        if stream is None:
            height, width = shot.image.shape[:2]
            stream = target.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "26"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.time_base = Fraction(1, _TICKS)
            stream.codec_context.thread_count = 1
        frame = av.VideoFrame.from_ndarray(shot.image, format="rgb24")
        frame.pts, frame.time_base = round(shot.at_s * _TICKS), Fraction(1, _TICKS)
        target.mux(stream.encode(frame))
    if stream is None:
        raise ClipError("no film: the camera's file has no picture of that time")
    target.mux(stream.encode())


def _shots(source: InputContainer, camera: CameraConfig, tracklet: PathOfTracklet, longest_s: float) -> Iterator[_Shot]:
    """The frames of the stop, each with the vehicle's box."""
    video = source.streams.video[0]
    video.thread_type = "AUTO"
    path = tracklet.path
    base = float(video.time_base or Fraction(1, _TICKS))
    first_s = (video.start_time or 0) * base
    rate = float(video.average_rate or 25)
    # Frames were dated by the file's start and their own time in it.
    if camera.start_time is not None:
        began = camera.start_time.astimezone(UTC).timestamp()
    else:
        began = float(path.times[0]) - int(path.frames[0]) / rate
    begin_s = max(float(path.times[0]) - began - AROUND_S, 0.0)
    end_s = min(float(path.times[-1]) - began + AROUND_S, begin_s + longest_s)
    source.seek(int((begin_s + first_s) / base), stream=video)
    scale = min(WIDEST / video.width, 1.0)
    width, height = (max(int(side * scale) // 2 * 2, 2) for side in (video.width, video.height))
    for frame in source.decode(video):
        if frame.time is None or frame.time - first_s < begin_s - 0.5 / rate:
            continue
        at_s = frame.time - first_s
        if at_s > end_s:
            return
        image = frame.to_ndarray(format="rgb24", width=width, height=height)
        box = _box_at(tracklet, began + at_s, 0.75 / rate)
        if box is not None:
            x1, y1, x2, y2 = np.rint(box * np.array([width / video.width, height / video.height] * 2)).astype(int)
            cv2.rectangle(image, (int(x1), int(y1)), (int(x2), int(y2)), _COLOUR, 2)
        yield _Shot(at_s - begin_s, np.asarray(image, np.uint8))


def _box_at(tracklet: PathOfTracklet, moment_s: float, within_s: float) -> NDArray[np.float32] | None:
    """The box (4,) xyxy in source pixels at that time, or None where the vehicle was not seen."""
    times = tracklet.path.times
    index = int(np.argmin(np.abs(times - moment_s)))
    return tracklet.path.boxes[index] if abs(times[index] - moment_s) <= within_s else None


def _path(camera: CameraConfig) -> Path:
    return Path(camera.url.removeprefix("file://"))
