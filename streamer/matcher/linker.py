"""The decisions of one region, as a pure function of its sightings and watermarks.

A tracklet gets a provisional identity as soon as it has a picture, and a final one when it has ended and the region's
watermark has passed the end of its settle window. All tracklets that end in one window are decided together, camera by
camera, each camera's as one assignment problem. Windows are fixed in event time, so that neither the order in which
messages arrive within them nor the way they come in batches changes what is decided.
"""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamer.matcher.association import Choice, assign
from streamer.matcher.evidence import Evidence, forbids, weigh
from streamer.matcher.gallery import Gallery, Identity

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        reason: `linked`, `new` (nobody like it), or `unsure` (somebody like it, but not clearly enough).
        score: Log-odds of the best candidate, or None where there was none.
        margin: By how much the choice beats the next best, or None where there was none.
        evidence: For the chosen candidate, else for the best one; None where there was none.
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

    def __len__(self) -> int:
        return len(self._gallery)

    def remember(self, tracklet: Tracklet, vehicle_id: str) -> None:
        """Takes in what was decided before: a final assignment from the database."""
        identity = self._by_vehicle.get(vehicle_id)
        if identity is None:
            identity = self._by_vehicle[vehicle_id] = self._gallery.add(vehicle_id)
        self._gallery.link(identity, tracklet)

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
            decisions += self._settle_window([t for t in due if self._window_end(t) == window_end], window_end)
        return decisions

    def _window_end(self, tracklet: Tracklet) -> float:
        settle_s = self._config.settle_s
        return (math.floor(tracklet.ended_at / settle_s) + 1) * settle_s

    def _settle_window(self, tracklets: list[Tracklet], decided_at: float) -> list[Decision]:
        self._forget(decided_at - self._config.time_to_live_s)
        cameras = sorted(
            {t.camera for t in tracklets}, key=lambda c: min((t.started_at, c) for t in tracklets if t.camera == c)
        )
        decisions: list[Decision] = []
        for camera in cameras:
            group = sorted((t for t in tracklets if t.camera == camera), key=lambda t: (t.ended_at, t.tracklet_id))
            made = self._decide(group, decided_at=decided_at, is_provisional=False)
            for tracklet, decision in zip(group, made, strict=True):
                self.remember(tracklet, decision.vehicle_id)
            decisions += made
        return decisions

    def _forget(self, seen_before: float) -> None:
        for vehicle_id in self._gallery.forget(seen_before):
            del self._by_vehicle[vehicle_id]

    def _decide(self, tracklets: Sequence[Tracklet], *, decided_at: float, is_provisional: bool) -> list[Decision]:
        """One assignment problem: tracklets of one camera against everybody that one of them may be."""
        weighed = [self._weigh(tracklet) for tracklet in tracklets]
        columns = sorted({key for row in weighed for key in row})
        scores = np.full((len(tracklets), len(columns)), -np.inf)
        for index, row in enumerate(weighed):
            for key, (_, found) in row.items():
                scores[index, columns.index(key)] = found.total
        choices = assign(scores, min_score=self._config.min_score, min_margin=self._config.min_margin)
        return [
            _decision(tracklet, choice, row, columns, decided_at=decided_at, is_provisional=is_provisional)
            for tracklet, choice, row in zip(tracklets, choices, weighed, strict=True)
        ]

    def _weigh(self, tracklet: Tracklet) -> dict[int, tuple[Identity, Evidence]]:
        """The candidates of a tracklet and what speaks for them, by key; nobody is linked without a look."""
        weighed = {
            identity.key: (identity, weigh(tracklet, identity, calibration=self._calibration))
            for identity in self._candidates(tracklet)
        }
        return {key: found for key, found in weighed.items() if found[1].similarity is not None}

    def _candidates(self, tracklet: Tracklet) -> list[Identity]:
        possible = [identity for identity in self._gallery if forbids(tracklet, identity, self._roads) is None]
        return self._gallery.nearest(tracklet.vectors, possible, self._config.candidates)


def _decision(
    tracklet: Tracklet,
    choice: Choice,
    weighed: dict[int, tuple[Identity, Evidence]],
    columns: list[int],
    *,
    decided_at: float,
    is_provisional: bool,
) -> Decision:
    evidence: Evidence | None
    if choice.candidate is not None:
        identity, evidence = weighed[columns[choice.candidate]]
        vehicle_id, reason = identity.vehicle_id, "linked"
    else:
        evidence = max((pair[1] for pair in weighed.values()), key=lambda found: found.total, default=None)
        vehicle_id = vehicle_id_of(tracklet.tracklet_id)
        reason = "unsure" if choice.score is not None and choice.score > 0 else "new"
    return Decision(
        tracklet.tracklet_id,
        vehicle_id,
        is_provisional,
        reason,
        choice.score,
        choice.margin,
        evidence,
        len(weighed),
        decided_at,
    )
