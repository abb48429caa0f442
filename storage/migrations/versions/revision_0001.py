"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only where the key's type is spelled INTEGER.
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_CURRENT: dict[str, Any] = {"sqlite_where": sa.text("is_current = 1"), "postgresql_where": sa.text("is_current")}


def upgrade() -> None:
    """To this revision."""
    _create_cameras()
    _create_status()
    _create_tracklets()
    _create_embeddings()
    _create_assignments()
    _create_offsets()


def downgrade() -> None:
    """Back to an empty database."""
    for table in (
        "dead_letters",
        "consumer_offsets",
        "assignments",
        "vehicles",
        "embeddings",
        "sightings",
        "tracklets",
        "camera_watermarks",
        "stage_status",
        "camera_status",
        "cameras",
    ):
        op.drop_table(table)


def _time(name: str, **options: Any) -> sa.Column[Any]:  # noqa: ANN401 - passed on to Column
    return sa.Column(name, sa.DateTime(timezone=True), nullable=options.pop("nullable", False), **options)


def _text(name: str, length: int, **options: Any) -> sa.Column[Any]:  # noqa: ANN401 - passed on to Column
    return sa.Column(name, sa.String(length), nullable=options.pop("nullable", False), **options)


def _create_cameras() -> None:
    op.create_table(
        "cameras",
        _text("camera", 64),
        _text("region", 64),
        _text("modality", 32),
        sa.Column("x", sa.Double(), comment="pixels of the site plan; NULL: not placed on it"),
        sa.Column("y", sa.Double(), comment="pixels of the site plan; NULL: not placed on it"),
        sa.Column("lat", sa.Double(), comment="degrees; NULL: not placed on the earth"),
        sa.Column("lon", sa.Double(), comment="degrees; NULL: not placed on the earth"),
        _time("started_at", nullable=True, comment="first frame ever read; NULL: none yet"),
        sa.PrimaryKeyConstraint("camera", name="pk_cameras"),
    )


def _create_status() -> None:
    counts = (
        "decoded",
        "detected",
        "gated",
        "dropped",
        "reconnects",
        "decode_errors",
        "detections",
        "tracklets",
    )
    op.create_table(
        "camera_status",
        _text("camera", 64),
        _time("updated_at"),
        _text("state", 32),
        _text("modality", 32),
        sa.Column("fps", sa.Double(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        _time("last_frame_at", nullable=True, comment="NULL: no frame yet"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("camera", name="pk_camera_status"),
    )
    op.create_table(
        "stage_status",
        _text("stage", 64),
        _time("updated_at"),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("stage", name="pk_stage_status"),
    )
    op.create_table(
        "camera_watermarks",
        _text("camera", 64),
        _text("session", 64),
        _time("watermark"),
        sa.Column("is_finished", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("camera", "session", name="pk_camera_watermarks"),
    )


def _create_tracklets() -> None:
    op.create_table(
        "tracklets",
        _text("tracklet_id", 192),
        _text("region", 64),
        _text("camera", 64),
        _text("session", 64),
        sa.Column("number", sa.BigInteger(), nullable=False),
        _text("vehicle_class", 32),
        sa.Column("class_votes", sa.JSON(), nullable=False),
        _time("started_at"),
        _time("ended_at", comment="last frame seen so far"),
        _text("end_reason", 32, nullable=True, comment="NULL: it goes on"),
        sa.Column("context_image", sa.Text(), comment="below crops_dir; NULL: none was taken"),
        sa.Column(
            "last_sequence",
            sa.Integer(),
            nullable=False,
            comment="of the newest sighting; -1: closed before any came",
        ),
        sa.PrimaryKeyConstraint("tracklet_id", name="pk_tracklets"),
    )
    op.create_index("ix_tracklets_region_ended_at", "tracklets", ["region", "ended_at"])
    op.create_index("ix_tracklets_camera_started_at", "tracklets", ["camera", "started_at"])
    op.create_index("ix_tracklets_started_at", "tracklets", ["started_at"])
    op.create_table(
        "sightings",
        _text("sighting_id", 208),
        _text("tracklet_id", 192),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("path", sa.LargeBinary(), comment="see storage/blobs.py; NULL: not seen since the one before"),
        sa.PrimaryKeyConstraint("sighting_id", name="pk_sightings"),
        sa.UniqueConstraint("tracklet_id", "sequence", name="uq_sightings_tracklet_id_sequence"),
        sa.ForeignKeyConstraint(["tracklet_id"], ["tracklets.tracklet_id"], name="fk_sightings_tracklet_id_tracklets"),
    )


def _create_embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("embedding_id", _ROW_NUMBER, nullable=False),
        _text("sighting_id", 208),
        _text("tracklet_id", 192),
        _text("modality", 32),
        _text("model_id", 128),
        sa.Column("vector", sa.LargeBinary(), nullable=False, comment="little-endian float16"),
        sa.Column("quality", sa.Double(), nullable=False),
        _time("captured_at"),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("x1", "y1", "x2", "y2")),
        sa.Column("crop_image", sa.Text(), comment="below crops_dir; NULL: the crop was not kept"),
        sa.Column("tokens", sa.LargeBinary(), comment="NULL: the embedder made none"),
        sa.PrimaryKeyConstraint("embedding_id", name="pk_embeddings"),
        sa.UniqueConstraint("sighting_id", "modality", name="uq_embeddings_sighting_id_modality"),
        sa.ForeignKeyConstraint(["sighting_id"], ["sightings.sighting_id"], name="fk_embeddings_sighting_id_sightings"),
        sa.ForeignKeyConstraint(["tracklet_id"], ["tracklets.tracklet_id"], name="fk_embeddings_tracklet_id_tracklets"),
    )
    op.create_index("ix_embeddings_tracklet_id_modality_quality", "embeddings", ["tracklet_id", "modality", "quality"])


def _create_assignments() -> None:
    op.create_table(
        "vehicles",
        _text("vehicle_id", 64),
        _text("vehicle_class", 32),
        _time("first_seen", nullable=True, comment="NULL: no tracklet is its own any more"),
        _time("last_seen", nullable=True, comment="NULL: no tracklet is its own any more"),
        sa.PrimaryKeyConstraint("vehicle_id", name="pk_vehicles"),
    )
    op.create_index("ix_vehicles_first_seen", "vehicles", ["first_seen"])
    op.create_index("ix_vehicles_last_seen", "vehicles", ["last_seen"])
    op.create_table(
        "assignments",
        sa.Column("assignment_id", _ROW_NUMBER, nullable=False),
        _text("tracklet_id", 192),
        _text("vehicle_id", 64),
        _text("reason", 64),
        sa.Column("is_provisional", sa.Boolean(), nullable=False),
        sa.Column("score", sa.Double(), comment="log-odds; NULL: linked to nothing"),
        sa.Column("margin", sa.Double(), comment="NULL: there was no second candidate"),
        _text("modality_pair", 64, nullable=True, comment="NULL: linked to nothing"),
        sa.Column("transit_s", sa.Double(), comment="NULL: linked to nothing"),
        _text("model_id", 128),
        _time("decided_at"),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("supersedes", _ROW_NUMBER, comment="NULL: the tracklet's first"),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("assignment_id", name="pk_assignments"),
        sa.UniqueConstraint("supersedes", name="uq_assignments_supersedes"),
        sa.ForeignKeyConstraint(
            ["supersedes"], ["assignments.assignment_id"], name="fk_assignments_supersedes_assignments"
        ),
        sa.ForeignKeyConstraint(
            ["tracklet_id"], ["tracklets.tracklet_id"], name="fk_assignments_tracklet_id_tracklets"
        ),
        sa.ForeignKeyConstraint(["vehicle_id"], ["vehicles.vehicle_id"], name="fk_assignments_vehicle_id_vehicles"),
    )
    op.create_index("uq_assignments_current", "assignments", ["tracklet_id"], unique=True, **_CURRENT)
    op.create_index("ix_assignments_current_vehicle_id", "assignments", ["vehicle_id"], **_CURRENT)
    op.create_index("ix_assignments_tracklet_id_assignment_id", "assignments", ["tracklet_id", "assignment_id"])


def _create_offsets() -> None:
    op.create_table(
        "consumer_offsets",
        _text("topic", 255),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name="pk_consumer_offsets"),
    )
    op.create_table(
        "dead_letters",
        _text("topic", 255),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _time("at"),
        sa.PrimaryKeyConstraint("topic", "partition", "offset", name="pk_dead_letters"),
    )
