"""Which pictures meet in a batch: P vehicles with up to K pictures in each modality, or pairs of shots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reid.config import BatchConfig
from reid.modality import Modality

Indices = dict[Modality, list[int]]
Shot = tuple[int, Modality | None]


class BatchSampler(Protocol):
    """What a trainer asks of a sampler: batches that depend on the seed and the epoch's number alone."""

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Indices]:
        """Yield an epoch's batches: per modality the indices of its pictures."""
        ...


class IdentitySampler:
    """PxK sampling over identities, mixing the modalities.

    An epoch draws each identity `repeats` times. All identities of a batch are different, and every epoch has
    as many batches as that allows; the few draws that don't fill another one are left out of that epoch. A
    modality an identity lacks is simply absent.

    Args:
        identities: (N,) integer labels.
        modalities: N bands.
        views: N view labels, empty where unknown.
        batch: P, K and pairing; an identity with fewer than K pictures gives those it has, and `same_view`
            takes the same views in every modality where they exist.
        repeats: draws per epoch of each identity, indexed by label; 1 each when empty.
        seed: an epoch's batches depend on it and on the epoch's number alone.
    """

    def __init__(
        self,
        identities: NDArray[np.int64],
        modalities: Sequence[Modality],
        views: Sequence[str],
        batch: BatchConfig,
        *,
        repeats: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self._views = views
        self._vehicles = batch.vehicles
        self._count = batch.images_per_modality
        self._paired = batch.pairing == "same_view"
        self._seed = seed
        self._members: dict[int, dict[Modality, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, (identity, modality) in enumerate(zip(identities.tolist(), modalities, strict=True)):
            self._members[identity][modality].append(index)
        self._labels = np.array(sorted(self._members))
        self._repeats = np.array([repeats[label] if repeats else 1 for label in self._labels.tolist()])
        self._batches = most_groups(self._repeats, self._vehicles)

    def __len__(self) -> int:
        """Batches of an epoch, the same in each: processes that share an epoch wait for one another."""
        return self._batches

    def epoch(self, number: int) -> Iterator[Indices]:
        """Yield an epoch's batches: per modality the indices of its pictures, vehicle by vehicle."""
        generator = np.random.default_rng((self._seed, number, 1))
        for group in self._groups(number):
            batch: Indices = {modality: [] for modality in Modality}
            for identity in group:
                for modality, chosen in self._draw(identity, generator).items():
                    batch[modality] += chosen
            yield {modality: indices for modality, indices in batch.items() if indices}

    def _groups(self, number: int) -> list[list[int]]:
        """Split an epoch's draws into groups of P different identities.

        Identities with many draws left are likelier to be taken (Efraimidis and Spirakis 2006: keys u^(1/w) draw
        without replacement, in proportion to w), so that sources mix all epoch long. Those with a draw left for
        every group to come have to be taken, or the last groups would lack different ones.
        """
        generator = np.random.default_rng((self._seed, number, 0))
        left = self._kept(generator)
        groups = []
        for remaining in range(self._batches, 0, -1):
            keys = generator.random(len(left)) ** (1.0 / np.maximum(left, 1))
            keys = np.where(left == remaining, 2.0, np.where(left > 0, keys, -1.0))
            chosen = np.argsort(-keys, kind="stable")[: self._vehicles]
            left[chosen] -= 1
            groups.append(self._labels[generator.permutation(chosen)].tolist())
        return groups

    def _kept(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draws of each label in an epoch: as many as its batches have room for, the surplus dropped at random."""
        left: NDArray[np.int64] = np.minimum(self._repeats, self._batches)
        draws = np.repeat(np.arange(len(left)), left)
        dropped = generator.permutation(draws)[self._batches * self._vehicles :]
        np.subtract.at(left, dropped, 1)
        return left

    def _draw(self, identity: int, generator: np.random.Generator) -> dict[Modality, list[int]]:
        members = self._members[identity]
        if self._paired:
            views = sorted({self._views[i] for indices in members.values() for i in indices})
            order = {view: rank for rank, view in enumerate(generator.permutation(views).tolist())}
            # Shuffled before it is sorted: pictures that share a view, or have none, take turns.
            mixed = {m: generator.permutation(indices).tolist() for m, indices in members.items()}
            ranked = {m: sorted(indices, key=lambda i: order[self._views[i]]) for m, indices in mixed.items()}
            return {modality: indices[: self._count] for modality, indices in ranked.items()}
        return {m: generator.permutation(indices)[: self._count].tolist() for m, indices in members.items()}


def most_groups(draws: NDArray[np.int64], size: int) -> int:
    """How many groups of `size` different labels can be made.

    It is the largest G with sum(min(draws, G)) >= size * G: no group takes a label twice, so that G groups use no
    more than G draws of one (Gale and Ryser 1957: then they can also be made).

    Args:
        draws: how often each label may be drawn.
        size: labels of a group.
    """
    most = int(draws.sum()) // size
    return next((count for count in range(most, 0, -1) if np.minimum(draws, count).sum() >= size * count), 0)


class PairSampler:
    """Pairs of a visible and an infrared picture of one vehicle, in plain random order (PORSCHE's batches).

    An epoch holds each visible picture once with each infrared modality its vehicle has, and each picture
    that no visible one can be paired with once, alone; `repeats` times each. The last few that don't fill a
    batch are left out.

    Args:
        identities: (N,) integer labels.
        modalities: N bands.
        views: N view labels, empty where unknown.
        batch: pairs per batch, and pairing: `same_view` takes the partner of the same view where there is one.
        repeats: how often an epoch holds the pairs of each identity, indexed by label; 1 each when empty.
        seed: an epoch's batches depend on it and on the epoch's number alone.
    """

    def __init__(
        self,
        identities: NDArray[np.int64],
        modalities: Sequence[Modality],
        views: Sequence[str],
        batch: BatchConfig,
        *,
        repeats: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        self._identities = identities.tolist()
        self._modalities = modalities
        self._views = views
        self._size = batch.pairs
        self._paired = batch.pairing == "same_view"
        self._seed = seed
        self._members: dict[tuple[int, Modality], list[int]] = defaultdict(list)
        for index, key in enumerate(zip(self._identities, modalities, strict=True)):
            self._members[key].append(index)
        draws = [repeats[label] if repeats else 1 for label in self._identities]
        self._shots = [shot for index, times in enumerate(draws) for shot in self._shots_of(index) * times]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._shots) // self._size

    def epoch(self, number: int) -> Iterator[Indices]:
        """Yield an epoch's batches: per modality the indices of its pictures, none of them twice."""
        generator = np.random.default_rng((self._seed, number, 3))
        order = generator.permutation(len(self._shots))
        for start in range(0, len(self) * self._size, self._size):
            batch: dict[Modality, dict[int, None]] = {modality: {} for modality in Modality}
            for shot in order[start : start + self._size].tolist():
                for index in self._pictures(self._shots[shot], generator):
                    batch[self._modalities[index]][index] = None
            yield {modality: list(indices) for modality, indices in batch.items() if indices}

    def _shots_of(self, index: int) -> list[Shot]:
        """The pairs a visible picture makes; a picture without any partner by itself."""
        identity, modality = self._identities[index], self._modalities[index]
        infrared = [m for m in Modality if m is not Modality.VISIBLE and (identity, m) in self._members]
        if modality is Modality.VISIBLE:
            return [(index, other) for other in infrared] or [(index, None)]
        return [] if (identity, Modality.VISIBLE) in self._members else [(index, None)]

    def _pictures(self, shot: Shot, generator: np.random.Generator) -> list[int]:
        index, other = shot
        if other is None:
            return [index]
        partners = self._members[self._identities[index], other]
        same_view = [i for i in partners if self._views[i] and self._views[i] == self._views[index]]
        choices = same_view if self._paired and same_view else partners
        return [index, choices[int(generator.integers(len(choices)))]]
