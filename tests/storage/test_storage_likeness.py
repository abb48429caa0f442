"""Likeness: exact, by the database of now, and blind to what a caller may not see."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import text

from storage.blobs import encode_vector
from storage.corrections import merge
from storage.crop_store import CropStore
from storage.errors import StorageError, TrackletNotFoundError
from storage.forget import forget
from storage.likeness import OVERLAP, SWEEP_S, LikenessFilter, LikenessIndex
from storage.likeness_bands import CENTRE_VECTORS, MIN_CENTRE_VECTORS
from storage.likeness_vectors import FaissVectors, NumpyVectors
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, counted, embedding, path, tracklet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from storage.database import Database
    from storage.likeness import Likeness
    from storage.likeness_vectors import Vectors

pytest_plugins = ("tests.storage.storage_fixtures",)

WIDTH = 8
MODEL = "test"


class PlainScale:
    """Nothing is shared; log-odds are ten times the similarity, half of that between bands; nothing of `radar`."""

    model_id = MODEL

    def centred(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        assert modality
        return vectors

    def log_odds(self, first: str, second: str, similarities: NDArray[np.float32]) -> NDArray[np.float64] | None:
        if "radar" in (first, second):
            return None
        return np.clip(similarities.astype(np.float64) * (10 if first == second else 5), -6, 6)


def towards(degrees: float) -> NDArray[np.float32]:
    """A unit vector in a plane, float32 (8,)."""
    vector = np.zeros(WIDTH, np.float32)
    vector[:2] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return vector


def see(
    database: Database,
    number: int,
    vehicle_id: str | None,
    vector: NDArray[np.float32],
    *,
    camera: str = "gate",
    modality: str = "visible",
    quality: float = 0.5,
    sequence: int = 0,
    end_reason: str | None = "left",
) -> str:
    """A tracklet in second `number`, with a look; returns its id."""
    of = tracklet(camera, number, start=number, end=number + 1, end_reason=end_reason)
    crop = replace(embedding(of, sequence, modality=modality, quality=quality, at=number), vector=vector)
    with database.transaction() as session:
        writer = Writer(session)
        writer.store_sighting(of, path(of, sequence), [crop])
        if vehicle_id is not None:
            writer.assign(assignment(of.tracklet_id, vehicle_id))
    return of.tracklet_id


def similar(
    index: LikenessIndex,
    database: Database,
    vector: NDArray[np.float32],
    *,
    modality: str = "visible",
    limit: int = 50,
    chosen: LikenessFilter | None = None,
) -> list[Likeness]:
    with database.snapshot() as session:
        return index.similar_to_vector(session, vector, modality, MODEL, chosen=chosen, limit=limit)


def ids(found: Sequence[Likeness]) -> list[str]:
    return [one.vehicle_id for one in found]


@pytest.fixture
def index() -> LikenessIndex:
    return LikenessIndex(PlainScale(), is_lasting=False)


# --- Vectors.


@pytest.mark.parametrize("kind", [NumpyVectors, FaissVectors])
def test_the_nearest_are_those_of_a_sort_whatever_was_written_over_or_let_go(kind: Callable[[int], Vectors]) -> None:
    rng = np.random.default_rng(0)
    vectors = kind(WIDTH)
    held = np.empty((0, WIDTH), np.float32)
    for _ in range(6):
        fresh = rng.standard_normal((200, WIDTH)).astype(np.float32)
        over = rng.choice(len(held), min(len(held), 50), replace=False)
        vectors.put(np.concatenate([over, np.arange(len(held), len(held) + 200 - len(over))]), fresh)
        held = np.concatenate([held, np.zeros((200 - len(over), WIDTH), np.float32)])
        held[np.concatenate([over, np.arange(len(held) - 200 + len(over), len(held))])] = fresh.astype("<f2")
        is_kept = rng.random(len(held)) < 0.9
        vectors.keep(is_kept)
        held = held[is_kept]
        assert len(vectors) == len(held)

        query, among = rng.standard_normal(WIDTH).astype(np.float32), rng.random(len(held)) < 0.5
        rows, products = vectors.nearest(query, among, 20)
        expected = sorted(np.flatnonzero(among), key=lambda row: -float(held[row] @ query))[:20]
        assert rows.tolist() == [int(row) for row in expected]
        np.testing.assert_allclose(products, held[rows] @ query, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [NumpyVectors, FaissVectors])
def test_fewer_than_wanted_are_all_there_are(kind: Callable[[int], Vectors]) -> None:
    vectors = kind(WIDTH)
    vectors.put(np.arange(3), np.stack([towards(0), towards(90), towards(180)]))
    assert vectors.nearest(towards(80), np.array([True, False, True]), 10)[0].tolist() == [0, 2]
    assert vectors.nearest(towards(80), np.zeros(3, bool), 10)[0].tolist() == []


# --- What is found.


@pytest.mark.parametrize("is_lasting", [False, True])
def test_each_vehicle_comes_once_by_its_best_tracklet_and_the_best_first(database: Database, is_lasting: bool) -> None:
    see(database, 1, "v1", towards(40))
    best = see(database, 2, "v1", towards(10))
    see(database, 3, "v2", towards(20))
    see(database, 4, None, towards(0))
    found = similar(LikenessIndex(PlainScale(), is_lasting=is_lasting), database, towards(0))
    assert ids(found) == ["v1", "v2"]
    assert found[0].tracklet_id == best
    assert found[0].similarity == pytest.approx(math.cos(math.radians(10)), abs=1e-3)
    assert found[0].captured_at == after(2)


def test_the_best_look_of_a_tracklet_counts_also_when_a_better_one_comes_later(
    database: Database, index: LikenessIndex
) -> None:
    see(database, 1, "v1", towards(80), quality=0.4, end_reason=None)
    assert similar(index, database, towards(0))[0].similarity == pytest.approx(math.cos(math.radians(80)), abs=1e-3)
    see(database, 1, None, towards(30), quality=0.9, sequence=1)
    see(database, 1, None, towards(0), quality=0.2, sequence=2)
    (found,) = similar(index, database, towards(0))
    assert found.similarity == pytest.approx(math.cos(math.radians(30)), abs=1e-3)
    assert len(index) == 1


def test_every_filter_leaves_exactly_what_it_lets_through(database: Database, index: LikenessIndex) -> None:
    for number in range(6):
        see(database, number, f"v{number}", towards(5 * number), camera="gate" if number % 2 else "yard")
    see(database, 6, "v6", towards(80), modality="thermal")
    cases = [
        (LikenessFilter(), ["v0", "v1", "v2", "v3", "v4", "v5", "v6"]),
        (LikenessFilter(camera="yard"), ["v0", "v2", "v4"]),
        (LikenessFilter(start=after(4)), ["v3", "v4", "v5", "v6"]),
        (LikenessFilter(end=after(2)), ["v0", "v1"]),
        (LikenessFilter(start=after(2.5), end=after(3.5)), ["v2", "v3"]),
        (LikenessFilter(modality="thermal"), ["v6"]),
        (LikenessFilter(vehicle_class="bus"), []),
        (LikenessFilter(vehicle_class="car", visible={"yard"}), ["v0", "v2", "v4"]),
        (LikenessFilter(visible=()), []),
    ]
    for chosen, expected in cases:
        assert ids(similar(index, database, towards(0), chosen=chosen)) == expected, chosen


def test_a_tracklet_that_went_on_is_found_by_its_later_time(database: Database, index: LikenessIndex) -> None:
    see(database, 1, "v1", towards(0), end_reason=None)
    late = LikenessFilter(start=after(100))
    assert similar(index, database, towards(0), chosen=late) == []
    of = tracklet("gate", 1, start=1, end=200)
    with database.transaction() as session:
        Writer(session).store_sighting(of, path(of, 1), [])
    assert ids(similar(index, database, towards(0), chosen=late)) == ["v1"]


def test_a_tracklet_that_went_on_is_found_by_its_later_class(
    database: Database, index: LikenessIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when many looks have come since: its own isn't read again.
    monkeypatch.setattr("storage.likeness.OVERLAP", 0)
    see(database, 1, "v1", towards(0), end_reason=None)
    bus, car = LikenessFilter(vehicle_class="bus"), LikenessFilter(vehicle_class="car")
    assert similar(index, database, towards(0), chosen=bus) == []
    of = tracklet("gate", 1, start=1, end=200, vehicle_class="bus")
    with database.transaction() as session:
        Writer(session).store_sighting(of, path(of, 1), [])
    assert ids(similar(index, database, towards(0), chosen=bus)) == ["v1"]
    assert similar(index, database, towards(0), chosen=car) == []


def test_a_tracklet_is_not_compared_with_its_own_vehicle(database: Database, index: LikenessIndex) -> None:
    own = see(database, 1, "v1", towards(0))
    see(database, 2, "v1", towards(1))
    see(database, 3, "v2", towards(50))
    see(database, 4, "v3", towards(30))
    with database.snapshot() as session:
        assert ids(index.similar_to_tracklet(session, own)) == ["v3", "v2"]
        assert ids(index.similar_to_tracklet(session, own, limit=1)) == ["v3"]
        assert ids(index.similar_to_tracklet(session, own, limit=0)) == []


def test_a_tracklet_at_a_camera_that_one_may_not_see_is_not_known(database: Database, index: LikenessIndex) -> None:
    hidden = see(database, 1, "v1", towards(0), camera="yard")
    see(database, 2, "v2", towards(0))
    with database.snapshot() as session, pytest.raises(TrackletNotFoundError, match="not known"):
        index.similar_to_tracklet(session, hidden, chosen=LikenessFilter(visible={"gate"}))


def test_many_tracklets_of_one_vehicle_push_no_other_out(database: Database, index: LikenessIndex) -> None:
    for number in range(40):
        see(database, number, "v1", towards(number / 40))
    see(database, 50, "v2", towards(60))
    assert ids(similar(index, database, towards(0), limit=2)) == ["v1", "v2"]


def test_vectors_of_another_embedder_or_length_are_not_compared(database: Database, index: LikenessIndex) -> None:
    see(database, 1, "v1", towards(0))
    with database.snapshot() as session:
        assert index.similar_to_vector(session, towards(0), "visible", "another") == []
        assert index.similar_to_vector(session, np.ones(4, np.float32), "visible", MODEL) == []


@pytest.mark.parametrize("vector", [np.zeros(WIDTH), np.full(WIDTH, np.nan), np.ones((1, WIDTH))])
def test_what_is_no_direction_is_refused(memory: Database, index: LikenessIndex, vector: NDArray[np.float64]) -> None:
    with memory.snapshot() as session, pytest.raises(StorageError, match="finite and not zero"):
        index.similar_to_vector(session, vector.astype(np.float32), "visible", MODEL)


# --- Across bands.


def test_bands_are_ranked_by_log_odds_and_not_by_similarity(database: Database, index: LikenessIndex) -> None:
    see(database, 1, "v1", towards(65))
    see(database, 2, "v2", towards(40), modality="thermal")
    see(database, 3, "v3", towards(75))
    found = similar(index, database, towards(0))
    log_odds = [10 * math.cos(math.radians(65)), 5 * math.cos(math.radians(40)), 10 * math.cos(math.radians(75))]
    assert ids(found) == ["v1", "v2", "v3"]
    assert [one.log_odds for one in found] == pytest.approx(log_odds, abs=1e-2)
    # Odds of one in three, times what the looks say.
    assert [one.probability for one in found] == pytest.approx(
        [math.exp(value) / (math.exp(value) + 3) for value in log_odds], abs=1e-2
    )


def test_a_band_that_no_tracklet_was_seen_in_is_compared_with_the_others(
    database: Database, index: LikenessIndex
) -> None:
    assert similar(index, database, towards(0), modality="thermal") == []
    see(database, 1, "v1", towards(10))
    assert ids(similar(index, database, towards(0), modality="near_infrared")) == ["v1"]


def test_bands_take_turns_where_one_of_them_was_never_measured(database: Database, index: LikenessIndex) -> None:
    for number, (vehicle_id, degrees) in enumerate([("v1", 50), ("v2", 60), ("v3", 70)]):
        see(database, number, vehicle_id, towards(degrees))
    for number, (vehicle_id, degrees) in enumerate([("v4", 5), ("v5", 6)], 3):
        see(database, number, vehicle_id, towards(degrees), modality="radar")
    found = similar(index, database, towards(0))
    assert ids(found) == ["v1", "v4", "v2", "v5", "v3"]
    assert [one.log_odds is None for one in found] == [False, True, False, True, False]
    assert [one.probability is None for one in found] == [False, True, False, True, False]


def test_without_a_scale_what_a_band_shares_is_taken_out(database: Database) -> None:
    """All share a direction ten times as long as what tells them apart."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((4 * MIN_CENTRE_VECTORS, WIDTH)) + 10 * np.eye(WIDTH)[7]
    for number, vector in enumerate(vectors):
        see(database, number, f"v{number}", vector.astype(np.float32))
    index = LikenessIndex(is_lasting=False)
    found = similar(index, database, vectors[3].astype(np.float32))
    rest = vectors - vectors.mean(axis=0)
    cosines = rest @ rest[3] / np.linalg.norm(rest, axis=1) / np.linalg.norm(rest[3])
    assert ids(found) == [f"v{number}" for number in np.argsort(-cosines)]
    assert [one.similarity for one in found] == pytest.approx(sorted(cosines, reverse=True), abs=2e-3)
    assert {one.log_odds for one in found} == {None}


def test_a_centre_that_few_have_told_is_taken_anew(database: Database) -> None:
    """An index that was read while little was known answers as one that is read at the end."""
    assert CENTRE_VECTORS > 100
    rng = np.random.default_rng(2)
    vectors = (rng.standard_normal((100, WIDTH)) + 3).astype(np.float32)
    early = LikenessIndex(is_lasting=False)
    for number, vector in enumerate(vectors):
        see(database, number, f"v{number}", vector)
        if number in (0, 20):
            similar(early, database, vector)
    late = LikenessIndex(is_lasting=False)
    assert similar(early, database, vectors[5]) == similar(late, database, vectors[5])


# --- The database of now.


def test_a_correction_is_seen_at_once(database: Database, index: LikenessIndex) -> None:
    see(database, 1, "v1", towards(0))
    see(database, 2, "v2", towards(10))
    assert ids(similar(index, database, towards(0))) == ["v1", "v2"]
    with database.transaction() as session:
        merge(session, "v1", "v2", by="anna", at=START)
    assert len(similar(index, database, towards(0))) == 1


def test_what_was_forgotten_is_not_shown_and_others_make_up_for_it(
    database: Database, index: LikenessIndex, tmp_path: Path
) -> None:
    for number in range(30):
        see(database, number, f"v{number:02}", towards(number))
    assert len(similar(index, database, towards(0), limit=3)) == 3
    with database.transaction() as session:
        for number in range(25):
            forget(session, CropStore(tmp_path), f"v{number:02}")
    assert ids(similar(index, database, towards(0), limit=3)) == ["v25", "v26", "v27"]


def test_what_is_gone_is_let_go_of_after_a_while(database: Database, tmp_path: Path) -> None:
    now = [0.0]
    index = LikenessIndex(PlainScale(), is_lasting=False, clock=lambda: now[0])
    for number in range(10):
        see(database, number, f"v{number}", towards(number))
    similar(index, database, towards(0))
    with database.transaction() as session:
        forget(session, CropStore(tmp_path), "v3")
    now[0] = SWEEP_S
    assert "v3" not in ids(similar(index, database, towards(0)))
    assert len(index) == 9


def test_a_tracklet_whose_best_look_is_gone_is_known_by_the_next(database: Database) -> None:
    now = [0.0]
    index = LikenessIndex(PlainScale(), is_lasting=False, clock=lambda: now[0])
    see(database, 1, "v1", towards(70), quality=0.3)
    see(database, 1, None, towards(0), quality=0.9, sequence=1)
    for number in range(2, OVERLAP + 10):
        see(database, number, None, towards(90))
    assert similar(index, database, towards(0))[0].similarity > 0.9
    with database.transaction() as session:
        session.execute(text("DELETE FROM embeddings WHERE quality > 0.8"))
    now[0] = SWEEP_S
    assert similar(index, database, towards(0))[0].similarity == pytest.approx(math.cos(math.radians(70)), abs=1e-3)


def test_a_row_number_that_comes_again_names_no_stranger(database: Database, index: LikenessIndex) -> None:
    """SQLite numbers on from the highest row that is left: what was compared was another's."""
    see(database, 1, "v1", towards(60))
    see(database, 2, "v2", towards(0))
    assert ids(similar(index, database, towards(0))) == ["v2", "v1"]
    with database.transaction() as session:
        number = session.execute(text("SELECT max(embedding_id) FROM embeddings")).scalar_one()
        session.execute(text("DELETE FROM embeddings WHERE embedding_id = :number"), {"number": number})
    see(database, 3, "v3", towards(90))
    with database.transaction() as session:
        session.execute(
            text("UPDATE embeddings SET embedding_id = :number WHERE tracklet_id = 'gate/s1/3'"), {"number": number}
        )
    found = similar(index, database, towards(0))
    assert [(one.vehicle_id, round(one.similarity, 1)) for one in found] == [("v1", 0.5), ("v3", 0.0)]


def test_a_row_that_is_committed_after_later_ones_is_found(database: Database, index: LikenessIndex) -> None:
    see(database, 1, "v1", towards(0))
    see(database, 2, "v2", towards(10))
    with database.transaction() as session:
        session.execute(text("UPDATE embeddings SET embedding_id = 100 WHERE tracklet_id = 'gate/s1/2'"))
    assert ids(similar(index, database, towards(0))) == ["v1", "v2"]
    see(database, 3, "v3", towards(20))
    with database.transaction() as session:
        session.execute(text("UPDATE embeddings SET embedding_id = 50 WHERE tracklet_id = 'gate/s1/3'"))
    assert ids(similar(index, database, towards(0))) == ["v1", "v2", "v3"]


def test_the_number_of_statements_does_not_grow_with_the_answer(database: Database, index: LikenessIndex) -> None:
    numbers = []
    for count in (5, 40):
        for number in range(count):
            see(database, number + 100 * count, f"v{count}/{number}", towards(number))
        similar(index, database, towards(0))
        with database.snapshot() as session, counted(session) as statements:
            assert len(index.similar_to_vector(session, towards(0), "visible", MODEL)) >= count
        numbers.append(statements.count)
    assert numbers[0] == numbers[1] <= 3


def test_threads_that_ask_at_once_are_all_answered_alike(database: Database) -> None:
    index = LikenessIndex(PlainScale())
    for number in range(20):
        see(database, number, f"v{number}", towards(number))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ids(similar(index, database, towards(0))), range(8)))
    assert answers == [[f"v{number}" for number in range(20)]] * 8


def test_a_damaged_vector_is_like_nothing(database: Database, index: LikenessIndex) -> None:
    see(database, 1, "v1", towards(0))
    see(database, 2, "v2", towards(0))
    with database.transaction() as session:
        damaged = encode_vector(np.full(WIDTH, np.nan, np.float32))
        session.execute(text("UPDATE embeddings SET vector = :v WHERE tracklet_id = 'gate/s1/2'"), {"v": damaged})
    found = similar(index, database, towards(0))
    assert [(one.vehicle_id, one.similarity) for one in found] == [("v1", pytest.approx(1, abs=1e-3)), ("v2", 0)]
