"""What a person changes stays changed, and can be taken back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from storage.corrections import confirm, corrections, merge, move, split, undo
from storage.database import Database
from storage.errors import (
    CorrectionError,
    CorrectionNotFoundError,
    StorageError,
    TrackletNotFoundError,
    VehicleNotFoundError,
)
from storage.matcher_state import load_operator_decisions
from storage.models import AssignmentRow, VehicleRow
from storage.records import MATCHER
from storage.trajectories import boxes, trajectory, vehicles
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    from storage.trajectories import VehicleSummary

pytest_plugins = ("tests.storage.storage_fixtures",)

ANNA: dict[str, Any] = {"by": "anna", "at": after(3600)}
BEN: dict[str, Any] = {"by": "ben", "at": after(7200)}
G1, G2, B1, B2 = "gate/s1/1", "gate/s1/2", "bridge/s1/1", "bridge/s1/2"


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """`v1` at the gate and the bridge; `v2` at the bridge and the gate."""
    with database.transaction() as opened:
        store(opened, tracklet("gate", 1, start=0, end=4), "v1", frames=[1])
        store(opened, tracklet("bridge", 1, start=10, end=14), "v1", frames=[100])
        store(opened, tracklet("bridge", 2, start=20, end=24), "v2", frames=[200])
        store(opened, tracklet("gate", 2, start=30, end=34, vehicle_class="bus"), "v2", frames=[300])
        yield opened


def _words(session: Session) -> dict[str, tuple[str, str]]:
    """Whose each tracklet is now, and who says so."""
    rows = session.execute(
        select(AssignmentRow.tracklet_id, AssignmentRow.vehicle_id, AssignmentRow.decided_by).where(
            AssignmentRow.is_current
        )
    )
    return {tracklet_id: (vehicle_id, decided_by) for tracklet_id, vehicle_id, decided_by in rows}


AS_DECIDED = {G1: ("v1", MATCHER), B1: ("v1", MATCHER), B2: ("v2", MATCHER), G2: ("v2", MATCHER)}


# Merge, split, move.


def test_a_merge_gives_all_to_one_and_pins_them(session: Session) -> None:
    made = merge(session, "v1", "v2", **ANNA, note="same dent")
    assert _words(session) == dict.fromkeys(AS_DECIDED, ("v1", "anna"))
    assert (made.kind, made.made_by, made.made_at, made.note) == ("merge", "anna", after(3600), "same dent")
    assert [(change.tracklet_id, change.before, change.after) for change in made.moved] == [
        (B2, "v2", "v1"),
        (G2, "v2", "v1"),
    ]
    assert len(made.changes) == 4
    (only,) = vehicles(session)
    assert (only.vehicle_id, only.first_seen, only.last_seen) == ("v1", START, after(34))


def test_a_split_makes_a_vehicle_that_never_was(session: Session) -> None:
    made = split(session, [B1], **ANNA)
    (moved,) = made.moved
    assert UUID(moved.after).version == 5
    assert _words(session) == AS_DECIDED | {G1: ("v1", "anna"), B1: (moved.after, "anna")}
    # The name is taken for ever: had it been given away in between, two splits would meet under it.
    undo(session, made.correction_id, **ANNA)
    again = split(session, [B1], **ANNA).moved[0].after
    assert again not in {"v1", "v2", moved.after}


def test_the_same_split_makes_the_same_vehicle(database: Database) -> None:
    made = []
    for _ in range(2):
        with database.transaction() as session:
            store(session, tracklet("gate", 1), "v1")
            store(session, tracklet("bridge", 1), "v1")
            made.append(split(session, [B1], **ANNA).moved[0].after)
            session.rollback()
    assert made[0] == made[1]


def test_a_move_pins_both_ends(session: Session) -> None:
    store(session, tracklet("gate", 3, start=50), "v3")
    move(session, [G1], "v2", **ANNA)
    pinned = {G1: ("v2", "anna"), B1: ("v1", "anna"), B2: ("v2", "anna"), G2: ("v2", "anna")}
    assert _words(session) == pinned | {"gate/s1/3": ("v3", MATCHER)}


def test_a_confirmation_pins_what_it_names_and_nothing_else(session: Session) -> None:
    made = confirm(session, [B1, B2], **ANNA, note="two, by their roofs")
    assert _words(session) == AS_DECIDED | {B1: ("v1", "anna"), B2: ("v2", "anna")}
    assert (made.kind, made.moved, [change.after for change in made.changes]) == ("confirm", (), ["v1", "v2"])
    merged = [assignment(B2, "v1", reason="merge"), assignment(G2, "v1", reason="merge")]
    Writer(session).correct("merge", merged, made_by=MATCHER, made_at=START)
    assert _words(session)[B2] == ("v2", "anna")
    heard = load_operator_decisions(session, "main", after=0)
    assert [(found.tracklet_id, found.is_pinned) for found in heard] == [(B1, True), (B2, True)]


def test_a_confirmation_can_be_taken_back_and_brought_back(session: Session) -> None:
    made = confirm(session, [G1], **ANNA)
    with pytest.raises(CorrectionError, match="confirm: nothing would change"):
        confirm(session, [G1], **ANNA)
    undone = undo(session, made.correction_id, **BEN)
    assert _words(session) == AS_DECIDED
    undo(session, undone.correction_id, **BEN)
    assert _words(session) == AS_DECIDED | {G1: ("v1", "anna")}


def test_another_person_may_confirm_what_was_said(session: Session) -> None:
    merge(session, "v1", "v2", **ANNA)
    made = confirm(session, [G2], **BEN)
    assert _words(session)[G2] == ("v1", "ben")
    undo(session, made.correction_id, **BEN)
    assert _words(session)[G2] == ("v1", "anna")


def test_a_confirmed_vehicle_in_view_stays_open_until_its_end(session: Session) -> None:
    store(session, tracklet("gate", 9, start=50))
    Writer(session).assign(assignment("gate/s1/9", "v1", is_provisional=True))
    confirm(session, ["gate/s1/9"], **ANNA)
    assert trajectory(session, "v1").stops[-1].is_provisional
    Writer(session).assign(assignment("gate/s1/9", "v2"))
    assert _words(session)["gate/s1/9"] == ("v1", "anna")
    assert not trajectory(session, "v1").stops[-1].is_provisional


def test_ids_may_be_shortened(session: Session) -> None:
    with pytest.raises(TrackletNotFoundError, match="s1/1: more than one begins or ends so: bridge/s1/1, gate/s1/1"):
        move(session, ["s1/1"], "v2", **ANNA)
    made = move(session, ["te/s1/1"], "v2", **ANNA)
    assert [change.tracklet_id for change in made.moved] == [G1]


def test_what_stays_keeps_the_evidence_it_stands_on(session: Session) -> None:
    store(session, tracklet("tower", 1, start=5))
    Writer(session).assign(assignment("tower/s1/1", "v1", score=3.5))
    merge(session, "v1", "v2", **ANNA)
    stops = {stop.tracklet_id: stop for stop in trajectory(session, "v1").stops}
    assert (stops["tower/s1/1"].score, stops[B2].score) == (3.5, None)


def test_what_is_moved_to_where_it_is_keeps_its_evidence_too(session: Session) -> None:
    Writer(session).assign(assignment("gate/s1/2", "v9"))
    Writer(session).assign(assignment("gate/s1/2", "v2", score=3.5))
    made = move(session, [G1, G2], "v2", **ANNA)
    assert [change.tracklet_id for change in made.moved] == [G1]
    stops = {stop.tracklet_id: stop for stop in trajectory(session, "v2").stops}
    assert (stops[G2].score, stops[G2].reason, stops[G1].score) == (3.5, "confirm", None)


def test_a_vehicle_in_view_stays_open_when_it_is_moved(session: Session) -> None:
    store(session, tracklet("gate", 9, start=50))
    Writer(session).assign(assignment("gate/s1/9", "v9", is_provisional=True))
    made = move(session, ["gate/s1/9"], "v1", **ANNA)
    assert trajectory(session, "v1").stops[-1].is_provisional
    Writer(session).assign(assignment("gate/s1/9", "v1"))
    # Its end says nothing new of whose it is, and stands in nobody's way.
    undo(session, made.correction_id, **ANNA)
    assert _words(session)["gate/s1/9"] == ("v9", MATCHER)
    assert not trajectory(session, "v9").stops[0].is_provisional


def test_as_of_the_decision_a_correction_is_not_seen(session: Session) -> None:
    merge(session, "v1", "v2", **ANNA)
    assert {row.vehicle for row in boxes(session, as_of="decision")} == {"v1", "v2"}
    assert {row.vehicle for row in boxes(session)} == {"v1"}


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (lambda s: merge(s, "v1", "v1", **ANNA), CorrectionError, "merge: v1 and v1 are both vehicle v1"),
        (lambda s: merge(s, "v1", "v9", **ANNA), VehicleNotFoundError, "vehicle v9: not known"),
        (lambda s: merge(s, "v", "v1", **ANNA), VehicleNotFoundError, "v: more than one begins so"),
        (lambda s: split(s, [G1, B1], **ANNA), CorrectionError, "these are all tracklets of vehicle v1"),
        (lambda s: split(s, [G1, B2], **ANNA), CorrectionError, "of several vehicles: v1, v2; split one by one"),
        (lambda s: split(s, [], **ANNA), CorrectionError, "split: which tracklets"),
        (lambda s: move(s, [G1, B1], "v1", **ANNA), CorrectionError, "vehicle v1 has these tracklets already"),
        (lambda s: move(s, ["gate/s9"], "v1", **ANNA), TrackletNotFoundError, "tracklet gate/s9: not known"),
        (lambda s: confirm(s, [], **ANNA), CorrectionError, "confirm: which tracklets"),
        (lambda s: confirm(s, ["gate/s9"], **ANNA), TrackletNotFoundError, "tracklet gate/s9: not known"),
        (lambda s: undo(s, 7, **ANNA), CorrectionNotFoundError, "correction 7: not known"),
        (lambda s: merge(s, "v1", "v2", by=MATCHER, at=START), CorrectionError, "other than 'matcher'"),
        (lambda s: merge(s, "v1", "v2", by="", at=START), CorrectionError, "by: wanted a person's name"),
        (lambda s: merge(s, "v1", "v2", by="x" * 65, at=START), CorrectionError, "at most 64 letters"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    session: Session, ask: Callable[[Session], object], kind: type[StorageError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        ask(session)
    assert "\n" not in str(caught.value)
    assert _words(session) == AS_DECIDED
    assert corrections(session) == []


def test_an_empty_vehicle_and_an_undecided_tracklet_are_refused(session: Session) -> None:
    merge(session, "v1", "v2", **ANNA)
    with pytest.raises(VehicleNotFoundError, match="v2: its tracklets have been given to other vehicles"):
        merge(session, "v1", "v2", **ANNA)
    store(session, tracklet("gate", 9))
    with pytest.raises(CorrectionError, match="move: tracklet gate/s1/9 has no vehicle yet"):
        move(session, ["gate/s1/9"], "v1", **ANNA)


@pytest.mark.integration
def test_who_corrects_sees_what_others_were_about_to_decide(postgresql_url: str) -> None:
    database = Database.open(postgresql_url)
    with database.transaction() as session:
        for number in (1, 2, 3):
            store(session, tracklet(number=number), f"v{min(number, 2)}")
        store(session, tracklet(number=4))

    def correct() -> int:
        with database.transaction() as session:
            return len(merge(session, "v1", "v2", **ANNA).moved)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as matching:
            Writer(matching).assign(assignment("gate/s1/4", "v2"))
            correcting = pool.submit(correct)
            with pytest.raises(TimeoutError):
                correcting.result(timeout=0.2)
        assert correcting.result(timeout=30) == 3
    with database.snapshot() as session:
        assert [vehicle.vehicle_id for vehicle in vehicles(session)] == ["v1"]
    database.close()


@pytest.mark.integration
def test_who_stores_and_then_decides_does_not_wait_in_a_ring_with_who_corrects(postgresql_url: str) -> None:
    database = Database.open(postgresql_url)
    with database.transaction() as session:
        for number in (1, 2):
            store(session, tracklet(number=number), f"v{number}")
        store(session, tracklet(number=3))

    def correct() -> int:
        with database.transaction() as session:
            return len(merge(session, "v1", "v2", **ANNA).moved)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as matching:
            writer, longer = Writer(matching), tracklet(number=1, end=5)
            writer.store_sighting(longer, path(longer, 1), [])
            correcting = pool.submit(correct)
            with pytest.raises(TimeoutError):
                correcting.result(timeout=0.5)
            writer.assign(assignment("gate/s1/3", "v1"))
        assert correcting.result(timeout=30) == 1
    with database.snapshot() as session:
        assert [(vehicle.vehicle_id, vehicle.tracklets) for vehicle in vehicles(session)] == [("v1", 3)]
    database.close()


# Undo.


def test_an_undo_gives_tracklets_back_to_whom_they_were(session: Session) -> None:
    made = merge(session, "v1", "v2", **ANNA)
    back = undo(session, made.correction_id, **BEN, note="no dent at all")
    assert _words(session) == AS_DECIDED
    assert (back.undoes, back.made_by, back.note) == (made.correction_id, "ben", "no dent at all")
    assert [found.undone_by for found in corrections(session)] == [None, back.correction_id]
    heard = load_operator_decisions(session, "main", after=0)
    assert {found.tracklet_id: (found.vehicle_id, found.is_pinned) for found in heard} == {
        tracklet_id: (vehicle_id, False) for tracklet_id, (vehicle_id, _) in AS_DECIDED.items()
    }


def test_an_undo_of_an_undo_brings_the_correction_back(session: Session) -> None:
    made = merge(session, "v1", "v2", **ANNA)
    undone = undo(session, made.correction_id, **BEN)
    redone = undo(session, undone.correction_id, **BEN)
    assert _words(session) == dict.fromkeys(AS_DECIDED, ("v1", "anna"))
    with pytest.raises(CorrectionError, match="correction 1: taken back by correction 2 already; brought back by co"):
        undo(session, made.correction_id, **BEN)
    undo(session, redone.correction_id, **ANNA)
    assert _words(session) == AS_DECIDED
    with pytest.raises(CorrectionError, match="taken back by correction 2 already; undo 4 to have it again"):
        undo(session, made.correction_id, **BEN)


def test_what_was_corrected_since_is_undone_first(session: Session) -> None:
    first = merge(session, "v1", "v2", **ANNA)
    second = split(session, [G2], **BEN)
    since = rf"correction {second.correction_id} \(split by ben\) has decided on tracklet .* since; undo that one first"
    with pytest.raises(CorrectionError, match=since):
        undo(session, first.correction_id, **ANNA)
    undo(session, second.correction_id, **ANNA)
    undo(session, first.correction_id, **ANNA)
    assert _words(session) == AS_DECIDED


def test_a_confirmation_by_the_same_person_stands_in_the_way_too(session: Session) -> None:
    store(session, tracklet("gate", 3, start=50), "v3")
    first = merge(session, "v1", "v2", **ANNA)
    merge(session, "v1", "v3", **ANNA)
    with pytest.raises(CorrectionError, match="undo that one first"):
        undo(session, first.correction_id, **ANNA)


def test_what_the_matcher_decided_since_stands_in_the_way(session: Session) -> None:
    made = merge(session, "v1", "v2", **ANNA)
    undone = undo(session, made.correction_id, **ANNA)
    Writer(session).assign(assignment(G2, "v5"))
    with pytest.raises(CorrectionError, match=f"matcher has decided anew on tracklet {G2} since"):
        undo(session, undone.correction_id, **ANNA)


def test_undoing_what_the_matcher_corrected_contradicts_it(session: Session) -> None:
    wanted = [assignment(tracklet_id, "v1", reason="merge") for tracklet_id in (B2, G2)]
    made = Writer(session).correct("merge", wanted, made_by=MATCHER, made_at=START)
    assert made is not None
    back = undo(session, made, **ANNA)
    assert _words(session) == {key: (vehicle_id, "anna") for key, (vehicle_id, _) in AS_DECIDED.items()}
    assert Writer(session).correct("merge", wanted, made_by=MATCHER, made_at=START) is None
    undo(session, back.correction_id, **ANNA)
    assert _words(session) == dict.fromkeys(AS_DECIDED, ("v1", MATCHER))


def test_undoing_what_the_matcher_corrected_leaves_other_peoples_words_alone(session: Session) -> None:
    first = move(session, [B1], "v2", **ANNA)
    store(session, tracklet("gate", 3, start=50), "v3")
    wanted = [assignment("gate/s1/3", "v1", reason="merge")]
    made = Writer(session).correct("merge", wanted, made_by=MATCHER, made_at=START)
    undo(session, made or 0, **BEN)
    undo(session, first.correction_id, **ANNA)
    assert _words(session) == AS_DECIDED | {"gate/s1/3": ("v3", "ben")}


# The law.

_TRACKLETS = 6
_partitions = st.lists(st.integers(0, 3), min_size=_TRACKLETS, max_size=_TRACKLETS)
_steps = st.lists(
    st.tuples(
        st.sampled_from(["merge", "split", "move", "confirm"]), st.integers(0, 5), st.integers(0, 5), st.integers(1, 63)
    ),
    max_size=7,
)
_CLASSES = ("car", "car", "truck", "bus", "truck", "car")


@dataclass(frozen=True)
class _State:
    words: dict[str, tuple[str, str]]
    listed: list[VehicleSummary]
    rows: dict[str, tuple[Any, ...]]


def _state(session: Session) -> _State:
    rows = session.execute(select(VehicleRow.__table__).where(VehicleRow.first_seen.is_not(None)))
    return _State(_words(session), vehicles(session), {row.vehicle_id: tuple(row) for row in rows})


def _step(session: Session, kind: str, one: int, other: int, mask: int) -> int | None:
    """Does what these numbers say, if it makes sense."""
    known = sorted({vehicle_id for vehicle_id, _ in _words(session).values()})
    names = [f"gate/s1/{n}" for n in range(_TRACKLETS) if mask >> n & 1]
    first, second = known[one % len(known)], known[other % len(known)]
    by: dict[str, Any] = ANNA if mask % 2 else BEN
    try:
        if kind == "merge":
            return merge(session, first, second, **by).correction_id
        if kind == "split":
            own = [name for name in names if _words(session)[name][0] == first]
            return split(session, own, **by).correction_id
        if kind == "confirm":
            return confirm(session, names, **by).correction_id
        return move(session, names, first, **by).correction_id
    except CorrectionError:
        return None


@settings(deadline=None, max_examples=60)
@given(_partitions, _steps)
def test_undoing_all_in_reverse_restores_every_state_on_the_way(
    memory: Database, partition: list[int], steps: list[tuple[str, int, int, int]]
) -> None:
    with memory.transaction() as session:
        for number, vehicle in enumerate(partition):
            of = tracklet(number=number, start=3.0 * number, end=40.0 - number, vehicle_class=_CLASSES[number])
            store(session, of, f"v{vehicle}")
        states, made = [_state(session)], []
        for step in steps:
            correction_id = _step(session, *step)
            if correction_id is not None:
                made.append(correction_id)
                states.append(_state(session))
        for _ in range(2):
            # There, and back again: an undo is undone as well.
            made, states = _undo_all(session, made, states)
        _empty(session)


def _undo_all(session: Session, made: list[int], states: list[_State]) -> tuple[list[int], list[_State]]:
    """Undoes in reverse, and looks at every state on the way; what undid it, and the states as they came."""
    undos = []
    for correction_id, later, earlier in zip(reversed(made), states[:0:-1], states[-2::-1], strict=True):
        assert _state(session) == later
        undos.append(undo(session, correction_id, by="carl", at=after(9000)).correction_id)
        assert _state(session) == earlier
    return undos, states[::-1]


def _empty(session: Session) -> None:
    # What points to rows of its own table first.
    session.execute(text("UPDATE assignments SET supersedes = NULL"))
    session.execute(text("UPDATE corrections SET undoes = NULL"))
    for table in ("assignments", "corrections", "vehicles", "embeddings", "sightings", "tracklets"):
        session.execute(text(f"DELETE FROM {table}"))


# Reading.


def test_the_log_is_read_latest_first(session: Session) -> None:
    merge(session, "v1", "v2", **ANNA)
    Writer(session).correct("merge", [assignment("gate/s1/1", "v2")], made_by=MATCHER, made_at=START)
    store(session, tracklet("gate", 3), "v3")
    Writer(session).correct("move", [assignment("gate/s1/3", "v1")], made_by=MATCHER, made_at=START)
    assert [(found.kind, found.made_by) for found in corrections(session)] == [("move", MATCHER), ("merge", "anna")]
    assert [found.kind for found in corrections(session, people_only=True)] == ["merge"]
    assert [found.kind for found in corrections(session, limit=1)] == ["move"]
