"""Keeps what is known of the cameras up to date: which tracklets it is learned from, and when."""

from __future__ import annotations

import json
from bisect import insort
from itertools import combinations
from typing import TYPE_CHECKING

from streamer.matcher.topology import Cameras, Looks, Topology, learn_topology

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamer.matcher.roads import RoadGraph
    from streamer.matcher.tracklet import Tracklet

#: Tracklets per camera that are learned from: the newest.
MEMORY = 100
#: A pair of cameras is learned anew when it has seen this many times as much, or so many tracklets more.
_GROWTH, _MOST_NEW = 1.25, 60
#: With fewer tracklets there is nothing to learn.
_FEWEST = 4


class TopologyLearner:
    """What a region has learned of its cameras; learns in event time, so that a replay learns the same.

    Attributes:
        topology: What is known now.
        seen: By camera, the tracklets taken in so far.
    """

    def __init__(self, roads: RoadGraph) -> None:
        self.topology = Topology(roads)
        self._memory: dict[str, list[Tracklet]] = {}
        self.seen: dict[str, int] = {}
        self._learned_at: dict[Cameras, int] = {}

    def remember(self, tracklet: Tracklet) -> None:
        """Takes in a tracklet again that was learned from before."""
        if not tracklet.vectors or tracklet.path is None:
            return
        memory = self._memory.setdefault(tracklet.camera, [])
        insort(memory, tracklet, key=lambda known: (known.ended_at, known.tracklet_id))
        del memory[:-MEMORY]

    def holds(self, tracklet: Tracklet) -> bool:
        """Whether it is among those that are learned from."""
        memory = self._memory.get(tracklet.camera)
        if not memory:
            return False
        return (tracklet.ended_at, tracklet.tracklet_id) >= (memory[0].ended_at, memory[0].tracklet_id)

    def learn(self, tracklets: Iterable[Tracklet], looks: Looks) -> bool:
        """Takes in tracklets, and learns where enough is new.

        Args:
            tracklets: Ended and not yet taken in.
            looks: As `learn_topology` wants it.

        Returns:
            Whether anything was learned.
        """
        for tracklet in tracklets:
            self.remember(tracklet)
            self.seen[tracklet.camera] = self.seen.get(tracklet.camera, 0) + 1
        due = [pair for pair in combinations(sorted(self._memory), 2) if self._is_due(pair)]
        if due:
            self.topology = learn_topology(self._memory, looks, self.topology, due)
            self._learned_at.update({pair: self._count(pair) for pair in due})
        return bool(due)

    def _is_due(self, pair: Cameras) -> bool:
        if min(len(self._memory[camera]) for camera in pair) < _FEWEST:
            return False
        before, now = self._learned_at.get(pair, 0), self._count(pair)
        return now >= min(_GROWTH * before, before + _MOST_NEW) and now > before

    def _count(self, pair: Cameras) -> int:
        return sum(self.seen.get(camera, 0) for camera in pair)

    def dump(self) -> bytes:
        """What was learned, and when; `seen`, which changes more often, is to be kept besides."""
        values = {
            "topology": self.topology.to_json(),
            "learned_at": [[*pair, count] for pair, count in self._learned_at.items()],
        }
        return json.dumps(values).encode()

    def load(self, state: bytes) -> None:
        """Takes up what `dump` gave; `seen` is to be set, and the tracklets are remembered one by one."""
        values = json.loads(state)
        self.topology = Topology.from_json(self.topology.roads, values["topology"])
        self._learned_at = {(first, second): count for first, second, count in values["learned_at"]}
