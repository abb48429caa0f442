"""The wire form of POM points: what comes back is what went in, to half a step, or an error."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reid.tokens import MAX_BYTES, Array, Pooling, TokensError, pack, packed_size, unpack

numbers = st.floats(-1e6, 1e6, width=32)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 6))
points = arrays(np.float32, shapes, elements=numbers)


def some(layers: int = 3, rows: int = 4, columns: int = 8, channels: int = 5) -> Array:
    return np.random.default_rng(0).normal(size=(layers, rows * columns, channels)).astype(np.float32)


@given(points)
def test_numbers_come_back_to_half_a_step_of_their_layer(tokens: Array) -> None:
    largest = np.abs(tokens).max(axis=(1, 2), keepdims=True)
    # A float16 step is at most 2^-10 above the exact one, or the smallest float16 where that is larger.
    step = np.maximum(largest / 127 * (1 + 2**-10), np.finfo(np.float16).smallest_subnormal)
    assert np.all(np.abs(unpack(pack(tokens)) - tokens) <= step * 0.5001)


@given(points)
def test_size_is_as_said_and_bytes_repeat(tokens: Array) -> None:
    packed = pack(tokens)
    assert len(packed) == packed_size(*tokens.shape)
    assert packed == pack(tokens.copy())


@given(points)
def test_packing_again_changes_little(tokens: Array) -> None:
    once = unpack(pack(tokens))
    largest = np.abs(tokens).max(axis=(1, 2), keepdims=True)
    assert np.all(np.abs(unpack(pack(once)) - once) <= largest / 127 + 1e-6)


@given(points, st.integers(0, 200))
def test_cut_off_bytes_are_refused(tokens: Array, length: int) -> None:
    packed = pack(tokens)
    with pytest.raises(TokensError):
        unpack(packed[: min(length, len(packed) - 1)])
    with pytest.raises(TokensError, match="bytes"):
        unpack(packed + b"\0")


@given(st.binary(max_size=64))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TokensError, match="not packed points"):
        unpack(b"\xff" + data)
    # Even behind our own header's first bytes: an error of ours, or numbers, but no crash.
    with contextlib.suppress(TokensError):
        assert np.all(np.isfinite(unpack(b"PT\x01" + data)))


def test_a_header_alone_makes_no_reader_allocate() -> None:
    packed = bytearray(pack(some()))
    packed[4:8] = b"\xff\xff\xff\xff"
    with pytest.raises(TokensError, match="65535 x 65535"):
        unpack(bytes(packed))


def test_other_versions_and_steps_are_refused() -> None:
    packed = pack(some())
    with pytest.raises(TokensError, match="version 2"):
        unpack(packed[:2] + b"\x02" + packed[3:])
    with pytest.raises(TokensError, match="step"):
        unpack(packed[:12] + b"\x00\x7e" + packed[14:])  # a float16 NaN


@pytest.mark.parametrize(
    "tokens",
    [np.zeros((3, 4)), np.zeros((1, 0, 4)), np.zeros((256, 1, 1)), np.full((1, 2, 3), np.nan), np.full((1, 2, 3), 1e9)],
)
def test_what_is_no_points_is_not_packed(tokens: Array) -> None:
    with pytest.raises(TokensError, match="points must be"):
        pack(tokens.astype(np.float32))


def test_pooling_by_one_is_identity() -> None:
    tokens, pooling = some(), Pooling((4, 8))
    np.testing.assert_array_equal(pooling.average(tokens), tokens)
    np.testing.assert_array_equal(pooling.repeat(tokens), tokens)
    np.testing.assert_array_equal(unpack(pack(tokens, pooling)), unpack(pack(tokens)))


@pytest.mark.parametrize("block", [(2, 2), (1, 4), (4, 8)])
def test_a_block_shares_its_average(block: tuple[int, int]) -> None:
    tokens, pooling = some(), Pooling((4, 8), block)
    packed = pack(tokens, pooling)
    assert len(packed) == packed_size(3, pooling.tokens, 5)
    got = unpack(packed).reshape(3, 4, 8, 5)
    wanted = tokens.reshape(3, 4, 8, 5)[:, : block[0], : block[1]].mean(axis=(1, 2))
    for row in range(block[0]):
        for column in range(block[1]):
            np.testing.assert_array_equal(got[:, row, column], got[:, 0, 0])
    np.testing.assert_allclose(got[:, 0, 0], wanted, atol=np.abs(tokens).max() / 127)


@pytest.mark.parametrize("block", [(3, 1), (0, 1), (8, 1)])
def test_blocks_must_divide_the_points(block: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="divide"):
        Pooling((4, 8), block)


def test_a_pooling_is_of_as_many_points() -> None:
    with pytest.raises(TokensError, match="was given 32"):
        pack(some(), Pooling((8, 8)))


def test_forty_channels_of_the_papers_points_fit_a_sighting() -> None:
    assert packed_size(3, 8 * 16, 40) <= MAX_BYTES < packed_size(3, 8 * 16, 48)


def test_tokens_load_no_torch() -> None:
    code = "import sys, reid.tokens; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
