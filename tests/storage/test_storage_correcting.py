"""Decisions that are changed afterwards, and whose word it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, select, text

from storage.errors import StorageError
from storage.matcher_state import OperatorDecision, load_operator_decisions, load_tracklets, newest_decision
from storage.models import AssignmentRow, CorrectionRow, VehicleRow
from storage.records import MATCHER
from storage.trajectories import boxes
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database
    from storage.records import AssignmentRecord

pytest_plugins = ("tests.storage.storage_fixtures",)

FIRST, SECOND, THIRD = "gate/s1/1", "gate/s1/2", "gate/s1/3"


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        yield opened


@pytest.fixture
def three(session: Session) -> Session:
    """Three tracklets, each a vehicle of its own."""
    for number in (1, 2, 3):
        store(session, tracklet(number=number, start=number, end=number + 1), f"v{number}", frames=[number])
    return session


def _by_anna(tracklet_id: str, vehicle_id: str) -> AssignmentRecord:
    return replace(assignment(tracklet_id, vehicle_id, reason="merge"), decided_by="anna")


def _current(session: Session) -> dict[str, tuple[str, str]]:
    rows = session.scalars(select(AssignmentRow).where(AssignmentRow.is_current))
    return {row.tracklet_id: (row.vehicle_id, row.decided_by) for row in rows}


def _count(session: Session, table: type[AssignmentRow | CorrectionRow]) -> int:
    return session.execute(select(func.count()).select_from(table)).scalar_one()


# Correcting.


def test_a_correction_changes_decisions_together(three: Session) -> None:
    wanted = [assignment(SECOND, "v1", reason="merge"), assignment(THIRD, "v1", reason="merge")]
    made = Writer(three).correct("merge", wanted, made_by=MATCHER, made_at=after(60), note="second look")
    correction = three.scalars(select(CorrectionRow)).one()
    assert correction.correction_id == made
    assert (correction.kind, correction.made_by, correction.made_at) == ("merge", MATCHER, after(60))
    assert (correction.note, correction.undoes) == ("second look", None)
    assert _current(three) == dict.fromkeys((FIRST, SECOND, THIRD), ("v1", MATCHER))
    seen = {row.vehicle_id: (row.first_seen, row.last_seen) for row in three.scalars(select(VehicleRow))}
    assert seen == {"v1": (after(1), after(4)), "v2": (None, None), "v3": (None, None)}


def test_what_changes_nothing_is_left_out(three: Session) -> None:
    wanted = [assignment(FIRST, "v1"), assignment(SECOND, "v1")]
    made = Writer(three).correct("merge", wanted, made_by=MATCHER, made_at=START)
    rows = three.scalars(select(AssignmentRow).where(AssignmentRow.correction_id == made)).all()
    assert [row.tracklet_id for row in rows] == [SECOND]
    assert Writer(three).correct("merge", wanted, made_by=MATCHER, made_at=START) is None
    assert (_count(three, CorrectionRow), _count(three, AssignmentRow)) == (1, 4)


def test_a_correction_of_a_tracklet_that_is_not_stored_is_refused(three: Session) -> None:
    with pytest.raises(StorageError, match="gate/s1/9: no such tracklet"):
        Writer(three).correct("move", [_by_anna("gate/s1/9", "v1")], made_by="anna", made_at=START)


def test_a_correction_is_undone_once_at_most(database: Database) -> None:
    def correct(kind: str, vehicle_id: str, undoes: int | None) -> int | None:
        with database.transaction() as session:
            wanted = [_by_anna(FIRST, vehicle_id)]
            return Writer(session).correct(kind, wanted, made_by="anna", made_at=START, undoes=undoes)

    with database.transaction() as session:
        store(session, tracklet(), "v1")
    made = correct("move", "v2", None)
    correct("undo", "v1", made)
    with pytest.raises(StorageError, match=r"(?i)unique.*undoes"):
        correct("undo", "v3", made)


# A person's word.


def test_a_person_who_says_the_same_says_something(three: Session) -> None:
    writer = Writer(three)
    before = newest_decision(three)
    said = writer.assign(_by_anna(FIRST, "v1"))
    assert said is not None
    assert said > before
    assert writer.assign(_by_anna(FIRST, "v1")) == said
    assert _current(three)[FIRST] == ("v1", "anna")
    assert next(iter(load_tracklets(three, "main"))).assignment == _by_anna(FIRST, "v1")


def test_the_matcher_does_not_take_back_what_a_person_said(three: Session) -> None:
    writer = Writer(three)
    said = writer.assign(_by_anna(FIRST, "v2"))
    assert writer.assign(assignment(FIRST, "v1")) == said
    second_look = [assignment(FIRST, "v3"), assignment(SECOND, "v3")]
    assert writer.correct("merge", second_look, made_by=MATCHER, made_at=START) is not None
    assert _current(three) == {FIRST: ("v2", "anna"), SECOND: ("v3", MATCHER), THIRD: ("v3", MATCHER)}
    assert writer.correct("merge", second_look[:1], made_by=MATCHER, made_at=START) is None


@pytest.mark.parametrize("decided", ["v1", "v2"])
def test_what_a_person_said_of_a_vehicle_in_view_becomes_final_at_its_end(session: Session, decided: str) -> None:
    store(session, tracklet())
    writer = Writer(session)
    writer.assign(assignment(FIRST, "v1", is_provisional=True))
    said = writer.assign(replace(_by_anna(FIRST, "v2"), is_provisional=True))
    assert writer.assign(assignment(FIRST, "v1", is_provisional=True)) == said
    final = writer.assign(assignment(FIRST, decided, reason="linked", score=2.0))
    assert said is not None
    assert final is not None
    assert final > said
    assert writer.assign(assignment(FIRST, "v1")) == final
    (found,) = load_tracklets(session, "main")
    assert found.assignment is not None
    assert (found.assignment.decided_by, found.assignment.is_provisional) == ("anna", False)
    # The matcher's numbers are of its own vehicle, not of that person's.
    told = (found.assignment.vehicle_id, found.assignment.reason, found.assignment.score)
    assert told == ("v2", "merge", 2.0 if decided == "v2" else None)


def test_as_of_the_decision_no_correction_counts(three: Session) -> None:
    writer = Writer(three)
    writer.correct("merge", [assignment(SECOND, "v1")], made_by=MATCHER, made_at=START)
    writer.correct("move", [_by_anna(THIRD, "v1")], made_by="anna", made_at=START)
    store(three, tracklet(number=4), frames=[4])
    writer.assign(assignment("gate/s1/4", "v4", is_provisional=True))
    writer.correct("move", [_by_anna("gate/s1/4", "v1")], made_by="anna", made_at=START)
    writer.assign(assignment("gate/s1/4", "v1"))
    assert {row.frame: row.vehicle for row in boxes(three, as_of="final")} == dict.fromkeys((1, 2, 3, 4), "v1")
    assert {row.frame: row.vehicle for row in boxes(three, as_of="decision")} == {1: "v1", 2: "v2", 3: "v3", 4: "v4"}


# What a running matcher hears of it.


def test_a_matcher_hears_what_people_decide(three: Session) -> None:
    writer = Writer(three)
    store(three, tracklet("bridge", 7, region="north"), "v7")
    started = newest_decision(three)
    assert load_operator_decisions(three, "main", after=0) == []
    writer.correct("merge", [assignment(SECOND, "v1")], made_by=MATCHER, made_at=START)
    merged = [_by_anna(FIRST, "v3"), _by_anna(THIRD, "v3"), _by_anna("bridge/s1/7", "v3")]
    writer.correct("merge", merged, made_by="anna", made_at=START)
    first, third = load_operator_decisions(three, "main", after=started)
    assert (first.tracklet_id, first.vehicle_id, first.is_pinned) == (FIRST, "v3", True)
    assert (third.tracklet_id, third.vehicle_id) == (THIRD, "v3")
    assert load_operator_decisions(three, "main", after=first.assignment_id) == [third]
    assert [found.tracklet_id for found in load_operator_decisions(three, "north", after=started)] == ["bridge/s1/7"]
    assert load_operator_decisions(three, "main", after=newest_decision(three)) == []


def test_a_matcher_hears_that_a_tracklet_is_its_own_again(three: Session) -> None:
    writer = Writer(three)
    made = writer.correct("move", [_by_anna(SECOND, "v1")], made_by="anna", made_at=START)
    writer.correct("undo", [assignment(SECOND, "v2")], made_by="ben", made_at=START, undoes=made)
    found = load_operator_decisions(three, "main", after=0)
    assert found == [OperatorDecision(newest_decision(three), SECOND, "v2", is_pinned=False)]


def test_asking_what_people_decided_reads_no_other_decisions(database: Database) -> None:
    with database.transaction() as session:
        for number in range(300):
            store(session, tracklet(number=number), f"v{number}")
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("ANALYZE"))
        assert "ix_assignments_corrected" in _plan(session)


def _plan(session: Session) -> str:
    """How the database answers `load_operator_decisions`."""
    asked: list[tuple[str, Any]] = []
    engine = session.connection().engine

    def seen(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:  # noqa: ANN401
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", seen)
    load_operator_decisions(session, "main", after=5)
    event.remove(engine, "before_cursor_execute", seen)
    ((statement, parameters),) = asked
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    return str(session.connection().exec_driver_sql(f"{explain} {statement}", parameters).all())
