"""The bus over Kafka: the outbox is forwarded into a topic, and the matcher consumes it as a member of a group.

The only file that names kafka-python. What shaped it: version 3.0.12's idempotent producer wedges for ever once a batch
that was sent passes its delivery time-out, so idempotence is off (sightings are told apart by their id downstream) and
a producer that fails to deliver is thrown away, never repaired.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from streamer.bus import BusError, Record
from streamer.bus.outbox import LOOK_AGAIN_S

with warnings.catch_warnings():
    # It reads its schemas by a call that Python 3.11 deprecates, and 3.13 takes back into favour.
    warnings.filterwarnings("ignore", message="(read|open)_text is deprecated", category=DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.consumer.subscription_state import ConsumerRebalanceListener
    from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError
    from kafka.net.compat import KafkaNetClient
    from kafka.structs import OffsetAndMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from streamer.bus import StartOffset
    from streamer.bus.outbox import Outbox, OutboxRow
    from streamer.config import KafkaConfig

#: Rows and bytes of one round: far below Kafka's usual limit of 1 MB a batch, so that a round is one batch a partition.
ROUND_ROWS = 200
ROUND_BYTES = 512 * 1024
#: A message above this can't be forwarded; the codec's own limit is a quarter of it.
MAX_FORWARDED_BYTES = 900 * 1024
FIRST_RETRY_S = 0.25
LAST_RETRY_S = 10.0

_BATCH_BYTES = 1 << 20
#: Records of a round wait for `flush`, which sends them together; no timer cuts a round in two.
_LINGER_S = 1.0
#: After a broker's return the client tries again within this time.
_RECONNECT_MAX_S = 1.0
#: A poll is cut into slices of this length, since an assignment made during one is acted upon after it.
_POLL_SLICE_S = 0.1
_CLOSE_TIMEOUT_S = 2.0
_MAX_REASON_LENGTH = 500

_log = structlog.get_logger(__name__)
# It logs a line for every attempt to reach a broker, several a second, and at DEBUG all settings with the password.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


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


class KafkaForwarder:
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
        self._outbox = outbox
        self._config = config
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-forwarder", daemon=True)
        self._producer: Any = None
        self._retry_s = FIRST_RETRY_S
        self._trouble: str | None = None
        self._sent = self._put_aside = self._failed = self._rebuilt = 0

    @property
    def counts(self) -> ForwarderCounts:
        """What was done so far; readable from any thread."""
        return ForwarderCounts(self._sent, self._put_aside, self._failed, self._rebuilt)

    @property
    def trouble(self) -> str | None:
        """Why nothing flows at the moment, in one line; None while all is well."""
        return self._trouble

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread; connecting is its business."""
        self._thread.start()

    def stop(self, *, timeout_s: float) -> bool:
        """Has the thread empty the outbox and end; it gives up at the first failure, since the outbox is safe.

        Returns:
            Whether it ended in time.
        """
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while self._one_round():
                pass
        finally:
            self._abandon_producer()

    def _one_round(self) -> bool:
        """Whether there is to be another."""
        try:
            rows = self._outbox.read(0, ROUND_ROWS)
            if rows:
                self._forward(rows)
            elif self._stopping.is_set():
                return False
            else:
                self._outbox.wait(LOOK_AGAIN_S)
        except BusError as error:
            return self._stumble(str(error))
        self._recovered()
        return True

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
        futures: list[Any] = []
        deadline = self._monotonic() + self._config.delivery_timeout_s
        failure: Exception | None = None
        try:
            if self._producer is None:
                self._producer = _connect_producer(self._config)
            for row in rows:
                futures.append(self._producer.send(self._config.topic, value=row.payload, key=row.key.encode()))
            self._producer.flush(timeout=max(0.0, deadline - self._monotonic()))
        except KafkaError as error:
            failure = error
        done = self._settle(rows, futures)
        if done < len(rows):
            failure = failure or futures[done].exception
            self._rebuilt += 1
            self._abandon_producer()
            raise _bus_error(self._config, "sightings not delivered", failure)

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

    def _stumble(self, reason: str) -> bool:
        """Says once that nothing flows, waits longer each time; False if the thread is to end."""
        self._failed += 1
        if self._trouble is None:
            _log.warning("sightings wait in the outbox", reason=reason)
        self._trouble = reason
        stopping = self._stopping.wait(self._retry_s)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        return not stopping

    def _recovered(self) -> None:
        if self._trouble is not None:
            _log.info("sightings flow again", topic=self._config.topic)
        self._trouble = None
        self._retry_s = FIRST_RETRY_S

    def _abandon_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            _abandon(producer)


class KafkaEventSender:
    """Sends events into a topic, and waits for the broker: see `streamer.bus.EventSender`.

    `send` blocks up to `delivery_timeout_s`, and up to `request_timeout_s` more while there is no connection.

    Args:
        config: Where Kafka is.
        topic: Created with the others where it is missing.
    """

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        self._config = config
        self._topic = topic
        self._producer: Any = None

    def send(self, events: Sequence[tuple[str, bytes]]) -> None:
        """See `streamer.bus.EventSender`; a producer that failed is thrown away."""
        try:
            if self._producer is None:
                self._producer = _connect_producer(self._config)
            sent = [self._producer.send(self._topic, value=payload, key=key.encode()) for key, payload in events]
            self._producer.flush(timeout=self._config.delivery_timeout_s)
            for future in sent:
                future.get(timeout=0)
        except KafkaError as error:
            self.close()
            raise _bus_error(self._config, f"topic {self._topic} takes nothing", error) from error

    def close(self) -> None:
        """See `streamer.bus.EventSender`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            _abandon(producer)


class KafkaSightingConsumer:
    """Reads the topic as a member of a group, from the offsets that the database holds.

    On assignment a partition is paused until `poll`, in the caller's thread, has sought it to the database's offset;
    Kafka's own offsets are written for people's tools and never read. `poll` blocks up to its time-out, and up to
    `request_timeout_s` more while there is no connection. A crash loses nothing: what was not stored is read again.
    Not safe for several threads.

    Args:
        config: Where Kafka is.
        start_offset: Asked at each assignment, within `poll`.
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

        Raises:
            BusError: Kafka answers, and refuses.
        """
        deadline = self._monotonic() + timeout_s
        if self._consumer is None and not self._connect():
            return []
        try:
            while not (records := self._poll_slice(deadline, limit)) and self._monotonic() < deadline:
                pass
        except KafkaError as error:
            raise _bus_error(self._config, f"topic {self._config.topic} can't be read", error) from error
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
        payload = record.payload[:ROUND_BYTES]
        try:
            if self._dead_producer is None:
                self._dead_producer = _connect_producer(self._config)
            future = self._dead_producer.send(
                self._config.dead_topic, value=payload, key=record.key.encode(), headers=headers
            )
            self._dead_producer.flush(timeout=self._config.delivery_timeout_s)
            future.get(timeout=0)
        except KafkaError as error:
            self._abandon_dead_producer()
            raise _bus_error(self._config, f"topic {self._config.dead_topic} takes nothing", error) from error

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
            consumer.close(autocommit=False, timeout_ms=int(_CLOSE_TIMEOUT_S * 1000))
        except KafkaError as error:
            # The group notices within session_timeout_s; nothing else is lost by it.
            _log.warning("left the group without a word", reason=type(error).__name__)

    def _connect(self) -> bool:
        try:
            self._consumer = _connect_consumer(self._config)
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
            _abandon(producer)


class _Assignments(ConsumerRebalanceListener):  # type: ignore[misc]  # the library is untyped
    """Notes which partitions are new; called in the client's own thread, where nothing may block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: set[Any] = set()
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

    def take_new(self) -> set[Any]:
        with self._lock:
            new, self._new = self._new, set()
        return new


def ensure_topics(config: KafkaConfig) -> None:
    """Creates the topics that are missing: sightings and identities as configured, dead letters in one partition.

    Raises:
        BusError: Kafka is away, or refuses.
    """
    wanted = {config.topic: config.partitions, config.identities_topic: config.partitions, config.dead_topic: 1}
    admin = _open_client(KafkaAdminClient, config, _connection_settings(config))
    try:
        present = set(admin.list_topics())
        missing = {
            name: {"num_partitions": partitions, "replication_factor": config.replication}
            for name, partitions in wanted.items()
            if name not in present
        }
        if missing:
            admin.create_topics(missing)
    except TopicAlreadyExistsError:
        # Another process was quicker, which is as good.
        return
    except KafkaError as error:
        raise _bus_error(config, "topics can't be created", error) from error
    finally:
        admin.close()


def _one_round_of(rows: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
    size = 0
    for index, row in enumerate(rows):
        size += len(row.payload)
        if size > ROUND_BYTES and index:
            return rows[:index]
    return rows


def _record(message: Any) -> Record:  # noqa: ANN401 - the library is untyped
    # A foreign message may have neither key nor value; an empty payload is refused by the codec like other noise.
    key = (message.key or b"").decode("utf-8", "replace")
    return Record(message.topic, message.partition, message.offset, key, message.value or b"")


def _connection_settings(config: KafkaConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bootstrap_servers": list(config.bootstrap_servers),
        "security_protocol": config.security_protocol,
        "request_timeout_ms": int(config.request_timeout_s * 1000),
        "bootstrap_timeout_ms": int(config.request_timeout_s * 1000),
        "reconnect_backoff_max_ms": int(_RECONNECT_MAX_S * 1000),
        "ssl_cafile": config.ssl_cafile,
        "sasl_mechanism": config.sasl_mechanism,
        "sasl_plain_username": config.sasl_username,
        "sasl_plain_password": config.sasl_password,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _connect_producer(config: KafkaConfig) -> Any:  # noqa: ANN401 - the library is untyped
    ensure_topics(config)
    # The library wants the delivery time-out to cover a request and the linger.
    delivery_s = max(config.delivery_timeout_s, config.request_timeout_s + _LINGER_S)
    settings = {
        "acks": "all",
        "enable_idempotence": False,
        "max_in_flight_requests_per_connection": 1,
        "batch_size": _BATCH_BYTES,
        "linger_ms": int(_LINGER_S * 1000),
        "delivery_timeout_ms": int(delivery_s * 1000),
        "max_block_ms": int(config.request_timeout_s * 1000),
        "metrics_enabled": False,
    }
    return _open_client(KafkaProducer, config, _connection_settings(config) | settings)


def _connect_consumer(config: KafkaConfig) -> Any:  # noqa: ANN401 - the library is untyped
    settings = {
        "group_id": config.group,
        "enable_auto_commit": False,
        # Also where the database's offset lies beyond what the broker still has, or ever had.
        "auto_offset_reset": "earliest",
        "session_timeout_ms": int(config.session_timeout_s * 1000),
        "heartbeat_interval_ms": int(config.session_timeout_s * 1000 / 3),
        "metrics_enabled": False,
    }
    return _open_client(KafkaConsumer, config, _connection_settings(config) | settings)


def _open_client(kind: Any, config: KafkaConfig, settings: dict[str, Any]) -> Any:  # noqa: ANN401 - the library is untyped
    """Builds a client; the library's constructors connect, and leak their sockets and threads where that fails."""
    _require_listener(config)
    opened: list[Any] = []

    def open_network(**network_settings: Any) -> Any:  # noqa: ANN401 - the library is untyped
        opened.append(KafkaNetClient(**network_settings))
        return opened[-1]

    try:
        return kind(kafka_client=open_network, **settings)
    except (KafkaError, OSError, ValueError) as error:
        for network in opened:
            network.close()
        raise _bus_error(config, "no answer, or credentials refused", error) from error


def _require_listener(config: KafkaConfig) -> None:
    """Looks before the library leaps: it leaves a socket behind for each attempt, and names no reason in the end."""
    if config.ssl_cafile is not None and not Path(config.ssl_cafile).is_file():
        raise BusError(f"kafka: ssl_cafile: no such file: {config.ssl_cafile}")
    last: Exception | None = None
    for server in config.bootstrap_servers:
        host, _, port = server.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=config.request_timeout_s):
                return
        except (OSError, ValueError) as error:
            last = error
    raise _bus_error(config, "no connection", last) from last


def _abandon(producer: Any) -> None:  # noqa: ANN401 - the library is untyped
    """Lets go of a producer without waiting for what it still holds: its own `close` would wait for a flush first."""
    producer._sender.force_close()
    try:
        producer.close(timeout=_CLOSE_TIMEOUT_S)
    except KafkaError as error:
        _log.warning("kafka producer left behind", reason=type(error).__name__)


def _bus_error(config: KafkaConfig, what: str, error: BaseException | None) -> BusError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if config.sasl_password:
        reason = reason.replace(config.sasl_password, "***")
    return BusError(f"kafka {','.join(config.bootstrap_servers)}: {what}: {reason}")
