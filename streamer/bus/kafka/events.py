"""From the database into the topic of those who listen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamer.bus.kafka.clients import abandon, connect_producer
from streamer.bus.kafka.connection import bus_error
from streamer.bus.kafka.library import KafkaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.config import KafkaConfig


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
                self._producer = connect_producer(self._config)
            sent = [self._producer.send(self._topic, value=payload, key=key.encode()) for key, payload in events]
            self._producer.flush(timeout=self._config.delivery_timeout_s)
            for future in sent:
                future.get(timeout=0)
        except KafkaError as error:
            self.close()
            raise bus_error(self._config, f"topic {self._topic} takes nothing", error) from error

    def close(self) -> None:
        """See `streamer.bus.EventSender`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            abandon(producer)
