"""Corrections, who decided, and what a region's matcher has learned."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_IS_CORRECTED = "(correction_id IS NOT NULL OR decided_by <> 'matcher')"
_CORRECTION: dict[str, Any] = {
    "sqlite_where": sa.text("correction_id IS NOT NULL"),
    "postgresql_where": sa.text("correction_id IS NOT NULL"),
}
_CORRECTED: dict[str, Any] = {
    "sqlite_where": sa.text(f"is_current = 1 AND {_IS_CORRECTED}"),
    "postgresql_where": sa.text(f"is_current AND {_IS_CORRECTED}"),
}


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "corrections",
        sa.Column("correction_id", _ROW_NUMBER, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False, comment="merge, split, move or undo"),
        sa.Column("made_by", sa.String(64), nullable=False, comment="matcher, or a person's name"),
        sa.Column(
            "made_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="event time for the matcher, the clock for a person",
        ),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("undoes", _ROW_NUMBER, comment="NULL: it undoes no other"),
        sa.PrimaryKeyConstraint("correction_id", name="pk_corrections"),
        sa.UniqueConstraint("undoes", name="uq_corrections_undoes"),
        sa.ForeignKeyConstraint(["undoes"], ["corrections.correction_id"], name="fk_corrections_undoes_corrections"),
    )
    _widen_assignments()
    op.create_table(
        "learned",
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, comment="event time"),
        sa.PrimaryKeyConstraint("region", "name", name="pk_learned"),
    )


def downgrade() -> None:
    """Back to the revision before: what was corrected stays decided, who did it is forgotten."""
    op.drop_table("learned")
    op.drop_index("ix_assignments_corrected", "assignments")
    op.drop_index("ix_assignments_correction_id", "assignments")
    op.drop_column("assignments", "correction_id")
    op.drop_column("assignments", "decided_by")
    op.drop_table("corrections")


def _widen_assignments() -> None:
    # In SQL, since Alembic would copy SQLite's table for the sake of the foreign key: minutes on a site of some months.
    number = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    op.add_column("assignments", sa.Column("decided_by", sa.String(64), nullable=False, server_default="matcher"))
    op.execute(
        f"ALTER TABLE assignments ADD COLUMN correction_id {number} "
        "CONSTRAINT fk_assignments_correction_id_corrections REFERENCES corrections (correction_id)"
    )
    if number == "BIGINT":
        op.execute("COMMENT ON COLUMN assignments.decided_by IS 'matcher, or the person whose word it is'")
        op.execute("COMMENT ON COLUMN assignments.correction_id IS 'NULL: an ordinary decision'")
    op.create_index("ix_assignments_correction_id", "assignments", ["correction_id"], **_CORRECTION)
    op.create_index("ix_assignments_corrected", "assignments", ["assignment_id"], **_CORRECTED)
