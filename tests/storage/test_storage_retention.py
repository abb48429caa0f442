"""What is too old goes, all of it, and nothing else."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from storage import corrections
from storage.crop_store import CropStore
from storage.database import Database
from storage.disk_forecast import growth
from storage.errors import StorageError, TransientStorageError
from storage.holds import hold, release
from storage.models import (
    AssignmentRow,
    Base,
    CameraWatermarkRow,
    CorrectionRow,
    EmbeddingRow,
    SightingRow,
    TrackletRow,
    VehicleRow,
)
from storage.records import CameraWatermark
from storage.removal import Removed, remove_tracklets
from storage.retention import Limits, Retention
from storage.trajectories import trajectory, vehicles
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, embedding, path, tracklet

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy.orm import Session

pytest_plugins = ("tests.storage.storage_fixtures",)

DAY = 86400.0
ALL = Limits(crops_days=10, embeddings_days=20, tracklets_days=30, audit_days=40)


@pytest.fixture
def crops(tmp_path: Path) -> CropStore:
    return CropStore(tmp_path / "pictures")


@pytest.fixture
def site(database: Database, crops: CropStore) -> Database:
    """Of each 5 days, from the first day to the 35th, a vehicle of its own, with a crop and a context picture."""
    with database.transaction() as session:
        for number in range(8):
            _pass(session, crops, number, days=5.0 * number)
    return database


def _pass(session: Session, crops: CropStore, number: int, *, days: float, vehicle_id: str | None = None) -> None:
    start = days * DAY
    context = f"context/gate/s1/{number}.jpg"
    of = tracklet(number=number, start=start, end=start + 4, context_image=context, end_reason="left")
    image = f"crops/gate/s1/{number}/0-visible.jpg"
    seen = [embedding(of, crop_image=image, at=start)]
    Writer(session).store_sighting(of, path(of, frames=[1, 2]), seen)
    Writer(session).assign(assignment(of.tracklet_id, vehicle_id or f"v{number}"))
    for name in (image, context):
        crops.save(name, b"picture")


def _run(database: Database, crops: CropStore, limits: Limits, now: datetime, *, batch: int = 2) -> Removed:
    total = Removed()
    for removed in Retention(database, crops, limits, batch=batch).run(now):
        total += removed
    return total


def _count(session: Session, model: type[Base]) -> int:
    counted: int = session.execute(select(func.count()).select_from(model)).scalar_one()
    return counted


def _files(crops: CropStore) -> set[str]:
    return {found.relative_to(crops.root).as_posix() for found in crops.root.rglob("*.jpg")}


def _pictures(session: Session) -> set[str]:
    """What rows name."""
    contexts = session.scalars(select(TrackletRow.context_image).where(TrackletRow.context_image.is_not(None)))
    images = session.scalars(select(EmbeddingRow.crop_image).where(EmbeddingRow.crop_image.is_not(None)))
    return {name for name in (*contexts, *images) if name is not None}


# What goes.


def test_each_kind_goes_at_its_age(site: Database, crops: CropStore) -> None:
    removed = _run(site, crops, ALL, after(34 * DAY))
    assert removed.counts() == {
        "tracklets": 1,
        "sightings": 1,
        "embeddings": 3,
        "assignments": 1,
        "vehicles": 1,
        "pictures": 10,
        "picture_bytes": 70,
    }
    with site.snapshot() as session:
        assert [found.vehicle_id for found in vehicles(session)] == [f"v{number}" for number in range(1, 8)]
        assert _count(session, EmbeddingRow) == 5
        assert len(_pictures(session)) == 3 + 3
        assert _pictures(session) == _files(crops)
        assert len(trajectory(session, "v1").stops[0].path) == 2


def test_a_second_pass_finds_nothing(site: Database, crops: CropStore) -> None:
    now = after(34 * DAY)
    _run(site, crops, ALL, now)
    assert _run(site, crops, ALL, now) == Removed()


def test_in_the_end_nothing_is_left(site: Database, crops: CropStore) -> None:
    with site.transaction() as session:
        corrections.merge(session, "v1", "v2", by="anna", at=START)
        corrections.undo(session, 1, by="anna", at=START)
        Writer(session).set_watermark(CameraWatermark("gate", "s1", after(1), is_finished=False))
        Writer(session).set_watermark(CameraWatermark("gate", "film", after(1), is_finished=True))
        Writer(session).store_dead_letter("sightings", 0, 1, b"?", "no sighting", START)
    removed = _run(site, crops, ALL, after(100 * DAY))
    with site.snapshot() as session:
        for model in (TrackletRow, SightingRow, EmbeddingRow, AssignmentRow, VehicleRow, CorrectionRow):
            assert _count(session, model) == 0
        # A film that was read to its end must not be read again.
        assert list(session.scalars(select(CameraWatermarkRow.session))) == ["film"]
    assert (removed.tracklets, removed.corrections, removed.watermarks, removed.dead_letters) == (8, 2, 1, 1)
    assert _files(crops) == set()
    assert [found for found in crops.root.rglob("*") if found.is_dir()] == []


def test_without_limits_everything_stays(site: Database, crops: CropStore) -> None:
    assert _run(site, crops, Limits(), after(1000 * DAY)) == Removed()


def test_nothing_young_goes_however_short_its_days(site: Database, crops: CropStore) -> None:
    limits = Limits(1e-6, 1e-6, 1e-6, 1e-6, least_age=timedelta(days=36))
    assert _run(site, crops, limits, after(35 * DAY)) == Removed()


def test_a_vehicle_keeps_its_younger_tracklets_and_its_times_follow(database: Database, crops: CropStore) -> None:
    with database.transaction() as session:
        _pass(session, crops, 1, days=0, vehicle_id="v")
        _pass(session, crops, 2, days=20, vehicle_id="v")
    _run(database, crops, ALL, after(35 * DAY))
    with database.snapshot() as session:
        (found,) = vehicles(session)
        assert (found.vehicle_id, found.tracklets, found.first_seen) == ("v", 1, after(20 * DAY))
        row = session.get(VehicleRow, "v")
        assert row is not None
        assert row.first_seen == after(20 * DAY)


def test_a_correction_stays_as_long_as_one_of_its_decisions(database: Database, crops: CropStore) -> None:
    with database.transaction() as session:
        _pass(session, crops, 1, days=0)
        _pass(session, crops, 2, days=20)
        corrections.merge(session, "v2", "v1", by="anna", at=START)
        corrections.undo(session, 1, by="anna", at=START)
    _run(database, crops, ALL, after(35 * DAY))
    with database.transaction() as session:
        assert _count(session, CorrectionRow) == 2
        chain = session.scalars(select(AssignmentRow).order_by(AssignmentRow.assignment_id)).all()
        assert {row.tracklet_id for row in chain} == {"gate/s1/2"}
        assert [row.supersedes for row in chain[1:]] == [row.assignment_id for row in chain[:-1]]
        # What is left can be corrected on.
        corrections.undo(session, 2, by="ben", at=START)


def test_numbers_do_not_come_again(database: Database, crops: CropStore) -> None:
    with database.transaction() as session:
        _pass(session, crops, 1, days=0)
        _pass(session, crops, 2, days=0)
        made = corrections.merge(session, "v1", "v2", by="anna", at=START)
        newest = session.scalars(select(func.max(AssignmentRow.assignment_id))).one()
    _run(database, crops, ALL, after(35 * DAY))
    _run(database, crops, ALL, after(35 * DAY))
    with database.transaction() as session:
        _pass(session, crops, 3, days=0)
        _pass(session, crops, 4, days=0)
        assert session.scalars(select(func.min(AssignmentRow.assignment_id))).one() > newest
        assert corrections.merge(session, "v3", "v4", by="anna", at=START).correction_id > made.correction_id


# What stays.


def test_what_is_held_stays_whole_until_it_is_released(site: Database, crops: CropStore) -> None:
    with site.transaction() as session:
        assert hold(session, "v0", by="anna", at=START, note="case 1") == ["gate/s1/0"]
        assert hold(session, "gate/s1/0", by="ben", at=START) == []
    now = after(100 * DAY)
    _run(site, crops, ALL, now)
    with site.snapshot() as session:
        (stop,) = trajectory(session, "v0").stops
        assert (len(stop.path), stop.crop_image, stop.modalities) == (2, "crops/gate/s1/0/0-visible.jpg", ("visible",))
        assert stop.context_image is not None
        assert _files(crops) == _pictures(session) == {stop.crop_image, stop.context_image}
    with site.transaction() as session:
        assert release(session, "v0") == ["gate/s1/0"]
        with pytest.raises(StorageError, match="nothing of v0 is held"):
            release(session, "v0")
    assert _run(site, crops, ALL, now).tracklets == 1
    assert _files(crops) == set()


def test_the_database_itself_refuses_to_lose_what_is_held(site: Database) -> None:
    with site.transaction() as session:
        hold(session, "gate/s1/0", by="anna", at=START)
        for table in ("embeddings", "sightings", "assignments"):
            session.execute(text(f"DELETE FROM {table} WHERE tracklet_id = 'gate/s1/0'"))
        with pytest.raises(IntegrityError):
            session.execute(text("DELETE FROM tracklets WHERE tracklet_id = 'gate/s1/0'"))
        session.rollback()


# Files.


def test_missing_pictures_are_fine_and_their_rows_are_cleared(site: Database, crops: CropStore) -> None:
    for name in _files(crops):
        crops.remove(name)
    removed = _run(site, crops, ALL, after(34 * DAY))
    assert (removed.pictures, removed.missing) == (0, 10)
    with site.snapshot() as session:
        assert len(_pictures(session)) == 6


@pytest.mark.parametrize("name", ["../secret.jpg", "{root}/../secret.jpg", "crops/link/secret.jpg"])
def test_no_path_leads_out_of_the_folder(database: Database, crops: CropStore, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"of somebody else")
    crops.save("crops/1.jpg", b"")
    (crops.root / "crops" / "link").symlink_to(tmp_path)
    of = tracklet(context_image=name.format(root=crops.root))
    with database.transaction() as session:
        Writer(session).store_sighting(of, path(of), [])
    assert _run(database, crops, ALL, after(100 * DAY)).tracklets == 1
    assert secret.read_bytes() == b"of somebody else"


def test_a_picture_that_can_not_be_removed_keeps_its_row(database: Database, crops: CropStore) -> None:
    with database.transaction() as session:
        _pass(session, crops, 1, days=0)
        _pass(session, crops, 2, days=0)
    # Nobody removes a folder as if it were a file, root neither.
    blocked = crops.root / "context/gate/s1/1.jpg"
    blocked.unlink()
    blocked.mkdir()
    removed = _run(database, crops, Limits(tracklets_days=1), after(35 * DAY))
    assert (removed.tracklets, removed.stuck) == (1, 1)
    blocked.rmdir()
    assert _run(database, crops, Limits(tracklets_days=1), after(35 * DAY)).tracklets == 1


def test_pictures_that_no_row_names_go_by_their_own_age(site: Database, crops: CropStore) -> None:
    now = after(35 * DAY)
    with site.transaction() as session:
        hold(session, "gate/s1/0", by="anna", at=START)
    for name, days in (("crops/lost/1.jpg", 12), ("context/lost/2.jpg", 10.5), ("notes/3.jpg", 12)):
        crops.save(name, b"picture")
        _written(crops.root / name, now - timedelta(days=days))
    held = "context/gate/s1/0.jpg"
    _written(crops.root / held, now - timedelta(days=35))
    _run(site, crops, ALL, now)
    files = _files(crops)
    assert {"context/lost/2.jpg", "notes/3.jpg", held} <= files
    assert "crops/lost/1.jpg" not in files


def _written(where: Path, at: datetime) -> None:
    os.utime(where, (at.timestamp(), at.timestamp()))


# Faults.


@pytest.mark.parametrize("transactions", range(0, 12, 3))
def test_a_pass_that_is_broken_off_is_taken_up_again(site: Database, crops: CropStore, transactions: int) -> None:
    now = after(34 * DAY)
    passes = Retention(site, crops, ALL, batch=1).run(now)
    for _ in range(transactions):
        next(passes)
    del passes
    _run(site, crops, ALL, now)
    with site.snapshot() as session:
        assert (_count(session, TrackletRow), _count(session, EmbeddingRow)) == (7, 5)
        assert _pictures(session) == _files(crops)


def test_a_crash_between_files_and_rows_leaves_nothing_behind(
    site: Database, crops: CropStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = after(100 * DAY)
    with monkeypatch.context() as broken:

        def fail(*_arguments: object) -> Removed:
            raise StorageError("the power went")

        broken.setattr("storage.retention.remove_tracklets", fail)
        with pytest.raises(StorageError, match="power"):
            _run(site, crops, Limits(tracklets_days=30), now)
    assert len(_files(crops)) < 16
    _run(site, crops, Limits(tracklets_days=30), now)
    with site.snapshot() as session:
        assert _count(session, TrackletRow) == 0
    assert _files(crops) == set()


def test_what_passes_by_itself_breaks_no_pass_off(
    site: Database, crops: CropStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def fail_once(session: Session, ids: Collection[str]) -> Removed:
        if not pauses:
            raise TransientStorageError("the server is being restarted")
        return remove_tracklets(session, ids)

    monkeypatch.setattr("storage.retention.remove_tracklets", fail_once)
    with closing(Database(url, sleep=pauses.append)) as database:
        removed = _run(database, crops, Limits(tracklets_days=30), after(100 * DAY))
    assert (removed.tracklets, len(pauses)) == (8, 1)
    with site.snapshot() as session:
        assert _count(session, TrackletRow) == 0
    assert _files(crops) == set()


def test_a_matcher_writes_on_meanwhile(site: Database, crops: CropStore) -> None:
    now, failures = after(100 * DAY), []
    written = threading.Event()

    def match() -> None:
        try:
            for number in range(100, 130):
                with site.transaction() as session:
                    _pass(session, crops, number, days=99, vehicle_id="new")
        except StorageError as error:
            failures.append(str(error))
        written.set()

    matcher = threading.Thread(target=match)
    matcher.start()
    while not written.is_set():
        _run(site, crops, ALL, now, batch=1)
    matcher.join()
    _run(site, crops, ALL, now)
    assert failures == []
    with site.snapshot() as session:
        (found,) = vehicles(session)
        assert (found.vehicle_id, found.tracklets) == ("new", 30)
        assert _pictures(session) == _files(crops)


def test_what_is_due_is_counted_beforehand(site: Database, crops: CropStore) -> None:
    now = after(34 * DAY)
    retention = Retention(site, crops, ALL)
    with site.snapshot() as session:
        due = retention.due(session, now)
    assert due == {"crops": 5, "context pictures": 5, "embeddings": 3, "tracklets": 1}


def test_of_what_is_removed_a_file_keeps_no_bytes(sqlite_url: str, tmp_path: Path) -> None:
    with closing(Database.open(sqlite_url)) as database:
        with database.transaction() as session:
            for number in range(200):
                of = tracklet("somewhere", number, end_reason="left")
                Writer(session).store_sighting(of, path(of, frames=range(100)), [embedding(of)])
        with database.transaction() as session:
            remove_tracklets(session, {f"somewhere/s1/{number}" for number in range(200)})
    assert b"somewhere" not in (tmp_path / "test.db").read_bytes()


def test_pages_that_were_emptied_are_no_growth(sqlite_url: str) -> None:
    per_tracklet = []
    with closing(Database.open(sqlite_url)) as database:
        for removed in (0, 900):
            with database.transaction() as session:
                for number in range(1000):
                    of = tracklet(number=number, end_reason="left")
                    Writer(session).store_sighting(of, path(of, frames=range(100)), [])
                remove_tracklets(session, {f"gate/s1/{number}" for number in range(removed)})
            with database.snapshot() as session:
                per_tracklet.append(growth(session, None, after(60)).database_bytes_per_tracklet)
    # A tenth of the tracklets is left: the whole file would make ten times as much of each; tables have a least size.
    assert per_tracklet[1] < 5 * per_tracklet[0]
