"""Poison harms nobody: each such message is put aside once, with its reason, and all the good ones are stored."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select

from reid.calibration import save_calibration
from storage.crop_store import CropStore
from storage.database import Database
from storage.dead_letters import load_dead_letters
from storage.matcher_state import load_tracklets
from storage.models import SightingRow
from storage.writer import Writer
from streamer.bus.factory import open_consumer, open_event_sender, open_outbox
from streamer.config import SiteConfig
from streamer.matcher import worker as matcher_worker
from streamer.matcher.worker import MatcherWorker
from streamer.sighting_codec import encode
from streamer.sightings import Sighting
from tests.drills.figures import note, size
from tests.drills.poisons import CENTRED, from_2050, good_messages, of_another_length, poisons
from tests.servers.kafka import Broker
from tests.servers.postgresql import postgresql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from streamer.bus import Consumer, Record
    from streamer.sightings import Message

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(1200)]

#: Messages per transaction: few, so that crashes fall between and within many.
BATCH = 16
#: A crash at every so many messages put aside for the first time.
CRASH_EVERY = size(11, 7)
PATIENCE_S = float(size(240, 1000))
VEHICLES = size(25, 300)
FLOOD = size(300, 5000)
POISON_EVERY = 5


class MatcherDiedError(Exception):
    """A matcher's end in the middle of a transaction."""


class Crashing:
    """A consumer that fails now and then while a message is put aside, within the matcher's transaction."""

    def __init__(self, consumer: Consumer, told: set[int]) -> None:
        self._consumer, self._told = consumer, told

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a consumer does
        return getattr(self._consumer, name)

    def reject(self, record: Record, reason: str) -> None:
        is_new = record.offset not in self._told
        self._told.add(record.offset)
        if is_new and len(self._told) % CRASH_EVERY == 0:
            raise MatcherDiedError
        self._consumer.reject(record, reason)


class Place:
    """A site, its database, and matchers that come and go."""

    def __init__(self, folder: Path, database: str, bus: object = "memory") -> None:
        folder.mkdir(exist_ok=True)
        save_calibration(folder / "calibration.json", CENTRED)
        self.site = SiteConfig.model_validate(
            {
                "site": "crossing",
                "database": database,
                "crops_dir": folder / "crops",
                "cameras": [{"id": "a", "url": "a.mp4"}, {"id": "b", "url": "b.mp4"}],
                "bus": bus,
                "outbox": {"path": folder / "outbox.db"},
                "matcher": {"calibration": str(folder / "calibration.json")},
            }
        )
        self.database = Database.open(database)
        self.crashes = 0
        self.uncompared = 0
        self._told: set[int] = set()

    def match(self, count: int) -> None:
        """Lets matchers work until the database has come past so many messages; each that dies is followed by one."""
        deadline = time.monotonic() + PATIENCE_S
        while self.next_offset() < count:
            assert time.monotonic() < deadline, f"{self.next_offset()} of {count} messages after {PATIENCE_S:g} s"
            consumer = open_consumer(self.site, self._start_offset)
            matcher = MatcherWorker(
                self.site, self.database, Crashing(consumer, self._told), CropStore(self.site.crops_dir)
            )
            try:
                while self.next_offset() < count and time.monotonic() < deadline:
                    matcher.step(timeout_s=0.5)
            except MatcherDiedError:
                self.crashes += 1
            self.uncompared += matcher.counters.uncompared
            consumer.close()

    def next_offset(self) -> int:
        """Where the database wants to be read on, counted from the first message."""
        return self._start_offset("sightings", 0) or 0

    def sightings(self) -> int:
        """How many stand in the database."""
        with self.database.snapshot() as session:
            return session.scalar(select(func.count()).select_from(SightingRow)) or 0

    def vehicles(self) -> dict[str, str]:
        """Whose each tracklet is."""
        with self.database.snapshot() as session:
            return {
                stored.tracklet.tracklet_id: stored.assignment.vehicle_id
                for stored in load_tracklets(session, "main", seen_since=None)
                if stored.assignment is not None
            }

    def reasons(self) -> dict[int, str]:
        """Why each message was put aside, by its offset."""
        with self.database.snapshot() as session:
            letters = load_dead_letters(session)
        assert len({letter.offset for letter in letters}) == len(letters)
        return {letter.offset: letter.reason for letter in letters}

    def _start_offset(self, topic: str, partition: int) -> int | None:
        with self.database.transaction() as session:
            return Writer(session).next_offset(topic, partition)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher_worker, "BATCH", BATCH)


def mixed(good: Sequence[Message], bad: Sequence[bytes]) -> tuple[list[bytes], dict[int, int]]:
    """Good messages with a bad one after every few; and which of the bad stands where."""
    payloads: list[bytes] = []
    places: dict[int, int] = {}
    waiting = list(range(len(bad)))
    for count, message in enumerate(good, start=1):
        payloads.append(encode(message))
        if waiting and count % POISON_EVERY == 0:
            places[len(payloads)] = waiting.pop(0)
            payloads.append(bad[places[len(payloads)]])
    assert not waiting, "not all of the poison found a place"
    return payloads, places


def undisturbed(folder: Path, good: Sequence[Message]) -> dict[str, str]:
    """Whose each tracklet is where nothing goes wrong."""
    place = Place(folder, f"sqlite:///{folder}/quiet.db")
    outbox = open_outbox(place.site)
    for message in good:
        outbox.append("main", encode(message), droppable=False)
    last = outbox.read(0, 1 << 20)[-1].id
    place.match(last + 1)
    outbox.close()
    assert place.crashes == 0
    assert place.reasons() == {}
    place.database.close()
    return place.vehicles()


def check(place: Place, good: Sequence[Message], strange: int, wanted: dict[int, str], vehicles: dict[str, str]) -> int:
    """Everything of the good is there, and of the bad each once; returns how many sightings are."""
    found = place.reasons()
    assert set(found) == set(wanted)
    for offset, reason in wanted.items():
        assert found[offset].startswith(reason), (found[offset], reason)
    sent = sum(isinstance(message, Sighting) for message in good) + strange
    assert place.sightings() == sent
    kept = {tracklet: vehicle for tracklet, vehicle in place.vehicles().items() if tracklet in vehicles}
    assert same_partition(kept, vehicles)
    assert place.crashes >= len(wanted) // CRASH_EVERY
    return sent


def same_partition(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether both put the same tracklets together; the vehicles' names may differ."""
    pairs = {(one[tracklet], other[tracklet]) for tracklet in one}
    return one.keys() == other.keys() and len(pairs) == len(set(one.values())) == len(set(other.values()))


@contextmanager
def kafka_site(folder: Path) -> Iterator[tuple[Place, Callable[[Sequence[bytes]], None]]]:
    """A site on a broker and a PostgreSQL of its own, and what sends any bytes into its topic."""
    with Broker() as broker, postgresql() as server:
        bus = {"bootstrap_servers": [broker.address], "partitions": 1, "session_timeout_s": 2.0}
        place = Place(folder / "kafka", server.url, bus)
        try:
            yield place, lambda payloads: send(place.site, payloads)
        finally:
            place.database.close()


def send(site: SiteConfig, payloads: Sequence[bytes]) -> None:
    """As a foreign producer does, who knows no bounds."""
    assert site.bus != "memory"
    sender = open_event_sender(site)
    assert sender is not None
    # Makes the topics; and ours goes first, since it keeps the library's import quiet.
    sender.send([])
    sender.close()
    from kafka import KafkaProducer

    servers = list(site.bus.bootstrap_servers)
    producer = KafkaProducer(bootstrap_servers=servers, enable_idempotence=False, max_request_size=4 << 20)
    try:
        futures = [producer.send(site.bus.topic, value=payload, key=b"main") for payload in payloads]
        producer.flush(timeout=PATIENCE_S)
        assert [future.get(timeout=PATIENCE_S).offset for future in futures] == list(range(len(payloads)))
    finally:
        producer.close()


def test_every_poison_over_kafka_with_a_matcher_that_keeps_dying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = poisons(monkeypatch) | {"heartbeat of 2050": (encode(from_2050()), "time: 2050-01-01")}
    names = [name for name in bad for _ in range(size(1, 5))]
    strange = [of_another_length(800_000 + number) for number in range(5)]
    good = good_messages(VEHICLES)
    vehicles = undisturbed(tmp_path / "quiet", good)
    payloads, places = mixed([*good[:10], *strange, *good[10:]], [bad[name][0] for name in names])
    with kafka_site(tmp_path) as (place, send_all):
        send_all(payloads)
        place.match(len(payloads))
        wanted = {offset: bad[names[index]][1] for offset, index in places.items()}
        stored = check(place, good, len(strange), wanted, vehicles)
        # Counted again by each matcher that took them in before it died.
        assert place.uncompared >= len(strange)
        note(
            "poison",
            "in Kafka, into PostgreSQL",
            kinds=len(bad),
            sent=len(payloads),
            dead=len(wanted),
            stored=stored,
            sightings_lost=0,
            matchers_killed=place.crashes,
        )


def test_every_poison_in_an_outbox_with_a_matcher_that_keeps_dying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = poisons(monkeypatch)
    names = [name for name in bad for _ in range(size(1, 5))]
    good = good_messages(VEHICLES)
    vehicles = undisturbed(tmp_path / "quiet", good)
    payloads, places = mixed(good, [bad[name][0] for name in names])
    place = Place(tmp_path / "site", f"sqlite:///{tmp_path}/site.db")
    outbox = open_outbox(place.site)
    ids = [outbox.append("main", payload, droppable=False) for payload in payloads]
    place.match(ids[-1] + 1)
    wanted = {ids[offset]: bad[names[index]][1] for offset, index in places.items()}
    stored = check(place, good, 0, wanted, vehicles)
    assert {row.id for row in outbox.dead()} == set(wanted)
    outbox.close()
    place.database.close()
    note(
        "poison",
        "in the outbox, into SQLite",
        kinds=len(bad),
        sent=len(payloads),
        dead=len(wanted),
        stored=stored,
        sightings_lost=0,
        matchers_killed=place.crashes,
    )


def test_whatever_can_be_read_stops_no_matcher(tmp_path: Path) -> None:
    """Bits flipped in good messages: most are refused, and the rest is stored and decided like any other."""
    generator = random.Random(11)
    seeds = [encode(message) for message in good_messages(8)]
    place = Place(tmp_path / "site", f"sqlite:///{tmp_path}/site.db")
    outbox = open_outbox(place.site)
    last = 0
    for _ in range(FLOOD):
        payload = bytearray(generator.choice(seeds))
        for _ in range(generator.randrange(1, 3)):
            payload[generator.randrange(1, len(payload))] ^= 1 << generator.randrange(8)
        last = outbox.append("main", bytes(payload), droppable=False)
    began = time.monotonic()
    place.match(last + 1)
    took_s = time.monotonic() - began
    dead = place.reasons()
    assert len(dead) > 0
    assert all(reason.isprintable() for reason in dead.values())
    outbox.close()
    place.database.close()
    note(
        "poison",
        "bits flipped in good messages",
        sent=FLOOD,
        dead_letters_kept=len(dead),
        stored=place.sightings(),
        matchers_killed=place.crashes,
        messages_per_s=FLOOD / took_s,
    )
