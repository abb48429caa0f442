"""Laws of the bus over Kafka, against a real broker: at least once, in order per key, through outages and restarts."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme

from streamer.bus import BusError, Consumer
from streamer.bus.factory import open_consumer, open_forwarder, open_publisher
from streamer.bus.kafka.clients import CLOSE_TIMEOUT_S
from streamer.bus.kafka.connection import connection_settings
from streamer.bus.kafka.consumer import KafkaSightingConsumer
from streamer.bus.kafka.events import KafkaEventSender
from streamer.bus.kafka.forwarder import MAX_FORWARDED_BYTES, KafkaForwarder
from streamer.bus.kafka.topics import ensure_topics, wanted_topics
from streamer.bus.memory import OutboxConsumer, OutboxPublisher
from streamer.bus.outbox import Outbox
from streamer.config import KafkaConfig, SiteConfig
from tests.servers.kafka import Broker
from tests.servers.need import PATIENCE_S, free_port, wait_until
from tests.servers.proxy import TcpProxy

Place = tuple[str, int]
REGIONS = ("north", "south", "east")


@pytest.fixture
def absent_broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.stop()


@pytest.fixture
def broker(absent_broker: Broker) -> Broker:
    absent_broker.start()
    return absent_broker


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "box.db", max_bytes=1 << 30)
    yield box
    box.close()


def config_of(broker: Broker, **changes: Any) -> KafkaConfig:  # noqa: ANN401 - any key
    quick = {"request_timeout_s": 1.0, "delivery_timeout_s": 2.5, "session_timeout_s": 6.0, "partitions": 4}
    return KafkaConfig.model_validate({"bootstrap_servers": [broker.address], **quick, **changes})


class Ledger:
    """A database that stores what it is given, and the offsets, in one go."""

    def __init__(self) -> None:
        self.offsets: dict[Place, int] = {}
        self.stored: list[tuple[str, int]] = []

    def start_offset(self, topic: str, partition: int) -> int | None:
        return self.offsets.get((topic, partition))

    def read_until(self, consumer: Consumer, count: int, *, limit: int = 50) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.stored) < count:
            assert time.monotonic() < deadline, f"{len(self.stored)} of {count} arrived"
            records = consumer.poll(timeout_s=1.0, limit=limit)
            for record in records:
                place = (record.topic, record.partition)
                assert record.offset >= self.offsets.get(place, 0), "read again what is stored"
                self.stored.append((record.key, int(record.payload)))
                self.offsets[place] = record.offset + 1
            consumer.commit({(record.topic, record.partition): record.offset + 1 for record in records})

    def of(self, region: str) -> list[int]:
        return [number for key, number in self.stored if key == region]


def publish(outbox: Outbox, numbers: range) -> None:
    publisher = OutboxPublisher(outbox)
    for number in numbers:
        publisher.publish(REGIONS[number % 3], str(number).encode(), droppable=False)


def assert_complete_and_in_order(ledger: Ledger, count: int) -> None:
    for index, region in enumerate(REGIONS):
        assert ledger.of(region) == list(range(index, count, 3))


@pytest.fixture
def forwarders() -> Iterator[list[KafkaForwarder]]:
    started: list[KafkaForwarder] = []
    yield started
    for forwarder in started:
        assert forwarder.stop(timeout_s=30)


@pytest.mark.integration
def test_sightings_published_while_the_broker_is_away_all_arrive_in_order(
    absent_broker: Broker, outbox: Outbox, forwarders: list[KafkaForwarder]
) -> None:
    config = config_of(absent_broker)
    forwarders.append(KafkaForwarder(outbox, config))
    forwarders[0].start()
    publish(outbox, range(60))
    wait_until(lambda: forwarders[0].counts.failed > 0)
    assert outbox.depth() == 60
    assert "no connection" in str(forwarders[0].trouble)

    absent_broker.start()
    wait_until(lambda: outbox.depth() == 0)
    publish(outbox, range(60, 90))
    ledger = Ledger()
    consumer = KafkaSightingConsumer(config, start_offset=ledger.start_offset)
    ledger.read_until(consumer, 90)
    assert_complete_and_in_order(ledger, 90)
    assert consumer.lag() == 0
    consumer.close()
    assert forwarders[0].counts.sent == 90
    assert forwarders[0].trouble is None


@pytest.mark.integration
def test_a_new_consumer_goes_on_at_the_databases_offset_not_at_kafkas(
    broker: Broker, outbox: Outbox, forwarders: list[KafkaForwarder]
) -> None:
    config = config_of(broker)
    publish(outbox, range(60))
    forwarders.append(KafkaForwarder(outbox, config))
    forwarders[0].start()
    ledger = Ledger()
    first = KafkaSightingConsumer(config, start_offset=ledger.start_offset)
    ledger.read_until(first, 30, limit=5)
    # Polled, and told to Kafka, but never stored: the database alone decides what is read again.
    unstored = first.poll(timeout_s=5, limit=5)
    first.commit({(record.topic, record.partition): record.offset + 1 for record in unstored})
    first.close()

    second = KafkaSightingConsumer(config, start_offset=ledger.start_offset)
    ledger.read_until(second, 60)
    assert second.poll(timeout_s=0.5, limit=10) == []
    second.close()
    assert_complete_and_in_order(ledger, 60)


@pytest.mark.integration
def test_a_frozen_broker_costs_a_producer_and_no_sighting(
    broker: Broker, outbox: Outbox, forwarders: list[KafkaForwarder]
) -> None:
    config = config_of(broker)
    forwarders.append(KafkaForwarder(outbox, config))
    forwarders[0].start()
    publish(outbox, range(30))
    wait_until(lambda: outbox.depth() == 0)
    broker.freeze()
    publish(outbox, range(30, 60))
    wait_until(lambda: forwarders[0].counts.rebuilt > 0)
    broker.thaw()
    wait_until(lambda: outbox.depth() == 0)

    ledger = Ledger()
    consumer = KafkaSightingConsumer(config, start_offset=ledger.start_offset)
    ledger.read_until(consumer, 60)
    while set(ledger.stored) != {(REGIONS[number % 3], number) for number in range(60)}:
        ledger.read_until(consumer, len(ledger.stored) + 1)
    consumer.close()
    for region in REGIONS:
        # The round that was cut off may be there twice; each is in order where it first appears.
        first_seen = list(dict.fromkeys(ledger.of(region)))
        assert first_seen == sorted(first_seen)


@pytest.mark.integration
def test_a_rejected_message_reaches_the_dead_topic_with_its_reason(
    broker: Broker, outbox: Outbox, forwarders: list[KafkaForwarder]
) -> None:
    from kafka import KafkaConsumer

    config = config_of(broker)
    publish(outbox, range(1))
    forwarders.append(KafkaForwarder(outbox, config))
    forwarders[0].start()
    consumer = KafkaSightingConsumer(config, start_offset=Ledger().start_offset)
    record = next(record for _ in range(60) for record in consumer.poll(timeout_s=1, limit=1))
    consumer.reject(record, "vector: wanted unit norm, got nan")
    consumer.close()

    dead = KafkaConsumer(config.dead_topic, bootstrap_servers=[broker.address], auto_offset_reset="earliest")
    (messages,) = next(batch for _ in range(60) if (batch := dead.poll(timeout_ms=1000))).values()
    dead.close()
    assert [(message.key, message.value) for message in messages] == [(b"north", b"0")]
    headers = dict(messages[0].headers)
    assert headers["reason"] == b"vector: wanted unit norm, got nan"
    assert headers["source"].startswith(b"sightings/")


@pytest.mark.integration
def test_events_reach_their_topic_and_a_broker_that_went_away_is_a_new_producer(absent_broker: Broker) -> None:
    from kafka import KafkaConsumer

    config = config_of(absent_broker)
    sender = KafkaEventSender(config, config.identities_topic)
    with pytest.raises(BusError, match=r"kafka 127\.0\.0\.1:\d+: no connection"):
        sender.send([("north", b"0")])
    absent_broker.start()
    sender.send([("north", b"%d" % number) for number in range(3)])
    sender.send([("north", b"3")])
    sender.close()

    listener = KafkaConsumer(
        config.identities_topic, bootstrap_servers=[absent_broker.address], auto_offset_reset="earliest"
    )
    found: list[bytes] = []

    def have_all_come() -> bool:
        found.extend(message.value for batch in listener.poll(timeout_ms=1000).values() for message in batch)
        return len(found) == 4

    wait_until(have_all_come)
    listener.close()
    assert found == [b"0", b"1", b"2", b"3"]


@pytest.mark.integration
def test_a_message_too_big_is_put_aside_and_the_rest_flows(
    broker: Broker, outbox: Outbox, forwarders: list[KafkaForwarder]
) -> None:
    publish(outbox, range(3))
    outbox.append("north", bytes(MAX_FORWARDED_BYTES + 1), droppable=False)
    publish(outbox, range(3, 6))
    forwarders.append(KafkaForwarder(outbox, config_of(broker)))
    forwarders[0].start()
    wait_until(lambda: outbox.depth() == 0)
    assert (forwarders[0].counts.sent, forwarders[0].counts.put_aside) == (6, 1)
    assert [row.reason for row in outbox.dead()] == [f"too big for topic sightings: {MAX_FORWARDED_BYTES + 1} bytes"]


@pytest.mark.integration
def test_topics_are_created_once_as_configured(broker: Broker) -> None:
    from kafka import KafkaAdminClient

    config = config_of(broker, partitions=3)
    ensure_topics(config)
    ensure_topics(config)
    admin = KafkaAdminClient(bootstrap_servers=[broker.address])
    topics = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
    admin.close()
    assert topics == {"sightings": 3, "identities": 3, "sightings.dead": 1}


def nowhere(**changes: Any) -> KafkaConfig:  # noqa: ANN401 - any key
    keys = {"bootstrap_servers": [f"127.0.0.1:{free_port()}"], "request_timeout_s": 0.6, "delivery_timeout_s": 1.0}
    return KafkaConfig.model_validate({**keys, **changes})


def test_a_consumer_without_a_broker_waits_and_leaks_nothing() -> None:
    consumer = KafkaSightingConsumer(nowhere(), start_offset=Ledger().start_offset)
    assert list(consumer.poll(timeout_s=0.1, limit=1)) == []
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        assert list(consumer.poll(timeout_s=0.1, limit=1)) == []
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files
    assert consumer.lag() == 0
    consumer.commit({("sightings", 0): 5})
    consumer.close()


def test_no_broker_and_a_mute_one_are_told_apart_in_one_line_without_the_password() -> None:
    secret = {"sasl_mechanism": "PLAIN", "sasl_username": "edge", "sasl_password": "hunter2"}
    config = nowhere(security_protocol="SASL_PLAINTEXT", **secret)
    with pytest.raises(BusError, match=r"kafka 127\.0\.0\.1:\d+: no connection: .*refused") as away:
        ensure_topics(config)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = config.model_copy(update={"bootstrap_servers": (f"127.0.0.1:{mute.getsockname()[1]}",)})
        with pytest.raises(BusError, match=r"no answer over SASL_PLAINTEXT .*, or credentials refused") as silent:
            ensure_topics(config)
    for caught in (away, silent):
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_certificate_names_itself(tmp_path: Path) -> None:
    config = nowhere(security_protocol="SSL", ssl_cafile=str(tmp_path / "none.pem"))
    with pytest.raises(BusError, match=r"ssl_cafile: no such file: .*none\.pem"):
        ensure_topics(config)


def test_tls_and_sasl_settings_reach_the_client() -> None:
    secret = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "edge", "sasl_password": "hunter2"}
    settings = connection_settings(nowhere(security_protocol="SASL_SSL", ssl_cafile="/ca.pem", **secret))
    assert settings["security_protocol"] == "SASL_SSL"
    assert settings["ssl_cafile"] == "/ca.pem"
    assert settings["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (settings["sasl_plain_username"], settings["sasl_plain_password"]) == ("edge", "hunter2")


def test_a_certificate_of_ones_own_and_an_unchecked_name_reach_the_client() -> None:
    settings = connection_settings(nowhere(ssl_certfile="/me.pem", ssl_keyfile="/me.key", ssl_check_hostname=False))
    assert (settings["ssl_certfile"], settings["ssl_keyfile"]) == ("/me.pem", "/me.key")
    assert settings["ssl_check_hostname"] is False


def test_topics_are_asked_for_with_partitions_replicas_and_retention() -> None:
    wanted = wanted_topics(nowhere(partitions=6, replication=3, retention_days=0.5, dead_retention_days=2))
    retention = {name: settings["configs"]["retention.ms"] for name, settings in wanted.items()}
    half_a_day_ms, two_days_ms = "43200000", "172800000"
    assert retention == {"sightings": half_a_day_ms, "identities": half_a_day_ms, "sightings.dead": two_days_ms}
    assert {settings["replication_factor"] for settings in wanted.values()} == {3}
    assert [settings["num_partitions"] for settings in wanted.values()] == [6, 6, 1]


@pytest.mark.integration
def test_a_topic_of_another_number_of_partitions_is_told_and_used(broker: Broker) -> None:
    ensure_topics(config_of(broker, partitions=3))
    with structlog.testing.capture_logs() as logs:
        ensure_topics(config_of(broker, partitions=5))
    other = {"found": 3, "configured": 5, "event": "topic has another number of partitions", "log_level": "warning"}
    assert logs == [{"topic": "sightings", **other}, {"topic": "identities", **other}]


class Authority:
    """A certificate authority of the test's own, and what it has signed for the loopback interface."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.file = str(folder / f"{id(self)}.pem")
        authority.cert_pem.write_to_path(self.file)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)


@pytest.mark.integration
def test_over_tls_sightings_arrive_and_whoever_is_not_trusted_is_told_in_one_line(
    tmp_path: Path, absent_broker: Broker, outbox: Outbox
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path)
    with TcpProxy(absent_broker.address, tls=authority.server) as proxy:
        absent_broker.advertise(proxy.address)
        absent_broker.start()
        config = config_of(absent_broker, bootstrap_servers=[proxy.address], security_protocol="SSL")
        trusting = config.model_copy(update={"ssl_cafile": authority.file})
        forwarder = KafkaForwarder(outbox, trusting)
        publish(outbox, range(30))
        forwarder.start()
        ledger = Ledger()
        consumer = KafkaSightingConsumer(trusting, start_offset=ledger.start_offset)
        ledger.read_until(consumer, 30)
        consumer.close()
        assert forwarder.stop(timeout_s=30)
        assert_complete_and_in_order(ledger, 30)

        with pytest.raises(BusError, match=r"TLS refused: .*certificate verify failed") as wary:
            ensure_topics(config.model_copy(update={"ssl_cafile": stranger.file}))
        with pytest.raises(BusError, match=r"no answer over PLAINTEXT .*want another") as plain:
            ensure_topics(config.model_copy(update={"security_protocol": "PLAINTEXT"}))
        assert "\n" not in f"{wary.value}{plain.value}"


@pytest.mark.integration
def test_a_plain_broker_refuses_tls_in_one_line(broker: Broker, tmp_path: Path) -> None:
    config = config_of(broker, security_protocol="SSL", ssl_cafile=Authority(tmp_path).file)
    with pytest.raises(BusError, match=r"kafka 127\.0\.0\.1:\d+: (TLS refused|no connection): ") as caught:
        ensure_topics(config)
    assert "\n" not in str(caught.value)


@pytest.mark.integration
def test_the_end_comes_in_time_though_the_network_swallows_everything(absent_broker: Broker, outbox: Outbox) -> None:
    with TcpProxy(absent_broker.address) as proxy:
        absent_broker.advertise(proxy.address)
        absent_broker.start()
        config = config_of(absent_broker, bootstrap_servers=[proxy.address])
        forwarder = KafkaForwarder(outbox, config)
        publish(outbox, range(30))
        forwarder.start()
        wait_until(lambda: outbox.depth() == 0)
        proxy.blackhole()
        publish(outbox, range(30, 60))
        wait_until(lambda: forwarder.counts.rebuilt == 1)
        began = time.monotonic()
        limit_s = config.delivery_timeout_s + 3 * config.request_timeout_s + 2 * CLOSE_TIMEOUT_S
        assert forwarder.stop(timeout_s=limit_s), f"{time.monotonic() - began:.1f} s"
        assert outbox.depth() == 30


def site_of(tmp_path: Path, bus: object) -> SiteConfig:
    camera = {"id": "cam1", "url": "cam1.mp4"}
    return SiteConfig.model_validate(
        {"site": "s", "cameras": [camera], "database": f"sqlite:///{tmp_path}/s.db", "bus": bus}
    )


def test_the_site_file_chooses_the_bus(tmp_path: Path) -> None:
    ledger = Ledger()
    memory = site_of(tmp_path, "memory")
    assert isinstance(open_consumer(memory, ledger.start_offset), OutboxConsumer)
    assert open_forwarder(memory) is None
    kafka = site_of(tmp_path, {"bootstrap_servers": ["broker:9092"]})
    assert isinstance(open_consumer(kafka, ledger.start_offset), KafkaSightingConsumer)
    assert isinstance(open_forwarder(kafka), KafkaForwarder)
    for site in (memory, kafka):
        publisher = open_publisher(site)
        publisher.publish("main", b"1", droppable=False)
        publisher.close()
    assert Outbox(memory.outbox_path, max_bytes=1).depth() == 2
