"""Ways to rank a gallery: by embedding, by embedding with a short list re-ordered by POM, and by POM alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid.ranking import descending

SHORT_LIST = 20
#: Weight of the cosine in a matcher's score: the best of 0, 1, 2, 4, 8, 16 and 32 on validation with the shipped
#: weights, in mAP over all directions; 0 is PORSCHE's own.
MIX = 8.0

#: Scores (Q, N, P, C) queries against (G, N, P, C) gallery tokens: (Q, G) logits. `Embedder.score` is one.
Scorer = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


class RankerName(StrEnum):
    """How the gallery is ranked.

    EMBEDDING: by cosine. RERANK: its best few re-ordered by POM, as the stream does. POM: every pair by POM,
    the reference for the two; far too slow for a gallery that grows.
    """

    EMBEDDING = "embedding"
    RERANK = "rerank"
    POM = "pom"


class Ranker(Protocol):
    """A way to rank N pictures for one another."""

    @property
    def name(self) -> RankerName:
        """What records call it."""
        ...

    @property
    def picture_bytes(self) -> int:
        """What it must keep of each gallery picture."""
        ...

    def order(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], removed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Rank a gallery for some queries.

        Args:
            rows: (Q,) indices of the queries.
            columns: (G,) indices of the gallery.
            removed: (Q, G), pairs that are no part of a query's gallery.

        Returns:
            (Q, G) indices into `columns`, the best match first.
        """
        ...


def match_scores(logits: NDArray[np.float32], cosines: NDArray[np.float32], mix: float) -> NDArray[np.float32]:
    """Score pairs by POM and embedding: `logit / 10 + mix * cosine`.

    PORSCHE reports sigmoid(logit / 10); the sigmoid changes no order and is left out, as it would round the
    scores of sure pairs to one value.

    Args:
        logits: POM's, any shape.
        cosines: of the embeddings, same shape.
        mix: weight of the cosine; 0 is PORSCHE's own score.
    """
    return np.asarray(logits / 10 + mix * cosines, dtype=np.float32)


def reorder(order: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Sort the first K of each ranked list by new scores; what lies behind them stays.

    Args:
        order: (Q, G) gallery indices, the best match first.
        scores: (Q, K) new scores of the first K of each list, higher is better; equal ones keep their order.

    Returns:
        (Q, G) gallery indices.
    """
    top = scores.shape[1]
    short_list = np.take_along_axis(order[:, :top], descending(scores), axis=1)
    return np.concatenate([short_list, order[:, top:]], axis=1)


@dataclass(frozen=True, slots=True)
class EmbeddingRanker:
    """Ranks by cosine.

    Attributes:
        vectors: (N, D) float32 of unit norm.
    """

    vectors: NDArray[np.float32]
    name: RankerName = RankerName.EMBEDDING

    @property
    def picture_bytes(self) -> int:
        """Of its vector."""
        return self.vectors[:1].nbytes

    def cosines(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, G) similarities."""
        return np.asarray(self.vectors[rows] @ self.vectors[columns].T, dtype=np.float32)

    def order(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], removed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """See `Ranker`."""
        return descending(self.cosines(rows, columns), removed)


@dataclass(frozen=True, slots=True)
class PointRanker:
    """Ranks by POM over all pairs.

    Attributes:
        embedding: its vectors join the score where `mix` is not 0.
        tokens: (N, L, P, C) points of the pictures.
        score: compares tokens.
        mix: weight of the cosine, see `match_scores`.
    """

    embedding: EmbeddingRanker
    tokens: NDArray[np.float32]
    score: Scorer
    mix: float = MIX
    name: RankerName = RankerName.POM

    @property
    def picture_bytes(self) -> int:
        """Of its tokens, and of its vector where that joins the score."""
        return self.tokens[:1].nbytes + (self.embedding.picture_bytes if self.mix else 0)

    def scores(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, G) scores."""
        logits = self.score(self.tokens[rows], self.tokens[columns])
        return match_scores(logits, self.embedding.cosines(rows, columns), self.mix)

    def order(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], removed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """See `Ranker`."""
        return descending(self.scores(rows, columns), removed)


@dataclass(frozen=True, slots=True)
class ShortListRanker:
    """Ranks by cosine, then the best few again by POM, one query at a time as they come.

    Attributes:
        points: scores the short lists.
        top: K, length of the short list; pairs that are removed take no place in it.
    """

    points: PointRanker
    top: int = SHORT_LIST
    name: RankerName = RankerName.RERANK

    @property
    def picture_bytes(self) -> int:
        """Of its vector and its tokens."""
        return self.points.embedding.picture_bytes + self.points.tokens[:1].nbytes

    def order(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], removed: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """See `Ranker`."""
        order = self.points.embedding.order(rows, columns, removed)
        short_lists = columns[order[:, : self.top]]  # (Q, K)
        scores = [self.points.scores(rows[[q]], short_list) for q, short_list in enumerate(short_lists)]
        return reorder(order, np.concatenate(scores))
