import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.thermal import ThermalAgc, ThermalRange
from tests.streamer.video_files import counts


def test_the_percentiles_become_black_and_white() -> None:
    ramp = np.tile(np.linspace(7000, 9000, 400).astype(np.uint16), (100, 1))
    gray = ThermalAgc(low_percentile=5, high_percentile=95).apply(ramp)
    assert gray.dtype == np.uint8
    assert (gray == 0).mean() == pytest.approx(0.05, abs=0.02)
    assert (gray == 255).mean() == pytest.approx(0.05, abs=0.02)
    assert (np.diff(gray[0].astype(int)) >= 0).all()


@settings(deadline=None)
@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_the_order_of_temperatures_is_kept(one: int, other: int, low: int) -> None:
    gray = ThermalRange(low, low + 500).to_gray8(np.array([sorted((one, other))], np.uint16))
    assert gray[0, 0] <= gray[0, 1]


def test_a_hot_truck_dims_the_road_slowly_and_a_steady_scene_converges() -> None:
    agc, (road,) = ThermalAgc(smoothing=0.1), counts(1)
    before = agc.measure(road)
    hot = road.copy()
    hot[:40, :40] = 12_000
    after = agc.measure(hot)
    assert after.high - before.high == pytest.approx(0.1 * (12_000 - before.high), rel=0.01)
    for _ in range(100):
        settled = agc.measure(hot)
    assert settled.high == pytest.approx(12_000, rel=0.001)


def test_a_shutter_calibration_is_followed_at_once() -> None:
    agc, (scene,) = ThermalAgc(), counts(1)
    agc.measure(scene)
    jumped = agc.measure(scene + np.uint16(5000))
    assert jumped.low > 11_000


def test_noise_of_a_flat_scene_does_not_fill_the_image() -> None:
    flat = np.full((64, 64), 8000, np.uint16)
    flat[::2] += 4
    gray = ThermalAgc(min_span=64).apply(flat)
    assert int(gray.max()) - int(gray.min()) <= 16


@pytest.mark.parametrize("level", [0, 65535])
def test_the_ends_of_the_scale_do_not_overflow(level: int) -> None:
    assert len(np.unique(ThermalAgc().apply(np.full((8, 8), level, np.uint16)))) == 1


def test_the_log_tells_of_a_range_that_moves_and_of_no_other() -> None:
    (scene,) = counts(1)
    with structlog.testing.capture_logs() as logged:
        agc = ThermalAgc("cam2")
        for _ in range(50):
            agc.apply(scene)
        assert len(logged) == 1
        agc.apply(scene + np.uint16(5000))
    assert [entry["camera"] for entry in logged] == ["cam2", "cam2"]
    assert logged[1]["low"] > logged[0]["high"]


@pytest.mark.parametrize("settings", [{"low_percentile": 99, "high_percentile": 1}, {"smoothing": 0}])
def test_settings_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        ThermalAgc(**settings)  # type: ignore[arg-type]
