"""Every question against an answer worked out from its docstring alone, for whoever sees all cameras or only some.

A viewer's answers are worked out from what is left once everything at other cameras is taken away; what is told all the
same stands in docs/security.md: a vehicle's class, and that a stop was linked.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.answers import limited
from storage.errors import QuestionError, VehicleNotFoundError
from storage.likeness import LikenessFilter, LikenessIndex
from storage.trajectories import (
    companions,
    count_vehicles,
    counts,
    dwell_times,
    journey_times,
    latest_vehicles,
    passages,
    trajectory,
    vehicles,
)
from tests.storage.small_worlds import (
    CAMERAS,
    CLASSES,
    MOMENTS,
    STAYS,
    UNIT_S,
    VEHICLES,
    VISIBLE,
    WINDOWS,
    Stay,
    Window,
    by_vehicle,
    classes_of,
    direction,
    has_left_in,
    is_in_view,
    left_of,
    probability_of,
    seconds,
    times_of,
    written,
)
from tests.storage.storage_builders import START, assignment, store, tracklet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)

_LAW = settings(deadline=None, max_examples=25)


class HalfBetweenBands:
    """Log-odds are six times the similarity, half of that between bands; nothing is shared."""

    model_id = "test"

    def centred(self, modality: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        assert modality
        return vectors

    def log_odds(self, first: str, second: str, similarities: NDArray[np.float32]) -> NDArray[np.float64]:
        return similarities.astype(np.float64) * (6 if first == second else 3)


@_LAW
@given(
    stays=STAYS,
    visible=VISIBLE,
    window=WINDOWS,
    camera=st.sampled_from([None, None, None, *CAMERAS]),
    vehicle_class=st.sampled_from([None, None, "car"]),
    modality=st.sampled_from([None, None, "thermal"]),
    min_cameras=st.sampled_from([1, 1, 2]),
    newest_first=st.booleans(),
    offset=st.integers(0, 1),
    limit=st.integers(1, 3),
)
def test_vehicles(
    memory: Database,
    stays: list[Stay],
    visible: frozenset[str] | None,
    window: Window,
    camera: str | None,
    vehicle_class: str | None,
    modality: str | None,
    min_cameras: int,
    newest_first: bool,
    offset: int,
    limit: int,
) -> None:
    with written(memory, stays) as session:
        classes = classes_of(stays)
        wanted = [
            (max(stay.ended for stay in own) if newest_first else own[0].began, name)
            for name, own in by_vehicle(left_of(stays, visible)).items()
            if any(is_in_view(stay, window) and camera in (None, stay.camera) for stay in own)
            and len({stay.camera for stay in own}) >= min_cameras
            and vehicle_class in (None, classes[name])
            and (modality is None or modality in {stay.band for stay in own})
        ]
        wanted.sort(reverse=newest_first)
        question: dict[str, Any] = {
            **times_of(window),
            "camera": camera,
            "min_cameras": min_cameras,
            "vehicle_class": vehicle_class,
            "modality": modality,
            "visible": visible,
        }
        assert count_vehicles(session, **question) == len(wanted)
        if newest_first:
            assert latest_vehicles(session, limit=limit, **question) == [name for _, name in wanted][:limit]
        whole = vehicles(session, newest_first=newest_first, **question)
        for one in whole:
            own = by_vehicle(left_of(stays, visible))[one.vehicle_id]
            looks = {
                stay.band: stay.image for stay in sorted(own, key=lambda stay: stay.number) if stay.band is not None
            }
            assert one.vehicle_class == classes[one.vehicle_id]
            assert (seconds(one.first_seen), seconds(one.last_seen)) == (
                own[0].began,
                max(stay.ended for stay in own),
            )
            assert one.cameras == tuple(dict.fromkeys(stay.camera for stay in own))
            assert (one.tracklets, one.modalities, one.crop_images) == (len(own), tuple(sorted(looks)), looks)
        keys = [(one.last_seen if newest_first else one.first_seen, one.vehicle_id) for one in whole]
        assert [(seconds(moment), name) for moment, name in keys] == wanted
        part = vehicles(session, newest_first=newest_first, offset=offset, limit=limit, **question)
        assert part == whole[offset:][:limit]
        for number, key in enumerate(keys):
            assert (
                vehicles(session, newest_first=newest_first, after=key, limit=2, **question) == whole[number + 1 :][:2]
            )


@_LAW
@given(stays=STAYS, visible=VISIBLE, window=WINDOWS)
def test_vehicles_as_they_were_decided(
    memory: Database, stays: list[Stay], visible: frozenset[str] | None, window: Window
) -> None:
    with written(memory, stays) as session:
        first_said = [replace(stay, was=stay.was or stay.vehicle) for stay in stays]
        own = by_vehicle(left_of(first_said, visible), of="was")
        wanted = {name: len(had) for name, had in own.items() if any(is_in_view(stay, window) for stay in had)}
        found = vehicles(session, as_of="decision", visible=visible, **times_of(window))
        assert {one.vehicle_id: one.tracklets for one in found} == wanted
        assert count_vehicles(session, as_of="decision", visible=visible, **times_of(window)) == len(wanted)


@_LAW
@given(stays=STAYS, visible=VISIBLE)
def test_trajectory(memory: Database, stays: list[Stay], visible: frozenset[str] | None) -> None:
    with written(memory, stays) as session:
        own = by_vehicle(left_of(stays, visible))
        for name in VEHICLES:
            if name not in own:
                with pytest.raises(VehicleNotFoundError):
                    trajectory(session, name, visible=visible)
                continue
            found = trajectory(session, name, visible=visible)
            assert found.vehicle_class == classes_of(stays)[name]
            assert seconds(found.first_seen) == own[name][0].began
            assert seconds(found.last_seen) == max(stay.ended for stay in own[name])
            for stop, stay in zip(found.stops, own[name], strict=True):
                is_told = probability_of(stay, visible) is not None
                assert (stop.tracklet_id, stop.camera) == (stay.name, stay.camera)
                assert (seconds(stop.arrival), seconds(stop.departure)) == (stay.began, stay.ended)
                assert (stop.end_reason is None) == stay.is_open
                assert stop.modalities == (() if stay.band is None else (stay.band,))
                assert stop.crop_image == (None if stay.band is None else stay.image)
                assert stop.probability == pytest.approx(probability_of(stay, visible))
                assert stop.score == (float(stay.number) if is_told else None)
                assert stop.modality_pair == ("thermal~visible" if is_told else None)
                assert stop.transit_s == (7.5 if is_told else None)
                assert stop.margin == (1.5 if is_told or visible is None else None)
                assert [one["camera"] for one in stop.evidence["candidates"]] == ([stay.link] if is_told else [])


def test_of_a_decision_nothing_is_told_that_depends_on_other_cameras() -> None:
    def weighed(vehicle: str, camera: str, **numbers: float) -> dict[str, Any]:
        return {"vehicle_id": vehicle, "tracklet_id": f"{camera}/s1/9", "camera": camera, "similarity": 0.5, **numbers}

    made = assignment("gate/s1/1", "va", reason="linked", score=2.0)
    alone = {"rule": "the best fit", "halved": True, "considered": 1, "candidates": [weighed("va", "bridge")]}
    told = replace(made, modality_pair="thermal~visible", transit_s=7.5, evidence=alone)
    among = [weighed("va", "bridge", tracklets=4, summed=3.5), weighed("vb", "yard", tracklets=2, log_odds=1.0)]
    more = replace(told, margin=0.25, evidence=alone | {"considered": 5, "candidates": among, "instead_of": "vb"})
    visible = {"gate", "bridge"}
    assert limited(more, None) is more
    assert limited(more, visible) == limited(told, visible)
    assert limited(told, visible).transit_s == 7.5
    # By what only others saw: as if it had been linked to nothing.
    nobody = replace(made, score=None, evidence=alone | {"considered": 0, "candidates": []})
    assert limited(more, {"gate"}) == limited(told, {"gate"}) == limited(nobody, {"gate"})


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"start": START.replace(tzinfo=None)}, "start: wanted a time with its zone, got 2026-01-01T12:00:00$"),
        ({"end": START.replace(tzinfo=None)}, "end: wanted a time with its zone"),
        ({"start": START, "end": START}, "end: wanted a time after the start"),
        ({"start": datetime.min.replace(tzinfo=UTC)}, "start: 0001-01-01T00:00:00.00:00 is out of range"),
    ],
)
def test_no_window_that_makes_no_sense_is_asked_for(memory: Database, asked: dict[str, Any], fault: str) -> None:
    with memory.snapshot() as session:
        for question in (vehicles, count_vehicles, latest_vehicles, dwell_times, journey_times, counts):
            with pytest.raises(QuestionError, match=fault):
                question(session, **asked)
        with pytest.raises(QuestionError, match=fault):
            passages(session, "gate", "bridge", within_s=1, **asked)
    with pytest.raises(QuestionError, match=fault):
        LikenessFilter(**asked)


@pytest.mark.parametrize("unsound", [-1.0, math.nan, math.inf])
def test_no_seconds_that_make_no_sense_are_asked_for(memory: Database, unsound: float) -> None:
    with written(memory, []) as session:
        store(session, tracklet(), "va")
        with pytest.raises(QuestionError, match="every_s: wanted 1e-06 to 31622400 seconds, got"):
            counts(session, every_s=unsound)
        with pytest.raises(QuestionError, match="within_s"):
            passages(session, "gate", "bridge", within_s=unsound)
        with pytest.raises(QuestionError, match="within_s"):
            companions(session, "va", within_s=unsound)


@_LAW
@given(
    stays=STAYS,
    visible=VISIBLE,
    window=WINDOWS,
    within_s=st.sampled_from([0, UNIT_S, 10 * UNIT_S]),
    vehicle_class=CLASSES,
)
def test_passages(
    memory: Database,
    stays: list[Stay],
    visible: frozenset[str] | None,
    window: Window,
    within_s: float,
    vehicle_class: str | None,
) -> None:
    question: dict[str, Any] = {**times_of(window), "within_s": within_s, "vehicle_class": vehicle_class}
    with written(memory, stays) as session:
        for first, then in product(CAMERAS, repeat=2):
            wanted = []
            for name, own in by_vehicle(left_of(stays, visible)).items():
                for one, other in pairwise([stay for stay in own if stay.camera in (first, then)]):
                    is_way = (one.camera, other.camera) == (first, then) and other.began - one.ended <= within_s
                    if is_way and has_left_in(one, window) and vehicle_class in (None, classes_of(stays)[name]):
                        sure = [probability_of(stay, visible) for stay in (one, other)]
                        least = min((each for each in sure if each is not None), default=-1.0)
                        wanted.append((one.ended, other.began, name, round(least, 6)))
            found = [
                (seconds(one.departed_at), seconds(one.arrived_at), one.vehicle_id, _rounded(one.probability))
                for one in passages(session, first, then, visible=visible, **question)
            ]
            assert [row[:3] for row in found] == sorted(row[:3] for row in wanted)
            assert sorted(found) == sorted(wanted)


@_LAW
@given(stays=STAYS, visible=VISIBLE, within_s=MOMENTS, min_cameras=st.integers(1, 2))
def test_companions(
    memory: Database, stays: list[Stay], visible: frozenset[str] | None, within_s: float, min_cameras: int
) -> None:
    with written(memory, stays) as session:
        everybody = by_vehicle(left_of(stays, visible))
        for name, own in everybody.items():
            wanted = []
            for other, theirs in everybody.items():
                met = [_nearest(stay, theirs, within_s) for stay in own]
                meetings = sorted((each for each in met if each is not None), key=lambda each: each[1:])
                cameras = tuple(dict.fromkeys(camera for _, _, camera in meetings))
                if other != name and len(cameras) >= min_cameras:
                    gap_s = max(gap for gap, _, _ in meetings)
                    wanted.append((cameras, len(meetings), gap_s, other, meetings[0][1], meetings[-1][1]))
            wanted.sort(key=lambda row: (-len(row[0]), -row[1], row[2], row[3]))
            found = companions(session, name, within_s=within_s, min_cameras=min_cameras, visible=visible)
            assert [
                (
                    one.cameras,
                    one.meetings,
                    one.largest_gap_s,
                    one.vehicle_id,
                    seconds(one.first_at),
                    seconds(one.last_at),
                )
                for one in found
            ] == wanted


def _rounded(probability: float | None) -> float:
    return -1.0 if probability is None else round(probability, 6)


def _nearest(stay: Stay, theirs: Iterable[Stay], within_s: float) -> tuple[int, int, str] | None:
    """How far off, when and where another vehicle's arrival was that is nearest to a stay's; of two the earlier."""
    arrivals = [(abs(one.began - stay.began), one.began, one.camera) for one in theirs if one.camera == stay.camera]
    return min((arrival for arrival in arrivals if arrival[0] <= within_s), default=None)


@_LAW
@given(
    stays=STAYS,
    visible=VISIBLE,
    window=WINDOWS,
    camera=st.none() | st.sampled_from(CAMERAS),
    vehicle_class=CLASSES,
    every_s=st.sampled_from([UNIT_S, 700]),
    modality=st.none() | st.just("thermal"),
)
def test_statistics(
    memory: Database,
    stays: list[Stay],
    visible: frozenset[str] | None,
    window: Window,
    camera: str | None,
    vehicle_class: str | None,
    every_s: int,
    modality: str | None,
) -> None:
    with written(memory, stays) as session:
        classes = classes_of(stays)
        seen = [
            stay for stay in left_of(stays, visible) if stay.vehicle and vehicle_class in (None, classes[stay.vehicle])
        ]
        question: dict[str, Any] = {**times_of(window), "vehicle_class": vehicle_class, "visible": visible}

        stayed = defaultdict(list)
        for stay in seen:
            if is_in_view(stay, window) and camera in (None, stay.camera):
                stayed[stay.camera].append(stay.lasted)
        dwelt = dwell_times(session, camera=camera, **question)
        assert {one.camera: one.visits for one in dwelt} == {at: len(lasted) for at, lasted in stayed.items()}
        for one in dwelt:
            assert (one.median_s, one.mean_s, one.p85_s, one.p95_s) == pytest.approx(
                _middle(stayed[one.camera]), abs=1e-5
            )
            assert one.longest_s == max(stayed[one.camera])

        taken = defaultdict(list)
        for own in by_vehicle(seen).values():
            for stay, following in pairwise(own):
                if stay.camera != following.camera and has_left_in(stay, window):
                    taken[stay.camera, following.camera].append(following.began - stay.ended)
        journeys = journey_times(session, **question)
        assert [(way.first, way.then, way.journeys) for way in journeys] == [
            (*way, len(taken[way])) for way in sorted(taken)
        ]
        for way in journeys:
            times = taken[way.first, way.then]
            assert way.fastest_s == min(times)
            assert (way.median_s, way.mean_s, way.p85_s, way.p95_s) == pytest.approx(_middle(times), abs=1e-5)

        came = defaultdict(set)
        for stay in seen:
            start, end = window
            is_wanted = camera in (None, stay.camera) and modality in (None, stay.band)
            if is_wanted and (start is None or stay.began >= start) and (end is None or stay.began < end):
                begins = (START.timestamp() + stay.began) // every_s * every_s
                came[datetime.fromtimestamp(begins, UTC), stay.camera, classes[stay.vehicle or ""]].add(stay.vehicle)
        found = counts(session, camera=camera, every_s=every_s, modality=modality, **question)
        assert [((one.start, one.camera, one.vehicle_class), one.vehicles) for one in found] == [
            (key, len(came[key])) for key in sorted(came)
        ]


def _middle(times: list[int]) -> tuple[float, ...]:
    """Median, mean, 85 and 95 of 100."""
    ordered = sorted(times)

    def percentile(percent: float) -> float:
        place = (len(ordered) - 1) * percent / 100
        low = math.floor(place)
        return ordered[low] + (ordered[math.ceil(place)] - ordered[low]) * (place - low)

    return percentile(50), sum(ordered) / len(ordered), percentile(85), percentile(95)


@_LAW
@given(
    stays=STAYS,
    visible=VISIBLE,
    window=WINDOWS,
    camera=st.none() | st.sampled_from(CAMERAS),
    vehicle_class=CLASSES,
    limit=st.sampled_from([1, 50]),
)
def test_similar(
    memory: Database,
    stays: list[Stay],
    visible: frozenset[str] | None,
    window: Window,
    camera: str | None,
    vehicle_class: str | None,
    limit: int,
) -> None:
    with written(memory, stays) as session:
        question: dict[str, Any] = {"camera": camera, "vehicle_class": vehicle_class, "visible": visible}
        chosen = LikenessFilter(**times_of(window), **question)
        among = [
            stay
            for stay in left_of(stays, visible)
            if stay.band is not None
            and camera in (None, stay.camera)
            and vehicle_class in (None, stay.vehicle_class)
            # What goes on is still there.
            and is_in_view(stay, window)
        ]
        asked: Callable[[str], list[Any]] = lambda name: LikenessIndex(  # noqa: E731 - bound to these
            HalfBetweenBands(), is_lasting=False
        ).similar_to_tracklet(session, name, chosen=chosen, limit=limit)
        for stay in left_of(stays, visible):
            best: dict[str, tuple[float, str]] = {}
            for other in among if stay.band is not None else ():
                alike = float(direction(stay.number) @ direction(other.number)) * (6 if stay.band == other.band else 3)
                if other.vehicle is not None and other.vehicle != stay.vehicle:
                    best[other.vehicle] = max(best.get(other.vehicle, (-math.inf, "")), (alike, other.name))
            wanted = sorted(((-alike, name, vehicle) for vehicle, (alike, name) in best.items()))[:limit]
            found = asked(stay.name)
            assert [(one.tracklet_id, one.vehicle_id) for one in found] == [
                (name, vehicle) for _, name, vehicle in wanted
            ]
            assert [one.log_odds for one in found] == pytest.approx([-alike for alike, _, _ in wanted], abs=0.01)
