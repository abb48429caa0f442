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

    An epoch draws each identity `repeats` times. All identities of a batch are different; the last few that
    don't fill a batch are left out of that epoch. A modality an identity lacks is simply absent.

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
        self._repeats = {label: repeats[label] if repeats else 1 for label in self._members}

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self._groups(0))

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

        Those with most draws left go first in each group (random among equals), which keeps identities
        apart for as long as there are P different ones.
        """
        generator = np.random.default_rng((self._seed, number, 0))
        left = dict(self._repeats)
        groups = []
        while len(left) >= self._vehicles:
            labels = np.array(sorted(left))
            # Efraimidis and Spirakis 2006: keys u^(1/w) draw without replacement, in proportion to w.
            keys = generator.random(len(labels)) ** (1.0 / np.array([left[label] for label in labels.tolist()]))
            group: list[int] = labels[np.argsort(-keys)[: self._vehicles]].tolist()
            for label in group:
                left[label] -= 1
                if not left[label]:
                    del left[label]
            groups.append(group)
        return groups

    def _draw(self, identity: int, generator: np.random.Generator) -> dict[Modality, list[int]]:
        members = self._members[identity]
        if self._paired:
            views = sorted({self._views[i] for indices in members.values() for i in indices})
            order = {view: rank for rank, view in enumerate(generator.permutation(views).tolist())}
            ranked = {m: sorted(indices, key=lambda i: order[self._views[i]]) for m, indices in members.items()}
            return {modality: indices[: self._count] for modality, indices in ranked.items()}
        return {m: generator.permutation(indices)[: self._count].tolist() for m, indices in members.items()}


class PairSampler:
    """Pairs of a visible and an infrared picture of one vehicle, in plain random order (PORSCHE's batches).

    An epoch holds each visible picture once with each infrared modality its vehicle has, and each picture
    that no visible one can be paired with once, alone. The last few that don't fill a batch are left out.

    Args:
        identities: (N,) integer labels.
        modalities: N bands.
        views: N view labels, empty where unknown.
        batch: pairs per batch, and pairing: `same_view` takes the partner of the same view where there is one.
        seed: an epoch's batches depend on it and on the epoch's number alone.
    """

    def __init__(
        self,
        identities: NDArray[np.int64],
        modalities: Sequence[Modality],
        views: Sequence[str],
        batch: BatchConfig,
        *,
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
        self._shots = [shot for index in range(len(modalities)) for shot in self._shots_of(index)]

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
