"""A database that is open: engine, transactions, and the schema brought up to date.

SQLite runs in WAL mode, so that readers never wait for the writer. Its `transaction` reads without a lock until the
first write, which takes the write lock at once: a transaction that began by reading and then had to wait for another
writer would otherwise fail for good, whatever the busy timeout.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from storage.errors import NewerSchemaError, OffsetConflictError, StorageError, VehicleNotFoundError
from storage.migrations import HEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config

__all__ = ["Database", "NewerSchemaError", "OffsetConflictError", "Session", "StorageError", "VehicleNotFoundError"]

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
#: How long a writer waits for another one.
BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
MIGRATION_TIMEOUT_S = 60.0
# Any number will do, as long as every version of this program takes the same.
_MIGRATION_LOCK = 0x5645_4849
_WANTED = "wanted sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
_SECRET_PARAMETERS = ("password", "sslpassword")


class Database:
    """A database by its URL. Making one does no I/O.

    Args:
        url: `sqlite:///FILE`, `sqlite://` (in memory) or `postgresql://USER:PASSWORD@HOST/NAME`.

    Raises:
        StorageError: No such URL, or its driver isn't installed.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.name = _shown(make_url(url))
        try:
            self._engine = _engine(self.url)
        except ModuleNotFoundError as error:
            raise StorageError(f"database {self.name}: {error}; pip install 'vehicle-tracker[postgresql]'") from error
        except (SQLAlchemyError, TypeError, ValueError) as error:
            raise StorageError(f"database {self.name}: {self._line(error)}") from error

    @classmethod
    def open(cls, url: str, *, must_exist: bool = False) -> Database:
        """Connects, and migrates to the newest schema; several programs may do so at once.

        Args:
            url: As for `Database`.
            must_exist: Refuse a database that this program has never written to, rather than make one of it.

        Raises:
            NewerSchemaError: A later version of the program has migrated this database.
            StorageError: It can't be opened, or its migration failed.
        """
        database = cls(url)
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

        Blocks at its first write until other writers are done, `BUSY_TIMEOUT_S` at most (SQLite).

        Raises:
            StorageError: The database refused; chained to what the library said.
        """
        with self._translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[Session]:
        """A session for reading: all its statements see the database as it was at the first one.

        Raises:
            StorageError: The database refused; chained to what the library said.
        """
        with self._translated(), self._engine.connect() as connection:
            _begin_snapshot(connection)
            with Session(connection, autoflush=False) as session:
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
                    _use_wal(connection)
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
            raise StorageError(f"database {self.name}: {self._line(error)}") from error

    def _line(self, error: Exception) -> str:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        line = " ".join(str(cause).split())
        for secret in _secrets(self.url):
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


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        # The text may hold a password that nothing can find in it: it isn't shown.
        raise StorageError(f"database: no URL; {_WANTED}") from error
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StorageError(f"database {_shown(parsed)}: {_WANTED}")
    return parsed.set(drivername="sqlite")


def _shown(url: URL) -> str:
    hidden = {name: "***" for name in _SECRET_PARAMETERS if name in url.query}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _secrets(url: URL) -> list[str]:
    values = [url.password, *(url.query.get(name) for name in _SECRET_PARAMETERS)]
    return [str(value) for value in values if value]


def _is_in_memory(url: URL) -> bool:
    return url.database in {None, "", ":memory:"}


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S}
        # A server that was restarted must not cost the next transaction. Whatever the server's default is, who has
        # waited for others to decide must then see what they decided: a snapshot would be older than that.
        return create_engine(url, connect_args=arguments, pool_pre_ping=True, isolation_level="READ COMMITTED")
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "isolation_level": "IMMEDIATE"}}
    if _is_in_memory(url):
        # One connection for all, or every thread would have a database of its own.
        options["poolclass"] = StaticPool
        options["connect_args"]["check_same_thread"] = False
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - any DBAPI connection
    # In WAL mode NORMAL loses no consistency; a power cut may lose the last transactions, which the bus sends again
    # because their offsets are lost with them.
    for setting in ("foreign_keys = ON", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {setting}")


def _use_wal(connection: Connection) -> None:
    # The file remembers it; but a copy made by SQLite's own backup has forgotten.
    if connection.dialect.name == "sqlite":
        connection.commit()
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.commit()


def _begin_snapshot(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN DEFERRED")
    else:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


@contextmanager
def _migration_lock(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that no other migration can run beside."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            yield connection
        return
    with _file_lock(engine), engine.connect() as connection:
        _use_wal(connection)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


@contextmanager
def _file_lock(engine: Engine) -> Iterator[None]:
    # SQLite's own lock is not enough: two that switch a new file to WAL at once fail without waiting.
    if _is_in_memory(engine.url):
        yield
        return
    from filelock import FileLock

    with FileLock(f"{engine.url.database}.lock", timeout=MIGRATION_TIMEOUT_S):
        yield
