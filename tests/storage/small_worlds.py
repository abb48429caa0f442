"""Small databases of any shape, for laws that hold of all of them, and what can be seen of one by whom."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import strategies as st

from storage.models import LONG_S
from storage.writer import Writer
from tests.storage.storage_builders import START, after, assignment, embedding, path, tracklet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from numpy.typing import NDArray
    from sqlalchemy.orm import Session

    from storage.database import Database

Window = tuple[int | None, int | None]

CAMERAS = ("gate", "bridge", "yard")
BANDS = ("thermal", "visible")
VEHICLES = ("va", "vb")
#: Half of what counts as long.
UNIT_S = LONG_S // 2


@dataclass(frozen=True)
class Stay:
    """A tracklet; times in seconds since `START`.

    `was` was decided before `vehicle` and counts no more; `link` is the camera of the tracklet that it was compared
    with; without a `band` there is no look.
    """

    number: int
    camera: str
    vehicle: str | None
    was: str | None
    began: int
    lasted: int
    is_open: bool
    vehicle_class: str
    band: str | None
    link: str | None

    @property
    def ended(self) -> int:
        return self.began + self.lasted

    @property
    def name(self) -> str:
        return f"{self.camera}/s1/{self.number}"

    @property
    def image(self) -> str:
        return f"{self.number}.jpg"

    @property
    def place(self) -> tuple[int, str]:
        return self.began, self.name


MOMENTS = st.integers(0, 4).map(lambda number: number * UNIT_S)
STAYS = st.lists(
    st.builds(
        Stay,
        number=st.just(0),
        camera=st.sampled_from(CAMERAS),
        vehicle=st.none() | st.sampled_from(VEHICLES),
        was=st.none() | st.sampled_from(VEHICLES),
        began=MOMENTS,
        lasted=MOMENTS,
        is_open=st.booleans(),
        vehicle_class=st.sampled_from(["bus", "car"]),
        band=st.none() | st.sampled_from(BANDS),
        link=st.none() | st.sampled_from(CAMERAS),
    ).map(lambda stay: replace(stay, was=None) if stay.vehicle in (None, stay.was) else stay),
    min_size=2,
    max_size=7,
).map(lambda stays: [replace(stay, number=number) for number, stay in enumerate(stays)])
VISIBLE = st.sampled_from([None, *map(frozenset, (["gate"], ["yard"], ["gate", "bridge"], ["bridge", "yard"]))])
CLASSES = st.none() | st.just("car")


@st.composite
def _windows(draw: st.DrawFn) -> Window:
    start, end = draw(st.none() | MOMENTS), draw(st.none() | MOMENTS)
    return (start, None) if start is not None and end is not None and start >= end else (start, end)


WINDOWS = _windows()


def direction(number: int) -> NDArray[np.float32]:
    angle = math.radians(number * 11)
    return np.array([math.cos(angle), math.sin(angle)] + [0.0] * 6, np.float32)


@contextmanager
def written(memory: Database, stays: Sequence[Stay]) -> Iterator[Session]:
    """A session on a database of these alone, which goes again."""
    with memory.transaction() as session:
        _write(Writer(session), stays)
        yield session
        session.rollback()


def _write(writer: Writer, stays: Sequence[Stay]) -> None:
    for stay in stays:
        of = tracklet(
            stay.camera,
            stay.number,
            start=stay.began,
            end=stay.ended,
            vehicle_class=stay.vehicle_class,
            end_reason=None if stay.is_open else "left",
        )
        looks = []
        if stay.band is not None:
            look = embedding(of, modality=stay.band, at=stay.began, crop_image=stay.image, quality=stay.number / 10)
            looks = [replace(look, vector=direction(stay.number))]
        writer.store_sighting(of, path(of), looks)
        if stay.was is not None:
            writer.assign(assignment(of.tracklet_id, stay.was))
        if stay.vehicle is not None:
            writer.assign(replace(assignment(of.tracklet_id, stay.vehicle), **_said(stay)))


def _said(stay: Stay) -> dict[str, Any]:
    """What the decision on a stay says beside its vehicle."""
    told: dict[str, Any] = {"rule": "the best fit", "halved": True}
    if stay.link is None:
        return {"score": None, "margin": 1.5, "evidence": told | {"considered": 0, "candidates": []}}
    chosen = {"vehicle_id": stay.vehicle, "tracklet_id": f"{stay.link}/s1/90", "camera": stay.link, "similarity": 0.5}
    return {
        "score": float(stay.number),
        "margin": 1.5,
        "modality_pair": "thermal~visible",
        "transit_s": 7.5,
        "evidence": told | {"considered": 1, "candidates": [chosen]},
    }


def left_of(stays: Iterable[Stay], visible: frozenset[str] | None) -> list[Stay]:
    """What somebody sees: stays in order, without what was linked to others."""
    seen = [stay for stay in stays if visible is None or stay.camera in visible]
    return sorted(seen, key=lambda stay: stay.place)


def by_vehicle(stays: Iterable[Stay], *, of: str = "vehicle") -> dict[str, list[Stay]]:
    found = defaultdict(list)
    for stay in stays:
        if (vehicle := getattr(stay, of)) is not None:
            found[vehicle].append(stay)
    return found


def classes_of(stays: Iterable[Stay]) -> dict[str, str]:
    """By vote of all tracklets, whoever asks; of equals the first by name."""
    votes = {name: Counter(stay.vehicle_class for stay in own) for name, own in by_vehicle(stays).items()}
    return {name: min(vote, key=lambda one: (-vote[one], one)) for name, vote in votes.items()}


def seconds(moment: datetime) -> float:
    return (moment - START).total_seconds()


def times_of(window: Window) -> dict[str, Any]:
    start, end = window
    return {"start": None if start is None else after(start), "end": None if end is None else after(end)}


def is_in_view(stay: Stay, window: Window) -> bool:
    start, end = window
    return (start is None or stay.ended >= start) and (end is None or stay.began < end)


def has_left_in(stay: Stay, window: Window) -> bool:
    start, end = window
    return (start is None or stay.ended >= start) and (end is None or stay.ended < end)


def probability_of(stay: Stay, visible: frozenset[str] | None) -> float | None:
    """Of a stay's link; of one to what isn't seen nothing is told."""
    if stay.link is None or (visible is not None and stay.link not in visible):
        return None
    return 1 / (1 + math.exp(-stay.number))
