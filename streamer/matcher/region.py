"""One region's state: what is said of its tracklets, how far its cameras have come, and what follows from both."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reid.modality import Modality
from streamer.matcher.linker import Decision, Linker
from streamer.matcher.tracklet import Tracklet
from streamer.matcher.watermarks import Watermarks
from streamer.sightings import CameraState, SightingKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.matcher_state import StoredTracklet
    from storage.records import CameraWatermark
    from streamer.config import MatcherConfig
    from streamer.matcher.calibration import Calibration
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
        #: When they ended: what is said of them afterwards is kept, but opens them no more.
        self._ended: dict[str, float] = {}

    def restore(self, tracklets: Iterable[StoredTracklet], watermarks: Iterable[CameraWatermark]) -> None:
        """Takes up the state that the database holds, as if it had just been decided."""
        for stored in tracklets:
            tracklet = self._from_storage(stored)
            decided = stored.assignment
            if decided is not None and not decided.is_provisional:
                self._ended[tracklet.tracklet_id] = tracklet.ended_at
                self._linker.remember(tracklet, decided.vehicle_id)
            elif tracklet.is_ended:
                self._ended[tracklet.tracklet_id] = tracklet.ended_at
                self._linker.end(tracklet)
            else:
                self._open[tracklet.tracklet_id] = tracklet
        for mark in sorted(watermarks, key=lambda mark: mark.watermark):
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

    def settle(self) -> list[Decision]:
        """Every decision that the cameras' promises allow by now."""
        decisions = self._linker.settle(self._watermarks.region)
        if decisions:
            horizon = decisions[-1].decided_at - self._config.time_to_live_s
            self._ended = {name: ended_at for name, ended_at in self._ended.items() if ended_at >= horizon}
        return decisions

    def _end(self, tracklet: Tracklet) -> None:
        tracklet.is_ended = True
        self._ended[tracklet.tracklet_id] = tracklet.ended_at
        self._linker.end(self._open.pop(tracklet.tracklet_id))

    def _update(self, tracklet: Tracklet, sighting: Sighting) -> None:
        tracklet.ended_at = max(tracklet.ended_at, sighting.occurred_at.timestamp())
        tracklet.class_votes = dict(sighting.class_votes)
        for embedding in sighting.embeddings:
            if self._calibration.knows(sighting.model_id, embedding.vector):
                vector = self._calibration.centred(embedding.modality, embedding.vector)
                tracklet.vectors[embedding.modality] = vector

    def _from_storage(self, stored: StoredTracklet) -> Tracklet:
        record = stored.tracklet
        embeddings = [found for found in stored.embeddings if self._calibration.knows(found.model_id, found.vector)]
        return Tracklet(
            record.tracklet_id,
            record.camera,
            record.session,
            record.started_at.timestamp(),
            record.ended_at.timestamp(),
            dict(record.class_votes),
            {(m := Modality(found.modality)): self._calibration.centred(m, found.vector) for found in embeddings},
            is_ended=record.end_reason is not None,
        )


def as_datetime(seconds: float) -> datetime:
    """Aware UTC from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)
