"""A matcher that starts finds its tracklets by an index, however many others there are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UNDECIDED = "ix_tracklets_undecided"
_NEWEST = "ix_tracklets_region_camera_ended_at"
_OPEN = sa.text("NOT is_decided")


def upgrade() -> None:
    """To this revision."""
    decided: sa.Column[bool] = sa.Column(
        "is_decided",
        sa.Boolean(),
        nullable=False,
        server_default=sa.false(),
        comment="a decision that was not provisional was made",
    )
    op.add_column("tracklets", decided)
    op.execute(
        "UPDATE tracklets SET is_decided = true WHERE EXISTS (SELECT 1 FROM assignments "
        "WHERE assignments.tracklet_id = tracklets.tracklet_id AND NOT assignments.is_provisional)"
    )
    op.create_index(_UNDECIDED, "tracklets", ["region"], postgresql_where=_OPEN, sqlite_where=_OPEN)
    op.create_index(_NEWEST, "tracklets", ["region", "camera", "ended_at"])


def downgrade() -> None:
    """Back to the revision before."""
    op.drop_index(_NEWEST, "tracklets")
    op.drop_index(_UNDECIDED, "tracklets")
    op.drop_column("tracklets", "is_decided")
