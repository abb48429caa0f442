"""Asking and deciding so that it is noted who did: nobody is answered unseen."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from storage.audit import Inquiry, note
from storage.errors import StorageError, TransientStorageError
from storage.statements import hold_decisions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database

__all__ = ["Inquiry", "asked", "decided", "noted"]


def noted(database: Database, inquiry: Inquiry) -> None:
    """Notes a question by itself, for what makes its own transactions.

    Raises:
        StorageError: It can't be noted; the question must not be answered then.
    """
    with database.transaction() as session:
        note(session, inquiry, datetime.now(UTC))


@contextmanager
def asked(database: Database, inquiry: Inquiry) -> Iterator[Session]:
    """A session of `Database.snapshot`, once the question has been noted.

    Raises:
        StorageError: As `noted`, and whatever the database refuses.
    """
    noted(database, inquiry)
    with database.snapshot() as session:
        yield session


@contextmanager
def decided(database: Database, inquiry: Inquiry) -> Iterator[Session]:
    """As `asked`, in a transaction: it is committed at the end, the note too, unless something can't be done.

    Nobody else decides until then. Why something can't be done is an answer as well: it is noted by itself, as a
    question (`forget?`), since no deed is to be read out of it.
    """
    try:
        with database.transaction() as session:
            # Before the note, so that notes of deeds are numbered in the order in which others see them.
            hold_decisions(session)
            note(session, inquiry, datetime.now(UTC))
            yield session
    except TransientStorageError:
        raise  # it tells nobody anything, and a note would wait for the same again
    except StorageError:
        noted(database, replace(inquiry, action=f"{inquiry.action}?"))
        raise
