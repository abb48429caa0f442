"""How a database is connected to: URLs, pools, and how long anything may take.

Every wait ends: for a connection, for a lock, for an answer of a server that is frozen or cut off, and, on the server,
for a client that is. Without the last, the locks of a machine that lost its power would stand for two hours.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from storage.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How long a writer waits for another one (SQLite).
BUSY_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10
#: How long a statement of a transaction may take the server; the longest that a matcher waits for a lock is half of it.
STATEMENT_TIMEOUT_S = 60.0
#: The same for what may take long: a migration's step, a question about everything.
LONG_TIMEOUT_S = 3600.0
#: How long after these the server may still be silent; then its connection is given up.
SILENCE_S = 15.0
#: How long a transaction may do nothing, its locks held: a matcher that stands still must not hold up the next one.
IDLE_TIMEOUT_S = 120.0
#: How long either side goes on believing in the other when nothing comes back over the network.
NETWORK_TIMEOUT_S = 30
#: Connections kept, and so many more when all are busy: a process has a thread or two that use the database.
POOL_SIZE = 5
MAX_OVERFLOW = 5
#: How long a thread waits for one of them.
POOL_TIMEOUT_S = 30.0
#: Connections older than this are made anew: firewalls forget, and servers' processes grow.
POOL_RECYCLE_S = 1800

_WANTED = "wanted sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
_SECRET_PARAMETERS = ("password", "sslpassword")
# Silence is noticed after a third of the time, and believed after two more questions.
_KEEPALIVES = {
    "keepalives_idle": NETWORK_TIMEOUT_S // 3,
    "keepalives_interval": NETWORK_TIMEOUT_S // 3,
    "keepalives_count": 2,
}
_CLIENT_SETTINGS = {
    "application_name": "vehicle-tracker",
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives": 1,
    **_KEEPALIVES,
    "tcp_user_timeout": NETWORK_TIMEOUT_S * 1000,
}


def parse(url: str) -> URL:
    """A database's URL with the driver that we use.

    Raises:
        StorageError: It is no URL, or of no database that we know.
    """
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError) as error:
        # The text may hold a password that nothing can find in it: it isn't shown.
        raise StorageError(f"database: no URL; {_WANTED}") from error
    backend = parsed.get_backend_name()
    if backend in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StorageError(f"database {shown(parsed)}: {_WANTED}")
    return parsed.set(drivername="sqlite")


def shown(url: URL) -> str:
    """The URL without its passwords."""
    hidden = {name: "***" for name in _SECRET_PARAMETERS if name in url.query}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def secrets(url: URL) -> list[str]:
    """The URL's passwords, which must not be told."""
    values = [url.password, *(url.query.get(name) for name in _SECRET_PARAMETERS)]
    return [str(value) for value in values if value]


def is_in_memory(url: URL) -> bool:
    """Whether there is no file."""
    return url.database in {None, "", ":memory:"}


def make_engine(url: URL, statement_timeout_s: float | None = None) -> Engine:
    """The engine for a URL of `parse`; it connects to nothing yet.

    Args:
        url: Of the database.
        statement_timeout_s: Of a server; None: `STATEMENT_TIMEOUT_S`.
    """
    if url.get_backend_name() == "postgresql":
        return _postgresql(url, STATEMENT_TIMEOUT_S if statement_timeout_s is None else statement_timeout_s)
    return _sqlite(url)


def use_wal(connection: Connection) -> None:
    """Tells a SQLite file to keep a write-ahead log."""
    # The file remembers it; but a copy made by SQLite's own backup has forgotten.
    if connection.dialect.name == "sqlite":
        connection.commit()
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.commit()


@contextmanager
def patient(connection: Connection, timeout_s: float | None = None) -> Iterator[None]:
    """Inside, a statement may take longer than its engine says. A transaction must have begun.

    Args:
        connection: Of any database.
        timeout_s: So long; None: `LONG_TIMEOUT_S`.
    """
    if connection.dialect.name == "sqlite":
        yield
        return
    timeout_s = LONG_TIMEOUT_S if timeout_s is None else timeout_s
    names = ("statement_timeout", "idle_in_transaction_session_timeout")
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = {int(timeout_s * 1000)}" for name in names))
    driver: Any = connection.connection.driver_connection
    ordinary_s, driver.patience_s = driver.patience_s, timeout_s + SILENCE_S
    try:
        yield
    finally:
        driver.patience_s = ordinary_s


def _postgresql(url: URL, statement_timeout_s: float) -> Engine:
    from storage.patient_connection import PatientConnection

    def connect(_dialect: object, _record: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401 - any DBAPI connection
        connection = PatientConnection.connect(*arguments, **named)
        connection.patience_s = statement_timeout_s + SILENCE_S
        return connection

    def prepare(connection: Any, _record: object) -> None:  # noqa: ANN401 - any DBAPI connection
        # Here rather than in the connection's options, which a pooler between us and the server refuses.
        settings = {
            "statement_timeout": int(statement_timeout_s * 1000),
            "idle_in_transaction_session_timeout": int(IDLE_TIMEOUT_S * 1000),
            **{f"tcp_{name}": value for name, value in _KEEPALIVES.items()},
            "tcp_user_timeout": NETWORK_TIMEOUT_S * 1000,
        }
        connection.execute("; ".join(f"SET {name} = {value}" for name, value in settings.items()))
        connection.commit()

    engine = create_engine(
        url,
        # What the URL itself says goes first.
        connect_args={name: value for name, value in _CLIENT_SETTINGS.items() if name not in url.query},
        pool_size=POOL_SIZE,
        max_overflow=MAX_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=POOL_RECYCLE_S,
        # A server that was restarted must not cost the next transaction.
        pool_pre_ping=True,
        # Whatever the server's default is, who has waited for others to decide must then see what they decided: a
        # snapshot would be older than that.
        isolation_level="READ COMMITTED",
    )
    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", prepare)
    return engine


def _sqlite(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S, "isolation_level": "IMMEDIATE"}}
    if is_in_memory(url):
        # One connection for all, or every thread would have a database of its own.
        options["poolclass"] = StaticPool
        options["connect_args"]["check_same_thread"] = False
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - any DBAPI connection
    # FULL: what is committed outlasts a power cut, for a sync of some 2 ms a transaction. The outbox deletes what the
    # matcher has committed, and syncs that: with NORMAL, the last transactions would be nowhere.
    # What is removed is overwritten: a forgotten vehicle's vectors would lie in the file until something took their
    # place.
    for setting in ("foreign_keys = ON", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {setting}")


def begin_snapshot(connection: Connection) -> None:
    """Begins a transaction that only reads, and sees nothing that is committed after its first statement."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN DEFERRED")
    else:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
