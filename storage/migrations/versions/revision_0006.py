"""A matcher that asks whom it must forget finds the answer by an index, however many questions were noted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NAME = "ix_audit_forgotten"
_FORGOTTEN = sa.text("action = 'forget'")


def upgrade() -> None:
    """To this revision."""
    op.create_index(_NAME, "audit", ["audit_id"], postgresql_where=_FORGOTTEN, sqlite_where=_FORGOTTEN)


def downgrade() -> None:
    """Back to the revision before."""
    op.drop_index(_NAME, "audit")
