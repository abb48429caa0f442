"""Vehicles similar to a crop: the best look of every tracklet in memory, searched exactly.

The index is read once and then follows the table by its row numbers, at each question. It knows which tracklets are
alike; whose they are, and whether they still may be shown, is asked of the database each time: what was forgotten,
removed or corrected meanwhile is never told from memory.

Vectors of one band share a direction that says nothing of the vehicle, which is taken out before they are compared. A
`Scale` knows it, and what a similarity then means: with one, all bands are ranked by log-odds. Without, the bands take
turns: the best of each pair of bands, then the second of each, since similarities of different pairs don't compare.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import func, select

from storage.engines import patient
from storage.errors import StorageError, TransientStorageError
from storage.likeness_answers import (
    Likeness,
    Near,
    Query,
    by_log_odds,
    by_place,
    in_turns,
    looks_of,
    nearest,
    read_back,
)
from storage.likeness_bands import Band, LikenessFilter, Look, Scale
from storage.likeness_vectors import FaissVectors, NumpyVectors
from storage.models import EmbeddingRow, TrackletRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Connection
    from sqlalchemy.orm import Session

    from storage.likeness_vectors import Vectors

__all__ = ["Likeness", "LikenessFilter", "LikenessIndex", "Scale"]

#: How long a question waits for another one's, which may be reading the index for the first time.
BUSY_TIMEOUT_S = 120.0
#: How long the database may take for the first rows of the index: it may sort them all.
READ_TIMEOUT_S = 300.0
#: How often looks that are no longer in the database are let go of; they are never shown meanwhile.
SWEEP_S = 3600.0
#: Rows read at a time.
BATCH = 4096
#: So many row numbers are read again each time: of several writers the later one may be done earlier.
OVERLAP = 256
#: Looks taken into account for each vehicle that is wanted, since a vehicle has several; more where they don't suffice.
LOOKS_PER_VEHICLE = 6
#: The most looks that a question takes into account: the number of its statements stays small.
MAX_LOOKS = 20_000
# What the number of looks grows by when they didn't suffice.
_FACTOR = 8


class LikenessIndex:
    """All that looks are compared with. Safe for several threads; made empty, read at the first question.

    A question waits until another one is done, `BUSY_TIMEOUT_S` at most.

    Args:
        scale: What similarities mean, for the embedder that it knows.
        is_lasting: Many questions will come: worth loading faiss for.
        clock: Seconds that only grow.
    """

    def __init__(
        self, scale: Scale | None = None, *, is_lasting: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scale = scale
        self._vectors: Callable[[int], Vectors] = FaissVectors if is_lasting else NumpyVectors
        self._clock = clock
        self._lock = Lock()
        self._bands: dict[tuple[str, str, int], Band] = {}
        self._last = 0
        self._swept_at = clock()

    def __len__(self) -> int:
        """How many looks it holds: one for each tracklet and band."""
        return sum(len(band) for band in self._bands.values())

    def refresh(self, session: Session) -> None:
        """Brings it up to date; every question does so itself.

        Args:
            session: To read from, of `Database.snapshot`.

        Raises:
            TransientStorageError: Another question has kept it busy for too long.
        """
        with self._held():
            self._refresh(session)

    def similar_to_vector(
        self,
        session: Session,
        vector: NDArray[np.float32],
        modality: str,
        model_id: str,
        *,
        chosen: LikenessFilter | None = None,
        limit: int = 50,
    ) -> list[Likeness]:
        """Vehicles with a look like that one, best first, each once.

        Args:
            session: To read from, of `Database.snapshot`.
            vector: (D,) float32, as the embedder makes them; of any norm but zero.
            modality: Its band.
            model_id: Its embedder: vectors of others are not compared.
            chosen: Which tracklets count.
            limit: At most so many vehicles.

        Raises:
            StorageError: The vector is no direction.
            TransientStorageError: As for `refresh`.
        """
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
            raise StorageError("likeness: wanted a vector that is finite and not zero")
        query = Query(model_id, modality, vector.astype(np.float32, copy=False))
        return self._answer(session, [query], chosen or LikenessFilter(), limit, own="")

    def similar_to_tracklet(
        self, session: Session, tracklet_id: str, *, chosen: LikenessFilter | None = None, limit: int = 50
    ) -> list[Likeness]:
        """Vehicles that look like a tracklet's, best first, each once, without its own; by its best look in each band.

        Args:
            session: To read from, of `Database.snapshot`.
            tracklet_id: Its id, or a part of it that no other has; at a visible camera.
            chosen: Which tracklets count.
            limit: At most so many vehicles.

        Raises:
            TrackletNotFoundError: None, or several.
            TransientStorageError: As for `refresh`.
        """
        chosen = chosen or LikenessFilter()
        queries, own = looks_of(session, tracklet_id, chosen)
        return self._answer(session, queries, chosen, limit, own=own)

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=BUSY_TIMEOUT_S):
            raise TransientStorageError("likeness: what it compares with is still being read; try again in a moment")
        try:
            yield
        finally:
            self._lock.release()

    def _answer(
        self,
        session: Session,
        queries: Sequence[Query],
        chosen: LikenessFilter,
        limit: int,
        *,
        own: str,
    ) -> list[Likeness]:
        if not queries or limit < 1:
            return []
        with self._held():
            self._refresh(session)
        count = min(LOOKS_PER_VEHICLE * limit, MAX_LOOKS)
        while True:
            with self._held():
                near = self._near(queries, chosen, count)
            found = [(hit, one) for hit, one in read_back(session, near, chosen) if one.vehicle_id != own]
            best: dict[str, Likeness] = {}
            for _, one in found if near.is_measured else in_turns(found):
                best.setdefault(one.vehicle_id, one)
            if len(best) >= limit or near.is_all or count >= MAX_LOOKS:
                return list(best.values())[:limit]
            count = min(count * _FACTOR, MAX_LOOKS)

    def _near(self, queries: Sequence[Query], chosen: LikenessFilter, count: int) -> Near:
        """The `count` looks that are nearest to any of the queries, best first."""
        # Before the bands are gone through: a query may be the first of its band.
        sought = [(query, self._centred(query)) for query in queries]
        masks = {key: band.mask(chosen) for key, band in self._bands.items()}
        pairs = [
            nearest(query, vector, band, masks[key], count)
            for query, vector in sought
            for key, band in self._bands.items()
            if (query.model_id, len(query.vector)) == (key[0], key[2])
        ]
        is_measured = all(hit.log_odds is not None for pair in pairs for hit in pair)
        hits = [hit for pair in pairs for hit in pair]
        hits.sort(key=by_log_odds if is_measured else by_place)
        # The best of a look's several: it is compared with each of the queries.
        hits = list({(hit.embedding_id, hit.tracklet_id): hit for hit in reversed(hits)}.values())[::-1]
        models = {(query.model_id, len(query.vector)) for query in queries}
        compared = [int(np.count_nonzero(mask)) for key, mask in masks.items() if (key[0], key[2]) in models]
        is_all = len(hits) <= count and all(number <= count for number in compared)
        return Near(hits[:count], sum(compared), is_measured, is_all)

    def _centred(self, query: Query) -> NDArray[np.float32]:
        band = self._band(query.model_id, query.modality, len(query.vector))
        return np.asarray(band.centred(query.vector[None])[0], np.float32)

    def _band(self, model_id: str, modality: str, width: int) -> Band:
        key = (model_id, modality, width)
        if key not in self._bands:
            is_known = self._scale is not None and self._scale.model_id == model_id
            self._bands[key] = Band(modality, width, self._vectors(width), self._scale if is_known else None)
        return self._bands[key]

    def _refresh(self, session: Session) -> None:
        # Row numbers come again where the last rows were removed (SQLite).
        newest = session.scalar(select(func.max(EmbeddingRow.embedding_id))) or 0
        self._last = min(self._last, newest)
        self._read(session, EmbeddingRow.embedding_id > self._last - OVERLAP)
        if any(band.is_stale for band in self._bands.values()):
            self._bands.clear()
            self._last = 0
            self._read(session, EmbeddingRow.embedding_id > 0)
        self._last = newest
        if self._clock() - self._swept_at >= SWEEP_S:
            self._sweep(session, newest)
            self._swept_at = self._clock()

    def _read(self, session: Session, condition: ColumnElement[bool]) -> None:
        connection = session.connection()
        with nullcontext() if self._last else patient(connection, READ_TIMEOUT_S):
            self._read_rows(connection, condition)

    def _read_rows(self, connection: Connection, condition: ColumnElement[bool]) -> None:
        # Beside the session, which would look at each of a million rows once more.
        rows = connection.execute(
            select(
                EmbeddingRow.embedding_id,
                EmbeddingRow.tracklet_id,
                TrackletRow.camera,
                TrackletRow.vehicle_class,
                TrackletRow.started_at,
                TrackletRow.ended_at,
                EmbeddingRow.quality,
                TrackletRow.end_reason,
                EmbeddingRow.model_id,
                EmbeddingRow.modality,
                EmbeddingRow.vector,
            )
            .join(TrackletRow, TrackletRow.tracklet_id == EmbeddingRow.tracklet_id)
            .where(condition)
            .order_by(EmbeddingRow.embedding_id),
            execution_options={"yield_per": BATCH},
        )
        for batch in rows.partitions():
            grouped: dict[tuple[str, str, int], list[Any]] = {}
            for row in batch:
                grouped.setdefault((row.model_id, row.modality, len(row.vector) // 2), []).append(row)
            for (model_id, modality, width), group in grouped.items():
                vectors = np.frombuffer(b"".join(row.vector for row in group), "<f2").reshape(-1, width)
                band = self._band(model_id, modality, width)
                band.add([_look(row) for row in group], vectors.astype(np.float32))
        for band in self._bands.values():
            band.settle()

    def _sweep(self, session: Session, newest: int) -> None:
        numbers = session.scalars(select(EmbeddingRow.embedding_id).execution_options(yield_per=BATCH))
        there = np.fromiter(numbers, np.int64)
        lost = set[str]()
        for band in self._bands.values():
            # What a question with a newer snapshot has read already isn't in this one.
            lost.update(band.keep(lambda ids: np.isin(ids, there) | (ids > newest)))
        # A tracklet may have lost its best look alone, or have been written anew.
        again = sorted(lost)
        for start in range(0, len(again), BATCH):
            self._read(session, EmbeddingRow.tracklet_id.in_(again[start : start + BATCH]))


def _look(row: Any) -> Look:  # noqa: ANN401 - a row
    embedding_id, tracklet_id, camera, vehicle_class, started_at, ended_at, quality, end_reason, *_ = row
    until = math.inf if end_reason is None else ended_at.timestamp()
    return Look(embedding_id, tracklet_id, camera, vehicle_class, started_at.timestamp(), until, quality)
