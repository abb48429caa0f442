"""One region's state: what is said of its tracklets, how far its cameras have come, and what follows from both."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from reid.modality import Modality
from storage.records import MATCHER
from streamer.matcher.decision import Decision, Outcome
from streamer.matcher.ground_path import ground_path
from streamer.matcher.linker import Linker
from streamer.matcher.tracklet import Tracklet
from streamer.matcher.watermarks import Watermarks
from streamer.sightings import CameraState, SightingKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from reid.calibration import Calibration
    from storage.matcher_state import StoredTracklet
    from storage.paths import PathPoints
    from storage.records import CameraWatermark
    from streamer.config import MatcherConfig
    from streamer.sightings import Heartbeat, Sighting


class Region:
    """A region's tracklets and their decisions, without bus or database. Not thread-safe."""

    def __init__(
        self, linker: Linker, watermarks: Watermarks, calibration: Calibration, *, config: MatcherConfig
    ) -> None:
        self._linker = linker
        self._watermarks = watermarks
        self._calibration = calibration
        self._config = config
        self._open: dict[str, Tracklet] = {}
        self._heard_before: list[tuple[str, str]] = []
        #: When they ended: what is said of them afterwards is kept, but opens them no more.
        self._ended: dict[str, float] = {}

    @property
    def remembers_since(self) -> datetime | None:
        """Tracklets last seen before this moment are candidates no more; None before anything was forgotten."""
        since = self._linker.remembers_since
        return as_datetime(since) if math.isfinite(since) else None

    def load(self, learned: Mapping[str, bytes]) -> None:
        """Takes up what `learned` and `sessions` gave, by name, before all else."""
        self._linker.load(learned)
        if "sessions" in learned:
            known = json.loads(learned["sessions"])
            self._watermarks.first, self._heard_before = known["first"], [tuple(one) for one in known["heard"]]

    def restore(
        self,
        tracklets: Iterable[StoredTracklet],
        paths: Mapping[str, PathPoints],
        watermarks: Iterable[CameraWatermark],
    ) -> None:
        """Takes up the state that the database holds, as if it had just been decided.

        Args:
            tracklets: The region's.
            paths: Where they were, by id.
            watermarks: How far the cameras' sessions have come.
        """
        for stored in tracklets:
            tracklet = self._from_storage(stored, paths.get(stored.tracklet.tracklet_id))
            decided = stored.assignment
            if decided is not None and not decided.is_provisional:
                self._ended[tracklet.tracklet_id] = tracklet.ended_at
                self._linker.remember(tracklet, decided.vehicle_id)
                continue
            if decided is not None and tracklet.is_pinned:
                self._linker.correct(tracklet.tracklet_id, decided.vehicle_id, is_pinned=True)
            if tracklet.is_ended:
                self._ended[tracklet.tracklet_id] = tracklet.ended_at
                self._linker.end(tracklet)
            else:
                self._open[tracklet.tracklet_id] = tracklet
        order = {session: place for place, session in enumerate(self._heard_before)}
        for mark in sorted(watermarks, key=lambda mark: (order.get((mark.camera, mark.session), -1), mark.watermark)):
            seconds = mark.watermark.timestamp()
            self._watermarks.promise(mark.camera, mark.session, seconds, is_finished=mark.is_finished)

    def observe(self, sighting: Sighting) -> list[Decision]:
        """Takes in a sighting; answers with a provisional identity when it is the first with a picture."""
        if sighting.tracklet_id in self._ended:
            return []
        tracklet = self._open.get(sighting.tracklet_id)
        if tracklet is None:
            started_at = sighting.started_at.timestamp()
            tracklet = Tracklet(sighting.tracklet_id, sighting.camera, sighting.session, started_at, started_at)
            self._open[sighting.tracklet_id] = tracklet
        was_known = bool(tracklet.vectors)
        self._update(tracklet, sighting)
        if sighting.kind is SightingKind.END:
            self._end(tracklet)
        elif tracklet.vectors and not was_known:
            return [self._linker.propose(tracklet)]
        return []

    def hear(self, heartbeat: Heartbeat) -> list[Tracklet]:
        """Takes in a camera's promise.

        Returns:
            The tracklets whose end will never come, closed where they were last seen: their session has finished, or
            it has said nothing while its camera, or another one, went on for `camera_silence_s`.
        """
        is_finished = heartbeat.state is CameraState.FINISHED
        now = heartbeat.watermark.timestamp()
        self._watermarks.promise(heartbeat.camera, heartbeat.session, now, is_finished=is_finished)
        silent = self._watermarks.silent()

        def is_lost(tracklet: Tracklet) -> bool:
            if tracklet.camera != heartbeat.camera:
                return (tracklet.camera, tracklet.session) in silent
            if tracklet.session == heartbeat.session:
                return is_finished
            return tracklet.ended_at < now - self._config.camera_silence_s

        lost = [tracklet for tracklet in self._open.values() if is_lost(tracklet)]
        for tracklet in lost:
            self._end(tracklet)
        return lost

    def sessions(self) -> dict[str, bytes]:
        """In which order sessions were heard of, by the name to keep it under; nothing where none is new."""
        if self._watermarks.heard == self._heard_before:
            return {}
        self._heard_before = list(self._watermarks.heard)
        return {"sessions": json.dumps({"first": self._watermarks.first, "heard": self._heard_before}).encode()}

    def is_due(self) -> bool:
        """Whether `settle` would decide anything."""
        return self._linker.is_due(self._watermarks.region)

    def settle(self) -> Outcome:
        """Every decision and correction that the cameras' promises allow by now."""
        outcome = self._linker.settle(self._watermarks.region)
        if outcome.decisions:
            horizon = outcome.decisions[-1].decided_at - self._config.time_to_live_s
            self._ended = {name: ended_at for name, ended_at in self._ended.items() if ended_at >= horizon}
        return outcome

    def correct(self, tracklet_id: str, vehicle_id: str, *, is_pinned: bool) -> None:
        """Takes in what somebody else decided; `is_pinned` when it must stay so. Nothing of what was long ago."""
        if tracklet_id in self._open or tracklet_id in self._ended:
            self._linker.correct(tracklet_id, vehicle_id, is_pinned=is_pinned)

    def learned(self) -> dict[str, bytes]:
        """What must be kept beside the tracklets and their decisions, by name; only what has changed since the last."""
        return self._linker.dump()

    def _end(self, tracklet: Tracklet) -> None:
        tracklet.is_ended = True
        self._ended[tracklet.tracklet_id] = tracklet.ended_at
        self._linker.end(self._open.pop(tracklet.tracklet_id))

    def _update(self, tracklet: Tracklet, sighting: Sighting) -> None:
        tracklet.ended_at = max(tracklet.ended_at, sighting.occurred_at.timestamp())
        tracklet.class_votes = dict(sighting.class_votes)
        path = sighting.path
        if len(path):
            known = tracklet.path
            joined = known.joined(path.times, path.boxes) if known else ground_path(path.times, path.boxes)
            tracklet.follow(joined)
        for embedding in sighting.embeddings:
            if self._calibration.knows(sighting.model_id, embedding.vector):
                tracklet.look(embedding.modality, _as_kept(embedding.vector))

    def _from_storage(self, stored: StoredTracklet, path: PathPoints | None) -> Tracklet:
        record = stored.tracklet
        embeddings = [found for found in stored.embeddings if self._calibration.knows(found.model_id, found.vector)]
        tracklet = Tracklet(
            record.tracklet_id,
            record.camera,
            record.session,
            record.started_at.timestamp(),
            record.ended_at.timestamp(),
            dict(record.class_votes),
            {Modality(found.modality): _as_kept(found.vector) for found in embeddings},
            is_ended=record.end_reason is not None,
            is_pinned=stored.assignment is not None and stored.assignment.decided_by != MATCHER,
        )
        if path is not None and len(path):
            tracklet.follow(ground_path(path.times, path.boxes))
        return tracklet


def _as_kept(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """A vector (D,) as the database gives it back, of unit norm: one that starts anew must weigh with the same."""
    kept = vector.astype(np.float16).astype(np.float32)
    return np.asarray(kept / np.sqrt(np.dot(kept, kept)))


def as_datetime(seconds: float) -> datetime:
    """Aware UTC from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)
