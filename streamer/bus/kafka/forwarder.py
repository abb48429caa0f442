"""From the outbox into the topic."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from streamer.bus.carrier import Carrier
from streamer.bus.kafka.clients import abandon, connect_producer
from streamer.bus.kafka.connection import bus_error
from streamer.bus.kafka.library import KafkaError, MessageSizeTooLargeError
from streamer.bus.outbox import LOOK_AGAIN_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamer.bus.outbox import Outbox, OutboxRow
    from streamer.config import KafkaConfig

#: Rows and bytes of one round: far below Kafka's usual limit of 1 MB a batch, so that a round is one batch a partition.
ROUND_ROWS = 200
ROUND_BYTES = 512 * 1024
#: A message above this can't be forwarded; the codec's own limit is a quarter of it.
MAX_FORWARDED_BYTES = 900 * 1024

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ForwarderCounts:
    """What a forwarder did since it was made.

    Attributes:
        sent: Messages that the broker acknowledged.
        put_aside: Messages too big for the topic, now among the outbox's dead ones.
        failed: Rounds that were not acknowledged in whole, or found no broker.
        rebuilt: Producers thrown away.
    """

    sent: int = 0
    put_aside: int = 0
    failed: int = 0
    rebuilt: int = 0


class KafkaForwarder(Carrier):
    """A thread that carries the outbox into the topic, in order. One per outbox.

    It works in rounds: read, send, wait for every acknowledgement (`acks=all`), delete. A round is one batch per
    partition, so that a batch that fails is not overtaken by a later one of its region. Nobody waits for this thread;
    while Kafka is away the outbox fills and keeps its bound. A crash, or a round that failed in part, sends messages
    again: at least once, and in order but for those repetitions.

    Args:
        outbox: Read and deleted from by this forwarder alone.
        config: Where Kafka is.
        monotonic: Seconds; times the delivery.
    """

    def __init__(self, outbox: Outbox, config: KafkaConfig, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__("sightings")
        self._outbox = outbox
        self._config = config
        self._monotonic = monotonic
        self._producer: Any = None
        self._put_aside = self._rebuilt = 0

    @property
    def counts(self) -> ForwarderCounts:
        """What was done so far; readable from any thread."""
        return ForwarderCounts(self._sent, self._put_aside, self._failed, self._rebuilt)

    def _round(self) -> bool:
        rows = self._outbox.read(0, ROUND_ROWS)
        if rows:
            self._forward(rows)
        return bool(rows)

    def _rest(self) -> None:
        self._outbox.wait(LOOK_AGAIN_S)

    def _let_go(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            abandon(producer)

    def _forward(self, rows: Sequence[OutboxRow]) -> None:
        too_big = [row for row in rows if len(row.payload) > MAX_FORWARDED_BYTES]
        if too_big and too_big[0] is rows[0]:
            self._set_aside(rows[0])
            self._outbox.delete_through(rows[0].id)
            return
        # A message too big ends the round before it; the next round begins with it.
        self._send(_one_round_of(rows[: rows.index(too_big[0])] if too_big else rows))

    def _send(self, rows: Sequence[OutboxRow]) -> None:
        """Sends, waits, deletes what was acknowledged.

        Raises:
            BusError: A message was not acknowledged in time; it and those after it stay.
        """
        if self._producer is None:
            self._producer = connect_producer(self._config)
        futures: list[Any] = []
        deadline = self._monotonic() + self._config.delivery_timeout_s
        failure: Exception | None = None
        try:
            for row in rows:
                futures.append(self._producer.send(self._config.topic, value=row.payload, key=row.key.encode()))
            self._producer.flush(timeout=max(0.0, deadline - self._monotonic()))
        except KafkaError as error:
            failure = error
        done = self._settle(rows, futures)
        if done < len(rows):
            failure = failure or futures[done].exception
            self._rebuilt += 1
            self._let_go()
            raise bus_error(self._config, "sightings not delivered", failure)

    def _settle(self, rows: Sequence[OutboxRow], futures: Sequence[Any]) -> int:
        """Deletes the rows up to the first that the broker has not answered for; returns how many."""
        done = 0
        for row, future in zip(rows, futures, strict=False):
            if future.succeeded():
                self._sent += 1
            elif isinstance(future.exception, MessageSizeTooLargeError):
                self._set_aside(row)
            else:
                break
            done += 1
        if done:
            self._outbox.delete_through(rows[done - 1].id)
        return done

    def _set_aside(self, row: OutboxRow) -> None:
        self._outbox.put_aside(row, f"too big for topic {self._config.topic}: {len(row.payload)} bytes")
        self._put_aside += 1
        _log.warning("sighting too big for kafka", topic=self._config.topic, bytes=len(row.payload))


def _one_round_of(rows: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
    size = 0
    for index, row in enumerate(rows):
        size += len(row.payload)
        if size > ROUND_BYTES and index:
            return rows[:index]
    return rows
