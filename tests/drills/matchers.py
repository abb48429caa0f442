"""Matchers as real processes that can be killed and frozen, and the traffic of several regions for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from reid.calibration import save_calibration
from storage.crop_store import CropStore
from storage.database import Database
from storage.errors import OffsetConflictError
from storage.writer import Writer
from streamer import matcher_process
from streamer.bus import Record, factory
from streamer.bus.factory import open_outbox, open_publisher
from streamer.bus.kafka.clients import connect_producer
from streamer.children import ChildContext, run_child
from streamer.config import SiteConfig
from streamer.counters import Board, Field, Order
from streamer.matcher.worker import MatcherWorker
from streamer.setups import MatcherSetup
from streamer.sighting_codec import encode
from tests.servers.need import wait_until
from tests.streamer.matcher.matcher_builders import CALIBRATION
from tests.streamer.matcher.traffic_builders import CAMERAS, traffic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.context import SpawnProcess
    from types import TracebackType
    from typing import Self

    from streamer.bus import Consumer, StartOffset

REGIONS = ("north", "east", "south", "west")
TOPIC = "sightings"
#: Where a matcher stops itself: with records in hand, or inside its transaction, when it has moved the offset.
IN_HAND, IN_TRANSACTION = "with records in hand", "inside its transaction"
_END_S = 30.0

#: A message: the place of its region, and its bytes.
Sent = tuple[int, bytes]


def made_up_messages(seed: int, *, vehicles: int) -> list[Sent]:
    """Traffic of all regions, each as if it were alone, in turns."""
    days = [traffic(seed + place, vehicles=vehicles).messages for place in range(len(REGIONS))]
    messages = []
    for number in range(max(map(len, days))):
        for place, day in enumerate(days):
            if number < len(day):
                camera = f"{REGIONS[place]}-{day[number].camera}"
                messages.append((place, encode(replace(day[number], region=REGIONS[place], camera=camera))))
    return messages


def made_up_site(folder: Path, database: str, bus: object) -> SiteConfig:
    """The site that this traffic is of."""
    folder.mkdir(exist_ok=True)
    calibration = folder / "calibration.json"
    save_calibration(calibration, CALIBRATION)
    cameras = [{"id": f"{region}-{name}", "url": "a.mp4", "region": region} for region in REGIONS for name in CAMERAS]
    return SiteConfig.model_validate(
        {
            "site": "crossing",
            "regions": list(REGIONS),
            "database": database,
            "bus": bus,
            "crops_dir": folder / "crops",
            "outbox": {"path": folder / "outbox.db"},
            "cameras": cameras,
            "matcher": {"calibration": str(calibration)},
        }
    )


@dataclass(slots=True)
class Results:
    """All that a matcher has ever decided, by tracklet in order, and how much there is of what else it keeps."""

    decisions: list[tuple[object, ...]]
    tracklets: int
    sightings: int
    vehicles: int

    @classmethod
    def of(cls, database: Database) -> Results:
        """Read from a database."""
        query = "SELECT tracklet_id, vehicle_id, reason, is_provisional, score FROM assignments"
        with database.snapshot() as session:
            rows = session.execute(text(f"{query} ORDER BY tracklet_id, assignment_id")).all()
            counts = [
                session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                for table in ("tracklets", "sightings", "vehicles")
            ]
        return cls([(row[0], row[1], row[2], bool(row[3]), row[4]) for row in rows], *counts)

    def differing(self, other: Results) -> int:
        """How many decisions one has and the other has not, or says otherwise."""
        return len(set(self.decisions) ^ set(other.decisions)) + abs(len(self.decisions) - len(other.decisions))


class _Tape:
    """A bus in memory that plays all messages once."""

    def __init__(self, messages: Sequence[Sent]) -> None:
        self._records = [Record(TOPIC, place, at, REGIONS[place], data) for at, (place, data) in enumerate(messages)]

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        assert timeout_s >= 0
        found, self._records = self._records[:limit], self._records[limit:]
        return found

    def commit(self, next_offsets: dict[tuple[str, int], int]) -> None:
        pass

    def reject(self, record: Record, reason: str) -> None:
        raise AssertionError(f"{record.offset}: {reason}")

    def take_lost(self) -> set[tuple[str, int]]:
        return set()

    def rewind(self) -> None:
        raise OffsetConflictError("nobody else reads this")

    def lag(self) -> int:
        return len(self._records)

    def close(self) -> None:
        pass


def undisturbed(folder: Path, messages: Sequence[Sent]) -> Results:
    """What one matcher says that nothing befalls."""
    site = made_up_site(folder, f"sqlite:///{folder}/undisturbed.db", "memory")
    database = Database.open(site.database)
    worker = MatcherWorker(site, database, _Tape(messages), CropStore(site.crops_dir))
    while worker.step(timeout_s=0.0):
        pass
    found = Results.of(database)
    database.close()
    return found


class Fleet:
    """Matchers of one site, processes each; what is published to them; and what they have stored. A context manager.

    Args:
        site: With `bus: memory` for one matcher alone.
        names: Of the matchers, for the board.
    """

    def __init__(self, site: SiteConfig, names: Sequence[str]) -> None:
        self.site = site
        self.board = Board([], names)
        self.database = Database.open(site.database)
        self.published = 0
        self._processes: dict[str, SpawnProcess] = {}
        #: An outbox counts from the moment at which it was made.
        self._first_id = 0
        self._publisher = open_publisher(site) if site.bus == "memory" else None
        self._producer = None if site.bus == "memory" else connect_producer(site.bus)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.join(_END_S)
        if self._publisher is not None:
            self._publisher.close()
        if self._producer is not None:
            self._producer.close(timeout=1.0)
        self.database.close()

    def publish(self, messages: Sequence[Sent]) -> None:
        """Hands messages to the bus; they are safe there when it returns. A region is a partition."""
        self.published += len(messages)
        if self._publisher is not None:
            for place, data in messages:
                self._publisher.publish(REGIONS[place], data, droppable=False)
            self._first_id = self._first_id or self._look_up_first_id()
            return
        sent = [
            self._producer.send(TOPIC, value=data, key=REGIONS[place].encode(), partition=place)  # type: ignore[union-attr]
            for place, data in messages
        ]
        self._producer.flush(timeout=_END_S)  # type: ignore[union-attr]
        for future in sent:
            future.get(timeout=0)

    def stored(self) -> int:
        """How many messages stand in the database."""
        with self.database.transaction() as session:
            writer = Writer(session)
            offsets = [writer.next_offset(TOPIC, place) or 0 for place in range(len(REGIONS))]
        return max(0, sum(offsets) - self._first_id)

    def _look_up_first_id(self) -> int:
        outbox = open_outbox(self.site)
        (first,) = outbox.read(0, 1)
        outbox.close()
        return first.id

    def start(self, name: str, *, freezes: str = "") -> None:
        """Starts a matcher; one that `freezes` stops itself there, once, as its second batch of records comes."""
        receiver, sender = multiprocessing.Pipe(duplex=False)
        context = ChildContext(self.board, sender)
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(context, MatcherSetup(self.site, name), freezes), name=name
        )
        process.start()
        sender.close()
        self._processes[name] = process
        wait_until(lambda: receiver.poll() or process.exitcode is not None, what=f"{name} to start")
        assert process.exitcode is None, f"{name} died at its start"
        receiver.close()

    def kill(self, name: str) -> None:
        """As the kernel does when memory is short."""
        self._processes[name].kill()
        self._processes[name].join(_END_S)

    def is_frozen(self, name: str) -> bool:
        """Whether it has stopped itself."""
        pid = self._processes[name].pid
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def thaw(self, name: str) -> None:
        """Lets it go on."""
        os.kill(self._processes[name].pid or 0, signal.SIGCONT)

    def is_alive(self, name: str) -> bool:
        """Whether its process has lived on."""
        return self._processes[name].is_alive()

    def count(self, counter: Field) -> int:
        """The sum over all matchers."""
        return sum(self.board.stage(name).count(counter) for name in self.board.stages)

    def wait_for(self, count: int) -> float:
        """Waits until so many messages are stored; returns for how long, in seconds."""
        return wait_until(lambda: self.stored() >= count, timeout_s=120, what=f"{count} messages to be stored")

    def finish(self) -> Results:
        """Waits until all is stored, has the matchers end, and returns what they say."""
        self.wait_for(self.published)
        self.board.order = Order.STOP_ALL
        for process in self._processes.values():
            process.join(_END_S)
        return Results.of(self.database)


@dataclass(slots=True)
class _FreezingConsumer:
    """A consumer in whose hands the process stops: everything that was polled is stale when it goes on."""

    consumer: Consumer
    batches: int = field(default=0)

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        records = self.consumer.poll(timeout_s=timeout_s, limit=min(limit, 64))
        self.batches += bool(records)
        if records and self.batches == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        return records

    def __getattr__(self, name: str) -> object:
        return getattr(self.consumer, name)


def _run(context: ChildContext, setup: MatcherSetup, freezes: str) -> None:
    if freezes == IN_HAND:
        _freeze_in_hand()
    elif freezes == IN_TRANSACTION:
        _freeze_in_transaction()
    run_child(matcher_process.run_matcher, context, setup)


def _freeze_in_hand() -> None:
    opens = factory.open_consumer

    def open_consumer(site: SiteConfig, start_offset: StartOffset) -> Consumer:
        return _FreezingConsumer(opens(site, start_offset))  # type: ignore[return-value]

    # Where the process has it from.
    vars(matcher_process)["open_consumer"] = open_consumer


def _freeze_in_transaction() -> None:
    advances, turns = Writer.advance_offset, iter(range(1 << 30))

    def advance_offset(self: Writer, topic: str, partition: int, *, expected: int | None, next_offset: int) -> None:
        advances(self, topic, partition, expected=expected, next_offset=next_offset)
        if topic == TOPIC and next(turns) == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    Writer.advance_offset = advance_offset  # type: ignore[method-assign]
