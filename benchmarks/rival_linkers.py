"""Two plain ways to join tracklets by looks alone, as rivals of the matcher: the same vectors, centred alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from streamer.matcher.calibration import Calibration
from streamer.sightings import Sighting

#: Distance of two that one camera saw at one time: no mean over a group that holds such a pair comes below a threshold.
_NEVER = 1e6
#: Beyond this the matrix of all distances outgrows a small machine's memory: 3.2 GB.
MAX_CLUSTERED = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class EndedTracklet:
    """What a rival is told of a tracklet, when it has ended.

    Attributes:
        tracklet_id: Its id.
        camera: The camera's id.
        started_s: First frame, seconds since the Unix epoch.
        ended_s: Last frame.
        vector: (D,) centred by modality, unit norm.
    """

    tracklet_id: str
    camera: str
    started_s: float
    ended_s: float
    vector: NDArray[np.float32]

    @classmethod
    def of(cls, end: Sighting, calibration: Calibration) -> EndedTracklet:
        """From the sighting that ends it, which brings a vector."""
        (embedding,) = end.embeddings
        vector = calibration.centred(embedding.modality, embedding.vector)
        return cls(end.tracklet_id, end.camera, end.started_at.timestamp(), end.occurred_at.timestamp(), vector)

    def overlaps(self, other: EndedTracklet) -> bool:
        """Whether one camera saw both at one time: then they are two vehicles."""
        in_time = self.started_s <= other.ended_s and other.started_s <= self.ended_s
        return self.camera == other.camera and in_time


def join_nearest(tracklets: Sequence[EndedTracklet], threshold: float) -> dict[str, str]:
    """On-line: each joins the identity whose mean it resembles most, if by so much; else it is somebody new.

    Args:
        tracklets: In any order; they are taken as they end.
        threshold: Lowest cosine similarity at which a tracklet joins.

    Returns:
        By tracklet id the first tracklet's id of its identity.
    """
    sums = np.zeros((len(tracklets), len(tracklets[0].vector)), np.float32)
    norms = np.ones(len(tracklets), np.float32)
    members: list[list[EndedTracklet]] = []
    for tracklet in sorted(tracklets, key=lambda one: (one.ended_s, one.tracklet_id)):
        similarity = sums[: len(members)] @ tracklet.vector / norms[: len(members)]
        near = np.flatnonzero(similarity >= threshold)
        chosen = len(members)
        for candidate in near[np.argsort(-similarity[near], kind="stable")].tolist():
            if not any(tracklet.overlaps(member) for member in members[candidate]):
                chosen = candidate
                break
        if chosen == len(members):
            members.append([])
        members[chosen].append(tracklet)
        sums[chosen] += tracklet.vector
        norms[chosen] = np.linalg.norm(sums[chosen])
    return {member.tracklet_id: own[0].tracklet_id for own in members for member in own}


def join_clustered(tracklets: Sequence[EndedTracklet]) -> Callable[[float], dict[str, str]]:
    """In hindsight: average linkage over all of them, two that one camera saw at one time kept apart.

    Args:
        tracklets: All that there ever were, `MAX_CLUSTERED` at most.

    Returns:
        A function from the lowest mean cosine similarity of two groups that are joined to identities by tracklet id.

    Raises:
        ValueError: Too many for the matrix of their distances.
    """
    if len(tracklets) > MAX_CLUSTERED:
        raise ValueError(f"{len(tracklets)} tracklets, at most {MAX_CLUSTERED} can be clustered at once")
    vectors = np.stack([tracklet.vector for tracklet in tracklets])
    distance = 1 - vectors @ vectors.T
    start, end = (np.array([getattr(one, name) for one in tracklets]) for name in ("started_s", "ended_s"))
    cameras = np.array([tracklet.camera for tracklet in tracklets])
    for camera in np.unique(cameras):
        own = np.flatnonzero(cameras == camera)
        together = (start[own, np.newaxis] <= end[own]) & (start[own] <= end[own, np.newaxis])
        distance[np.ix_(own, own)] = np.where(together, _NEVER, distance[np.ix_(own, own)])
    tree = linkage(distance[np.triu_indices(len(tracklets), 1)], method="average")

    def cut(threshold: float) -> dict[str, str]:
        labels = fcluster(tree, 1 - threshold, criterion="distance")
        return {one.tracklet_id: str(label) for one, label in zip(tracklets, labels, strict=True)}

    return cut


def tune(join: Callable[[float], Mapping[str, str]], score: Callable[[Mapping[str, str]], float]) -> float:
    """The threshold of cosine similarity, by steps of 0.02, at which identities score best."""
    thresholds = np.arange(0.5, 0.99, 0.02)
    return float(max(thresholds, key=lambda threshold: score(join(float(threshold)))))
