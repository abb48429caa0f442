"""The on-disk queue between the edge and the bus: written by several processes at once, read by one.

One SQLite file in WAL mode, `synchronous=FULL`: a message that `append` took survives a crash of the program and of the
machine, for about 2 ms an append. NORMAL would be fifteen times as fast and lose the last commits in a power cut, and
with them their ids: new messages would take those ids again, below the offset that the matcher's database holds, and
be skipped for good.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock
from filelock import Timeout as LockTimeout

from streamer.bus import BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: How long one process waits for another's transaction; they take milliseconds, a deletion of a batch tens of them.
BUSY_TIMEOUT_S = 10.0
#: How long another process's message may lie before a reader looks again; a look takes 10 us.
LOOK_AGAIN_S = 0.025
#: Rows a transaction of `delete_through` takes away, so that writers never wait long behind it.
DELETE_BATCH = 500
#: Messages put aside that are kept; a flood of them must not fill the disk.
MAX_DEAD = 1000
#: Counted per message beside key and payload: the row itself and its place in the tree.
ROW_OVERHEAD_BYTES = 64

_FILE_VERSION = 1
_WAL_LIMIT_BYTES = 8 << 20
_VACUUM_PAGES = 256
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, droppable INTEGER NOT NULL, size INTEGER NOT NULL, key TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX messages_droppable ON messages (id) WHERE droppable = 1;
CREATE TABLE totals (waiting INTEGER NOT NULL, bytes INTEGER NOT NULL, dropped_droppable INTEGER NOT NULL,
    dropped_others INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0, 0, 0);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL, rejected_at REAL NOT NULL
);
INSERT INTO sqlite_sequence (name, seq) VALUES ('messages', {last_id});
PRAGMA user_version = {version};
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One message that waits.

    Attributes:
        id: Its place; later commits have higher ids, none is ever used twice.
        key: The region.
        payload: The encoded message.
    """

    id: int
    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class DroppedCounts:
    """What a full outbox gave up, since the file was made.

    Attributes:
        droppable: Updates and heartbeats; they go first.
        others: The oldest of the rest.
    """

    droppable: int
    others: int


@dataclass(frozen=True, slots=True)
class DeadRow:
    """A message that was put aside.

    Attributes:
        id: The id it had in the queue.
        key: The region.
        payload: As it was read.
        reason: Why, in one line.
        rejected_at: Seconds since the Unix epoch.
    """

    id: int
    key: str
    payload: bytes
    reason: str
    rejected_at: float


class Outbox:
    """The queue's file. Threads of a process share one instance; each process makes its own.

    No call waits for a reader. A full outbox takes the message all the same and lets go of droppable ones first, then
    of the oldest, and counts them. After a crash at any moment, what `append` returned for is there, once.

    A new file starts its ids at the wall clock in microseconds: should the file be deleted while the matcher's
    database stays, new ids still lie above every offset that the database holds.

    Args:
        path: The file; made on first use, as is its folder.
        max_bytes: Of the messages, `ROW_OVERHEAD_BYTES` each included; the file may be half as big again.
        clock: Seconds since the Unix epoch; dates new files and dead messages.
    """

    def __init__(self, path: Path, *, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._appended = threading.Condition()

    def append(self, key: str, payload: bytes, *, droppable: bool) -> int:
        """Keeps a message; it is on the disk when this returns.

        Args:
            key: The region.
            payload: An encoded message.
            droppable: Whether it goes first when the outbox is full.

        Returns:
            Its id. A droppable message that met a queue full of others is dropped, and counted, at once.

        Raises:
            BusError: It could not be kept, or is bigger than the whole outbox.
        """
        size = len(payload) + len(key.encode()) + ROW_OVERHEAD_BYTES
        if size > self._max_bytes:
            raise BusError(f"outbox {self.path}: a message of {size} bytes exceeds max_bytes, {self._max_bytes}")
        with self._transaction() as connection:
            row_id = connection.execute(
                "INSERT INTO messages (droppable, size, key, payload) VALUES (?, ?, ?, ?)",
                (droppable, size, key, payload),
            ).lastrowid
            connection.execute("UPDATE totals SET waiting = waiting + 1, bytes = bytes + ?", (size,))
            self._make_room(connection)
        with self._appended:
            self._appended.notify_all()
        return int(row_id or 0)

    def read(self, after: int, limit: int) -> list[OutboxRow]:
        """The next messages in order; they stay.

        Args:
            after: Only ids above this.
            limit: At most so many.

        Raises:
            BusError: The file can't be read.
        """
        query = "SELECT id, key, payload FROM messages WHERE id > ? ORDER BY id LIMIT ?"
        with self._use() as connection:
            return [OutboxRow(*row) for row in connection.execute(query, (after, limit))]

    def wait(self, timeout_s: float) -> None:
        """Returns after `timeout_s`, or sooner if a thread of this process appends (other processes don't wake it)."""
        with self._appended:
            self._appended.wait(timeout_s)

    def delete_through(self, last_id: int) -> int:
        """Deletes every message up to and including `last_id`, in batches, and gives pages back to the disk.

        Returns:
            How many there were.

        Raises:
            BusError: The file can't be written. Batches already deleted stay so; calling again is safe.
        """
        deleted = 0
        while batch := self._delete_batch(last_id):
            deleted += batch
        if deleted:
            with self._use() as connection:
                # The pragma frees a page per row that is fetched.
                connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return deleted

    def depth(self) -> int:
        """How many messages wait."""
        return self._totals()[0]

    def bytes(self) -> int:
        """What `max_bytes` bounds: the size of all messages that wait."""
        return self._totals()[1]

    @property
    def dropped(self) -> DroppedCounts:
        """What a full outbox gave up, by all processes, since the file was made."""
        return DroppedCounts(*self._totals()[2:])

    def count_below(self, row_id: int) -> int:
        """How many messages have lower ids; quick where these are few."""
        with self._use() as connection:
            (count,) = connection.execute("SELECT count(*) FROM messages WHERE id < ?", (row_id,)).fetchone()
        return int(count)

    def raise_ids(self, floor: int) -> bool:
        """Moves all messages to ids from `floor` on, in order, if no id ever reached `floor - 1`.

        That an offset lies ahead of the file means that the file is younger than the database and was made while the
        clock stood wrong. Without this its messages would be passed over for good.

        Returns:
            Whether ids were moved.
        """
        with self._transaction() as connection:
            (last_id,) = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
            if last_id >= floor - 1:
                return False
            (first_id,) = connection.execute("SELECT min(id) FROM messages").fetchone()
            # The new range starts beyond the old one's end, so that no message meets another on its way.
            shift = floor - (last_id + 1 if first_id is None else first_id)
            connection.execute("UPDATE messages SET id = id + ?", (shift,))
            connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'messages'", (shift,))
        return True

    def put_aside(self, row: OutboxRow, reason: str) -> None:
        """Copies a message to the dead ones; the same message twice is kept once, and the last `MAX_DEAD` are kept."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?)",
                (row.id, row.key, row.payload, reason, self._clock()),
            )
            connection.execute(
                "DELETE FROM dead WHERE id <= (SELECT id FROM dead ORDER BY id DESC LIMIT 1 OFFSET ?)", (MAX_DEAD,)
            )

    def dead(self, limit: int = MAX_DEAD) -> list[DeadRow]:
        """The messages put aside, the newest first."""
        query = "SELECT id, key, payload, reason, rejected_at FROM dead ORDER BY id DESC LIMIT ?"
        with self._use() as connection:
            return [DeadRow(*row) for row in connection.execute(query, (limit,))]

    def close(self) -> None:
        """Lets go of the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _totals(self) -> tuple[int, int, int, int]:
        query = "SELECT waiting, bytes, dropped_droppable, dropped_others FROM totals"
        with self._use() as connection:
            waiting, size, droppable, others = connection.execute(query).fetchone()
        return waiting, size, droppable, others

    def _make_room(self, connection: sqlite3.Connection) -> None:
        (size,) = connection.execute("SELECT bytes FROM totals").fetchone()
        while size > self._max_bytes:
            size -= _drop_one(connection)

    def _delete_batch(self, last_id: int) -> int:
        with self._transaction() as connection:
            count, size, through = connection.execute(
                "SELECT count(*), sum(size), max(id) FROM"
                " (SELECT id, size FROM messages WHERE id <= ? ORDER BY id LIMIT ?)",
                (last_id, DELETE_BATCH),
            ).fetchone()
            if count:
                connection.execute("DELETE FROM messages WHERE id <= ?", (through,))
                connection.execute("UPDATE totals SET waiting = waiting - ?, bytes = bytes - ?", (count, size))
        return int(count)

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        """The connection, held by this thread alone, with SQLite's errors translated."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _open(self.path, self._clock)
                yield self._connection
            except (sqlite3.Error, OSError, LockTimeout) as error:
                raise BusError(f"outbox {self.path}: {' '.join(str(error).split())}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it, or none."""
        with self._use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                # Still open: something failed. SQLite itself has ended it already where the disk is full.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")


def _drop_one(connection: sqlite3.Connection) -> int:
    """Drops the oldest droppable message, else the oldest; returns its size."""
    victim = connection.execute("SELECT id, size FROM messages WHERE droppable = 1 ORDER BY id LIMIT 1").fetchone()
    counter = "dropped_droppable"
    if victim is None:
        victim = connection.execute("SELECT id, size FROM messages ORDER BY id LIMIT 1").fetchone()
        counter = "dropped_others"
    row_id, size = victim
    connection.execute("DELETE FROM messages WHERE id = ?", (row_id,))
    connection.execute(
        f"UPDATE totals SET waiting = waiting - 1, bytes = bytes - ?, {counter} = {counter} + 1",  # noqa: S608 - ours
        (size,),
    )
    return int(size)


def _open(path: Path, clock: Callable[[], float]) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path, clock)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, clock: Callable[[], float]) -> None:
    version = _file_version(connection)
    if version == 0:
        # SQLite's own busy time-out does not cover the switch to WAL, and two processes may both find no file.
        with FileLock(f"{path}.lock", timeout=BUSY_TIMEOUT_S):
            version = _file_version(connection) or _create(connection, clock)
    if version != _FILE_VERSION:
        raise BusError(f"outbox {path}: version {version}, this program reads {_FILE_VERSION}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")


def _file_version(connection: sqlite3.Connection) -> int:
    with closing(connection.execute("PRAGMA user_version")) as cursor:
        return int(cursor.fetchone()[0])


def _create(connection: sqlite3.Connection, clock: Callable[[], float]) -> int:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(_SCHEMA.format(last_id=int(clock() * 1e6), version=_FILE_VERSION))
    return _FILE_VERSION
