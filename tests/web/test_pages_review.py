"""What a person decides on the review page: done as they say, refused where they may not or somebody was quicker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest

from storage.accounts import Role
from storage.corrections import confirm, move
from storage.errors import CorrectionError, StorageError, VehicleNotFoundError
from storage.explanation import explain
from storage.history import Correction
from storage.records import AssignmentRecord
from storage.review import DoubtfulLink, doubtful
from storage.trajectories import vehicles
from storage.watches import WatchError, watches
from storage.writer import Writer
from tests.storage.storage_builders import assignment, store, tracklet
from tests.web.api_site import name_of
from tests.web.asking import small_site
from web import reviewing
from web.callers import Caller
from web.reviewing import SettledError, Verdict
from web.services import Services
from web.watch_desk import end, start

OTTO = Caller("otto", Role.OPERATOR)
OLGA = Caller("olga", Role.OPERATOR)
VERA = Caller("vera", Role.VIEWER, frozenset({"yard"}))
NOW = datetime(2026, 7, 1, tzinfo=UTC)
Deed = Callable[[Services, Caller, str, str], Correction]


def _said(tracklet_id: str, vehicle_id: str, other: str, other_vehicle: str, probability: float) -> AssignmentRecord:
    """A link where both vehicles are one, a near miss where they are two."""
    is_link = vehicle_id == other_vehicle
    candidate = {"vehicle_id": other_vehicle, "tracklet_id": other, "probability": probability, "modalities": "a~b"}
    evidence = {"rule": "test", "considered": 1, "candidates": [candidate], "halved": True}
    score = 0.1 if is_link else None
    return replace(assignment(tracklet_id, vehicle_id, reason="linked", score=score), evidence=evidence)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Vehicle v01 at gate and yard by a doubtful link; v02 at the yard nearly taken for v03 at the gate."""
    with small_site(tmp_path) as ask:
        with ask.services.database.transaction() as session:
            seen = {
                (camera, number): tracklet(camera, number, start=10.0 * number, end=10.0 * number + 2)
                for camera, number in (("gate", 1), ("yard", 2), ("gate", 3), ("yard", 4))
            }
            store(session, seen["gate", 1], name_of(1))
            store(session, seen["gate", 3], name_of(3))
            for number in (2, 4):
                store(session, seen["yard", number])
            first, then = seen["gate", 1].tracklet_id, seen["yard", 2].tracklet_id
            third, last = seen["gate", 3].tracklet_id, seen["yard", 4].tracklet_id
            writer = Writer(session)
            writer.assign(_said(then, name_of(1), first, name_of(1), 0.5))
            writer.assign(_said(last, name_of(2), third, name_of(3), 0.4))
        yield ask.services


def _doubt(services: Services, kind: str) -> DoubtfulLink:
    return next(link for link in reviewing.work(services, OTTO).links if link.kind == kind)


def _vehicle_of(services: Services, tracklet_id: str) -> str:
    with services.database.snapshot() as session:
        return explain(session, tracklet_id).decisions[0].said.vehicle_id


def _said_by(services: Services, tracklet_id: str) -> str:
    with services.database.snapshot() as session:
        return explain(session, tracklet_id).decisions[0].said.decided_by


def _kinds(services: Services) -> list[str]:
    with services.database.snapshot() as session:
        return [link.kind for link in doubtful(session)]


@pytest.mark.parametrize("kind", ["link", "near miss"])
def test_confirmed_doubt_stays_as_it_is_and_is_asked_no_more(services: Services, kind: str) -> None:
    link = _doubt(services, kind)
    done = reviewing.decide(services, OTTO, link, Verdict.CONFIRM, note="same dent")
    assert (done.kind, done.made_by, done.note, done.moved) == ("confirm", "otto", "same dent", ())
    assert {change.tracklet_id for change in done.changes} == {link.tracklet_id, link.other_tracklet_id}
    assert kind not in _kinds(services)


def test_split_link_is_two_vehicles_until_it_is_taken_back(services: Services) -> None:
    link = _doubt(services, "link")
    done = reviewing.decide(services, OTTO, link, Verdict.SPLIT)
    assert _vehicle_of(services, link.tracklet_id) != _vehicle_of(services, link.other_tracklet_id)
    reviewing.take_back(services, OLGA, done.correction_id)
    assert _vehicle_of(services, link.tracklet_id) == _vehicle_of(services, link.other_tracklet_id)
    assert "link" in _kinds(services)


def test_merged_near_miss_keeps_the_vehicle_that_was_seen_first(services: Services) -> None:
    link = _doubt(services, "near miss")
    done = reviewing.decide(services, OTTO, link, Verdict.MERGE)
    assert done.kind == "merge"
    first = link.other_vehicle_id if link.other_started_at <= link.started_at else link.vehicle_id
    assert _vehicle_of(services, link.tracklet_id) == _vehicle_of(services, link.other_tracklet_id) == first


@pytest.mark.parametrize(("kind", "verdict"), [("link", Verdict.MERGE), ("near miss", Verdict.SPLIT)])
def test_verdict_that_does_not_fit_changes_nothing(services: Services, kind: str, verdict: Verdict) -> None:
    link = _doubt(services, kind)
    with pytest.raises(CorrectionError, match=f"this is a {kind}; wanted confirm or"):
        reviewing.decide(services, OTTO, link, verdict)
    assert reviewing.work(services, OTTO).corrections == []


def test_viewer_decides_nothing(services: Services) -> None:
    link = _doubt(services, "link")
    done = reviewing.decide(services, OTTO, link, Verdict.CONFIRM)
    for deed in (
        lambda: reviewing.decide(services, VERA, link, Verdict.SPLIT),
        lambda: reviewing.merge(services, VERA, name_of(1), name_of(3)),
        lambda: reviewing.take_back(services, VERA, done.correction_id),
        lambda: start(services, VERA, name_of(1), NOW),
        lambda: end(services, VERA, 1, NOW),
    ):
        with pytest.raises(StorageError, match=r"vera is a viewer: .* is left to operators"):
            deed()
    assert [one.kind for one in reviewing.work(services, OTTO).corrections] == ["confirm"]


def test_viewer_of_one_camera_is_shown_no_pair_with_another(services: Services) -> None:
    reviewing.decide(services, OTTO, _doubt(services, "link"), Verdict.CONFIRM)
    seen = reviewing.work(services, VERA)
    assert seen.links == []
    assert all(change.tracklet_id.startswith("yard/") for one in seen.corrections for change in one.changes)


@pytest.mark.parametrize("verdict", [Verdict.CONFIRM, Verdict.SPLIT])
def test_link_that_another_has_decided_meanwhile_is_settled(services: Services, verdict: Verdict) -> None:
    link = _doubt(services, "link")
    reviewing.decide(services, OLGA, link, Verdict.CONFIRM)
    with pytest.raises(SettledError, match=r"^olga has decided on .* meanwhile"):
        reviewing.decide(services, OTTO, link, verdict)
    assert len(reviewing.work(services, OTTO).corrections) == 1


def test_of_two_who_decide_at_once_one_is_told_that_the_other_was_quicker(services: Services) -> None:
    link, together = _doubt(services, "link"), Barrier(2)

    def decide(caller: Caller, verdict: Verdict) -> str:
        together.wait(timeout=30)
        try:
            return reviewing.decide(services, caller, link, verdict).made_by
        except SettledError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        otto, olga = (
            pool.submit(decide, caller, verdict) for caller, verdict in ((OTTO, Verdict.CONFIRM), (OLGA, Verdict.SPLIT))
        )
        told = {"otto": otto.result(), "olga": olga.result()}
    (done,) = reviewing.work(services, OTTO).corrections
    assert told.pop(done.made_by) == done.made_by
    ((_, fault),) = told.items()
    assert fault.startswith(f"{done.made_by} has decided on {link.tracklet_id} meanwhile")


def test_link_whose_other_side_has_moved_meanwhile_is_settled(services: Services) -> None:
    link = _doubt(services, "near miss")
    with services.database.transaction() as session:
        move(session, [link.other_tracklet_id], name_of(1), by="olga", at=NOW)
    with pytest.raises(SettledError, match=r"^olga has decided"):
        reviewing.decide(services, OTTO, link, Verdict.MERGE)


def test_other_side_that_is_confirmed_already_settles_nothing(services: Services) -> None:
    link = _doubt(services, "near miss")
    with services.database.transaction() as session:
        confirm(session, [link.other_tracklet_id], by="olga", at=NOW)
    reviewing.decide(services, OTTO, link, Verdict.CONFIRM)
    assert _said_by(services, link.tracklet_id) == "otto"


@pytest.mark.parametrize("deed", [reviewing.confirm, reviewing.split])
def test_what_has_moved_since_it_was_shown_is_not_decided_on_unseen(services: Services, deed: Deed) -> None:
    seen = _doubt(services, "link")
    with services.database.transaction() as session:
        move(session, [seen.tracklet_id], name_of(3), by="olga", at=NOW)
    with pytest.raises(SettledError, match=rf"^olga has decided on {seen.tracklet_id} meanwhile: it is vehicle v03's"):
        deed(services, OTTO, seen.tracklet_id, seen.vehicle_id)
    assert _said_by(services, seen.tracklet_id) == "olga"
    assert deed(services, OTTO, seen.tracklet_id, name_of(3)).made_by == "otto"


def test_last_of_a_person_is_what_stands_and_is_no_undo(services: Services) -> None:
    first = reviewing.decide(services, OTTO, _doubt(services, "link"), Verdict.CONFIRM)
    second = reviewing.decide(services, OTTO, _doubt(services, "near miss"), Verdict.MERGE)
    book = reviewing.work(services, OTTO).corrections
    assert reviewing.last_of(book, "otto") == book[0]
    assert reviewing.last_of(book, "olga") is None
    reviewing.take_back(services, OTTO, second.correction_id)
    last = reviewing.last_of(reviewing.work(services, OTTO).corrections, "otto")
    assert last is not None
    assert last.correction_id == first.correction_id


def test_two_vehicles_of_a_search_become_one(services: Services) -> None:
    reviewing.merge(services, OTTO, name_of(1), name_of(3), note="looks alike")
    with services.database.snapshot() as session:
        assert name_of(3) not in {one.vehicle_id for one in vehicles(session)}
    with pytest.raises(VehicleNotFoundError):
        reviewing.merge(services, OTTO, name_of(1), "nobody")


def test_stop_is_moved_to_a_vehicle_that_ended_long_ago(services: Services) -> None:
    seen = _doubt(services, "link")
    done = reviewing.move(services, OTTO, seen.tracklet_id, seen.vehicle_id, name_of(3), note="same dent")
    assert [(change.before, change.after) for change in done.moved] == [(seen.vehicle_id, name_of(3))]
    with pytest.raises(SettledError, match=r"^otto has decided"):
        reviewing.move(services, OLGA, seen.tracklet_id, seen.vehicle_id, name_of(2))


def test_two_vehicles_are_shown_before_they_are_called_one(services: Services) -> None:
    one, other = reviewing.pair(services, OTTO, name_of(1), name_of(3))
    assert (one.vehicle_id, one.tracklets, other.vehicle_id, other.tracklets) == (name_of(1), 2, name_of(3), 1)
    reviewing.merge(services, OLGA, name_of(1), name_of(3))
    for named, fault in (
        ("", "which vehicle"),
        (name_of(1), "is this vehicle itself"),
        (name_of(3), "have been given to other vehicles"),
        ("v", "more than one begins so"),
        ("nobody", "not known"),
    ):
        with pytest.raises(StorageError, match=fault):
            reviewing.pair(services, OTTO, name_of(1), named)


def test_watch_begins_and_ends_by_an_operators_word(services: Services) -> None:
    made = start(services, OTTO, name_of(1), NOW, note="left without paying")
    assert (made.made_by, made.note, made.vehicle_id) == ("otto", "left without paying", name_of(1))
    end(services, OLGA, made.watch_id, NOW)
    with services.database.snapshot() as session:
        assert watches(session) == []
    with pytest.raises(WatchError, match="has ended already"):
        end(services, OLGA, made.watch_id, NOW)
