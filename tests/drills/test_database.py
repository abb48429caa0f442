"""The database goes away, hangs or fills up, and comes back: nothing is lost, nothing is doubled, nobody loops.

Sightings wait in the outbox while the database can't take them. Whatever happens to it, every sighting that was
acknowledged is stored in the end, once, and the vehicles are those of a run that nothing happened to.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from reid.calibration import save_calibration
from storage import engines
from storage.crop_store import CropStore
from storage.database import Database, StorageError
from storage.matcher_state import load_tracklets
from storage.models import EmbeddingRow, SightingRow
from storage.status import load_stage_status
from storage.writer import Writer
from streamer.bus import BusError
from streamer.bus.factory import open_consumer, open_outbox
from streamer.config import SiteConfig
from streamer.counters import Board, Field
from streamer.health import StatusWriter
from streamer.matcher import worker as matcher_worker
from streamer.matcher.worker import MatcherWorker
from streamer.sighting_codec import encode
from streamer.sightings import Sighting
from tests.drills.figures import note, size
from tests.servers.need import wait_until
from tests.servers.postgresql import PostgreSQL, postgresql
from tests.servers.small_disk import SmallDisk, small_disk
from tests.streamer.matcher.matcher_builders import CALIBRATION
from tests.streamer.matcher.traffic_builders import CAMERAS, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from streamer.sightings import Message

    Fault = Callable[[], AbstractContextManager[None]]

pytestmark = [pytest.mark.integration, pytest.mark.drill]

VEHICLES = size(8, 300)
FAULTS = size(1, 20)
#: Messages in a transaction: few, so that a fault meets one in the middle.
BATCH = 16
#: Between a matcher's end and the next one.
PAUSE_S = 0.1
PATIENCE_S = 240.0
#: Of the disks that are filled.
DISK_MB = 160
#: Of one fault: a matcher that came back at once each time would have thousands.
MAX_TROUBLES = 300
#: Between two looks at how far the matcher is: they cost it time.
LOOK_S = 0.2


@dataclass(frozen=True)
class Result:
    """What a database holds in the end.

    Attributes:
        sightings: By id, how many rows.
        embeddings: How many rows.
        vehicles: By tracklet, its vehicle and why.
    """

    sightings: frozenset[str]
    embeddings: int
    vehicles: dict[str, tuple[str, str]]


class Matcher:
    """Lets one worker after the other work in a thread: who fails is thrown away, and the next begins anew."""

    def __init__(self, site: SiteConfig) -> None:
        self.handled = 0
        self.troubles: list[str] = []
        self._site = site
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="matcher", daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[Matcher]:
        """Works inside; an error that is neither the database's nor the bus's ends the thread, which fails the test."""
        self._thread.start()
        try:
            yield self
            assert self._thread.is_alive()
        finally:
            self._stop.set()
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._live()
            except (StorageError, BusError) as error:
                self.troubles.append(str(error))
                self._stop.wait(PAUSE_S)

    def _live(self) -> None:
        with closing(Database.open(self._site.database)) as database:

            def start_offset(topic: str, partition: int) -> int | None:
                with database.transaction() as session:
                    return Writer(session).next_offset(topic, partition)

            with closing(open_consumer(self._site, start_offset)) as consumer:
                worker = MatcherWorker(self._site, database, consumer, CropStore(self._site.crops_dir))
                while not self._stop.is_set():
                    self.handled += worker.step(timeout_s=0.05)


class Road:
    """A site of three cameras, its outbox and its database."""

    def __init__(self, folder: Path, database: str, *, outbox: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_calibration(folder / "calibration.json", CALIBRATION)
        self.site = SiteConfig.model_validate(
            {
                "site": "crossing",
                "database": database,
                "crops_dir": str(folder / "crops"),
                "cameras": [{"id": camera, "url": f"{camera}.mp4"} for camera in CAMERAS],
                "outbox": {"path": str(outbox or folder / "outbox.db")},
                "matcher": {"settle_s": 3.0, "calibration": str(folder / "calibration.json")},
            }
        )
        self.matcher = Matcher(self.site)
        self._outbox = open_outbox(self.site)
        self._database = Database(database)
        self.acknowledged: set[str] = set()
        self.refused = 0
        self._last_id = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """As a camera worker does: what the outbox refuses is counted, and lost."""
        for message in messages:
            try:
                self._last_id = self._outbox.append(message.region, encode(message), droppable=False)
            except BusError:
                self.refused += 1
                continue
            if isinstance(message, Sighting):
                self.acknowledged.add(message.sighting_id)

    def drain(self) -> float:
        """Waits until all that was acknowledged is stored; returns how many seconds that took."""
        taken_s = wait_until(self._is_drained, timeout_s=PATIENCE_S, what="the matcher to catch up")
        self._outbox.close()
        self._database.close()
        return taken_s

    def wait_for_trouble(self, known: int) -> None:
        """Waits for one more trouble than are known."""
        wait_until(lambda: len(self.matcher.troubles) > known, what="the matcher to notice")

    def wait_for_progress(self, since: int) -> float:
        """Waits until more messages are stored than were then; returns how many seconds that took."""
        return wait_until(lambda: self.matcher.handled > since, what="the matcher to go on")

    def result(self) -> Result:
        """What the database holds."""
        with closing(Database.open(self.site.database)) as database, database.snapshot() as session:
            rows = session.scalars(select(SightingRow.sighting_id)).all()
            assert len(rows) == len(set(rows))
            found = load_tracklets(session, "main")
            return Result(
                frozenset(rows),
                session.execute(select(func.count()).select_from(EmbeddingRow)).scalar_one(),
                {
                    each.tracklet.tracklet_id: (each.assignment.vehicle_id, each.assignment.reason)
                    for each in found
                    if each.assignment is not None
                },
            )

    def _is_drained(self) -> bool:
        try:
            with self._database.transaction() as session:
                if Writer(session).next_offset("sightings", 0) == self._last_id + 1:
                    return True
        except StorageError:
            pass
        threading.Event().wait(LOOK_S)
        return False


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return traffic(7, vehicles=VEHICLES).messages


@pytest.fixture(scope="module")
def undisturbed(messages: list[Message], tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("undisturbed")
    road = Road(folder, f"sqlite:///{folder}/site.db")
    road.publish(messages)
    with road.matcher.at_work():
        road.drain()
    assert road.matcher.troubles == []
    return road.result()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with postgresql() as made:
        yield made


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matcher_worker, "BATCH", BATCH)


@pytest.fixture
def url(server: PostgreSQL) -> str:
    """A database that nobody has used."""
    return server.new_database()


def _tell(case: str, road: Road, back_s: float, faults: int) -> None:
    stored = road.result().sightings
    note(
        "database",
        case,
        faults=faults,
        published=len(road.acknowledged),
        stored=len(stored),
        lost=len(road.acknowledged - stored),
        back_s=back_s,
        restarts=len(road.matcher.troubles),
    )


def _through(
    road: Road, messages: Sequence[Message], fault: Fault, *, faults: int = FAULTS, is_noticed: bool = True
) -> float:
    """Publishes before, during and after one fault after the other; returns the longest time until the matcher went on.

    Args:
        road: New.
        messages: All of them.
        fault: Begins one fault, and ends it.
        faults: How many.
        is_noticed: Whether a matcher that is at work can't miss it.
    """
    cuts = [len(messages) * part // (2 * faults + 1) for part in range(2 * faults + 2)]
    shares = [messages[begin:end] for begin, end in pairwise(cuts)]
    longest_s = 0.0
    with road.matcher.at_work():
        for number in range(faults):
            road.publish(shares[2 * number])
            if not number:
                # The schema is there: a migration that meets a fault may take an hour before it is given up.
                road.wait_for_progress(0)
            known = len(road.matcher.troubles)
            with fault():
                since = road.matcher.handled
                road.publish(shares[2 * number + 1])
                if is_noticed:
                    road.wait_for_trouble(known)
                    since = road.matcher.handled
            longest_s = max(longest_s, road.wait_for_progress(since))
        road.publish(shares[-1])
        road.drain()
    # It waits between two attempts, however long the fault lasts.
    assert len(road.matcher.troubles) < MAX_TROUBLES * faults
    return longest_s


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_server_that_is_stopped_and_started_again(
    server: PostgreSQL, url: str, tmp_path: Path, messages: list[Message], undisturbed: Result, mode: str
) -> None:
    road = Road(tmp_path, url)

    @contextmanager
    def stopped() -> Iterator[None]:
        server.stop(mode)
        yield
        server.start()

    back_s = _through(road, messages, stopped)

    assert road.result() == undisturbed
    case = "PostgreSQL killed" if mode == "immediate" else "PostgreSQL restarted by an administrator"
    _tell(case, road, back_s, FAULTS)


def test_connections_that_are_cut(
    server: PostgreSQL, url: str, tmp_path: Path, messages: list[Message], undisturbed: Result
) -> None:
    road = Road(tmp_path, url)

    @contextmanager
    def cut() -> Iterator[None]:
        server.cut_connections()
        yield

    back_s = _through(road, messages, cut, is_noticed=False)

    assert road.result() == undisturbed
    _tell("PostgreSQL connections cut", road, back_s, FAULTS)


def test_a_server_that_is_frozen(
    server: PostgreSQL,
    url: str,
    tmp_path: Path,
    messages: list[Message],
    undisturbed: Result,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "STATEMENT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(engines, "SILENCE_S", 0.5)
    road = Road(tmp_path, f"{url}?connect_timeout=2")

    back_s = _through(road, messages, server.frozen)

    assert road.result() == undisturbed
    assert any("has not answered" in trouble or "timeout" in trouble for trouble in road.matcher.troubles)
    _tell("PostgreSQL frozen", road, back_s, FAULTS)


def test_a_server_whose_disk_is_full(tmp_path: Path, messages: list[Message], undisturbed: Result) -> None:
    with _server_on_small_disk() as (disk, server):
        road = Road(tmp_path, server.url)

        @contextmanager
        def full() -> Iterator[None]:
            with disk.full():
                yield
            # Where it can't even write its log ahead, it ends; starting it again is its service's task.
            if not server.is_running():
                server.start()

        back_s = _through(road, messages, full, faults=1)
        assert road.result() == undisturbed
        _tell("PostgreSQL's disk full", road, back_s, 1)


@contextmanager
def _server_on_small_disk() -> Iterator[tuple[SmallDisk, PostgreSQL]]:
    with tempfile.TemporaryDirectory(prefix="small-disk-") as name, small_disk(Path(name) / "disk", DISK_MB) as disk:
        # The server runs as another user.
        Path(name).chmod(0o755)
        (disk.folder / "postgresql").mkdir()
        with postgresql(disk.folder / "postgresql", min_wal_size="32MB", max_wal_size="32MB") as server:
            yield disk, server


def test_a_sqlite_file_whose_disk_is_full(tmp_path: Path, messages: list[Message], undisturbed: Result) -> None:
    with small_disk(tmp_path / "disk", DISK_MB) as disk:
        road = Road(tmp_path, f"sqlite:///{disk.folder}/site.db", outbox=tmp_path / "outbox.db")
        back_s = _through(road, messages, disk.full, faults=1)
        assert any("full" in trouble for trouble in road.matcher.troubles)
        assert road.result() == undisturbed
        _tell("SQLite's disk full", road, back_s, 1)


def test_a_sqlite_file_on_a_disk_that_is_read_only(
    tmp_path: Path, messages: list[Message], undisturbed: Result
) -> None:
    third = len(messages) // 3
    with small_disk(tmp_path / "disk", DISK_MB) as disk:
        before = Road(tmp_path, f"sqlite:///{disk.folder}/site.db", outbox=tmp_path / "outbox.db")
        before.publish(messages[:third])
        with before.matcher.at_work():
            before.drain()
        # Nobody has it open now, as a disk must be for it to become read-only.
        road = Road(tmp_path, before.site.database, outbox=tmp_path / "outbox.db")
        road.publish(messages[third:])
        road.acknowledged |= before.acknowledged
        with ExitStack() as life:
            with disk.read_only():
                life.enter_context(road.matcher.at_work())
                road.wait_for_trouble(2)
                since = road.matcher.handled
            back_s = road.wait_for_progress(since)
            road.drain()
        assert road.result() == undisturbed
        _tell("SQLite's disk read-only", road, back_s, 1)


def test_an_outbox_whose_disk_is_full_counts_what_it_refuses(tmp_path: Path, messages: list[Message]) -> None:
    third = len(messages) // 3
    with small_disk(tmp_path / "disk", DISK_MB) as disk:
        road = Road(tmp_path, f"sqlite:///{tmp_path}/site.db", outbox=disk.folder / "outbox.db")
        road.publish(messages[:third])
        with disk.full():
            road.publish(messages[third : 2 * third])
        assert road.refused > 0
        before = road.refused
        road.publish(messages[2 * third :])
        assert road.refused == before
        with road.matcher.at_work():
            back_s = road.drain()
        assert road.matcher.troubles == []
        assert road.result().sightings == road.acknowledged
        _tell("the outbox's disk full", road, back_s, 1)


def test_status_rows_are_skipped_and_counted_while_the_server_is_away(
    server: PostgreSQL, url: str, tmp_path: Path
) -> None:
    board = Board(list(CAMERAS), ["supervisor"])
    row = board.stage("supervisor")
    with closing(Database.open(url)) as database:
        status = StatusWriter(Road(tmp_path, url).site, database, board, row)
        server.stop()
        for _ in range(3):
            status.write()
        failures, said = row.count(Field.FAILURES), row.note
        server.start()
        began = time.monotonic()
        status.write()
        back_s = time.monotonic() - began
        with database.snapshot() as session:
            assert [stage.stage for stage in load_stage_status(session)] == ["supervisor"]
    assert (failures, row.note) == (3, "")
    assert "secret" not in said
    note("database", "status rows while PostgreSQL is away", skipped=failures, back_s=back_s)


def test_a_question_to_a_server_that_is_away_ends_in_one_line(server: PostgreSQL, url: str) -> None:
    ask = [sys.executable, "-m", "storage", "vehicles", "--database", url]
    server.stop()
    try:
        began = time.monotonic()
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        took_s = time.monotonic() - began
    finally:
        server.start()
    assert (asked.returncode, asked.stdout) == (2, "")
    assert len(asked.stderr.splitlines()) == 1
    assert "secret" not in asked.stderr
    note("database", "a question while PostgreSQL is away", lines=1, took_s=took_s)
