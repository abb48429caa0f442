"""What is read again is what was written, and what is carried over is the same."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import select

from storage.database import Database
from storage.matcher_state import load_paths, load_tracklets
from storage.models import AssignmentRow, CameraRow, CameraWatermarkRow, EmbeddingRow, SightingRow, TrackletRow
from storage.records import CameraRecord, CameraWatermark
from storage.replay import (
    Membership,
    Pin,
    carry_over,
    carry_over_site,
    count_tracklets,
    load_model_ids,
    load_pins,
    memberships,
    recorded_tracklets,
)
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from storage.models import Base

pytest_plugins = ("tests.storage.storage_fixtures",)


def _fill(session: Session, count: int) -> None:
    """Vehicles that come one after the other and leave in another order; of the last, nothing but its closing."""
    writer = Writer(session)
    writer.register_cameras([CameraRecord("gate", "main", "visible", lat=47.5, lon=19.0, started_at=START)])
    writer.set_watermark(CameraWatermark("gate", "s1", after(60), is_finished=True))
    for number in range(1, count):
        of = tracklet(number=number, start=number, end=100.0 - 7 * (number % 3))
        store(session, of, f"v{number}", frames=[number, number + 1])
        late = embedding(of, 1, modality="thermal" if number % 2 else "visible", at=number + 1.0, direction=1)
        writer.store_sighting(of, path(of, 1, frames=[number + 2]), [late])
    writer.store_sighting(tracklet(number=count, end=99.0, end_reason="session_lost"), None, ())


@contextmanager
def _other() -> Iterator[Database]:
    opened = Database.open("sqlite://")
    yield opened
    opened.close()


def _rows(session: Session, model: type[Base], but: str = "") -> list[dict[str, Any]]:
    table = model.__table__
    found = session.execute(select(table).order_by(*table.primary_key)).mappings()
    return [{name: value for name, value in row.items() if name != but} for row in found]


def test_tracklets_come_in_the_order_in_which_they_ended_page_by_page(database: Database) -> None:
    with database.transaction() as session:
        _fill(session, 9)
    with database.snapshot() as session:
        pages = list(recorded_tracklets(session, "main", page=4))
        loaded = {one.tracklet.tracklet_id: one for one in load_tracklets(session, "main")}
        paths = load_paths(session, "main")

    assert [len(page) for page in pages] == [4, 4, 1]
    found = [one for page in pages for one in page]
    ends = [(one.stored.tracklet.ended_at, one.stored.tracklet.tracklet_id) for one in found]
    assert ends == sorted(ends)
    for one in found:
        name = one.stored.tracklet.tracklet_id
        assert (one.stored.tracklet, one.stored.last_sequence) == (loaded[name].tracklet, loaded[name].last_sequence)
        assert one.stored.assignment is None
        newest = [(each.modality, each.vector.tolist()) for each in one.stored.embeddings]
        assert newest == [(each.modality, each.vector.tolist()) for each in loaded[name].embeddings]
        assert (one.path is None) == (name not in paths)
        assert one.path is None or np.array_equal(one.path.boxes, paths[name].boxes)


def test_statements_grow_with_pages_not_with_tracklets(database: Database) -> None:
    with database.transaction() as session:
        _fill(session, 9)
    with database.snapshot() as session, counted(session) as statements:
        list(recorded_tracklets(session, "main", page=100))

    assert statements.count == 4  # the last one finds no further page


def test_everything_but_decisions_is_carried_over(database: Database) -> None:
    with database.transaction() as session:
        _fill(session, 6)
    with database.snapshot() as source, _other() as other:
        with other.transaction() as target:
            carry_over_site(source, target)
            for page in recorded_tracklets(source, "main", page=2):
                carry_over(source, target, page)
        with other.snapshot() as target:
            for model, but in (
                (CameraRow, ""),
                (CameraWatermarkRow, ""),
                (TrackletRow, "is_decided"),
                (SightingRow, ""),
            ):
                assert _rows(target, model, but) == _rows(source, model, but)
            key = ("tracklet_id", "sighting_id")
            ours, theirs = (
                sorted(_rows(session, EmbeddingRow, "embedding_id"), key=lambda row: [row[name] for name in key])
                for session in (source, target)
            )
            assert theirs == ours
            assert _rows(target, AssignmentRow) == []


def test_a_tracklet_described_anew_is_stored_so(memory: Database) -> None:
    of = tracklet()
    with _other() as source, source.transaction() as session:
        store(session, of, frames=[1])
        (page,) = recorded_tracklets(session, "main", page=2)
        vector = np.eye(4, dtype=np.float32)[2]
        anew = [replace(one, model_id="new", vector=vector) for one in page[0].embeddings]
        with memory.transaction() as target:
            carry_over(session, target, [page[0].described_anew(anew)])
            (found,) = load_tracklets(target, "main")
            models, count = load_model_ids(target), count_tracklets(target)

    (back,) = found.embeddings
    assert (back.model_id, back.vector.tolist(), models, count) == ("new", vector.tolist(), ["new"], 1)


def test_memberships_are_the_current_decisions(database: Database) -> None:
    with database.transaction() as session:
        store(session, tracklet(number=1, start=5, end=6), "v1")
        store(session, tracklet(number=2), "v1")
        store(session, tracklet(number=3))
        Writer(session).assign(assignment("gate/s1/1", "v2"))
    with database.snapshot() as session:
        found = list(memberships(session))

    assert found == [Membership("gate/s1/2", "gate", "v1"), Membership("gate/s1/1", "gate", "v2")]


def test_pins_are_what_people_said_last(database: Database) -> None:
    with database.transaction() as session:
        for number in (1, 2, 3):
            store(session, tracklet(number=number, start=number, end=9), "v1")
        said = [replace(assignment(f"gate/s1/{number}", "v2"), decided_by="anna") for number in (2, 1)]
        Writer(session).correct("move", said, made_by="anna", made_at=after(5))
    with database.snapshot() as session:
        found = load_pins(session)

    assert found == [Pin(f"gate/s1/{number}", "v2", "anna", START) for number in (1, 2)]
