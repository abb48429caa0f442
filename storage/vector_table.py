"""Looks in PostgreSQL's own index (the extension pgvector 0.8 or newer), for who asks once and goes.

A server holds all looks in memory, which is exact and needs no table (`storage.likeness`). A command would have to read
them all for its one question: half a minute for a million. Where `index_vectors` has made `embedding_vectors`, the
command takes its candidates from there, reads the looks of those alone, and compares them exactly.

The table is beside the schema, since most databases can't have it. Its rows go with their embeddings. Those that were
added after its last `index_vectors` are compared too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import BigInteger, Text, cast, column, literal, or_, select, table, text
from sqlalchemy.types import UserDefinedType

from storage.blobs import decode_vector
from storage.engines import patient
from storage.errors import StorageError
from storage.likeness import LOOKS_PER_VEHICLE, LikenessIndex
from storage.likeness_answers import looks_of
from storage.likeness_bands import CENTRE_VECTORS, MIN_CENTRE_VECTORS, LikenessFilter
from storage.models import EmbeddingRow, TrackletRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    from storage.likeness_answers import Likeness, Query

#: Candidates of each pair of bands: a vehicle has several, and what the index says is near is not always the nearest.
CANDIDATES = 400
_BATCH = 2000
_NEEDED = (0, 8)
_CENTRES = (
    "CREATE TABLE IF NOT EXISTS embedding_centres (model_id varchar(128), modality varchar(32), vector bytea NOT NULL, "
    "PRIMARY KEY (model_id, modality))"
)
# All of one length, as an index wants it: that of the first band.
_VECTORS = (
    "CREATE TABLE IF NOT EXISTS embedding_vectors (embedding_id bigint PRIMARY KEY "
    "REFERENCES embeddings ON DELETE CASCADE, model_id varchar(128) NOT NULL, modality varchar(32) NOT NULL, "
    "direction halfvec({}) NOT NULL)"
)
_INDEX = (
    "CREATE INDEX IF NOT EXISTS ix_embedding_vectors_direction ON embedding_vectors "
    "USING hnsw (direction halfvec_ip_ops)"
)
# How far the index is walked where a filter lets little through; beyond, all rows are compared.
_MAX_WALKED = 100_000
# The extension's own limit.
_MAX_EF = 1000


class _HalfVector(UserDefinedType[str]):
    """The extension's type, as text."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """Its name."""
        return "halfvec"


_TABLE = table(
    "embedding_vectors",
    column("embedding_id", BigInteger),
    column("model_id", Text),
    column("modality", Text),
    column("direction", _HalfVector),
)
_LAST = text("SELECT coalesce(max(embedding_id), 0) FROM embedding_vectors")
_INSERT = text("INSERT INTO embedding_vectors VALUES (:i, :m, :b, CAST(:d AS halfvec))")


@dataclass(frozen=True, slots=True)
class Centres:
    """A `Scale` that knows what bands share, and nothing else.

    Attributes:
        model_id: The embedder.
        vectors: Mean vector of each band, (D,) float32.
    """

    model_id: str
    vectors: Mapping[str, NDArray[np.float32]]

    def centred(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Scale`."""
        centre = self.vectors.get(modality)
        return vectors if centre is None or len(centre) != vectors.shape[1] else vectors - centre

    def log_odds(self, first: str, second: str, similarities: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """See `Scale`."""
        del first, second, similarities
        return None


class _Candidates(LikenessIndex):
    """Of all looks only some, read once."""

    def __init__(self, session: Session, centres: Centres, chosen: Iterable[int], after: int) -> None:
        super().__init__(centres, is_lasting=False)
        # All looks of those tracklets, of which the best one counts.
        named = select(EmbeddingRow.tracklet_id).where(EmbeddingRow.embedding_id.in_(list(chosen)))
        self._read(session, or_(EmbeddingRow.tracklet_id.in_(named), EmbeddingRow.embedding_id > after))

    def _refresh(self, session: Session) -> None:
        pass


def index_vectors(session: Session, *, anew: bool = False) -> int:
    """Makes the table, or brings it up to date; may take minutes.

    Args:
        session: Of `Database.transaction`.
        anew: Begin from nothing, so that what bands share is taken from the vectors of now.

    Returns:
        How many looks were added.

    Raises:
        StorageError: No PostgreSQL, or none with pgvector of version 0.8 or newer.
    """
    connection = session.connection()
    if not is_offered(session):
        raise StorageError("index-vectors: wanted a PostgreSQL server with the extension vector, 0.8 or newer")
    with patient(connection):
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        if anew:
            connection.exec_driver_sql("DROP TABLE IF EXISTS embedding_vectors, embedding_centres")
        connection.exec_driver_sql(_CENTRES)
        last = 0
        if has_table(session):
            last = session.execute(_LAST).scalar_one()
        centres = {model: _learn_centres(session, model) for model in _models(session)}
        width = next((len(vector) for known in centres.values() for vector in known.vectors.values()), 0)
        if not width:
            return 0
        connection.exec_driver_sql(_VECTORS.format(width))
        added = _add(session, centres, last, width)
        connection.exec_driver_sql(_INDEX)
        return added


def is_offered(session: Session) -> bool:
    """Whether the server has the extension, or could have it."""
    if session.connection().dialect.name != "postgresql":
        return False
    statement = text("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
    version = session.execute(statement).scalar()
    return version is not None and tuple(int(part) for part in version.split(".")[:2]) >= _NEEDED


def has_table(session: Session) -> bool:
    """Whether `index_vectors` has been here."""
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        return False
    return connection.execute(text("SELECT to_regclass('embedding_vectors')")).scalar() is not None


def similar_to_tracklet(
    session: Session, tracklet_id: str, *, chosen: LikenessFilter | None = None, limit: int = 50
) -> list[Likeness]:
    """As `LikenessIndex.similar_to_tracklet`, for a single question: by the table where there is one.

    Raises:
        TrackletNotFoundError: None, or several.
    """
    chosen = chosen or LikenessFilter()
    index = LikenessIndex(is_lasting=False)
    if has_table(session):
        queries = looks_of(session, tracklet_id, chosen)[0]
        models = {query.model_id for query in queries}
        if len(models) == 1:
            centres = _centres(session, models.pop())
            near = {number for query in queries for number in _near(session, query, centres, chosen, limit)}
            index = _Candidates(session, centres, near, session.execute(_LAST).scalar_one())
    return index.similar_to_tracklet(session, tracklet_id, chosen=chosen, limit=limit)


def _models(session: Session) -> list[str]:
    return sorted(session.scalars(select(EmbeddingRow.model_id).distinct()))


def _centres(session: Session, model_id: str) -> Centres:
    rows = session.execute(text("SELECT modality, vector FROM embedding_centres WHERE model_id = :m"), {"m": model_id})
    return Centres(model_id, {row.modality: np.frombuffer(row.vector, "<f4") for row in rows})


def _learn_centres(session: Session, model_id: str) -> Centres:
    """What is known already, and the means of bands that are new."""
    known = _centres(session, model_id).vectors
    is_model = EmbeddingRow.model_id == model_id
    for modality in session.scalars(select(EmbeddingRow.modality).where(is_model).distinct()):
        if modality in known:
            continue
        looks = select(EmbeddingRow.vector).where(is_model, EmbeddingRow.modality == modality)
        blobs = session.scalars(looks.order_by(EmbeddingRow.embedding_id).limit(CENTRE_VECTORS)).all()
        alike = [decode_vector(blob) for blob in blobs if len(blob) == len(blobs[0])]
        mean = np.mean(alike, axis=0) if len(alike) >= MIN_CENTRE_VECTORS else np.zeros_like(alike[0])
        session.execute(
            text("INSERT INTO embedding_centres VALUES (:m, :b, :v)"),
            {"m": model_id, "b": modality, "v": mean.astype("<f4").tobytes()},
        )
    return _centres(session, model_id)


def _add(session: Session, centres: Mapping[str, Centres], last: int, width: int) -> int:
    """Adds the looks above a number that have the table's length; returns how many."""
    columns = (EmbeddingRow.embedding_id, EmbeddingRow.model_id, EmbeddingRow.modality, EmbeddingRow.vector)
    rows = session.execute(
        select(*columns).where(EmbeddingRow.embedding_id > last).order_by(EmbeddingRow.embedding_id),
        execution_options={"yield_per": _BATCH},
    )
    added = 0
    for batch in rows.partitions():
        fresh = []
        for row in batch:
            vector = decode_vector(row.vector)
            if len(vector) == width:
                direction = _shown(centres[row.model_id].centred(row.modality, vector[None])[0])
                fresh.append({"i": row.embedding_id, "m": row.model_id, "b": row.modality, "d": direction})
        if fresh:
            session.execute(_INSERT, fresh)
        added += len(fresh)
    return added


def _near(session: Session, query: Query, centres: Centres, chosen: LikenessFilter, limit: int) -> list[int]:
    """Numbers of embeddings near to a query: of each band so many."""
    direction = _shown(centres.centred(query.modality, query.vector[None])[0])
    wanted = max(CANDIDATES, LOOKS_PER_VEHICLE * limit)
    distance = _TABLE.c.direction.op("<#>")(cast(literal(direction, Text), _HalfVector))
    found: list[int] = []
    for modality in sorted(centres.vectors) if chosen.modality is None else [chosen.modality]:
        is_band = (_TABLE.c.model_id == query.model_id) & (_TABLE.c.modality == modality)
        statement = select(_TABLE.c.embedding_id).where(is_band).order_by(distance).limit(wanted)
        conditions = _conditions(chosen)
        if conditions:
            statement = (
                statement.join(EmbeddingRow, EmbeddingRow.embedding_id == _TABLE.c.embedding_id)
                .join(TrackletRow, TrackletRow.tracklet_id == EmbeddingRow.tracklet_id)
                .where(*conditions)
            )
        found += _walked(session, statement, wanted)
    return found


def _conditions(chosen: LikenessFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if chosen.start is not None:
        conditions.append(TrackletRow.ended_at >= chosen.start)
    if chosen.end is not None:
        conditions.append(TrackletRow.started_at < chosen.end)
    if chosen.camera is not None:
        conditions.append(TrackletRow.camera == chosen.camera)
    if chosen.vehicle_class is not None:
        conditions.append(TrackletRow.vehicle_class == chosen.vehicle_class)
    if chosen.visible is not None:
        conditions.append(TrackletRow.camera.in_(chosen.visible))
    return conditions


def _walked(session: Session, statement: Select[Any], wanted: int) -> list[int]:
    connection = session.connection()
    connection.exec_driver_sql(
        f"SET LOCAL hnsw.iterative_scan = relaxed_order; SET LOCAL hnsw.max_scan_tuples = {_MAX_WALKED}; "
        f"SET LOCAL hnsw.ef_search = {min(wanted, _MAX_EF)}"
    )
    found = list(session.scalars(statement))
    if len(found) < wanted:
        # A filter that lets little through, or a small band: the index gives up before it has seen all.
        connection.exec_driver_sql("SET LOCAL enable_indexscan = off")
        found = list(session.scalars(statement))
        connection.exec_driver_sql("SET LOCAL enable_indexscan = on")
    return found


def _shown(direction: NDArray[np.float32]) -> str:
    """A vector of unit norm as pgvector reads it; zero where nothing is left."""
    norm = float(np.linalg.norm(direction))
    unit = direction / norm if np.isfinite(norm) and norm > 0 else np.zeros_like(direction)
    return f"[{','.join(f'{value:.5f}' for value in unit.tolist())}]"
