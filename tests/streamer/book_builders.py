"""Vehicles that drive through a made-up camera, and an embedder that answers when the test wants it to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from detector.detections import TrackedVehicle, VehicleClass
from reid.modality import Modality
from streamer.config import CropsConfig
from streamer.sightings import EndReason, Sighting
from streamer.tracklet_book import BookRules, Question, TrackletBook
from streamer.tracklets import Moment, SessionKey

FPS = 10
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEY = SessionKey("site", "main", "cam1", "session")
Box = tuple[float, float, float, float]


def rules(**changes: object) -> BookRules:
    values: dict[str, object] = {"crops": CropsConfig(), "max_seconds_lost": 1.0}
    return BookRules(**values | changes)  # type: ignore[arg-type]


def at(frame: int) -> datetime:
    return START + timedelta(seconds=frame / FPS)


@lru_cache(maxsize=64)
def texture(seed: int = 0, height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def vector_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the fake embedder makes of a crop: a function of its pixels alone."""
    blocks = np.array_split(image.astype(np.float64).ravel(), 8)
    values = np.array([block.mean() - 100 for block in blocks])
    return np.asarray(values / np.linalg.norm(values), np.float32)


def tokens_of(image: NDArray[np.uint8]) -> bytes:
    """What the fake embedder makes of a crop's points."""
    return image[:, 0].tobytes()


@dataclass
class Drive:
    """One vehicle: visible in some frames, its box a function of the frame."""

    number: int
    box: Callable[[int], Box]
    frames: Sequence[int]
    vehicle_class: VehicleClass = VehicleClass.CAR

    def seen(self, frame: int) -> TrackedVehicle:
        return TrackedVehicle(self.number, np.array(self.box(frame), np.float32), 0.9, self.vehicle_class)


def standing(x: float = 100, y: float = 80, size: float = 60) -> Callable[[int], Box]:
    return lambda _: (x, y, x + size, y + size)


def approaching(x: float = 20, y: float = 20) -> Callable[[int], Box]:
    return lambda frame: (x + 2 * frame, y + frame, x + 2 * frame + 30 + 2 * frame, y + frame + 30 + 2 * frame)


@dataclass
class Run:
    """What a book said, and what was asked of the embedder."""

    book: TrackletBook
    sightings: list[Sighting] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    asked_at: list[int] = field(default_factory=list)
    watermarks: list[datetime] = field(default_factory=list)
    #: How many sightings had been published when each watermark was read.
    published: list[int] = field(default_factory=list)

    def of(self, number: int) -> list[Sighting]:
        return [sighting for sighting in self.sightings if sighting.number == number]


def drive(
    drives: Sequence[Drive],
    frames: int,
    *,
    delay: Callable[[Question], int] = lambda _: 0,
    book_rules: BookRules | None = None,
    drops: bool = False,
    skipped: Sequence[int] = (),
) -> Run:
    """Drives vehicles through a book; each crop is answered `delay` frames after it was asked for."""
    run = Run(TrackletBook(KEY, book_rules or rules(), "model"))
    due: list[tuple[int, Question]] = []
    for frame in range(frames):
        moment = Moment(frame, at(frame), Modality.VISIBLE)
        if frame in skipped:
            run.book.skip(moment)
        else:
            seen = [item.seen(frame) for item in drives if frame in item.frames]
            run.book.observe(moment, texture(frame % 16), seen)
        _ask(run, due, frame, delay)
        due = _answer(run, due, frame, drops=drops)
    run.book.finish(EndReason.SOURCE_ENDED)
    _ask(run, due, frames, delay)
    _answer(run, due, 10**9, drops=drops)
    return run


def _ask(run: Run, due: list[tuple[int, Question]], frame: int, delay: Callable[[Question], int]) -> None:
    for question in run.book.take_questions():
        run.questions.append(question)
        run.asked_at.append(frame)
        due.append((frame + delay(question), question))


def _answer(run: Run, due: list[tuple[int, Question]], now: int, *, drops: bool) -> list[tuple[int, Question]]:
    # The last asked is answered first, as after a reconnect.
    for when, question in reversed(due):
        if when <= now:
            tokens = tokens_of(question.image) if question.is_best else None
            run.book.answer(question.id, *((None, None) if drops else (vector_of(question.image), tokens)))
    run.sightings += run.book.take_sightings()
    if run.book.watermark is not None:
        run.watermarks.append(run.book.watermark)
        run.published.append(len(run.sightings))
    return [(when, question) for when, question in due if when > now]
