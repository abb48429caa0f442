"""What a person is asked to look at, and in what order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from storage import review
from storage.corrections import confirm, merge, split, undo
from storage.models import AssignmentRow
from storage.records import MATCHER
from storage.removal import remove_tracklets
from storage.review import doubtful
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)

ANNA: dict[str, Any] = {"by": "anna", "at": after(3600)}


def _odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _weighed(*candidates: tuple[str, str, float], halved: bool = True) -> dict[str, Any]:
    """Evidence as the matcher writes it: vehicle, tracklet and probability of each candidate."""
    listed = [
        {"vehicle_id": vehicle, "tracklet_id": name, "probability": sure, "modalities": "visible~thermal"}
        for vehicle, name, sure in candidates
    ]
    return {"rule": "the best fit", "candidates": listed} | ({"halved": True} if halved else {})


def _link(session: Session, number: int, vehicle: str, other: str, sure: float, *, camera: str = "bridge") -> str:
    """A tracklet linked to a vehicle, so sure, by looking at another tracklet."""
    of = tracklet(camera, number, start=100 + number, end=101 + number)
    store(session, of)
    said = replace(assignment(of.tracklet_id, vehicle, reason="linked"), score=_odds(sure), margin=0.25)
    Writer(session).assign(replace(said, modality_pair="visible-thermal", evidence=_weighed((vehicle, other, sure))))
    return of.tracklet_id


def _miss(session: Session, number: int, *candidates: tuple[str, str, float], camera: str = "bridge") -> str:
    """A tracklet taken for a vehicle of its own although others fitted."""
    of = tracklet(camera, number, start=200 + number, end=201 + number)
    store(session, of)
    said = assignment(of.tracklet_id, f"new{number}", reason="new")
    Writer(session).assign(replace(said, evidence=_weighed(*candidates)))
    return of.tracklet_id


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """`v1`, `v2` and `v3` at the gate."""
    with database.transaction() as opened:
        for number in (1, 2, 3):
            store(opened, tracklet("gate", number, start=number), f"v{number}")
        yield opened


def test_the_least_sure_decision_comes_first_of_both_kinds(session: Session) -> None:
    sure = _link(session, 1, "v1", "gate/s1/1", 0.9)
    even = _link(session, 2, "v2", "gate/s1/2", 0.55)
    miss = _miss(session, 3, ("v1", "gate/s1/1", 0.2), ("v3", "gate/s1/3", 0.4))
    told = [(one.kind, one.tracklet_id, round(one.probability, 6)) for one in doubtful(session)]
    assert told == [("link", even, 0.55), ("near miss", miss, 0.4), ("link", sure, 0.9)]
    assert [one.tracklet_id for one in doubtful(session, limit=1)] == [even]


def test_it_is_told_with_what_it_was_compared_with(session: Session) -> None:
    linked, missed = _link(session, 1, "v1", "gate/s1/1", 0.6), _miss(session, 2, ("v3", "gate/s1/3", 0.3))
    of = tracklet("gate", 1, start=1)
    better = [
        embedding(of, 1, quality=0.9, crop_image="better.jpg"),
        embedding(of, 1, modality="thermal", crop_image="thermal.jpg"),
    ]
    Writer(session).store_sighting(of, path(of, 1), better)
    link, miss = doubtful(session)
    assert (link.tracklet_id, link.vehicle_id, link.camera, link.started_at, link.ended_at) == (
        linked,
        "v1",
        "bridge",
        after(101),
        after(102),
    )
    assert (link.margin, link.modality_pair, link.reason) == (0.25, "visible-thermal", "linked")
    assert (link.other_tracklet_id, link.other_vehicle_id, link.other_camera) == ("gate/s1/1", "v1", "gate")
    assert (link.other_started_at, link.crop_images) == (after(1), {"visible": "bridge/s1/1.jpg"})
    assert link.other_crop_images == {"visible": "better.jpg", "thermal": "thermal.jpg"}
    assert (miss.tracklet_id, miss.vehicle_id, miss.other_vehicle_id) == (missed, "new2", "v3")
    assert (miss.modality_pair, miss.reason) == ("visible~thermal", "new")


def test_scores_of_before_they_were_halved_count_half(session: Session) -> None:
    old, new = _link(session, 1, "v1", "gate/s1/1", 0.7), _link(session, 2, "v2", "gate/s1/2", 0.7)
    said = replace(assignment(old, "v1", reason="joined"), score=_odds(0.7), evidence=_weighed(halved=False))
    Writer(session).assign(replace(said, is_provisional=True))
    Writer(session).assign(replace(said, evidence=_weighed(("v1", "gate/s1/1", 0.7), halved=False)))
    first, second = doubtful(session)
    assert (first.tracklet_id, second.tracklet_id) == (old, new)
    assert first.probability == pytest.approx(1 / (1 + math.exp(-_odds(0.7) / 2)))


def test_what_a_person_has_decided_is_not_asked_again(session: Session) -> None:
    linked = _link(session, 1, "v1", "gate/s1/1", 0.6)
    missed = _miss(session, 2, ("v3", "gate/s1/3", 0.4))
    made = [confirm(session, [linked, "gate/s1/1"], **ANNA), confirm(session, [missed, "gate/s1/3"], **ANNA)]
    assert doubtful(session) == []
    undo(session, made[0].correction_id, **ANNA)
    assert [one.tracklet_id for one in doubtful(session)] == [linked]
    split(session, [linked], **ANNA)
    assert doubtful(session) == []


def test_a_near_miss_that_was_merged_is_none_any_more(session: Session) -> None:
    missed = _miss(session, 2, ("v3", "gate/s1/3", 0.4))
    merged = [replace(assignment(missed, "v3", reason="merge"), evidence=_weighed(("v3", "gate/s1/3", 0.4)))]
    Writer(session).correct("merge", merged, made_by=MATCHER, made_at=START)
    assert doubtful(session) == []
    _miss(session, 5, ("v3", "gate/s1/3", 0.4))
    merge(session, "v3", "new5", **ANNA)
    assert doubtful(session) == []


def test_what_can_hardly_be_and_what_is_still_in_view_is_left_out(session: Session) -> None:
    _miss(session, 1, ("v3", "gate/s1/3", 0.05))
    _miss(session, 2)
    open_ = tracklet("bridge", 3, start=300)
    store(session, open_)
    said = replace(assignment(open_.tracklet_id, "v1", reason="linked", is_provisional=True), score=0.1)
    Writer(session).assign(replace(said, evidence=_weighed(("v1", "gate/s1/1", 0.52))))
    assert doubtful(session) == []


def test_a_link_whose_other_has_gone_is_held_against_what_is_left(session: Session) -> None:
    store(session, tracklet("gate", 4, start=50), "v1")
    store(session, tracklet("gate", 5, start=500), "v1")
    linked = _link(session, 1, "v1", "gate/s1/4", 0.6)
    missed = _miss(session, 2, ("v1", "gate/s1/4", 0.4))
    assert [one.other_tracklet_id for one in doubtful(session)] == ["gate/s1/4", "gate/s1/4"]
    remove_tracklets(session, {"gate/s1/4"})
    assert [(one.tracklet_id, one.other_tracklet_id) for one in doubtful(session)] == [(linked, "gate/s1/1")]
    remove_tracklets(session, {"gate/s1/1"})
    assert [one.other_tracklet_id for one in doubtful(session)] == ["gate/s1/5"]
    remove_tracklets(session, {"gate/s1/5"})
    assert doubtful(session) == []
    remove_tracklets(session, {missed})


def test_nothing_is_said_of_cameras_that_one_may_not_see(session: Session) -> None:
    _link(session, 1, "v1", "gate/s1/1", 0.6)
    _miss(session, 2, ("v3", "gate/s1/3", 0.4))
    _link(session, 7, "v2", "gate/s1/2", 0.7, camera="gate")
    assert doubtful(session, visible={"bridge"}) == []
    assert doubtful(session, visible=()) == []
    assert [one.tracklet_id for one in doubtful(session, visible={"gate"})] == ["gate/s1/7"]
    assert len(doubtful(session, visible={"gate", "bridge"})) == 3


def test_evidence_that_tells_no_candidates_is_no_trouble(session: Session) -> None:
    store(session, tracklet("bridge", 1, start=9))
    Writer(session).assign(assignment("bridge/s1/1", "v1", score=0.5))
    (one,) = doubtful(session)
    assert (one.other_tracklet_id, one.modality_pair) == ("gate/s1/1", None)


def test_near_misses_are_looked_for_among_the_latest(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "NEAR_MISSES_AMONG", 1)
    _miss(session, 1, ("v1", "gate/s1/1", 0.4))
    latest = _miss(session, 2, ("v1", "gate/s1/1", 0.3))
    assert [one.tracklet_id for one in doubtful(session)] == [latest]


def test_the_number_of_statements_does_not_grow(session: Session) -> None:
    counts = []
    for number in range(6):
        with counted(session) as statements:
            assert len(doubtful(session)) == 2 * number
        counts.append(statements.count)
        _link(session, number + 10, "v1", "gate/s1/1", 0.6)
        _miss(session, number + 20, ("v2", "gate/s1/2", 0.4))
    assert set(counts) == {4}


def test_links_are_found_by_their_index(session: Session) -> None:
    # Of a small table PostgreSQL reads all; the plan is asked for with that forbidden.
    if session.get_bind().dialect.name == "postgresql":
        session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    lowest = review._lowest(9)
    compiled = lowest.compile(session.connection(), compile_kwargs={"literal_binds": True})
    prefix = "EXPLAIN QUERY PLAN" if session.get_bind().dialect.name == "sqlite" else "EXPLAIN"
    plan = "\n".join(str(row) for row in session.connection().exec_driver_sql(f"{prefix} {compiled}"))
    assert "ix_assignments_doubtful" in plan
    assert session.execute(select(AssignmentRow.assignment_id).limit(1)).first() is not None
