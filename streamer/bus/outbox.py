"""The on-disk queue between the edge and the bus: written by several processes at once, read by one.

One SQLite file in WAL mode, `synchronous=FULL`: a message that `append` took survives a crash of the program and of the
machine, for about 2 ms an append. NORMAL would be fifteen times as fast and lose the last commits in a power cut, and
with them their ids: new messages would take those ids again, below the offset that the matcher's database holds, and
be skipped for good.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import Timeout as LockTimeout

from streamer.bus import BusError
from streamer.bus.outbox_file import open_outbox_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: How long another process's message may lie before a reader looks again; a look takes 10 us.
LOOK_AGAIN_S = 0.025
#: Rows that one transaction takes away, so that writers never wait long behind it.
DELETE_BATCH = 500
#: Messages put aside that are kept; a flood of them must not fill the disk.
MAX_DEAD = 1000
#: Counted per message beside key and payload: the row itself and its place in the tree.
ROW_OVERHEAD_BYTES = 64

_VACUUM_PAGES = 256


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
    """What the outbox gave up, since the file was made.

    Attributes:
        droppable: Updates and heartbeats, for want of room; they go first.
        others: The oldest of the rest, for want of room.
        old: What had waited longer than `max_age_s`. After a crash and a rest as long, a few of them may have reached
            the reader before.
    """

    droppable: int = 0
    others: int = 0
    old: int = 0


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How an outbox stands.

    Attributes:
        messages: How many wait.
        bytes: Their size, which `max_bytes` bounds.
        oldest_s: For how many seconds the oldest has waited; 0 where nothing waits.
        dropped: What was given up, by all processes, since the file was made.
    """

    messages: int
    bytes: int
    oldest_s: float
    dropped: DroppedCounts


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
    of the oldest, and counts them; so it does with what has waited too long by the machine's clock. After a crash at
    any moment, what `append` returned for is there, once.

    A new file starts its ids at the wall clock in microseconds: should the file be deleted while the matcher's
    database stays, new ids still lie above every offset that the database holds.

    Args:
        path: The file; made on first use, as is its folder.
        max_bytes: Of the messages, `ROW_OVERHEAD_BYTES` each included; the file may be half as big again.
        max_age_s: Messages that have waited longer are dropped; None: they wait until there is no room.
        clock: Seconds since the Unix epoch; dates messages, dead ones and new files.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, max_age_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
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
                "INSERT INTO messages (droppable, size, kept_at, key, payload) VALUES (?, ?, ?, ?, ?)",
                (droppable, size, self._clock(), key, payload),
            ).lastrowid
            connection.execute("UPDATE totals SET waiting = waiting + 1, bytes = bytes + ?", (size,))
            self._drop_old(connection)
            self._make_room(connection)
        with self._appended:
            self._appended.notify_all()
        return int(row_id or 0)

    def read(self, after: int, limit: int) -> list[OutboxRow]:
        """The next messages in order; they stay. Those that have waited too long are dropped first.

        Args:
            after: Only ids above this.
            limit: At most so many.

        Raises:
            BusError: The file can't be read.
        """
        query = "SELECT id, key, payload FROM messages WHERE id > ? ORDER BY id LIMIT ?"
        with self._use() as connection:
            while self._has_old(connection):
                with self._transaction():
                    self._drop_old(connection)
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

    def status(self) -> OutboxStatus:
        """How it stands, in one look of some 10 us.

        Raises:
            BusError: The file can't be read.
        """
        query = (
            "SELECT waiting, bytes, (SELECT kept_at FROM messages ORDER BY id LIMIT 1),"
            " dropped_droppable, dropped_others, dropped_old FROM totals"
        )
        with self._use() as connection:
            waiting, size, kept_at, *dropped = connection.execute(query).fetchone()
        oldest_s = 0.0 if kept_at is None else max(0.0, self._clock() - kept_at)
        return OutboxStatus(waiting, size, oldest_s, DroppedCounts(*dropped))

    def depth(self) -> int:
        """How many messages wait."""
        return self.status().messages

    def bytes(self) -> int:
        """What `max_bytes` bounds: the size of all messages that wait."""
        return self.status().bytes

    @property
    def dropped(self) -> DroppedCounts:
        """What the outbox gave up, by all processes, since the file was made."""
        return self.status().dropped

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

    def _oldest_kept_at(self) -> float:
        return -math.inf if self._max_age_s is None else self._clock() - self._max_age_s

    def _has_old(self, connection: sqlite3.Connection) -> bool:
        oldest = connection.execute("SELECT kept_at FROM messages ORDER BY id LIMIT 1").fetchone()
        return oldest is not None and oldest[0] < self._oldest_kept_at()

    def _drop_old(self, connection: sqlite3.Connection) -> None:
        """Drops what has waited too long, of the `DELETE_BATCH` oldest messages."""
        if not self._has_old(connection):
            return
        limit = self._oldest_kept_at()
        batch = connection.execute("SELECT id, size, kept_at FROM messages ORDER BY id LIMIT ?", (DELETE_BATCH,))
        old = [(row_id, size) for row_id, size, kept_at in batch if kept_at < limit]
        connection.executemany("DELETE FROM messages WHERE id = ?", [(row_id,) for row_id, _ in old])
        connection.execute(
            "UPDATE totals SET waiting = waiting - ?1, bytes = bytes - ?2, dropped_old = dropped_old + ?1",
            (len(old), sum(size for _, size in old)),
        )

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
                    self._connection = open_outbox_file(self.path, self._clock)
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
