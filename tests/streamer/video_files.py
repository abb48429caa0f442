"""Tiny videos for tests, written by the video library itself."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FPS = 10


def colours(count: int, *, width: int = 162, height: int = 90, seed: int = 0) -> list[NDArray[np.uint8]]:
    """RGB pictures of coloured blocks; the width is no multiple of the decoder's row padding."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 6, 9, 3), dtype=np.uint8)
    return [np.kron(each, np.ones((height // 6, width // 9, 1), np.uint8)) for each in small]


def counts(frames: int, *, seed: int = 0) -> list[NDArray[np.uint16]]:
    """Thermal counts around 8000."""
    rng = np.random.default_rng(seed)
    return [rng.integers(7000, 9000, (90, 162), dtype=np.uint16) for _ in range(frames)]


def encode(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]] | Sequence[NDArray[np.uint16]],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    pts: Sequence[int] | None = None,
    damaged: frozenset[int] = frozenset(),
    metadata: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a video of 10 frames/s (or at the given 1/1000 s); packets named in `damaged` hold noise."""
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(codec, rate=FPS)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        number = 0
        for place, picture in enumerate([*pictures, None]):
            frame = None
            if picture is not None:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.ndim == 3 else "gray16le")
                frame.pts = place if pts is None else pts[place]
                frame.time_base = Fraction(1, FPS) if pts is None else Fraction(1, 1000)
            for packet in stream.encode(frame):
                output.mux(_noise(packet) if number in damaged else packet)
                number += 1
    return path


def _noise(packet: av.Packet) -> av.Packet:
    noise = av.Packet(np.random.default_rng(1).bytes(500))
    noise.pts, noise.dts, noise.time_base, noise.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    return noise
