"""The wire form of a picture's POM points: small enough for a message, fine enough to re-rank by. Numpy only."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.errors import ReidError

#: What a sighting has room for.
MAX_BYTES = 16 * 1024

MAGIC, VERSION = b"PT", 1
# Magic, version, layers, rows and columns of the points, rows and columns of a block, channels.
_HEADER = struct.Struct("<2sBBHHBBH")
# The paper's points are 393,216 numbers. A header of a few bytes must not make a reader allocate gigabytes.
MAX_VALUES = 1 << 20
_LARGEST = 127  # int8 has -128 too, but symmetric steps keep 0 at 0

Array = NDArray[np.float32]


class TokensError(ReidError):
    """Numbers that can't be packed, or bytes that are no packed points."""


@dataclass(frozen=True, slots=True)
class Pooling:
    """Blocks of neighbouring points that share one token, their average.

    Attributes:
        points: rows and columns of a picture's points.
        block: rows and columns of a block; (1, 1) shares nothing.

    Raises:
        ValueError: blocks that don't divide the points.
    """

    points: tuple[int, int]
    block: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if min(self.points + self.block) < 1 or any(n % b for n, b in zip(self.points, self.block, strict=True)):
            raise ValueError(f"blocks of {self.block} don't divide points of {self.points}")

    @property
    def tokens(self) -> int:
        """T, how many tokens are left."""
        return (self.points[0] // self.block[0]) * (self.points[1] // self.block[1])

    def average(self, tokens: Array) -> Array:
        """(L, P, C) points -> (L, T, C), one token a block."""
        (rows, columns), (high, wide) = self.points, self.block
        grid = tokens.reshape(len(tokens), rows // high, high, columns // wide, wide, -1)  # (L, R, r, K, k, C)
        return np.asarray(grid.mean(axis=(2, 4)).reshape(len(tokens), self.tokens, -1), dtype=np.float32)

    def repeat(self, tokens: Array) -> Array:
        """(L, T, C) tokens -> (L, P, C): each point gets its block's."""
        (rows, columns), (high, wide) = self.points, self.block
        grid = tokens.reshape(len(tokens), rows // high, columns // wide, -1)  # (L, R, K, C)
        grid = grid.repeat(high, axis=1).repeat(wide, axis=2)  # (L, rows, columns, C)
        return grid.reshape(len(tokens), rows * columns, -1)


def packed_size(layers: int, tokens: int, channels: int) -> int:
    """Bytes of a picture.

    Args:
        layers: L, decoder layers.
        tokens: points, or with pooling the tokens they share.
        channels: C, numbers of a token.
    """
    return _HEADER.size + layers * 2 + layers * tokens * channels


def pack(tokens: Array, pooling: Pooling | None = None) -> bytes:
    """Write a picture's points as int8.

    A layer has one step. One for each of its channels measured no better (mAP of short lists within 0.0003, and
    both within 0.0003 of float16).

    Args:
        tokens: (L, P, C) float32, of `Description.tokens`.
        pooling: which points share a token; none when None.

    Returns:
        `packed_size(L, T, C)` bytes; the same for the same numbers.

    Raises:
        TokensError: not of this shape, too many, or not finite.
    """
    if tokens.ndim != 3 or not 0 < tokens.size <= MAX_VALUES or tokens.shape[0] > 255 or max(tokens.shape) > 65535:
        raise TokensError(f"points must be (L, P, C), at most {MAX_VALUES} numbers, got {tokens.shape}")
    pooling = pooling or Pooling((tokens.shape[1], 1))
    if pooling.points[0] * pooling.points[1] != tokens.shape[1]:
        raise TokensError(f"a pooling of {pooling.points} points was given {tokens.shape[1]}")
    tokens = pooling.average(tokens)  # (L, T, C)
    scales = _scales(tokens)  # (L, 1, 1)
    steps = np.divide(tokens, scales, out=np.zeros_like(tokens), where=scales > 0)
    header = _HEADER.pack(MAGIC, VERSION, len(tokens), *pooling.points, *pooling.block, tokens.shape[2])
    return header + scales.astype("<f2").tobytes() + np.rint(steps).astype(np.int8).tobytes()


def _scales(tokens: Array) -> Array:
    """(L, T, C) -> (L, 1, 1): the size of a step, a float16 that is never too small to reach the largest number."""
    wanted = np.abs(tokens).max(axis=(1, 2), keepdims=True) / np.float32(_LARGEST)  # (L, 1, 1)
    if not np.all(wanted < np.finfo(np.float16).max):
        raise TokensError("points must be finite, and below 8 million")
    scales = wanted.astype(np.float16)
    larger = np.nextafter(scales, np.float16(np.inf))
    return np.asarray(np.where(scales.astype(np.float32) < wanted, larger, scales), dtype=np.float32)


def unpack(data: bytes) -> Array:
    """Read a picture's points.

    Args:
        data: what `pack` wrote.

    Returns:
        (L, P, C) float32, each within half a step of the packed number (of its block's average).

    Raises:
        TokensError: other bytes, cut off, or of another version.
    """
    pooling, layers, channels = _read_header(data)
    expected = packed_size(layers, pooling.tokens, channels)
    if len(data) != expected:
        raise TokensError(f"packed points of {len(data)} bytes, but their header says {expected}")
    scales = np.frombuffer(data, "<f2", layers, _HEADER.size).astype(np.float32)
    if not np.all(np.isfinite(scales) & (scales >= 0)):
        raise TokensError("packed points with a step that is no positive number")
    steps = np.frombuffer(data, np.int8, offset=_HEADER.size + 2 * layers)
    tokens = steps.reshape(layers, pooling.tokens, channels) * scales.reshape(layers, 1, 1)  # (L, T, C)
    return pooling.repeat(tokens)


def _read_header(data: bytes) -> tuple[Pooling, int, int]:
    """Pooling, L and C."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise TokensError("not packed points")
    _, version, layers, rows, columns, high, wide, channels = _HEADER.unpack_from(data)
    if version != VERSION:
        raise TokensError(f"packed points of version {version}, wanted {VERSION}")
    if not 0 < layers * rows * columns * channels <= MAX_VALUES:
        raise TokensError(f"packed points of {layers} x {rows} x {columns} x {channels} numbers")
    try:
        return Pooling((rows, columns), (high, wide)), layers, channels
    except ValueError as error:
        raise TokensError(f"packed points: {error}") from error
