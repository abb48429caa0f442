"""What passes by itself is told apart, tried again, and never waited for without end."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import event, inspect, text

from storage import engines
from storage.database import RETRY_PAUSES_S, Database, Session, StorageError, TransientStorageError
from storage.likeness import LikenessIndex
from storage.models import Base
from storage.records import CameraRecord
from storage.status import load_cameras
from storage.writer import Writer
from tests.storage.storage_builders import START

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers.postgresql import PostgreSQL

pytest_plugins = ("tests.storage.storage_fixtures",)

GATE, BRIDGE = CameraRecord("gate", "main", "visible"), CameraRecord("bridge", "main", "visible")


def _cameras(database: Database) -> list[str]:
    with database.snapshot() as session:
        return [camera.camera for camera in load_cameras(session)]


def _failing(times: int, with_what: Callable[[Session], None]) -> Callable[[Session], int]:
    """Work that writes something and is then broken off so many times; returns how often it was begun."""
    begun = 0

    def work(session: Session) -> int:
        nonlocal begun
        begun += 1
        Writer(session).register_cameras([GATE])
        if begun <= times:
            with_what(session)
        return begun

    return work


def _cut(session: Session) -> None:
    session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def _refuse(_session: Session) -> None:
    raise StorageError("no")


def _be_too_late(_session: Session) -> None:
    raise TransientStorageError("later")


@pytest.mark.integration
def test_work_that_was_cut_off_is_done_again_and_stored_once(postgresql_url: str) -> None:
    pauses: list[float] = []
    with closing(Database.open(postgresql_url)) as made, closing(Database(postgresql_url, sleep=pauses.append)) as one:
        assert one.retrying(_failing(2, _cut)) == 3
        assert tuple(pauses) == RETRY_PAUSES_S[:2]
        assert _cameras(made) == ["gate"]


def test_work_that_fails_each_time_is_given_up_and_stores_nothing(sqlite_url: str) -> None:
    pauses: list[float] = []
    Database.open(sqlite_url).close()
    with closing(Database(sqlite_url, sleep=pauses.append)) as database:
        with pytest.raises(TransientStorageError, match="later"):
            database.retrying(_failing(100, _be_too_late))
        assert tuple(pauses) == RETRY_PAUSES_S
        assert _cameras(database) == []


def test_what_is_refused_is_not_asked_again(memory: Database) -> None:
    work = _failing(1, _refuse)
    with pytest.raises(StorageError, match="no"):
        memory.retrying(work)
    with memory.transaction() as session:
        assert work(session) == 2


@pytest.mark.integration
def test_what_was_lost_while_it_was_committed_is_not_done_again(postgresql_url: str) -> None:
    Database.open(postgresql_url).close()
    pauses: list[float] = []
    begun: list[Session] = []

    def work(session: Session) -> None:
        begun.append(session)
        event.listen(session, "before_commit", _cut)

    with closing(Database(postgresql_url, sleep=pauses.append)) as database, pytest.raises(TransientStorageError):
        database.retrying(work)
    assert (len(begun), pauses) == (1, [])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("statement", "is_passing"),
    [
        ("SELECT pg_terminate_backend(pg_backend_pid())", True),
        ("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", True),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", True),
        ("DO $$ BEGIN RAISE SQLSTATE '57P03'; END $$", True),
        ("SET LOCAL statement_timeout = 10; SELECT pg_sleep(10)", True),
        ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", False),
        ("SELECT nothing FROM nowhere", False),
        ("SELECT 1 / 0", False),
    ],
)
def test_a_passing_trouble_is_told_from_a_refusal(postgresql_url: str, statement: str, *, is_passing: bool) -> None:
    with closing(Database(postgresql_url)) as database:
        with pytest.raises(StorageError) as caught, database.transaction() as session:
            session.connection().exec_driver_sql(statement)
        assert isinstance(caught.value, TransientStorageError) == is_passing
        assert "\n" not in str(caught.value)


def test_a_lock_passes_and_a_full_disk_does_not(sqlite_url: str) -> None:
    def write(impatience: str) -> None:
        with database.transaction() as session:
            session.execute(text(impatience))
            Writer(session).store_dead_letter("t", 0, 1, bytes(100_000), "r", START)

    with closing(Database.open(sqlite_url)) as database:
        with database.transaction() as holding:
            Writer(holding).register_cameras([GATE])
            with pytest.raises(TransientStorageError, match="locked"):
                write("PRAGMA busy_timeout = 1")
        with pytest.raises(StorageError, match="full") as caught:
            write("PRAGMA max_page_count = 1")
        assert not isinstance(caught.value, TransientStorageError)


def _write_to_a_frozen(server: PostgreSQL, database: Database) -> None:
    with database.transaction() as session:
        Writer(session).register_cameras([BRIDGE])
        with server.frozen():
            session.execute(text("SELECT 1"))


@pytest.mark.integration
def test_a_server_that_is_frozen_is_not_waited_for_without_end(
    postgresql_server: PostgreSQL, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "SILENCE_S", 0.2)
    with (
        closing(Database.open(postgresql_url, statement_timeout_s=0.3)) as asked,
        pytest.raises(TransientStorageError, match=r"has not answered for 0\.5 s"),
        asked.snapshot() as session,
        postgresql_server.frozen(),
    ):
        session.execute(text("SELECT 1"))
    monkeypatch.setattr(engines, "STATEMENT_TIMEOUT_S", 0.3)
    with closing(Database.open(f"{postgresql_url}?connect_timeout=2")) as database:
        with pytest.raises(TransientStorageError, match=r"has not answered for 0\.5 s"):
            _write_to_a_frozen(postgresql_server, database)
        with (
            postgresql_server.frozen(),
            pytest.raises(TransientStorageError, match="timeout expired"),
            database.transaction() as session,
        ):
            session.execute(text("SELECT 1"))
        with database.transaction() as session:
            Writer(session).register_cameras([GATE])
        assert _cameras(database) == ["gate"]


@pytest.mark.integration
def test_every_wait_of_a_session_has_an_end_on_both_sides(postgresql_url: str) -> None:
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "tcp_keepalives_idle", "tcp_user_timeout")

    def settings(session: Session) -> list[str]:
        return [str(session.execute(text(f"SHOW {name}")).scalar_one()) for name in names]

    with closing(Database.open(postgresql_url)) as database:
        with database.transaction() as session:
            ordinary = settings(session)
            driver = session.connection().connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            assert "tcp_user_timeout=30000" in driver.info.dsn
        with database.snapshot() as session:
            assert settings(session)[:2] == ["1h", "1h"]
        with database.transaction() as session:
            assert settings(session) == ordinary == ["1min", "2min", "10", "30000"]
    with closing(Database.open(postgresql_url, statement_timeout_s=20.0)) as database:
        for begun in (database.transaction, database.snapshot):
            with begun() as session:
                assert settings(session)[:2] == ["20s", "2min"]
        # All looks are read at once, the first time.
        with database.snapshot() as session:
            LikenessIndex(is_lasting=False).refresh(session)
            assert settings(session)[0] == "5min"


_OPEN = "import sys; from storage.database import Database; Database.open(sys.argv[1]).close()"


def test_two_processes_may_migrate_at_once(url: str) -> None:
    both = [subprocess.Popen([sys.executable, "-c", _OPEN, url], stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    with closing(Database.open(url, must_exist=True)) as database, database.snapshot() as session:
        assert set(inspect(session.connection()).get_table_names()) >= set(Base.metadata.tables)
