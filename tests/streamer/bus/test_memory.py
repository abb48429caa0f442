"""Laws of the bus without a broker: at least once, in order, from the database's offset."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.bus import BusError, Consumer, Publisher
from streamer.bus.memory import OutboxConsumer, OutboxPublisher
from streamer.bus.outbox import Outbox

TOPIC = "sightings"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "box.db", max_bytes=1 << 30)
    yield box
    box.close()


def consumer_from(outbox: Outbox, offset: int | None) -> Consumer:
    return OutboxConsumer(outbox, start_offset=lambda _topic, _partition: offset)


def publish(outbox: Outbox, numbers: range) -> None:
    publisher: Publisher = OutboxPublisher(outbox)
    for number in numbers:
        publisher.publish("main", str(number).encode(), droppable=False)


def read_all(consumer: Consumer) -> list[int]:
    numbers: list[int] = []
    while records := consumer.poll(timeout_s=0, limit=7):
        numbers += [int(record.payload) for record in records]
    return numbers


def test_messages_arrive_in_order_with_rising_offsets(outbox: Outbox) -> None:
    publish(outbox, range(20))
    records = consumer_from(outbox, None).poll(timeout_s=1, limit=100)
    assert [int(record.payload) for record in records] == list(range(20))
    offsets = [record.offset for record in records]
    assert offsets == sorted(set(offsets))
    assert {(record.topic, record.partition, record.key) for record in records} == {(TOPIC, 0, "main")}


def test_a_second_consumer_reads_from_the_databases_offset(outbox: Outbox) -> None:
    publish(outbox, range(20))
    first = consumer_from(outbox, None)
    stored = first.poll(timeout_s=1, limit=12)[-1].offset + 1
    # The first dies here: the database has the offset, the outbox was never told.
    assert read_all(consumer_from(outbox, stored)) == list(range(12, 20))


def test_what_was_polled_but_not_stored_is_read_again(outbox: Outbox) -> None:
    publish(outbox, range(20))
    read_all(consumer_from(outbox, None))
    assert read_all(consumer_from(outbox, None)) == list(range(20))


def test_committed_messages_are_deleted_in_batches_and_the_rest_at_the_end(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.bus.memory.DELETE_EVERY", 20)
    publish(outbox, range(40))
    consumer = consumer_from(outbox, None)

    def store(count: int) -> int:
        offset = consumer.poll(timeout_s=1, limit=count)[-1].offset + 1
        consumer.commit({(TOPIC, 0): offset})
        return offset

    store(10)
    assert outbox.depth() == 40
    store(15)
    assert outbox.depth() == 15
    offset = store(5)
    assert outbox.depth() == 15
    consumer.close()
    assert outbox.depth() == 10
    assert read_all(consumer_from(outbox, offset)) == list(range(30, 40))


def test_nothing_uncommitted_is_deleted(outbox: Outbox) -> None:
    publish(outbox, range(5))
    consumer = consumer_from(outbox, None)
    read_all(consumer)
    consumer.commit({("other", 0): 10**18, (TOPIC, 1): 10**18})
    consumer.close()
    assert outbox.depth() == 5


def test_lag_counts_what_was_not_polled(outbox: Outbox) -> None:
    publish(outbox, range(20))
    consumer = consumer_from(outbox, None)
    assert consumer.lag() == 20
    consumer.poll(timeout_s=1, limit=8)
    assert consumer.lag() == 12
    read_all(consumer)
    assert consumer.lag() == 0


def test_an_offset_ahead_of_a_young_outbox_hides_nothing(tmp_path: Path) -> None:
    young = Outbox(tmp_path / "young.db", max_bytes=1 << 30, clock=lambda: 0.0)
    publish(young, range(5))
    assert read_all(consumer_from(young, 10**15)) == list(range(5))
    young.close()


def test_poll_wakes_when_another_thread_publishes(outbox: Outbox) -> None:
    consumer = consumer_from(outbox, None)
    assert consumer.poll(timeout_s=0, limit=1) == []
    publisher = threading.Thread(target=publish, args=(outbox, range(1)))
    publisher.start()
    assert len(consumer.poll(timeout_s=30, limit=10)) == 1
    publisher.join()


def test_a_rejected_message_is_kept_once_with_the_reason(outbox: Outbox) -> None:
    publish(outbox, range(2))
    consumer = consumer_from(outbox, None)
    records = consumer.poll(timeout_s=1, limit=2)
    consumer.reject(records[0], "first look")
    consumer.reject(records[0], "second look")
    consumer.reject(records[1], "unreadable")
    dead = [(row.id, row.payload, row.reason) for row in outbox.dead()]
    assert dead == [(records[1].offset, b"1", "unreadable"), (records[0].offset, b"0", "second look")]


def test_a_broken_outbox_raises_bus_errors(tmp_path: Path) -> None:
    (tmp_path / "box.db").write_bytes(b"garbage, " * 1000)
    with pytest.raises(BusError):
        consumer_from(Outbox(tmp_path / "box.db", max_bytes=1 << 20), None).poll(timeout_s=0, limit=1)
