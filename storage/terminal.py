"""What the commands share: how a database is named and opened, and how they fail in one line."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from storage.errors import StorageError
from storage.report import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database

DatabaseUrl = Annotated[
    str,
    typer.Option("--database", metavar="URL", help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."),
]
OutputFormat = Annotated[
    Format, typer.Option("--format", help="A table for people, JSON or CSV for programs. Times are UTC.")
]


@contextmanager
def reading(url: str) -> Iterator[Session]:
    """A session on a database that exists; what can't be read ends the program with one line and status 2."""
    with _opened(url) as database, database.snapshot() as session:
        yield session


@contextmanager
def writing(url: str) -> Iterator[Session]:
    """As `reading`, in a transaction: it is committed at the end, unless something can't be done."""
    with _opened(url) as database, database.transaction() as session:
        yield session


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    from storage.database import Database

    try:
        database = Database.open(url, must_exist=True)
        try:
            yield database
        finally:
            database.close()
    except StorageError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error
