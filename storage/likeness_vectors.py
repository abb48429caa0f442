"""Vectors in memory as float16, and which of them are nearest to one: by faiss where it is asked for, else by numpy.

Exact either way. Over a million vectors of 256 values faiss takes some 35 ms and numpy more than a second, since it
has to widen them first; but numpy is at hand at once, as a command that asks a single question wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows widened to float32 at a time: 8 MB of 256 values each.
_BLOCK = 8192


class Vectors(Protocol):
    """Rows of unit vectors (N, D); the position of a row is its number."""

    def __len__(self) -> int:
        """How many rows there are."""

    def put(self, positions: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Writes (n, D) vectors at (n,) different positions; those from the end on come in order, without a gap."""

    def keep(self, is_kept: NDArray[np.bool_]) -> None:
        """Removes all rows but those (N,); what stays moves up and keeps its order."""

    def nearest(
        self, query: NDArray[np.float32], among: NDArray[np.bool_], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and inner products with the query (D,) of the `count` rows nearest to it among (N,), best first."""


class NumpyVectors:
    """`Vectors` in an array that grows.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        self._rows = np.empty((0, width), "<f2")
        self._count = 0

    def __len__(self) -> int:
        """How many rows there are."""
        return self._count

    def put(self, positions: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """See `Vectors`."""
        self._count = max(self._count, int(positions.max()) + 1)
        if self._count > len(self._rows):
            grown = np.empty((max(self._count, len(self._rows) * 3 // 2), self._rows.shape[1]), "<f2")
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._rows[positions] = vectors

    def keep(self, is_kept: NDArray[np.bool_]) -> None:
        """See `Vectors`."""
        self._rows = self._rows[: self._count][is_kept]
        self._count = len(self._rows)

    def nearest(
        self, query: NDArray[np.float32], among: NDArray[np.bool_], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """See `Vectors`."""
        chosen = np.flatnonzero(among)
        products = np.empty(len(chosen), np.float32)
        for start in range(0, len(chosen), _BLOCK):
            block = chosen[start : start + _BLOCK]
            products[start : start + _BLOCK] = self._rows[block].astype(np.float32) @ query
        if count < len(chosen):
            best = np.argpartition(-products, count)[:count]
            chosen, products = chosen[best], products[best]
        order = np.argsort(-products, kind="stable")
        return chosen[order], products[order]


class FaissVectors:
    """`Vectors` in a faiss index of half floats.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        import faiss  # loads OpenMP and takes a while: not for who doesn't ask

        self._faiss: Any = faiss
        kind = faiss.ScalarQuantizer.QT_fp16
        self._index: Any = faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._index.ntotal)

    def put(self, positions: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """See `Vectors`."""
        size = len(self)
        is_new = positions >= size
        if is_new.any():
            self._index.add(np.ascontiguousarray(vectors[is_new]))
        if not is_new.all():
            # Removing and adding anew would move all that lies behind.
            codes = self._faiss.rev_swig_ptr(self._index.codes.data(), self._index.ntotal * self._index.code_size)
            codes.view("<f2").reshape(-1, self._index.d)[positions[~is_new]] = vectors[~is_new]

    def keep(self, is_kept: NDArray[np.bool_]) -> None:
        """See `Vectors`."""
        self._index.remove_ids(self._faiss.IDSelectorBitmap(np.packbits(~is_kept, bitorder="little")))

    def nearest(
        self, query: NDArray[np.float32], among: NDArray[np.bool_], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """See `Vectors`."""
        selected = None
        if not among.all():
            bitmap = np.packbits(among, bitorder="little")
            selected = self._faiss.SearchParameters(sel=self._faiss.IDSelectorBitmap(bitmap))
        products, positions = self._index.search(query[None], min(count, max(len(self), 1)), params=selected)
        is_found = positions[0] >= 0
        return positions[0][is_found], products[0][is_found]
