"""The benchmark of questions fills a database that says what its names promise, and asks all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from queries import ask, made_up_calibration, markdown, measure, prepare, questions, tracklet_of, vectors, vehicle_of
from query_plans import POSTGRESQL, SQLITE

from storage import engines
from storage.database import Database
from storage.likeness import LikenessIndex
from storage.trajectories import trajectory
from web.likeness import CalibratedScale

if TYPE_CHECKING:
    import pytest

pytest_plugins = ("tests.storage.storage_fixtures",)

ROWS = 2000


def test_every_question_is_asked_and_told_in_the_table(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "STATEMENT_TIMEOUT_S", engines.STATEMENT_TIMEOUT_S)
    said: list[str] = []
    answers = measure(url, ROWS, 2, SQLITE if url.startswith("sqlite") else POSTGRESQL, said.append)
    assert {len(answer.times_s) for answer in answers} == {2}
    assert max(answer.statements for answer in answers) <= 8
    assert "2,000 looks" in said[1]
    table = markdown(answers).splitlines()
    assert len(table) == 2 + len(answers)
    assert {line.count("|") for line in table} == {9}
    (promised,) = [line for line in table if line.startswith("| trajectory ")]
    assert promised.split("|")[6].strip() == "50"


def test_a_vehicle_is_its_four_tracklets_and_their_vectors_are_alike(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    prepare(database, ROWS, SQLITE)
    rows = [407, 507, 607, 707]
    with database.snapshot() as session:
        found = trajectory(session, vehicle_of(507))
        assert [stop.tracklet_id for stop in found.stops] == [tracklet_of(row) for row in rows]
        index = LikenessIndex(CalibratedScale(made_up_calibration()), is_lasting=False)
        ((_, batch),) = vectors(ROWS)
        nearest = index.similar_to_vector(session, batch[507], "visible", "bench", limit=1)
    assert [one.vehicle_id for one in nearest] == [vehicle_of(507)]
    rest = batch - batch.mean(axis=0)
    assert np.sum(rest[407] * rest[507]) > 5 * abs(np.mean(rest @ rest[507]))
    database.close()


def test_a_question_is_counted_without_its_first_time(sqlite_url: str) -> None:
    database = Database.open(sqlite_url)
    prepare(database, ROWS, SQLITE)
    index = LikenessIndex(CalibratedScale(made_up_calibration()), is_lasting=False)
    (question,) = [question for question in questions(ROWS, index) if question.name == "similar to a crop"]
    answer = ask(question, database, 3)
    assert (len(answer.times_s), answer.rows) == (3, 50)
    assert answer.percentile_ms(50) <= answer.percentile_ms(100)
    database.close()
