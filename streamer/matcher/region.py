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
    from streamer.matcher.calibration import Calibration
    from streamer.sightings import Heartbeat, Sighting


class Region:
    """A region's tracklets and their decisions, without bus or database. Not thread-safe."""

    def __init__(self, linker: Linker, watermarks: Watermarks, calibration: Calibration) -> None:
        self._linker = linker
        self._watermarks = watermarks
        self._calibration = calibration
        self._open: dict[str, Tracklet] = {}

    def restore(self, tracklets: Iterable[StoredTracklet], watermarks: Iterable[CameraWatermark]) -> None:
        """Takes up the state that the database holds, as if it had just been decided."""
        for stored in tracklets:
            tracklet = self._from_storage(stored)
            decided = stored.assignment
            if decided is not None and not decided.is_provisional:
                self._linker.remember(tracklet, decided.vehicle_id)
            elif tracklet.is_ended:
                self._linker.end(tracklet)
            else:
                self._open[tracklet.tracklet_id] = tracklet
        for mark in sorted(watermarks, key=lambda mark: mark.watermark):
            seconds = mark.watermark.timestamp()
            self._watermarks.promise(mark.camera, mark.session, seconds, is_finished=mark.is_finished)

    def observe(self, sighting: Sighting) -> list[Decision]:
        """Takes in a sighting; answers with a provisional identity when it is the first with a picture."""
        tracklet = self._open.get(sighting.tracklet_id)
        if tracklet is None:
            started_at = sighting.started_at.timestamp()
            tracklet = Tracklet(sighting.tracklet_id, sighting.camera, sighting.session, started_at, started_at)
            self._open[sighting.tracklet_id] = tracklet
        is_known = bool(tracklet.vectors)
        self._update(tracklet, sighting)
        if sighting.kind is SightingKind.END:
            self._end(tracklet)
        elif not is_known:
            return [self._linker.propose(tracklet)]
        return []

    def hear(self, heartbeat: Heartbeat) -> list[Tracklet]:
        """Takes in a camera's promise.

        Returns:
            The tracklets whose end will never come, closed where they were last seen: their camera has gone on to
            another session, has finished this one, or has fallen silent.
        """
        is_finished = heartbeat.state is CameraState.FINISHED
        seconds = heartbeat.watermark.timestamp()
        self._watermarks.promise(heartbeat.camera, heartbeat.session, seconds, is_finished=is_finished)
        silent = self._watermarks.silent()

        def is_lost(tracklet: Tracklet) -> bool:
            if tracklet.camera == heartbeat.camera:
                return is_finished or tracklet.session != heartbeat.session
            return (tracklet.camera, tracklet.session) in silent

        lost = [tracklet for tracklet in self._open.values() if is_lost(tracklet)]
        for tracklet in lost:
            self._end(tracklet)
        return lost

    def settle(self) -> list[Decision]:
        """Every decision that the cameras' promises allow by now."""
        return self._linker.settle(self._watermarks.region)

    def _end(self, tracklet: Tracklet) -> None:
        tracklet.is_ended = True
        self._linker.end(self._open.pop(tracklet.tracklet_id))

    def _update(self, tracklet: Tracklet, sighting: Sighting) -> None:
        tracklet.ended_at = max(tracklet.ended_at, sighting.occurred_at.timestamp())
        tracklet.class_votes = dict(sighting.class_votes)
        if sighting.model_id == self._calibration.model_id:
            for embedding in sighting.embeddings:
                vector = self._calibration.centred(embedding.modality, embedding.vector)
                tracklet.vectors[embedding.modality] = vector

    def _from_storage(self, stored: StoredTracklet) -> Tracklet:
        record = stored.tracklet
        embeddings = [found for found in stored.embeddings if found.model_id == self._calibration.model_id]
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
