"""What the database's hot questions cost once millions of tracklets lie in it, and which indexes answer them.

    nice -n 19 python benchmarks/query_plans.py --rows 5000000
    nice -n 19 python benchmarks/query_plans.py --rows 1000000 --sqlite

Makes a database of its own in a temporary folder and removes it afterwards: about 2 GB per million rows. Each row
stands for a tracklet with one sighting, one vector and one decision; four make a vehicle, two a second. The questions
are asked through the functions that the program itself uses; a table of which nearly all is read is named.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, Engine, event, select, text
from sqlalchemy.orm import Session

from storage import engines
from storage.blobs import encode_path
from storage.crop_store import CropStore
from storage.database import Database
from storage.explanation import explain
from storage.history import corrections
from storage.matcher_state import load_assignments_after, load_operator_decisions, load_paths, load_tracklets
from storage.models import AuditRow, Base
from storage.retention import Limits, Retention
from storage.trajectories import trajectory, vehicles
from streamer.matcher.learner import MEMORY

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
#: Between two tracklets.
STEP_S = 0.5
REGION = "r1"
VECTOR_BYTES = 512
#: A table of which more than this share is read has no index that helps.
WHOLE = 0.5
#: Of smaller tables it makes no difference.
SMALL = 1000
_USER = "postgres"


@dataclass(frozen=True, slots=True)
class Words:
    """What the two kinds of SQL call differently; `{}` stands for the row's number, or for seconds."""

    moment: str
    vehicle: str
    blob: str
    is_true: str


POSTGRESQL = Words(
    "timestamptz '2026-01-01 00:00:00+00' + make_interval(secs => {})",
    "lpad(to_hex(({} * 2654435761) % 4294967296), 8, '0') || '-0000-5000-8000-' || lpad(to_hex({}), 12, '0')",
    "decode('{}', 'hex')",
    "true",
)
SQLITE = Words(
    "strftime('%Y-%m-%d %H:%M:%f000', '2026-01-01', printf('%+f seconds', {}))",
    "printf('%08x-0000-5000-8000-%012x', ({} * 2654435761) % 4294967296, {})",
    "X'{}'",
    "1",
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        name: In the table.
        ask: Asks it through the program's own functions.
        is_hot: Whether it is asked again and again, or while somebody waits.
    """

    name: str
    ask: Callable[[Database], object]
    is_hot: bool = True


@dataclass(slots=True)
class Cost:
    """What a question took.

    Attributes:
        first_s: The first time it was asked.
        again_s: The second time.
        statements: As sent, with their parameters.
        indexes: That were used.
        whole: Tables of which nearly all was read.
    """

    first_s: float = 0.0
    again_s: float = 0.0
    statements: list[tuple[str, Any]] = field(default_factory=list)
    indexes: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)


#: When each vehicle was seen first and last: lists are ordered by it.
_SEEN = """
UPDATE vehicles SET first_seen = seen.first_at, last_seen = seen.last_at FROM (
    SELECT a.vehicle_id, min(t.started_at) AS first_at, max(t.ended_at) AS last_at
    FROM assignments a JOIN tracklets t ON t.tracklet_id = a.tracklet_id WHERE a.is_current GROUP BY a.vehicle_id
) AS seen WHERE seen.vehicle_id = vehicles.vehicle_id
"""


def fill(
    database: Database, rows: int, words: Words, *, write_vectors: Callable[[Connection], object] | None = None
) -> None:
    """Writes so many tracklets with all that hangs on them; the indexes are made afterwards, which is quicker.

    Args:
        database: Empty.
        rows: Tracklets.
        words: Of its kind of SQL.
        write_vectors: Writes the embeddings; without, all vectors are zero.
    """
    indexes = [index for table in Base.metadata.tables.values() for index in table.indexes]
    with database.transaction() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica; SET LOCAL statement_timeout = 0")
        for index in indexes:
            index.drop(connection)
        for statement in _rows(rows, words):
            if write_vectors is None or not statement.startswith("INSERT INTO embeddings "):
                connection.execute(text(statement.replace(":", r"\:")))
        if write_vectors is not None:
            write_vectors(connection)
        for index in indexes:
            index.create(connection)
    with database.transaction() as session:
        session.connection().exec_driver_sql("SET LOCAL statement_timeout = 0" if words is POSTGRESQL else "SELECT 1")
        session.execute(text(_SEEN))
        session.execute(text("ANALYZE"))


def _path() -> bytes:
    """Eight seconds of a path, three points a second."""
    frames = np.arange(0, 240, 10)
    boxes = np.linspace((0, 0, 80, 60), (1800, 400, 1900, 500), len(frames), dtype=np.float32)
    return encode_path(frames, BEGIN.timestamp() + frames / 30, boxes)


def _rows(rows: int, words: Words) -> Iterator[str]:
    tracklet = "'c' || ((i * 7 + i / 100) % 100) || '/20260101T000000/' || i"
    vehicle = words.vehicle.format(*["(i / 400 * 100 + i % 100)"] * 2)
    begins, ends = words.moment.format(f"i * {STEP_S}"), words.moment.format(f"i * {STEP_S} + 8")
    camera, region = "'c' || ((i * 7 + i / 100) % 100)", "'r' || (((i * 7 + i / 100) % 100) / 25)"

    def insert(table: str, columns: str, values: str, count: int = rows) -> str:
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {count - 1})"
        if words is POSTGRESQL:
            numbers = f"WITH n(i) AS (SELECT generate_series(CAST(0 AS bigint), {count - 1}))"
        return f"INSERT INTO {table} ({columns}) {numbers} SELECT {values} FROM n"

    vector = words.blob.format(bytes(VECTOR_BYTES).hex())
    yield insert(
        "tracklets",
        "tracklet_id, region, camera, session, number, vehicle_class, class_votes, started_at, ended_at, end_reason, "
        "context_image, last_sequence, is_decided",
        f"{tracklet}, {region}, {camera}, '20260101T000000', i, 'car', '{{\"car\": 1.0}}', {begins}, {ends}, 'left', "
        f"'context/' || i || '.jpg', 0, {words.is_true}",
    )
    yield insert(
        "sightings",
        "sighting_id, tracklet_id, sequence, path",
        f"{tracklet} || '/0', {tracklet}, 0, {words.blob.format(_path().hex())}",
    )
    yield insert(
        "embeddings",
        "embedding_id, sighting_id, tracklet_id, modality, model_id, vector, quality, captured_at, x1, y1, x2, y2, "
        "crop_image",
        f"i + 1, {tracklet} || '/0', {tracklet}, 'visible', 'porsche-small', {vector}, 0.5, {ends}, "
        "1, 2, 3, 4, 'crops/' || i || '.jpg'",
    )
    yield insert(
        "vehicles", "vehicle_id, vehicle_class", f"{words.vehicle.format('i', 'i')}, 'car'", -(-rows // 4) + 99
    )
    yield insert(
        "corrections",
        "correction_id, kind, made_by, made_at, note",
        f"i + 1, 'move', 'anna', {begins}, ''",
        rows // 1000,
    )
    corrected = f"i % 1000 = 999 AND i / 1000 < {rows // 1000}"
    yield insert(
        "assignments",
        "assignment_id, tracklet_id, vehicle_id, reason, is_provisional, score, margin, model_id, decided_at, "
        "evidence, is_current, decided_by, correction_id",
        f"i + 1, {tracklet}, {vehicle}, 'appearance', NOT {words.is_true}, 4.2, 1.5, 'porsche-small', {ends}, "
        f'\'{{"candidates": [], "similarity": 0.71, "transit": 1.4}}\', {words.is_true}, '
        f"CASE WHEN {corrected} THEN 'anna' ELSE 'matcher' END, CASE WHEN {corrected} THEN i / 1000 + 1 END",
    )
    yield insert(
        "audit",
        "audit_id, at, person, action, subject, details",
        f"i + 1, {begins}, 'anna', 'trajectory', 'v' || (i % 5000), '{{}}'",
        rows // 50,
    )


def questions(rows: int, crops: Path) -> list[Question]:
    """What is asked of a database of so many rows."""
    end = BEGIN + timedelta(seconds=rows * STEP_S)
    hour, minutes = end - timedelta(hours=1), timedelta(minutes=10)
    middle = rows // 800 * 400
    tracklet = f"c{(middle * 7 + middle // 100) % 100}/20260101T000000/{middle}"
    number = middle // 400 * 100 + middle % 100
    vehicle = f"{number * 2654435761 % 4294967296:08x}-0000-5000-8000-{number:012x}"
    noon = BEGIN + timedelta(seconds=rows * STEP_S / 2)

    def asked(name: str, ask: Callable[[Session], object], *, is_hot: bool = True) -> Question:
        def in_snapshot(database: Database) -> object:
            with database.snapshot() as session:
                return ask(session)

        return Question(name, in_snapshot, is_hot)

    def told(database: Database) -> object:
        with database.transaction() as session:
            return load_assignments_after(session, rows - 200, 100)

    def retained(database: Database) -> object:
        limits = Limits(tracklets_days=rows * STEP_S / 86_400 / 2)
        return next(iter(Retention(database, CropStore(crops), limits).run(end, sweep=False)))

    return [
        asked("matcher starts: an hour's tracklets", lambda s: load_tracklets(s, REGION, seen_since=hour)),
        asked(
            "matcher starts: what its cameras learn from",
            lambda s: load_tracklets(s, REGION, seen_since=hour, newest=MEMORY),
        ),
        asked("matcher starts: paths", lambda s: load_paths(s, REGION, seen_since=hour, newest=MEMORY)),
        asked("people's decisions of late", lambda s: load_operator_decisions(s, REGION, after=rows - 5000)),
        asked("all of people's decisions", lambda s: load_operator_decisions(s, REGION, after=0)),
        Question("decisions to be told", told),
        asked("vehicles in ten minutes", lambda s: vehicles(s, start=noon, end=noon + minutes)),
        asked("the same at a camera", lambda s: vehicles(s, start=noon, end=noon + minutes, camera="c7")),
        asked("vehicles since ten minutes ago", lambda s: vehicles(s, start=end - minutes)),
        asked("a vehicle's trajectory", lambda s: trajectory(s, vehicle)),
        asked("the same, by the start of its id", lambda s: trajectory(s, vehicle[:13])),
        asked("why", lambda s: explain(s, tracklet)),
        asked("why, by the end of the id", lambda s: explain(s, tracklet.partition("/")[2]), is_hot=False),
        asked("the last 20 corrections", lambda s: corrections(s, limit=20)),
        asked("who asked about a vehicle", lambda s: _audited(s, AuditRow.subject == "v7")),
        asked("who asked in an hour", lambda s: _audited(s, AuditRow.at.between(noon, noon + timedelta(hours=1)))),
        Question("retention: a batch of 500 tracklets", retained),
        asked("the first 50 vehicles of all", lambda s: vehicles(s, limit=50), is_hot=False),
    ]


def _audited(session: Session, condition: Any) -> object:  # noqa: ANN401 - any condition
    return session.scalars(select(AuditRow).where(condition).order_by(AuditRow.at.desc()).limit(100)).all()


def cost_of(question: Question, database: Database, sizes: Mapping[str, int]) -> Cost:
    """Asks it twice, and looks at the plans."""
    cost = Cost()

    def sent(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        cost.statements.append((statement, parameters))

    cost.first_s = _timed(question, database)
    event.listen(Engine, "before_cursor_execute", sent)
    try:
        cost.again_s = _timed(question, database)
    finally:
        event.remove(Engine, "before_cursor_execute", sent)
    for statement, parameters in cost.statements:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            _look_at_plan(statement, parameters, database, cost, sizes)
    return cost


def _timed(question: Question, database: Database) -> float:
    began = time.perf_counter()
    question.ask(database)
    return time.perf_counter() - began


def _look_at_plan(
    statement: str,
    parameters: Any,  # noqa: ANN401 - a driver's
    database: Database,
    cost: Cost,
    sizes: Mapping[str, int],
) -> None:
    with database.snapshot() as session:
        connection = session.connection()
        if connection.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for *_, step in rows:
                _note_step(str(step), cost)
            return
        (plan,) = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
        _note_node(plan["Plan"], cost, sizes)


def _note_step(step: str, cost: Cost) -> None:
    words = step.split()
    if "INDEX" in words[:-1]:
        cost.indexes.add(words[words.index("INDEX") + 1])
    if words[0] == "SCAN" and words[1] in Base.metadata.tables:
        cost.whole.add(words[1])


def _note_node(node: dict[str, Any], cost: Cost, sizes: Mapping[str, int]) -> None:
    table = str(node.get("Relation Name"))
    read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    if "Index Name" in node:
        cost.indexes.add(node["Index Name"])
    if sizes.get(table, 0) >= SMALL and read > WHOLE * sizes[table]:
        cost.whole.add(table)
    for child in node.get("Plans", ()):
        _note_node(child, cost, sizes)


def _sizes(database: Database) -> dict[str, int]:
    with database.snapshot() as session:
        return {
            name: session.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in Base.metadata.tables
        }


def table_of(costs: Sequence[tuple[Question, Cost]], title: str) -> Table:
    """One row per question."""
    table = Table(title=title, title_justify="left")
    for name in ("question", "first, ms", "again, ms", "statements"):
        table.add_column(name, justify="left" if name == "question" else "right")
    table.add_column("indexes")
    table.add_column("read nearly whole")
    for question, cost in costs:
        times = (f"{cost.first_s * 1e3:,.1f}", f"{cost.again_s * 1e3:,.1f}", str(len(cost.statements)))
        table.add_row(question.name, *times, ", ".join(sorted(cost.indexes)), ", ".join(sorted(cost.whole)))
    return table


@contextmanager
def own_postgresql(folder: Path) -> Iterator[str]:
    """A server for this run alone, as a URL."""
    binaries = Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
    account: dict[str, Any] = {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
    if account:
        shutil.chown(folder, _USER, _USER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str | Path) -> None:
        command = [binaries / program, "-D", folder / "data", *arguments]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **account)

    run("initdb", "-A", "trust", "-U", _USER, "-E", "UTF8", "--no-sync")
    settings = "fsync=off full_page_writes=off wal_level=minimal max_wal_senders=0 max_wal_size=1GB shared_buffers=1GB"
    chosen = " ".join(f"-c {setting}" for setting in settings.split())
    run(
        "pg_ctl",
        "-l",
        folder / "log",
        "-w",
        "-o",
        f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 {chosen}",
        "start",
    )
    try:
        yield f"postgresql://{_USER}@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def measure(url: str, rows: int, words: Words, folder: Path, console: Console) -> None:
    """Fills the database and prints the table."""
    # Statements that fill it take as long as they take.
    engines.STATEMENT_TIMEOUT_S = engines.LONG_TIMEOUT_S
    database, began = Database.open(url), time.perf_counter()
    fill(database, rows, words)
    console.print(f"{rows:,} rows written in {time.perf_counter() - began:,.0f} s")
    sizes = _sizes(database)
    costs = []
    for question in questions(rows, folder):
        costs.append((question, cost_of(question, database, sizes)))
        console.print(f"{question.name}: {costs[-1][1].again_s * 1e3:,.1f} ms")
    size, kind = _bytes(database), "SQLite" if words is SQLITE else "PostgreSQL"
    console.print(table_of(costs, f"{rows:,} tracklets, {size / 1e9:.1f} GB, {kind}"))
    database.close()


def _bytes(database: Database) -> int:
    with database.snapshot() as session:
        if session.connection().dialect.name == "sqlite":
            return Path(database.url.database or "").stat().st_size
        return int(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="tracklets")
    parser.add_argument("--sqlite", action="store_true", help="a SQLite file rather than a PostgreSQL server")
    arguments = parser.parse_args()
    console = Console(width=200)
    with tempfile.TemporaryDirectory(prefix="query-plans-") as name:
        folder = Path(name)
        if arguments.sqlite:
            measure(f"sqlite:///{folder}/plans.db", arguments.rows, SQLITE, folder, console)
            return
        with own_postgresql(folder) as url:
            measure(url, arguments.rows, POSTGRESQL, folder, console)


if __name__ == "__main__":
    main()
