"""What a consumer leaves behind where a poll fails, with a library that fails to order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streamer.bus import BusError
from streamer.bus.kafka import consumer as consumer_module
from streamer.bus.kafka.consumer import KafkaSightingConsumer
from streamer.bus.kafka.library import KafkaError, TopicPartition
from streamer.config import KafkaConfig

CONFIG = KafkaConfig(bootstrap_servers=("localhost:9",), topic="sightings")


class FailingLibrary:
    """The library's consumer of one partition that holds the numbers 0-9; fails to order."""

    place = TopicPartition("sightings", 0)

    def __init__(self) -> None:
        self.position = 0
        self.is_paused = False
        self.failure: Exception | None = None
        self._listener: Any = None

    def subscribe(self, topics: list[str], listener: object) -> None:
        self._listener = listener
        assert topics == ["sightings"]

    def assignment(self) -> set[TopicPartition]:
        return set() if self._listener is None else {self.place}

    def deal(self) -> None:
        self._listener.on_partitions_revoked({self.place})
        self._listener.on_partitions_assigned({self.place})

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[SimpleNamespace]]:
        assert timeout_ms >= 0
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        if self.is_paused:
            return {}
        found = range(self.position, 10)[:max_records]
        self.position += len(found)
        return {self.place: [message_of(self.place, number) for number in found]}

    def pause(self, *_partitions: TopicPartition) -> None:
        self.is_paused = True

    def resume(self, _partition: TopicPartition) -> None:
        self.is_paused = False

    def seek(self, _partition: TopicPartition, offset: int) -> None:
        self.position = offset


def message_of(place: TopicPartition, number: int) -> SimpleNamespace:
    value = str(number).encode()
    return SimpleNamespace(
        topic=place.topic, partition=place.partition, offset=number, key=b"north", value=value, timestamp=-1
    )


class StoreAwayError(Exception):
    """The database is away."""


@pytest.mark.parametrize("failing", ["the broker, with a partition just dealt", "the database, asked for its offset"])
def test_a_poll_that_fails_leaves_no_partition_paused_and_no_message_out(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, stored, is_away = FailingLibrary(), 3, False

    def start_offset(_topic: str, _partition: int) -> int:
        if is_away:
            raise StoreAwayError
        return stored

    monkeypatch.setattr(consumer_module, "connect_consumer", lambda _config: library)
    consumer = KafkaSightingConsumer(CONFIG, start_offset=start_offset)
    assert consumer.poll(timeout_s=0, limit=0) == []
    library.position = 5
    library.deal()
    if failing.startswith("the broker"):
        library.failure = KafkaError("the coordinator has gone")
        with pytest.raises(BusError, match="the coordinator has gone"):
            consumer.poll(timeout_s=0, limit=2)
    else:
        is_away = True
        with pytest.raises(StoreAwayError):
            consumer.poll(timeout_s=0, limit=2)
        is_away = False

    found: list[int] = []
    for _ in range(10):
        found += [int(record.payload) for record in consumer.poll(timeout_s=0, limit=2)]
    assert found == list(range(3, 10))


def test_messages_of_a_poll_that_fails_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FailingLibrary()
    monkeypatch.setattr(consumer_module, "connect_consumer", lambda _config: library)
    consumer = KafkaSightingConsumer(CONFIG, start_offset=lambda *_place: 3)
    consumer.poll(timeout_s=0, limit=0)
    # Fetched, and lost with the failure.
    library.position, library.failure = 8, KafkaError("no answer")
    with pytest.raises(BusError):
        consumer.poll(timeout_s=0, limit=2)

    consumer.poll(timeout_s=0, limit=2)
    assert [record.offset for record in consumer.poll(timeout_s=0, limit=10)] == list(range(3, 10))
