"""Lines of Health's charts, made of samples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from storage.status_samples import CAMERA, STAGE, StatusSample
from web.trends import GAP, MOST_POINTS, rates, rises, worst

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _samples(
    counts: Mapping[float, float] | Mapping[int, float], *, kind: str = CAMERA, name: str = "dropped"
) -> list[StatusSample]:
    """By minute."""
    return [
        StatusSample(kind, "gate", NOW + timedelta(minutes=minute), {name: count}) for minute, count in counts.items()
    ]


def test_a_counter_that_began_anew_counts_from_nought() -> None:
    samples = [*_samples({0: 5, 1: 8, 2: 2, 3: 2}), *_samples({4: 100}, kind=STAGE)]
    assert rises(samples, CAMERA, "dropped") == {"gate": 5.0}
    assert [value for _, value in rates(samples, CAMERA, "dropped", HOUR)["gate"]] == [3.0, 2.0, 0.0]


def test_a_rate_is_of_a_minute_however_far_samples_are_apart() -> None:
    (line,) = rates(_samples({0: 0, 2: 60, 2.5: 75}), CAMERA, "dropped", HOUR).values()
    assert [value for _, value in line] == [30.0, 30.0]


def test_over_a_gap_there_is_no_line_and_no_rate_though_what_rose_counts() -> None:
    counts = {0: 0.0, 1: 1.0, 60: 900.0, 61: 902.0}
    (line,) = rates(_samples(counts), CAMERA, "dropped", HOUR).values()
    assert [value for _, value in line] == [1.0, None, 2.0]
    assert rises(_samples(counts), CAMERA, "dropped") == {"gate": 902.0}
    (levels,) = worst(_samples(counts), CAMERA, "dropped", HOUR).values()
    assert [value for _, value in levels] == [0.0, 1.0, None, 900.0, 902.0]


@pytest.mark.parametrize("hours", [1, 6, 24, 48])
def test_a_chart_has_no_more_points_than_it_has_room_for(hours: int) -> None:
    samples = _samples({minute: minute % 7 for minute in range(hours * 60)}, name="lag")
    (line,) = worst(samples, CAMERA, "lag", timedelta(hours=hours)).values()
    assert min(len(samples), MOST_POINTS // 2) <= len(line) <= MOST_POINTS + 1
    assert max(value or 0.0 for _, value in line) == 6.0, "what was worst is never left out"
    assert None not in [value for _, value in line]


def test_one_minute_more_than_the_gap_is_a_gap() -> None:
    def breaks(apart: timedelta) -> int:
        samples = _samples({0: 1, apart / timedelta(minutes=1): 1})
        return [value for _, value in worst(samples, CAMERA, "dropped", HOUR)["gate"]].count(None)

    assert breaks(GAP) == 0
    assert breaks(GAP + timedelta(seconds=1)) == 1
