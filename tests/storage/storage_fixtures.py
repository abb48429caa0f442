"""Fixtures: databases made by the migrations. A plugin, since mypy takes one `conftest.py` in all."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from storage.database import Database
from tests.servers.postgresql import PostgreSQL, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A server of our own."""
    with postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgreSQL) -> str:
    """A database of the server's, emptied: one for each test would be 8 MB of files to write and to remove."""
    url = postgresql_server.url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that isn't there yet."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn, empty."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that the migrations have made."""
    path = tmp_path_factory.mktemp("migrated") / "migrated.db"
    Database.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def migrated_script(postgresql_server: PostgreSQL) -> str:
    """What makes in a third of the time of the migrations what they make on PostgreSQL."""
    url = postgresql_server.new_database()
    Database.open(url).close()
    return postgresql_server.dump(url)


@pytest.fixture
def database(url: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each kind of database in turn, with our schema."""
    if url.startswith("sqlite"):
        shutil.copy(request.getfixturevalue("migrated_file"), make_url(url).database or "")
    else:
        with psycopg.connect(url) as connection:
            connection.execute(request.getfixturevalue("migrated_script"))
    opened = Database.open(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def memory() -> Iterator[Database]:
    """A database that costs nothing to make, for laws that are tried many times."""
    opened = Database.open("sqlite://")
    yield opened
    opened.close()
