"""Builds the bus that a site file asks for. Kafka's client is imported only where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamer.bus.memory import OutboxConsumer, OutboxPublisher
from streamer.bus.outbox import Outbox

if TYPE_CHECKING:
    from streamer.bus import Consumer, EventSender, Publisher, StartOffset
    from streamer.bus.kafka.forwarder import KafkaForwarder
    from streamer.config import SiteConfig

SECONDS_PER_DAY = 86_400.0


def open_outbox(site: SiteConfig) -> Outbox:
    """This process's view of the site's outbox; nothing is opened before its first use."""
    days = site.outbox.max_age_days
    return Outbox(
        site.outbox_path, max_bytes=site.outbox.max_bytes, max_age_s=None if days is None else days * SECONDS_PER_DAY
    )


def open_publisher(site: SiteConfig) -> Publisher:
    """One per process that publishes; it writes to the outbox, whatever the bus."""
    return OutboxPublisher(open_outbox(site))


def open_consumer(site: SiteConfig, start_offset: StartOffset) -> Consumer:
    """The matcher's end: of the outbox itself, or of Kafka.

    Args:
        site: The site.
        start_offset: What the database holds, by topic and partition.
    """
    if site.bus == "memory":
        return OutboxConsumer(open_outbox(site), start_offset=start_offset)
    from streamer.bus.kafka.consumer import KafkaSightingConsumer

    return KafkaSightingConsumer(site.bus, start_offset=start_offset)


def open_forwarder(site: SiteConfig) -> KafkaForwarder | None:
    """Carries the outbox into Kafka; one per edge host, started by the supervisor. None where the outbox is the bus."""
    if site.bus == "memory":
        return None
    from streamer.bus.kafka.forwarder import KafkaForwarder

    return KafkaForwarder(open_outbox(site), site.bus)


def open_event_sender(site: SiteConfig) -> EventSender | None:
    """Tells of decisions, in the topic for them; it connects at its first event. None where there is no broker."""
    if site.bus == "memory":
        return None
    from streamer.bus.kafka.events import KafkaEventSender

    return KafkaEventSender(site.bus, site.bus.identities_topic)
