"""The bus without a broker: the outbox on the edge's own disk is the queue that the matcher reads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streamer.bus import Record
from streamer.bus.outbox import LOOK_AGAIN_S, OutboxRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamer.bus import StartOffset
    from streamer.bus.outbox import Outbox

#: Committed messages are deleted this many at a time: each deletion waits for the disk as an append does.
DELETE_EVERY = 256

_PARTITION = 0


class OutboxPublisher:
    """Publishes into the outbox; with `bus: kafka` a forwarder carries it on from there.

    `publish` waits for the disk (milliseconds), never for a reader or a broker. A full outbox takes the message and
    drops as `Outbox` says. What `publish` returned for survives any crash.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def publish(self, key: str, payload: bytes, *, droppable: bool) -> None:
        """See `streamer.bus.Publisher`."""
        self._outbox.append(key, payload, droppable=droppable)

    def close(self) -> None:
        """Lets go of the file."""
        self._outbox.close()


class OutboxConsumer:
    """Reads the outbox as partition 0 of a topic, a message's offset being its id.

    `poll` blocks up to its time-out. A crash loses nothing: what was not committed is read again, from the offset that
    the database holds. Committed messages are deleted, so that a database set back or emptied later starts from the
    oldest message that is left, not from the first that ever was.

    Args:
        outbox: Read by this consumer alone.
        start_offset: Asked at the first poll, and at the first after `rewind`.
        topic: The name that offsets are kept under.
        monotonic: Seconds, for the time-out.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        start_offset: StartOffset,
        topic: str = "sightings",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._start_offset = start_offset
        self._topic = topic
        self._monotonic = monotonic
        self._next: int | None = None
        self._committed_through = 0

    def poll(self, *, timeout_s: float, limit: int) -> Sequence[Record]:
        """See `streamer.bus.Consumer`.

        Raises:
            BusError: The outbox can't be read.
        """
        deadline = self._monotonic() + timeout_s
        position = self._position()
        rows = self._outbox.read(position - 1, limit)
        while not rows and (left := deadline - self._monotonic()) > 0:
            self._outbox.wait(min(left, LOOK_AGAIN_S))
            rows = self._outbox.read(position - 1, limit)
        if rows:
            self._next = rows[-1].id + 1
        return [Record(self._topic, _PARTITION, row.id, row.key, row.payload) for row in rows]

    def commit(self, next_offsets: dict[tuple[str, int], int]) -> None:
        """Deletes what stands in the database, `DELETE_EVERY` at a time.

        Raises:
            BusError: The outbox can't be written. Nothing is lost: the database's offset is what counts.
        """
        next_offset = next_offsets.get((self._topic, _PARTITION))
        if next_offset is None or next_offset - 1 <= self._committed_through:
            return
        self._committed_through = next_offset - 1
        if self._outbox.count_below(next_offset) >= DELETE_EVERY:
            self._outbox.delete_through(self._committed_through)

    def reject(self, record: Record, reason: str) -> None:
        """Copies the message to the outbox's dead ones; the same one twice, after a crash, is kept once."""
        self._outbox.put_aside(OutboxRow(record.offset, record.key, record.payload), reason)

    def take_lost(self) -> set[tuple[str, int]]:
        """None: there is nobody else to read an outbox."""
        return set()

    def rewind(self) -> None:
        """See `streamer.bus.Consumer`."""
        self._next = None

    def lag(self) -> int:
        """How many messages were not polled yet."""
        return self._outbox.depth() - self._outbox.count_below(self._position())

    def close(self) -> None:
        """Deletes what is left of the committed messages and lets go of the file."""
        try:
            if self._committed_through:
                self._outbox.delete_through(self._committed_through)
        finally:
            self._outbox.close()

    def _position(self) -> int:
        if self._next is None:
            start = self._start_offset(self._topic, _PARTITION)
            if start is not None:
                self._outbox.raise_ids(start)
            self._next = start or 0
        return self._next
