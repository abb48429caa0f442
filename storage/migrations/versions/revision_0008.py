"""Accounts and tokens, watches and what came of them, minutes of the past; a time window's vehicles found fast."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("status_samples", "watch_notices", "watches", "access_tokens", "accounts")
_TIME = sa.DateTime(timezone=True)
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_LONG: dict[str, Any] = {
    "sqlite_where": sa.text("julianday(ended_at) - julianday(started_at) > 600 / 86400.0"),
    "postgresql_where": sa.text("ended_at - started_at > interval '600 seconds'"),
}
_DOUBTFUL: dict[str, Any] = {
    "sqlite_where": sa.text("is_current = 1 AND decided_by = 'matcher' AND score IS NOT NULL"),
    "postgresql_where": sa.text("is_current AND decided_by = 'matcher' AND score IS NOT NULL"),
}


def upgrade() -> None:
    """To this revision."""
    _make_accounts()
    _make_watches()
    op.create_table(
        "status_samples",
        sa.Column("kind", sa.String(16), nullable=False, comment="camera or stage"),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "source", "at", name="pk_status_samples"),
    )
    op.create_index("ix_status_samples_at", "status_samples", ["at"])
    op.create_index("ix_tracklets_long", "tracklets", ["ended_at", "started_at"], **_LONG)
    op.create_index("ix_assignments_doubtful", "assignments", ["score"], **_DOUBTFUL)
    if op.get_bind().dialect.name == "postgresql":
        # Else a third of all tracklets is taken to have been in view for long, and whole tables are read for a window.
        op.execute("CREATE STATISTICS st_tracklets_lasted ON (ended_at - started_at) FROM tracklets")
    _say_kinds("merge, split, move, confirm or undo")


def downgrade() -> None:
    """Back to the revision before."""
    _say_kinds("merge, split, move or undo")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP STATISTICS st_tracklets_lasted")
    op.drop_index("ix_assignments_doubtful", "assignments")
    op.drop_index("ix_tracklets_long", "tracklets")
    for table in _TABLES:
        op.drop_table(table)


def _say_kinds(kinds: str) -> None:
    # SQLite keeps no comments.
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("corrections", "kind", existing_type=sa.String(16), existing_nullable=False, comment=kinds)


def _make_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("password", sa.Text(), nullable=False, comment="argon2 hash"),
        sa.Column("role", sa.String(16), nullable=False, comment="viewer, operator or admin"),
        sa.Column("cameras", sa.JSON(), nullable=True, comment="that a viewer may see; NULL: all"),
        sa.Column("made_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_accounts"),
    )
    op.create_table(
        "access_tokens",
        sa.Column("token_id", _NUMBER, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, comment="SHA-256, hexadecimal"),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False, comment="session or api"),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False, comment="at most this one, whatever the account's is"),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["account"], ["accounts.name"], name="fk_access_tokens_account_accounts", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_id", name="pk_access_tokens"),
        sa.UniqueConstraint("digest", name="uq_access_tokens_digest"),
    )
    op.create_index("ix_access_tokens_account", "access_tokens", ["account"])
    op.create_index("ix_access_tokens_expires_at", "access_tokens", ["expires_at"])


def _make_watches() -> None:
    op.create_table(
        "watches",
        sa.Column("watch_id", _NUMBER, nullable=False),
        sa.Column("vehicle_id", sa.String(64), nullable=False, comment="no key: the vehicle may be forgotten"),
        sa.Column("made_by", sa.String(64), nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False, comment="decisions up to this number have been looked at"),
        sa.Column("ended_at", _TIME, nullable=True, comment="NULL: it goes on"),
        sa.PrimaryKeyConstraint("watch_id", name="pk_watches"),
    )
    op.create_index("ix_watches_vehicle_id", "watches", ["vehicle_id"])
    op.create_table(
        "watch_notices",
        sa.Column("notice_id", _NUMBER, nullable=False),
        sa.Column("watch_id", _NUMBER, nullable=False),
        sa.Column("tracklet_id", sa.String(192), nullable=False),
        sa.Column("camera", sa.String(64), nullable=False),
        sa.Column("seen_at", _TIME, nullable=False, comment="event time: its first frame there"),
        sa.Column(
            "correction_id",
            sa.BigInteger(),
            nullable=True,
            comment="which gave it the tracklet, whose tracklets are told of once; no key; NULL: the matcher",
        ),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("delivered_at", _TIME, nullable=True, comment="NULL: not everybody has been told yet"),
        sa.Column("error", sa.Text(), nullable=False, server_default="", comment="of the last attempt that failed"),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.watch_id"], name="fk_watch_notices_watch_id_watches"),
        sa.PrimaryKeyConstraint("notice_id", name="pk_watch_notices"),
        sa.UniqueConstraint("watch_id", "tracklet_id", name="uq_watch_notices_watch_id_tracklet_id"),
    )
    op.create_index("ix_watch_notices_tracklet_id", "watch_notices", ["tracklet_id"])
    op.create_index("ix_watch_notices_correction_id", "watch_notices", ["correction_id"])
    waiting = sa.text("delivered_at IS NULL")
    op.create_index(
        "ix_watch_notices_waiting",
        "watch_notices",
        ["notice_id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
