"""A tracklet's path as one compact blob: what a sighting carries and what the database keeps per segment.

zlib over a small header and three columns of differences, each in the narrowest integer that holds it: frames, times
in microseconds, box corners in 1/8 pixel.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

from streamer.sightings import MAX_PATH_BYTES, SightingError, TrackPath

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Steps per pixel. Rounding moves a corner by at most 1/16 pixel, far less than a detector's own error.
BOX_STEPS = 8
#: Any path of this many points fits into `MAX_PATH_BYTES` (32 bytes a point at worst, five as a rule).
POINTS_THAT_ALWAYS_FIT = 2000
#: Bounds what a hostile blob can unfold to (zlib reaches 1000:1): 22 minutes at 25 frames/s.
MAX_PATH_POINTS = 1 << 15
MAX_PIXEL = 65_536.0
#: 2000-01-01 and 2100-01-01 UTC, in microseconds: a clock outside is wrong, not early or late.
EARLIEST_US = 946_684_800_000_000
LATEST_US = 4_102_444_800_000_000

_MAX_FRAME = 1 << 53
_MICROSECONDS = 1e6
#: Number of points, first frame, first time.
_HEADER = struct.Struct("<Iqq")
_COLUMNS_PER_POINT = 6
_MAX_BODY = _HEADER.size + 3 + MAX_PATH_POINTS * _COLUMNS_PER_POINT * 8
_WIDTHS = (1, 2, 4, 8)


def encode_path(path: TrackPath) -> bytes:
    """The blob of a path.

    Args:
        path: May be empty; frames rising, times 2000-2100, boxes within 65,536 pixels of the origin.

    Returns:
        At most `MAX_PATH_BYTES`. Frames are exact, times to the microsecond, boxes to 1/16 pixel.

    Raises:
        SightingError: The path breaks the contract, or is too long: cut the sighting sooner.
    """
    if not (np.isfinite(path.times).all() and np.isfinite(path.boxes).all()):
        raise SightingError("path: times and boxes must be finite")
    # Clipped only so that the cast cannot overflow; what was clipped is out of bounds all the same.
    times_us = np.rint(np.clip(path.times, -1e10, 1e10) * _MICROSECONDS).astype(np.int64)
    corners = np.rint(np.clip(path.boxes, -1e6, 1e6) * BOX_STEPS).astype(np.int64)
    frames = np.asarray(path.frames, dtype=np.int64)
    _check(frames, times_us, corners)
    blob = zlib.compress(_body(frames, times_us, corners), 6)
    if len(blob) > MAX_PATH_BYTES:
        raise SightingError(
            f"path: {len(path)} points take {len(blob)} bytes, at most {MAX_PATH_BYTES}: cut the sighting sooner"
        )
    return blob


def decode_path(blob: bytes) -> TrackPath:
    """The path in a blob.

    Raises:
        SightingError: The blob is cut short, has more than it should, or holds a path that breaks the contract.
    """
    if len(blob) > MAX_PATH_BYTES:
        raise SightingError(f"path: {len(blob)} bytes, at most {MAX_PATH_BYTES}")
    body = _unfold(blob)
    if len(body) < _HEADER.size:
        raise SightingError("path: no header")
    count, first_frame, first_us = _HEADER.unpack_from(body)
    if count > MAX_PATH_POINTS:
        raise SightingError(f"path: {count} points, at most {MAX_PATH_POINTS}")
    frame_steps, at = _read_column(body, _HEADER.size, count)
    time_steps, at = _read_column(body, at, count)
    corner_steps, at = _read_column(body, at, count * 4)
    if at != len(body):
        raise SightingError(f"path: {len(body) - at} bytes too many")
    # Sums of hostile steps may wrap round; the check below sees the wrapped numbers and judges those.
    frames = np.cumsum(frame_steps) + first_frame
    times_us = np.cumsum(time_steps) + first_us
    corners = np.cumsum(corner_steps.reshape(4, count), axis=1).T
    _check(frames, times_us, corners)
    return TrackPath(
        frames=frames,
        times=times_us / _MICROSECONDS,
        boxes=np.ascontiguousarray(corners, dtype=np.float32) / np.float32(BOX_STEPS),
    )


def _body(frames: NDArray[np.int64], times_us: NDArray[np.int64], corners: NDArray[np.int64]) -> bytes:
    count = len(frames)
    first_frame, first_us = (int(frames[0]), int(times_us[0])) if count else (0, 0)
    return b"".join(
        (
            _HEADER.pack(count, first_frame, first_us),
            _column(np.diff(frames, prepend=first_frame)),
            _column(np.diff(times_us, prepend=first_us)),
            _column(np.diff(corners.T, axis=1, prepend=0).ravel()),
        )
    )


def _column(steps: NDArray[np.int64]) -> bytes:
    """One byte for the width, then the steps in zigzag order (small numbers of either sign have zero high bytes)."""
    zigzag = ((steps << 1) ^ (steps >> 63)).view(np.uint64)
    highest = int(zigzag.max(initial=0))
    width = next(width for width in _WIDTHS if highest < 1 << 8 * width)
    # Plane by plane, all low bytes first: zlib then finds the runs of equal high bytes (a third off the blob).
    planes = zigzag.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T
    return b"".join((bytes((width,)), planes.tobytes()))


def _read_column(body: bytes, at: int, count: int) -> tuple[NDArray[np.int64], int]:
    width = body[at] if at < len(body) else 0
    end = at + 1 + count * width
    if width not in _WIDTHS or end > len(body):
        raise SightingError("path: cut short, or not a path")
    planes = np.frombuffer(body, np.uint8, count * width, at + 1).reshape(width, count)
    zigzag = np.ascontiguousarray(planes.T).view(f"<u{width}").ravel().astype(np.uint64)
    return (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64), end


def _unfold(blob: bytes) -> bytes:
    unfolder = zlib.decompressobj()
    try:
        body = unfolder.decompress(blob, _MAX_BODY)
    except zlib.error as error:
        raise SightingError(f"path: {error}") from error
    if not unfolder.eof or unfolder.unused_data:
        raise SightingError("path: cut short, too long, or followed by other bytes")
    return body


def _check(frames: NDArray[np.int64], times_us: NDArray[np.int64], corners: NDArray[np.int64]) -> None:
    """The path's rules, in whole numbers, where there is no NaN and no rounding."""
    if len(frames) == 0:
        return
    if len(frames) > MAX_PATH_POINTS:
        raise SightingError(f"path: {len(frames)} points, at most {MAX_PATH_POINTS}: cut the sighting sooner")
    if frames[0] < 0 or frames[-1] > _MAX_FRAME or not (frames[1:] > frames[:-1]).all():
        raise SightingError("path: frames must rise from 0 on")
    if times_us.min() < EARLIEST_US or times_us.max() >= LATEST_US:
        raise SightingError("path: times must lie between 2000 and 2100")
    if max(corners.max(), -corners.min()) > MAX_PIXEL * BOX_STEPS:
        raise SightingError(f"path: box corners must lie within {MAX_PIXEL:.0f} pixels")
