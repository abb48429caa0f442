"""How arrays lie in a column: paths and embedding vectors.

A path is a version byte (1), the number of points as little-endian uint32, and a zlib stream of its columns in turn:
frames (int64), times (float64), x1, y1, x2, y2 (float32). A column is taken as integers of its own bits, each less the
one before it (the first less 0, wrapping round), and its bytes lie by significance: all lowest bytes, then all second
ones, and so on. Neighbouring points differ little, so that most bytes are zero and compress away; and since nothing is
rounded, a path comes back bit for bit.

A vector is its values as little-endian float16.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.errors import StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Path = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]

PATH_VERSION = 1
_HEADER = struct.Struct("<BI")
_POINT_BYTES = 8 + 8 + 4 * 4


def encode_path(frames: NDArray[np.int64], times: NDArray[np.float64], boxes: NDArray[np.float32]) -> bytes:
    """A path as one blob.

    Args:
        frames: (N,) int64.
        times: (N,) float64, seconds since the Unix epoch.
        boxes: (N, 4) float32, xyxy in source pixels.
    """
    columns = [_packed(frames, "<i8"), _packed(times, "<f8"), *(_packed(side, "<f4") for side in boxes.T)]
    return _HEADER.pack(PATH_VERSION, len(frames)) + zlib.compress(b"".join(columns))


def decode_path(blob: bytes) -> Path:
    """The frames, times and boxes that `encode_path` was given.

    Raises:
        StorageError: The blob is damaged, or of a version that this program doesn't know.
    """
    try:
        version, count = _HEADER.unpack_from(blob)
        if version != PATH_VERSION:
            raise StorageError(f"path: wanted version {PATH_VERSION}, got {version}")
        columns = zlib.decompress(blob[_HEADER.size :])
    except (struct.error, zlib.error) as error:
        raise StorageError(f"path: damaged: {error}") from error
    if len(columns) != count * _POINT_BYTES:
        raise StorageError(f"path: damaged: wanted {count * _POINT_BYTES} bytes, got {len(columns)}")
    frames = _unpacked(columns[: 8 * count], "<i8").astype(np.int64, copy=False)
    times = _unpacked(columns[8 * count : 16 * count], "<f8").astype(np.float64, copy=False)
    sides = [_unpacked(columns[start * count : (start + 4) * count], "<f4") for start in range(16, 32, 4)]
    return frames, times, np.stack(sides, axis=1).astype(np.float32, copy=False)  # (N,) (N,) (N, 4)


def encode_vector(vector: NDArray[np.float32]) -> bytes:
    """A (D,) float32 vector as little-endian float16."""
    return vector.astype("<f2").tobytes()


def decode_vector(blob: bytes) -> NDArray[np.float32]:
    """The (D,) float32 vector of a blob made by `encode_vector`."""
    return np.frombuffer(blob, "<f2").astype(np.float32)


def _packed(column: NDArray[Any], kind: str) -> bytes:
    bits = column.astype(kind).view(f"<u{np.dtype(kind).itemsize}")
    steps = np.diff(bits, prepend=bits.dtype.type(0))
    return steps.view(np.uint8).reshape(len(column), bits.itemsize).T.tobytes()


def _unpacked(data: bytes, kind: str) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    planes = np.frombuffer(data, np.uint8).reshape(width, -1)  # (bytes of one value, N)
    steps = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{width}")
    return np.cumsum(steps, dtype=steps.dtype).view(kind)
