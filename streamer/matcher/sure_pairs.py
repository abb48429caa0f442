"""Pairs of tracklets that are surely one vehicle, or surely two, without a look at them: what looks are calibrated by.

Looks would only confirm themselves. So a label follows from when and where two tracklets were seen: one vehicle is at
one place at one time, and what stands on the same spot of the road in two views, with nobody near, is one vehicle. The
matcher's decision, which looks had a part in, can only take a label of one vehicle away where passages gave it.

A tracklet that goes on where another of its camera broke off teaches nothing: one camera's pictures of a vehicle are
twins, and other cameras' would be held against them.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from streamer.matcher.co_visibility import shared_stay

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from streamer.matcher.topology import Topology
    from streamer.matcher.tracklet import Tracklet

#: Places in two views say so much, in nats, where they are one spot, where they are surely two, and where a third
#: tracklet is near enough to be meant.
_ONE_SPOT, _TWO_SPOTS, _NEAR = 2.0, -4.0, -2.0
#: Time and place must say so much for a passage, in nats, after all others that its two tracklets could be part of.
_SURE_PASSAGE = 3.0
#: Two boxes in one view closer than this, in box heights, may be one vehicle found twice.
_APART = 1.5
#: Views are known not to overlap by so many passages, none with more seconds in both; there, vehicles that are in both
#: views for longer than this are two.
_KNOWN_WAYS, _TOUCHING_S, _IN_BOTH_S = 8, 0.5, 1.0
#: Tracklets labelled at one look at most, the newest; and before and after each so many others that it is held against.
_MOST_LABELLED, _MOST_OTHERS = 200, 60


@dataclass(frozen=True, slots=True, eq=False)
class SurePair:
    """Two tracklets of which it is known without a look whether they are one vehicle.

    Attributes:
        first: The one that ended first.
        second: The other.
        is_same: Whether they are one vehicle.
    """

    first: Tracklet
    second: Tracklet
    is_same: bool


def sure_pairs(
    tracklets: Sequence[Tracklet], vehicles: Mapping[str, str], topology: Topology, *, since: float, until: float
) -> Iterator[SurePair]:
    """The pairs whose later tracklet ended in a stretch of time, so that stretches side by side give each pair once.

    Args:
        tracklets: Decided ones, in any order.
        vehicles: By tracklet id what they were decided to be.
        topology: What is known of the cameras.
        since: The stretch's begin, exclusive, in seconds since the epoch.
        until: Its end, inclusive. What was in view together with those that ended by then should have ended too.
    """
    known = [tracklet for tracklet in tracklets if tracklet.path is not None and tracklet.vectors]
    known.sort(key=lambda tracklet: (tracklet.ended_at, tracklet.tracklet_id))
    ends = [tracklet.ended_at for tracklet in known]
    first, last = bisect_right(ends, since), bisect_right(ends, until)
    scene = _Scene(known, topology)
    for index in range(max(first, last - _MOST_LABELLED), last):
        for other in range(max(0, index - _MOST_OTHERS), index):
            is_same = scene.verdict(other, index, vehicles)
            if is_same is not None:
                yield SurePair(known[other], known[index], is_same)


class _Scene:
    """Tracklets about one time, by their numbers in the order in which they ended."""

    def __init__(self, known: Sequence[Tracklet], topology: Topology) -> None:
        self._known = known
        self._topology = topology
        self.spot = cache(self._spot)
        self.passage = cache(self._passage)
        self.is_apart = cache(self._is_apart)

    def verdict(self, first: int, second: int, vehicles: Mapping[str, str]) -> bool | None:
        """Whether the two are one vehicle, the earlier to end first; None where that is not sure."""
        one, other = self._known[first], self._known[second]
        shared_s = min(one.ended_at, other.ended_at) - max(one.started_at, other.started_at)
        if one.camera == other.camera:
            return False if shared_s > 0 and _stand_apart(one, other) else None
        spot = self.spot(first, second)
        if spot is not None:
            if spot >= _ONE_SPOT:
                return True if self._has_no_rival(first, second) else None
            return False if spot <= _TWO_SPOTS else None
        if shared_s > 0:
            return False if shared_s > _IN_BOTH_S and self.is_apart(one.camera, other.camera) else None
        is_decided = vehicles[one.tracklet_id] == vehicles[other.tracklet_id]
        return True if is_decided and self._is_sure_passage(first, second) else None

    def _others(self, of: int, like: int) -> Iterator[int]:
        """The tracklets about the time of one that are of another's camera, but not that other."""
        camera = self._known[like].camera
        for index in range(max(0, of - _MOST_OTHERS), min(len(self._known), of + _MOST_OTHERS)):
            if index not in (of, like) and self._known[index].camera == camera:
                yield index

    def _rivals(self, first: int, second: int) -> Iterator[tuple[int, int]]:
        """The pairs that would take one of the two away from the other, each in the order in which they ended."""
        for of, like in ((first, second), (second, first)):
            for other in self._others(of, like):
                yield (min(of, other), max(of, other))

    def _spot(self, first: int, second: int) -> float | None:
        """What the places at one moment say, in nats; None where no map is known, or the two share too little time."""
        one, other = self._known[first], self._known[second]
        if min(one.ended_at, other.ended_at) <= max(one.started_at, other.started_at):
            return None
        return self._topology.relation(one, other).co_visibility

    def _has_no_rival(self, first: int, second: int) -> bool:
        spots = (self.spot(*pair) for pair in self._rivals(first, second))
        return all(spot is None or spot < _NEAR for spot in spots)

    def _passage(self, first: int, second: int) -> float:
        return self._topology.relation(self._known[first], self._known[second]).log_odds

    def _is_sure_passage(self, first: int, second: int) -> bool:
        own = self.passage(first, second)
        if own < _SURE_PASSAGE:
            return False
        rivals = [self.passage(*pair) for pair in self._rivals(first, second)]
        return own - float(np.logaddexp.reduce([0.0, *rivals])) >= _SURE_PASSAGE

    def _is_apart(self, first: str, second: str) -> bool:
        """Whether two views are known not to overlap."""
        if self._topology.roads.forbids(first, second, -_IN_BOTH_S) is not None:
            return True
        learned = [self._topology.passages.get(way) for way in ((first, second), (second, first))]
        gaps = np.concatenate([np.zeros(0), *(passages.gap_s for passages in learned if passages is not None)])
        return len(gaps) >= _KNOWN_WAYS and float(gaps.min()) > -_TOUCHING_S


def _stand_apart(first: Tracklet, second: Tracklet) -> bool:
    """Whether two tracklets of one camera are too far apart to be one vehicle found twice."""
    stay = shared_stay(first.path, second.path) if first.path and second.path else None
    if stay is None:
        return False
    heights = np.maximum(stay.first_height, stay.second_height)
    return float(np.median(np.linalg.norm(stay.first - stay.second, axis=1) / heights)) > _APART
