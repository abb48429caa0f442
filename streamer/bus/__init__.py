"""How messages travel from the edge to the matcher: the contracts. `memory` and `kafka` implement them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

#: Tells where a partition is to be read from: the database's offset, else None (the oldest message there is).
StartOffset = Callable[[str, int], int | None]


class BusError(Exception):
    """The bus can't be used; the text is one line that names what and where, without a password."""


@dataclass(frozen=True, slots=True)
class Record:
    """One message as read from the bus.

    Attributes:
        topic: The topic it was read from.
        partition: Order holds within one.
        offset: Its place in the partition; the next one's is higher, not always by one.
        key: The region.
        payload: What `streamer.sighting_codec.decode` reads.
        sent_at: When the broker was given it, aware UTC; None where that is not told.
    """

    topic: str
    partition: int
    offset: int
    key: str
    payload: bytes
    sent_at: datetime | None = None


class Publisher(Protocol):
    """Takes messages from the edge. One per process; threads of that process may share it."""

    def publish(self, key: str, payload: bytes, *, droppable: bool) -> None:
        """Keeps the message durably before it returns; it does not wait for a broker.

        Args:
            key: The region.
            payload: An encoded message.
            droppable: Whether this one goes first when the outbox is full (an `update` or a heartbeat).

        Raises:
            BusError: It could not be kept (the disk is full, say); the caller counts it as lost.
        """
        ...

    def close(self) -> None:
        """Lets go of files. What was published is safe."""
        ...


class EventSender(Protocol):
    """Tells whoever listens. Not safe for several threads."""

    def send(self, events: Sequence[tuple[str, bytes]]) -> None:
        """Sends the events, each with its key, in order, and returns when all of them have been acknowledged.

        Raises:
            BusError: Not all were acknowledged in time; some may have been. Send all of them again.
        """
        ...

    def close(self) -> None:
        """Lets go of connections, without waiting."""
        ...


class Consumer(Protocol):
    """Gives messages to the matcher, in order per partition, from the offset that the database holds."""

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        """Up to `limit` records; waits up to `timeout_s` for the first, and returns none after that.

        A partition that was dealt anew starts again at the database's offset: store what was polled before polling on.

        Raises:
            BusError: The bus can't be read. A broker that is merely away gives no records instead.
        """
        ...

    def commit(self, next_offsets: dict[tuple[str, int], int]) -> None:
        """Says that everything below these offsets, by (topic, partition), stands in the database."""
        ...

    def reject(self, record: Record, reason: str) -> None:
        """Puts a message that can't be read aside, with the reason, where a person finds it."""
        ...

    def take_lost(self) -> set[tuple[str, int]]:
        """The partitions, as (topic, partition), that were taken away since the last call; those that are back as well.

        Whoever held one meanwhile has written: nothing that was known of it counts any more. Does not block.
        """
        ...

    def rewind(self) -> None:
        """Has the next poll read every held partition from the database's offset, whatever was polled. Does not block.

        For who has thrown away what was polled: the database refused it, or another consumer was quicker.
        """
        ...

    def lag(self) -> int:
        """How many messages wait, of the partitions that this consumer holds."""
        ...

    def close(self) -> None:
        """Leaves the group, if any, and lets go of connections."""
        ...
