"""How long the questions of `storage.trajectories` and `storage.likeness` take among a million tracklets.

    nice -n 19 python benchmarks/queries.py --database sqlite
    nice -n 19 python benchmarks/queries.py --database postgresql --rows 100000 --repeats 50

Makes a database of its own in a temporary folder (TMPDIR) and removes it afterwards: about 3 GB per million rows. Four
tracklets make a vehicle, two a second begin, at a hundred cameras of which every fourth is infrared and every tenth
thermal. A vector is its vehicle's direction and as much chance, and what its band shares. Each question is asked so
many times, each time of another vehicle or hour, in one process, without auditing.

Beside likeness stand what it can't be quicker than (one product of a matrix of float32 and a vector, by numpy), and
what it would take without an index in memory: all vectors read from the database and compared, once.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from query_plans import BEGIN, POSTGRESQL, SQLITE, STEP_S, Words, fill, own_postgresql
from rich.console import Console
from sqlalchemy import Connection, Engine, event, insert, select
from sqlalchemy.orm import Session

from reid.calibration import Calibration, load_calibration
from reid.modality import Modality
from storage import engines, trajectories
from storage.blobs import encode_vector
from storage.database import Database
from storage.likeness import LikenessFilter, LikenessIndex
from storage.models import EmbeddingRow
from streamer.config import MatcherConfig
from web.likeness import CalibratedScale

WIDTH = 256
#: What is promised, in milliseconds, of the 95th percentile.
PROMISES_MS = {"trajectory": 50.0, "similar": 500.0}
#: A question is asked no longer than this.
MAX_QUESTION_S = 30.0
#: What some viewer may see.
TEN_CAMERAS = frozenset(f"c{number}" for number in range(10))
# Rows written at a time: whole vehicles, of which four hundred rows in turn make a hundred.
_BATCH = 40_000
# Of a vector: what all of its band share; chance, beside the vehicle's own direction of length 1.
_SHARED, _CHANCE = 2.0, 1.0
_SEED = 6


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        name: In the table; its first word may have a promise.
        ask: Asks it once, of something that the generator draws.
    """

    name: str
    ask: Callable[[Session, np.random.Generator], object]


@dataclass(slots=True)
class Answer:
    """How long it took.

    Attributes:
        name: The question.
        times_s: Each time it was asked.
        statements: The most SQL statements of any time.
        rows: The most rows of an answer.
    """

    name: str
    times_s: list[float] = field(default_factory=list)
    statements: int = 0
    rows: int = 0

    def percentile_ms(self, percent: float) -> float:
        """In milliseconds."""
        return float(np.percentile(self.times_s, percent)) * 1e3


def modality_of(camera: int) -> Modality:
    """The band of a camera by its number."""
    if camera % 10 == 0:
        return Modality.THERMAL
    return Modality.NEAR_INFRARED if camera % 4 == 0 else Modality.VISIBLE


def camera_of(row: int) -> int:
    """The camera of a tracklet by its number, as `query_plans` deals them out."""
    return (row * 7 + row // 100) % 100


def tracklet_of(row: int) -> str:
    """Its id."""
    return f"c{camera_of(row)}/20260101T000000/{row}"


def vehicle_of(row: int) -> str:
    """The id of its vehicle."""
    number = row // 400 * 100 + row % 100
    return f"{number * 2654435761 % 4294967296:08x}-0000-5000-8000-{number:012x}"


def shared_directions() -> dict[Modality, NDArray[np.float32]]:
    """What the vectors of each band have in common, (D,)."""
    rng = np.random.default_rng(_SEED)
    found = {}
    for modality in Modality:
        direction = rng.standard_normal(WIDTH).astype(np.float32)
        found[modality] = _SHARED * direction / np.linalg.norm(direction)
    return found


def vectors(rows: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The number of a batch's first row, and its unit vectors (N, D)."""
    rng = np.random.default_rng(_SEED + 1)
    shared = shared_directions()
    for first in range(0, rows, _BATCH):
        numbers = np.arange(first, min(first + _BATCH, rows))
        vehicles = rng.standard_normal((_BATCH // 4, WIDTH), np.float32) / np.sqrt(WIDTH)
        chance = rng.standard_normal((len(numbers), WIDTH), np.float32) * (_CHANCE / np.sqrt(WIDTH))
        found = vehicles[(numbers - first) // 400 * 100 + numbers % 100] + chance
        found += np.stack([shared[modality_of(camera_of(int(number)))] for number in numbers])
        yield first, (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def write_vectors(connection: Connection, rows: int) -> None:
    """Writes one embedding for each tracklet."""
    for first, batch in vectors(rows):
        connection.execute(
            insert(EmbeddingRow),
            [
                {
                    "embedding_id": row + 1,
                    "sighting_id": f"{tracklet_of(row)}/0",
                    "tracklet_id": tracklet_of(row),
                    "modality": modality_of(camera_of(row)).value,
                    "model_id": "bench",
                    "vector": encode_vector(vector),
                    "quality": 0.5,
                    "captured_at": BEGIN + timedelta(seconds=row * STEP_S + 4),
                    **dict.fromkeys(("x1", "y1", "x2", "y2"), 1.0),
                    "crop_image": f"crops/{row}.jpg",
                }
                for row, vector in enumerate(batch, first)
            ],
        )


def prepare(database: Database, rows: int, words: Words) -> None:
    """Fills it, with vectors that likeness can be asked of."""
    fill(database, rows, words, write_vectors=lambda connection: write_vectors(connection, rows))


def made_up_calibration() -> Calibration:
    """The shipped fits, with what these bands share; divided by the length of a vector, as all are."""
    shipped = load_calibration(Path(MatcherConfig().calibration))
    length = float(np.sqrt(1 + _CHANCE**2 + _SHARED**2))
    return Calibration("bench", shipped.fits, {band: shared / length for band, shared in shared_directions().items()})


def questions(rows: int, index: LikenessIndex) -> list[Question]:
    """What is asked of a database of so many tracklets."""

    def row(rng: np.random.Generator) -> int:
        return int(rng.integers(rows))

    def window(rng: np.random.Generator, length_s: float) -> tuple[datetime, datetime]:
        start = BEGIN + timedelta(seconds=float(rng.uniform(0, max(rows * STEP_S - length_s, 1.0))))
        return start, start + timedelta(seconds=length_s)

    def within(name: str, length_s: float, *given: str, **options: Any) -> Callable[..., object]:  # noqa: ANN401
        def ask(session: Session, rng: np.random.Generator) -> object:
            start, end = window(rng, length_s)
            return getattr(trajectories, name)(session, *given, start=start, end=end, **options)

        return ask

    def similar(session: Session, rng: np.random.Generator, chosen: LikenessFilter) -> object:
        return index.similar_to_tracklet(session, tracklet_of(row(rng)), chosen=chosen)

    def similar_for_an_hour(session: Session, rng: np.random.Generator) -> object:
        start, end = window(rng, 3600)
        return similar(session, rng, LikenessFilter(start=start, end=end))

    def similar_to_crop(session: Session, rng: np.random.Generator, chosen: LikenessFilter) -> object:
        query = rng.standard_normal(WIDTH).astype(np.float32)
        return index.similar_to_vector(session, query, Modality.VISIBLE.value, "bench", chosen=chosen)

    def newest(session: Session, _: np.random.Generator, **options: Any) -> object:  # noqa: ANN401
        return trajectories.vehicles(session, newest_first=True, limit=50, **options)

    hour, day = 3600.0, 86_400.0
    camera = "c7"
    viewer: dict[str, Any] = {"visible": TEN_CAMERAS}
    last_day: dict[str, Any] = {"start": BEGIN + timedelta(seconds=rows * STEP_S - day)}
    return [
        Question("trajectory", lambda s, rng: trajectories.trajectory(s, vehicle_of(row(rng)))),
        Question("vehicles of ten minutes", within("vehicles", 600)),
        Question("vehicles of an hour at a camera", within("vehicles", hour, camera=camera)),
        Question("vehicles: the newest 50", newest),
        Question("count_vehicles of an hour", within("count_vehicles", hour)),
        Question("count_vehicles of all", lambda s, _: trajectories.count_vehicles(s)),
        Question("vehicles of ten minutes, ten cameras visible", within("vehicles", 600, **viewer)),
        Question("vehicles: the newest 50, ten cameras visible", partial(newest, **viewer)),
        Question("vehicles: the newest 50 of a day, ten cameras visible", partial(newest, **viewer, **last_day)),
        Question("vehicles: the newest 50 as decided", partial(newest, as_of="decision")),
        Question("count_vehicles of an hour, ten cameras visible", within("count_vehicles", hour, **viewer)),
        Question("passages of an hour", within("passages", hour, "c0", "c1", within_s=3600.0)),
        Question("companions", lambda s, rng: trajectories.companions(s, vehicle_of(row(rng)))),
        Question("dwell_times of an hour", within("dwell_times", hour)),
        Question("journey_times of an hour", within("journey_times", hour)),
        Question("counts of a day", within("counts", day)),
        Question("similar to a crop", lambda s, rng: similar_to_crop(s, rng, LikenessFilter())),
        Question("similar to a tracklet", lambda s, rng: similar(s, rng, LikenessFilter())),
        Question("similar in an hour", similar_for_an_hour),
        Question("similar at a camera", lambda s, rng: similar(s, rng, LikenessFilter(camera=camera))),
        Question("similar in a band", lambda s, rng: similar(s, rng, LikenessFilter(modality=Modality.THERMAL.value))),
        Question(
            "similar, ten cameras visible", lambda s, rng: similar_to_crop(s, rng, LikenessFilter(visible=TEN_CAMERAS))
        ),
    ]


def ask(question: Question, database: Database, repeats: int) -> Answer:
    """Asks it once unmeasured, and then so many times, each in a snapshot of its own."""
    answer, rng = Answer(question.name), np.random.default_rng(_SEED + 2)
    began = time.perf_counter()
    for repeat in range(repeats + 1):
        with _counted() as statements:
            asked = time.perf_counter()
            with database.snapshot() as session:
                found = question.ask(session, rng)
            took_s = time.perf_counter() - asked
        answer.statements = max(answer.statements, len(statements))
        answer.rows = max(answer.rows, len(found) if isinstance(found, Sequence) else 1)
        if repeat:
            answer.times_s.append(took_s)
        if answer.times_s and time.perf_counter() - began > MAX_QUESTION_S:
            break
    return answer


@contextmanager
def _counted() -> Iterator[list[str]]:
    found: list[str] = []

    def sent(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        # What a snapshot of PostgreSQL sets and begins isn't the question's.
        if statement.lstrip().startswith(("SELECT", "WITH")):
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", sent)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", sent)


def bound_s(rows: int) -> float:
    """What one product of (rows, D) float32 and a vector takes, at the median of 20."""
    rng = np.random.default_rng(_SEED)
    matrix = np.empty((rows, WIDTH), np.float32)
    for first in range(0, rows, _BATCH):
        matrix[first : first + _BATCH] = rng.standard_normal((min(_BATCH, rows - first), WIDTH), np.float32)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        _ = matrix @ matrix[0]
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def rival_s(database: Database) -> float:
    """What it takes to read all vectors and to compare them as they come."""
    began = time.perf_counter()
    query = np.ones(WIDTH, np.float32)
    best: list[tuple[float, int]] = []
    with database.snapshot() as session:
        statement = select(EmbeddingRow.embedding_id, EmbeddingRow.vector).execution_options(yield_per=4096)
        for batch in session.execute(statement).partitions():
            found = np.frombuffer(b"".join(row.vector for row in batch), "<f2").reshape(-1, WIDTH)
            products = found.astype(np.float32) @ query
            best += zip(products.tolist(), (row.embedding_id for row in batch), strict=True)
            best = sorted(best, reverse=True)[:50]
    return time.perf_counter() - began


def memory_mb() -> float:
    """What this process holds in memory now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def markdown(answers: Sequence[Answer]) -> str:
    """A row per question."""
    lines = [
        "| question | asked | p50, ms | p95, ms | max, ms | promised, ms | statements | rows |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for answer in answers:
        times = (answer.percentile_ms(percent) for percent in (50, 95, 100))
        promise = PROMISES_MS.get(answer.name.split()[0].strip(","))
        cells = [
            answer.name,
            str(len(answer.times_s)),
            *(f"{value:,.1f}" for value in times),
            "" if promise is None else f"{promise:.0f}",
            str(answer.statements),
            str(answer.rows),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(url: str, rows: int, repeats: int, words: Words, say: Callable[[str], object]) -> list[Answer]:
    """Fills the database, asks everything, and says what it took."""
    # Statements that fill it take as long as they take.
    engines.STATEMENT_TIMEOUT_S = engines.LONG_TIMEOUT_S
    database = Database.open(url)
    try:
        began = time.perf_counter()
        prepare(database, rows, words)
        say(f"{rows:,} tracklets written in {time.perf_counter() - began:,.0f} s")
        index = LikenessIndex(CalibratedScale(made_up_calibration()))
        before_mb, began = memory_mb(), time.perf_counter()
        with database.snapshot() as session:
            index.refresh(session)
        took_s, held_mb = time.perf_counter() - began, memory_mb() - before_mb
        of_vectors = rows * WIDTH * 2 / 1e6
        say(f"index of {len(index):,} looks read in {took_s:,.1f} s; {held_mb:,.0f} MB, vectors {of_vectors:,.0f} MB")
        answers = []
        for question in questions(rows, index):
            answers.append(ask(question, database, repeats))
            say(f"{question.name}: p95 {answers[-1].percentile_ms(95):,.1f} ms")
        own = next(answer for answer in answers if answer.name == "similar to a crop").percentile_ms(50)
        bound, rival = bound_s(rows) * 1e3, rival_s(database) * 1e3
        say(f"bound, numpy's product: {bound:,.1f} ms; similar to a crop takes {own / bound:.2f} times as long")
        say(f"rival, all vectors read: {rival:,.0f} ms, {rival / own:,.0f} times as long")
        return answers
    finally:
        database.close()


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--rows", type=int, default=1_000_000, help="tracklets")
    parser.add_argument("--repeats", type=int, default=300, help="how often each question is asked")
    arguments = parser.parse_args()
    console = Console(width=200, highlight=False)
    with tempfile.TemporaryDirectory(prefix="queries-") as name:
        folder = Path(name)
        if arguments.database == "sqlite":
            url = f"sqlite:///{folder}/queries.db"
            answers = measure(url, arguments.rows, arguments.repeats, SQLITE, console.print)
        else:
            with own_postgresql(folder) as url:
                answers = measure(url, arguments.rows, arguments.repeats, POSTGRESQL, console.print)
    print(f"\n{arguments.rows:,} tracklets, {arguments.database}\n\n{markdown(answers)}")


if __name__ == "__main__":
    main()
