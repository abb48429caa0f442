"""The matcher at work on messages: its core alone, or all of it from the outbox to the database."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from looks import MODALITIES, Looks, similarities, simulated_tracklets
from road_traffic import REGION, Traffic, TrafficConfig

from reid.calibration import Calibration, fit_logistic, load_calibration, modality_pair, save_calibration
from storage.crop_store import CropStore
from storage.database import Database
from storage.matcher_state import StoredTracklet
from storage.records import AssignmentRecord, EmbeddingRecord, PathSegment, TrackletRecord
from storage.writer import Writer
from streamer.bus.factory import open_consumer, open_publisher
from streamer.config import SiteConfig
from streamer.matcher.counters import MatcherCounters
from streamer.matcher.decision import Decision
from streamer.matcher.linker import Linker
from streamer.matcher.region import Region
from streamer.matcher.roads import roads_of
from streamer.matcher.watermarks import Watermarks
from streamer.matcher.worker import BATCH, MatcherWorker
from streamer.sighting_codec import encode
from streamer.sightings import EndReason, Message, Sighting

#: Vehicles drawn to calibrate, and their seed: none of them drives in any traffic.
_CALIBRATED_ON, _CALIBRATION_SEED = 400, 987_654_321
#: Tracklets of which a second delivery is recognised; beyond them the core would grow by what it never forgets.
_REMEMBERED = 10_000


def calibrate(looks: Looks, path: Path) -> Path:
    """Writes the calibration that a site with such vehicles would have; its vehicles drive in no traffic."""
    drawn = simulated_tracklets(looks, _CALIBRATED_ON, np.random.default_rng(_CALIBRATION_SEED))
    pairs = combinations_with_replacement(MODALITIES, 2)
    fits = {
        modality_pair(*pair): fit_logistic(cosine, is_same)
        for pair, (_, cosine, is_same) in zip(pairs, similarities([drawn], looks.centres), strict=True)
    }
    save_calibration(path, Calibration(looks.model_id, fits, dict(zip(MODALITIES, looks.centres, strict=True))))
    return path


@dataclass(slots=True)
class Run:
    """What a matcher said, and how long it took.

    Attributes:
        decided: By tracklet id, the first vehicle that it was said to be for good.
        final: The vehicle it is by now.
        message_s: Wall seconds of every sighting.
        settle_s: Wall seconds of every heartbeat at which something was decided.
        wall_s: All together, in the matcher alone.
        cpu_s: The same in CPU seconds.
        messages: How many were handled.
    """

    decided: dict[str, str] = field(default_factory=dict)
    final: dict[str, str] = field(default_factory=dict)
    message_s: list[float] = field(default_factory=list)
    settle_s: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    messages: int = 0

    def note(self, tracklet: str, vehicle: str) -> None:
        """Takes in a decision for good."""
        self.decided.setdefault(tracklet, vehicle)
        self.final[tracklet] = vehicle


class CoreRun:
    """A region without bus or database; what was said twice is left out as the database would.

    Args:
        site: The site.
        keeps_decisions: Whether `run` notes them; without, memory does not grow with them.
    """

    def __init__(self, site: SiteConfig, *, keeps_decisions: bool = True) -> None:
        self.run = Run()
        self.keeps_decisions = keeps_decisions
        config, calibration = site.matcher, load_calibration(Path(site.matcher.calibration))
        self.region = Region(
            Linker(config, roads=roads_of(site), calibration=calibration),
            Watermarks([camera.id for camera in site.cameras], silence_s=config.camera_silence_s),
            calibration,
            config=config,
        )
        self._heard: dict[str, int] = {}

    def feed(self, message: Message) -> None:
        """Handles one message."""
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        if isinstance(message, Sighting):
            decisions, corrections = (self.region.observe(message) if self._is_news(message) else []), []
            times = self.run.message_s
        else:
            self.region.hear(message)
            outcome = self.region.settle()
            decisions, corrections = outcome.decisions, outcome.corrections
            times = self.run.settle_s if outcome.settled_at is not None else []
        took_s = time.perf_counter() - began_s
        times.append(took_s)
        self.run.wall_s += took_s
        self.run.cpu_s += time.process_time() - began_cpu_s
        self.run.messages += 1
        if self.keeps_decisions:
            self._note(decisions)
            for correction in corrections:
                self.run.final.update((one.tracklet_id, one.vehicle_id) for one in correction.decisions)

    def _note(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if not decision.is_provisional:
                self.run.note(decision.tracklet_id, decision.vehicle_id)

    def _is_news(self, sighting: Sighting) -> bool:
        if self._heard.get(sighting.tracklet_id, -1) >= sighting.sequence:
            return False
        self._heard[sighting.tracklet_id] = sighting.sequence
        while len(self._heard) > _REMEMBERED:
            del self._heard[next(iter(self._heard))]
        return True


class BusRun:
    """The outbox, the worker and a SQLite database in a folder of its own. A context manager.

    Args:
        site: The site; its database and outbox are put into the folder.
        rate: Messages a second that are published at most; 0: as fast as possible.
    """

    def __init__(self, site: SiteConfig, *, rate: float = 0.0) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        self.site = site.model_copy(update={"database": f"sqlite:///{folder}/run.db", "crops_dir": folder / "crops"})
        self.database = Database.open(self.site.database)
        self._publisher = open_publisher(self.site)
        self._consumer = open_consumer(self.site, self._start)
        self._worker = MatcherWorker(self.site, self.database, self._consumer, CropStore(self.site.crops_dir))
        self.run = Run()
        self._pause_s = BATCH / rate if rate else 0.0
        self._waiting = 0
        self._next_s = time.monotonic()

    def __enter__(self) -> BusRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.close()
        self._consumer.close()
        self.database.close()
        self._folder.cleanup()

    @property
    def counters(self) -> MatcherCounters:
        """What the worker has counted."""
        return self._worker.counters

    def _start(self, topic: str, partition: int) -> int | None:
        with self.database.transaction() as session:
            return Writer(session).next_offset(topic, partition)

    def feed(self, message: Message) -> None:
        """Publishes one message, and lets the worker handle a batch when so many wait."""
        self._publisher.publish(message.region, encode(message), droppable=False)
        self._waiting += 1
        if self._waiting == BATCH:
            time.sleep(max(0.0, self._next_s - time.monotonic()))
            self._next_s = max(self._next_s + self._pause_s, time.monotonic())
            self.drain()

    def drain(self) -> None:
        """Lets the worker handle what waits."""
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        while handled := self._worker.step(timeout_s=0.0):
            self.run.messages += handled
        took_s = time.perf_counter() - began_s
        self.run.settle_s.append(took_s)
        self.run.wall_s += took_s
        self.run.cpu_s += time.process_time() - began_cpu_s
        self._waiting = 0

    def finish(self) -> Run:
        """Handles the rest and reads the decisions from the database."""
        self.drain()
        query = "SELECT tracklet_id, vehicle_id FROM assignments WHERE NOT is_provisional ORDER BY assignment_id"
        with closing(sqlite3.connect(self.site.database.removeprefix("sqlite:///"))) as connection:
            for tracklet, vehicle in connection.execute(query):
                self.run.note(tracklet, vehicle)
        return self.run


def run_core(site: SiteConfig, messages: Iterable[Message]) -> Run:
    """The core's decisions on all messages of a traffic."""
    core = CoreRun(site)
    for message in messages:
        core.feed(message)
    return core.run


def run_bus(site: SiteConfig, messages: Iterable[Message]) -> Run:
    """The same through the outbox and the database."""
    with BusRun(site) as bus:
        for message in messages:
            bus.feed(message)
        return bus.finish()


def known_vehicles(count: int, looks: Looks, traffic: TrafficConfig, *, before_s: float) -> Iterable[StoredTracklet]:
    """Vehicles that a matcher has decided on within its time to live, each seen once, for it to begin with.

    Args:
        count: How many.
        looks: What they look like.
        traffic: Whose cameras saw them.
        before_s: They were all seen within the hour before this moment, seconds since the Unix epoch.
    """
    rng = np.random.default_rng([traffic.seed, 3])
    views = Traffic(replace(traffic, vehicles=0), looks).roads.views
    for number, left_s in enumerate(np.sort(before_s - rng.uniform(0, 3000, count))):
        _, own = looks.vehicle(rng)
        view = views[int(rng.integers(len(views)))]
        name = f"{view.camera}/past/{number}"
        began, left = (datetime.fromtimestamp(moment, UTC) for moment in (left_s - 8.0, left_s))
        vector = looks.pictures(own, view.modality, 1, rng)[0]
        box = (500.0, 300.0, 600.0, 400.0)
        yield StoredTracklet(
            TrackletRecord(
                name, REGION, view.camera, "past", number, "car", {"car": 1.0}, began, left, EndReason.LEFT.value
            ),
            1,
            (EmbeddingRecord(f"{name}/1", name, view.modality.value, looks.model_id, vector, 0.8, left, box),),
            AssignmentRecord(
                name, f"vehicle-{number}", "new", is_provisional=False, score=None, margin=None, modality_pair=None,
                transit_s=None, model_id=looks.model_id, decided_at=left,
            ),
        )  # fmt: skip


def store(database: Database, known: Sequence[StoredTracklet]) -> None:
    """Writes what a matcher begins with into its database."""
    nowhere = (np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 4), np.float32))
    with database.transaction() as session:
        writer = Writer(session)
        for entry in known:
            name = entry.tracklet.tracklet_id
            writer.store_sighting(entry.tracklet, PathSegment(f"{name}/1", name, 1, *nowhere), entry.embeddings)
            if entry.assignment is not None:
                writer.assign(entry.assignment)
