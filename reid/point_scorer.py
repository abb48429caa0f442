"""Point matching with numpy alone, for whoever re-ranks a short list without a network library.

It computes what `reid.point_matcher.PointMatcher.score` does in evaluation. There every batch norm is a scale and an
offset, so all of a decoder layer's head is one hidden layer: `second . relu(first @ matches + first_bias)`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from reid.backend import EmbedderError

Array = NDArray[np.float32]

#: Similarities and hidden numbers held at once: 16 MB.
BLOCK_NUMBERS = 2**22


@dataclass(frozen=True, slots=True)
class PointScorer:
    """A matcher's decoder. Safe for several threads.

    Attributes:
        priors: (L, P, P) in 0-1, symmetric: how much a match between two places counts.
        first: (L, H, P) the head's first layer.
        first_scale: (L, H) factor of its output.
        first_bias: (L, H) added to that.
        second: (L, H) the head's second layer.
        bias: () added to the sum over layers.
    """

    priors: Array
    first: Array
    first_scale: Array
    first_bias: Array
    second: Array
    bias: Array

    def __post_init__(self) -> None:
        layers, points, _ = self.priors.shape
        hidden = self.second.shape[-1]
        per_hidden = (layers, hidden)
        wanted = ((layers, points, points), (layers, hidden, points), per_hidden, per_hidden, per_hidden, ())
        for field, shape in zip(fields(self), wanted, strict=True):
            if getattr(self, field.name).shape != shape:
                raise ValueError(f"{field.name} must be {shape}, got {getattr(self, field.name).shape}")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read the `matcher.npz` of an exported folder.

        Raises:
            EmbedderError: no such file, or none of `save`'s.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name].astype(np.float32) for field in fields(cls)})
        except FileNotFoundError as error:
            raise EmbedderError(f"{path}: no such file") from error
        except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
            raise EmbedderError(f"{path}: not a matcher that reid.export wrote: {error}") from error

    def save(self, path: Path) -> None:
        """Write the file that `load` reads; the large first layers in half precision where that loses nothing."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        # Trained weights come from a half-precision file, so this is the rule, not the exception.
        half = self.first.astype(np.float16)
        if np.array_equal(half.astype(np.float32), self.first):
            arrays["first"] = half
        np.savez(path, **arrays)

    def score(self, queries: Array, gallery: Array) -> Array:
        """Score every query with every gallery picture.

        Args:
            queries: (Q, L, P, C) float, tokens of `Embedder.describe`.
            gallery: (G, L, P, C) float.

        Returns:
            (Q, G) float32 logits; `sigmoid(logits / 10)` is PORSCHE's reported score, in 0-1.

        Raises:
            EmbedderError: tokens of another shape.
        """
        layers, points, _ = self.priors.shape
        check_tokens(queries, gallery, (layers, points))
        # One query at a time: its similarities to a block of the gallery are one product of matrices.
        rows = max(1, BLOCK_NUMBERS // (points**2 + 2 * self.second.shape[1]))
        scores = np.empty((len(queries), len(gallery)), dtype=np.float32)
        for query, columns in score_blocks(len(queries), len(gallery), 1, rows):
            tokens = np.asarray(gallery[columns], dtype=np.float32)  # (B, L, P, C)
            scores[query, columns] = self._score_one(np.asarray(queries[query], dtype=np.float32)[0], tokens)
        return scores

    def _score_one(self, query: Array, gallery: Array) -> Array:
        """(L, P, C) against (B, L, P, C) -> (B,) logits."""
        total = np.full(len(gallery), self.bias, dtype=np.float32)
        for layer in range(len(self.priors)):
            matches = best_matches(query[layer], gallery[:, layer], self.priors[layer])  # (2 B, P)
            hidden = matches @ self.first[layer].T  # (2 B, H)
            hidden *= self.first_scale[layer]
            hidden += self.first_bias[layer]
            np.maximum(hidden, 0, out=hidden)
            total += (hidden @ self.second[layer]).reshape(2, -1).sum(axis=0)
        return total


def best_matches(query: Array, gallery: Array, prior: Array) -> Array:
    """How well each point is met in the other picture at best.

    Args:
        query: (P, C) float32.
        gallery: (B, P, C) float32.
        prior: (P, P) symmetric weights of the similarities.

    Returns:
        (2 * B, P): first of the query's points, then of the gallery's.
    """
    points, channels = query.shape
    similarity = (gallery.reshape(-1, channels) @ query.T).reshape(-1, points, points)  # (B, P of gallery, P of query)
    similarity *= prior
    return np.concatenate([similarity.max(axis=1), similarity.max(axis=2)])


def score_blocks(queries: int, gallery: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Cut a Q x G matrix of scores into blocks of at most `rows` x `columns`."""
    for top in range(0, queries, rows):
        for left in range(0, gallery, columns):
            yield slice(top, top + rows), slice(left, left + columns)


def check_tokens(queries: Array, gallery: Array, wanted: tuple[int, ...]) -> None:
    """Compare the shapes of tokens with (L, P) or (L, P, C).

    Raises:
        EmbedderError: they are others.
    """
    for name, tokens in (("queries", queries), ("gallery", gallery)):
        if tokens.ndim != 4 or tokens.shape[1 : 1 + len(wanted)] != wanted:
            raise EmbedderError(f"{name} must be tokens (N, {', '.join(map(str, wanted))}, ...), got {tokens.shape}")
    if queries.shape[3] != gallery.shape[3]:
        raise EmbedderError(f"queries have {queries.shape[3]} channels, gallery {gallery.shape[3]}")
