"""How clients are opened and let go of, and the topics that they need."""

from __future__ import annotations

import logging
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from streamer.bus import BusError

with warnings.catch_warnings():
    # It reads its schemas by a call that Python 3.11 deprecates, and 3.13 takes back into favour.
    warnings.filterwarnings("ignore", message="(read|open)_text is deprecated", category=DeprecationWarning)
    from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
    from kafka.errors import KafkaError, TopicAlreadyExistsError
    from kafka.net.compat import KafkaNetClient

if TYPE_CHECKING:
    from streamer.config import KafkaConfig

_BATCH_BYTES = 1 << 20
#: Records of a round wait for `flush`, which sends them together; no timer cuts a round in two.
_LINGER_S = 1.0
#: After a broker's return the client tries again within this time.
_RECONNECT_MAX_S = 1.0
CLOSE_TIMEOUT_S = 2.0

_log = structlog.get_logger(__name__)
# It logs a line for every attempt to reach a broker, several a second, and at DEBUG all settings with the password.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


def ensure_topics(config: KafkaConfig) -> None:
    """Creates the topics that are missing: sightings and identities as configured, dead letters in one partition.

    Raises:
        BusError: Kafka is away, or refuses.
    """
    wanted = {config.topic: config.partitions, config.identities_topic: config.partitions, config.dead_topic: 1}
    admin = _open_client(KafkaAdminClient, config, connection_settings(config))
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
        raise bus_error(config, "topics can't be created", error) from error
    finally:
        admin.close()


def connection_settings(config: KafkaConfig) -> dict[str, Any]:
    """What every client is told: where the brokers are, how to prove who we are, and how long to wait."""
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
    return _open_client(KafkaProducer, config, connection_settings(config) | settings)


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
        "metrics_enabled": False,
    }
    return _open_client(KafkaConsumer, config, connection_settings(config) | settings)


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
        raise bus_error(config, "no answer, or credentials refused", error) from error


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
    raise bus_error(config, "no connection", last) from last


def abandon(producer: Any) -> None:  # noqa: ANN401 - the library is untyped
    """Lets go of a producer without waiting for what it still holds: its own `close` would wait for a flush first."""
    producer._sender.force_close()
    try:
        producer.close(timeout=CLOSE_TIMEOUT_S)
    except KafkaError as error:
        _log.warning("kafka producer left behind", reason=type(error).__name__)


def bus_error(config: KafkaConfig, what: str, error: BaseException | None) -> BusError:
    """The library's error in one line: which cluster, what could not be done, and why; without the password."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if config.sasl_password:
        reason = reason.replace(config.sasl_password, "***")
    return BusError(f"kafka {','.join(config.bootstrap_servers)}: {what}: {reason}")
