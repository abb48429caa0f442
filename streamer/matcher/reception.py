"""What the matcher lets in from the bus: messages that can be read, and that fit this site; the rest is put aside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from streamer.bus import BusError
from streamer.sighting_codec import decode
from streamer.sightings import Heartbeat, Message, SightingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.writer import Writer
    from streamer.bus import Consumer, Record
    from streamer.config import SiteConfig

#: How far a message's times may lie ahead of the moment that the bus took it: no zone mistaken for another, no slow
#: clock goes beyond. One heartbeat from the next century would make its camera the foremost for good, and every other
#: one silent. The moment travels with the message, so that a replay decides the same; no clock is read. Of an outbox
#: it is not known: there the camera worker, on the same machine, has judged the camera's clock (`max_clock_skew_s`).
MAX_AHEAD = timedelta(days=1)

#: How long a bus that took no dead letter is told of none: each waits for the broker inside the matcher's transaction,
#: and a batch of them for longer than a worker may stand still (`child_process.HUNG_S`), over and over.
TELL_AGAIN = timedelta(minutes=5)

_log = structlog.get_logger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


class Reception:
    """Reads messages, and puts aside what can't be used. Not thread-safe.

    Args:
        site: Names the cameras, each with its region. Any other camera's word is refused: a camera goes into the
            matcher's site file before it goes into an edge's.
        consumer: Where messages come from; told of those put aside.
        clock: Dates what is put aside, no decision; and tells when the bus may be told again.
    """

    def __init__(self, site: SiteConfig, consumer: Consumer, *, clock: Callable[[], datetime] = _now) -> None:
        self._site = site.site
        self._regions = {camera.id: site.region_of(camera) for camera in site.cameras}
        self._consumer = consumer
        self._clock = clock
        self._refused_at: datetime | None = None

    def read(self, record: Record, writer: Writer) -> Message | None:
        """The message in a record; None where it can't be used.

        Then it stands in the database, once, as part of the caller's transaction, with the reason. The bus is told for
        those who listen there, as well as may be: a topic for dead letters that takes none must not stop the living,
        and is left alone for `TELL_AGAIN`. Blocks as long as `Consumer.reject` does.
        """
        try:
            message = decode(record.payload)
            self._check(message, record)
        except SightingError as error:
            self._put_aside(record, str(error), writer)
            return None
        return message

    def _check(self, message: Message, record: Record) -> None:
        if message.site != self._site:
            raise SightingError(f"site: wanted {self._site}, got {message.site}")
        region = self._regions.get(message.camera)
        if region is None:
            raise SightingError(f"camera: the site file names no {message.camera}")
        if message.region != region:
            raise SightingError(f"region: {message.camera} stands in {region}, got {message.region}")
        if record.sent_at is not None and _latest(message) > record.sent_at + MAX_AHEAD:
            ahead_days = (_latest(message) - record.sent_at) / timedelta(days=1)
            raise SightingError(f"time: {_latest(message)} is {ahead_days:.1f} days after the message was sent")

    def _put_aside(self, record: Record, reason: str, writer: Writer) -> None:
        _log.warning("message rejected", topic=record.topic, offset=record.offset, reason=reason)
        now = self._clock()
        writer.store_dead_letter(record.topic, record.partition, record.offset, record.payload, reason, now)
        if self._refused_at is not None and now - self._refused_at < TELL_AGAIN:
            return
        try:
            self._consumer.reject(record, reason)
            self._refused_at = None
        except BusError as error:
            # Asked again, since waiting has taken its time.
            self._refused_at = self._clock()
            _log.warning("dead letter not told", topic=record.topic, offset=record.offset, reason=str(error))


def _latest(message: Message) -> datetime:
    return message.watermark if isinstance(message, Heartbeat) else max(message.started_at, message.occurred_at)
