"""Every direction between modalities, ranked and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid.datasets import Sample
from reid.intervals import Interval, bootstrap
from reid.modality import Modality
from reid.protocols import Labels, Protocol, removed_pairs
from reid.rankers import EmbeddingRanker, PointRanker, Ranker, RankerName, ShortListRanker
from reid.ranking import Scores, joined, score_order
from reid.tokens import packed_size

RANKS = (1, 5, 10, 20)
# Pairs ranked at once: under 200 MB of lists and masks, whatever the size of the gallery.
BLOCK_PAIRS = 4_000_000

Record = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class Direction:
    """Which pictures ask for which.

    Attributes:
        query: modality of the queries.
        gallery: modality of the gallery.
        rows: (Q,) int64 indices of the queries among the samples.
        columns: (G,) int64 indices of the gallery.
    """

    query: Modality
    gallery: Modality
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Result:
    """How well a ranker does in one direction.

    Attributes:
        query: modality of the queries.
        gallery: modality of the gallery.
        protocol: what galleries left out.
        scores: per valid query; its `rows` are indices of the samples.
        ms_per_query: wall time to compare and rank, per query; embedding the pictures not included.
        vehicles: (V,) int64 identities of the valid queries, for intervals.
        ranker: how the gallery was ranked.
        within_class: scores of the same lists without pictures of classes other than the query's; None where a
            class is unknown.
        picture_bytes: of a gallery picture as it travels: its vector in float32, its points packed.
    """

    query: Modality
    gallery: Modality
    protocol: Protocol
    scores: Scores
    ms_per_query: float
    vehicles: NDArray[np.int64]
    ranker: RankerName = RankerName.EMBEDDING
    within_class: Scores | None = None
    picture_bytes: int = 0

    def mean_ap(self) -> Interval | None:
        """Mean average precision with its interval; None without a valid query."""
        return bootstrap(self.scores.average_precisions, self.vehicles) if self.scores.queries else None

    def rank1(self) -> Interval | None:
        """Share of first ranks that match, with its interval; None without a valid query."""
        first = (self.scores.first_ranks == 1).astype(np.float64)
        return bootstrap(first, self.vehicles) if self.scores.queries else None

    def record(self) -> Record:
        """As a flat JSON record, scores in 0-1; what is not known is None."""
        mean_ap, rank1, within = self.mean_ap(), self.rank1(), self.within_class
        return {
            "ranker": self.ranker.value,
            "query": self.query.value,
            "gallery": self.gallery.value,
            "protocol": self.protocol.value,
            "queries": self.scores.queries,
            "excluded": self.scores.excluded,
            "mAP": round(self.scores.mean_ap, 5),
            "mINP": round(self.scores.mean_inp, 5),
            **{f"rank{n}": round(float(self.scores.cmc[n - 1]), 5) for n in RANKS},
            "ms_per_query": round(self.ms_per_query, 4),
            "mAP_low": round(mean_ap.low, 5) if mean_ap else None,
            "mAP_high": round(mean_ap.high, 5) if mean_ap else None,
            "rank1_low": round(rank1.low, 5) if rank1 else None,
            "rank1_high": round(rank1.high, 5) if rank1 else None,
            "bytes_per_query": self.picture_bytes,
            "within_class_mAP": round(within.mean_ap, 5) if within else None,
            "within_class_rank1": round(float(within.cmc[0]), 5) if within else None,
        }


def evaluate(
    vectors: NDArray[np.float32],
    samples: Sequence[Sample],
    protocol: Protocol,
    queries: NDArray[np.bool_] | None = None,
) -> list[Result]:
    """Score the ranking by embedding in every direction between the modalities that occur.

    Args:
        vectors: (N, D) unit norm.
        samples: what the N vectors show.
        protocol: what galleries leave out.
        queries: (N,) which may be queries; the others are distractors. All when None.

    Returns:
        One result per ordered pair of modalities.
    """
    return evaluate_ranker(EmbeddingRanker(vectors), samples, protocol, directions(samples, queries))


def directions(samples: Sequence[Sample], queries: NDArray[np.bool_] | None = None) -> list[Direction]:
    """List the ordered pairs of modalities that have queries and a gallery.

    Args:
        samples: N; their roles say who may ask and who may be asked about.
        queries: (N,) which may be queries besides. All when None.
    """
    bands = np.array([sample.modality.value for sample in samples])
    labels = Labels.of(samples)
    asks = labels.asks if queries is None else labels.asks & queries
    rows = {modality: np.flatnonzero((bands == modality) & asks) for modality in Modality}
    columns = {modality: np.flatnonzero((bands == modality) & labels.is_asked) for modality in Modality}
    pairs = [(query, gallery) for query in Modality for gallery in Modality]
    return [Direction(q, g, rows[q], columns[g]) for q, g in pairs if len(rows[q]) and len(columns[g])]


def evaluate_ranker(
    ranker: Ranker,
    samples: Sequence[Sample],
    protocol: Protocol,
    chosen: Sequence[Direction],
    advance: Callable[[int], None] | None = None,
) -> list[Result]:
    """Rank and score directions.

    Args:
        ranker: of the samples.
        samples: N.
        protocol: what galleries leave out.
        chosen: directions to rank.
        advance: told how many queries have been ranked since the last call.

    Returns:
        One result a direction.
    """
    labels = Labels.of(samples)
    return [_result(ranker, labels, protocol, direction, advance) for direction in chosen]


def best_matches(
    ranker: Ranker, samples: Sequence[Sample], protocol: Protocol, direction: Direction, row: int, count: int = 10
) -> NDArray[np.int64]:
    """Find what a query's list starts with.

    Args:
        ranker: of the samples.
        samples: N.
        protocol: what the gallery leaves out.
        direction: whose gallery is searched.
        row: the query, an index of the samples.
        count: so many at most.

    Returns:
        Indices of the samples, the best match first.
    """
    rows = np.array([row], dtype=np.int64)
    removed = removed_pairs(Labels.of(samples), protocol, rows, direction.columns)
    (order,) = ranker.order(rows, direction.columns, removed)
    found: NDArray[np.int64] = direction.columns[order[~removed[0, order]][:count]]
    return found


def _result(
    ranker: Ranker, labels: Labels, protocol: Protocol, direction: Direction, advance: Callable[[int], None] | None
) -> Result:
    columns, seconds = direction.columns, 0.0
    knows_classes = bool((labels.kind[np.concatenate([direction.rows, columns])] >= 0).all())
    parts, within = [], []
    block = max(1, BLOCK_PAIRS // len(columns))
    for start in range(0, len(direction.rows), block):
        rows = direction.rows[start : start + block]
        removed = removed_pairs(labels, protocol, rows, columns)
        started = time.perf_counter()
        order = ranker.order(rows, columns, removed)
        seconds += time.perf_counter() - started
        names = (labels.vehicle[rows], labels.vehicle[columns])
        parts.append((rows, score_order(order, *names, removed)))
        if knows_classes:
            removed |= labels.kind[rows][:, None] != labels.kind[columns][None, :]
            within.append((rows, score_order(order, *names, removed)))
        if advance:
            advance(len(rows))
    scores = joined(parts)
    return Result(
        direction.query,
        direction.gallery,
        protocol,
        scores,
        seconds * 1000 / len(direction.rows),
        labels.vehicle[scores.rows],
        ranker.name,
        joined(within) if within else None,
        travelling_bytes(ranker),
    )


def travelling_bytes(ranker: Ranker) -> int:
    """Bytes of a gallery picture as it reaches a ranker: `picture_bytes` with points in their wire form, int8."""
    points = ranker.points if isinstance(ranker, ShortListRanker) else ranker
    if not isinstance(points, PointRanker):
        return ranker.picture_bytes
    return ranker.picture_bytes - points.tokens[:1].nbytes + packed_size(*points.tokens.shape[1:])
