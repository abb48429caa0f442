"""The matcher's life as a process: from the bus into the database, until it is told to end."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from reid.calibration import CalibrationError
from storage.crop_store import CropStore
from storage.database import Database
from storage.errors import NewerSchemaError, StorageError
from storage.writer import Writer
from streamer.bus import BusError
from streamer.bus.factory import open_consumer, open_event_sender, open_outbox
from streamer.bus.outbox_report import report_outbox
from streamer.children import ChildContext, StartError
from streamer.counters import Field, Order, RowState
from streamer.identity_events import IdentityPublisher, IdentityRelay
from streamer.matcher.worker import MatcherWorker
from streamer.trace import TracingConsumer

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.bus import Consumer
    from streamer.bus.outbox import Outbox
    from streamer.config import SiteConfig
    from streamer.counters import Row
    from streamer.matcher.counters import MatcherCounters
    from streamer.setups import MatcherSetup

_log = structlog.get_logger(__name__)

#: How long one look at an idle bus takes, and so how late an order is heard.
POLL_S = 0.25
#: How long the end may wait for decisions to be told; the next matcher tells what is left.
TELL_TIMEOUT_S = 10.0
#: Before a matcher whose database or bus failed begins anew: doubling from the first to the last.
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 15.0
#: A trouble is over once a batch is stored, or nothing has failed for so long: an idle bus stores none.
HELD_OUT_S = 5.0
#: Between two looks at how much still waits.
_LAG_PERIOD_S = 1.0


def run_matcher(context: ChildContext, setup: MatcherSetup) -> None:
    """Matches until told to stop at once, or told to drain and nothing waits any more, or the site has changed.

    A trouble of the database or the bus is lived through: what is known in memory is thrown away, and after a pause,
    longer each time, the matcher begins anew from the database. Nothing is lost by it: what the database doesn't hold
    waits on the bus. Meanwhile it holds no partition, so that another matcher, whose database answers, takes over.

    Raises:
        StartError: The database is newer than this program, or the calibration can't be read.
    """
    _MatcherProcess(context, setup).run()


class _Trouble:
    """What keeps the matcher from its work: said once when it begins, and once when it is over."""

    def __init__(self) -> None:
        self.reason = ""
        self.failures = 0
        self._retry_s = FIRST_RETRY_S
        self._began_s = self._failed_s = 0.0

    def begin(self, reason: str, now_s: float) -> float:
        """Notes a failure; returns how long to wait before the next try."""
        if not self.reason:
            self._began_s = now_s
            _log.error("matcher in trouble, beginning anew from the database until it works", reason=reason)
        self.reason, self._failed_s = reason, now_s
        self.failures += 1
        pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, LAST_RETRY_S)
        return pause_s

    def held_out(self, handled: int, now_s: float) -> None:
        """Notes a step that did not fail."""
        if self.reason and (handled or now_s - self._failed_s >= self._retry_s + HELD_OUT_S):
            _log.info("matcher at work again", after_s=round(now_s - self._began_s, 1))
            self.reason, self._retry_s = "", FIRST_RETRY_S


class _MatcherProcess:
    def __init__(self, context: ChildContext, setup: MatcherSetup) -> None:
        self._context, self._site, self._trace = context, setup.site, setup.trace
        self._edition = setup.edition
        self._row = context.board.stage(setup.stage)
        self._base = _counted(self._row)
        self._trouble = _Trouble()
        self._publisher: IdentityPublisher | None = None
        self._has_started = False

    def run(self) -> None:
        is_over = False
        while not is_over and not self._must_end:
            try:
                self._live()
                is_over = True
            except (StorageError, BusError) as error:
                self._stumble(error)
            except CalibrationError as error:
                raise StartError(str(error)) from error
        if self._publisher is not None:
            self._publisher.stop(timeout_s=0.0 if self._must_end else TELL_TIMEOUT_S)
        self._row.state = RowState.STOPPED

    def _live(self) -> None:
        """From what the database holds until told to end."""
        with ExitStack() as opened:
            database = Database.open(self._site.database)
            opened.callback(database.close)
            consumer = _consumer(self._site, database, self._trace)
            opened.callback(consumer.close)
            matcher = MatcherWorker(self._site, database, consumer, CropStore(self._site.crops_dir))
            outbox = open_outbox(self._site)
            opened.callback(outbox.close)
            self._say_started()
            self._row.state = RowState.RUNNING
            self._match(matcher, consumer, outbox if self._site.bus == "memory" else None)

    def _say_started(self) -> None:
        if not self._has_started:
            self._context.say_started()
            self._publisher = _publisher(self._site)
        self._has_started = True

    def _stumble(self, error: StorageError | BusError) -> None:
        """Waits a while, and hears orders meanwhile."""
        if isinstance(error, NewerSchemaError) and not self._has_started:
            raise StartError(str(error)) from error
        began_s = time.monotonic()
        pause_s = self._trouble.begin(str(error), began_s)
        self._row.state = RowState.RECONNECTING
        self._row.add(Field.BEGUN_ANEW)
        self._report_troubles()
        while not self._must_end:
            # Told to end, it must come to know soon whether it can.
            left_s = began_s + (min(pause_s, FIRST_RETRY_S) if self._is_draining else pause_s) - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(left_s, POLL_S))
            self._row[Field.ALIVE_S] = time.monotonic()

    @property
    def _must_end(self) -> bool:
        """Told to end at once; or the site has changed, and the next matcher begins with its new edition."""
        return self._context.is_told(Order.STOP_ALL) or self._context.board.edition > self._edition

    @property
    def _is_draining(self) -> bool:
        return self._context.is_told(Order.DRAIN)

    def _match(self, matcher: MatcherWorker, consumer: Consumer, outbox: Outbox | None) -> None:
        # A restarted matcher goes on counting where the one before it stopped.
        base, row = _counted(self._row), self._row
        # A consumer that has no partition yet sees no lag either: a group's join takes up to its session timeout.
        quiet_s = 0.0 if self._site.bus == "memory" else self._site.bus.session_timeout_s
        busy_s = time.monotonic()
        looked_s = busy_s - _LAG_PERIOD_S
        while not self._must_end:
            began = time.process_time()
            handled = matcher.step(timeout_s=POLL_S)
            now_s = time.monotonic()
            self._trouble.held_out(handled, now_s)
            _report(matcher.counters, base, row)
            self._report_troubles()
            work_s = time.process_time() - began
            row.add(Field.WORK_S, work_s)
            if handled:
                # The step's own time is mostly the wait for its first message.
                row.observe(work_s)
                row.add(Field.BATCHES)
            if self._is_draining or now_s - looked_s >= _LAG_PERIOD_S:
                row[Field.LAG], looked_s = consumer.lag(), now_s
                if outbox is not None:
                    report_outbox(outbox, row)
            if handled or row[Field.LAG] or not self._is_draining:
                busy_s = now_s
            elif now_s - busy_s >= quiet_s:
                return

    def _report_troubles(self) -> None:
        failures, trouble, row = self._trouble.failures, self._trouble.reason, self._row
        if self._publisher is not None:
            row[Field.EVENTS_SENT] = self._base[Field.EVENTS_SENT] + self._publisher.sent
            failures += self._publisher.failed
            trouble = trouble or self._publisher.trouble or ""
        row[Field.FAILURES] = self._base[Field.FAILURES] + failures
        row.note = trouble
        row[Field.ALIVE_S] = time.monotonic()


def _consumer(site: SiteConfig, database: Database, trace: Path | None) -> Consumer:
    def start_offset(topic: str, partition: int) -> int | None:
        with database.transaction() as session:
            return Writer(session).next_offset(topic, partition)

    consumer = open_consumer(site, start_offset)
    return consumer if trace is None else TracingConsumer(consumer, trace, time.monotonic)


def _publisher(site: SiteConfig) -> IdentityPublisher | None:
    """What tells others of the decisions, at work already; nothing does where the outbox is the bus."""
    sender = open_event_sender(site)
    if sender is None or site.bus == "memory":
        return None
    # Its own connections: it outlives the matcher's, which a trouble closes.
    database = Database(site.database)
    publisher = IdentityPublisher(IdentityRelay(database, sender, site=site.site, topic=site.bus.identities_topic))
    publisher.start()
    return publisher


def _counted(row: Row) -> dict[Field, float]:
    return {field: row[field] for field in Field}


def _report(counters: MatcherCounters, base: dict[Field, float], row: Row) -> None:
    values = {
        Field.HANDLED: counters.messages,
        Field.SIGHTINGS: counters.sightings,
        Field.DUPLICATES: counters.duplicates,
        Field.DECIDED: counters.decided,
        Field.LINKED: counters.linked,
        Field.CORRECTED: counters.corrected,
        Field.VEHICLES: counters.vehicles,
        Field.REJECTED: counters.rejected,
        Field.TRACKLETS_LOST: counters.lost,
        Field.VECTORS_UNCOMPARED: counters.uncompared,
        Field.DECISIONS_UNKNOWN: counters.unknown,
        Field.PICTURES_LOST: counters.crops_lost,
        Field.BEGUN_ANEW: counters.begun_anew,
    }
    for name, value in values.items():
        row[name] = base[name] + value
