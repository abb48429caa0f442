import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.capture_clock import DRIFT_WINDOW_S, MAX_PACE_ERROR_S, FileClock, LiveClock

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
    clock = LiveClock(0.1, 10.0)
    dated = [clock.date(pts, START + at, offset) for pts, at in zip(times, arrivals, strict=False)]
    assert all(earlier <= later for earlier, later in itertools.pairwise(dated))


@pytest.mark.parametrize("parts_per_million", [-500, 500])
def test_a_day_of_a_camera_whose_clock_drifts_stays_near_its_arrival(parts_per_million: int) -> None:
    clock = LiveClock(1.0, 10.0)
    rate = 1 + parts_per_million * 1e-6
    worst = max(abs(clock.date(at * rate, START + at) - (START + at)) for at in range(86_400))
    # Without following, a day would end 43 s off.
    assert worst <= 2 * DRIFT_WINDOW_S * abs(parts_per_million) * 1e-6


def test_a_sender_whose_clock_is_wrong_is_not_believed() -> None:
    clock = LiveClock(0.1, 10.0)
    assert clock.date(0.0, START, START - 3600) == START
    assert (clock.has_sender_time, clock.is_disbelieved, clock.sender_skew_s) == (False, True, 3600)
    assert clock.date(0.1, START + 0.1, START - 4.0) == pytest.approx(START + 0.05)
    assert (clock.has_sender_time, clock.is_disbelieved) == (True, False)


def test_a_sender_at_the_limit_does_not_make_time_leap_to_and_fro() -> None:
    clock = LiveClock(0.1, 10.0)
    skews = [10.1, 9.9] * 20
    dated = [clock.date(n / 10, START + n / 10, START - skew) for n, skew in enumerate(skews)]
    np.testing.assert_allclose(np.diff(dated), 0.1, atol=1e-6)


def test_frames_that_a_server_had_kept_are_dated_right_once_the_live_ones_come() -> None:
    """It sends its last 2 s at once: the first of them is 2 s old as it arrives."""
    clock = LiveClock(0.1, 10.0)
    for n in range(20):
        clock.date(n / 10, START + 2.0)
    off_s = [clock.date(n / 10, START + n / 10) - (START + n / 10) for n in range(20, 80)]
    assert max(off_s[-10:]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("declared", "sent"), [(25, 12), (5, 25)])
def test_frames_without_timestamps_stay_near_their_arrival_whatever_rate_was_declared(declared: int, sent: int) -> None:
    clock = LiveClock(1 / declared, 10.0)
    moments = [START + n / sent for n in range(1000)]
    assert max(abs(clock.date(None, at) - at) for at in moments) <= MAX_PACE_ERROR_S + 1 / sent


def test_a_clock_that_jumps_back_an_hour_goes_on_from_its_arrival() -> None:
    clock = LiveClock(0.2, 10.0)
    times = [7200 + n / 5 for n in range(50)] + [3600 + n / 5 for n in range(50)]
    off_s = [clock.date(at, START + n / 5) - (START + n / 5) for n, at in enumerate(times)]
    assert max(map(abs, off_s)) < 1e-6


def test_a_stream_whose_clock_begins_anew_goes_on_from_its_arrival() -> None:
    clock = LiveClock(0.1, 10.0)
    assert clock.date(5000.0, START) == START
    assert clock.date(0.0, START + 0.1) == pytest.approx(START + 0.1)
    assert clock.date(90_000.0, START + 0.2) == pytest.approx(START + 0.2)
