"""What the matcher holds of one tracklet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reid.modality import Modality
    from streamer.matcher.ground_path import GroundPath


@dataclass(slots=True)
class Tracklet:
    """One vehicle in one camera, as far as it is known.

    Attributes:
        tracklet_id: Stable across replays.
        camera: The camera's id.
        session: The connection of that camera.
        started_at: When its first frame was captured, seconds since the Unix epoch.
        ended_at: When its last frame so far was captured, likewise.
        class_votes: Share of each vehicle class, by COCO's name, summing to 1.
        vectors: The embedding of each modality seen, (D,) float32, unit norm.
        is_ended: Whether its `end` sighting has come.
        path: Where it was; None when nothing is known of that, or it was long ago.
        entry: (2,) where it was first seen, pixels; so far as `path` has told.
        exit: (2,) where it was last seen.
        is_pinned: Whether a person decided whose it is.
        breaks_off: Whether another tracklet of its camera goes on where it ends: where it ends says nothing of its way.
        goes_on: Whether it goes on where another of its camera broke off: where it begins says nothing of its way.
        centred: By modality what `Centring` made of the vector, and of which of its means: kept, since it is asked
            for often.
    """

    tracklet_id: str
    camera: str
    session: str
    started_at: float
    ended_at: float
    class_votes: dict[str, float] = field(default_factory=dict)
    vectors: dict[Modality, NDArray[np.float32]] = field(default_factory=dict)
    is_ended: bool = False
    path: GroundPath | None = None
    entry: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    exit: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    is_pinned: bool = False
    breaks_off: bool = False
    goes_on: bool = False
    centred: dict[Modality, tuple[int, NDArray[np.float32]]] = field(default_factory=dict, repr=False, compare=False)

    def look(self, modality: Modality, vector: NDArray[np.float32]) -> None:
        """Takes over what it looks like, (D,) unit norm."""
        self.vectors[modality] = vector
        self.centred.pop(modality, None)

    def follow(self, path: GroundPath) -> None:
        """Takes over where it was."""
        self.path, self.entry, self.exit = path, path.entry, path.exit

    def overlaps(self, other: Tracklet) -> bool:
        """Whether there is a moment that both were seen."""
        return self.started_at <= other.ended_at and other.started_at <= self.ended_at
