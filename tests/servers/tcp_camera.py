"""A camera that sends its stream over plain TCP as the video library wrote it, with the faults that streams have."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from tests.servers.one_client import OneClientCamera, Pipe

if TYPE_CHECKING:
    import socket

    from numpy.typing import NDArray

#: A frame carries its number in so many blocks at its upper edge, white for 1.
_BITS = 16
_TICKS = Fraction(1, 90_000)


@dataclass(frozen=True)
class Segment:
    """What is sent for a while. A connection's segments follow each other without a break.

    Attributes:
        frames: How many.
        fps: At which they are made and sent.
        declared_fps: That the stream speaks of; None: the true rate.
        codec: The library's name of the encoder.
        container: The library's name; "mpjpeg" has no timestamps.
        width: Pixels, a multiple of 16.
        height: Pixels.
        first_pts_s: The stream's own clock at the first frame, seconds; None: it goes on from the connection's start.
            For "libx264" alone; the others count frames.
    """

    frames: int
    fps: float = 12.0
    declared_fps: int | None = None
    codec: str = "libx264"
    container: str = "mpegts"
    width: int = 320
    height: int = 240
    first_pts_s: float | None = None


def number_of(luma: NDArray[np.uint8]) -> int:
    """The number that a frame's brightness carries."""
    blocks = luma[: luma.shape[0] // 4].reshape(luma.shape[0] // 4, _BITS, -1).mean(axis=(0, 2)) > 128
    return int(sum(1 << place for place, is_set in enumerate(blocks) if is_set))


def _picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    image = np.full((height, width, 3), 90, np.uint8)
    for place in range(_BITS):
        block = width // _BITS
        image[: height // 4, place * block : (place + 1) * block] = 235 * (number >> place & 1)
    return image


class TcpCamera(OneClientCamera):
    """Sends to whoever connects, one client at a time; used as a context manager.

    Args:
        shows: Of each connection in turn: its segments, or raw bytes; the last one is shown to all that follow. When a
            show is over the camera breaks the connection off.
    """

    def __init__(self, *shows: Sequence[Segment | bytes]) -> None:
        super().__init__()
        #: When each frame was made, Unix seconds, by its number.
        self.made_at: list[float] = []
        self._shows = list(shows)

    def serve_client(self, client: socket.socket) -> None:
        """See `OneClientCamera`."""
        show = self._shows.pop(0) if len(self._shows) > 1 else self._shows[0]
        connected = time.monotonic()
        for part in show:
            if isinstance(part, bytes):
                client.sendall(part)
            else:
                self._send(part, client, connected)

    def _send(self, segment: Segment, client: socket.socket, connected: float) -> None:
        # Without a length in its headers a picture would be read only when the next one comes.
        options = {"flush_packets": "1"} | ({"omit_video_pes_length": "0"} if segment.container == "mpegts" else {})
        with av.open(Pipe(client), "w", format=segment.container, options=options, buffer_size=1316) as output:
            stream = output.add_stream(segment.codec, rate=segment.declared_fps or round(segment.fps))
            stream.width, stream.height = segment.width, segment.height
            stream.pix_fmt = "yuvj420p" if segment.codec == "mjpeg" else "yuv420p"
            stream.codec_context.thread_count = 1
            stream.codec_context.gop_size = 12
            stream.codec_context.max_b_frames = 0
            if segment.codec == "libx264":
                stream.codec_context.time_base = _TICKS
                stream.codec_context.options = {"tune": "zerolatency", "preset": "ultrafast"}
            began = time.monotonic()
            first_pts_s = began - connected if segment.first_pts_s is None else segment.first_pts_s
            for place in range(segment.frames):
                if self._stopping.wait(max(0.0, began + place / segment.fps - time.monotonic())):
                    return
                self.made_at.append(time.time())
                image = _picture(len(self.made_at) - 1, segment.width, segment.height)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                seconds = first_pts_s + time.monotonic() - began
                if segment.codec == "libx264":
                    frame.pts, frame.time_base = round(seconds / _TICKS), _TICKS
                output.mux(stream.encode(frame))
