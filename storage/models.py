"""The tables.

What each index is for stands beside it. No table points to `cameras`: what was seen outlives the camera's place in the
site file.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.records import MATCHER

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers rows by itself only where the key's type is spelled INTEGER.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")

#: A tracklet that lasted longer than ten minutes, in each database's words, which a query must repeat to the letter.
LONG_S = 600
LONG_SQLITE = f"julianday(ended_at) - julianday(started_at) > {LONG_S} / 86400.0"
LONG_POSTGRESQL = f"ended_at - started_at > interval '{LONG_S} seconds'"

# Of a decision: the matcher has linked it to something, and nobody has said anything to that.
_IS_OPEN_LINK = "decided_by = 'matcher' AND score IS NOT NULL"
# Of a decision: somebody has changed it together with others, or it is a person's.
_IS_CORRECTED = "(correction_id IS NOT NULL OR decided_by <> 'matcher')"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime. SQLite keeps no zone: there it is stored as UTC, and comes back aware all the same."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database.

        Raises:
            ValueError: The datetime has no zone.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"wanted an aware datetime, got {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables, with names that both databases and the migrations agree on."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        dict[str, float]: JSON,
        bytes: LargeBinary,
    }


class CameraRow(Base):
    """A camera of the site."""

    __tablename__ = "cameras"

    camera: Mapped[str] = mapped_column(String(64), primary_key=True)
    region: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(32))
    x: Mapped[float | None] = mapped_column(comment="pixels of the site plan; NULL: not placed on it")
    y: Mapped[float | None] = mapped_column(comment="pixels of the site plan; NULL: not placed on it")
    lat: Mapped[float | None] = mapped_column(comment="degrees; NULL: not placed on the earth")
    lon: Mapped[float | None] = mapped_column(comment="degrees; NULL: not placed on the earth")
    started_at: Mapped[datetime | None] = mapped_column(comment="first frame ever read; NULL: none yet")


class CameraStatusRow(Base):
    """How a camera is doing: one row each, written over every few seconds."""

    __tablename__ = "camera_status"

    camera: Mapped[str] = mapped_column(String(64), primary_key=True)
    updated_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(32))
    modality: Mapped[str] = mapped_column(String(32))
    fps: Mapped[float]
    decoded: Mapped[int] = mapped_column(BigInteger)
    detected: Mapped[int] = mapped_column(BigInteger)
    gated: Mapped[int] = mapped_column(BigInteger)
    dropped: Mapped[int] = mapped_column(BigInteger)
    reconnects: Mapped[int] = mapped_column(BigInteger)
    decode_errors: Mapped[int] = mapped_column(BigInteger)
    detections: Mapped[int] = mapped_column(BigInteger)
    tracklets: Mapped[int] = mapped_column(BigInteger)
    stalled_s: Mapped[float] = mapped_column(server_default="0")
    skew_s: Mapped[float] = mapped_column(server_default="0", comment="decoded after captured, of the last frame")
    packets_lost: Mapped[int] = mapped_column(BigInteger, server_default="0")
    health: Mapped[str] = mapped_column(
        String(16), server_default="", comment="ok, frozen, covered, defocused or moved; empty: not looked at yet"
    )
    last_frame_at: Mapped[datetime | None] = mapped_column(comment="NULL: no frame yet")
    message: Mapped[str] = mapped_column(Text)


class StageStatusRow(Base):
    """Counters of a stage that serves all cameras."""

    __tablename__ = "stage_status"

    stage: Mapped[str] = mapped_column(String(64), primary_key=True)
    updated_at: Mapped[datetime]
    counters: Mapped[dict[str, float]]


class CameraWatermarkRow(Base):
    """How far each session of each camera has come in event time."""

    __tablename__ = "camera_watermarks"

    camera: Mapped[str] = mapped_column(String(64), primary_key=True)
    session: Mapped[str] = mapped_column(String(64), primary_key=True)
    watermark: Mapped[datetime]
    is_finished: Mapped[bool]


class TrackletRow(Base):
    """One vehicle in one camera, as its newest sighting tells it."""

    __tablename__ = "tracklets"
    __table_args__ = (
        # What a matcher loads when it starts: the region's tracklets of the last while.
        Index(None, "region", "ended_at"),
        # What it loads beside: those that it has yet to decide, and each camera's last ones, to learn from.
        Index(
            "ix_tracklets_undecided",
            "region",
            sqlite_where=text("NOT is_decided"),
            postgresql_where=text("NOT is_decided"),
        ),
        Index(None, "region", "camera", "ended_at"),
        # Vehicles in a time window, at one camera or at any.
        Index(None, "camera", "started_at"),
        Index(None, "started_at"),
        # The few that were in view for long: a time window's others began shortly before it.
        Index(
            "ix_tracklets_long",
            "ended_at",
            "started_at",
            sqlite_where=text(LONG_SQLITE),
            postgresql_where=text(LONG_POSTGRESQL),
        ),
        # What has become too old to be kept, and of that what still has its picture: found without a look at the rest.
        Index(None, "ended_at"),
        Index(
            "ix_tracklets_pictured",
            "ended_at",
            sqlite_where=text("context_image IS NOT NULL"),
            postgresql_where=text("context_image IS NOT NULL"),
        ),
    )

    tracklet_id: Mapped[str] = mapped_column(String(192), primary_key=True)
    region: Mapped[str] = mapped_column(String(64))
    camera: Mapped[str] = mapped_column(String(64))
    session: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(BigInteger)
    vehicle_class: Mapped[str] = mapped_column(String(32))
    class_votes: Mapped[dict[str, float]]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime] = mapped_column(comment="last frame seen so far")
    end_reason: Mapped[str | None] = mapped_column(String(32), comment="NULL: it goes on")
    context_image: Mapped[str | None] = mapped_column(Text, comment="below crops_dir; NULL: none was taken")
    last_sequence: Mapped[int] = mapped_column(comment="of the newest sighting; -1: closed before any came")
    is_decided: Mapped[bool] = mapped_column(
        server_default=false(), comment="a decision that was not provisional was made"
    )


class SightingRow(Base):
    """One message about a tracklet, with the path since the one before. What makes a second delivery recognisable."""

    __tablename__ = "sightings"
    __table_args__ = (UniqueConstraint("tracklet_id", "sequence"),)

    sighting_id: Mapped[str] = mapped_column(String(208), primary_key=True)
    tracklet_id: Mapped[str] = mapped_column(ForeignKey("tracklets.tracklet_id"))
    sequence: Mapped[int]
    path: Mapped[bytes | None] = mapped_column(comment="see storage/blobs.py; NULL: not seen since the one before")


class EmbeddingRow(Base):
    """What the embedder made of one crop."""

    __tablename__ = "embeddings"
    __table_args__ = (
        UniqueConstraint("sighting_id", "modality"),
        # The best embedding of a tracklet in each band.
        Index(None, "tracklet_id", "modality", "quality"),
        # As for tracklets: the too old, and of those the ones with a picture.
        Index(None, "captured_at"),
        Index(
            "ix_embeddings_pictured",
            "captured_at",
            sqlite_where=text("crop_image IS NOT NULL"),
            postgresql_where=text("crop_image IS NOT NULL"),
        ),
    )

    embedding_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    sighting_id: Mapped[str] = mapped_column(ForeignKey("sightings.sighting_id"))
    tracklet_id: Mapped[str] = mapped_column(ForeignKey("tracklets.tracklet_id"))
    modality: Mapped[str] = mapped_column(String(32))
    model_id: Mapped[str] = mapped_column(String(128))
    vector: Mapped[bytes] = mapped_column(comment="little-endian float16")
    quality: Mapped[float]
    captured_at: Mapped[datetime]
    x1: Mapped[float]
    y1: Mapped[float]
    x2: Mapped[float]
    y2: Mapped[float]
    crop_image: Mapped[str | None] = mapped_column(Text, comment="below crops_dir; NULL: the crop was not kept")
    tokens: Mapped[bytes | None] = mapped_column(comment="NULL: the embedder made none")


class VehicleRow(Base):
    """A vehicle: the sum of the tracklets that are its own now."""

    __tablename__ = "vehicles"
    __table_args__ = (
        Index(None, "first_seen"),
        Index(None, "last_seen"),
        # By the beginning of its id, as people ask: the key's own index follows the server's language.
        Index("ix_vehicles_beginning", "vehicle_id", postgresql_ops={"vehicle_id": "varchar_pattern_ops"}),
    )

    vehicle_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    vehicle_class: Mapped[str] = mapped_column(String(32))
    first_seen: Mapped[datetime | None] = mapped_column(comment="NULL: no tracklet is its own any more")
    last_seen: Mapped[datetime | None] = mapped_column(comment="NULL: no tracklet is its own any more")


class CorrectionRow(Base):
    """Decisions that were changed together afterwards, by the matcher's second look or by a person."""

    __tablename__ = "corrections"
    __table_args__ = (UniqueConstraint("undoes"),)

    correction_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), comment="merge, split, move, confirm or undo")
    made_by: Mapped[str] = mapped_column(String(64), comment="matcher, or a person's name")
    made_at: Mapped[datetime] = mapped_column(comment="event time for the matcher, the clock for a person")
    note: Mapped[str] = mapped_column(Text)
    undoes: Mapped[int | None] = mapped_column(
        ForeignKey("corrections.correction_id"), comment="NULL: it undoes no other"
    )


class AssignmentRow(Base):
    """One decision. Rows are added, never changed or removed; `is_current` alone moves on to the newest."""

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("supersedes"),
        # At most one current row per tracklet, by law of the database; and the vehicle of a tracklet.
        Index(
            "uq_assignments_current",
            "tracklet_id",
            unique=True,
            sqlite_where=text("is_current = 1"),
            postgresql_where=text("is_current"),
        ),
        # The tracklets of a vehicle.
        Index(
            "ix_assignments_current_vehicle_id",
            "vehicle_id",
            sqlite_where=text("is_current = 1"),
            postgresql_where=text("is_current"),
        ),
        # The history of a tracklet.
        Index(None, "tracklet_id", "assignment_id"),
        # Whether a vehicle is named by any decision, of whatever time: asked by the database before it is removed.
        Index(None, "vehicle_id"),
        # What a correction changed.
        Index(
            None,
            "correction_id",
            sqlite_where=text("correction_id IS NOT NULL"),
            postgresql_where=text("correction_id IS NOT NULL"),
        ),
        # The doubtful ones first, of those that nobody has looked at.
        Index(
            "ix_assignments_doubtful",
            "score",
            sqlite_where=text(f"is_current = 1 AND {_IS_OPEN_LINK}"),
            postgresql_where=text(f"is_current AND {_IS_OPEN_LINK}"),
        ),
        # What people have decided of late: asked for by every running matcher every few seconds.
        Index(
            "ix_assignments_corrected",
            "assignment_id",
            sqlite_where=text(f"is_current = 1 AND {_IS_CORRECTED}"),
            postgresql_where=text(f"is_current AND {_IS_CORRECTED}"),
        ),
    )

    assignment_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    tracklet_id: Mapped[str] = mapped_column(ForeignKey("tracklets.tracklet_id"))
    vehicle_id: Mapped[str] = mapped_column(ForeignKey("vehicles.vehicle_id"))
    reason: Mapped[str] = mapped_column(String(64))
    is_provisional: Mapped[bool]
    score: Mapped[float | None] = mapped_column(comment="log-odds; NULL: linked to nothing")
    margin: Mapped[float | None] = mapped_column(comment="NULL: there was no second candidate")
    modality_pair: Mapped[str | None] = mapped_column(String(64), comment="NULL: linked to nothing")
    transit_s: Mapped[float | None] = mapped_column(comment="NULL: linked to nothing")
    model_id: Mapped[str] = mapped_column(String(128))
    decided_at: Mapped[datetime]
    evidence: Mapped[dict[str, Any]]
    supersedes: Mapped[int | None] = mapped_column(
        ForeignKey("assignments.assignment_id"), comment="NULL: the tracklet's first"
    )
    is_current: Mapped[bool]
    decided_by: Mapped[str] = mapped_column(
        String(64), server_default=MATCHER, comment="matcher, or the person whose word it is"
    )
    correction_id: Mapped[int | None] = mapped_column(
        ForeignKey("corrections.correction_id"), comment="NULL: an ordinary decision"
    )


class LearnedRow(Base):
    """What the matcher of a region has learned, such as travel times."""

    __tablename__ = "learned"

    region: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[bytes]
    updated_at: Mapped[datetime] = mapped_column(comment="event time")


class ConsumerOffsetRow(Base):
    """Where to read on: advanced in the transaction that stores what was read."""

    __tablename__ = "consumer_offsets"

    topic: Mapped[str] = mapped_column(String(255), primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    next_offset: Mapped[int] = mapped_column(BigInteger)


class DeadLetterRow(Base):
    """A message that could not be read."""

    __tablename__ = "dead_letters"

    topic: Mapped[str] = mapped_column(String(255), primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    payload: Mapped[bytes]
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class HoldRow(Base):
    """A tracklet that is kept past its days, until somebody lets go of it."""

    __tablename__ = "holds"

    tracklet_id: Mapped[str] = mapped_column(ForeignKey("tracklets.tracklet_id"), primary_key=True)
    held_by: Mapped[str] = mapped_column(String(64))
    held_at: Mapped[datetime]
    note: Mapped[str] = mapped_column(Text)


class AuditRow(Base):
    """Who asked for a vehicle, or had one forgotten, held or let go. Rows are added, and removed by age alone."""

    __tablename__ = "audit"
    __table_args__ = (
        Index(None, "at"),
        Index(None, "subject", "at"),
        # Whom running matchers must forget: asked for by each of them every few seconds.
        Index(
            "ix_audit_forgotten",
            "audit_id",
            sqlite_where=text("action = 'forget'"),
            postgresql_where=text("action = 'forget'"),
        ),
    )

    audit_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    at: Mapped[datetime]
    person: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32), comment="the question or the deed: trajectory, export, forget")
    subject: Mapped[str] = mapped_column(String(192), comment="a vehicle or tracklet; empty: a question about many")
    details: Mapped[dict[str, Any]]


class CameraTroubleRow(Base):
    """A time in which a camera's picture was not to be trusted."""

    __tablename__ = "camera_troubles"
    __table_args__ = (Index(None, "camera", "began_at"), Index(None, "began_at"))

    trouble_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    camera: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16), comment="frozen, covered, defocused or moved")
    began_at: Mapped[datetime] = mapped_column(comment="event time")
    ended_at: Mapped[datetime | None] = mapped_column(comment="event time; NULL: it goes on")
    message: Mapped[str] = mapped_column(Text)


class AccountRow(Base):
    """Who may ask over the network."""

    __tablename__ = "accounts"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    password: Mapped[str] = mapped_column(Text, comment="argon2 hash")
    role: Mapped[str] = mapped_column(String(16), comment="viewer, operator or admin")
    cameras: Mapped[list[str] | None] = mapped_column(JSON, comment="that a viewer may see; NULL: all")
    made_at: Mapped[datetime]


class AccessTokenRow(Base):
    """What proves who asks: a login's cookie, or a program's token. Only its digest is kept."""

    __tablename__ = "access_tokens"
    __table_args__ = (UniqueConstraint("digest"), Index(None, "account"), Index(None, "expires_at"))

    token_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), comment="SHA-256, hexadecimal")
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16), comment="session or api")
    label: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16), comment="at most this one, whatever the account's is")
    made_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class WatchRow(Base):
    """A vehicle that somebody wants to hear of when it returns."""

    __tablename__ = "watches"
    __table_args__ = (Index(None, "vehicle_id"),)

    watch_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    vehicle_id: Mapped[str] = mapped_column(String(64), comment="no key: the vehicle may be forgotten")
    made_by: Mapped[str] = mapped_column(String(64))
    made_at: Mapped[datetime]
    note: Mapped[str] = mapped_column(Text)
    after: Mapped[int] = mapped_column(BigInteger, comment="decisions up to this number have been looked at")
    ended_at: Mapped[datetime | None] = mapped_column(comment="NULL: it goes on")


class WatchNoticeRow(Base):
    """That a watched vehicle returned; kept until everybody has been told, and afterwards to be read."""

    __tablename__ = "watch_notices"
    __table_args__ = (
        UniqueConstraint("watch_id", "tracklet_id"),
        Index(None, "tracklet_id"),
        Index(None, "correction_id"),
        Index(
            "ix_watch_notices_waiting",
            "notice_id",
            sqlite_where=text("delivered_at IS NULL"),
            postgresql_where=text("delivered_at IS NULL"),
        ),
    )

    notice_id: Mapped[int] = mapped_column(_RowNumber, primary_key=True)
    watch_id: Mapped[int] = mapped_column(ForeignKey("watches.watch_id"))
    tracklet_id: Mapped[str] = mapped_column(String(192))
    camera: Mapped[str] = mapped_column(String(64))
    seen_at: Mapped[datetime] = mapped_column(comment="event time: its first frame there")
    correction_id: Mapped[int | None] = mapped_column(
        BigInteger, comment="which gave it the tracklet, whose tracklets are told of once; no key; NULL: the matcher"
    )
    made_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(server_default="0")
    delivered_at: Mapped[datetime | None] = mapped_column(comment="NULL: not everybody has been told yet")
    error: Mapped[str] = mapped_column(Text, server_default="", comment="of the last attempt that failed")


class StatusSampleRow(Base):
    """How a camera or a stage was doing at some minute; kept for some days."""

    __tablename__ = "status_samples"
    __table_args__ = (Index(None, "at"),)

    kind: Mapped[str] = mapped_column(String(16), primary_key=True, comment="camera or stage")
    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    counters: Mapped[dict[str, float]]
