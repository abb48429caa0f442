"""A matcher whose database or bus goes away lives on, and in the end says what it would have said."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from storage.database import Database
from storage.errors import StorageError
from streamer.bus import BusError
from streamer.bus.factory import open_publisher
from streamer.bus.memory import OutboxConsumer
from streamer.children import ChildContext
from streamer.counters import Board, Field, Order, RowState
from streamer.matcher_process import run_matcher
from streamer.setups import MatcherSetup
from streamer.sighting_codec import encode
from streamer.sightings import Sighting
from tests.streamer.matcher.test_worker import STORY, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from streamer.bus import Record
    from streamer.counters import Row


class Matcher:
    """A matcher process's work, done here: it is told to drain, and so ends when all is matched."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.board = Board([], ["matcher"])
        self.board.order = Order.DRAIN
        publisher = open_publisher(site.config)
        for message in STORY:
            publisher.publish("main", encode(message), droppable=False)
        publisher.close()

    @property
    def row(self) -> Row:
        return self.board.stage("matcher")

    def run(self, *, trace: Path | None = None, edition: int = 0) -> list[str]:
        """Runs to its end; returns the events of its log."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        with capture_logs() as logs:
            run_matcher(ChildContext(self.board, sender), MatcherSetup(self.site.config, "matcher", trace, edition))
        assert not receiver.recv().problem
        receiver.close()
        sender.close()
        return [str(entry["event"]) for entry in logs]


@pytest.fixture
def matcher(tmp_path: Path) -> Iterator[Matcher]:
    site = Site(tmp_path / "site")
    yield Matcher(site)
    site.database.close()


def _assert_all_is_matched(matcher: Matcher, folder: Path) -> None:
    undisturbed = Site(folder / "undisturbed")
    undisturbed.play([encode(message) for message in STORY])
    assert matcher.site.partition() == undisturbed.partition()
    undisturbed.database.close()
    row = matcher.row
    assert (row.count(Field.HANDLED), row.count(Field.DECIDED), row.count(Field.LINKED)) == (len(STORY), 3, 1)
    assert (row.note, row.state) == ("", RowState.STOPPED)
    assert row[Field.LAG] == 0


def test_a_database_that_is_away_is_waited_for(
    matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens, notes = Database.open, []

    def open_at_the_third_try(url: str) -> Database:
        notes.append(matcher.row.note)
        if len(notes) < 3:
            raise StorageError("database: no route to host")
        return opens(url)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "open", open_at_the_third_try)
        events = matcher.run()

    assert notes == ["", "database: no route to host", "database: no route to host"]
    assert [event for event in events if event.startswith("matcher")] == [
        "matcher in trouble, beginning anew from the database until it works",
        "matcher at work again",
    ]
    assert matcher.row.count(Field.BEGUN_ANEW) == matcher.row.count(Field.FAILURES) == 2
    _assert_all_is_matched(matcher, tmp_path)


def test_a_bus_that_fails_between_two_batches_is_read_on(
    matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls, calls = OutboxConsumer.poll, iter(range(1000))

    def poll_with_trouble(self: OutboxConsumer, *, timeout_s: float, limit: int) -> Sequence[Record]:
        if next(calls) in {1, 3}:
            raise BusError("outbox: disk I/O error")
        return polls(self, timeout_s=timeout_s, limit=min(limit, 4))

    monkeypatch.setattr(OutboxConsumer, "poll", poll_with_trouble)
    trace = tmp_path / "commits.csv"
    matcher.run(trace=trace)

    assert matcher.row.count(Field.BEGUN_ANEW) == 2
    noted = [line.partition(",")[0] for line in trace.read_text().splitlines()]
    assert noted == [message.sighting_id for message in STORY if isinstance(message, Sighting)]
    _assert_all_is_matched(matcher, tmp_path)


def test_a_matcher_of_an_older_edition_ends_and_the_next_one_reads_on(
    matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls, closes, closed = OutboxConsumer.poll, OutboxConsumer.close, []

    def poll_and_change_the_site(self: OutboxConsumer, *, timeout_s: float, limit: int) -> Sequence[Record]:
        matcher.board.edition = 1
        return polls(self, timeout_s=timeout_s, limit=min(limit, 4))

    def close(self: OutboxConsumer) -> None:
        closed.append(matcher.row.count(Field.HANDLED))
        closes(self)

    with monkeypatch.context() as patch:
        patch.setattr(OutboxConsumer, "poll", poll_and_change_the_site)
        patch.setattr(OutboxConsumer, "close", close)
        matcher.run()
    # It stored what it had read, and let go of the bus: with Kafka others get its partitions at once.
    assert closed == [4]

    matcher.run(edition=1)
    _assert_all_is_matched(matcher, tmp_path)
