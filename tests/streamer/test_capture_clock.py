import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.capture_clock import DRIFT_WINDOW_S, MAX_SENDER_SKEW_S, FileClock, LiveClock

START = 1_767_268_800.0
TIMES = st.lists(st.none() | st.floats(-1000, 1000), min_size=1, max_size=50)


@settings(deadline=None)
@given(TIMES)
def test_a_files_time_never_falls(times: list[float | None]) -> None:
    clock = FileClock(START, 0.0, 0.1)
    dated = [clock.date(pts) for pts in times]
    assert all(earlier <= later for earlier, later in itertools.pairwise(dated))
    assert clock.held == times.count(None)


@settings(deadline=None)
@given(TIMES, st.lists(st.floats(-100, 100), min_size=50, max_size=50), st.none() | st.floats(-1e9, 3e9))
def test_a_live_time_never_falls(times: list[float | None], arrivals: list[float], offset: float | None) -> None:
    clock = LiveClock(0.1)
    dated = [clock.date(pts, START + at, offset) for pts, at in zip(times, arrivals, strict=False)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(dated))


@pytest.mark.parametrize("parts_per_million", [-500, 500])
def test_a_day_of_a_camera_whose_clock_drifts_stays_near_its_arrival(parts_per_million: int) -> None:
    clock = LiveClock(1.0)
    rate = 1 + parts_per_million * 1e-6
    worst = max(abs(clock.date(at * rate, START + at) - (START + at)) for at in range(86_400))
    # Without following, a day would end 43 s off.
    assert worst <= 2 * DRIFT_WINDOW_S * abs(parts_per_million) * 1e-6


def test_a_sender_whose_clock_is_wrong_is_not_believed() -> None:
    clock = LiveClock(0.1)
    assert clock.date(0.0, START, START - 3600) == START
    assert not clock.has_sender_time
    assert clock.date(0.1, START + 0.1, START - MAX_SENDER_SKEW_S / 2) == pytest.approx(START + 0.05)
    assert clock.has_sender_time


def test_a_stream_whose_clock_begins_anew_goes_on_from_its_arrival() -> None:
    clock = LiveClock(0.1)
    assert clock.date(5000.0, START) == START
    assert clock.date(0.0, START + 0.1) == pytest.approx(START + 0.1)
    assert clock.date(90_000.0, START + 0.2) == pytest.approx(START + 0.2)
