"""The vehicles that a tracklet may be: identities and their prototypes, in a faiss index per modality."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import faiss
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from reid.modality import Modality
    from streamer.matcher.tracklet import Tracklet


@dataclass(slots=True)
class Identity:
    """One vehicle as far as it is known.

    Attributes:
        key: Its number in this gallery.
        vehicle_id: Its id in the database.
        members: Its tracklets, in the order in which they were linked.
        prototypes: Per modality the mean direction of the members' vectors, (D,) float32, unit norm.
        class_votes: Mean of the members' votes.
    """

    key: int
    vehicle_id: str
    members: list[Tracklet] = field(default_factory=list)
    prototypes: dict[Modality, NDArray[np.float32]] = field(default_factory=dict)
    class_votes: dict[str, float] = field(default_factory=dict)


class Gallery:
    """Identities of one region and one embedder. Not thread-safe."""

    def __init__(self) -> None:
        self._identities: dict[int, Identity] = {}
        self._indexes: dict[Modality, faiss.IndexIDMap2] = {}
        self._next_key = 0

    def __len__(self) -> int:
        return len(self._identities)

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._identities.values())

    def add(self, vehicle_id: str) -> Identity:
        """A new identity without members."""
        identity = Identity(self._next_key, vehicle_id)
        self._identities[identity.key] = identity
        self._next_key += 1
        return identity

    def link(self, identity: Identity, tracklet: Tracklet) -> None:
        """Makes the tracklet a member and renews what the identity looks like."""
        identity.members.append(tracklet)
        self._renew(identity)

    def nearest(
        self, vectors: Mapping[Modality, NDArray[np.float32]], among: Iterable[Identity], count: int
    ) -> list[Identity]:
        """The identities that look most alike, over all pairs of modalities.

        Args:
            vectors: What is looked for, by modality.
            among: The identities that are possible at all.
            count: How many are wanted per pair of modalities.

        Returns:
            Identities of `among`, each once, in the order of their keys. Those without a prototype are always there.
        """
        possible = {identity.key: identity for identity in among}
        keep = {key for key, identity in possible.items() if not identity.prototypes}
        if not vectors or len(possible) <= count:
            return list(possible.values())
        selector = faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.fromiter(possible, np.int64)))  # type: ignore[call-arg]
        for vector in vectors.values():
            for index in self._indexes.values():
                _, keys = index.search(vector[np.newaxis], count, params=selector)
                keep.update(int(key) for key in keys[0] if key >= 0)
        return [possible[key] for key in sorted(keep)]

    def forget(self, seen_before: float) -> list[str]:
        """Drops tracklets last seen before that moment (seconds since the epoch), and identities left with none.

        Returns:
            The vehicle ids of the identities that are gone.
        """
        gone = []
        for identity in [one for one in self if any(member.ended_at < seen_before for member in one.members)]:
            identity.members = [member for member in identity.members if member.ended_at >= seen_before]
            self._renew(identity)
            if not identity.members:
                gone.append(identity.vehicle_id)
                del self._identities[identity.key]
        return gone

    def _renew(self, identity: Identity) -> None:
        # Sorted, so that the sums come out the same to the last bit in whatever order the members came.
        members = sorted(identity.members, key=lambda member: (member.ended_at, member.tracklet_id))
        identity.class_votes = _mean_votes(members)
        self._unindex(identity)
        for modality in sorted({modality for member in members for modality in member.vectors}):
            vectors = [member.vectors[modality] for member in members if modality in member.vectors]
            self._index(identity, modality, _mean_direction(vectors))

    def _unindex(self, identity: Identity) -> None:
        for modality in identity.prototypes:
            self._indexes[modality].remove_ids(faiss.IDSelectorBatch(np.array([identity.key], np.int64)))
        identity.prototypes = {}

    def _index(self, identity: Identity, modality: Modality, prototype: NDArray[np.float32]) -> None:
        if modality not in self._indexes:
            self._indexes[modality] = faiss.IndexIDMap2(faiss.IndexFlatIP(len(prototype)))
        self._indexes[modality].add_with_ids(prototype[np.newaxis], np.array([identity.key], np.int64))
        identity.prototypes[modality] = prototype


def _mean_direction(vectors: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    mean = np.mean(vectors, axis=0)
    norm = float(np.linalg.norm(mean))
    # Opposite vectors cancel out; the first is then as good a picture of the vehicle as any.
    return (mean / norm).astype(np.float32) if norm > 0 else vectors[0]


def _mean_votes(members: list[Tracklet]) -> dict[str, float]:
    names = {name for member in members for name in member.class_votes}
    return {name: sum(member.class_votes.get(name, 0.0) for member in members) / len(members) for name in sorted(names)}
