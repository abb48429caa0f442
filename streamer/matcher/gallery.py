"""The vehicles that a tracklet may be: identities, where each was last seen, and what they look like.

A few prototypes per identity and modality lie in a faiss index per modality. What was linked or forgotten since the
last question is brought up to date in one go: taking one vector out of an index costs as much as taking out a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import faiss
import numpy as np

from streamer.matcher.broken import mark_breaks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from reid.calibration import Calibration
    from reid.modality import Modality
    from streamer.matcher.tracklet import Tracklet

# Searches are many and small: threads would wait for each other longer than they work.
faiss.omp_set_num_threads(1)

#: Looks kept of an identity, per modality.
PROTOTYPES = 3
#: Two looks closer than this (cosine) are one.
_ALIKE = 0.95


@dataclass(slots=True)
class Identity:
    """One vehicle as far as it is known.

    Attributes:
        slot: Its place in the gallery, free again once it is forgotten.
        vehicle_id: Its id in the database.
        members: Its tracklets, in the order in which they were last seen.
    """

    slot: int
    vehicle_id: str
    members: list[Tracklet] = field(default_factory=list)


class Gallery:
    """Identities of one region and one embedder. Not thread-safe.

    Args:
        calibration: Says what all vehicles of a modality share, which is taken out before looks are compared.

    Attributes:
        forgotten_before: All tracklets last seen before this moment have been dropped, seconds since the epoch.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.forgotten_before = -np.inf
        self._calibration = calibration
        self._by_vehicle: dict[str, Identity] = {}
        self._slots: list[Identity | None] = []
        self._free: list[int] = []
        self._indexes: dict[Modality, faiss.IndexIDMap2] = {}
        self._changed: set[int] = set()
        self._cameras: dict[str, int] = {}
        self._last_camera = np.zeros(0, np.int32)
        self._last_seen = np.zeros(0)

    def __len__(self) -> int:
        return len(self._by_vehicle)

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._by_vehicle.values())

    @property
    def cameras(self) -> list[str]:
        """Those that have seen anybody."""
        return list(self._cameras)

    def find(self, vehicle_id: str) -> Identity | None:
        """The identity of that vehicle, or None."""
        return self._by_vehicle.get(vehicle_id)

    def link(self, vehicle_id: str, tracklet: Tracklet) -> None:
        """Makes the tracklet a member of that vehicle, known or new."""
        identity = self._by_vehicle.get(vehicle_id) or self._add(vehicle_id)
        identity.members.append(tracklet)
        identity.members.sort(key=lambda member: (member.ended_at, member.tracklet_id))
        mark_breaks(identity.members)
        self._touch(identity)

    def unlink(self, vehicle_id: str, tracklet: Tracklet) -> None:
        """Takes a member out; a vehicle without members is gone."""
        identity = self._by_vehicle[vehicle_id]
        identity.members.remove(tracklet)
        tracklet.breaks_off = tracklet.goes_on = False
        mark_breaks(identity.members)
        self._touch(identity)

    def forget(self, seen_before: float, *, most: int) -> list[Tracklet]:
        """Drops what is too old, and the identities longest unseen if there are too many.

        Args:
            seen_before: Tracklets last seen before this moment are dropped, in seconds since the epoch; identities
                left with none are gone.
            most: How many identities may stay.

        Returns:
            The tracklets that were dropped.
        """
        if len(self) > most:
            seen_before = max(seen_before, float(np.sort(self._last_seen)[-most]))
        self.forgotten_before = max(self.forgotten_before, seen_before)
        stale = np.flatnonzero(self._oldest() < seen_before)
        gone: list[Tracklet] = []
        for slot in stale:
            identity = self._at(int(slot))
            gone += [member for member in identity.members if member.ended_at < seen_before]
            identity.members = [member for member in identity.members if member.ended_at >= seen_before]
            mark_breaks(identity.members)
            self._touch(identity)
        return gone

    def nearest(
        self, tracklets: Sequence[Tracklet], reach_s: Mapping[str, float], *, since: float, count: int
    ) -> list[list[Identity]]:
        """For each tracklet the identities that look most like it, of those that can be there by now.

        Args:
            tracklets: Of one camera.
            reach_s: By camera, how long ago an identity may have been last seen there.
            since: The moment that this counts from, seconds since the epoch.
            count: How many are wanted, per pair of modalities.

        Returns:
            Identities in the order of their slots.
        """
        return self._most_alike(tracklets, self._is_in_reach(reach_s, since), count)

    def nearest_beyond(
        self, tracklets: Sequence[Tracklet], reach_s: Mapping[str, float], *, since: float, count: int
    ) -> list[list[Identity]]:
        """The same, of those that were last seen too long ago to be on their way."""
        is_beyond = ~self._is_in_reach(reach_s, since) & np.isfinite(self._last_seen)
        return self._most_alike(tracklets, is_beyond, count)

    def _is_in_reach(self, reach_s: Mapping[str, float], since: float) -> NDArray[np.bool_]:
        """(slots,) whether an identity can be at a camera by then; an empty slot never is."""
        if not self._cameras:
            return np.zeros(len(self._last_seen), bool)
        reach = np.array([reach_s.get(camera, -np.inf) for camera in self._cameras])
        # An empty slot was last seen at minus infinity.
        return np.asarray(self._last_seen >= since - reach[self._last_camera])

    def _most_alike(
        self, tracklets: Sequence[Tracklet], is_possible: NDArray[np.bool_], count: int
    ) -> list[list[Identity]]:
        if np.count_nonzero(is_possible) <= count:
            return [[self._at(slot) for slot in np.flatnonzero(is_possible).tolist()]] * len(tracklets)
        self._refresh()
        found: list[set[int]] = [set() for _ in tracklets]
        bitmap = np.packbits(is_possible, bitorder="little")
        selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))  # type: ignore[call-arg, arg-type]
        for modality in sorted({modality for tracklet in tracklets for modality in tracklet.vectors}):
            rows = [row for row, tracklet in enumerate(tracklets) if modality in tracklet.vectors]
            vectors = np.stack([self._look(tracklets[row], modality) for row in rows])
            for index in self._indexes.values():
                # An identity may be there several times over.
                _, slots = index.search(vectors, count * PROTOTYPES, params=selected)
                for row, near in zip(rows, slots.tolist(), strict=True):
                    found[row].update(list(dict.fromkeys(slot for slot in near if slot >= 0))[:count])
        return [[self._at(slot) for slot in sorted(slots)] for slots in found]

    def _look(self, tracklet: Tracklet, modality: Modality) -> NDArray[np.float32]:
        # Not what `Centring` makes of it: that changes, and would make all prototypes stale.
        return self._calibration.centred(modality, tracklet.vectors[modality])

    def _at(self, slot: int) -> Identity:
        identity = self._slots[slot]
        assert identity is not None  # noqa: S101 - an empty slot is in no answer
        return identity

    def _oldest(self) -> NDArray[np.float64]:
        return np.array([np.inf if one is None else one.members[0].ended_at for one in self._slots])

    def _add(self, vehicle_id: str) -> Identity:
        if not self._free:
            size = max(64, 2 * len(self._slots))
            self._free = list(range(size - 1, len(self._slots) - 1, -1))
            self._slots += [None] * (size - len(self._slots))
            grown = size - len(self._last_seen)
            self._last_camera = np.append(self._last_camera, np.zeros(grown, np.int32))
            self._last_seen = np.append(self._last_seen, np.full(grown, -np.inf))
        identity = Identity(self._free.pop(), vehicle_id)
        self._slots[identity.slot] = self._by_vehicle[vehicle_id] = identity
        return identity

    def _touch(self, identity: Identity) -> None:
        slot = identity.slot
        self._changed.add(slot)
        if identity.members:
            last = identity.members[-1]
            self._last_camera[slot] = self._cameras.setdefault(last.camera, len(self._cameras))
            self._last_seen[slot] = last.ended_at
        else:
            self._last_seen[slot] = -np.inf
            self._slots[slot] = None
            self._free.append(slot)
            del self._by_vehicle[identity.vehicle_id]

    def _refresh(self) -> None:
        if not self._changed:
            return
        changed = np.array(sorted(self._changed), np.int64)
        self._changed.clear()
        for index in self._indexes.values():
            index.remove_ids(faiss.IDSelectorBatch(changed))
        looks: dict[Modality, list[tuple[int, NDArray[np.float32]]]] = {}
        for slot in changed:
            identity = self._slots[slot]
            if identity is not None:
                for modality, chosen in self._prototypes(identity.members).items():
                    looks.setdefault(modality, []).extend((int(slot), vector) for vector in chosen)
        for modality, found in sorted(looks.items()):
            vectors = np.stack([vector for _, vector in found])
            if modality not in self._indexes:
                self._indexes[modality] = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
            self._indexes[modality].add_with_ids(vectors, np.array([slot for slot, _ in found], np.int64))

    def _prototypes(self, members: Sequence[Tracklet]) -> dict[Modality, list[NDArray[np.float32]]]:
        """Per modality the newest look, and those that differ most from the ones taken."""
        looks: dict[Modality, list[NDArray[np.float32]]] = {}
        for member in reversed(members):
            for modality in member.vectors:
                looks.setdefault(modality, []).append(self._look(member, modality))
        return {modality: _most_different(vectors) for modality, vectors in looks.items()}


def _most_different(vectors: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    chosen = vectors[:1]
    rest = vectors[1:]
    while rest and len(chosen) < PROTOTYPES:
        closest = (np.stack(rest) @ np.stack(chosen).T).max(axis=1)
        far = int(closest.argmin())
        if closest[far] > _ALIKE:
            break
        chosen.append(rest.pop(far))
    return chosen
