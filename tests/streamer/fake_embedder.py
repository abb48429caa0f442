"""An embedder without a network, and a process that serves it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reid.embedder import Descriptions, EmbedderError, EmbedderInfo
from reid.modality import Modality
from streamer.counters import Board, Order
from streamer.embedding_worker import EmbeddingServer

INFO = EmbedderInfo("fake-1", 4, 8, 16, points=(2, 3, 4))
#: A crop of this colour can't be embedded.
POISON = 13


def crop_of(colour: int) -> NDArray[np.uint8]:
    return np.full((INFO.crop_height, INFO.crop_width, 3), colour, np.uint8)


def vector_for(colour: int, modality: Modality) -> NDArray[np.float32]:
    vector = np.array([colour + 1, len(modality), 1, 2], np.float32)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def points_for(colour: int) -> NDArray[np.float32]:
    """(L, P, C), whole numbers up to 127: int8 keeps them as they are."""
    points = np.arange(24, dtype=np.float32).reshape(2, 3, 4) + colour % 100
    points[:, 0, 0] = 127
    return points


class FakeEmbedder:
    """Makes vectors and points of colours.

    `gate` holds it up until it is set; `batches` says how many crops came together, `described` how many of the
    batches were made with points.
    """

    def __init__(self, info: EmbedderInfo = INFO) -> None:
        self.info = info
        self.batches: list[int] = []
        self.described = 0
        self.gate = threading.Event()
        self.gate.set()
        self.is_busy = threading.Event()

    def embed(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        self.is_busy.set()
        assert self.gate.wait(30)
        if any(crop[0, 0, 0] == POISON for crop in crops):
            raise EmbedderError("a crop that nobody can embed")
        self.batches.append(len(crops))
        return np.stack([vector_for(int(c[0, 0, 0]), m) for c, m in zip(crops, modalities, strict=True)])

    def describe(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> Descriptions:
        vectors = self.embed(crops, modalities)
        self.described += 1
        return Descriptions(vectors, np.stack([points_for(int(crop[0, 0, 0])) for crop in crops]))


def serve(address: str, board: Board) -> None:
    """The body of an embedding worker's process."""
    server = EmbeddingServer(address, FakeEmbedder(), batch_size=4, max_wait_s=0.01, row=board.stage("embedder"))
    server.run(lambda: board.order >= Order.STOP_ALL)
