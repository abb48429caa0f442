"""A matcher that starts again knows what the one before it knew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from storage.database import Database
from storage.matcher_state import (
    load_assignments_after,
    load_learned,
    load_operator_decisions,
    load_paths,
    load_regions,
    load_tracklets,
)
from storage.models import LearnedRow
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, store, tracklet

pytest_plugins = ("tests.storage.storage_fixtures",)


def test_everything_stored_comes_back(database: Database) -> None:
    of = replace(tracklet(context_image="context/1.jpg"), end_reason="left", class_votes={"car": 0.75, "truck": 0.25})
    crop, decided = embedding(of, crop_image="1.jpg", at=0.5), assignment("gate/s1/1", "v1", score=2.5)
    with database.transaction() as session:
        Writer(session).store_sighting(of, path(of, 3, frames=[1]), [replace(crop, sighting_id="gate/s1/1/3")])
        Writer(session).assign(decided)
    with database.snapshot() as session:
        (found,) = load_tracklets(session, "main", seen_since=None)
    assert (found.tracklet, found.last_sequence, found.assignment) == (of, 3, decided)
    (back,) = found.embeddings
    assert np.array_equal(back.vector, crop.vector)
    assert back.vector.dtype == np.float32
    assert (back.modality, back.model_id, back.quality, back.captured_at) == ("visible", "test", 0.5, after(0.5))
    assert (back.box, back.crop_image, back.tokens) == (crop.box, "1.jpg", b"tokens")


def test_the_newest_embedding_of_each_modality_comes_back(database: Database) -> None:
    of = tracklet()
    told = [("visible", 0.4), ("visible", 0.9), ("thermal", 0.2), ("visible", 0.7)]
    with database.transaction() as session:
        for sequence, (modality, quality) in enumerate(told):
            crop = embedding(of, sequence, modality=modality, quality=quality, at=sequence, direction=sequence)
            Writer(session).store_sighting(of, path(of, sequence), [crop])
    with database.snapshot() as session:
        (found,) = load_tracklets(session, "main", seen_since=None)
    # Not the best: the last sighting of a tracklet sums up all of its crops.
    assert [(crop.modality, crop.sighting_id[-1]) for crop in found.embeddings] == [("thermal", "2"), ("visible", "3")]


@pytest.mark.parametrize(("seen_since", "numbers"), [(None, [1, 2, 4, 5]), (after(5), [2, 4, 5]), (after(6.5), [4, 5])])
def test_only_the_region_the_last_while_and_what_is_undecided(
    database: Database, seen_since: object, numbers: list[int]
) -> None:
    with database.transaction() as session:
        store(session, tracklet(number=1, start=0, end=4.9), "v1")
        store(session, tracklet(number=2, start=1, end=6), "v2")
        store(session, tracklet(number=4, start=2, end=3))
        store(session, tracklet(number=5, start=2, end=3))
        Writer(session).assign(assignment("gate/s1/5", "v5", is_provisional=True))
        store(session, tracklet("bridge", number=3, region="north", end=9), "v3")
    with database.snapshot() as session:
        found = load_tracklets(session, "main", seen_since=seen_since)  # type: ignore[arg-type]
    assert [each.tracklet.number for each in found] == numbers


def test_each_cameras_last_ones_are_taken_all_the_same(database: Database) -> None:
    with database.transaction() as session:
        for camera in ("bridge", "gate", "yard"):
            for number in range(1, 5):
                store(session, tracklet(camera, number, end=number), f"{camera}{number}", frames=[number])
        store(session, tracklet("gate", 9, end=9), "without a path")
        store(session, tracklet("far", 1, region="north"), "elsewhere", frames=[1])
    with database.snapshot() as session:
        found = load_tracklets(session, "main", seen_since=after(100), newest=2)
        paths = load_paths(session, "main", seen_since=after(100), newest=2)
    wanted = {f"{camera}/s1/{number}" for camera in ("bridge", "gate", "yard") for number in (3, 4)}
    assert {each.tracklet.tracklet_id for each in found} == wanted == set(paths)


def test_regions_are_those_with_tracklets(database: Database) -> None:
    with database.transaction() as session:
        for number, region in enumerate(["south", "main", "main"]):
            store(session, tracklet(number=number, region=region))
        assert load_regions(session) == ["main", "south"]


def test_a_decision_that_was_superseded_is_not_the_current_one(database: Database) -> None:
    of = tracklet()
    with database.transaction() as session:
        store(session, of, "v1")
        Writer(session).assign(assignment(of.tracklet_id, "v2", reason="second look"))
    with database.snapshot() as session:
        (found,) = load_tracklets(session, "main", seen_since=None)
    assert found.assignment is not None
    assert (found.assignment.vehicle_id, found.assignment.reason) == ("v2", "second look")


def test_paths_come_back_whole(database: Database) -> None:
    of, still = tracklet(), tracklet(number=2)
    with database.transaction() as session:
        writer = Writer(session)
        writer.store_sighting(of, path(of, 1, frames=[3, 4]), [])
        writer.store_sighting(of, path(of, 0, frames=[1, 2, 3], shift=7.0), [])
        writer.store_sighting(still, path(still), [])
        store(session, tracklet(number=3, end=-5), "v3", frames=[9])
        store(session, tracklet("bridge", region="north"), "v4", frames=[9])
    with database.snapshot() as session:
        found = load_paths(session, "main", seen_since=after(-1))
    assert list(found) == [of.tracklet_id]
    assert found[of.tracklet_id].frames.tolist() == [1, 2, 3, 4]
    assert found[of.tracklet_id].boxes[:, 0].tolist() == [8.0, 9.0, 10.0, 4.0]
    assert found[of.tracklet_id].times[0] == pytest.approx(after(0.1).timestamp())


def test_what_was_learned_is_replaced_name_by_name(database: Database) -> None:
    with database.transaction() as session:
        writer = Writer(session)
        writer.store_learned("main", {"travel": b"1", "looks": b"\x00\xff"}, START)
        writer.store_learned("north", {"travel": b"far"}, START)
        writer.store_learned("main", {"travel": b"2"}, after(60))
        writer.store_learned("main", {}, after(70))
    with database.snapshot() as session:
        assert load_learned(session, "main") == {"travel": b"2", "looks": b"\x00\xff"}
        assert load_learned(session, "south") == {}
        kept = {(row.region, row.name): row.updated_at for row in session.scalars(select(LearnedRow))}
    assert kept == {("main", "travel"): after(60), ("main", "looks"): START, ("north", "travel"): START}


def test_decisions_are_told_in_the_order_of_their_numbers(database: Database) -> None:
    with database.transaction() as session:
        store(session, tracklet(), "v1")
        store(session, tracklet("bridge", region="north"), "v2")
        word = replace(assignment("gate/s1/1", "v2", reason="move"), decided_by="anna")
        made = Writer(session).correct("move", [word], made_by="anna", made_at=START)
    with database.transaction() as session:
        first, second, third = load_assignments_after(session, 0, 10)
        assert load_assignments_after(session, first.assignment_id, 1) == [second]
        assert load_assignments_after(session, third.assignment_id, 10) == []
    assert (first.region, first.camera, first.previous_vehicle_id, first.correction_id) == ("main", "gate", None, None)
    assert (second.region, second.said) == ("north", assignment("bridge/s1/1", "v2"))
    assert (third.said, third.previous_vehicle_id, third.correction_id) == (word, "v1", made)


@pytest.mark.integration
def test_a_decision_whose_transaction_is_open_is_waited_for(postgresql_url: str) -> None:
    database = Database.open(postgresql_url)
    with database.transaction() as session:
        store(session, tracklet(number=1))
        store(session, tracklet(number=2))

    def read() -> list[int]:
        with database.transaction() as session:
            return [event.assignment_id for event in load_assignments_after(session, 0, 10)]

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as slow:
            Writer(slow).assign(assignment("gate/s1/1", "v1"))
            with database.transaction() as quick:
                # It overtakes: its number is the higher one.
                Writer(quick).assign(assignment("gate/s1/2", "v2"))
            reading = pool.submit(read)
            with pytest.raises(TimeoutError):
                reading.result(timeout=0.2)
        assert reading.result(timeout=30) == [1, 2]
        with database.transaction() as third:
            Writer(third).assign(assignment("gate/s1/1", "v3"))
            # What was waited for once is read beside whoever is deciding.
            with database.snapshot() as session:
                again = [event.assignment_id for event in load_assignments_after(session, 0, 10, until=2)]
                assert again == [1, 2]
                assert load_assignments_after(session, 2, 10, until=2) == []
    database.close()


def test_the_number_of_statements_does_not_grow_with_the_rows(database: Database) -> None:
    taken = []
    for numbers in (range(1, 3), range(3, 30)):
        with database.transaction() as session:
            for number in numbers:
                store(session, tracklet(number=number), f"v{number}", frames=[number])
        with database.snapshot() as session, counted(session) as statements:
            load_tracklets(session, "main", seen_since=after(-1))
            load_paths(session, "main", seen_since=after(-1))
            load_operator_decisions(session, "main", after=0)
        taken.append(statements.count)
    assert taken == [4, 4]
