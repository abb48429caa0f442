"""How figures went: of samples, the lines that the charts of Health draw."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.status_samples import StatusSample

#: A chart has few more pixels; two days of twenty cameras would be sixteen megabytes of points.
MOST_POINTS = 240
#: Samples are a minute apart: where more are missing, nobody was there to count.
GAP = timedelta(minutes=3)
_MINUTE = timedelta(minutes=1)
_EPOCH = datetime.fromtimestamp(0, UTC)

Point = tuple[datetime, float]
#: None: from there to the next point nothing is known.
Line = list[tuple[datetime, float | None]]


def rises(samples: Iterable[StatusSample], kind: str, name: str) -> dict[str, float]:
    """By how much a counter of each camera or stage has risen; one that began anew counts from nought.

    Args:
        samples: By time.
        kind: `camera` or `stage`.
        name: Of the counter.
    """
    return {
        source: sum(_rise(before, value) for (_, before), (_, value) in pairwise(points))
        for source, points in _points(samples, kind, name).items()
    }


def rates(samples: Iterable[StatusSample], kind: str, name: str, span: timedelta) -> dict[str, Line]:
    """How much a counter of each camera or stage rose in a minute, on the mean of each stretch of the chart.

    Args:
        samples: By time.
        kind: `camera` or `stage`.
        name: Of the counter.
        span: What the whole chart shows.
    """
    # When within a gap a counter rose isn't known.
    return {
        source: _line(
            [
                (at, _rise(before, value) * (_MINUTE / (at - began)))
                for (began, before), (at, value) in pairwise(points)
                if timedelta(0) < at - began <= GAP
            ],
            fmean,
            span,
        )
        for source, points in _points(samples, kind, name).items()
    }


def worst(samples: Iterable[StatusSample], kind: str, name: str, span: timedelta) -> dict[str, Line]:
    """The highest figure of each camera or stage in each stretch of the chart; arguments as those of `rates`."""
    return {source: _line(points, max, span) for source, points in _points(samples, kind, name).items()}


def _points(samples: Iterable[StatusSample], kind: str, name: str) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = defaultdict(list)
    for sample in samples:
        if sample.kind == kind and name in sample.counters:
            found[sample.source].append((sample.at, sample.counters[name]))
    return found


def _rise(before: float, value: float) -> float:
    return value - before if value >= before else value


def _line(points: Iterable[Point], told: Callable[[Sequence[float]], float], span: timedelta) -> Line:
    """One point for each stretch of time that has some, at its last one; a break where there is a gap."""
    stretches: dict[int, list[Point]] = defaultdict(list)
    for point in points:
        stretches[(point[0] - _EPOCH) // (span / MOST_POINTS)].append(point)
    line: Line = []
    for stretch in stretches.values():
        if line and stretch[0][0] - line[-1][0] > GAP:
            line.append((line[-1][0], None))
        line.append((stretch[-1][0], told([value for _, value in stretch])))
    return line
