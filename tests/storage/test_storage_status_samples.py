"""How cameras and stages were doing is kept for two days, and shown to those who may see it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from storage.camera_troubles import begin_trouble, end_trouble, open_troubles
from storage.dead_letters import count_dead_letters
from storage.records import CameraStatus, StageStatus
from storage.status import latest_sightings
from storage.status_samples import CAMERA, KEPT, STAGE, load_samples, store_samples
from storage.writer import Writer
from tests.storage.storage_builders import START, store, tracklet

if TYPE_CHECKING:
    from datetime import datetime

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)


def _camera(name: str, at: datetime, decoded: int = 0) -> CameraStatus:
    return CameraStatus(
        camera=name,
        updated_at=at,
        state="running",
        modality="visible",
        fps=10.0,
        decoded=decoded,
        detected=0,
        gated=0,
        dropped=0,
        reconnects=0,
        decode_errors=0,
        detections=0,
        tracklets=0,
        last_frame_at=None,
        message="",
    )


def _store(database: Database, at: datetime, decoded: int = 0) -> None:
    cameras = [_camera(name, at, decoded) for name in ("gate", "yard")]
    with database.transaction() as session:
        store_samples(session, cameras, [StageStatus("matcher", at, {"lag": 3.0})], at)


def test_samples_are_kept_for_two_days_and_no_longer(database: Database) -> None:
    for hours in (0, 1, 48):
        _store(database, START + timedelta(hours=hours))
    with database.snapshot() as session:
        whole = {sample.at for sample in load_samples(session, START - KEPT)}
    assert whole == {START + timedelta(hours=hours) for hours in (0, 1, 48)}

    _store(database, START + KEPT + timedelta(seconds=1))
    with database.snapshot() as session:
        left = {sample.at for sample in load_samples(session, START - KEPT)}
    assert START not in left
    assert START + timedelta(hours=1) in left


def test_a_moment_is_stored_once(database: Database) -> None:
    _store(database, START, decoded=7)
    _store(database, START, decoded=9)
    with database.snapshot() as session:
        found = load_samples(session, START)
    assert [(one.kind, one.source) for one in found] == [(CAMERA, "gate"), (CAMERA, "yard"), (STAGE, "matcher")]
    assert found[0].counters["decoded"] == 7
    assert found[2].counters == {"lag": 3.0}


def test_hidden_cameras_have_no_samples(database: Database) -> None:
    _store(database, START)
    with database.snapshot() as session:
        assert [one.source for one in load_samples(session, START, visible=("yard",))] == ["yard", "matcher"]
        assert [one.source for one in load_samples(session, START, visible=())] == ["matcher"]


def test_troubles_that_go_on_are_told_to_those_who_see_the_camera(database: Database) -> None:
    with database.transaction() as session:
        begin_trouble(session, "yard", "covered", START, "dark")
        begin_trouble(session, "gate", "frozen", START + timedelta(seconds=5))
        begin_trouble(session, "lane", "moved", START)
        end_trouble(session, "lane", START + timedelta(seconds=9))
    with database.snapshot() as session:
        assert [(one.camera, one.kind, one.message) for one in open_troubles(session)] == [
            ("yard", "covered", "dark"),
            ("gate", "frozen", ""),
        ]
        assert [one.camera for one in open_troubles(session, visible=("gate", "lane"))] == ["gate"]


def test_dead_letters_are_counted(database: Database) -> None:
    with database.transaction() as session:
        assert count_dead_letters(session) == 0
        for offset in range(3):
            Writer(session).store_dead_letter("sightings", 0, offset, b"x", "no", START)
    with database.snapshot() as session:
        assert count_dead_letters(session) == 3


def test_what_was_seen_last_comes_first_with_its_best_picture(database: Database) -> None:
    with database.transaction() as session:
        for number, vehicle_id in ((1, "v1"), (2, "v2")):
            of = tracklet("gate", number, start=60.0 * number, end=60.0 * number + 1)
            store(session, of, vehicle_id, frames=[number])
        store(session, tracklet("yard", 3, start=180.0, end=181.0))
    with database.snapshot() as session:
        found = latest_sightings(session, limit=2)
        seen = latest_sightings(session, visible={"gate"})
    assert [(one.camera, one.vehicle_id) for one in found] == [("yard", None), ("gate", "v2")]
    assert [one.vehicle_id for one in seen] == ["v2", "v1"]
    assert all(one.crop_image for one in seen)
