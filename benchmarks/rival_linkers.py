"""Other ways to join tracklets, as rivals of the matcher: the same vectors, centred alike.

Two plain ones know looks alone, and one threshold of the cosine for all pairs of bands. Two fairer ones are given the
calibration that the matcher is given, which makes similarities of all pairs of bands comparable, and a longest gap: who
was last seen longer ago is somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from reid.calibration import MAX_EVIDENCE, Calibration
from reid.modality import Modality
from streamer.sightings import Sighting

#: So unlike are two that one camera saw at one time: no mean over a group that holds such a pair reaches a threshold.
_NEVER = 1e6
#: Beyond this the matrix of all distances outgrows a small machine's memory: 3.2 GB.
MAX_CLUSTERED = 20_000


class Setting(NamedTuple):
    """What is tuned.

    Attributes:
        threshold: Lowest similarity of what is joined: a cosine, or nats where rivals are calibrated.
        max_gap_s: Longest time between two sightings of one vehicle.
    """

    threshold: float
    max_gap_s: float = np.inf


#: What is tried of the plain rivals, and of those that are calibrated.
COSINES = [Setting(float(threshold)) for threshold in np.arange(0.5, 0.99, 0.02)]
NATS = [
    Setting(float(threshold), gap_s)
    for threshold, gap_s in product(np.arange(-1, 6, 0.25), (30.0, 60.0, 120.0, 300.0, 600.0, np.inf))
]
Join = Callable[[Setting], dict[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class EndedTracklet:
    """What a rival is told of a tracklet, when it has ended.

    Attributes:
        tracklet_id: Its id.
        camera: The camera's id.
        modality: The vector's band.
        started_s: First frame, seconds since the Unix epoch.
        ended_s: Last frame.
        vector: (D,) centred by modality, unit norm.
    """

    tracklet_id: str
    camera: str
    modality: Modality
    started_s: float
    ended_s: float
    vector: NDArray[np.float32]

    @classmethod
    def of(cls, end: Sighting, calibration: Calibration) -> EndedTracklet:
        """From the sighting that ends it, which brings a vector."""
        (embedding,) = end.embeddings
        vector = calibration.centred(embedding.modality, embedding.vector)
        began_s, ended_s = end.started_at.timestamp(), end.occurred_at.timestamp()
        return cls(end.tracklet_id, end.camera, embedding.modality, began_s, ended_s, vector)

    def overlaps(self, other: EndedTracklet) -> bool:
        """Whether one camera saw both at one time: then they are two vehicles."""
        in_time = self.started_s <= other.ended_s and other.started_s <= self.ended_s
        return self.camera == other.camera and in_time


def join_nearest(tracklets: Sequence[EndedTracklet], setting: Setting) -> dict[str, str]:
    """On-line: each joins the identity whose mean it resembles most, if by so much; else it is somebody new.

    Args:
        tracklets: In any order; they are taken as they end.
        setting: Its threshold, a cosine similarity, alone counts.

    Returns:
        By tracklet id the first tracklet's id of its identity.
    """
    sums = np.zeros((len(tracklets), len(tracklets[0].vector)), np.float32)
    norms = np.ones(len(tracklets), np.float32)
    members: list[list[EndedTracklet]] = []
    for tracklet in sorted(tracklets, key=lambda one: (one.ended_s, one.tracklet_id)):
        similarity = sums[: len(members)] @ tracklet.vector / norms[: len(members)]
        near = np.flatnonzero(similarity >= setting.threshold)
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


def join_nearest_calibrated(tracklets: Sequence[EndedTracklet], calibration: Calibration) -> Join:
    """On-line: each joins whom it resembles most among those seen lately, by the mean evidence of their tracklets.

    Args:
        tracklets: In any order, `MAX_CLUSTERED` at most; they are taken as they end.
        calibration: What a similarity says, by pair of bands.

    Returns:
        A function from a setting in nats and seconds to identities by tracklet id.
    """
    arrived = sorted(tracklets, key=lambda one: (one.ended_s, one.tracklet_id))
    evidence = _evidence(arrived, calibration)

    def join(setting: Setting) -> dict[str, str]:
        identity_of = np.zeros(len(arrived), np.int64)
        sizes, last_seen_s = np.zeros(len(arrived)), np.full(len(arrived), -np.inf)
        known = 0
        for row, tracklet in enumerate(arrived):
            summed = np.bincount(identity_of[:row], weights=evidence[row, :row], minlength=known)
            is_late = last_seen_s[:known] >= tracklet.started_s - setting.max_gap_s
            mean = np.where(is_late, summed[:known] / sizes[:known], -np.inf)
            chosen = int(mean.argmax()) if known else 0
            if not known or mean[chosen] < setting.threshold:
                chosen, known = known, known + 1
            identity_of[row] = chosen
            sizes[chosen] += 1
            last_seen_s[chosen] = tracklet.ended_s
        return {one.tracklet_id: str(identity) for one, identity in zip(arrived, identity_of.tolist(), strict=True)}

    return join


def join_clustered(tracklets: Sequence[EndedTracklet]) -> Join:
    """In hindsight: average linkage over all of them, two that one camera saw at one time kept apart.

    Args:
        tracklets: All that there ever were, `MAX_CLUSTERED` at most.

    Returns:
        A function from a setting, whose threshold is a cosine similarity, to identities by tracklet id.

    Raises:
        ValueError: Too many for the matrix of their similarities.
    """
    return _clustered(tracklets, _cosines(tracklets), most=1.0)


def join_clustered_calibrated(tracklets: Sequence[EndedTracklet], calibration: Calibration) -> Join:
    """In hindsight, by calibrated evidence; a group is cut in two wherever nothing was seen of it for too long.

    Args:
        tracklets: All that there ever were, `MAX_CLUSTERED` at most.
        calibration: What a similarity says, by pair of bands.

    Returns:
        A function from a setting in nats and seconds to identities by tracklet id.
    """
    return _clustered(tracklets, _evidence(tracklets, calibration), most=MAX_EVIDENCE)


def _clustered(tracklets: Sequence[EndedTracklet], similarity: NDArray[np.float32], *, most: float) -> Join:
    tree = linkage(most - similarity[np.triu_indices(len(tracklets), 1)], method="average")

    def cut(setting: Setting) -> dict[str, str]:
        labels = fcluster(tree, most - setting.threshold, criterion="distance")
        return _cut_at_gaps(tracklets, labels, setting.max_gap_s)

    return cut


def _cut_at_gaps(tracklets: Sequence[EndedTracklet], labels: NDArray[np.int32], max_gap_s: float) -> dict[str, str]:
    parts: dict[int, int] = {}
    last_seen_s: dict[int, float] = {}
    said = {}
    for label, tracklet in sorted(zip(labels.tolist(), tracklets, strict=True), key=lambda one: one[1].started_s):
        is_apart = tracklet.started_s - last_seen_s.get(label, tracklet.started_s) > max_gap_s
        parts[label] = parts.get(label, 0) + is_apart
        last_seen_s[label] = max(last_seen_s.get(label, -np.inf), tracklet.ended_s)
        said[tracklet.tracklet_id] = f"{label}/{parts[label]}"
    return said


def _evidence(tracklets: Sequence[EndedTracklet], calibration: Calibration) -> NDArray[np.float32]:
    """(N, N) log-likelihood ratios in nats, `-_NEVER` where one camera saw both at one time."""
    evidence = _cosines(tracklets)
    modalities = np.array([tracklet.modality.value for tracklet in tracklets])
    for first, second in product(np.unique(modalities), repeat=2):
        block = np.ix_(modalities == first, modalities == second)
        together = evidence[block] == -_NEVER
        fit = calibration.of(Modality(first), Modality(second))
        evidence[block] = np.where(together, -_NEVER, fit.llrs(evidence[block]))
    return evidence


def _cosines(tracklets: Sequence[EndedTracklet]) -> NDArray[np.float32]:
    """(N, N), `-_NEVER` where one camera saw both at one time."""
    if len(tracklets) > MAX_CLUSTERED:
        raise ValueError(f"{len(tracklets)} tracklets, at most {MAX_CLUSTERED} can be compared at once")
    vectors = np.stack([tracklet.vector for tracklet in tracklets])
    cosines: NDArray[np.float32] = vectors @ vectors.T
    start, end = (np.array([getattr(one, name) for one in tracklets]) for name in ("started_s", "ended_s"))
    cameras = np.array([tracklet.camera for tracklet in tracklets])
    for camera in np.unique(cameras):
        own = np.flatnonzero(cameras == camera)
        together = (start[own, np.newaxis] <= end[own]) & (start[own] <= end[own, np.newaxis])
        cosines[np.ix_(own, own)] = np.where(together, -_NEVER, cosines[np.ix_(own, own)])
    return cosines


def tune(
    join: Callable[[Setting], Mapping[str, str]],
    score: Callable[[Mapping[str, str]], float],
    settings: Iterable[Setting],
) -> Setting:
    """The setting at which identities score best."""
    return max(settings, key=lambda setting: score(join(setting)))
