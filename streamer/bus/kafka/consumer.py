"""From the topic to the matcher, as a member of a group."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from streamer.bus import BusError, Record
from streamer.bus.kafka.clients import CLOSE_TIMEOUT_S, abandon, connect_consumer, connect_producer
from streamer.bus.kafka.connection import bus_error
from streamer.bus.kafka.library import ConsumerRebalanceListener, KafkaError, OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streamer.bus import StartOffset
    from streamer.config import KafkaConfig

#: A poll is cut into slices of this length, since an assignment made during one is acted upon after it.
_POLL_SLICE_S = 0.1
_MAX_REASON_LENGTH = 500
#: What a dead letter keeps of a message: its beginning.
_MAX_DEAD_BYTES = 512 * 1024
#: The year 2100: a broker's time beyond it is none.
_LATEST_MS = 4_102_444_800_000

_log = structlog.get_logger(__name__)


class KafkaSightingConsumer:
    """Reads the topic as a member of a group, from the offsets that the database holds.

    On assignment a partition is paused until `poll`, in the caller's thread, has sought it to the database's offset;
    Kafka's own offsets are written for people's tools and never read. Partitions change hands within `poll` alone: the
    group waits for it, so that what was polled before is stored by then. Whoever is away too long is left behind, and
    the database's offset keeps it from storing anything. `poll` blocks up to its time-out, and up to
    `request_timeout_s` more while there is no connection. A crash loses nothing: what was not stored is read again.
    Not safe for several threads.

    Args:
        config: Where Kafka is.
        start_offset: Asked at each assignment, and after `rewind`, within `poll`.
        monotonic: Seconds, for the time-out.
    """

    def __init__(
        self, config: KafkaConfig, *, start_offset: StartOffset, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._start_offset = start_offset
        self._monotonic = monotonic
        self._consumer: Any = None
        self._dead_producer: Any = None
        self._listener = _Assignments()
        self._is_away = False

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        """See `streamer.bus.Consumer`; while Kafka is away, returns none and says so once.

        Whatever it fails with, the next call begins at the database's offsets again.

        Raises:
            BusError: Kafka answers, and refuses.
        """
        deadline = self._monotonic() + timeout_s
        if self._consumer is None and not self._connect():
            return []
        is_read = False
        try:
            while not (records := self._poll_slice(deadline, limit)) and self._monotonic() < deadline:
                pass
            is_read = True
        except KafkaError as error:
            raise bus_error(self._config, f"topic {self._config.topic} can't be read", error) from error
        finally:
            if not is_read:
                # What was fetched is gone, and a partition that was to be sought would stay paused for good.
                self.rewind()
        return records

    def commit(self, next_offsets: dict[tuple[str, int], int]) -> None:
        """Tells Kafka, without waiting: the database's offset is what counts, this one shows the lag to people."""
        if self._consumer is None:
            return
        held = self._consumer.assignment()
        offsets = {
            TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)
            for (topic, partition), offset in next_offsets.items()
        }
        self._consumer.commit_async({key: value for key, value in offsets.items() if key in held})

    def reject(self, record: Record, reason: str) -> None:
        """Sends the message to the dead topic and waits for the broker; a crash before `commit` sends it twice.

        Raises:
            BusError: The dead topic did not take it.
        """
        headers = [
            ("reason", reason[:_MAX_REASON_LENGTH].encode()),
            ("source", f"{record.topic}/{record.partition}/{record.offset}".encode()),
            ("bytes", str(len(record.payload)).encode()),
        ]
        # What a topic of larger messages let through might not fit here: its beginning, and its length, must do.
        payload = record.payload[:_MAX_DEAD_BYTES]
        try:
            if self._dead_producer is None:
                self._dead_producer = connect_producer(self._config)
            future = self._dead_producer.send(
                self._config.dead_topic, value=payload, key=record.key.encode(), headers=headers
            )
            self._dead_producer.flush(timeout=self._config.delivery_timeout_s)
            future.get(timeout=0)
        except KafkaError as error:
            self._abandon_dead_producer()
            raise bus_error(self._config, f"topic {self._config.dead_topic} takes nothing", error) from error

    def take_lost(self) -> set[tuple[str, int]]:
        """See `streamer.bus.Consumer`. At each change in the group every partition counts: all are dealt anew."""
        return {(partition.topic, partition.partition) for partition in self._listener.take_lost()}

    def rewind(self) -> None:
        """See `streamer.bus.Consumer`."""
        if self._consumer is not None:
            self._listener.on_partitions_assigned(self._consumer.assignment())

    def lag(self) -> int:
        """How many messages of the held partitions were not polled yet, as of the last fetch."""
        if self._consumer is None:
            return 0
        try:
            return sum(self._partition_lag(partition) for partition in self._consumer.assignment())
        except KafkaError:
            # The group is being dealt anew; the next call knows.
            return 0

    def close(self) -> None:
        """Leaves the group, so that others take over at once, and lets go of connections."""
        consumer, self._consumer = self._consumer, None
        self._abandon_dead_producer()
        if consumer is None:
            return
        try:
            consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))
        except KafkaError as error:
            # The group notices within session_timeout_s; nothing else is lost by it.
            _log.warning("left the group without a word", reason=type(error).__name__)

    def _connect(self) -> bool:
        try:
            self._consumer = connect_consumer(self._config)
        except BusError as error:
            if not self._is_away:
                _log.warning("kafka is away", reason=str(error))
            self._is_away = True
            return False
        self._is_away = False
        self._consumer.subscribe([self._config.topic], listener=self._listener.of(self._consumer))
        return True

    def _poll_slice(self, deadline: float, limit: int) -> list[Record]:
        left_s = max(0.0, min(deadline - self._monotonic(), _POLL_SLICE_S))
        batches = self._consumer.poll(timeout_ms=int(left_s * 1000), max_records=limit)
        for partition in self._listener.take_new():
            self._seek(partition)
        return [_record(message) for batch in batches.values() for message in batch]

    def _seek(self, partition: Any) -> None:  # noqa: ANN401 - the library is untyped
        if partition not in self._consumer.assignment():
            return
        offset = self._start_offset(partition.topic, partition.partition)
        if offset is None:
            self._consumer.seek_to_beginning(partition)
        else:
            self._consumer.seek(partition, offset)
        self._consumer.resume(partition)

    def _partition_lag(self, partition: Any) -> int:  # noqa: ANN401 - the library is untyped
        highwater = self._consumer.highwater(partition)
        position = self._consumer.position(partition, timeout_ms=int(_POLL_SLICE_S * 1000))
        return 0 if highwater is None or position is None else max(0, highwater - position)

    def _abandon_dead_producer(self) -> None:
        producer, self._dead_producer = self._dead_producer, None
        if producer is not None:
            abandon(producer)


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]  # the library is untyped
    """Notes which partitions are new, and which are lost; called in the client's own thread, where nothing may block.

    Losing a partition without a word (`on_partitions_lost`) is told like any revocation, by the base class.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: set[Any] = set()
        self._lost: set[Any] = set()
        self._consumer: Any = None

    def of(self, consumer: Any) -> _Assignments:  # noqa: ANN401 - the library is untyped
        self._consumer = consumer
        return self

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        partitions = set(assigned)
        # Paused before the first fetch, so that nothing is read from Kafka's own offset.
        self._consumer.pause(*partitions)
        with self._lock:
            self._new |= partitions

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        with self._lock:
            self._new -= set(revoked)
            self._lost |= set(revoked)

    def take_new(self) -> set[Any]:
        with self._lock:
            new, self._new = self._new, set()
        return new

    def take_lost(self) -> set[Any]:
        with self._lock:
            lost, self._lost = self._lost, set()
        return lost


def _record(message: Any) -> Record:  # noqa: ANN401 - the library is untyped
    # A foreign message may have neither key nor value; an empty payload is refused by the codec like other noise.
    key = (message.key or b"").decode("utf-8", "replace")
    sent_at = _sent_at(message.timestamp)
    return Record(message.topic, message.partition, message.offset, key, message.value or b"", sent_at)


def _sent_at(timestamp_ms: int | None) -> datetime | None:
    # A foreign producer may say anything, or -1 for nothing.
    if timestamp_ms is None or not 0 <= timestamp_ms < _LATEST_MS:
        return None
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
