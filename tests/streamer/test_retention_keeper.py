"""The thread that removes what is too old."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from storage.crop_store import CropStore
from storage.database import Database
from storage.errors import StorageError
from storage.retention import LEAST_AGE, Limits
from storage.trajectories import vehicles
from streamer.config import load_site
from streamer.counters import Board, Field
from streamer.retention_keeper import RetentionKeeper, is_kept_by, limits_of
from streamer.site_sections import RetentionConfig
from tests.storage.storage_builders import START, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = START + timedelta(days=400)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path / 'site.db'}")
    with opened.transaction() as session:
        for number in range(4):
            store(session, tracklet(number=number, end_reason="left"), f"v{number}")
    yield opened
    opened.close()


def _keeper(
    database: Database, tmp_path: Path, *, clock: Callable[[], datetime] = lambda: NOW, period_s: float = 3600
) -> RetentionKeeper:
    rules = RetentionConfig(batch=1, period_s=period_s)
    limits, row = Limits(tracklets_days=365), Board((), ["supervisor"]).stage("supervisor")
    return RetentionKeeper(database, CropStore(tmp_path), limits, rules, row, clock=clock)


def _vehicles(database: Database) -> int:
    with database.snapshot() as session:
        return len(vehicles(session))


def test_a_pass_removes_what_is_too_old(database: Database, tmp_path: Path) -> None:
    keeper = _keeper(database, tmp_path)
    assert keeper.keep().tracklets == 4
    assert _vehicles(database) == 0


def test_the_thread_keeps_at_once_and_again_every_period(database: Database, tmp_path: Path) -> None:
    asked = threading.Semaphore(0)

    def clock() -> datetime:
        asked.release()
        return NOW

    keeper = _keeper(database, tmp_path, clock=clock, period_s=0.01)
    keeper.start()
    assert asked.acquire(timeout=30)
    assert asked.acquire(timeout=30)
    keeper.stop()
    keeper.stop()
    assert _vehicles(database) == 0


def test_it_measures_by_how_much_the_site_grows(database: Database, tmp_path: Path) -> None:
    row = Board((), ["supervisor"]).stage("supervisor")
    soon = START + timedelta(days=2)
    keeper = RetentionKeeper(database, CropStore(tmp_path), Limits(), RetentionConfig(), row, clock=lambda: soon)
    keeper.measure()
    assert row[Field.DATABASE_BYTES_PER_DAY] > 0
    assert row[Field.PICTURE_BYTES_PER_DAY] == 0


def test_it_is_broken_off_by_the_end(database: Database, tmp_path: Path) -> None:
    keeper = _keeper(database, tmp_path)
    keeper.stop()
    assert keeper.keep().tracklets == 1
    assert _vehicles(database) == 3


def test_while_the_database_is_away_it_waits(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = _keeper(database, tmp_path)

    def away(_self: Database) -> None:
        raise StorageError("database: no route")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "transaction", away)
        assert keeper.keep().counts() == {}
    assert keeper.failed == 1
    assert keeper.keep().tracklets == 4


SITE = """
site: here
database: sqlite:///here.db
cameras:
  - {{id: gate, url: "{url}"}}
retention: {{crops_days: 0.001, embeddings_days: null, tracklets_days: 30}}
matcher: {{time_to_live_s: 7200}}
"""


@pytest.mark.parametrize(("url", "is_kept"), [("rtsp://127.0.0.1/x", True), ("film.mp4", False)])
def test_only_what_is_live_grows_old(tmp_path: Path, url: str, is_kept: bool) -> None:
    (tmp_path / "film.mp4").touch()
    (tmp_path / "site.yaml").write_text(SITE.format(url=url))
    site = load_site(tmp_path / "site.yaml", {})
    assert is_kept_by(site) is is_kept
    limits = limits_of(site)
    assert (limits.crops_days, limits.embeddings_days, limits.tracklets_days) == (0.001, None, 30)
    # What the matcher may still compare stays, however few the days.
    assert limits.least_age > timedelta(seconds=2 * 7200)
    assert limits.least_age >= LEAST_AGE
    assert limits.before(limits.crops_days, NOW) == NOW - limits.least_age
