"""Vehicles of a time window, page by page: the right ones, found by indexes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from storage.models import LONG_S
from storage.trajectories import count_vehicles, vehicles
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        yield opened


def _ids(session: Session, **question: Any) -> list[str]:  # noqa: ANN401 - filters
    return [vehicle.vehicle_id for vehicle in vehicles(session, **question)]


# The right ones.


@pytest.mark.parametrize("lasted", [LONG_S - 1, LONG_S, LONG_S + 1, 10 * LONG_S])
def test_what_began_long_before_the_window_is_in_it_while_it_lasts(session: Session, lasted: float) -> None:
    store(session, tracklet(start=0, end=lasted), "v1")
    for camera in (None, "gate"):
        assert _ids(session, camera=camera, start=after(lasted), end=after(lasted + 60)) == ["v1"]
        assert _ids(session, camera=camera, start=after(lasted - 0.5), end=after(lasted)) == ["v1"]
        assert _ids(session, camera=camera, start=after(lasted + 0.5), end=after(lasted + 60)) == []
        assert _ids(session, camera=camera, start=after(-60), end=START) == []


def test_what_lasted_hardly_longer_than_is_short_is_in_the_window_too(memory: Database) -> None:
    with memory.transaction() as session:
        for number in range(30):
            left = 37.123457 * number + LONG_S + 1e-5 * number
            store(session, tracklet(number=number, start=37.123457 * number, end=left), f"v{number}")
            assert f"v{number}" in _ids(session, start=after(left), end=after(left + 60))
        session.rollback()


@pytest.mark.parametrize("visible", [None, ["gate"]])
@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_put_together_are_the_whole_list(session: Session, newest_first: bool, visible: list[str] | None) -> None:
    # Three of each moment: the id decides.
    for number in range(9):
        store(session, tracklet(number=number, start=number // 3, end=number // 3 + 1), f"v{number * 4 % 9}")
    question: dict[str, Any] = {"newest_first": newest_first, "visible": visible}
    whole = vehicles(session, **question)
    keys = [(one.last_seen if newest_first else one.first_seen, one.vehicle_id) for one in whole]
    assert len(whole) == 9
    assert all(first > then if newest_first else first < then for first, then in pairwise(keys))
    last, leafed = None, []
    while page := vehicles(session, after=last, limit=2, **question):
        leafed += page
        last = (page[-1].last_seen if newest_first else page[-1].first_seen, page[-1].vehicle_id)
    assert leafed == whole
    assert vehicles(session, offset=7, limit=5, **question) == whole[7:]


def test_class_and_band_choose(session: Session) -> None:
    store(session, tracklet(number=1, vehicle_class="bus"), "v1")
    of = tracklet(number=2)
    Writer(session).store_sighting(of, path(of), [embedding(of, modality="thermal", crop_image="warm.jpg")])
    Writer(session).assign(assignment(of.tracklet_id, "v2"))
    for visible in (None, ["gate"]):
        assert _ids(session, vehicle_class="bus", visible=visible) == ["v1"]
        assert _ids(session, modality="thermal", visible=visible) == ["v2"]
        assert count_vehicles(session, modality="thermal", vehicle_class="bus", visible=visible) == 0
    assert vehicles(session, modality="thermal")[0].crop_images == {"thermal": "warm.jpg"}


# What may not be seen.


def test_what_happened_at_hidden_cameras_is_not_told(session: Session) -> None:
    store(session, tracklet("gate", 1, start=10, end=11), "v1")
    store(session, tracklet("bridge", 2, start=0, end=90), "v1")
    store(session, tracklet("bridge", 3), "v2")
    (found,) = vehicles(session, visible=["gate"])
    assert (found.vehicle_id, found.first_seen, found.last_seen) == ("v1", after(10), after(11))
    assert (found.cameras, found.tracklets) == (("gate",), 1)
    assert found.crop_images == {"visible": "gate/s1/1.jpg"}
    assert _ids(session, visible=["gate"], start=after(20)) == []
    assert _ids(session, visible=["gate"], camera="bridge") == []
    assert _ids(session, visible=["gate"], min_cameras=2) == []
    assert _ids(session, visible=[]) == []


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_viewers_first_few_are_found_by_what_they_see_alone(session: Session, newest_first: bool) -> None:
    for number, (camera, start, end) in enumerate([("bridge", 0, 90), ("gate", 10, 11), ("gate", 20, 21)]):
        store(session, tracklet(camera, number, start=start, end=end), "v1")
    of = tracklet("bridge", 9, start=5, end=80)
    Writer(session).store_sighting(of, path(of), [embedding(of, modality="thermal")])
    Writer(session).assign(assignment(of.tracklet_id, "v1"))
    few: dict[str, Any] = {"visible": ["gate"], "newest_first": newest_first, "limit": 5}
    assert _ids(session, **few) == ["v1"]
    assert _ids(session, min_cameras=2, **few) == []
    assert _ids(session, modality="thermal", **few) == []
    assert _ids(session, modality="visible", **few) == ["v1"]


# By indexes.


_WINDOW = {"start": after(86400), "end": after(87000)}
#: Of each question an index that answers it.
_INDEXED: list[tuple[dict[str, Any], str]] = [
    (_WINDOW, "ix_tracklets_started_at"),
    (_WINDOW, "ix_tracklets_long"),
    (_WINDOW | {"camera": "gate"}, "ix_tracklets_long"),
    ({"limit": 50}, "ix_vehicles_first_seen"),
    ({"limit": 50, "newest_first": True}, "ix_vehicles_last_seen"),
    ({"limit": 50, "after": (after(86400), "v1")}, "ix_vehicles_first_seen"),
]
#: Of so few rows PostgreSQL goes by another; benchmarks/query_plans.py asks it among many.
_INDEXED_BY_SQLITE: list[tuple[dict[str, Any], str]] = [
    (_WINDOW | {"camera": "gate"}, "ix_tracklets_camera_started_at (camera=? AND started_at>? AND started_at<?)"),
    ({"limit": 50, "modality": "thermal", "min_cameras": 2}, "ix_vehicles_first_seen"),
    ({"limit": 50, "visible": ["gate"]}, "ix_tracklets_started_at (started_at<?)"),
    ({"limit": 50, "visible": ["gate"], "newest_first": True}, "ix_tracklets_ended_at (ended_at>?)"),
    (
        {"start": after(86400), "limit": 5000, "visible": ["gate"], "newest_first": True},
        "ix_tracklets_ended_at (ended_at>?)",
    ),
]


@pytest.mark.parametrize(("question", "index"), _INDEXED)
def test_vehicles_are_found_by_an_index(session: Session, question: dict[str, Any], index: str) -> None:
    _store_days(session)
    assert index in _plans(session, question)[0]


@pytest.mark.parametrize(("question", "index"), _INDEXED_BY_SQLITE)
def test_sqlite_finds_vehicles_by_an_index(memory: Database, question: dict[str, Any], index: str) -> None:
    with memory.transaction() as session:
        _store_days(session)
        plans = _plans(session, question)
        session.rollback()
    assert index in plans[0]


@pytest.mark.parametrize("camera", [None, "gate"])
def test_no_table_is_read_whole_for_a_window(memory: Database, camera: str | None) -> None:
    with memory.transaction() as session:
        _store_days(session)
        plans = "\n".join(_plans(session, _WINDOW | {"camera": camera}))
        session.rollback()
    assert "SEARCH tracklets" in plans
    assert not [table for table in ("tracklets", "vehicles", "assignments", "embeddings") if f"SCAN {table}" in plans]
    # Neither is half of a camera's: from its first tracklet to the window's end.
    assert "(camera=? AND started_at<?)" not in plans


def _store_days(session: Session) -> None:
    for number in range(40):
        lasts = 2 * LONG_S if number % 10 == 0 else 30
        store(session, tracklet(number=number, start=number * 3600, end=number * 3600 + lasts), f"v{number}")


def _plans(session: Session, question: dict[str, Any]) -> list[str]:
    """What the database says of how it answers each statement."""
    statements: list[tuple[str, Any]] = []

    def seen(_connection: object, _cursor: object, statement: str, parameters: Any, *_rest: object) -> None:  # noqa: ANN401
        statements.append((statement, parameters))

    connection = session.connection()
    event.listen(connection.engine, "before_cursor_execute", seen)
    vehicles(session, **question)
    event.remove(connection.engine, "before_cursor_execute", seen)
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        # Of so few rows it would read all.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    return [
        "\n".join(str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", parameters))
        for statement, parameters in statements
    ]
