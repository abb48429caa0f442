"""What Live and Health make of status rows: colours, and by how much counters rose."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage.records import CameraStatus
from storage.status_samples import CAMERA, STAGE, StatusSample

with warnings.catch_warnings():
    # The page's library imports a client for Kafka, if it is there, which reads its files by an old way.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"(read|open)_text is deprecated")
    from web.pages.health import rises, steps_of
    from web.pages.live import SILENT_S, state_of

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
        ({"state": "finished", "updated_at": NOW - timedelta(days=1)}, "idle"),
        ({"updated_at": NOW - timedelta(seconds=SILENT_S + 1)}, "bad"),
    ],
)
def test_a_camera_has_the_colour_of_its_state(changed: dict[str, Any], state: str) -> None:
    assert state_of(_status(**changed), NOW) == state


def test_a_counter_that_began_anew_counts_from_nought() -> None:
    counts = (5.0, 8.0, 2.0, 2.0)
    samples = [
        StatusSample(CAMERA, "gate", NOW + timedelta(minutes=minute), {"dropped": count})
        for minute, count in enumerate(counts)
    ]
    samples.append(StatusSample(STAGE, "matcher", NOW, {"lag": 1.0}))
    assert [rise for _, rise in steps_of(samples, CAMERA, "dropped")["gate"]] == [3.0, 2.0, 0.0]
    assert rises(samples, CAMERA, "dropped") == {"gate": 5.0}
