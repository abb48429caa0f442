"""A PostgreSQL of our own, on the loopback interface, that can be stopped, cut off, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tests.servers.need import absent, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_USER = "postgres"
_COMMAND_TIMEOUT_S = 60
#: What no test is about, and costs a tenth of a second a transaction on a busy disk.
_SETTINGS = {"listen_addresses": "127.0.0.1", "fsync": "off"}


@dataclass
class PostgreSQL:
    """A server; `postgresql` makes one.

    Attributes:
        folder: Its data, log and socket.
        port: Where it listens.
        settings: Of `postgresql.conf`, by name.
    """

    folder: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Of the database that every server has; the password is never asked for."""
        return f"postgresql://{_USER}:secret@127.0.0.1:{self.port}/postgres"

    def new_database(self) -> str:
        """Makes a database, and returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            name = f"made{len(connection.execute('SELECT 1 FROM pg_database').fetchall())}"
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"{self.url.removesuffix('postgres')}{name}"

    def dump(self, url: str) -> str:
        """What makes a database of this server's as it is now, in one script for an empty one."""
        text = subprocess.check_output([_binaries() / "pg_dump", "--inserts", "--schema=public", url], text=True)
        # Lines with a backslash are for psql alone, and the schema is there in every empty database. The script leaves
        # its session without a search path.
        lines = (line for line in text.splitlines() if not line.startswith(("\\", "CREATE SCHEMA public")))
        return "\n".join((*lines, "RESET search_path;"))

    def is_running(self) -> bool:
        """Whether anybody listens."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def data(self) -> Path:
        """The cluster's files."""
        return self.folder / "data"

    def make(self) -> None:
        """Makes the cluster's files."""
        # `--no-sync`, since nobody cuts the power in a test.
        _run("initdb", "-D", self.data, "-A", "trust", "-U", _USER, "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Returns once the server answers."""
        settings = " ".join(f"-c {name}={value}" for name, value in (_SETTINGS | self.settings).items())
        options = f"-p {self.port} -k {self.folder} {settings}"
        _run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Returns once the server has ended.

        Args:
            mode: `immediate` is what a crash is; `fast` tells clients that an administrator does it.
        """
        _run("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def restart(self, mode: str = "immediate") -> None:
        """Stops it, and starts it again."""
        self.stop(mode)
        self.start()

    def cut_connections(self) -> int:
        """Ends every other client's connection in the middle of what it does; returns how many there were."""
        others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(f"SELECT count(pg_terminate_backend(pid)) {others}").fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the server answers nobody, though the kernel still takes what is sent to it."""
        stopped = self._processes()
        _send(stopped, signal.SIGSTOP)
        try:
            yield
        finally:
            _send(stopped, signal.SIGCONT)

    def _processes(self) -> list[int]:
        postmaster = int((self.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="utf-8").split()
        return [postmaster, *map(int, children)]


def _send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        # A connection's process may have been about to end; the server buries it once it goes on.
        with suppress(ProcessLookupError):
            os.kill(process, number)


@contextmanager
def postgresql(folder: Path | None = None, **settings: str) -> Iterator[PostgreSQL]:
    """A server that runs, and is gone afterwards; the test is skipped where PostgreSQL is absent.

    Args:
        folder: Empty, for its files; a new one in the system's temporary folder by default. Its parents must be open
            to everybody, since the server won't run as root and runs as `postgres` then.
        settings: Of `postgresql.conf`.
    """
    _binaries()
    made = folder or Path(tempfile.mkdtemp(prefix="postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(made, _USER, _USER)
    server = PostgreSQL(made, free_port(), settings)
    try:
        server.make()
        server.start()
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(made, ignore_errors=True)


def _binaries() -> Path:
    found = shutil.which("pg_config")
    if found is None:
        absent("PostgreSQL is absent: apt-get install postgresql")
    return Path(subprocess.check_output([found, "--bindir"], text=True).strip())


def _run(program: str, *arguments: str | Path) -> None:
    # The server refuses to run as root.
    account: dict[str, Any] = {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [_binaries() / program, *arguments]
    # No pipe: the server would inherit it, and whoever reads to its end waits for ever.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=_COMMAND_TIMEOUT_S, **account)
