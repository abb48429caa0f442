"""Vectors of another network for tracklets that are stored: their crops, looked at anew."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from reid.modality import Modality
from storage.errors import StorageError
from streamer.tracklets import AskedCrop, combine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from reid.backend import EmbedderInfo
    from storage.crop_store import CropStore
    from storage.records import EmbeddingRecord
    from storage.replay import RecordedTracklet


class Embeds(Protocol):
    """What turns crops into vectors: `reid.embedder.Embedder`."""

    @property
    def info(self) -> EmbedderInfo:
        """Of the network."""
        ...

    def embed(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        """(N, D) unit vectors of N crops, RGB."""
        ...


class NewLooks:
    """Describes stored tracklets anew, each stored crop by itself.

    A tracklet's newest vector of a band, which the matcher compares, becomes the mean of all of its stored crops, as a
    camera worker makes it; but it had crops, too, that were never stored. Tokens are left out: the matcher reads none.

    Args:
        embedder: The other network.
        crops: Where the crops lie.

    Attributes:
        missing: Crops that were not kept, or can't be read: their vectors are left out.
        described: Crops that were read.
    """

    def __init__(self, embedder: Embeds, crops: CropStore) -> None:
        self.missing = 0
        self.described = 0
        self.model_id = embedder.info.model_id
        self._embedder = embedder
        self._crops = crops

    def describe(self, tracklets: Sequence[RecordedTracklet]) -> list[RecordedTracklet]:
        """The same tracklets with vectors of this network. Blocks while it computes."""
        readable = [(record, self._read(record)) for tracklet in tracklets for record in tracklet.embeddings]
        found = [(record, image) for record, image in readable if image is not None]
        self.missing += len(readable) - len(found)
        self.described += len(found)
        modalities = [Modality(record.modality) for record, _ in found]
        vectors = self._embedder.embed([image for _, image in found], modalities)
        described: dict[str, list[EmbeddingRecord]] = defaultdict(list)
        for (record, _), vector in zip(found, vectors, strict=True):
            anew = replace(record, model_id=self.model_id, vector=vector, tokens=None)
            described[record.tracklet_id].append(anew)
        return [
            tracklet.described_anew(_summed_up(described[tracklet.stored.tracklet.tracklet_id]))
            for tracklet in tracklets
        ]

    def _read(self, record: EmbeddingRecord) -> NDArray[np.uint8] | None:
        """(h, w, 3) RGB, or None."""
        if record.crop_image is None:
            return None
        try:
            data = self._crops.load(record.crop_image)
        except StorageError:
            # Counted by the caller: one lost picture must not end a rebuild of a month.
            return None
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _summed_up(embeddings: Sequence[EmbeddingRecord]) -> list[EmbeddingRecord]:
    """A tracklet's embeddings, the newest of each band with the mean vector of all of that band."""
    newest = {embedding.modality: at for at, embedding in enumerate(embeddings)}
    found = list(embeddings)
    for modality, at in newest.items():
        # An end says its best crop again: each moment counts once.
        own = {one.captured_at: _as_asked(one) for one in embeddings if one.modality == modality}
        (mean,) = combine(list(own.values()))
        found[at] = replace(found[at], vector=mean.vector)
    return found


def _as_asked(record: EmbeddingRecord) -> AskedCrop:
    return AskedCrop(
        Modality(record.modality),
        record.quality,
        record.captured_at,
        record.box,
        b"",
        is_answered=True,
        vector=record.vector,
    )
