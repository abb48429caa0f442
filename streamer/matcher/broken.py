"""Broken tracklets: one vehicle, two tracklets of one camera, since something hid it or the stream broke off.

Where the first one ends says nothing of where the vehicle went, nor where the second begins of where it came from. So
between a tracklet that breaks off and what comes later, or one that goes on and what came before, time and place are
not asked: its other half knows better.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from streamer.matcher.tracklet import Tracklet

#: A tracklet goes on where it broke off if it does so within so many seconds.
BROKEN_S = 5.0
#: So much, in nats, must speak for two tracklets being halves before times and places are no longer asked of them.
_SURE = 2.0


class Weighs(Protocol):
    """What pairs are weighed with: `Scales`."""

    def pair_totals(self, pairs: Sequence[tuple[Tracklet, Tracklet]]) -> NDArray[np.float64]:
        """(P,) log-odds that two tracklets are one vehicle."""
        ...


@dataclass(frozen=True, slots=True)
class Breaks:
    """Which tracklets are halves, beside those that are known to be.

    Attributes:
        breaking_off: Ids of those that another goes on from.
        going_on: Ids of those that go on.
    """

    breaking_off: frozenset[str] = frozenset()
    going_on: frozenset[str] = frozenset()

    def is_broken_off(self, tracklet: Tracklet) -> bool:
        """Whether where it ends says nothing of its way."""
        return tracklet.breaks_off or tracklet.tracklet_id in self.breaking_off

    def has_gone_on(self, tracklet: Tracklet) -> bool:
        """Whether where it begins says nothing of its way."""
        return tracklet.goes_on or tracklet.tracklet_id in self.going_on


NO_BREAKS = Breaks()


def find_breaks(tracklets: Iterable[Tracklet], known: Iterable[Tracklet], scales: Weighs) -> Breaks:
    """The halves among some tracklets, and between them and those of known vehicles: pairs that prefer each other."""
    own = {tracklet.tracklet_id: tracklet for tracklet in tracklets}
    everybody = {**{tracklet.tracklet_id: tracklet for tracklet in known}, **own}
    by_camera: dict[str, list[Tracklet]] = {}
    for tracklet in everybody.values():
        by_camera.setdefault(tracklet.camera, []).append(tracklet)
    pairs = [
        (first, second)
        for seen in by_camera.values()
        for first, second in _soon_after(seen)
        if first.tracklet_id in own or second.tracklet_id in own
    ]
    if not pairs:
        return NO_BREAKS
    totals = dict(zip(((a.tracklet_id, b.tracklet_id) for a, b in pairs), scales.pair_totals(pairs), strict=True))
    best_next: dict[str, str] = {}
    best_before: dict[str, str] = {}
    for (first, second), _ in sorted(totals.items(), key=lambda one: (one[1], one[0])):
        best_next[first], best_before[second] = second, first
    sure = [(a, b) for (a, b), total in totals.items() if total > _SURE and best_next[a] == b and best_before[b] == a]
    return Breaks(frozenset(first for first, _ in sure), frozenset(second for _, second in sure))


def _soon_after(seen: Sequence[Tracklet]) -> Iterator[tuple[Tracklet, Tracklet]]:
    """Pairs of which one begins within `BROKEN_S` after the other's end. By bisection: vehicles may have thousands."""
    by_start = sorted(seen, key=_start)
    for first in seen:
        begin = bisect_right(by_start, first.ended_at, key=_start)
        end = bisect_right(by_start, first.ended_at + BROKEN_S, key=_start)
        for second in by_start[begin:end]:
            yield first, second


def _start(tracklet: Tracklet) -> float:
    return tracklet.started_at


def mark_breaks(members: Iterable[Tracklet]) -> None:
    """Notes of one vehicle's tracklets which are halves."""
    last: dict[str, Tracklet] = {}
    for tracklet in sorted(members, key=lambda member: (member.started_at, member.tracklet_id)):
        before = last.get(tracklet.camera)
        tracklet.goes_on = before is not None and 0 < tracklet.started_at - before.ended_at <= BROKEN_S
        tracklet.breaks_off = False
        if before is not None and tracklet.goes_on:
            before.breaks_off = True
        last[tracklet.camera] = tracklet
