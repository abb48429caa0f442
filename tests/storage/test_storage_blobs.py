from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from storage.blobs import decode_path, decode_vector, encode_path, encode_vector
from storage.errors import StorageError
from storage.records import EmbeddingRecord, PathSegment
from tests.storage.storage_builders import START, path, tracklet


@st.composite
def _paths(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    count = draw(st.integers(0, 40))
    return (
        draw(arrays.arrays(np.int64, count)),
        draw(arrays.arrays(np.float64, count)),
        draw(arrays.arrays(np.float32, (count, 4))),
    )


@settings(deadline=None)
@given(_paths())
def test_a_path_comes_back_bit_for_bit(given_path: tuple[NDArray[Any], ...]) -> None:
    frames, times, boxes = given_path
    found: tuple[NDArray[Any], ...] = decode_path(encode_path(frames, times, boxes))
    for before, after in zip(given_path, found, strict=True):
        assert after.shape == before.shape
        assert after.dtype == before.dtype
        assert after.tobytes() == before.tobytes()


def test_a_steady_path_takes_less_than_half_its_size() -> None:
    frames = np.arange(1500, dtype=np.int64)
    times = np.asarray(START.timestamp() + frames * 0.04, np.float64)
    noise = np.random.default_rng(0).normal(0, 0.5, (1500, 4))
    boxes = (np.array([100, 100, 160, 140]) + frames[:, None] * 0.5 + noise).astype(np.float32)
    assert len(encode_path(frames, times, boxes)) < 0.5 * (frames.nbytes + times.nbytes + boxes.nbytes)


def _blob() -> bytes:
    segment = path(tracklet(), frames=range(5))
    return encode_path(segment.frames, segment.times, segment.boxes)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"", "damaged"),
        (b"\x02" + _blob()[1:], "wanted version 1, got 2"),
        (_blob()[:-4], "damaged"),
        (_blob()[:5] + zlib.compress(bytes(31)), "wanted 160 bytes, got 31"),
    ],
)
def test_a_damaged_path_is_told_from_a_good_one(blob: bytes, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        decode_path(blob)


@settings(deadline=None)
@given(arrays.arrays(np.float32, 16, elements=st.floats(-1, 1, width=32)))
def test_a_vector_comes_back_as_the_float16_it_was_sent_as(values: NDArray[np.float32]) -> None:
    sent = values.astype(np.float16).astype(np.float32)
    assert np.array_equal(decode_vector(encode_vector(sent)), sent)


@pytest.mark.parametrize("points", [3, 5])
def test_a_path_of_uneven_arrays_is_refused(points: int) -> None:
    with pytest.raises(ValueError, match=r"boxes: wanted \(4, 4\) float32"):
        PathSegment("t/0", "t", 0, np.zeros(4, np.int64), np.zeros(4), np.zeros((points, 4), np.float32))


def test_a_vector_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vector: wanted \(D,\) float32, got \(8,\) float64"):
        EmbeddingRecord("t/0", "t", "visible", "test", np.zeros(8), 0.5, START, (0, 0, 1, 1))  # type: ignore[arg-type]
