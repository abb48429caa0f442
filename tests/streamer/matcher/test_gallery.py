"""The gallery against a model of it in plain lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from reid.modality import Modality
from streamer.matcher.gallery import Gallery
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import CALIBRATION, between, looks

CAMERAS = "abc"
EVERYWHERE = dict.fromkeys(CAMERAS, float("inf"))
_DIMENSION = 12


def _look(vehicle: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(vehicle).normal(size=_DIMENSION)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _tracklet(name: str, ended_at: float, vehicle: int, modality: Modality = Modality.VISIBLE) -> Tracklet:
    return Tracklet(name, name[0], "s", ended_at - 1, ended_at, {"car": 1.0}, {modality: _look(vehicle)}, is_ended=True)


class GalleryMachine(RuleBasedStateMachine):
    """Links, unlinks and forgets in any order; all looks of a vehicle are one, so that what is nearest is known."""

    def __init__(self) -> None:
        super().__init__()
        self.gallery = Gallery(CALIBRATION)
        self.model: dict[int, list[Tracklet]] = {}
        self.number = 0

    @rule(vehicle=st.integers(0, 90), camera=st.sampled_from(CAMERAS), ended_at=st.integers(0, 1000))
    def link(self, vehicle: int, camera: str, ended_at: int) -> None:
        self.number += 1
        one = _tracklet(f"{camera}/s/{self.number}", ended_at + self.number / 1e6, vehicle)
        self.gallery.link(str(vehicle), one)
        self.model.setdefault(vehicle, []).append(one)

    @rule(first=st.integers(0, 20), count=st.integers(30, 70))
    def link_many(self, first: int, count: int) -> None:
        """More vehicles than there were slots at first."""
        for vehicle in range(first, first + count):
            self.link(vehicle, CAMERAS[vehicle % 3], 7 * vehicle)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        vehicle = data.draw(st.sampled_from(sorted(self.model)))
        one = data.draw(st.sampled_from(self.model[vehicle]))
        self.gallery.unlink(str(vehicle), one)
        self.model[vehicle].remove(one)
        self.model = {known: members for known, members in self.model.items() if members}

    @precondition(lambda self: self.model)
    @rule(seen_before=st.integers(0, 1000), most=st.integers(1, 60))
    def forget(self, seen_before: float, most: int) -> None:
        gone = self.gallery.forget(seen_before, most=most)

        last = sorted((max(one.ended_at for one in members) for members in self.model.values()), reverse=True)
        limit = max(seen_before, last[most - 1] if len(last) > most else 0)
        expected = [one for members in self.model.values() for one in members if one.ended_at < limit]
        assert sorted(one.tracklet_id for one in gone) == sorted(one.tracklet_id for one in expected)
        left = {v: [one for one in members if one.ended_at >= limit] for v, members in self.model.items()}
        self.model = {vehicle: members for vehicle, members in left.items() if members}
        assert len(self.gallery) <= most

    @rule(
        asked=st.lists(st.integers(0, 90), min_size=1, max_size=3),
        count=st.integers(1, 20),
        since=st.integers(0, 1000),
        reach=st.tuples(*[st.sampled_from([0.0, 100.0, 2000.0])] * 3),
    )
    def nearest(self, asked: list[int], count: int, since: int, reach: tuple[float, ...]) -> None:
        reach_s = dict(zip(CAMERAS, reach, strict=True))
        queries = [_tracklet(f"a/s/q{vehicle}", 500, vehicle, Modality.THERMAL) for vehicle in asked]

        answers = self.gallery.nearest(queries, reach_s, since=since, count=count)

        possible = []
        for vehicle, members in self.model.items():
            last = max(members, key=lambda one: (one.ended_at, one.tracklet_id))
            if last.ended_at >= since - reach_s[last.camera]:
                possible.append(vehicle)
        for vehicle, found in zip(asked, answers, strict=True):
            best = sorted(possible, key=lambda known: -float(_look(known) @ _look(vehicle)))[:count]
            expected = possible if len(possible) <= count else best
            assert sorted(int(one.vehicle_id) for one in found) == sorted(expected)

    @invariant()
    def same_members(self) -> None:
        assert len(self.gallery) == len(self.model)
        for identity in self.gallery:
            members = sorted(self.model[int(identity.vehicle_id)], key=lambda one: (one.ended_at, one.tracklet_id))
            assert [one.tracklet_id for one in identity.members] == [one.tracklet_id for one in members]
            assert self.gallery.find(identity.vehicle_id) is identity


TestGallery = GalleryMachine.TestCase
TestGallery.settings = settings(deadline=None, max_examples=30, stateful_step_count=25)


def test_an_empty_gallery_offers_nobody() -> None:
    assert Gallery(CALIBRATION).nearest([_tracklet("a/s/1", 1, 1)], EVERYWHERE, since=0, count=5) == [[]]


def test_a_vehicle_of_many_looks_is_found_by_any_of_the_few_that_differ() -> None:
    gallery = Gallery(CALIBRATION)
    for number, (vehicle, cosine) in enumerate([(0, 1.0), (1, 0.99), (2, 1.0), (3, 0.5)]):
        vector = between(vehicle, 9, cosine)
        gallery.link(
            "changing", Tracklet(f"a/s/{number}", "a", "s", number, number + 1, {}, {Modality.VISIBLE: vector})
        )
    for number in range(4, 9):
        own = {Modality.VISIBLE: looks(number)}
        gallery.link(f"other {number}", Tracklet(f"b/s/{number}", "b", "s", number, number + 1, {}, own))

    for vehicle in (0, 2, 3):
        asked = Tracklet("c/s/1", "c", "s", 20, 21, {}, {Modality.VISIBLE: looks(vehicle)})
        (found,) = gallery.nearest([asked], {"a": 99.0, "b": 99.0}, since=20, count=1)
        assert [identity.vehicle_id for identity in found] == ["changing"]


def test_a_look_in_one_modality_finds_looks_in_every_other() -> None:
    gallery = Gallery(CALIBRATION)
    for vehicle in range(20):
        gallery.link(str(vehicle), _tracklet(f"a/s/{vehicle}", vehicle, vehicle, list(Modality)[vehicle % 3]))

    (found,) = gallery.nearest([_tracklet("b/s/1", 30, 7, Modality.THERMAL)], EVERYWHERE, since=30, count=2)

    assert "7" in {identity.vehicle_id for identity in found}
    assert len(found) == 2 * len(Modality)


@pytest.mark.parametrize("most", [1, 5, 50])
def test_the_gallery_keeps_those_seen_last(most: int) -> None:
    gallery = Gallery(CALIBRATION)
    for vehicle in range(120):
        gallery.link(str(vehicle), _tracklet(f"a/s/{vehicle}", vehicle, vehicle))

    gallery.forget(0, most=most)

    assert sorted(int(one.vehicle_id) for one in gallery) == list(range(120 - most, 120))
    assert gallery.forgotten_before == 120 - most
