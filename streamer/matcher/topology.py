"""What a region's matcher knows of its cameras: the roads as configured, and what it has learned by itself.

Learning needs no labels. Tracklets that look alike are weighed as possible passages; those that come at usual times,
by usual ways, or stand on the same spot of the road, gain; and what is usual follows from those that gained
(expectation and maximisation; Dempster, Laird and Rubin, 1977).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.matcher.co_visibility import SharedStay, ViewMap, learn_view_map, shared_stay
from streamer.matcher.passages import Passages, ViewTraffic, passage_log_odds, view_traffic

if TYPE_CHECKING:
    from streamer.matcher.roads import RoadGraph
    from streamer.matcher.tracklet import Tracklet

Cameras = tuple[str, str]
Looks = Callable[[Sequence["Tracklet"], Sequence["Tracklet"]], NDArray[np.float64]]

#: Tracklets further apart than this teach nothing, in seconds.
_HORIZON_S = 300.0
#: Looks speak for it at least so much, in nats, or a pair teaches nothing.
_MIN_LOOKS = -1.0
#: So many of each tracklet's most alike ones are weighed.
_MOST_ALIKE = 5
#: Rounds of expectation and maximisation; the first is told to expect that vehicles pass.
_ROUNDS, _FIRST_FAVOUR = 4, 3.0
#: When and where two tracklets were seen never says less or more than this, in nats: some of what was learned is wrong.
_MAX_TRANSIT = 6.0
#: Of the vehicles in an overlap, this share has a tracklet in either view.
_SEEN_BY_BOTH = 0.8
#: Log-odds for two cameras of which one has shown nothing yet.
_UNSEEN = -4.0
#: A way is known by so many passages; a vehicle that takes longer than the longest of them by this is not waited for.
_KNOWN_WAY, _REACH_FACTOR, _REACH_MARGIN_S = 8, 2.0, 20.0
_NOTHING = Passages(np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))


@dataclass(frozen=True, slots=True)
class Relation:
    """What follows from when and where two tracklets of different cameras were seen.

    Attributes:
        log_odds: That they are one vehicle, before any look at them, in nats.
        gap_s: Seconds from leaving the earlier view to entering the later; negative while both showed a vehicle.
        co_visibility: What the places at one moment say of it, in nats; None where the views have no known overlap,
            or the two were not in view together.
    """

    log_odds: float
    gap_s: float
    co_visibility: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Topology:
    """The cameras of a region.

    Attributes:
        roads: As configured.
        traffic: By camera.
        passages: By ordered pair of cameras.
        maps: By pair of cameras in the order of their names.
    """

    roads: RoadGraph
    traffic: Mapping[str, ViewTraffic] = field(default_factory=dict)
    passages: Mapping[Cameras, Passages] = field(default_factory=dict)
    maps: Mapping[Cameras, ViewMap] = field(default_factory=dict)

    def reach_s(self, left: str, entered: str, *, otherwise: float) -> float:
        """Seconds after which a vehicle that left the one view is hardly expected in the other any more."""
        learned = self.passages.get((left, entered))
        if learned is None or len(learned) < _KNOWN_WAY:
            return otherwise
        return min(otherwise, _REACH_FACTOR * max(0.0, float(learned.gap_s.max())) + _REACH_MARGIN_S)

    def to_json(self) -> dict[str, Any]:
        """What was learned, as plain values."""
        return {
            "traffic": {camera: seen.to_json() for camera, seen in self.traffic.items()},
            "passages": [[*way, learned.to_json()] for way, learned in self.passages.items()],
            "maps": [[*cameras, view_map.to_json()] for cameras, view_map in self.maps.items()],
        }

    @classmethod
    def from_json(cls, roads: RoadGraph, values: dict[str, Any]) -> Topology:
        """What `to_json` wrote, on those roads."""
        return cls(
            roads,
            {camera: ViewTraffic.from_json(seen) for camera, seen in values["traffic"].items()},
            {(left, entered): Passages.from_json(learned) for left, entered, learned in values["passages"]},
            {(first, second): ViewMap.from_json(found) for first, second, found in values["maps"]},
        )

    def relation(self, first: Tracklet, second: Tracklet) -> Relation:
        """What speaks for two tracklets of different cameras by when and where they were seen."""
        first, second = in_order(first, second)
        cameras = _by_name(first.camera, second.camera)
        stay = _stay(first, second) if cameras in self.maps else None
        co_visibility = None if stay is None else self.maps[cameras].llr(stay)
        return Relation(float(self.log_odds([(first, second)])[0]), second.started_at - first.ended_at, co_visibility)

    def log_odds(self, pairs: Sequence[tuple[Tracklet, Tracklet]]) -> NDArray[np.float64]:
        """(N,) the log-odds of `relation`, for many pairs at once."""
        ordered = [in_order(*pair) for pair in pairs]
        ways = _grouped([(first.camera, second.camera) for first, second in ordered])
        batch, found = Passages.of(ordered), np.zeros(len(pairs))
        chance = np.ones(len(pairs))
        for camera, indices in _grouped([first.camera for first, _ in ordered]).items():
            if camera in self.traffic:
                chance[indices] *= self.traffic[camera].exit_share(batch.left_at[indices])
        for camera, indices in _grouped([second.camera for _, second in ordered]).items():
            if camera in self.traffic:
                chance[indices] *= self.traffic[camera].entry_share(batch.entered_at[indices])
        for cameras, indices in ways.items():
            has_map = _by_name(*cameras) in self.maps
            stays = [_stay(*ordered[index]) for index in indices] if has_map else []
            found[indices] = self.way_log_odds(cameras, batch.chosen(indices), chance[indices], stays)
        return found

    def way_log_odds(
        self,
        cameras: Cameras,
        batch: Passages,
        chance: NDArray[np.float64],
        stays: Sequence[SharedStay | None],
    ) -> NDArray[np.float64]:
        """(N,) the log-odds of passages from one camera to another.

        Args:
            cameras: The one that is left, and the one that is entered.
            batch: The passages.
            chance: (N,) how usual their places are.
            stays: Theirs, or none at all.
        """
        left, entered = (self.traffic.get(camera) for camera in cameras)
        if left is None or entered is None:
            return np.full(len(batch), _UNSEEN)
        unknown = self.roads.density(*cameras, batch.gap_s)
        learned = self.passages.get(cameras, _NOTHING)
        log_odds = passage_log_odds(batch, chance, learned, left, entered, unknown=unknown)
        in_view = max(1.0, left.rate_hz * left.stay_s, entered.rate_hz * entered.stay_s)
        view_map = self.maps.get(_by_name(*cameras))
        for row, stay in enumerate(stays):
            if stay is not None and view_map is not None:
                log_odds[row] = math.log(_SEEN_BY_BOTH / in_view) + view_map.llr(stay)
        return np.clip(log_odds, -_MAX_TRANSIT, _MAX_TRANSIT)


Key = TypeVar("Key", str, Cameras)


def _grouped(keys: Sequence[Key]) -> dict[Key, list[int]]:
    """By key, where it stands."""
    places: dict[Key, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return places


def in_order(first: Tracklet, second: Tracklet) -> tuple[Tracklet, Tracklet]:
    """The two in the order of the middles of their stays."""
    return (first, second) if _middle(first) <= _middle(second) else (second, first)


def _middle(tracklet: Tracklet) -> tuple[float, str]:
    return tracklet.started_at + tracklet.ended_at, tracklet.tracklet_id


def _by_name(first: str, second: str) -> Cameras:
    return (first, second) if first <= second else (second, first)


def _stay(first: Tracklet, second: Tracklet) -> SharedStay | None:
    """In the order of the cameras' names."""
    if second.camera < first.camera:
        first, second = second, first
    return shared_stay(first.path, second.path) if first.path and second.path else None


@dataclass(slots=True)
class _Candidates:
    """Pairs of tracklets of two cameras that may be one vehicle."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    looks: NDArray[np.float64]
    stays: list[SharedStay | None]
    by_way: dict[Cameras, tuple[NDArray[np.int64], Passages]]


def learn_topology(
    tracklets: Mapping[str, Sequence[Tracklet]], looks: Looks, before: Topology, pairs: Iterable[Cameras]
) -> Topology:
    """Learns from tracklets, decided or not.

    Args:
        tracklets: By camera those of late, with pictures.
        looks: Gives (N, M) log-likelihood ratios of the looks of N and M tracklets.
        before: What is known already; stays as it is for other pairs.
        pairs: Pairs of cameras that are to be learned anew, each in the order of their names.
    """
    chosen = sorted(pairs)
    cameras = {camera for pair in chosen for camera in pair}
    traffic = {camera: view_traffic(tracklets[camera]) for camera in sorted(cameras)}
    topology = Topology(before.roads, {**before.traffic, **traffic})
    passages, maps = dict(before.passages), dict(before.maps)
    for first, second in chosen:
        found = _candidates(tracklets[first], tracklets[second], topology.roads, looks)
        for learned in (passages, maps):
            for way in ((first, second), (second, first)):
                learned.pop(way, None)
        own_passages, own_map = _learn_pair((first, second), found, topology)
        passages.update(own_passages)
        if own_map is not None:
            maps[first, second] = own_map
    return Topology(topology.roads, topology.traffic, passages, maps)


def _candidates(first: Sequence[Tracklet], second: Sequence[Tracklet], roads: RoadGraph, looks: Looks) -> _Candidates:
    chosen: list[tuple[int, int]] = []
    ways: dict[Cameras, list[tuple[int, Tracklet, Tracklet]]] = defaultdict(list)
    alike = looks(first, second)
    for row, column in _alike(alike):
        one, other = in_order(first[row], second[column])
        gap_s = other.started_at - one.ended_at
        if gap_s <= _HORIZON_S and roads.forbids(one.camera, other.camera, gap_s) is None:
            ways[one.camera, other.camera].append((len(chosen), one, other))
            chosen.append((row, column))
    index = np.array(chosen, np.int64).reshape(-1, 2)
    return _Candidates(
        index[:, 0],
        index[:, 1],
        alike[index[:, 0], index[:, 1]],
        [_stay(first[row], second[column]) for row, column in chosen],
        {
            way: (np.array([at for at, _, _ in found]), Passages.of([(one, other) for _, one, other in found]))
            for way, found in ways.items()
        },
    )


def _alike(looks: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The pairs that are among the most alike of one of their two tracklets."""
    by_row, by_column = (np.argsort(np.argsort(-looks, axis=axis, kind="stable"), axis=axis) for axis in (1, 0))
    alike = (np.minimum(by_row, by_column) < _MOST_ALIKE) & (looks > _MIN_LOOKS)
    return [(int(row), int(column)) for row, column in np.argwhere(alike)]


def _learn_pair(
    cameras: Cameras, found: _Candidates, topology: Topology
) -> tuple[dict[Cameras, Passages], ViewMap | None]:
    passages: dict[Cameras, Passages] = {}
    view_map: ViewMap | None = None
    together = np.array([at for at, stay in enumerate(found.stays) if stay is not None], np.int64)
    stays = [stay for stay in found.stays if stay is not None]
    chances = {
        (left, entered): topology.traffic[left].exit_share(batch.left_at)
        * topology.traffic[entered].entry_share(batch.entered_at)
        for (left, entered), (_, batch) in found.by_way.items()
    }
    for number in range(_ROUNDS):
        known = Topology(topology.roads, topology.traffic, passages, {} if view_map is None else {cameras: view_map})
        log_odds = found.looks + (_FIRST_FAVOUR if number == 0 else 0.0)
        for way, (index, batch) in found.by_way.items():
            log_odds[index] += known.way_log_odds(way, batch, chances[way], [found.stays[at] for at in index])
        weights = _responsibilities(found.rows, found.columns, log_odds)
        passages = {way: batch.surest(weights[index]) for way, (index, batch) in found.by_way.items()}
        view_map = learn_view_map(stays, weights[together])
    return {way: learned for way, learned in passages.items() if len(learned)}, view_map


def _responsibilities(
    rows: NDArray[np.int64], columns: NDArray[np.int64], log_odds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) how likely each pair is the right one of all that its two tracklets have, or none."""
    if not len(rows):
        return np.zeros(0)
    odds = np.exp(np.minimum(log_odds, 30.0))
    by_row = np.bincount(rows, odds)
    by_column = np.bincount(columns, odds)
    return odds / (1.0 + np.maximum(by_row[rows], by_column[columns]))
