"""The gate never misses a vehicle, and shuts on a still road however noisy its sensor is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.motion import SMALLEST_VEHICLE_PX, MotionGate

ONCE = 10**9


def _road(seed: int = 0, size: tuple[int, int] = (480, 640)) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 180, (size[0] // 20, size[1] // 20))
    return np.asarray(np.kron(coarse, np.ones((20, 20))), np.float64)


def _shot(road: NDArray[np.float64], noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    return np.clip(road + rng.normal(0, noise, road.shape), 0, 255).astype(np.uint8)


def _settled(road: NDArray[np.float64], noise: float, rng: np.random.Generator) -> MotionGate:
    gate = MotionGate(hold_frames=0, keep_alive_frames=ONCE)
    for _ in range(60):
        gate.is_moving(_shot(road, noise, rng))
    return gate


@pytest.mark.parametrize("noise", [0, 2, 4, 8])
def test_a_still_road_shuts_the_gate(noise: float) -> None:
    rng = np.random.default_rng(1)
    gate = _settled(_road(), noise, rng)
    assert not any(gate.is_moving(_shot(_road(), noise, rng)) for _ in range(100))


@pytest.mark.parametrize("noise", [0, 2, 4, 8])
@pytest.mark.parametrize("contrast", [-40, 40])
@pytest.mark.parametrize("step_px", [0.5, 3, 17])
def test_the_smallest_vehicle_is_never_missed(noise: float, contrast: int, step_px: float) -> None:
    rng = np.random.default_rng(2)
    road = _road()
    gate = _settled(road, noise, rng)
    for frame in range(60):
        left = int(20 + frame * step_px) % 600
        scene = road.copy()
        scene[201 : 201 + SMALLEST_VEHICLE_PX, left : left + SMALLEST_VEHICLE_PX] += contrast
        assert gate.is_moving(_shot(scene, noise, rng)), (frame, left)


def test_a_change_is_held() -> None:
    road = _road().astype(np.uint8)
    gate = MotionGate(hold_frames=5, keep_alive_frames=ONCE, first_frames=3)
    for _ in range(20):
        gate.is_moving(road)
    flash = road.copy()
    flash[:100, :100] ^= 128
    assert gate.is_moving(flash)
    assert [gate.is_moving(road) for _ in range(8)] == [True] * 5 + [False] * 3


def test_a_still_road_is_looked_at_now_and_then() -> None:
    road = _road().astype(np.uint8)
    gate = MotionGate(hold_frames=0, keep_alive_frames=4, first_frames=2)
    passed = [gate.is_moving(road) for _ in range(14)]
    assert passed == [True] * 2 + ([False] * 3 + [True]) * 3


def test_the_first_pictures_pass_and_so_do_those_of_a_new_size() -> None:
    gate = MotionGate(hold_frames=0, keep_alive_frames=ONCE, first_frames=3)
    for size in [(480, 640), (360, 640), (480, 640)]:
        road = _road(size=size).astype(np.uint8)
        assert [gate.is_moving(road) for _ in range(6)] == [True] * 3 + [False] * 3


def test_gray_and_colour_are_the_same_to_it() -> None:
    rng = np.random.default_rng(3)
    gates = MotionGate(keep_alive_frames=ONCE), MotionGate(keep_alive_frames=ONCE)
    for frame in range(50):
        shot = _shot(_road(seed=frame // 30), 2, rng)
        assert gates[0].is_moving(shot) == gates[1].is_moving(np.repeat(shot[..., None], 3, axis=2))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="min_changed_fraction"):
        MotionGate(min_changed_fraction=0)
    with pytest.raises(ValueError, match="keep_alive_frames"):
        MotionGate(keep_alive_frames=0)
