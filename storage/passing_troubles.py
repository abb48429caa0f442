"""Which of a database's errors pass by themselves, so that the same may be tried again in a moment."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

# By the beginnings of PostgreSQL's SQLSTATEs.
_PASSING_STATES = (
    "08",  # the connection was lost
    "40001",  # transactions that can't be put in a row
    "40P01",  # a deadlock, of which this one was the victim
    "53200",  # out of memory
    "53300",  # too many connections
    "55P03",  # a lock that did not come in time
    "57014",  # a statement that took too long
    "57P",  # the server is being stopped, has crashed, or is not up yet
    "25006",  # a server that was the main one until a moment ago
    "25P03",  # a transaction that stood still for too long
)
_PASSING_CODES = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
#: SQLite's extended codes say more in their higher bytes.
_PRIMARY_CODE = 0xFF


def passes(error: Exception) -> bool:
    """Whether the same may succeed in a moment, with nobody doing anything about it.

    A full disk doesn't pass so, nor does a wrong password; but PostgreSQL tells at connecting of no reason that a
    program could read, so that whatever keeps us from connecting is taken for something that passes.
    """
    if not isinstance(error, DBAPIError):
        return isinstance(error, (PoolTimeoutError, TimeoutError))
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code: int | None = getattr(cause, "sqlite_errorcode", None)
        return code is not None and code & _PRIMARY_CODE in _PASSING_CODES
    state: str | None = getattr(cause, "sqlstate", None)
    if state is None:
        return error.connection_invalidated or isinstance(error, OperationalError)
    return state.startswith(_PASSING_STATES)
