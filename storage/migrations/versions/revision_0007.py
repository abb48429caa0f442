"""A vehicle is found by the beginning of its id without a look at all of them, whatever the server's language."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NAME = "ix_vehicles_beginning"


def upgrade() -> None:
    """To this revision."""
    op.create_index(_NAME, "vehicles", ["vehicle_id"], postgresql_ops={"vehicle_id": "varchar_pattern_ops"})


def downgrade() -> None:
    """Back to the revision before."""
    op.drop_index(_NAME, "vehicles")
