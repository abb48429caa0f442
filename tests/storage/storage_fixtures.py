"""Fixtures: databases made by the migrations. A plugin, since mypy takes one `conftest.py` in all."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from storage.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER = "postgres"


def _binaries() -> Path:
    found = shutil.which("pg_config")
    if found is None:
        reason = "PostgreSQL is absent: apt-get install postgresql"
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(subprocess.check_output([found, "--bindir"], text=True).strip())


def _run(*command: str | Path) -> None:
    # The server refuses to run as root.
    account: dict[str, Any] = {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
    # No pipe: the server would inherit it, and whoever reads to its end waits for ever.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60, **account)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """A server of our own, as a URL that a database's name is added to."""
    binaries, folder, port = _binaries(), Path(tempfile.mkdtemp(prefix="storage-postgresql-")), _free_port()
    data, log = folder / "data", folder / "log"
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER, _USER)
        _run(binaries / "initdb", "-D", data, "-A", "trust", "-U", _USER, "-E", "UTF8", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        _run(binaries / "pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        yield f"postgresql://{_USER}:secret@127.0.0.1:{port}/"
        _run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """A database of the server's, emptied: one for each test would be 8 MB of files to write and to remove."""
    url = f"{postgresql_server}postgres"
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


@pytest.fixture
def database(url: str, migrated_file: Path) -> Iterator[Database]:
    """Each kind of database in turn, with our schema."""
    if url.startswith("sqlite"):
        shutil.copy(migrated_file, make_url(url).database or "")
    opened = Database.open(url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def memory() -> Iterator[Database]:
    """A database that costs nothing to make, for laws that are tried many times."""
    opened = Database.open("sqlite://")
    yield opened
    opened.close()
