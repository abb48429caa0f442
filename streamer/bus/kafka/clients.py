"""How producers and consumers are opened, and let go of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from streamer.bus.kafka.connection import connection_settings, open_client
from streamer.bus.kafka.library import KafkaConsumer, KafkaError, KafkaProducer
from streamer.bus.kafka.topics import ensure_topics

if TYPE_CHECKING:
    from streamer.config import KafkaConfig

_BATCH_BYTES = 1 << 20
#: Records of a round wait for `flush`, which sends them together; no timer cuts a round in two.
_LINGER_S = 1.0
#: How long a client's threads are waited for, twice at most, when it is let go of.
CLOSE_TIMEOUT_S = 2.0
#: A member that does not poll for so long leaves the group, and whoever joins waits so long for the others. The library
#: waits 5 s more for the group's answer, which a broker that vanished never gives: its own 300 s are an outage.
MAX_POLL_INTERVAL_S = 60.0

_log = structlog.get_logger(__name__)


def connect_producer(config: KafkaConfig) -> Any:  # noqa: ANN401 - the library is untyped
    """A producer that keeps order and waits for every replica; the topics are there when it returns.

    Raises:
        BusError: Kafka is away, or refuses.
    """
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
    return open_client(KafkaProducer, config, connection_settings(config) | settings)


def connect_consumer(config: KafkaConfig) -> Any:  # noqa: ANN401 - the library is untyped
    """A member of the group, not yet subscribed.

    Raises:
        BusError: Kafka is away, or refuses.
    """
    settings = {
        "group_id": config.group,
        "enable_auto_commit": False,
        # Also where the database's offset lies beyond what the broker still has, or ever had.
        "auto_offset_reset": "earliest",
        "session_timeout_ms": int(config.session_timeout_s * 1000),
        "heartbeat_interval_ms": int(config.session_timeout_s * 1000 / 3),
        "max_poll_interval_ms": int(max(MAX_POLL_INTERVAL_S, config.session_timeout_s) * 1000),
        "metrics_enabled": False,
    }
    return open_client(KafkaConsumer, config, connection_settings(config) | settings)


def abandon(producer: Any) -> None:  # noqa: ANN401 - the library is untyped
    """Lets go of a producer without waiting for what it still holds: its own `close` would wait for a flush first.

    Blocks up to twice `CLOSE_TIMEOUT_S`, whatever the network does: the connection is closed by the library's own
    thread, which is a daemon and asks the broker nothing any more.
    """
    producer._sender.force_close()
    try:
        producer.close(timeout=CLOSE_TIMEOUT_S)
    except KafkaError as error:
        _log.warning("kafka producer left behind", reason=type(error).__name__)
