"""Run by Alembic. It opens nothing: the connection, its transaction and its lock are the caller's."""

from __future__ import annotations

from alembic import context

from storage.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite can't alter a constraint in place: such a step copies the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
