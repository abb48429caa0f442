"""From looks that are near to vehicles: how hits are ranked, and what the database knows of them now."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from storage.blobs import decode_vector
from storage.lookup import find_tracklet
from storage.models import AssignmentRow, EmbeddingRow, TrackletRow, VehicleRow

if TYPE_CHECKING:
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from storage.likeness_bands import Band, LikenessFilter


@dataclass(frozen=True, slots=True)
class Likeness:
    """A vehicle that looks like what was asked for.

    Attributes:
        vehicle_id: Its id, as known now.
        vehicle_class: By vote of all its tracklets.
        tracklet_id: The tracklet that looks most like it.
        camera: That tracklet's.
        modality: The band of the look that was compared.
        captured_at: When that was taken.
        crop_image: Its picture below the crop store; None: not kept.
        similarity: Cosine of the two vectors, each without what its band shares; -1 to 1.
        log_odds: What that says, in nats: how much likelier the two are so alike if they are one vehicle than if they
            are two. None: nobody has measured it for this embedder and these bands.
        probability: That it is the same vehicle, where beforehand one of the tracklets that the filter let through was
            that vehicle's, each as likely as the others. Times and places don't count. None as for `log_odds`.
    """

    vehicle_id: str
    vehicle_class: str
    tracklet_id: str
    camera: str
    modality: str
    captured_at: datetime
    crop_image: str | None
    similarity: float
    log_odds: float | None
    probability: float | None


@dataclass(frozen=True, slots=True)
class Query:
    """A vector (D,) that vehicles are sought by, with its embedder and band."""

    model_id: str
    modality: str
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """A look that is near, before the database was asked.

    Attributes:
        place: Among those of its pair of bands; 0: the nearest.
        pair: Sorts the pair of bands; two of one band first, since they say most.
        embedding_id: Its number.
        tracklet_id: Whose.
        similarity: To the query.
        log_odds: See `Likeness`.
    """

    place: int
    pair: tuple[bool, str, str]
    embedding_id: int
    tracklet_id: str
    similarity: float
    log_odds: float | None


@dataclass(frozen=True, slots=True)
class Near:
    """The nearest of so many that were compared, best first; whether by log-odds; and whether these are all of them."""

    hits: list[Hit]
    compared: int
    is_measured: bool
    is_all: bool


def looks_of(session: Session, tracklet_id: str, chosen: LikenessFilter) -> tuple[list[Query], str]:
    """The best looks of a tracklet, one for each embedder and band, and the vehicle whose it is; empty: nobody's.

    Raises:
        TrackletNotFoundError: No such tracklet at a visible camera, or several.
    """
    tracklet = find_tracklet(session, tracklet_id, visible=chosen.visible)
    rows = session.execute(
        select(EmbeddingRow.model_id, EmbeddingRow.modality, EmbeddingRow.vector, AssignmentRow.vehicle_id)
        .outerjoin(AssignmentRow, (AssignmentRow.tracklet_id == EmbeddingRow.tracklet_id) & AssignmentRow.is_current)
        .where(EmbeddingRow.tracklet_id == tracklet.tracklet_id)
        .order_by(EmbeddingRow.quality, EmbeddingRow.embedding_id)
    ).all()
    # The best come last and stay.
    best = {(row.model_id, row.modality): row.vector for row in rows}
    queries = [Query(*key, decode_vector(best[key])) for key in sorted(best)]
    return queries, next((row.vehicle_id for row in rows if row.vehicle_id is not None), "")


def nearest(query: Query, vector: NDArray[np.float32], band: Band, among: NDArray[np.bool_], count: int) -> list[Hit]:
    """The looks of one band that are nearest to a centred query."""
    if not among.any():
        return []
    rows, similarities = band.nearest(vector, among, count)
    said = None if band.scale is None else band.scale.log_odds(query.modality, band.modality, similarities)
    log_odds = [None] * len(rows) if said is None else said.tolist()
    pair = (query.modality != band.modality, band.modality, query.modality)
    return [
        Hit(place, pair, *band.look_at(row), similarity, nats)
        for place, (row, similarity, nats) in enumerate(
            zip(rows.tolist(), similarities.tolist(), log_odds, strict=True)
        )
    ]


def by_log_odds(hit: Hit) -> tuple[Any, ...]:
    """Sorts hits of all bands, the likeliest first."""
    # Log-odds have a limit, beyond which the similarity goes on.
    return (-(hit.log_odds or 0.0), -hit.similarity, hit.tracklet_id)


def by_place(hit: Hit) -> tuple[Any, ...]:
    """Sorts hits so that pairs of bands take turns."""
    return (hit.place, hit.pair, hit.tracklet_id)


def in_turns(found: list[tuple[Hit, Likeness]]) -> list[tuple[Hit, Likeness]]:
    """The best vehicle of each pair of bands, then the second of each: counted anew, since some were left out."""
    placed: dict[tuple[tuple[bool, str, str], str], int] = {}
    counts: Counter[tuple[bool, str, str]] = Counter()
    for hit, one in found:
        if (hit.pair, one.vehicle_id) not in placed:
            placed[hit.pair, one.vehicle_id] = counts[hit.pair]
            counts[hit.pair] += 1
    return sorted(found, key=lambda known: (placed[known[0].pair, known[1].vehicle_id], by_place(known[0])[1:]))


def read_back(session: Session, near: Near, chosen: LikenessFilter) -> list[tuple[Hit, Likeness]]:
    """What the database knows of those looks now, in their order; without those that it no longer has or shows."""
    rows = session.execute(
        select(
            EmbeddingRow.embedding_id,
            EmbeddingRow.tracklet_id,
            EmbeddingRow.modality,
            EmbeddingRow.captured_at,
            EmbeddingRow.crop_image,
            TrackletRow.camera,
            TrackletRow.started_at,
            TrackletRow.ended_at,
            TrackletRow.vehicle_class.label("tracklet_class"),
            VehicleRow.vehicle_id,
            VehicleRow.vehicle_class,
        )
        .join(TrackletRow, TrackletRow.tracklet_id == EmbeddingRow.tracklet_id)
        .join(AssignmentRow, (AssignmentRow.tracklet_id == EmbeddingRow.tracklet_id) & AssignmentRow.is_current)
        .join(VehicleRow, VehicleRow.vehicle_id == AssignmentRow.vehicle_id)
        .where(EmbeddingRow.embedding_id.in_([hit.embedding_id for hit in near.hits]))
    )
    # By tracklet too: the number of a row that was removed may have come again.
    known = {(row.embedding_id, row.tracklet_id): row for row in rows if _passes(row, chosen)}
    hits = [(hit, known.get((hit.embedding_id, hit.tracklet_id))) for hit in near.hits]
    return [(hit, _likeness(hit, row, near.compared)) for hit, row in hits if row is not None]


def _passes(row: Any, chosen: LikenessFilter) -> bool:  # noqa: ANN401 - a row
    """Whether a filter lets a tracklet through, by what the database says of it now.

    Not asked in SQL: it would go by an index of cameras or times, and through all that was seen there.
    """
    return (
        (chosen.start is None or row.ended_at >= chosen.start)
        and (chosen.end is None or row.started_at < chosen.end)
        and chosen.camera in (None, row.camera)
        and chosen.vehicle_class in (None, row.tracklet_class)
        and (chosen.visible is None or row.camera in chosen.visible)
    )


def _likeness(hit: Hit, row: Any, compared: int) -> Likeness:  # noqa: ANN401 - a row
    return Likeness(
        vehicle_id=row.vehicle_id,
        vehicle_class=row.vehicle_class,
        tracklet_id=row.tracklet_id,
        camera=row.camera,
        modality=row.modality,
        captured_at=row.captured_at,
        crop_image=row.crop_image,
        similarity=hit.similarity,
        log_odds=hit.log_odds,
        probability=None if hit.log_odds is None else 1 / (1 + compared * math.exp(-hit.log_odds)),
    )
