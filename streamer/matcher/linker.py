"""The decisions of one region, as a pure function of its sightings and watermarks.

A tracklet gets a provisional identity as soon as it has a picture, and a final one when it has ended and the region's
watermark has passed the end of its settle window. All tracklets that end in one window are decided together, with the
vehicles already known. Windows are fixed in event time, so that neither the order in which messages arrive within them
nor the way they come in batches changes what is decided.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from streamer.matcher.association import cluster, support
from streamer.matcher.evidence import Evidence, forbids, weigh
from streamer.matcher.gallery import Gallery, Identity
from streamer.matcher.transit import TravelTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from streamer.config import MatcherConfig
    from streamer.matcher.calibration import Calibration
    from streamer.matcher.tracklet import Tracklet
    from streamer.matcher.transit import RoadGraph

_VEHICLES = uuid.UUID("5f0c5f0e-6d0a-5f0b-9a35-2b8f4c1f7a10")


def vehicle_id_of(tracklet_id: str) -> str:
    """The id of a vehicle first seen as that tracklet: the same in every replay."""
    return str(uuid.uuid5(_VEHICLES, tracklet_id))


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one tracklet, and why.

    Attributes:
        tracklet_id: The tracklet.
        vehicle_id: The vehicle that it is.
        is_provisional: Whether its end may change it.
        reason: `linked` to others, or `new`: the first tracklet of its vehicle.
        score: Log-odds that it belongs to the vehicle's other tracklets known by then; None where it is the only one.
        margin: By how much that beats the next best vehicle, or being alone; of one alone, what it would have taken
            to join the best other vehicle, or None where there was none.
        evidence: For the tracklet of that vehicle that it resembles most; None where it is the only one.
        candidates: How many vehicles were weighed.
        decided_at: Event time, seconds since the epoch.
    """

    tracklet_id: str
    vehicle_id: str
    is_provisional: bool
    reason: str
    score: float | None
    margin: float | None
    evidence: Evidence | None
    candidates: int
    decided_at: float


class Linker:
    """Holds the identities of one region and decides. Reads no clock; not thread-safe."""

    def __init__(self, config: MatcherConfig, *, roads: RoadGraph, calibration: Calibration) -> None:
        self._config = config
        self._roads = roads
        self._calibration = calibration
        self._gallery = Gallery()
        self._by_vehicle: dict[str, Identity] = {}
        self._waiting: list[Tracklet] = []
        self._travel_times: TravelTimes | None = None

    def __len__(self) -> int:
        return len(self._gallery)

    def remember(self, tracklet: Tracklet, vehicle_id: str) -> None:
        """Takes in what was decided before: a final assignment from the database."""
        identity = self._by_vehicle.get(vehicle_id)
        if identity is None:
            identity = self._by_vehicle[vehicle_id] = self._gallery.add(vehicle_id)
        self._gallery.link(identity, tracklet)
        self._travel_times = None

    def propose(self, tracklet: Tracklet) -> Decision:
        """A provisional identity for a tracklet that is still in view. It changes nothing that is decided later."""
        return self._decide([tracklet], decided_at=tracklet.ended_at, is_provisional=True)[0]

    def end(self, tracklet: Tracklet) -> None:
        """The tracklet is complete; it waits for its window to settle."""
        self._waiting.append(tracklet)

    def settle(self, watermark: float) -> list[Decision]:
        """Decides every window that has passed.

        Args:
            watermark: Event time in seconds since the epoch, up to which everything has been seen; infinity at the end.
        """
        due = [tracklet for tracklet in self._waiting if self._window_end(tracklet) <= watermark]
        self._waiting = [tracklet for tracklet in self._waiting if self._window_end(tracklet) > watermark]
        decisions: list[Decision] = []
        for window_end in sorted({self._window_end(tracklet) for tracklet in due}):
            window = [tracklet for tracklet in due if self._window_end(tracklet) == window_end]
            decisions += self._settle_window(window, window_end)
        return decisions

    def _window_end(self, tracklet: Tracklet) -> float:
        settle_s = self._config.settle_s
        return (math.floor(tracklet.ended_at / settle_s) + 1) * settle_s

    def _settle_window(self, tracklets: list[Tracklet], decided_at: float) -> list[Decision]:
        for vehicle_id in self._gallery.forget(decided_at - self._config.time_to_live_s):
            del self._by_vehicle[vehicle_id]
            self._travel_times = None
        tracklets = sorted(tracklets, key=lambda tracklet: (tracklet.started_at, tracklet.tracklet_id))
        decisions = self._decide(tracklets, decided_at=decided_at, is_provisional=False)
        for tracklet, decision in zip(tracklets, decisions, strict=True):
            self.remember(tracklet, decision.vehicle_id)
        return decisions

    def _decide(self, tracklets: Sequence[Tracklet], *, decided_at: float, is_provisional: bool) -> list[Decision]:
        """Clusters the tracklets (earliest first) and everybody that one of them may be."""
        known = self._candidates(tracklets)
        groups = [identity.members for identity in known] + [[tracklet] for tracklet in tracklets]
        evidence = self._evidence(groups, len(known))
        labels = cluster(evidence)
        decisions = []
        for node, tracklet in enumerate(tracklets, start=len(known)):
            label = int(labels[node])
            score, margin = support(evidence, labels, node)
            founder = groups[label][0].tracklet_id
            decision = Decision(
                tracklet_id=tracklet.tracklet_id,
                vehicle_id=known[label].vehicle_id if label < len(known) else vehicle_id_of(founder),
                is_provisional=is_provisional,
                reason="new" if label == node else "linked",
                score=score,
                margin=margin,
                evidence=self._strongest(tracklet, [groups[n] for n in np.flatnonzero(labels == label) if n != node]),
                candidates=int(np.isfinite(evidence[node]).sum()),
                decided_at=decided_at,
            )
            decisions.append(decision)
        return decisions

    def _candidates(self, tracklets: Sequence[Tracklet]) -> list[Identity]:
        """The identities that look most like one of the tracklets, among those that no rule keeps from being it."""
        found: dict[int, Identity] = {}
        for tracklet in tracklets:
            possible = [identity for identity in self._gallery if self._may_be(tracklet, identity)]
            nearest = self._gallery.nearest(tracklet.vectors, possible, self._config.candidates)
            found.update((identity.key, identity) for identity in nearest)
        return [found[key] for key in sorted(found)]

    def _may_be(self, tracklet: Tracklet, identity: Identity) -> bool:
        return all(forbids(tracklet, member, self._roads) is None for member in identity.members)

    def _evidence(self, groups: Sequence[Sequence[Tracklet]], known: int) -> NDArray[np.float64]:
        """(N, N) summed evidence between groups of tracklets; the first `known` ones are identities and stay apart."""
        evidence = np.full((len(groups), len(groups)), -np.inf)
        for row in range(known, len(groups)):
            for column in range(row):
                pairs = product(groups[row], groups[column])
                evidence[row, column] = evidence[column, row] = sum(self._total(one, other) for one, other in pairs)
        return evidence

    def _total(self, first: Tracklet, second: Tracklet) -> float:
        if forbids(first, second, self._roads) is not None:
            return -math.inf
        return self._weigh(first, second).total + self._config.prior_log_odds

    def _weigh(self, first: Tracklet, second: Tracklet) -> Evidence:
        if self._travel_times is None:
            self._travel_times = TravelTimes(identity.members for identity in self._gallery)
        return weigh(first, second, calibration=self._calibration, travel_times=self._travel_times)

    def _strongest(self, tracklet: Tracklet, groups: Sequence[Sequence[Tracklet]]) -> Evidence | None:
        """What speaks for the tracklet and that one of the groups' tracklets that it resembles most."""
        found = [self._weigh(tracklet, other) for group in groups for other in group]
        return max(found, key=lambda evidence: evidence.total, default=None)
