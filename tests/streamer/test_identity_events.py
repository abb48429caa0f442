"""Whoever listens hears of every decision, in order, at least once."""

from __future__ import annotations

import json
import threading
from dataclasses import fields, replace
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.corrections import merge, undo
from storage.database import Database
from storage.errors import OffsetConflictError
from storage.writer import Writer
from streamer import identity_events
from streamer.bus import BusError, carrier
from streamer.bus.factory import open_event_sender
from streamer.bus.kafka.events import KafkaEventSender
from streamer.config import SiteConfig
from streamer.identity_events import (
    SCHEMA_VERSION,
    Identity,
    IdentityError,
    IdentityPublisher,
    IdentityRelay,
    decode,
    encode,
)
from tests.storage.storage_builders import START, after, assignment, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PATIENCE_S = 20.0


class FakeSender:
    """A broker that notes what it was sent, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.sent: list[tuple[str, Identity]] = []
        self.rounds = 0
        self.is_closed = False
        self.is_told = threading.Event()

    def send(self, events: Sequence[tuple[str, bytes]]) -> None:
        self.rounds += 1
        if self.failures:
            self.failures -= 1
            raise BusError("kafka broker:9092: no connection: refused")
        self.sent += [(key, decode(payload)) for key, payload in events]
        self.is_told.set()

    def close(self) -> None:
        self.is_closed = True

    @property
    def ids(self) -> list[int]:
        return [event.event_id for _, event in self.sent]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Three decisions: on `v1`, provisional and final, and on `v2` in another region."""
    opened = Database.open(f"sqlite:///{tmp_path}/test.db")
    with opened.transaction() as session:
        store(session, tracklet())
        Writer(session).assign(assignment("gate/s1/1", "v1", is_provisional=True))
        Writer(session).assign(assignment("gate/s1/1", "v1", score=1.5))
        store(session, tracklet("bridge", region="north"), "v2")
    yield opened
    opened.close()


def _relay(database: Database, sender: FakeSender) -> IdentityRelay:
    return IdentityRelay(database, sender, site="crossing", topic="identities")


# The wire.

_names = st.text(max_size=20)
_identities = st.builds(
    Identity,
    event_id=st.integers(1, 2**62),
    site=_names,
    region=_names,
    tracklet_id=_names,
    camera=_names,
    vehicle_id=_names,
    previous_vehicle_id=st.none() | _names,
    reason=_names,
    is_provisional=st.booleans(),
    score=st.none() | st.floats(allow_nan=False),
    decided_at=st.integers(0, 10**9).map(lambda microseconds: after(microseconds / 1e3)),
    decided_by=_names,
    correction_id=st.none() | st.integers(1, 2**62),
)


@settings(deadline=None)
@given(_identities)
def test_an_event_comes_back_as_it_was(identity: Identity) -> None:
    assert decode(encode(identity)) == identity


def test_the_schema_lists_the_events_fields_in_their_order() -> None:
    schema = json.loads(files("streamer").joinpath("identity.avsc").read_text(encoding="utf-8"))
    assert [each["name"] for each in schema["fields"]] == ["schema_version", *(each.name for each in fields(Identity))]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "unknown version None"),
        (bytes((SCHEMA_VERSION + 1,)), f"unknown version {SCHEMA_VERSION + 1}, this program reads {SCHEMA_VERSION}"),
        (bytes((SCHEMA_VERSION,)) + b"\xff\xff", f"not a record of version {SCHEMA_VERSION}"),
    ],
)
def test_noise_is_told_from_an_event(payload: bytes, message: str) -> None:
    with pytest.raises(IdentityError, match=message) as caught:
        decode(payload)
    assert "\n" not in str(caught.value)


# Rounds.


def test_every_decision_is_told_once_in_order(database: Database) -> None:
    sender = FakeSender()
    assert [_relay(database, sender).round() for _ in range(2)] == [3, 0]
    assert sender.ids == [1, 2, 3]
    assert [key for key, _ in sender.sent] == ["main", "main", "north"]
    first, second, third = (event for _, event in sender.sent)
    assert (first.event_id, first.site, first.region, first.camera) == (1, "crossing", "main", "gate")
    assert (first.tracklet_id, first.vehicle_id, first.previous_vehicle_id) == ("gate/s1/1", "v1", None)
    assert (first.reason, first.is_provisional, first.score, first.decided_at) == ("appearance", True, None, START)
    assert (first.decided_by, first.correction_id) == ("matcher", None)
    assert second == replace(first, event_id=2, previous_vehicle_id="v1", is_provisional=False, score=1.5)
    assert (third.vehicle_id, third.camera) == ("v2", "bridge")


def test_what_people_correct_is_told_too(database: Database) -> None:
    sender = FakeSender()
    _relay(database, sender).round()
    with database.transaction() as session:
        made = merge(session, "v1", "v2", by="anna", at=after(60))
    with database.transaction() as session:
        undone = undo(session, made.correction_id, by="ben", at=after(90))
    assert _relay(database, sender).round() == 4
    told = [(event.tracklet_id, event.previous_vehicle_id, event.vehicle_id) for _, event in sender.sent[3:]]
    stays = ("gate/s1/1", "v1", "v1")
    assert told == [("bridge/s1/1", "v2", "v1"), stays, ("bridge/s1/1", "v1", "v2"), stays]
    assert [event.decided_by for _, event in sender.sent[3:]] == ["anna", "anna", "matcher", "matcher"]
    assert [event.correction_id for _, event in sender.sent[3:]] == [made.correction_id] * 2 + [
        undone.correction_id
    ] * 2


def test_rounds_are_bounded_and_leave_nothing_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_events, "ROUND_EVENTS", 2)
    sender = FakeSender()
    assert [_relay(database, sender).round() for _ in range(3)] == [2, 1, 0]
    assert sender.ids == [1, 2, 3]


def test_what_was_not_acknowledged_is_told_again(database: Database) -> None:
    sender = FakeSender(failures=1)
    relay = _relay(database, sender)
    with pytest.raises(BusError):
        relay.round()
    assert relay.round() == 3
    assert sender.ids == [1, 2, 3]


class _CrashError(Exception):
    pass


def test_a_crash_before_the_place_is_kept_tells_twice_and_forgets_nothing(database: Database) -> None:
    class Crashing(FakeSender):
        def send(self, events: Sequence[tuple[str, bytes]]) -> None:
            super().send(events)
            raise _CrashError

    crashing, sender = Crashing(), FakeSender()
    with pytest.raises(_CrashError):
        _relay(database, crashing).round()
    _relay(database, sender).round()
    assert crashing.sent == sender.sent


def test_of_two_matchers_one_keeps_the_place(database: Database) -> None:
    other = FakeSender()

    class Slow(FakeSender):
        def send(self, events: Sequence[tuple[str, bytes]]) -> None:
            super().send(events)
            _relay(database, other).round()

    slow = Slow()
    with pytest.raises(OffsetConflictError):
        _relay(database, slow).round()
    assert slow.ids == other.ids == [1, 2, 3]
    assert _relay(database, other).round() == 0


# The thread.


def test_the_publisher_tells_what_comes_and_at_the_end_what_is_left(database: Database) -> None:
    sender = FakeSender()
    publisher = IdentityPublisher(_relay(database, sender))
    publisher.start()
    assert sender.is_told.wait(PATIENCE_S)
    with database.transaction() as session:
        store(session, tracklet(number=2), "v3")
    assert publisher.stop(timeout_s=PATIENCE_S)
    assert (sender.ids, publisher.sent, publisher.failed, publisher.trouble) == ([1, 2, 3, 4], 4, 0, None)
    assert sender.is_closed


def test_troubles_are_counted_and_tried_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "FIRST_RETRY_S", 0.01)
    sender = FakeSender(failures=3)
    publisher = IdentityPublisher(_relay(database, sender))
    publisher.start()
    assert sender.is_told.wait(PATIENCE_S)
    assert publisher.stop(timeout_s=PATIENCE_S)
    assert (sender.ids, publisher.failed, publisher.trouble) == ([1, 2, 3], 3, None)


def test_the_end_does_not_wait_for_a_broker_that_is_away(database: Database) -> None:
    sender = FakeSender(failures=10**6)
    publisher = IdentityPublisher(_relay(database, sender))
    publisher.start()
    assert publisher.stop(timeout_s=PATIENCE_S)
    assert publisher.failed == sender.rounds > 0
    assert publisher.trouble == "kafka broker:9092: no connection: refused"


# Who publishes.


def _site(tmp_path: Path, bus: object) -> SiteConfig:
    camera = {"id": "cam1", "url": "cam1.mp4"}
    return SiteConfig.model_validate(
        {"site": "s", "cameras": [camera], "database": f"sqlite:///{tmp_path}/s.db", "bus": bus}
    )


def test_without_a_broker_nobody_is_told(tmp_path: Path) -> None:
    assert open_event_sender(_site(tmp_path, "memory")) is None
    kafka = _site(tmp_path, {"bootstrap_servers": ["broker:9092"], "identities_topic": "who"})
    sender = open_event_sender(kafka)
    assert isinstance(sender, KafkaEventSender)
    sender.close()
