"""Legal holds, who asked what, times in which a camera was not to be trusted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "holds",
        sa.Column("tracklet_id", sa.String(192), nullable=False),
        sa.Column("held_by", sa.String(64), nullable=False),
        sa.Column("held_at", _TIME, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tracklet_id", name="pk_holds"),
        sa.ForeignKeyConstraint(["tracklet_id"], ["tracklets.tracklet_id"], name="fk_holds_tracklet_id_tracklets"),
    )
    op.create_table(
        "audit",
        sa.Column("audit_id", _ROW_NUMBER, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("person", sa.String(64), nullable=False),
        sa.Column(
            "action", sa.String(32), nullable=False, comment="the question or the deed: trajectory, export, forget"
        ),
        sa.Column(
            "subject", sa.String(192), nullable=False, comment="a vehicle or tracklet; empty: a question about many"
        ),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_subject_at", "audit", ["subject", "at"])
    op.create_table(
        "camera_troubles",
        sa.Column("trouble_id", _ROW_NUMBER, nullable=False),
        sa.Column("camera", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False, comment="frozen, covered, defocused or moved"),
        sa.Column("began_at", _TIME, nullable=False, comment="event time"),
        sa.Column("ended_at", _TIME, comment="event time; NULL: it goes on"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("trouble_id", name="pk_camera_troubles"),
    )
    op.create_index("ix_camera_troubles_camera_began_at", "camera_troubles", ["camera", "began_at"])
    op.create_index("ix_camera_troubles_began_at", "camera_troubles", ["began_at"])
    for column in _status_columns():
        op.add_column("camera_status", column)


def downgrade() -> None:
    """Back to the revision before: holds and the audit are forgotten."""
    for column in _status_columns():
        op.drop_column("camera_status", column.name)
    for table in ("camera_troubles", "audit", "holds"):
        op.drop_table(table)


def _status_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("stalled_s", sa.Double(), nullable=False, server_default="0"),
        sa.Column(
            "skew_s",
            sa.Double(),
            nullable=False,
            server_default="0",
            comment="decoded after captured, of the last frame",
        ),
        sa.Column("packets_lost", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column(
            "health",
            sa.String(16),
            nullable=False,
            server_default="",
            comment="ok, frozen, covered, defocused or moved; empty: not looked at yet",
        ),
    ]
