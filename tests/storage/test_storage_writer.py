"""What is written twice is there once; a decision once made stays on record."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from storage.errors import OffsetConflictError, StorageError
from storage.matcher_state import load_tracklets, load_watermarks, session_is_finished
from storage.models import (
    AssignmentRow,
    CameraRow,
    DeadLetterRow,
    EmbeddingRow,
    SightingRow,
    VehicleRow,
)
from storage.records import CameraRecord, CameraStatus, CameraWatermark, StageStatus
from storage.status import load_camera_status, load_cameras, load_stage_status
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database
    from storage.records import TrackletRecord

pytest_plugins = ("tests.storage.storage_fixtures",)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        yield opened


def _count(session: Session, table: Any) -> int:  # noqa: ANN401 - any mapped class
    return session.execute(select(func.count()).select_from(table)).scalar_one()


def _only_tracklet(session: Session) -> TrackletRecord:
    (found,) = load_tracklets(session, "main", seen_since=None)
    return found.tracklet


# Sightings.


def test_a_sighting_is_stored_once(session: Session) -> None:
    writer, of = Writer(session), tracklet()
    assert writer.store_sighting(of, path(of, frames=[0, 1]), [embedding(of)])
    assert not writer.store_sighting(of, path(of, frames=[7]), [embedding(of), embedding(of, modality="thermal")])
    assert (_count(session, SightingRow), _count(session, EmbeddingRow)) == (1, 1)


def test_a_sighting_with_an_empty_path_is_known_too(session: Session) -> None:
    writer, of = Writer(session), tracklet()
    assert writer.store_sighting(of, path(of), [])
    assert not writer.store_sighting(of, path(of), [])


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_in_whatever_order_sightings_come_the_newest_speaks(memory: Database, sequences: list[int]) -> None:
    def told_by(sequence: int) -> TrackletRecord:
        share = 1 / (sequence + 1)
        votes = {"car": share, "truck": 1 - share}
        return replace(tracklet(end=sequence + 1.0), class_votes=votes, end_reason="left" if sequence == 4 else None)

    with memory.transaction() as session:
        writer = Writer(session)
        stored = [writer.store_sighting(told_by(n), path(told_by(n), n, frames=[n]), []) for n in sequences]
        (found,) = load_tracklets(session, "main", seen_since=None)
        sightings = _count(session, SightingRow)
        for table in ("sightings", "tracklets"):
            session.execute(text(f"DELETE FROM {table}"))
    assert stored == [number not in sequences[:index] for index, number in enumerate(sequences)]
    assert sightings == len(set(sequences))
    assert found.last_sequence == max(sequences)
    assert found.tracklet == told_by(max(sequences))


def test_a_sighting_without_a_picture_keeps_the_one_before(session: Session) -> None:
    writer, of = Writer(session), tracklet(context_image="context/1.jpg")
    writer.store_sighting(of, path(of, 0), [])
    writer.store_sighting(replace(of, context_image=None), path(of, 1), [])
    assert _only_tracklet(session).context_image == "context/1.jpg"


def test_the_matcher_may_close_a_tracklet_that_nothing_more_comes_of(session: Session) -> None:
    writer, of = Writer(session), tracklet()
    writer.store_sighting(of, path(of), [])
    assert writer.store_sighting(replace(of, ended_at=after(3), end_reason="session_lost"), None, [])
    assert not writer.store_sighting(replace(of, ended_at=after(9), end_reason="shutdown"), None, [])
    found = _only_tracklet(session)
    assert (found.end_reason, found.ended_at) == ("session_lost", after(3))


def test_a_tracklet_that_was_given_up_too_early_stays_closed_until_its_own_end_comes(session: Session) -> None:
    writer, of = Writer(session), tracklet()
    writer.store_sighting(of, path(of, 0), [])
    writer.store_sighting(replace(of, end_reason="session_lost"), None, [])
    writer.store_sighting(replace(of, ended_at=after(9)), path(of, 1), [])
    # A running matcher has decided on it; one that starts now must not take it for open.
    assert _only_tracklet(session).end_reason == "session_lost"
    writer.store_sighting(replace(of, ended_at=after(12), end_reason="left"), path(of, 2), [])
    assert _only_tracklet(session).end_reason == "left"


def test_a_vehicle_is_seen_as_long_as_its_tracklets(session: Session) -> None:
    writer, of = Writer(session), tracklet(start=5, end=6)
    writer.store_sighting(of, path(of, 0), [])
    writer.assign(assignment(of.tracklet_id, "v1", is_provisional=True))
    writer.store_sighting(replace(of, ended_at=after(60)), path(of, 1), [])
    vehicle = session.scalars(select(VehicleRow)).one()
    assert (vehicle.first_seen, vehicle.last_seen) == (after(5), after(60))


def test_what_belongs_to_another_tracklet_is_refused(session: Session) -> None:
    writer, of, other = Writer(session), tracklet(number=1), tracklet(number=2)
    with pytest.raises(ValueError, match="path is of gate/s1/2, not of gate/s1/1"):
        writer.store_sighting(of, path(other), [])
    with pytest.raises(ValueError, match="embedding is of gate/s1/1/7, not of gate/s1/1/0"):
        writer.store_sighting(of, path(of, 0), [embedding(of, 7)])
    with pytest.raises(ValueError, match="need the path"):
        writer.store_sighting(of, None, [embedding(of)])


# Decisions.


def test_saying_the_same_again_adds_nothing(session: Session) -> None:
    writer, of = Writer(session), tracklet()
    store(session, of)
    first = writer.assign(assignment(of.tracklet_id, "v1", is_provisional=True))
    assert writer.assign(assignment(of.tracklet_id, "v1", is_provisional=True, score=2.0)) == first
    assert writer.assign(assignment(of.tracklet_id, "v1")) != first
    assert _count(session, AssignmentRow) == 2


def test_the_matcher_decides_nothing_on_a_tracklet_that_is_not_stored(session: Session) -> None:
    writer = Writer(session)
    assert writer.assign(assignment("gate/s1/1", "v1")) is None
    assert writer.unknown == 1
    assert (_count(session, AssignmentRow), _count(session, VehicleRow)) == (0, 0)
    with pytest.raises(StorageError, match="gate/s1/1: no such tracklet"):
        writer.assign(replace(assignment("gate/s1/1", "v1"), decided_by="anna"))


_Decision = tuple[int, str, bool]
_decisions = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["v1", "v2", "v3"]), st.booleans()), max_size=12)


def _assert_append_only(before: dict[int, dict[str, Any]], after_: dict[int, dict[str, Any]]) -> None:
    for key, row in before.items():
        assert after_[key] | {"is_current": None} == row | {"is_current": None}


def _rows(session: Session) -> dict[int, dict[str, Any]]:
    table = AssignmentRow.__table__
    return {row["assignment_id"]: dict(row) for row in session.execute(select(table)).mappings()}


def _assert_one_chain_per_tracklet(rows: dict[int, dict[str, Any]]) -> None:
    newest: dict[str, int] = {}
    for key in sorted(rows):
        tracklet_id = rows[key]["tracklet_id"]
        assert rows[key]["supersedes"] == newest.get(tracklet_id)
        newest[tracklet_id] = key
    assert {key for key, row in rows.items() if row["is_current"]} == set(newest.values())


def _assert_vehicles_follow(session: Session, members: dict[int, str], tracklets: dict[int, TrackletRecord]) -> None:
    for vehicle in session.scalars(select(VehicleRow)):
        own = [tracklets[number] for number, vehicle_id in members.items() if vehicle_id == vehicle.vehicle_id]
        assert vehicle.first_seen == min((of.started_at for of in own), default=None)
        assert vehicle.last_seen == max((of.ended_at for of in own), default=None)
        classes = [of.vehicle_class for of in own]
        if classes:
            assert classes.count(vehicle.vehicle_class) == max(map(classes.count, classes))


@settings(deadline=None)
@given(_decisions)
def test_decisions_are_only_ever_added(memory: Database, decisions: list[_Decision]) -> None:
    kinds = {1: "car", 2: "car", 3: "truck"}
    tracklets = {n: tracklet(number=n, start=n, end=10 - n, vehicle_class=kinds[n]) for n in kinds}
    members: dict[int, str] = {}
    with memory.transaction() as session:
        for of in tracklets.values():
            store(session, of)
        before = _rows(session)
        for number, vehicle_id, is_provisional in decisions:
            made = assignment(tracklets[number].tracklet_id, vehicle_id, is_provisional=is_provisional)
            key = Writer(session).assign(made)
            assert key is not None
            members[number] = vehicle_id
            rows = _rows(session)
            assert rows[key]["vehicle_id"] == vehicle_id
            assert rows[key]["is_current"]
            _assert_append_only(before, rows)
            _assert_one_chain_per_tracklet(rows)
            before = rows
        _assert_vehicles_follow(session, members, tracklets)
        for table in ("assignments", "vehicles", "embeddings", "sightings", "tracklets"):
            session.execute(text(f"DELETE FROM {table}"))


def test_the_database_itself_refuses_two_current_decisions(database: Database) -> None:
    with database.transaction() as session:
        store(session, tracklet(), "v1")
    columns = "tracklet_id, vehicle_id, reason, is_provisional, model_id, decided_at, evidence, is_current"
    twice = text(f"INSERT INTO assignments ({columns}) SELECT {columns} FROM assignments")
    with pytest.raises(StorageError), database.transaction() as session:
        session.execute(twice)


# Offsets.


def test_an_offset_moves_on_from_where_it_was(session: Session) -> None:
    writer = Writer(session)
    assert writer.next_offset("sightings", 0) is None
    writer.advance_offset("sightings", 0, expected=None, next_offset=5)
    writer.advance_offset("sightings", 0, expected=5, next_offset=9)
    assert writer.next_offset("sightings", 0) == 9
    assert writer.next_offset("sightings", 1) is None


@pytest.mark.parametrize("expected", [None, 4, 6])
def test_an_offset_that_somebody_else_moved_is_a_conflict(session: Session, expected: int | None) -> None:
    writer = Writer(session)
    writer.advance_offset("sightings", 0, expected=None, next_offset=5)
    with pytest.raises(OffsetConflictError, match=f"sightings/0: expected offset {expected}, found 5"):
        writer.advance_offset("sightings", 0, expected=expected, next_offset=9)


def test_of_two_consumers_one_stores_its_results(database: Database) -> None:
    with database.transaction() as session:
        Writer(session).advance_offset("sightings", 0, expected=None, next_offset=1)

    def consume(number: int, expected: int) -> None:
        with database.transaction() as session:
            store(session, tracklet(number=number), f"v{number}")
            Writer(session).advance_offset("sightings", 0, expected=expected, next_offset=expected + 1)

    consume(1, expected=1)
    with pytest.raises(OffsetConflictError):
        consume(2, expected=1)
    with database.snapshot() as session:
        assert _only_tracklet(session).number == 1
        assert Writer(session).next_offset("sightings", 0) == 2


# Watermarks, cameras, status, dead letters.


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1))
def test_a_watermark_never_goes_back(memory: Database, told: list[tuple[int, bool]]) -> None:
    with memory.transaction() as session:
        for seconds, is_finished in told:
            Writer(session).set_watermark(CameraWatermark("gate", "s1", after(seconds), is_finished))
        (found,) = load_watermarks(session)
        assert session_is_finished(session, "gate", "s1") == found.is_finished
        assert not session_is_finished(session, "gate", "s2")
        session.execute(text("DELETE FROM camera_watermarks"))
    assert found.watermark == after(max(seconds for seconds, _ in told))
    assert found.is_finished == any(is_finished for _, is_finished in told)


@settings(deadline=None)
@given(st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=6))
def test_a_camera_starts_at_the_first_frame_ever_read(memory: Database, starts: list[int | None]) -> None:
    with memory.transaction() as session:
        for start in starts:
            started_at = None if start is None else after(start)
            Writer(session).register_cameras([CameraRecord("gate", "main", "visible", started_at=started_at)])
        found = session.execute(select(CameraRow.started_at)).scalar_one()
        session.execute(text("DELETE FROM cameras"))
    known = [start for start in starts if start is not None]
    assert found == (after(min(known)) if known else None)


def test_cameras_are_brought_up_to_date(session: Session) -> None:
    writer = Writer(session)
    writer.register_cameras([CameraRecord("gate", "main", "auto"), CameraRecord("bridge", "main", "thermal")])
    writer.register_cameras([CameraRecord("gate", "north", "visible", x=3.0, y=4.0)])
    writer.register_cameras([])
    assert load_cameras(session) == [
        CameraRecord("bridge", "main", "thermal"),
        CameraRecord("gate", "north", "visible", x=3.0, y=4.0),
    ]


def test_status_is_replaced(session: Session) -> None:
    writer = Writer(session)
    status = CameraStatus("gate", START, "running", "visible", 10.0, 1, 1, 0, 0, 0, 0, 0, 0)
    bridge = replace(status, camera="bridge", last_frame_at=after(1))
    newer = replace(status, decoded=7, message="reconnecting")
    writer.store_camera_status([status, bridge])
    writer.store_camera_status([newer])
    assert load_camera_status(session) == [bridge, newer]
    stage = StageStatus("embedder", START, {"crops": 1.0})
    for counters in (stage, replace(stage, updated_at=after(2), counters={"crops": 9.0, "p50_ms": 3.25})):
        writer.store_stage_status([counters])
        assert load_stage_status(session) == [counters]


def test_a_dead_letter_is_kept_once(session: Session) -> None:
    for reason in ("not Avro", "again"):
        Writer(session).store_dead_letter("sightings", 0, 7, b"\x00\xff", reason, START)
    kept = session.scalars(select(DeadLetterRow)).one()
    assert (kept.payload, kept.reason, kept.at) == (b"\x00\xff", "not Avro", START)
