"""PostgreSQL's own index of vectors finds what the index in memory finds; needs a server that has pgvector."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from storage.crop_store import CropStore
from storage.database import Database
from storage.errors import StorageError, TrackletNotFoundError
from storage.forget import forget
from storage.likeness import LikenessFilter, LikenessIndex
from storage.vector_table import has_table, index_vectors, similar_to_tracklet
from storage.writer import Writer
from tests.storage.storage_builders import after, assignment, embedding, path, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.likeness import Likeness

pytest_plugins = ("tests.storage.storage_fixtures",)

WIDTH = 16


def see(database: Database, numbers: range, *, modality: str = "visible") -> None:
    """Vehicles of two tracklets each, alike, whose vectors share a direction."""
    rng = np.random.default_rng(numbers.start)
    vectors = np.repeat(rng.standard_normal((len(numbers), WIDTH)), 2, axis=0)[: len(numbers)]
    vectors += 0.2 * rng.standard_normal(vectors.shape) + 2
    with database.transaction() as session:
        writer = Writer(session)
        for number, vector in zip(numbers, vectors, strict=True):
            of = tracklet(f"{modality}{number % 3}", number, start=number, end=number + 1, end_reason="left")
            look = replace(embedding(of, modality=modality, at=number), vector=vector.astype(np.float32))
            writer.store_sighting(of, path(of), [look])
            # Not what they look like: the other of each two is to be found.
            writer.assign(assignment(of.tracklet_id, f"v{number}"))


def found_by_both(
    database: Database, tracklet_id: str, chosen: LikenessFilter
) -> tuple[list[Likeness], list[Likeness]]:
    with database.snapshot() as session:
        return (
            similar_to_tracklet(session, tracklet_id, chosen=chosen, limit=10),
            LikenessIndex(is_lasting=False).similar_to_tracklet(session, tracklet_id, chosen=chosen, limit=10),
        )


@pytest.fixture
def with_pgvector(postgresql_url: str) -> Iterator[Database]:
    database = Database.open(postgresql_url)
    with database.snapshot() as session:
        offered = session.execute(text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")).scalar()
    if offered is None:
        database.close()
        pytest.skip("the PostgreSQL server has no pgvector")
    yield database
    database.close()


def test_a_database_without_pgvector_says_what_is_wanted(memory: Database) -> None:
    with memory.transaction() as session, pytest.raises(StorageError, match="wanted a PostgreSQL server"):
        index_vectors(session)


def test_without_a_table_a_single_question_is_answered_all_the_same(database: Database) -> None:
    see(database, range(20))
    with database.snapshot() as session:
        assert not has_table(session)
        assert similar_to_tracklet(session, "visible1/s1/4", limit=1)[0].vehicle_id == "v5"
        with pytest.raises(TrackletNotFoundError):
            similar_to_tracklet(session, "nowhere/s1/4")


@pytest.mark.integration
def test_the_table_finds_what_the_memory_finds(with_pgvector: Database) -> None:
    see(with_pgvector, range(1200))
    see(with_pgvector, range(2000, 2300), modality="thermal")
    with with_pgvector.transaction() as session:
        assert index_vectors(session) == 1500
        assert index_vectors(session) == 0
    filters = [
        LikenessFilter(),
        LikenessFilter(camera="visible2"),
        LikenessFilter(start=after(100), end=after(120)),
        LikenessFilter(modality="thermal"),
        LikenessFilter(visible={"visible0", "visible1", "visible2"}),
    ]
    for chosen in filters:
        by_table, by_memory = found_by_both(with_pgvector, "visible2/s1/500", chosen)
        assert [one.vehicle_id for one in by_table] == [one.vehicle_id for one in by_memory], chosen
        assert [one.similarity for one in by_table] == pytest.approx([one.similarity for one in by_memory], abs=1e-4)


@pytest.mark.integration
def test_what_came_after_the_table_was_made_is_found_and_what_went_is_not(
    with_pgvector: Database, tmp_path: Path
) -> None:
    see(with_pgvector, range(60))
    with with_pgvector.transaction() as session:
        index_vectors(session)
    see(with_pgvector, range(100, 140))
    assert found_by_both(with_pgvector, "visible2/s1/110", LikenessFilter())[0][0].vehicle_id == "v111"
    with with_pgvector.transaction() as session:
        forget(session, CropStore(tmp_path), "v21")
    with with_pgvector.snapshot() as session:
        assert "v21" not in {one.vehicle_id for one in similar_to_tracklet(session, "visible2/s1/20")}
        assert session.execute(text("SELECT count(*) FROM embedding_vectors")).scalar_one() == 59
    with with_pgvector.transaction() as session:
        assert index_vectors(session) == 40
        assert index_vectors(session, anew=True) == 99
