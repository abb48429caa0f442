"""Only messages of this site's cameras, of about the time they were sent at, get in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from storage.database import Database
from storage.dead_letters import DeadLetter, load_dead_letters
from storage.writer import Writer
from streamer.bus import BusError, Consumer, Record
from streamer.matcher.reception import MAX_AHEAD, TELL_AGAIN, Reception
from streamer.sighting_codec import encode
from streamer.sightings import Message, SightingKind
from tests.streamer.matcher.matcher_builders import at, heartbeat, sighting, site

FIRST = sighting("a", 1, 0, SightingKind.FIRST, (1, 2), vehicle=1)


class FakeConsumer:
    """Notes what it is told to put aside, unless its topic takes nothing."""

    def __init__(self) -> None:
        self.is_refusing = False
        self.asked = 0
        self.rejected: list[tuple[int, str]] = []

    def reject(self, record: Record, reason: str) -> None:
        self.asked += 1
        if self.is_refusing:
            raise BusError("topic sightings.dead takes nothing")
        self.rejected.append((record.offset, reason))


class Door:
    """A reception with its database."""

    def __init__(self, database: Database) -> None:
        self.consumer = FakeConsumer()
        self._database = database
        self.now = at(99)
        config = site("sqlite:///unused.db")
        self._reception = Reception(config, cast(Consumer, self.consumer), clock=lambda: self.now)

    def read(self, message: Message | bytes, *, sent_s: float | None = None, offset: int = 7) -> Message | None:
        payload = message if isinstance(message, bytes) else encode(message)
        sent_at = None if sent_s is None else at(sent_s)
        with self._database.transaction() as session:
            record = Record("sightings", 0, offset, "main", payload, sent_at)
            return self._reception.read(record, Writer(session))

    def letters(self) -> list[DeadLetter]:
        with self._database.snapshot() as session:
            return load_dead_letters(session)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    database = Database.open(f"sqlite:///{tmp_path}/site.db")
    yield Door(database)
    database.close()


def test_what_fits_the_site_gets_in(door: Door) -> None:
    assert door.read(heartbeat("b", 5), sent_s=6) == heartbeat("b", 5)
    assert door.read(FIRST) is not None
    assert (door.letters(), door.consumer.rejected) == ([], [])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (replace(FIRST, camera="roof"), "camera: the site file names no roof"),
        (replace(heartbeat("a", 1), region="north"), "region: a stands in main, got north"),
        (replace(FIRST, site="harbour"), "site: wanted crossing, got harbour"),
        (b"\x09", "message: unknown version 9, this program reads 1"),
    ],
)
def test_what_does_not_is_put_aside_with_the_reason(door: Door, message: Message | bytes, reason: str) -> None:
    assert door.read(message) is None
    (letter,) = door.letters()
    assert (letter.reason, letter.offset, letter.at) == (reason, 7, at(99))
    assert letter.payload == (message if isinstance(message, bytes) else encode(message))
    assert door.consumer.rejected == [(7, reason)]


def test_a_time_from_the_future_is_told_by_when_the_bus_took_the_message(door: Door) -> None:
    day_s = MAX_AHEAD / timedelta(seconds=1)
    assert door.read(heartbeat("a", day_s), sent_s=0) is not None
    assert door.read(heartbeat("a", day_s + 1), sent_s=0) is None
    assert door.read(replace(FIRST, occurred_at=at(day_s + 1)), sent_s=0, offset=8) is None
    assert door.read(heartbeat("a", 50 * day_s)) is not None, "nothing is known of when it was sent"
    assert [letter.reason.partition(":")[0] for letter in door.letters()] == ["time", "time"]


def test_an_old_message_sent_late_gets_in(door: Door) -> None:
    assert door.read(FIRST, sent_s=30 * 86_400) is not None


def test_a_dead_topic_that_takes_nothing_stops_nobody(door: Door) -> None:
    door.consumer.is_refusing = True
    assert door.read(b"") is None
    assert [letter.reason for letter in door.letters()] == ["message: empty"]


def test_a_dead_topic_that_takes_nothing_is_left_alone_for_a_while(door: Door) -> None:
    # Each try waits for the broker: a batch of poison would have the supervisor kill the matcher, again and again.
    door.consumer.is_refusing = True
    for offset in range(256):
        door.read(b"", offset=offset)
    assert (door.consumer.asked, len(door.letters())) == (1, 256)

    door.consumer.is_refusing = False
    door.now += TELL_AGAIN
    door.read(b"", offset=256)
    assert door.consumer.rejected == [(256, "message: empty")]
