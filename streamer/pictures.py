"""Decoded pictures of the video library, converted only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

    from streamer.thermal import ThermalRange

_HALVED = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "yuvj411p", "yuv410p")
_INTERLEAVED = ("nv12", "nv21", "nv16", "nv24")
#: Formats whose first plane is 8-bit brightness.
_LUMA_FIRST = frozenset((*_HALVED, *_INTERLEAVED, "gray"))
#: Chroma samples across a picture: 64 x 36 of them, for 0.03 ms at any size.
_CHROMA_SAMPLES = 64


def is_gray16(decoded: av.VideoFrame) -> bool:
    """Whether a picture is gray of more than 8 bits: a thermal sensor's counts."""
    return str(decoded.format.name).startswith("gray") and int(decoded.format.components[0].bits) > 8


def gray16(decoded: av.VideoFrame) -> NDArray[np.uint16]:
    """The counts of a deep gray picture, (H, W) uint16, bit-exact where it has 16 bits."""
    if decoded.format.name not in ("gray16le", "gray16be"):
        decoded = decoded.reformat(format="gray16le")
    counts: NDArray[np.uint16] = np.ascontiguousarray(decoded.to_ndarray(), dtype=np.uint16)
    return counts


def chroma(decoded: av.VideoFrame) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """U and V of a picture, subsampled."""
    name = decoded.format.name
    if name in _INTERLEAVED:
        step = _step(decoded.planes[1].width)
        both = _plane(decoded.planes[1], decoded.planes[1].width * 2)[::step]
        return both[:, :: 2 * step], both[:, 1 :: 2 * step]
    if name not in _HALVED:
        decoded = decoded.reformat(format="yuv420p")
    step = _step(decoded.planes[1].width)
    first, second = (_plane(plane, plane.width)[::step, ::step] for plane in decoded.planes[1:3])
    return first, second


def _step(width: int) -> int:
    return max(1, width // _CHROMA_SAMPLES)


def _plane(plane: av.video.plane.VideoPlane, row_bytes: int) -> NDArray[np.uint8]:
    """A read-only view of a plane without its rows' padding: the decoder may still predict from these pixels."""
    view = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, :row_bytes]
    view.flags.writeable = False
    return view


class VideoPicture:
    """An 8-bit (or colour) picture; holds the decoder's buffer."""

    __slots__ = ("_decoded", "_image", "_luma")

    def __init__(self, decoded: av.VideoFrame) -> None:
        self._decoded = decoded
        self._luma: NDArray[np.uint8] | None = None
        self._image: NDArray[np.uint8] | None = None

    def luma(self) -> NDArray[np.uint8]:
        """(H, W), a view of the Y plane where its rows are unpadded, otherwise a copy."""
        if self._luma is None:
            if self._decoded.format.name in _LUMA_FIRST:
                rows = _plane(self._decoded.planes[0], self._decoded.width)
            else:
                rows = self._decoded.reformat(format="gray").to_ndarray()
            self._luma = np.ascontiguousarray(rows)
        return self._luma

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB by libswscale, which knows the stream's matrix and range."""
        if self._image is None:
            self._image = np.ascontiguousarray(self._decoded.to_ndarray(format="rgb24"))
        return self._image


class ThermalPicture:
    """Thermal counts, and the range in which they are shown."""

    __slots__ = ("_counts", "_image", "_luma", "_range")

    def __init__(self, counts: NDArray[np.uint16], shown: ThermalRange) -> None:
        self._counts = counts
        self._range = shown
        self._luma: NDArray[np.uint8] | None = None
        self._image: NDArray[np.uint8] | None = None

    def luma(self) -> NDArray[np.uint8]:
        """(H, W) gray after gain control."""
        if self._luma is None:
            self._luma = self._range.to_gray8(self._counts)
        return self._luma

    def image(self) -> NDArray[np.uint8]:
        """(H, W, 3), the gray three times."""
        if self._image is None:
            gray = self.luma()
            self._image = np.repeat(gray[:, :, None], 3, axis=2)
        return self._image
