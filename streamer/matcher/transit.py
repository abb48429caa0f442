"""Travel between cameras: what the road allows, and what the links made so far say of how long it takes."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from streamer.config import LinkConfig
    from streamer.matcher.tracklet import Tracklet


@dataclass(frozen=True, slots=True)
class TravelTime:
    """How long the road between two cameras takes, in seconds from leaving one view to entering the other."""

    min_s: float
    max_s: float

    @property
    def may_overlap(self) -> bool:
        """Whether both cameras can show one vehicle at one time."""
        return self.min_s == 0


class RoadGraph:
    """The links of a region. Cameras without a direct link are as far apart as the shortest chain of links.

    Without links any pair of cameras is possible, at any time.
    """

    def __init__(self, links: Sequence[LinkConfig] | None, *, dwell_s: float) -> None:
        """Makes the graph.

        Args:
            links: The configured links, or None.
            dwell_s: Longest stay in a view that lies on a chain and did not see the vehicle.
        """
        self._links = None if links is None else _adjacency(links)
        self._dwell_s = dwell_s
        self._known: dict[tuple[str, str], TravelTime | None] = {}

    def travel_time(self, first: str, second: str) -> TravelTime | None:
        """The travel time between two cameras, either way; None where the road does not join them."""
        if self._links is None:
            return TravelTime(0.0, math.inf)
        key = (first, second) if first <= second else (second, first)
        if key not in self._known:
            self._known[key] = self._shortest(*key)
        return self._known[key]

    def _shortest(self, first: str, second: str) -> TravelTime | None:
        """A direct link as it is; else the fewest links, and of those the quickest (Dijkstra 1959)."""
        links = self._links or {}
        queue: list[tuple[int, float, float, str]] = [(0, 0.0, 0.0, first)]
        seen: set[str] = set()
        while queue:
            hops, max_s, min_s, camera = heapq.heappop(queue)
            if camera == second:
                return TravelTime(min_s, max_s)
            if camera in seen:
                continue
            seen.add(camera)
            dwell_s = self._dwell_s if hops else 0.0
            for neighbour, link in links.get(camera, {}).items():
                heapq.heappush(queue, (hops + 1, max_s + link.max_s + dwell_s, min_s + link.min_s, neighbour))
        return None


def _adjacency(links: Sequence[LinkConfig]) -> dict[str, dict[str, TravelTime]]:
    adjacency: dict[str, dict[str, TravelTime]] = {}
    for link in links:
        first, second = link.between
        time = TravelTime(link.min_s, link.max_s)
        adjacency.setdefault(first, {})[second] = time
        adjacency.setdefault(second, {})[first] = time
    return adjacency


def gap_s(first: Tracklet, second: Tracklet) -> float:
    """Seconds between the two tracklets; negative while both are seen."""
    return max(second.started_at - first.ended_at, first.started_at - second.ended_at)


#: Spread of the travel times of vehicles that go the same way, in seconds.
_SPREAD_S = 0.8
#: Two tracklets of different vehicles lie up to this far apart, any offset being as likely.
_HORIZON_S = 20.0
#: So many links must agree before what was learned weighs as much as knowing nothing.
_DOUBT = 4.0
#: A travel time never says more than this, in nats: some of the links that it was learned from are wrong.
_MAX_TRANSIT = 3.0


class TravelTimes:
    """How long vehicles take from one camera to another here, learned from those already linked.

    Per pair of cameras a Parzen estimate of the time between the middles of two stays, with its sign, since the two
    directions of a road differ; mixed with a uniform one that stands for doubt. With no links it says nothing.
    """

    def __init__(self, vehicles: Iterable[Sequence[Tracklet]]) -> None:
        """Learns from each vehicle's tracklets."""
        offsets: dict[tuple[str, str], list[float]] = defaultdict(list)
        for tracklets in vehicles:
            for first, second in combinations(sorted(tracklets, key=lambda tracklet: tracklet.camera), 2):
                if first.camera != second.camera:
                    offsets[first.camera, second.camera].append(_middle(second) - _middle(first))
        # Sorted, so that sums come out the same to the last bit in whatever order the links were made.
        self._offsets = {pair: np.sort(np.array(found)) for pair, found in offsets.items()}

    def llr(self, first: Tracklet, second: Tracklet) -> float:
        """Log p(offset | one vehicle) / p(offset | two), in nats, for two tracklets of different cameras."""
        first, second = sorted((first, second), key=lambda tracklet: tracklet.camera)
        known = self._offsets.get((first.camera, second.camera))
        if known is None:
            return 0.0
        distance = (_middle(second) - _middle(first) - known) / _SPREAD_S
        density = float(np.exp(-0.5 * distance**2).sum()) / (_SPREAD_S * math.sqrt(2 * math.pi))
        uniform = 1 / (2 * _HORIZON_S)
        ratio = (density + _DOUBT * uniform) / ((len(known) + _DOUBT) * uniform)
        return min(max(math.log(ratio), -_MAX_TRANSIT), _MAX_TRANSIT)


def _middle(tracklet: Tracklet) -> float:
    return (tracklet.started_at + tracklet.ended_at) / 2
