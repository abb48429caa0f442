"""A database that is open: engine, transactions, and the schema brought up to date.

SQLite runs in WAL mode, so that readers never wait for the writer. Its `transaction` reads without a lock until the
first write, which takes the write lock at once: a transaction that began by reading and then had to wait for another
writer would otherwise fail for good, whatever the busy timeout.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from storage.engines import begin_snapshot, is_in_memory, make_engine, parse, patient, secrets, shown, use_wal
from storage.errors import (
    NewerSchemaError,
    OffsetConflictError,
    StorageError,
    TransientStorageError,
    VehicleNotFoundError,
)
from storage.migrations import HEAD
from storage.passing_troubles import passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.config import Config

__all__ = [
    "Database",
    "NewerSchemaError",
    "OffsetConflictError",
    "Session",
    "StorageError",
    "TransientStorageError",
    "VehicleNotFoundError",
]

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
#: How long one program waits for another's migration of a SQLite file; `engines.LONG_TIMEOUT_S` with PostgreSQL.
MIGRATION_TIMEOUT_S = 60.0
#: What `Database.retrying` waits before each further attempt: a server's restart takes a second or two.
RETRY_PAUSES_S = (0.1, 0.5, 2.0, 5.0)
# Any number will do, as long as every version of this program takes the same.
_MIGRATION_LOCK = 0x5645_4849

_Result = TypeVar("_Result")


class Database:
    """A database by its URL. Making one does no I/O.

    Args:
        url: `sqlite:///FILE`, `sqlite://` (in memory) or `postgresql://USER:PASSWORD@HOST/NAME`.
        statement_timeout_s: How long a server may take for any statement, those of `snapshot` too: somebody waits for
            the answer. None: as `transaction` and `snapshot` have it.
        sleep: Waits so many seconds between two attempts of `retrying`.

    Raises:
        StorageError: No such URL, or its driver isn't installed.
    """

    def __init__(
        self, url: str, *, statement_timeout_s: float | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url = parse(url)
        self.name = shown(make_url(url))
        self._is_patient = statement_timeout_s is None
        self._sleep = sleep
        try:
            self._engine = make_engine(self.url, statement_timeout_s)
        except ModuleNotFoundError as error:
            raise StorageError(f"database {self.name}: {error}; pip install 'vehicle-tracker[postgresql]'") from error
        except (SQLAlchemyError, TypeError, ValueError) as error:
            raise StorageError(f"database {self.name}: {self._line(error)}") from error

    @classmethod
    def open(cls, url: str, *, must_exist: bool = False, statement_timeout_s: float | None = None) -> Database:
        """Connects, and migrates to the newest schema; several programs may do so at once.

        Args:
            url: As for `Database`.
            must_exist: Refuse a database that this program has never written to, rather than make one of it.
            statement_timeout_s: As for `Database`.

        Raises:
            NewerSchemaError: A later version of the program has migrated this database.
            StorageError: It can't be opened, or its migration failed.
        """
        database = cls(url, statement_timeout_s=statement_timeout_s)
        try:
            with database._translated():
                database._migrate(must_exist=must_exist)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that is committed at the end, and rolled back by any exception.

        Blocks at its first write until other writers are done, `engines.BUSY_TIMEOUT_S` at most (SQLite), and at any
        statement for `engines.STATEMENT_TIMEOUT_S` (PostgreSQL).

        Raises:
            TransientStorageError: The same may succeed in a moment.
            StorageError: The database refused; chained to what the library said.
        """
        with self._translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def retrying(self, work: Callable[[Session], _Result]) -> _Result:
        """Does some work in a transaction of its own; again, in a new one, where something that passes broke it off.

        Blocks for the sum of `RETRY_PAUSES_S` longer than `transaction` at most. What was broken off while it was
        being committed is not tried again: it may be stored already.

        Args:
            work: Called with a session once or several times; what it does outside of it must bear repetition.

        Raises:
            TransientStorageError: It failed each time; or whether it was committed isn't known.
            StorageError: The database refused.
        """
        for pause_s in RETRY_PAUSES_S:
            is_done = False
            try:
                with self.transaction() as session:
                    result = work(session)
                    is_done = True
            except TransientStorageError:
                if is_done:
                    raise
                self._sleep(pause_s)
            else:
                return result
        with self.transaction() as session:
            return work(session)

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session for reading: all its statements see the database as it was at the first one.

        A question may take `engines.LONG_TIMEOUT_S`, unless `statement_timeout_s` says less.

        Raises:
            TransientStorageError: The same may succeed in a moment.
            StorageError: The database refused; chained to what the library said.
        """
        with self._translated(), self._engine.connect() as connection:
            begin_snapshot(connection)
            patience = patient(connection) if self._is_patient else nullcontext()
            with patience, Session(connection, autoflush=False) as session:
                yield session

    def close(self) -> None:
        """Closes every connection. Safe to call twice."""
        self._engine.dispose()

    def _migrate(self, *, must_exist: bool) -> None:
        if must_exist:
            self._check_file()
        with self._engine.connect() as connection:
            if self._is_current(connection):
                if not must_exist:
                    use_wal(connection)
                return
            if must_exist and not _revisions(connection):
                raise StorageError(f"database {self.name}: holds nothing of this program")
        with _migration_lock(self._engine) as connection:
            if not self._is_current(connection):
                from alembic import command

                command.upgrade(alembic_config(connection), "head")

    def _check_file(self) -> None:
        # SQLite makes the file it doesn't find. Of a file: URI it is told in the URI whether it may.
        path = self.url.database
        if self.url.get_backend_name() == "sqlite" and path and "uri" not in self.url.query and not Path(path).exists():
            raise StorageError(f"database {self.name}: no such file")

    def _is_current(self, connection: Connection) -> bool:
        found = _revisions(connection)
        if found == {HEAD}:
            return True  # without Alembic, whose import takes as long as everything else here
        from alembic.script import ScriptDirectory

        known = {script.revision for script in ScriptDirectory.from_config(alembic_config(connection)).walk_revisions()}
        if not found <= known:
            raise NewerSchemaError(
                f"database {self.name}: its schema is {', '.join(sorted(found))}, newer than this program's {HEAD}; "
                "update the program"
            )
        return False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, TimeoutError) as error:
            kind = TransientStorageError if passes(error) else StorageError
            raise kind(f"database {self.name}: {self._line(error)}") from error

    def _line(self, error: Exception) -> str:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        line = " ".join(str(cause).split())
        for secret in secrets(self.url):
            line = line.replace(secret, "***")
        return line


def _revisions(connection: Connection) -> set[str]:
    """What Alembic has noted down as applied; nothing in a database that it never saw."""
    if not inspect(connection).has_table("alembic_version"):
        return set()
    return set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())


def alembic_config(connection: Connection) -> Config:
    """What Alembic needs to work on that connection; no `alembic.ini` is read."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _migration_lock(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that no other migration can run beside."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection, patient(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            yield connection
        return
    with _file_lock(engine), engine.connect() as connection:
        use_wal(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


@contextmanager
def _file_lock(engine: Engine) -> Iterator[None]:
    # SQLite's own lock is not enough: two that switch a new file to WAL at once fail without waiting.
    if is_in_memory(engine.url):
        yield
        return
    from filelock import FileLock

    lock = FileLock(f"{engine.url.database}.lock", timeout=MIGRATION_TIMEOUT_S)
    try:
        held = lock.acquire()
    except TimeoutError:
        raise
    except OSError as error:
        raise StorageError(f"{lock.lock_file}: {error.strerror or error}") from error
    with held:
        yield
