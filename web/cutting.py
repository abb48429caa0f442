"""Cuts a stop out of a film, with the vehicle's box in each picture. Knows no site and no database."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import cv2
import numpy as np

from storage.errors import StorageError
from web.uploads import stretched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    import av
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from storage.paths import PathPoints

#: Shown before the stop and after it, in seconds.
AROUND_S = 1.0
#: Wider films are shrunk to this, in pixels.
WIDEST = 960
#: What takes longer is given up: a damaged file, or a slow disk, would keep everybody else waiting.
CUT_TIMEOUT_S = 60.0
#: A picture may come so many later than it is shown, as no codec in use exceeds.
_MOST_REORDERED = 32
#: Times that differ by no more are the same: they are stored in microseconds, and films count in milliseconds.
_SAME_S = 0.002
_COLOUR = (255, 90, 54)
_TICKS = 90_000


class ClipError(StorageError):
    """There is no film of that stop, and why."""


@dataclass(frozen=True, slots=True)
class _Shot:
    """A picture of the film.

    Attributes:
        at_s: When, in seconds since the film begins.
        image: (h, w, 3) uint8 RGB.
    """

    at_s: float
    image: NDArray[np.uint8]


def cut(source: Path, path: PathPoints, *, start: datetime | None, longest_s: float) -> bytes:
    """A stop as an MP4 file that browsers play. Blocks for some seconds, `CUT_TIMEOUT_S` at most.

    Args:
        source: A file with pictures.
        path: Where the vehicle was, by times that count from the file's start; not empty.
        start: When the file's first picture was captured; None: as the path has it.
        longest_s: What is longer is shown in part.

    Raises:
        ClipError: It can't be read, or takes too long.
    """
    import av

    try:
        with av.open(str(source), timeout=CUT_TIMEOUT_S) as container:
            return _film(_shots(container, path, start, longest_s))
    except (av.FFmpegError, OSError, ValueError) as error:
        # Without the library's own words, which name the file's place.
        raise ClipError("no film: the camera's file can't be read") from error


def _film(shots: Iterator[_Shot]) -> bytes:
    import av

    written = io.BytesIO()
    stream = None
    with av.open(written, "w", format="mp4") as target:
        for shot in shots:
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
    return written.getvalue()


def _shots(container: InputContainer, path: PathPoints, start: datetime | None, longest_s: float) -> Iterator[_Shot]:
    """The pictures of the stop, each with the vehicle's box."""
    if not container.streams.video:
        raise ClipError("no film: the camera's file has no pictures")
    video = container.streams.video[0]
    video.thread_type = "AUTO"
    give_up_at = time.monotonic() + CUT_TIMEOUT_S
    # Frames were dated by the file's start and their own time in it.
    first_s = (video.start_time or 0) * _tick_s(video)
    if start is not None:
        began = start.timestamp()
    else:
        began = float(path.times[0]) - _time_of(container, video, int(path.frames[0]), give_up_at)
    begin_s = max(float(path.times[0]) - began - AROUND_S, 0.0)
    end_s = min(float(path.times[-1]) - began + AROUND_S, begin_s + longest_s)
    container.seek(int((begin_s + first_s) / _tick_s(video)), stream=video)
    for frame in _decoded(container, video, give_up_at):
        if frame.time is None or frame.time - first_s < begin_s - _SAME_S:
            continue
        at_s = frame.time - first_s
        if at_s > end_s:
            return
        image = _picture(frame, video)
        box = _box_at(path, began + at_s)
        if box is not None:
            scale = np.array([image.shape[1] / video.width, image.shape[0] / video.height] * 2)
            x1, y1, x2, y2 = (int(side) for side in np.rint(box * scale))
            cv2.rectangle(image, (x1, y1), (x2, y2), _COLOUR, 2)
        yield _Shot(at_s - begin_s, image)


def _decoded(container: InputContainer, video: VideoStream, give_up_at: float) -> Iterator[av.VideoFrame]:
    import av

    for packet in _packets(container, video, give_up_at):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            continue  # a damaged picture is left out, as it was when the vehicle was tracked


def _packets(container: InputContainer, video: VideoStream, give_up_at: float) -> Iterator[av.Packet[VideoStream]]:
    for packet in container.demux(video):
        if time.monotonic() > give_up_at:
            raise ClipError("no film: to cut it takes too long here")
        yield packet


def _time_of(container: InputContainer, video: VideoStream, number: int, give_up_at: float) -> float:
    """When the frame of that number is shown, in seconds since the first."""
    if video.average_rate is not None and video.average_rate == video.base_rate:
        return float(number / video.average_rate)
    # Phones and recorders that save room don't keep a pace: the frames before it are counted.
    shown: list[int] = []
    for packet in _packets(container, video, give_up_at):
        if packet.pts is not None and not packet.is_discard:
            shown.append(packet.pts)
        if len(shown) > number + _MOST_REORDERED:
            break
    if number >= len(shown):
        raise ClipError("no film: the camera's file has no picture of that time")
    shown.sort()
    return (shown[number] - (video.start_time or 0)) * _tick_s(video)


def _picture(frame: av.VideoFrame, video: VideoStream) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB, of even sides, which the encoder wants."""
    scale = min(WIDEST / video.width, 1.0)
    width, height = (max(int(side * scale) // 2 * 2, 2) for side in (video.width, video.height))
    if frame.format.name.startswith("gray1"):
        # Heat of 16 bits lies within a few hundred of 65,536 steps: as it is, all would be one grey.
        return stretched(frame.to_ndarray(format="gray16le", width=width, height=height).astype(np.float64))
    return np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height), np.uint8)


def _box_at(path: PathPoints, moment_s: float) -> NDArray[np.float32] | None:
    """The box (4,) xyxy in source pixels at that time, or None where the vehicle was not seen."""
    away_s = np.abs(path.times - moment_s)
    nearest = int(np.argmin(away_s))
    frame_s = float(np.diff(path.times).min()) if len(path) > 1 else 0.0
    return path.boxes[nearest] if away_s[nearest] <= max(0.75 * frame_s, _SAME_S) else None


def _tick_s(video: VideoStream) -> float:
    return float(video.time_base or Fraction(1, _TICKS))
