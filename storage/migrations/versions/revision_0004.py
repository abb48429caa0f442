"""Indexes that find what is too old to be kept, and what may be removed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_tracklets_ended_at", "tracklets", "ended_at", None),
    ("ix_tracklets_pictured", "tracklets", "ended_at", "context_image"),
    ("ix_embeddings_captured_at", "embeddings", "captured_at", None),
    ("ix_embeddings_pictured", "embeddings", "captured_at", "crop_image"),
    ("ix_assignments_vehicle_id", "assignments", "vehicle_id", None),
)


def upgrade() -> None:
    """To this revision."""
    for name, table, column, where in _INDEXES:
        op.create_index(name, table, [column], **_partial(where))


def downgrade() -> None:
    """Back to the revision before."""
    for name, table, _, _ in _INDEXES:
        op.drop_index(name, table)


def _partial(column: str | None) -> dict[str, Any]:
    """Only rows where that column has something; None: all rows."""
    if column is None:
        return {}
    condition = sa.text(f"{column} IS NOT NULL")
    return {"sqlite_where": condition, "postgresql_where": condition}
