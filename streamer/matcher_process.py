"""The matcher's life as a process: from the bus into the database, until it is told to end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import structlog

from storage.crop_store import CropStore
from storage.database import Database
from storage.errors import NewerSchemaError, StorageError
from storage.writer import Writer
from streamer.bus import BusError
from streamer.bus.factory import open_consumer, open_event_sender
from streamer.children import ChildContext, StartError
from streamer.counters import Field, Order, RowState
from streamer.identity_events import IdentityPublisher, IdentityRelay
from streamer.matcher.calibration import CalibrationError
from streamer.matcher.worker import MatcherWorker
from streamer.trace import TracingConsumer

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.bus import Consumer
    from streamer.config import SiteConfig
    from streamer.counters import Row
    from streamer.setups import MatcherSetup

_log = structlog.get_logger(__name__)

#: How long one look at an idle bus takes, and so how late an order is heard.
POLL_S = 0.25
#: How long the end may wait for decisions to be told; the next matcher tells what is left.
TELL_TIMEOUT_S = 10.0
#: Between two looks at how much still waits.
_LAG_PERIOD_S = 1.0


def run_matcher(context: ChildContext, setup: MatcherSetup) -> None:
    """Matches until told to stop at once, or until told to drain and nothing waits any more.

    A trouble of the database or the bus ends the process with status 1: its state in memory may be ahead of the
    database, and the one that the supervisor starts next begins from there.

    Raises:
        StartError: The database is newer than this program, or the calibration can't be read.
    """
    site, row = setup.site, context.board.stage(setup.stage)
    try:
        database = Database.open(site.database)
        consumer = _consumer(site, database, setup.trace)
        matcher = MatcherWorker(site, database, consumer, CropStore(site.crops_dir))
        context.say_started()
        row.state = RowState.RUNNING
        publisher = _publisher(site, database)
        # A consumer that has no partition yet sees no lag either: a group's join takes up to its session timeout.
        quiet_s = 0.0 if site.bus == "memory" else site.bus.session_timeout_s
        _match(matcher, consumer, publisher, context, row, quiet_s)
        if publisher is not None:
            publisher.stop(timeout_s=0.0 if context.is_told(Order.STOP_ALL) else TELL_TIMEOUT_S)
        consumer.close()
        database.close()
    except (NewerSchemaError, CalibrationError) as error:
        raise StartError(str(error)) from error
    except (StorageError, BusError) as error:
        row.add(Field.FAILURES)
        row.note = str(error)
        _log.error("matcher failed, starting it anew", reason=str(error))
        sys.exit(1)
    row.state = RowState.STOPPED


def _consumer(site: SiteConfig, database: Database, trace: Path | None) -> Consumer:
    def start_offset(topic: str, partition: int) -> int | None:
        with database.transaction() as session:
            return Writer(session).next_offset(topic, partition)

    consumer = open_consumer(site, start_offset)
    return consumer if trace is None else TracingConsumer(consumer, trace, time.monotonic)


def _publisher(site: SiteConfig, database: Database) -> IdentityPublisher | None:
    """What tells others of the decisions, at work already; nothing does where the outbox is the bus."""
    sender = open_event_sender(site)
    if sender is None or site.bus == "memory":
        return None
    publisher = IdentityPublisher(IdentityRelay(database, sender, site=site.site, topic=site.bus.identities_topic))
    publisher.start()
    return publisher


def _match(
    matcher: MatcherWorker,
    consumer: Consumer,
    publisher: IdentityPublisher | None,
    context: ChildContext,
    row: Row,
    quiet_s: float,
) -> None:
    # A restarted matcher goes on counting where the one before it stopped.
    base = {field: row[field] for field in Field}
    looked_s = busy_s = time.monotonic()
    while not context.is_told(Order.STOP_ALL):
        began = time.process_time()
        handled = matcher.step(timeout_s=POLL_S)
        now_s = time.monotonic()
        _report(matcher, base, row)
        if publisher is not None:
            _report_publisher(publisher, base, row)
        row.add(Field.WORK_S, time.process_time() - began)
        is_draining = context.is_told(Order.DRAIN)
        if is_draining or now_s - looked_s >= _LAG_PERIOD_S:
            row[Field.LAG], looked_s = consumer.lag(), now_s
        if handled or row[Field.LAG] or not is_draining:
            busy_s = now_s
        elif now_s - busy_s >= quiet_s:
            return


def _report_publisher(publisher: IdentityPublisher, base: dict[Field, float], row: Row) -> None:
    row[Field.FAILURES] = base[Field.FAILURES] + publisher.failed
    row.note = publisher.trouble or ""


def _report(matcher: MatcherWorker, base: dict[Field, float], row: Row) -> None:
    counters = matcher.counters
    values = {
        Field.HANDLED: counters.messages,
        Field.SIGHTINGS: counters.sightings,
        Field.VEHICLES: counters.vehicles,
        Field.REJECTED: counters.rejected,
        Field.TRACKLETS_LOST: counters.lost,
        Field.VECTORS_UNCOMPARED: counters.uncompared,
        Field.PICTURES_LOST: counters.crops_lost,
    }
    for name, value in values.items():
        row[name] = base[name] + value
    row[Field.ALIVE_S] = time.monotonic()
