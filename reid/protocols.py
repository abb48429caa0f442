"""Who is asked about whom: what each protocol leaves out of a query's gallery, and tracklets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from reid.datasets import Sample
from reid.errors import DatasetError


class Protocol(StrEnum):
    """What a query's gallery leaves out.

    ALL: only the query itself. SAME_SCENE: also the same vehicle in the same scene. SAME_CAMERA: also the
    same vehicle from the same camera, or view where no camera is known. TRACKLETS: everything of the same
    camera and of other sites; what the stream's matcher faces.
    """

    ALL = "all"
    SAME_SCENE = "same_scene"
    SAME_CAMERA = "same_camera"
    TRACKLETS = "tracklets"


NEEDED = {
    Protocol.ALL: "",
    Protocol.SAME_SCENE: "a scene",
    Protocol.SAME_CAMERA: "a camera or view",
    Protocol.TRACKLETS: "a camera",
}


@dataclass(frozen=True, slots=True)
class Labels:
    """What N samples show, as numbers: equal ones mean the same. All (N,), int64 or bool.

    Attributes:
        vehicle: identity; vehicles of two sites differ.
        scene: scene.
        camera: camera.
        place: camera, or view where no camera is known.
        site: site.
        kind: class; -1 where unknown.
        picture: file name, vehicle and modality: a picture that lies among queries and gallery is one.
        asks: may be a query.
        is_asked: may be in a gallery.
        has_role: is one of the two only.
    """

    vehicle: NDArray[np.int64]
    scene: NDArray[np.int64]
    camera: NDArray[np.int64]
    place: NDArray[np.int64]
    site: NDArray[np.int64]
    kind: NDArray[np.int64]
    picture: NDArray[np.int64]
    asks: NDArray[np.bool_]
    is_asked: NDArray[np.bool_]
    has_role: NDArray[np.bool_]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Labels:
        """Number what samples show."""
        kinds = _codes(s.vehicle_class for s in samples)
        return cls(
            vehicle=_codes((s.site, s.vehicle) for s in samples),
            scene=_codes(s.scene for s in samples),
            camera=_codes(s.camera for s in samples),
            place=_codes(s.camera or s.view for s in samples),
            site=_codes(s.site for s in samples),
            kind=np.where(np.array([bool(s.vehicle_class) for s in samples], np.bool_), kinds, -1),
            picture=_codes((s.path.name, s.site, s.vehicle, s.modality) for s in samples),
            asks=np.array([s.role != "gallery" for s in samples], np.bool_),
            is_asked=np.array([s.role != "query" for s in samples], np.bool_),
            has_role=np.array([s.role != "" for s in samples], np.bool_),
        )


def _codes(values: Iterable[Hashable]) -> NDArray[np.int64]:
    """Number equal values alike."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def removed_pairs(
    labels: Labels, protocol: Protocol, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Find the pairs that are no part of a query's gallery.

    Args:
        labels: of N samples.
        protocol: what galleries leave out.
        rows: (Q,) indices of the queries.
        columns: (G,) indices of the gallery.

    Returns:
        (Q, G) bool.
    """

    def same(codes: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray(codes[rows][:, None] == codes[columns][None, :], dtype=np.bool_)

    if protocol is Protocol.TRACKLETS:
        return same(labels.camera) | ~same(labels.site)
    removed: NDArray[np.bool_] = rows[:, None] == columns[None, :]
    # Sets with roles have a query's picture among the gallery too, under another path.
    twice = same(labels.picture) & labels.has_role[rows][:, None] & labels.has_role[columns][None, :]
    removed |= twice
    if protocol is Protocol.SAME_SCENE:
        removed |= same(labels.vehicle) & same(labels.scene)
    if protocol is Protocol.SAME_CAMERA:
        removed |= same(labels.vehicle) & same(labels.place)
    return removed


def protocols_for(samples: Sequence[Sample]) -> list[Protocol]:
    """Protocols that single pictures of a data set allow."""
    return [protocol for protocol in Protocol if protocol is not Protocol.TRACKLETS and _allows(samples, protocol)]


def refuse_unless_allowed(samples: Sequence[Sample], protocol: Protocol) -> None:
    """Refuse a protocol that the data can't answer.

    Raises:
        DatasetError: a sample lacks what the protocol looks at.
    """
    lacking = next((sample for sample in samples if not _knows(sample, protocol)), None)
    if lacking is not None:
        raise DatasetError(f"{lacking.path}: protocol {protocol} needs {NEEDED[protocol]} of every picture")


def _allows(samples: Sequence[Sample], protocol: Protocol) -> bool:
    return all(_knows(sample, protocol) for sample in samples)


def _knows(sample: Sample, protocol: Protocol) -> bool:
    if protocol is Protocol.SAME_SCENE:
        return bool(sample.scene)
    if protocol is Protocol.SAME_CAMERA:
        return bool(sample.camera or sample.view)
    return protocol is Protocol.ALL or bool(sample.camera)


@dataclass(frozen=True, slots=True)
class Tracklets:
    """Vehicles as cameras saw them, each by the mean of some crops.

    Attributes:
        vectors: (T, D) float32 of unit norm.
        rows: (T,) int64, the middle one of each tracklet's crops, as an index of the samples.
    """

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]


def average_tracklets(vectors: NDArray[np.float32], samples: Sequence[Sample], crops: int) -> Tracklets:
    """Average the crops of each vehicle in each camera, as the stream does.

    Args:
        vectors: (N, D) unit norm.
        samples: what they show, with cameras.
        crops: how many crops of a tracklet to average at most, evenly over its rows.

    Raises:
        DatasetError: a sample without a camera.
    """
    refuse_unless_allowed(samples, Protocol.TRACKLETS)
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        members[sample.site, sample.camera, sample.vehicle, sample.modality, sample.role].append(index)
    chosen = [np.array(own)[_spread(len(own), crops)] for own in members.values()]
    means = np.stack([vectors[own].mean(axis=0) for own in chosen])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return Tracklets(means, np.array([own[len(own) // 2] for own in chosen], dtype=np.int64))


def _spread(total: int, count: int) -> NDArray[np.int64]:
    """Up to `count` indices spread evenly over `total`, the middle one for one."""
    count = min(count, total)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)
