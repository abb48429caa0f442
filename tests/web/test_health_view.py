"""What Live and Health make of status rows: colours and words."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from storage.records import CameraStatus
from storage.status_samples import CAMERA, StatusSample

with warnings.catch_warnings():
    # The page's library imports a client for Kafka, if it is there, which reads its files by an old way.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"(read|open)_text is deprecated")
    from web.pages.health import charts
    from web.pages.live import GONE_S, SILENT_S, figures_of, is_gone, state_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _status(**changed: Any) -> CameraStatus:  # noqa: ANN401 - a field each
    values: dict[str, Any] = {
        "camera": "gate",
        "updated_at": NOW,
        "state": "running",
        "modality": "visible",
        "fps": 10.0,
        "last_frame_at": NOW,
        "message": "",
    }
    counts = ("decoded", "detected", "gated", "dropped", "reconnects", "decode_errors", "detections", "tracklets")
    return CameraStatus(**{**values, **dict.fromkeys(counts, 0), **changed})


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "good"),
        ({"health": "ok"}, "good"),
        ({"health": "covered"}, "bad"),
        ({"state": "reconnecting"}, "bad"),
        ({"state": "starting"}, "idle"),
        ({"state": "finished", "updated_at": NOW - timedelta(days=1)}, "idle"),
        ({"updated_at": NOW - timedelta(seconds=SILENT_S + 1)}, "bad"),
    ],
)
def test_a_camera_has_the_colour_of_its_state(changed: dict[str, Any], state: str) -> None:
    assert state_of(_status(**changed), NOW) == state


@pytest.mark.parametrize(
    ("named", "silent_s", "gone"),
    [({"gate"}, GONE_S + 1, False), ({"yard"}, GONE_S + 1, True), ({"yard"}, SILENT_S + 1, False)],
)
def test_a_camera_that_is_no_more_in_the_site_file_is_no_trouble_for_ever(
    named: set[str], silent_s: float, *, gone: bool
) -> None:
    assert is_gone(_status(updated_at=NOW - timedelta(seconds=silent_s)), NOW, named) is gone


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fps": 9.96, "dropped": 3}, "running, 10.0 fps, 3 dropped, last frame 13:00:00"),
        ({"health": "covered"}, "picture covered, running, 10.0 fps, 0 dropped, last frame 13:00:00"),
        ({"state": "starting", "last_frame_at": None}, "starting, 0 dropped"),
        ({"state": "finished", "updated_at": NOW - timedelta(hours=1)}, "finished, 0 dropped, last frame 13:00:00"),
        (
            {"updated_at": NOW - timedelta(minutes=1), "last_frame_at": NOW - timedelta(hours=13, seconds=1)},
            "silent since 12:59:00, was running, 0 dropped, last frame 2025-12-31 23:59:59",
        ),
    ],
)
def test_a_cameras_figures_are_told_as_long_as_they_are_known(changed: dict[str, Any], words: str) -> None:
    assert figures_of(_status(**changed), NOW, ZoneInfo("Europe/Berlin")) == words


def test_an_hour_that_comes_twice_is_drawn_after_the_one_before_it() -> None:
    # In Berlin, 02:30 is at 00:30 and at 01:30 by UTC on that day.
    until, span = datetime(2026, 10, 25, 3, tzinfo=UTC), timedelta(hours=6)
    samples = [
        StatusSample(CAMERA, "gate", until - timedelta(minutes=minute), {"skew_s": 0.1})
        for minute in range(300, 60, -1)
    ]
    (drawn,) = (
        options
        for title, options in charts(samples, until, span, zone="Europe/Berlin", with_stages=False).items()
        if title.startswith("Decoded after")
    )
    times = [at for at, _ in drawn["series"][0]["data"]]
    assert times == sorted(set(times))
    assert (drawn["xAxis"]["min"], drawn["xAxis"]["max"]) == (1792875600000, 1792897200000), "the hour of silence, too"
