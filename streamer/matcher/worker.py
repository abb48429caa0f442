"""The matcher as a process: sightings from the bus, identities into the database.

Each poll's messages are handled in one transaction: what they say, what is decided from it, and the offset to read on
from. Either all of it stands or none, so that a message delivered twice counts once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from reid.calibration import load_calibration
from storage.errors import OffsetConflictError, StorageError
from storage.forget import newest_forgetting
from storage.matcher_state import (
    load_learned,
    load_operator_decisions,
    load_paths,
    load_tracklets,
    load_watermarks,
)
from storage.records import CameraWatermark, EmbeddingRecord, PathSegment, TrackletRecord
from storage.writer import Writer
from streamer.matcher.counters import MatcherCounters
from streamer.matcher.decision import Decision, Outcome, Reason
from streamer.matcher.learner import MEMORY
from streamer.matcher.linker import Linker
from streamer.matcher.reception import Reception
from streamer.matcher.recording import record_decisions, record_outcome
from streamer.matcher.region import Region, as_datetime
from streamer.matcher.roads import roads_of
from streamer.matcher.watermarks import Watermarks
from streamer.sightings import CameraState, EndReason, Heartbeat, Sighting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from storage.crop_store import CropStore
    from storage.database import Database, Session
    from streamer.bus import Consumer, Record
    from streamer.config import SiteConfig
    from streamer.matcher.tracklet import Tracklet
    from streamer.sightings import CropEmbedding

#: Messages per transaction at most: enough to make the commit cheap, few enough to lose little to a crash.
BATCH = 256

_log = structlog.get_logger(__name__)


class StopSignal(Protocol):
    """What ends `MatcherWorker.run`: a `threading.Event`, or one of `multiprocessing`."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


class MatcherWorker:
    """Reads sightings, decides, writes.

    `step` blocks up to its time-out. What is known in memory is what the database holds: where a transaction fails, all
    of it is forgotten, and where a partition goes to another matcher, what came from there; the next record that needs
    it has it read from the database again. An error of the database or the bus goes through, and then the consumer must
    be rewound or opened anew before the next step. A crash at any moment is the same as that.

    Args:
        site: The site.
        database: Open and migrated.
        consumer: Gives messages from the database's offset on.
        crops: Where the crops that travel with sightings are kept.
    """

    def __init__(self, site: SiteConfig, database: Database, consumer: Consumer, crops: CropStore) -> None:
        self.counters = MatcherCounters()
        self._site = site
        self._database = database
        self._consumer = consumer
        self._reception = Reception(site, consumer)
        self._crops = crops
        self._calibration = load_calibration(Path(site.matcher.calibration))
        self._roads = roads_of(site)
        self._regions: dict[str, Region] = {}
        #: The partitions, as (topic, partition), that a region's messages came from: one, while its key stays there.
        self._sources: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        self._offsets: dict[tuple[str, int], int | None] = {}
        self._is_outrun = False
        self._foreign_models: set[str] = set()
        self._corrected_until: dict[str, int] = {}
        self._forgotten_until = 0

    def run(self, stop: StopSignal, *, poll_s: float = 0.25) -> None:
        """Steps until `stop` is set, which is looked at every `poll_s` seconds at least."""
        while not stop.is_set():
            self.step(timeout_s=poll_s)

    def step(self, *, timeout_s: float) -> int:
        """Handles what the bus has, `BATCH` messages at most; waits up to `timeout_s` for the first.

        Where another matcher was quicker, it waits as long once more.

        Returns:
            How many messages were handled.
        """
        records = self._consumer.poll(timeout_s=timeout_s, limit=BATCH)
        self._let_go(self._consumer.take_lost())
        if not records:
            return 0
        try:
            offsets = self._transact(records)
        except OffsetConflictError as error:
            # This one was stopped, or cut off, for so long that another was given the partition.
            self.counters.begun_anew += 1
            if not self._is_outrun:
                # It may be so several times, until the group has told this one what is still its own.
                _log.warning("another matcher was quicker, going on from the database", reason=str(error))
            self._is_outrun = True
            self._consumer.rewind()
            # What it would read now is mostly what the other is at work on: the group needs a moment to deal anew.
            time.sleep(timeout_s)
            return 0
        self._is_outrun = False
        self._offsets.update(offsets)
        self._consumer.commit(offsets)
        return len(records)

    def _transact(self, records: Sequence[Record]) -> dict[tuple[str, int], int]:
        """Handles all of them or none; returns where to read on."""
        counted, is_stored = replace(self.counters), False
        try:
            with self._database.transaction() as session:
                writer = Writer(session)
                writer.join_decisions()
                # First, so that one who was outrun finds out before its work, and so that nobody writes beside what
                # follows: whom a person has forgotten until here is read of, and nobody is forgotten from here on.
                offsets = self._advance(records, writer)
                self._let_forgotten_go(session)
                for record in records:
                    self._handle(record, session, writer)
                self.counters.unknown += writer.unknown
            is_stored = True
        finally:
            if not is_stored:
                self.counters.take_back(counted)
                self._forget(list(self._regions))
                self._offsets.clear()
        return offsets

    def _let_go(self, lost: AbstractSet[tuple[str, int]]) -> None:
        """Forgets what came from these partitions: from now on it may change elsewhere."""
        if not lost:
            return
        for place in lost:
            self._offsets.pop(place, None)
        regions = [name for name, sources in self._sources.items() if sources & lost]
        self._forget(regions)
        _log.info("partitions dealt anew", partitions=len(lost), regions_forgotten=len(regions))

    def _let_forgotten_go(self, session: Session) -> None:
        """Where a person has had a vehicle forgotten, nothing of it stays in memory: all is read again as it is now."""
        newest = newest_forgetting(session)
        if newest != self._forgotten_until:
            self._forget(list(self._regions))
            self._forgotten_until = newest

    def _forget(self, regions: Sequence[str]) -> None:
        for name in regions:
            self._regions.pop(name, None)
            self._sources.pop(name, None)
            self._corrected_until.pop(name, None)

    def _advance(self, records: Sequence[Record], writer: Writer) -> dict[tuple[str, int], int]:
        offsets = {(record.topic, record.partition): record.offset + 1 for record in records}
        first = {(record.topic, record.partition): record.offset for record in reversed(records)}
        # Sorted, since two that hold the same partitions would wait for each other.
        for key, next_offset in sorted(offsets.items()):
            expected = self._offsets[key] if key in self._offsets else writer.next_offset(*key)
            if expected is not None and expected > first[key]:
                raise OffsetConflictError(f"{key[0]}/{key[1]}: read from {first[key]}, the database is at {expected}")
            writer.advance_offset(*key, expected=expected, next_offset=next_offset)
        return offsets

    def _handle(self, record: Record, session: Session, writer: Writer) -> None:
        self.counters.messages += 1
        message = self._reception.read(record, writer)
        if message is None:
            self.counters.rejected += 1
            return
        region = self._region(message, session)
        self._sources[message.region].add((record.topic, record.partition))
        if isinstance(message, Heartbeat):
            self._hear(message, region, session, writer)
        elif self._store(message, writer):
            self._note_model(message)
            self._assign(region.observe(message), writer)

    def _note_model(self, sighting: Sighting) -> None:
        """Counts vectors that the calibration is not for, and says so once a model: they are kept, not compared."""
        unknown = [e for e in sighting.embeddings if not self._calibration.knows(sighting.model_id, e.vector)]
        self.counters.uncompared += len(unknown)
        if unknown and sighting.model_id not in self._foreign_models:
            self._foreign_models.add(sighting.model_id)
            _log.warning(
                "vectors are not compared: the calibration is for another embedder",
                embedder=sighting.model_id,
                calibration=self._calibration.model_id,
                remedy="python -m streamer.calibrate",
            )

    def _hear(self, heartbeat: Heartbeat, region: Region, session: Session, writer: Writer) -> None:
        is_finished = heartbeat.state is CameraState.FINISHED
        writer.set_watermark(CameraWatermark(heartbeat.camera, heartbeat.session, heartbeat.watermark, is_finished))
        for tracklet in region.hear(heartbeat):
            writer.store_sighting(_lost(tracklet, heartbeat.region), None, ())
            self.counters.lost += 1
        if sessions := region.sessions():
            writer.store_learned(heartbeat.region, sessions, heartbeat.watermark)
        if region.is_due():
            # What people say from here on waits until this is decided.
            writer.join_decisions()
            self._take_in_corrections(heartbeat.region, region, session)
            self._write(region.settle(), heartbeat.region, region, writer)

    def _take_in_corrections(self, name: str, region: Region, session: Session) -> None:
        """What people have decided since the last time."""
        for decision in load_operator_decisions(session, name, after=self._corrected_until.get(name, 0)):
            region.correct(decision.tracklet_id, decision.vehicle_id, is_pinned=decision.is_pinned)
            self._corrected_until[name] = decision.assignment_id

    def _write(self, outcome: Outcome, name: str, region: Region, writer: Writer) -> None:
        record_outcome(outcome, name, region, writer, model_id=self._calibration.model_id)
        self._count(outcome.decisions)
        self.counters.corrected += sum(len(correction.decisions) for correction in outcome.corrections)

    def _store(self, sighting: Sighting, writer: Writer) -> bool:
        """Stores what a sighting says; False when it is known already."""
        self.counters.sightings += 1
        is_new = writer.store_sighting(_tracklet(sighting), _path(sighting), self._embeddings(sighting))
        self.counters.duplicates += not is_new
        return is_new

    def _assign(self, decisions: Sequence[Decision], writer: Writer) -> None:
        record_decisions(decisions, writer, model_id=self._calibration.model_id)
        self._count(decisions)

    def _count(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if decision.is_provisional:
                self.counters.provisional += 1
            else:
                self.counters.decided += 1
                self.counters.linked += decision.reason is not Reason.NEW
                self.counters.vehicles += decision.reason is Reason.NEW

    def _region(self, message: Sighting | Heartbeat, session: Session) -> Region:
        if message.region not in self._regions:
            self._regions[message.region] = self._load(message, session)
        return self._regions[message.region]

    def _load(self, message: Sighting | Heartbeat, session: Session) -> Region:
        """The region as the database knows it."""
        config = self._site.matcher
        cameras = [c.id for c in self._site.cameras if self._site.region_of(c) == message.region]
        region = Region(
            Linker(config, roads=self._roads, calibration=self._calibration),
            Watermarks(cameras, silence_s=config.camera_silence_s),
            self._calibration,
            config=config,
        )
        now = message.watermark if isinstance(message, Heartbeat) else message.occurred_at
        region.load(load_learned(session, message.region))
        seen_since = region.remembers_since or now - timedelta(seconds=config.time_to_live_s)
        watermarks = [mark for mark in load_watermarks(session) if mark.camera in cameras]
        tracklets = load_tracklets(session, message.region, seen_since=seen_since, newest=MEMORY)
        paths = load_paths(session, message.region, seen_since=seen_since, newest=MEMORY)
        region.restore(tracklets, paths, watermarks)
        return region

    def _embeddings(self, sighting: Sighting) -> list[EmbeddingRecord]:
        return [
            EmbeddingRecord(
                sighting.sighting_id,
                sighting.tracklet_id,
                embedding.modality.value,
                sighting.model_id,
                embedding.vector,
                embedding.quality,
                embedding.captured_at,
                embedding.box,
                self._keep_crop(sighting, embedding),
                embedding.tokens,
            )
            for embedding in sighting.embeddings
        ]

    def _keep_crop(self, sighting: Sighting, embedding: CropEmbedding) -> str | None:
        """Writes the crop's picture and says where; a picture that can't be kept costs the picture, no more."""
        if embedding.crop_jpeg is None:
            return None
        name = f"crops/{sighting.sighting_id}-{embedding.modality}.jpg"
        try:
            return self._crops.save(name, embedding.crop_jpeg)
        except StorageError as error:
            self.counters.crops_lost += 1
            _log.warning("crop lost", crop=name, reason=str(error))
            return None


def _tracklet(sighting: Sighting) -> TrackletRecord:
    return TrackletRecord(
        sighting.tracklet_id,
        sighting.region,
        sighting.camera,
        sighting.session,
        sighting.number,
        sighting.vehicle_class,
        sighting.class_votes,
        sighting.started_at,
        sighting.occurred_at,
        sighting.end_reason.value if sighting.end_reason else None,
        sighting.context_image,
    )


def _lost(tracklet: Tracklet, region: str) -> TrackletRecord:
    return TrackletRecord(
        tracklet.tracklet_id,
        region,
        tracklet.camera,
        tracklet.session,
        int(tracklet.tracklet_id.rpartition("/")[2]),
        max(sorted(tracklet.class_votes), key=lambda name: tracklet.class_votes[name]),
        tracklet.class_votes,
        as_datetime(tracklet.started_at),
        as_datetime(tracklet.ended_at),
        EndReason.SESSION_LOST.value,
    )


def _path(sighting: Sighting) -> PathSegment:
    path = sighting.path
    return PathSegment(
        sighting.sighting_id, sighting.tracklet_id, sighting.sequence, path.frames, path.times, path.boxes
    )
