"""What the site file says of the roads between cameras: hard limits, and what to expect before anything is learned."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from streamer.matcher.passages import unknown_density

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from streamer.config import LinkConfig, Position, SiteConfig

#: A stay in two overlapping views at once, in seconds: how far before the end of one the other may begin.
_SHARED_STAY_S = 10.0
#: How much nearer than their cameras two views may be, in metres: each may look a long way down the road.
_VIEWS_M = 200.0
_EARTH_M = 6_371_000.0


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

    Without links any pair of cameras is possible, at any time that a vehicle's speed allows.
    """

    def __init__(
        self,
        links: Sequence[LinkConfig] | None,
        *,
        dwell_s: float,
        beelines_s: Mapping[tuple[str, str], float] = MappingProxyType({}),
    ) -> None:
        """Makes the graph.

        Args:
            links: The configured links, or None.
            dwell_s: Longest stay in a view that lies on a chain and did not see the vehicle.
            beelines_s: Where there are no links: by pair of cameras, in the order of their names, the seconds that the
                straight way between the views takes at least.
        """
        self._links = None if links is None else _adjacency(links)
        self._dwell_s = dwell_s
        self._beelines_s = beelines_s
        self._known: dict[tuple[str, str], TravelTime | None] = {}

    def travel_time(self, first: str, second: str) -> TravelTime | None:
        """The travel time between two cameras, either way; None where the road does not join them."""
        key = (first, second) if first <= second else (second, first)
        if self._links is None:
            return TravelTime(self._beelines_s.get(key, 0.0), math.inf)
        if key not in self._known:
            self._known[key] = self._shortest(*key)
        return self._known[key]

    def forbids(self, left: str, entered: str, gap_s: float) -> str | None:
        """Why a vehicle can't leave the one view and enter the other so many seconds later, in words, or None."""
        travel = self.travel_time(left, entered)
        if travel is None:
            return f"no road between {left} and {entered}"
        if gap_s < travel.min_s and not travel.may_overlap:
            return f"{gap_s:.1f} s between {left} and {entered}, at least {travel.min_s:g} s needed"
        if gap_s > travel.max_s:
            return f"{gap_s:.1f} s between {left} and {entered}, at most {travel.max_s:g} s expected"
        return None

    def density(self, left: str, entered: str, gap_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) density per second of times (N,) that is expected before anything was learned."""
        travel = self.travel_time(left, entered)
        if travel is None or math.isinf(travel.max_s):
            return unknown_density(gap_s)
        span = travel.max_s - travel.min_s + (_SHARED_STAY_S if travel.may_overlap else 0.0)
        return np.full(len(gap_s), 0.5 / span)

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


def roads_of(site: SiteConfig) -> RoadGraph:
    """The roads between a site's cameras, by its links, or else by how far apart they stand on the earth."""
    placed = [
        (camera.id, camera.position) for camera in site.cameras if camera.position and camera.position.lat is not None
    ]
    beelines_s = {}
    for (first, here), (second, there) in combinations(sorted(placed, key=lambda one: one[0]), 2):
        between_m = max(0.0, _distance_m(here, there) - _VIEWS_M)
        beelines_s[first, second] = between_m / (site.matcher.max_speed_kmh / 3.6)
    return RoadGraph(site.links, dwell_s=site.matcher.dwell_s, beelines_s=beelines_s)


def _distance_m(here: Position, there: Position) -> float:
    """Great circle, by the haversine formula (Sinnott, 1984)."""
    lat, lon, other_lat, other_lon = (math.radians(a or 0.0) for a in (here.lat, here.lon, there.lat, there.lon))
    half = math.sin((other_lat - lat) / 2) ** 2
    half += math.cos(lat) * math.cos(other_lat) * math.sin((other_lon - lon) / 2) ** 2
    return 2 * _EARTH_M * math.asin(math.sqrt(half))


def _adjacency(links: Sequence[LinkConfig]) -> dict[str, dict[str, TravelTime]]:
    adjacency: dict[str, dict[str, TravelTime]] = {}
    for link in links:
        first, second = link.between
        time = TravelTime(link.min_s, link.max_s)
        adjacency.setdefault(first, {})[second] = time
        adjacency.setdefault(second, {})[first] = time
    return adjacency
