"""Opening, migrating, and what happens when the database refuses."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from storage.database import Database, NewerSchemaError, StorageError, alembic_config
from storage.matcher_state import load_tracklets
from storage.migrations import HEAD
from storage.models import Base
from storage.records import CameraRecord, StageStatus
from storage.trajectories import vehicles
from storage.writer import Writer
from tests.storage.storage_builders import START, assignment, store, tracklet

pytest_plugins = ("tests.storage.storage_fixtures",)


def _tables(database: Database) -> set[str]:
    with database.snapshot() as session:
        return set(inspect(session.connection()).get_table_names())


def test_up_down_up(database: Database) -> None:
    ours = set(Base.metadata.tables)
    assert _tables(database) == {*ours, "alembic_version"}
    with database.transaction() as session:
        command.downgrade(alembic_config(session.connection()), "base")
    assert _tables(database) == {"alembic_version"}
    with database.transaction() as session:
        command.upgrade(alembic_config(session.connection()), "head")
    assert _tables(database) == {*ours, "alembic_version"}


def test_the_newest_migration_is_the_head(database: Database) -> None:
    with database.snapshot() as session:
        scripts = ScriptDirectory.from_config(alembic_config(session.connection()))
        assert scripts.get_heads() == [HEAD]
        assert MigrationContext.configure(session.connection()).get_current_heads() == (HEAD,)


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    with database.snapshot() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []


def test_an_old_database_keeps_its_rows(url: str) -> None:
    database = Database(url)
    with database.transaction() as session:
        command.upgrade(alembic_config(session.connection()), "0001")
        for row in _ROWS_OF_0001:
            session.execute(text(row))
    database.close()
    migrated = Database.open(url)
    with migrated.transaction() as session:
        (found,) = load_tracklets(session, "main")
        assert found.assignment is not None
        assert (found.assignment.vehicle_id, found.assignment.decided_by) == ("v1", "matcher")
        made = Writer(session).correct("move", [assignment("t", "v2")], made_by="matcher", made_at=START)
        assert [vehicle.vehicle_id for vehicle in vehicles(session)] == ["v2"]
        assert made is not None
    with migrated.transaction() as session:
        command.downgrade(alembic_config(session.connection()), "0001")
        current = session.execute(text("SELECT vehicle_id FROM assignments WHERE is_current")).scalar_one()
    migrated.close()
    assert current == "v2"


_ROWS_OF_0001 = (
    "INSERT INTO tracklets VALUES ('t', 'main', 'gate', 's', 1, 'car', '{\"car\": 1.0}', '2026-01-01 12:00:00', "
    "'2026-01-01 12:00:01', 'left', NULL, 0)",
    "INSERT INTO vehicles VALUES ('v1', 'car', '2026-01-01 12:00:00', '2026-01-01 12:00:01')",
    "INSERT INTO assignments "
    "(tracklet_id, vehicle_id, reason, is_provisional, model_id, decided_at, evidence, is_current) "
    "VALUES ('t', 'v1', 'new', false, 'test', '2026-01-01 12:00:02', '{}', true)",
)


def test_many_may_open_a_new_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(Database.open, [url] * 4))
    for database in opened:
        assert _tables(database) >= set(Base.metadata.tables)
        database.close()


def test_opening_again_keeps_what_is_stored(database: Database, url: str) -> None:
    with database.transaction() as session:
        store(session, tracklet(), "v1")
    again = Database.open(url)
    with again.snapshot() as session:
        assert [vehicle.vehicle_id for vehicle in vehicles(session)] == ["v1"]
    again.close()


def test_a_copy_that_forgot_its_journal_mode_is_told_again(sqlite_url: str) -> None:
    path = make_url(sqlite_url).database or ""
    Database.open(sqlite_url).close()
    for mode in ("PRAGMA journal_mode = DELETE", "PRAGMA journal_mode"):
        with closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute(mode).fetchone()
        Database.open(sqlite_url).close()
    assert found == "wal"


def test_a_newer_schema_is_refused_in_one_line(database: Database, url: str) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerSchemaError, match=r"its schema is 9999, newer than this program's \d+") as caught:
        Database.open(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"missing/test\.db: unable to open database file"):
        Database.open(f"sqlite:///{tmp_path}/missing/test.db")
    assert not (tmp_path / "missing").exists()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database\n" * 100)
    with pytest.raises(StorageError, match="file is not a database"):
        Database.open(f"sqlite:///{tmp_path}/notes.txt")


def test_must_exist_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        Database.open(f"sqlite:///{tmp_path}/test.db", must_exist=True)
    assert list(tmp_path.iterdir()) == []


def test_must_exist_leaves_the_database_of_another_program_alone(url: str) -> None:
    if url.startswith("sqlite"):
        Path(make_url(url).database or "").touch()
    with pytest.raises(StorageError, match="holds nothing of this program"):
        Database.open(url, must_exist=True)
    plain = Database(url)
    assert _tables(plain) == set()
    plain.close()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "crossing.db", "postgresql://u:secret@h:port/d"])
def test_a_wrong_url_is_refused_and_its_password_kept(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        Database.open(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://u:secret@127.0.0.1:1/d", "postgresql://u@127.0.0.1:1/d?password=secret"])
def test_a_server_that_is_not_there(url: str) -> None:
    with pytest.raises(StorageError, match="Connection refused") as caught:
        Database.open(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_making_a_database_does_no_input_or_output(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path}/test.db").close()
    Database("postgresql://u:secret@127.0.0.1:1/d").close()
    assert list(tmp_path.iterdir()) == []


def test_an_error_rolls_everything_back(database: Database) -> None:
    def fail() -> None:
        with database.transaction() as session:
            store(session, tracklet(), "v1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.snapshot() as session:
        assert vehicles(session) == []


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StorageError, match="wanted an aware datetime"), database.transaction() as session:
        Writer(session).store_stage_status([StageStatus("matcher", START.replace(tzinfo=None), {})])


def test_readers_see_the_last_commit_while_a_writer_writes(database: Database) -> None:
    with database.transaction() as session:
        store(session, tracklet(number=1), "v1")
    with database.transaction() as writing:
        store(writing, tracklet(number=2), "v2")
        writing.flush()
        with database.snapshot() as reading:
            assert [vehicle.vehicle_id for vehicle in vehicles(reading)] == ["v1"]
        with database.transaction() as reading:
            assert [vehicle.vehicle_id for vehicle in vehicles(reading)] == ["v1"]
    with database.snapshot() as reading:
        assert [vehicle.vehicle_id for vehicle in vehicles(reading)] == ["v1", "v2"]


def test_a_snapshot_stands_still(database: Database) -> None:
    with database.snapshot() as reading:
        assert vehicles(reading) == []
        with database.transaction() as writing:
            store(writing, tracklet(), "v1")
        assert vehicles(reading) == []


def test_a_transaction_may_read_write_and_meet_another_writer(database: Database) -> None:
    with database.transaction() as first:
        assert vehicles(first) == []
        with database.transaction() as second:
            store(second, tracklet(number=2), "v2")
        store(first, tracklet(number=1), "v1")
    with database.snapshot() as session:
        assert len(vehicles(session)) == 2


def _fill(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("PRAGMA max_page_count = 1"))
        payload = bytes(100_000)
        Writer(session).store_dead_letter("sightings", 0, 1, payload, "test", START)


def test_a_full_disk_is_one_clear_error(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with pytest.raises(StorageError, match=r"test\.db: database or disk is full") as caught:
        _fill(database)
    assert caught.value.__cause__ is not None
    database.close()


def test_a_read_only_database_can_be_read_and_refuses_to_be_written(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    with database.transaction() as session:
        store(session, tracklet(), "v1")
    path = make_url(sqlite_url).database
    read_only = Database.open(f"sqlite:///file:{path}?mode=ro&uri=true")
    with read_only.snapshot() as session:
        assert len(vehicles(session)) == 1
    with pytest.raises(StorageError, match="readonly"), read_only.transaction() as session:
        Writer(session).register_cameras([CameraRecord("gate", "main", "visible")])
    read_only.close()
    database.close()


def test_a_locked_database_is_one_clear_error(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)

    def write_without_patience() -> None:
        with database.transaction() as waiting:
            waiting.execute(text("PRAGMA busy_timeout = 1"))
            Writer(waiting).register_cameras([CameraRecord("bridge", "main", "visible")])

    with database.transaction() as holding:
        Writer(holding).register_cameras([CameraRecord("gate", "main", "visible")])
        with pytest.raises(StorageError, match="database is locked"):
            write_without_patience()
    database.close()


def test_a_lock_that_can_not_be_made_is_told_in_one_line(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "test.db.lock").mkdir()
    with pytest.raises(StorageError, match=r"test\.db\.lock: "):
        Database.open(sqlite_url)


def test_what_is_committed_to_a_file_outlasts_a_power_cut(sqlite_url: str) -> None:
    # The outbox, which lets go of what is committed here, syncs each transaction: this file must do no less.
    database = Database.open(sqlite_url)
    with database.snapshot() as session:
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2
    database.close()
