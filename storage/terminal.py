"""What the commands share: how a database is named and opened, who asks, and how they fail in one line.

Nobody asks unseen: a database can't be opened here without a note of who asks what, and where it can't be written the
question isn't answered.
"""

from __future__ import annotations

import getpass
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage.errors import StorageError
from storage.locations import database_folder
from storage.question_limits import check_moment
from storage.report import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.audit import Inquiry
    from storage.crop_store import CropStore
    from storage.database import Database

DatabaseUrl = Annotated[
    str,
    typer.Option("--database", metavar="URL", help="sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."),
]
OutputFormat = Annotated[
    Format, typer.Option("--format", help="A table for people, JSON or CSV for programs. Times are UTC.")
]
Person = Annotated[
    str | None,
    typer.Option(
        "--as",
        "--by",
        metavar="NAME",
        help="Who asks or decides; every question is noted, see `audit`. Default: the name you are logged in by.",
    ),
]
CropsDir = Annotated[
    Path | None,
    typer.Option("--crops-dir", metavar="DIR", help="Where the pictures lie. Default: crops beside the SQLite file."),
]


@contextmanager
def reading(url: str, action: str, by: str | None, subject: str = "", **details: object) -> Iterator[Session]:
    """A session on a database that exists; what can't be read ends the program with one line and status 2.

    Args:
        url: The database.
        action: What is asked, for the audit.
        by: Who asks; None: who is logged in.
        subject: The vehicle or tracklet that it is about; empty: about many.
        details: Filters.
    """
    from storage.asking import asked

    with _found(url) as database, asked(database, _inquiry(action, by, subject, details)) as session:
        yield session


@contextmanager
def writing(url: str, action: str, by: str | None, subject: str = "", **details: object) -> Iterator[Session]:
    """As `reading`, in a transaction: see `storage.asking.decided`."""
    from storage.asking import decided

    with _found(url) as database, decided(database, _inquiry(action, by, subject, details)) as session:
        yield session


@contextmanager
def opened(url: str, action: str, by: str | None, subject: str = "", **details: object) -> Iterator[Database]:
    """As `reading`, for what makes its own transactions."""
    from storage.asking import noted

    with _found(url) as database:
        noted(database, _inquiry(action, by, subject, details))
        yield database


def person(by: str | None) -> str:
    """Who asks.

    Raises:
        StorageError: Nobody is named, and nobody is logged in by a name.
    """
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise StorageError("--by NAME is wanted: nobody is logged in by a name here") from error


def crop_store(command: str, url: str, crops_dir: Path | None) -> CropStore:
    """Where the pictures of that database lie.

    Raises:
        StorageError: It isn't said, or there is no such folder.
    """
    from storage.crop_store import CropStore

    folder = database_folder(url)
    if crops_dir is None and folder is not None:
        crops_dir = folder / "crops"
    if crops_dir is None:
        raise StorageError(f"{command}: --crops-dir is wanted: the crops don't lie beside this database")
    if not crops_dir.is_dir():
        raise StorageError(f"{command}: --crops-dir: {crops_dir} is no folder")
    return CropStore(crops_dir)


def moment(option: str, text: str | None) -> datetime | None:
    """A time as a person writes it; UTC where it names no zone.

    Raises:
        StorageError: It is none, or out of range.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise StorageError(f"{option}: wanted a time such as 2026-01-01T12:30, got {text!r}") from error
    found = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    check_moment(option, found)
    return found


def _inquiry(action: str, by: str | None, subject: str, details: dict[str, object]) -> Inquiry:
    from storage.audit import Inquiry

    return Inquiry(action, person(by), subject, details)


@contextmanager
def _found(url: str) -> Iterator[Database]:
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
