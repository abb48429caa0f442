"""The best look of every tracklet in one band, in memory: its vector, and what questions filter by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from storage.question_limits import check_window

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from storage.likeness_vectors import Vectors

#: So many vectors tell a band's own centre; until there are, it is taken anew whenever the band has doubled.
CENTRE_VECTORS = 20_000
#: Fewer tell none: what two or three vectors share is the vehicles.
MIN_CENTRE_VECTORS = 8
# Rows by which columns grow at least.
_GROWTH = 1024
# A shorter vector is what rounding has left of one that says nothing.
_SHORTEST = 1e-3
_COLUMNS = ("_ids", "_quality", "_camera", "_class", "_started", "_ended")


@dataclass(frozen=True, slots=True)
class LikenessFilter:
    """Which tracklets count.

    Attributes:
        start: Only those in view at this moment or later.
        end: Only those in view before this moment.
        camera: Only those of this camera.
        vehicle_class: Only those that their own camera took for this, whatever their vehicle was voted later.
        modality: Only looks in this band.
        visible: Only those of these cameras; None: of all.
    """

    start: datetime | None = None
    end: datetime | None = None
    camera: str | None = None
    vehicle_class: str | None = None
    modality: str | None = None
    visible: Collection[str] | None = None

    def __post_init__(self) -> None:
        check_window(self.start, self.end)


class Scale(Protocol):
    """What similarities mean for the vectors of one embedder."""

    @property
    def model_id(self) -> str:
        """The embedder."""

    def centred(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (N, D) of a band without the direction that all of them share; of any norm."""

    def log_odds(self, first: str, second: str, similarities: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Log-likelihood ratios (N,), one vehicle to two, of centred cosine similarities (N,) of a pair of bands.

        None where nobody has measured that pair.
        """


class Look(NamedTuple):
    """A row of `embeddings` with what its tracklet says; a tuple, since a million are made at a time.

    Attributes:
        embedding_id: Its number.
        tracklet_id: Whose.
        camera: Which.
        vehicle_class: Of the tracklet.
        started_at: Seconds since the Unix epoch: first frame of the tracklet.
        ended_at: Its last; infinite while it goes on.
        quality: Of the crop.
    """

    embedding_id: int
    tracklet_id: str
    camera: str
    vehicle_class: str
    started_at: float
    ended_at: float
    quality: float


class Band:
    """The looks of one embedder in one band. Not safe for several threads.

    Args:
        modality: The band.
        width: D.
        vectors: Empty.
        scale: Of that embedder, if any.
    """

    def __init__(self, modality: str, width: int, vectors: Vectors, scale: Scale | None) -> None:
        self.modality = modality
        self.width = width
        self.scale = scale
        self._vectors = vectors
        self._centre: NDArray[np.float32] | None = None
        self._centred_by = 0
        self._waiting: list[tuple[Sequence[Look], NDArray[np.float32]]] = []
        self._rows: dict[str, int] = {}
        self._tracklets: list[str] = []
        self._codes: dict[str, int] = {}
        self._ids = np.empty(0, np.int64)
        self._quality = np.empty(0, np.float64)
        self._camera = np.empty(0, np.int32)
        self._class = np.empty(0, np.int32)
        self._started = np.empty(0, np.float64)
        self._ended = np.empty(0, np.float64)

    def __len__(self) -> int:
        """How many tracklets it holds."""
        return len(self._tracklets)

    @property
    def is_stale(self) -> bool:
        """Whether too few vectors have told its own centre to go on with it: then all must be read again."""
        return self._centre is not None and self._centred_by < CENTRE_VECTORS and len(self) >= 2 * self._centred_by

    def add(self, looks: Sequence[Look], vectors: NDArray[np.float32]) -> None:
        """Takes looks in, with their vectors (N, D); of each tracklet the best one stays, the last of equal ones.

        They are found after `settle` at the latest: without a scale the first ones together must tell the centre.
        """
        if self.scale is not None or self._centre is not None:
            self._put(looks, vectors)
            return
        self._waiting.append((looks, vectors))
        if sum(len(waiting) for waiting, _ in self._waiting) >= CENTRE_VECTORS:
            self.settle()

    def settle(self) -> None:
        """Ends a number of `add`."""
        if not self._waiting:
            return
        told = np.concatenate([vectors for _, vectors in self._waiting])  # (N, D)
        self._centre = told.mean(axis=0) if len(told) >= MIN_CENTRE_VECTORS else np.zeros(self.width, np.float32)
        self._centred_by = len(told)
        for looks, vectors in self._waiting:
            self._put(looks, vectors)
        self._waiting.clear()

    def centred(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors (N, D) as they are compared: without what the band shares, of unit norm; zero where nothing is left.

        Without a scale the band's own mean is what it shares.
        """
        if self.scale is not None:
            vectors = self.scale.centred(self.modality, vectors)
        elif self._centre is not None:
            vectors = vectors - self._centre
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        is_vector = np.isfinite(norms) & (norms > _SHORTEST)
        unit = np.zeros(vectors.shape, np.float32)
        np.divide(vectors, norms, out=unit, where=is_vector)
        return unit

    def mask(self, chosen: LikenessFilter) -> NDArray[np.bool_]:
        """Which of its tracklets (N,) a filter lets through, as far as is known here."""
        count = len(self)
        passed = np.full(count, chosen.modality in (None, self.modality))
        if chosen.start is not None:
            passed &= self._ended[:count] >= chosen.start.timestamp()
        if chosen.end is not None:
            passed &= self._started[:count] < chosen.end.timestamp()
        if chosen.camera is not None:
            passed &= self._camera[:count] == self._codes.get(chosen.camera, -1)
        if chosen.vehicle_class is not None:
            # The class of what goes on may change without another look.
            is_class = self._class[:count] == self._codes.get(chosen.vehicle_class, -1)
            passed &= is_class | np.isinf(self._ended[:count])
        if chosen.visible is not None:
            may_see = np.array([name in chosen.visible for name in self._codes], bool)
            passed &= may_see[self._camera[:count]]
        return passed

    def nearest(
        self, query: NDArray[np.float32], among: NDArray[np.bool_], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and similarities of those nearest to a centred query (D,), best first; see `Vectors.nearest`."""
        return self._vectors.nearest(query, among, count)

    def look_at(self, row: int) -> tuple[int, str]:
        """The number of a row's embedding, and its tracklet."""
        return int(self._ids[row]), self._tracklets[row]

    def keep(self, is_there: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> list[str]:
        """Lets go of looks that are gone.

        Args:
            is_there: Tells of numbers of embeddings (N,) which of them still are there.

        Returns:
            The tracklets whose looks are gone.
        """
        count = len(self)
        is_kept = is_there(self._ids[:count])
        if is_kept.all():
            return []
        self._vectors.keep(is_kept)
        for name in _COLUMNS:
            setattr(self, name, getattr(self, name)[:count][is_kept])
        lost = [self._tracklets[row] for row in np.flatnonzero(~is_kept)]
        self._tracklets = [self._tracklets[row] for row in np.flatnonzero(is_kept)]
        self._rows = {tracklet_id: row for row, tracklet_id in enumerate(self._tracklets)}
        return lost

    def _put(self, looks: Sequence[Look], vectors: NDArray[np.float32]) -> None:
        written: dict[int, int] = {}
        for place, look in enumerate(looks):
            row = self._rows.get(look.tracklet_id)
            is_new = row is None
            if row is None:
                row = self._rows[look.tracklet_id] = len(self._tracklets)
                self._tracklets.append(look.tracklet_id)
                self._grow()
            self._camera[row] = self._codes.setdefault(look.camera, len(self._codes))
            self._class[row] = self._codes.setdefault(look.vehicle_class, len(self._codes))
            self._started[row], self._ended[row] = look.started_at, look.ended_at
            if is_new or look.quality >= self._quality[row]:
                self._ids[row], self._quality[row] = look.embedding_id, look.quality
                written[row] = place
        # In order, so that new rows come one after the other.
        rows = sorted(written)
        if rows:
            self._vectors.put(np.array(rows, np.int64), self.centred(vectors[[written[row] for row in rows]]))

    def _grow(self) -> None:
        if len(self._tracklets) <= len(self._ids):
            return
        size = max(len(self._ids) + _GROWTH, len(self._ids) * 3 // 2)
        for name in _COLUMNS:
            column = getattr(self, name)
            grown = np.zeros(size, column.dtype)
            grown[: len(column)] = column
            setattr(self, name, grown)
