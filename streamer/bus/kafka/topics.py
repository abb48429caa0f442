"""The topics: how many partitions, how many replicas, and how long they keep what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from streamer.bus.kafka.connection import bus_error, connection_settings, open_client
from streamer.bus.kafka.library import KafkaAdminClient, KafkaError, TopicAlreadyExistsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamer.config import KafkaConfig

_MILLISECONDS_PER_DAY = 86_400_000

_log = structlog.get_logger(__name__)


def ensure_topics(config: KafkaConfig) -> None:
    """Creates the topics that are missing; those that are there stay as they are.

    A topic of another number of partitions than configured is told and used: which partition a region falls into, and
    so the order in which it is read, depends on that number.

    Raises:
        BusError: Kafka is away, or refuses.
    """
    wanted = wanted_topics(config)
    admin = open_client(KafkaAdminClient, config, connection_settings(config))
    try:
        present = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
        _tell_other_partitions(wanted, present)
        missing = {name: settings for name, settings in wanted.items() if name not in present}
        if missing:
            admin.create_topics(missing)
    except TopicAlreadyExistsError:
        # Another process was quicker, which is as good.
        return
    except KafkaError as error:
        raise bus_error(config, "topics can't be created", error) from error
    finally:
        admin.close()


def wanted_topics(config: KafkaConfig) -> dict[str, dict[str, Any]]:
    """By name, what the broker is asked for; dead letters, few and in no order, have one partition."""
    kept = config.retention_days
    return {
        config.topic: _settings(config, config.partitions, kept),
        config.identities_topic: _settings(config, config.partitions, kept),
        config.dead_topic: _settings(config, 1, config.dead_retention_days),
    }


def _settings(config: KafkaConfig, partitions: int, kept_days: float) -> dict[str, Any]:
    return {
        "num_partitions": partitions,
        "replication_factor": config.replication,
        "configs": {"retention.ms": str(int(kept_days * _MILLISECONDS_PER_DAY))},
    }


def _tell_other_partitions(wanted: Mapping[str, Mapping[str, Any]], present: Mapping[str, int]) -> None:
    for name, settings in wanted.items():
        found, configured = present.get(name), settings["num_partitions"]
        if found is not None and found != configured:
            _log.warning("topic has another number of partitions", topic=name, found=found, configured=configured)
