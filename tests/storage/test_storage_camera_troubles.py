"""Tracklets that were seen while their camera was in trouble say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storage.camera_troubles import begin_trouble, end_trouble
from storage.explanation import explain, in_words
from storage.report import Format, trajectory_report
from storage.trajectories import trajectory
from tests.storage.storage_builders import after, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        for number, start in enumerate((0, 10, 20, 30)):
            store(opened, tracklet("gate", number, start=start, end=start + 4), "v1", frames=range(2))
        store(opened, tracklet("bridge", 9, start=15, end=18), "v1", frames=range(2))
        yield opened


def _troubles(session: Session) -> list[str | None]:
    return [stop.camera_trouble for stop in trajectory(session, "v1").stops]


def test_a_trouble_marks_what_its_camera_saw_meanwhile(session: Session) -> None:
    begin_trouble(session, "gate", "covered", after(12))
    end_trouble(session, "gate", after(21))
    # Gate at 0-4 and 10-14, bridge at 15-18, gate at 20-24 and 30-34.
    assert _troubles(session) == [None, "covered", None, "covered", None]


def test_a_trouble_that_goes_on_marks_all_that_follows(session: Session) -> None:
    begin_trouble(session, "gate", "moved", after(20))
    assert _troubles(session) == [None, None, None, "moved", "moved"]


def test_what_is_said_twice_changes_nothing(session: Session) -> None:
    for _ in range(2):
        begin_trouble(session, "gate", "frozen", after(12))
    for ended in (16, 40):
        end_trouble(session, "gate", after(ended))
    assert _troubles(session) == [None, "frozen", None, None, None]


def test_one_trouble_ends_the_other(session: Session) -> None:
    begin_trouble(session, "gate", "defocused", after(0))
    begin_trouble(session, "gate", "covered", after(12))
    assert _troubles(session) == ["defocused", "defocused, covered", None, "covered", "covered"]


def test_why_tells_of_the_trouble(session: Session) -> None:
    assert not any("not to be trusted" in line for line in in_words(explain(session, "gate/s1/1")))
    begin_trouble(session, "gate", "covered", after(12))
    assert any("not to be trusted: covered" in line for line in in_words(explain(session, "gate/s1/1")))


def test_a_table_has_the_column_where_there_was_trouble(session: Session) -> None:
    assert "camera_trouble" not in trajectory_report(trajectory(session, "v1"), Format.TABLE).columns
    begin_trouble(session, "gate", "covered", after(12))
    for form in Format:
        assert "camera_trouble" in trajectory_report(trajectory(session, "v1"), form).columns
