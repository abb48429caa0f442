"""The outbox's SQLite file: how it is made, opened, and brought to this program's version."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from filelock import FileLock

from streamer.bus import BusError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: How long one process waits for another's transaction; they take milliseconds, a deletion of a batch tens of them.
BUSY_TIMEOUT_S = 10.0

_FILE_VERSION = 2
_WAL_LIMIT_BYTES = 8 << 20
# What is looked at often stands before the payload, whose pages are then left unread.
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, droppable INTEGER NOT NULL, size INTEGER NOT NULL, kept_at REAL NOT NULL,
    key TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX messages_droppable ON messages (id) WHERE droppable = 1;
CREATE TABLE totals (waiting INTEGER NOT NULL, bytes INTEGER NOT NULL, dropped_droppable INTEGER NOT NULL,
    dropped_others INTEGER NOT NULL, dropped_old INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0, 0);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL, rejected_at REAL NOT NULL
);
INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', {last_id});
PRAGMA user_version = {version};
COMMIT;
"""
# Version 1 kept no times: what waits there counts as kept now. A default rewrites no row, however many wait.
_MIGRATE_FROM_1 = """
BEGIN IMMEDIATE;
ALTER TABLE messages ADD COLUMN kept_at REAL NOT NULL DEFAULT {now};
ALTER TABLE totals ADD COLUMN dropped_old INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
COMMIT;
"""


def open_outbox_file(path: Path, clock: Callable[[], float]) -> sqlite3.Connection:
    """Opens the file, made or migrated if need be; waits up to `BUSY_TIMEOUT_S` for another process that does so.

    Args:
        path: The file; its folder is made.
        clock: Seconds since the Unix epoch; dates a new file's first id, and what waits in one of version 1.

    Returns:
        A connection without implicit transactions, for any thread, one at a time.

    Raises:
        BusError: The file is of a newer program.
        sqlite3.Error, OSError, filelock.Timeout: It can't be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path, clock)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, clock: Callable[[], float]) -> None:
    if _file_version(connection) < _FILE_VERSION:
        # SQLite's own busy time-out does not cover the switch to WAL, and two processes may both find no file.
        with FileLock(f"{path}.lock", timeout=BUSY_TIMEOUT_S):
            _make_current(connection, clock)
    if (version := _file_version(connection)) != _FILE_VERSION:
        raise BusError(f"outbox {path}: version {version}, this program reads {_FILE_VERSION}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def _make_current(connection: sqlite3.Connection, clock: Callable[[], float]) -> None:
    version = _file_version(connection)
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA.format(last_id=int(clock() * 1e6), version=_FILE_VERSION))
    elif version == 1:
        connection.executescript(_MIGRATE_FROM_1.format(now=float(clock())))


def _file_version(connection: sqlite3.Connection) -> int:
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        return int(cursor.fetchone()[0])
