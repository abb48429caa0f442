"""Telling others whose a tracklet is: every decision as an event, from the database into a topic.

The decisions' table is the outbox. A thread beside the matcher reads on from the last number that the broker has
acknowledged, which stands in `consumer_offsets` under the topic's name, sends, and moves that number by
compare-and-set. A crash in between, or a second matcher that does the same, sends events twice: whoever listens drops
an `event_id` that it has seen. Corrections that people make come this way too, whatever program wrote them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

import fastavro

from storage.errors import OffsetConflictError, StorageError
from storage.matcher_state import DecisionEvent, load_assignments_after
from storage.writer import Writer
from streamer.avro_schemas import UNREADABLE, parsed_schema
from streamer.bus import BusError
from streamer.bus.carrier import Carrier

if TYPE_CHECKING:
    from storage.database import Database
    from streamer.bus import EventSender

SCHEMA_VERSION = 1
#: Events of one round: some hundred bytes each.
ROUND_EVENTS = 500
#: Between two looks at the database while nothing happens.
LOOK_AGAIN_S = 0.5

_PARTITION = 0
#: The schema that wrote each version.
_SCHEMA_FILES = {SCHEMA_VERSION: "identity.avsc"}


class IdentityError(Exception):
    """An event that can't be read; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A decision on whose a tracklet is, as `identity.avsc` describes it.

    Attributes:
        event_id: The decision's number, rising. An event may come twice, with the same number.
        site: The site's name.
        region: The tracklet's region; the message's key.
        tracklet_id: The tracklet.
        camera: Its camera.
        vehicle_id: Whose it is from now on.
        previous_vehicle_id: Whose it was; None at the first decision.
        reason: Why, in a word.
        is_provisional: Whether the tracklet's end may change it.
        score: Log-odds of the link; None where nothing was linked.
        decided_at: Event time for the matcher, the clock for a person.
        decided_by: `matcher`, or the person whose word it is.
        correction_id: Shared by decisions that were changed together; None for an ordinary one.
    """

    event_id: int
    site: str
    region: str
    tracklet_id: str
    camera: str
    vehicle_id: str
    previous_vehicle_id: str | None
    reason: str
    is_provisional: bool
    score: float | None
    decided_at: datetime
    decided_by: str
    correction_id: int | None


def encode(identity: Identity) -> bytes:
    """The event as it goes on the wire."""
    record = {field.name: getattr(identity, field.name) for field in fields(identity)}
    buffer = io.BytesIO()
    buffer.write(bytes((SCHEMA_VERSION,)))
    fastavro.schemaless_writer(buffer, _schema(SCHEMA_VERSION), {"schema_version": SCHEMA_VERSION, **record})
    return buffer.getvalue()


def decode(payload: bytes) -> Identity:
    """The event in bytes from the wire.

    Raises:
        IdentityError: The bytes are no event of a version that this program knows.
    """
    version = payload[0] if payload else None
    if version not in _SCHEMA_FILES:
        raise IdentityError(f"identity: unknown version {version}, this program reads {SCHEMA_VERSION}")
    # Another version's record is resolved with ours, as `streamer.sighting_codec` does.
    reader = None if version == SCHEMA_VERSION else _schema(SCHEMA_VERSION)
    try:
        record: Any = fastavro.schemaless_reader(io.BytesIO(payload[1:]), _schema(version), reader)
        del record["schema_version"]
        return Identity(**record)
    except UNREADABLE as error:
        raise IdentityError(f"identity: not a record of version {version}: {type(error).__name__}") from error


class IdentityRelay:
    """Carries decisions from the database to whoever listens, round by round. Not safe for several threads.

    Args:
        database: Open and migrated.
        sender: Where the events go.
        site: The site's name.
        topic: Under which the database notes how far it has come.
    """

    def __init__(self, database: Database, sender: EventSender, *, site: str, topic: str) -> None:
        self._database = database
        self._sender = sender
        self._site = site
        self._topic = topic

    def round(self) -> int:
        """Sends what has been decided since the last round, `ROUND_EVENTS` at most.

        Blocks until the broker has acknowledged them. No transaction is open meanwhile: nobody waits for the broker.

        Returns:
            How many events were sent.

        Raises:
            BusError: The broker took not all of them; the next round sends them all again.
            StorageError: The database refused, or another matcher was quicker (`OffsetConflictError`).
        """
        with self._database.transaction() as session:
            expected = Writer(session).next_offset(self._topic, _PARTITION)
            found = load_assignments_after(session, (expected or 1) - 1, ROUND_EVENTS)
        if not found:
            return 0
        self._sender.send([(event.region, encode(_identity(event, self._site))) for event in found])
        with self._database.transaction() as session:
            place = found[-1].assignment_id + 1
            Writer(session).advance_offset(self._topic, _PARTITION, expected=expected, next_offset=place)
        return len(found)

    def close(self) -> None:
        """Lets go of the connection to the broker."""
        self._sender.close()


class IdentityPublisher(Carrier):
    """A thread that relays decisions beside a matcher, which never waits for it.

    Args:
        relay: What it drives, from its own thread alone.
    """

    troubles = (BusError, StorageError)

    def __init__(self, relay: IdentityRelay) -> None:
        super().__init__("identities")
        self._relay = relay

    def _round(self) -> bool:
        try:
            told = self._relay.round()
        except OffsetConflictError:
            # Another matcher's publisher has told the same; the next round goes on behind it.
            return False
        self._sent += told
        return told > 0

    def _rest(self) -> None:
        self._stopping.wait(LOOK_AGAIN_S)

    def _let_go(self) -> None:
        self._relay.close()


def _schema(version: int) -> Any:  # noqa: ANN401 - fastavro's parsed form
    return parsed_schema(_SCHEMA_FILES[version])


def _identity(event: DecisionEvent, site: str) -> Identity:
    said = event.said
    return Identity(
        event.assignment_id,
        site,
        event.region,
        said.tracklet_id,
        event.camera,
        said.vehicle_id,
        event.previous_vehicle_id,
        said.reason,
        said.is_provisional,
        said.score,
        said.decided_at,
        said.decided_by,
        event.correction_id,
    )
