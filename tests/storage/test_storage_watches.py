"""Who waits for a vehicle hears of every return, once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from storage import watch_duty
from storage.__main__ import app
from storage.corrections import merge, move, split, undo
from storage.crop_store import CropStore
from storage.database import Database
from storage.errors import OffsetConflictError, VehicleNotFoundError
from storage.forget import forget
from storage.records import MATCHER
from storage.removal import remove_tracklets
from storage.retention import Limits, Retention
from storage.watch_duty import has_work, look_out, note_delivery, note_failure, take_turn, to_tell, waiting
from storage.watches import Notice, WatchError, notices, unwatch, watch, watches
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

pytest_plugins = ("tests.storage.storage_fixtures",)

ANNA: dict[str, Any] = {"by": "anna", "at": after(3600)}
NOW = after(7200)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """`v1` at the gate and the bridge; `v2` at the bridge, twice."""
    with database.transaction() as opened:
        store(opened, tracklet("gate", 1, start=0, end=4), "v1")
        store(opened, tracklet("bridge", 1, start=10, end=14), "v1")
        store(opened, tracklet("bridge", 2, start=20, end=24), "v2")
        store(opened, tracklet("bridge", 3, start=30, end=34), "v2")
        yield opened


def _sees(session: Session, number: int, vehicle: str, *, camera: str = "gate") -> str:
    of = tracklet(camera, number, start=100 + number, end=101 + number)
    store(session, of, vehicle)
    return of.tracklet_id


def _found(session: Session) -> list[tuple[int, str]]:
    """Looks until there is nothing more; of all notices the watch and the tracklet, earliest first."""
    while look_out(session, NOW):
        pass
    return [(one.watch_id, one.tracklet_id) for one in reversed(notices(session))]


def _waiting(session: Session) -> list[Notice]:
    return to_tell(session, waiting(session))


def test_a_watch_tells_of_its_vehicle(session: Session) -> None:
    made = watch(session, "v1", **ANNA, note="case 17")
    assert watches(session) == [made]
    assert (made.vehicle_id, made.made_by, made.made_at, made.note) == ("v1", "anna", after(3600), "case 17")
    assert (made.last_seen, made.last_camera, made.notices, made.ended_at) == (after(14), "bridge", 0, None)
    assert made.crop_images == {"visible": "gate/s1/1.jpg"}
    of = tracklet("gate", 1)
    better = [
        embedding(of, 1, quality=0.9, crop_image="better.jpg"),
        embedding(of, 1, modality="thermal", crop_image="t.jpg"),
    ]
    Writer(session).store_sighting(of, path(of, 1), better)
    assert watches(session)[0].crop_images == {"thermal": "t.jpg", "visible": "better.jpg"}


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (lambda s: watch(s, "v9", **ANNA), VehicleNotFoundError, "v9: not known"),
        (lambda s: watch(s, "v1", **ANNA), WatchError, "vehicle v1 is watched already: watch 1"),
        (lambda s: unwatch(s, 7, **ANNA), WatchError, "watch 7: not known"),
        (lambda s: unwatch(s, 1, by="", at=NOW), WatchError, "by: wanted a person's name"),
    ],
)
def test_what_makes_no_sense_is_refused(
    session: Session, ask: Callable[[Session], object], kind: type[Exception], message: str
) -> None:
    watch(session, "v1", **ANNA)
    with pytest.raises(kind, match=message):
        ask(session)
    assert len(watches(session, ended=True)) == 1


def test_a_vehicle_without_tracklets_can_not_be_watched(session: Session) -> None:
    merge(session, "v1", "v2", **ANNA)
    with pytest.raises(VehicleNotFoundError, match="v2: its tracklets have been given to other vehicles"):
        watch(session, "v2", **ANNA)


def test_a_return_is_noted_once_and_what_was_its_own_is_none(session: Session) -> None:
    number = watch(session, "v1", **ANNA).watch_id
    assert _found(session) == []
    new = _sees(session, 7, "v1")
    _sees(session, 8, "v2")
    assert _found(session) == [(number, new)]
    # More is said of what was its own, and of what has been told.
    for name in ("gate/s1/1", new):
        Writer(session).assign(assignment(name, "v1", is_provisional=True))
    assert _found(session) == [(number, new)]
    (one,) = notices(session)
    assert (one.vehicle_id, one.camera, one.seen_at, one.made_at) == ("v1", "gate", after(107), NOW)
    assert (one.attempts, one.delivered_at, one.error) == (0, None, "")
    assert watches(session)[0].notices == 1


def test_a_return_is_told_while_it_is_provisional_and_stays_told(session: Session) -> None:
    number = watch(session, "v1", **ANNA).watch_id
    store(session, tracklet("gate", 7, start=50))
    Writer(session).assign(assignment("gate/s1/7", "v1", is_provisional=True))
    assert _found(session) == [(number, "gate/s1/7")]
    Writer(session).assign(assignment("gate/s1/7", "v5"))
    assert _found(session) == [(number, "gate/s1/7")]


def test_what_was_another_vehicles_again_before_anybody_looked_is_no_return(session: Session) -> None:
    number = watch(session, "v1", **ANNA).watch_id
    store(session, tracklet("gate", 7, start=50))
    Writer(session).assign(assignment("gate/s1/7", "v1", is_provisional=True))
    Writer(session).assign(assignment("gate/s1/7", "v5", is_provisional=True))
    assert _found(session) == []
    Writer(session).assign(assignment("gate/s1/7", "v1"))
    assert _found(session) == [(number, "gate/s1/7")]


def test_what_a_correction_gives_it_is_a_return_too(session: Session) -> None:
    number = watch(session, "v1", **ANNA).watch_id
    made = move(session, ["bridge/s1/3"], "v1", **ANNA)
    assert _found(session) == [(number, "bridge/s1/3")]
    undo(session, made.correction_id, **ANNA)
    merge(session, "v1", "v2", **ANNA)
    assert _found(session) == [(number, "bridge/s1/3"), (number, "bridge/s1/2")]


def test_one_correction_is_one_notice_whatever_it_gives(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_duty, "BATCH", 1)
    number = watch(session, "v1", **ANNA).watch_id
    merge(session, "v1", "v2", **ANNA)
    # The one seen last; how many there are is told with it.
    assert _found(session) == [(number, "bridge/s1/3")]
    (one,) = told = notices(session)
    assert (one.tracklets, watches(session)[0].notices) == (2, 1)
    assert _waiting(session) == told
    note_failure(session, one.notice_id, "refused")
    note_delivery(session, one.notice_id, after(8000))
    assert _waiting(session) == []
    # What came with it goes, and is given back.
    split(session, ["bridge/s1/2"], **ANNA)
    move(session, ["bridge/s1/2"], "v1", **ANNA)
    assert _found(session) == [(number, "bridge/s1/3")]
    # What is removed leaves the others, as they were told.
    remove_tracklets(session, ["bridge/s1/3"])
    (other,) = notices(session)
    assert (other.tracklet_id, other.tracklets, other.delivered_at) == ("bridge/s1/2", 1, after(8000))
    assert (other.attempts, other.error) == (1, "refused")


def test_who_sees_some_cameras_hears_of_what_a_correction_gave_there(session: Session) -> None:
    _sees(session, 7, "v2", camera="tower")
    watch(session, "v1", **ANNA)
    merge(session, "v1", "v2", **ANNA)
    _found(session)
    assert [(one.camera, one.tracklets) for one in notices(session)] == [("tower", 3)]
    assert [(one.camera, one.tracklets) for one in notices(session, visible={"bridge"})] == [("bridge", 2)]
    assert watches(session, visible={"bridge"})[0].notices == 1


def test_its_own_come_back_by_an_undo_unnoted(session: Session) -> None:
    watch(session, "v1", **ANNA)
    made = split(session, ["bridge/s1/1"], **ANNA)
    assert _found(session) == []
    undo(session, made.correction_id, **ANNA)
    assert _found(session) == []


def test_a_watch_goes_with_its_vehicle_and_comes_back(session: Session) -> None:
    number = watch(session, "v2", **ANNA).watch_id
    made = merge(session, "v1", "v2", **ANNA)
    assert (watches(session)[0].vehicle_id, watches(session)[0].last_seen) == ("v1", after(34))
    # The other's are news to who waits for the one.
    assert _found(session) == [(number, "bridge/s1/1")]
    new = _sees(session, 7, "v1")
    assert _found(session)[-1] == (number, new)
    assert {one.vehicle_id for one in notices(session)} == {"v1"}
    with pytest.raises(WatchError, match="vehicle v1 is watched already"):
        watch(session, "v1", **ANNA)
    undo(session, made.correction_id, **ANNA)
    assert watches(session)[0].vehicle_id == "v2"
    _sees(session, 8, "v1")
    assert len(_found(session)) == 2


def test_a_watch_stays_with_what_is_left_and_then_follows_what_was_seen_last(session: Session) -> None:
    watch(session, "v2", **ANNA)
    moved = split(session, ["bridge/s1/3"], **ANNA).moved[0].after
    assert watches(session)[0].vehicle_id == "v2"
    merge(session, "v1", "v2", **ANNA)
    assert watches(session)[0].vehicle_id == "v1"
    split(session, ["bridge/s1/2"], **ANNA)
    assert watches(session)[0].vehicle_id not in {"v1", "v2", moved}


def test_of_two_that_leave_together_the_one_seen_last_is_followed(session: Session) -> None:
    watch(session, "v2", **ANNA)
    given = [assignment("bridge/s1/3", "v7", reason="move"), assignment("bridge/s1/2", "v6", reason="move")]
    Writer(session).correct("move", given, made_by=MATCHER, made_at=START)
    assert watches(session)[0].vehicle_id == "v7"


def test_a_watch_that_has_ended_finds_nothing_more(session: Session) -> None:
    number = watch(session, "v1", **ANNA).watch_id
    new = _sees(session, 7, "v1")
    _found(session)
    unwatch(session, number, by="ben", at=after(9000))
    with pytest.raises(WatchError, match="watch 1: has ended already"):
        unwatch(session, number, by="ben", at=after(9000))
    _sees(session, 8, "v1")
    assert _found(session) == [(number, new)]
    assert watches(session) == []
    assert [one.ended_at for one in watches(session, ended=True)] == [after(9000)]
    # Watched again, it begins anew.
    again = watch(session, "v1", **ANNA).watch_id
    assert _found(session) == [(number, new)]
    assert _found(session) == [(number, new)]
    last = _sees(session, 9, "v1")
    assert _found(session) == [(number, new), (again, last)]


def test_two_watches_are_told_of_their_own(session: Session) -> None:
    first, second = watch(session, "v1", **ANNA).watch_id, watch(session, "v2", **ANNA).watch_id
    one, other = _sees(session, 7, "v1"), _sees(session, 8, "v2")
    assert _found(session) == [(first, one), (second, other)]
    assert [found.tracklet_id for found in notices(session, watch_id=second)] == [other]
    assert [found.tracklet_id for found in notices(session, limit=1)] == [other]


def test_many_decisions_are_looked_at_batch_by_batch(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_duty, "BATCH", 2)
    number = watch(session, "v1", **ANNA).watch_id
    seen = [_sees(session, count, "v1") for count in range(10, 15)]
    assert look_out(session, NOW)
    assert len(notices(session)) == 2
    assert _found(session) == [(number, name) for name in seen]


def test_nothing_is_said_of_cameras_that_one_may_not_see(session: Session) -> None:
    watch(session, "v1", **ANNA)
    watch(session, "v2", **ANNA)
    _sees(session, 7, "v1", camera="tower")
    _found(session)
    (one,) = watches(session, visible={"gate"})
    assert (one.vehicle_id, one.last_seen, one.last_camera, one.notices) == ("v1", after(4), "gate", 0)
    assert one.crop_images == {"visible": "gate/s1/1.jpg"}
    assert notices(session, visible={"gate"}) == []
    assert [found.camera for found in notices(session, visible={"tower"})] == ["tower"]
    assert watches(session, visible=()) == []


def test_who_sees_some_cameras_is_told_of_vehicles_that_were_seen_there(session: Session) -> None:
    watch(session, "v2", **ANNA)
    back = _sees(session, 7, "v2")
    _found(session)
    (given,) = split(session, [back], **ANNA).moved
    assert [one.vehicle_id for one in notices(session, visible={"bridge"})] == []
    assert [one.vehicle_id for one in notices(session, visible={"gate", "bridge"})] == ["v2"]
    # At the gate there is no v2 any more, but whose the return proved to be.
    assert [one.vehicle_id for one in notices(session, visible={"gate"})] == [given.after]
    assert [one.vehicle_id for one in notices(session)] == ["v2"]


def test_the_number_of_statements_does_not_grow(session: Session) -> None:
    counts = []
    for number in range(3, 8):
        _sees(session, number, f"v{number}")
        watch(session, f"v{number}", **ANNA)
        _sees(session, 100 + number, f"v{number}")
        _found(session)
        with counted(session) as statements:
            assert len(watches(session)) == len(notices(session)) == number - 2
        counts.append(statements.count)
    assert set(counts) == {9}


# Being told.


def test_what_waits_is_told_in_order_and_what_fails_keeps_nothing_back(session: Session) -> None:
    watch(session, "v1", **ANNA)
    assert has_work(session)
    names = [_sees(session, number, "v1") for number in (7, 8, 9)]
    _found(session)
    assert [one.tracklet_id for one in _waiting(session)] == names
    first, second, third = waiting(session)
    note_failure(session, first, "refused " * 1000)
    assert waiting(session) == [second, third, first]
    assert (_waiting(session)[-1].attempts, len(_waiting(session)[-1].error)) == (1, 500)
    note_delivery(session, second, after(8000))
    assert waiting(session) == [third, first]
    assert [one.delivered_at for one in notices(session)] == [None, after(8000), None]


def test_without_watches_and_notices_there_is_nothing_to_do(session: Session) -> None:
    assert not has_work(session)
    assert not look_out(session, NOW)
    number = watch(session, "v1", **ANNA).watch_id
    _sees(session, 7, "v1")
    _found(session)
    unwatch(session, number, **ANNA)
    assert has_work(session)
    note_delivery(session, waiting(session)[0], NOW)
    assert not has_work(session)


def test_one_has_the_turn_until_it_does_not_renew_it(session: Session) -> None:
    first = take_turn(session, None, 1000, 2000)
    assert first == 2000
    assert take_turn(session, None, 1500, 2500) is None
    assert take_turn(session, first, 1800, 2800) == 2800
    assert take_turn(session, None, 2900, 3900) == 3900
    assert take_turn(session, 2800, 3000, 4000) is None


def test_a_turn_that_a_clock_wrote_which_ran_ahead_keeps_nobody_away(session: Session) -> None:
    year_ms = 365 * 86_400_000
    ahead = take_turn(session, None, year_ms, year_ms + 1000)
    assert take_turn(session, None, 1000, 2000) == 2000
    assert take_turn(session, ahead, 1500, 2500) is None


def test_of_two_who_look_at_once_one_is_heard(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(session, "v1", **ANNA)
    _sees(session, 7, "v1")

    def look_beside(session: Session) -> None:
        Writer(session).advance_offset(watch_duty.OFFSET_TOPIC, 0, expected=None, next_offset=9)

    monkeypatch.setattr(watch_duty, "wait_for_decisions", look_beside)
    with pytest.raises(OffsetConflictError):
        look_out(session, NOW)
    assert notices(session) == []


@pytest.mark.integration
def test_who_looks_waits_for_who_is_deciding(postgresql_url: str) -> None:
    database = Database.open(postgresql_url)
    with database.transaction() as session:
        store(session, tracklet("gate", 1), "v1")
        store(session, tracklet("bridge", 1), "v2")
        for vehicle in ("v1", "v2"):
            watch(session, vehicle, **ANNA)
        for number in (2, 3):
            store(session, tracklet("gate", number))

    def look() -> int:
        with database.transaction() as session:
            look_out(session, NOW)
            return len(notices(session))

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as slow:
            Writer(slow).assign(assignment("gate/s1/2", "v1"))
            with database.transaction() as quick:
                Writer(quick).assign(assignment("gate/s1/3", "v2"))
            looking = pool.submit(look)
            with pytest.raises(TimeoutError):
                looking.result(timeout=0.3)
        assert looking.result(timeout=30) == 2
    database.close()


def test_what_is_written_is_read_back_in_the_same_transaction(session: Session) -> None:
    made = watch(session, "v1", **ANNA)
    unwatch(session, made.watch_id, by="ben", at=NOW)
    assert watches(session, ended=True) == [replace(made, ended_at=NOW)]


# What becomes too old, and what is forgotten.


def test_what_is_forgotten_is_not_waited_for_either(session: Session, tmp_path: Path) -> None:
    watch(session, "v1", **ANNA)
    other = watch(session, "v2", **ANNA)
    _sees(session, 7, "v1")
    kept, gone = _sees(session, 8, "v2"), _sees(session, 9, "v2")
    _found(session)
    # Told to who waits for the one, and the other's by now.
    Writer(session).assign(assignment(gone, "v1"))
    removed = forget(session, CropStore(tmp_path), "v1", although_in_view=True)
    assert (removed.watches, removed.notices) == (1, 2)
    assert [one.watch_id for one in watches(session, ended=True)] == [other.watch_id]
    assert [one.tracklet_id for one in notices(session)] == [kept]


def test_who_followed_a_vehicle_to_another_is_forgotten_with_it(session: Session, tmp_path: Path) -> None:
    number = watch(session, "v2", **ANNA).watch_id
    merge(session, "v1", "v2", **ANNA)
    _found(session)
    unwatch(session, number, **ANNA)
    removed = forget(session, CropStore(tmp_path), "v1", although_in_view=True)
    assert (removed.watches, removed.notices) == (1, 2)
    assert (watches(session, ended=True), notices(session)) == ([], [])


def test_no_number_is_given_twice(session: Session, tmp_path: Path) -> None:
    first = watch(session, "v1", **ANNA)
    _sees(session, 7, "v1")
    _found(session)
    (told,) = notices(session)
    forget(session, CropStore(tmp_path), "v1", although_in_view=True)
    second = watch(session, "v2", **ANNA)
    _sees(session, 8, "v2")
    _found(session)
    assert second.watch_id > first.watch_id
    assert notices(session)[0].notice_id > told.notice_id


def test_old_notices_and_ended_watches_go_with_the_notes(database: Database, tmp_path: Path) -> None:
    day = 24 * 3600
    with database.transaction() as session:
        for number in (1, 2, 3):
            store(session, tracklet(number=number), f"v{number}")
        old, ended, young = (watch(session, f"v{number}", by="anna", at=START).watch_id for number in (1, 2, 3))
        unwatch(session, ended, by="anna", at=START)
        _sees(session, 7, "v1")
        look_out(session, START)
        _sees(session, 8, "v3")
        look_out(session, after(9 * day))
    (removed,) = Retention(database, CropStore(tmp_path), Limits(audit_days=5)).run(after(10 * day))
    assert (removed.watches, removed.notices) == (1, 1)
    with database.snapshot() as session:
        assert [one.watch_id for one in watches(session, ended=True)] == [young, old]
        assert [one.watch_id for one in notices(session)] == [young]


def test_a_notice_goes_with_its_tracklet(session: Session) -> None:
    watch(session, "v1", **ANNA)
    names = [_sees(session, number, "v1") for number in (7, 8)]
    _found(session)
    assert remove_tracklets(session, names[:1]).notices == 1
    assert [one.tracklet_id for one in notices(session)] == names[1:]


def test_a_watch_outlives_the_tracklets_of_its_vehicle(session: Session) -> None:
    made = watch(session, "v1", **ANNA)
    remove_tracklets(session, ["gate/s1/1", "bridge/s1/1"])
    (one,) = watches(session)
    assert (one.vehicle_id, one.last_seen, one.last_camera, one.crop_images) == ("v1", None, None, {})
    assert _found(session) == []
    new = _sees(session, 7, "v1")
    assert _found(session) == [(made.watch_id, new)]


# On the terminal.


def _asked(url: str, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--database", url], env={"COLUMNS": "200", "LOGNAME": "anna"})
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_the_commands_wait_and_list(database: Database, url: str) -> None:
    with database.transaction() as session:
        store(session, tracklet("gate", 1), "v1")
    said = _asked(url, "watch", "v1", "--note", "case 17")
    assert said == "watch 1 waits for vehicle v1; unwatch 1 ends it\n"
    with database.transaction() as session:
        new = _sees(session, 7, "v1")
        look_out(session, NOW)
    (one,) = json.loads(_asked(url, "watches", "--format", "json"))
    assert (one["vehicle"], one["by"], one["returns"], one["note"]) == ("v1", "anna", 1, "case 17")
    (told,) = json.loads(_asked(url, "notices", "--watch", "1", "--format", "json"))
    assert (told["tracklet"], told["camera"], told["delivered_at"], told["error"]) == (new, "gate", None, "")
    assert _asked(url, "unwatch", "1") == "watch 1 has ended\n"
    assert json.loads(_asked(url, "watches", "--format", "json")) == []
    assert len(json.loads(_asked(url, "watches", "--ended", "--format", "json"))) == 1
