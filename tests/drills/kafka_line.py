"""The whole way of a sighting without pictures: published, forwarded, matched, stored; with an account at its end."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid.calibration import save_calibration
from storage.crop_store import CropStore
from storage.database import Database
from storage.writer import Writer
from streamer.bus import BusError
from streamer.bus.factory import open_consumer, open_forwarder, open_outbox
from streamer.bus.memory import OutboxPublisher
from streamer.config import SiteConfig
from streamer.matcher.worker import MatcherWorker
from streamer.sighting_codec import encode
from streamer.sightings import SightingKind
from tests.servers.need import PATIENCE_S, wait_until
from tests.streamer.matcher.matcher_builders import CALIBRATION, DIMENSION, heartbeat, sighting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from streamer.sightings import Message

#: Shorter than the faults, so that each of them costs a producer.
QUICK = {"request_timeout_s": 0.8, "delivery_timeout_s": 2.0, "session_timeout_s": 6.0, "partitions": 4}
_KINDS = (SightingKind.FIRST, SightingKind.UPDATE, SightingKind.END)
#: Between two messages that are published.
_PACE_S = 0.01
#: A group whose broker came back is dealt anew, which takes its session's time, and on a busy machine longer.
_CATCH_UP_S = 150.0


@dataclass(frozen=True, slots=True)
class Account:
    """What became of what was published.

    Attributes:
        published: Sightings, each of them kept by the outbox.
        stored: Rows in the database.
        lost: Published and not stored.
        doubled: Rows beyond one a sighting, pictures' rows included.
        resent: Sightings that reached the matcher once more, and changed nothing.
        disordered: Tracklets whose sightings were stored in another order than they were published in.
    """

    published: int
    stored: int
    lost: int
    doubled: int
    resent: int
    disordered: int


class KafkaLine:
    """Publishes numbered sightings all the time, while a matcher stores what comes through the broker.

    As a context manager it runs from the first stored sighting to the end of its threads.

    Args:
        folder: For the outbox, the database and the calibration.
        address: Of the broker, or of what stands before it.
        waits: Other time-outs than `QUICK`, by their keys in the site file.
    """

    def __init__(self, folder: Path, address: str, **waits: float) -> None:
        calibration = folder / "calibration.json"
        save_calibration(calibration, CALIBRATION)
        self.site = SiteConfig.model_validate(
            {
                "site": "crossing",
                "database": f"sqlite:///{folder}/site.db",
                "cameras": [{"id": "a", "url": "a.mp4"}],
                "bus": {"bootstrap_servers": [address], **QUICK, **waits},
                "matcher": {"calibration": str(calibration)},
            }
        )
        self._file, self._crops = folder / "site.db", CropStore(folder / "crops")
        self._database = Database.open(self.site.database)
        self._outbox = open_outbox(self.site)
        forwarder = open_forwarder(self.site)
        assert forwarder is not None
        self.forwarder = forwarder
        self._published: list[str] = []
        self._resent = 0
        self._enough, self._stopping = threading.Event(), threading.Event()
        self._publishing = threading.Thread(target=self._publish, name="publishing")
        self._matching = threading.Thread(target=self._match, name="matching")

    def __enter__(self) -> Self:
        self.forwarder.start()
        self._matching.start()
        self._publishing.start()
        self.catch_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough.set()
        self._stopping.set()
        for thread in (self._publishing, self._matching):
            thread.join(PATIENCE_S)
        is_stopped = self.forwarder.stop(timeout_s=PATIENCE_S)
        self._outbox.close()
        self._database.close()
        assert is_stopped, "the forwarder does not end"

    @property
    def published(self) -> int:
        """Sightings that were kept by now."""
        return len(self._published)

    def catch_up(self) -> float:
        """Waits until all that was published by now is stored; returns how many seconds that took."""
        goal = max(1, self.published)
        what = f"{goal} sightings to be stored"
        return wait_until(lambda: self._stored() >= goal, timeout_s=_CATCH_UP_S, what=what)

    def settle(self) -> Account:
        """Publishes no more, waits until nothing more comes, and counts."""
        self._enough.set()
        self._publishing.join(PATIENCE_S)
        wait_until(lambda: self._outbox.depth() == 0, timeout_s=_CATCH_UP_S, what="the outbox to be empty")
        self.catch_up()
        self._stopping.set()
        self._matching.join(PATIENCE_S)
        return self._account()

    def _publish(self) -> None:
        publisher = OutboxPublisher(self._outbox)
        for message, droppable in _traffic():
            publisher.publish("main", encode(message), droppable=droppable)
            if name := getattr(message, "sighting_id", None):
                self._published.append(name)
            if self._enough.wait(_PACE_S):
                return

    def _match(self) -> None:
        while not self._stopping.is_set():
            consumer = open_consumer(self.site, self._start_offset)
            worker = MatcherWorker(self.site, self._database, consumer, self._crops)
            try:
                worker.run(self._stopping)
            except BusError:
                # The supervisor starts the next one, which goes on from the database.
                time.sleep(_PACE_S)
            finally:
                consumer.close()
                self._resent += worker.counters.duplicates

    def _start_offset(self, topic: str, partition: int) -> int | None:
        with self._database.transaction() as session:
            return Writer(session).next_offset(topic, partition)

    def _stored(self) -> int:
        return int(self._ask("SELECT count(*) FROM sightings")[0][0])

    def _account(self) -> Account:
        rows = self._ask("SELECT sighting_id, tracklet_id, sequence FROM sightings ORDER BY rowid")
        pictures = self._ask("SELECT sighting_id FROM embeddings")
        in_order: dict[str, list[int]] = {}
        for _, tracklet, sequence in rows:
            in_order.setdefault(tracklet, []).append(sequence)
        return Account(
            published=len(self._published),
            stored=len(rows),
            lost=len(set(self._published) - {name for name, _, _ in rows}),
            doubled=len(rows) - len({row[1:] for row in rows}) + len(pictures) - len(set(pictures)),
            resent=self._resent,
            disordered=sum(found != sorted(found) for found in in_order.values()),
        )

    def _ask(self, query: str) -> list[tuple[str, str, int]]:
        with closing(sqlite3.connect(self._file, timeout=PATIENCE_S)) as connection:
            return connection.execute(query).fetchall()


def _traffic() -> Iterator[tuple[Message, bool]]:
    """A vehicle after the other, each told of three times, with a heartbeat behind; and which of it may be dropped."""
    number = 0
    while True:
        number += 1
        start = 4.0 * number
        for sequence, kind in enumerate(_KINDS):
            seconds = (start, start + 1 + sequence)
            yield sighting("a", number, sequence, kind, seconds, vehicle=number % DIMENSION), kind is _KINDS[1]
        yield heartbeat("a", start + 3), True
