"""The same sightings, however they arrive and whenever the matcher dies: the same decisions, word by word."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reid.calibration import save_calibration
from storage.corrections import confirm, merge, move, undo
from storage.crop_store import CropStore
from storage.database import Database
from storage.history import decisions
from storage.matcher_state import load_learned
from streamer.config import SiteConfig
from streamer.matcher.decision import Reason
from streamer.sighting_codec import encode
from streamer.sightings import Sighting, SightingKind
from tests.streamer.matcher.matcher_builders import CALIBRATION, at, heartbeat
from tests.streamer.matcher.test_worker import Site
from tests.streamer.matcher.traffic_builders import CAMERAS, Traffic, in_another_order, traffic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from storage.records import AssignmentRecord
    from streamer.sightings import Message

SETTLE_S = 3.0
DAYS = (0, 1, 2)
USUAL: Mapping[str, float] = {"settle_s": SETTLE_S, "second_look_s": 15, "look_back_s": 120, "hold_s": 6}
#: Matchers that forget, for want of time or room, within a minute or two.
SETTINGS: Mapping[str, Mapping[str, float]] = {
    "usual": USUAL,
    "forgetful": {**USUAL, "time_to_live_s": 25},
    "crowded": {**USUAL, "max_identities": 8},
}


@cache
def _day(seed: int) -> Traffic:
    return traffic(seed, vehicles=14)


class Road(Site):
    """A site of three cameras; workers come and go on its database."""

    def __init__(self, folder: Path, matcher: Mapping[str, float]) -> None:
        save_calibration(folder / "calibration.json", CALIBRATION)
        self.config = SiteConfig.model_validate(
            {
                "site": "crossing",
                "database": f"sqlite:///{folder}/site.db",
                "cameras": [{"id": camera, "url": f"{camera}.mp4"} for camera in CAMERAS],
                "matcher": {**matcher, "calibration": str(folder / "calibration.json")},
            }
        )
        self.database = Database.open(self.config.database)
        self.crops = CropStore(folder / "crops")

    def book(self) -> list[tuple[AssignmentRecord, int | None]]:
        """Every decision that was ever made, each with the number of its correction, in their order."""
        with self.database.snapshot() as session:
            return [(one.said, one.correction_id) for one in decisions(session)]

    def final(self) -> list[tuple[AssignmentRecord, int | None]]:
        return [(said, correction_id) for said, correction_id in self.book() if not said.is_provisional]

    def identities(self) -> dict[str, str]:
        """The vehicle of each tracklet, in the end."""
        return {said.tracklet_id: said.vehicle_id for said, _ in self.book()}


@dataclass(frozen=True)
class Straight:
    """What came of a day without any disturbance."""

    book: list[tuple[AssignmentRecord, int | None]]
    learned: dict[str, bytes]

    @property
    def final(self) -> list[tuple[AssignmentRecord, int | None]]:
        return [(said, correction_id) for said, correction_id in self.book if not said.is_provisional]


@pytest.fixture(scope="module")
def roads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Roads]:
    made = Roads(tmp_path_factory)
    yield made
    made.close()


class Roads:
    """Makes roads, and remembers how undisturbed days went."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._straight: dict[tuple[int, str], Straight] = {}
        self._made: list[Road] = []

    def new(self, which: str) -> Road:
        self._made.append(Road(self._folders.mktemp("road"), SETTINGS[which]))
        return self._made[-1]

    def straight(self, day: int, which: str) -> Straight:
        if (day, which) not in self._straight:
            road = self.new(which)
            road.play(_payloads(_day(day).messages))
            with road.database.snapshot() as session:
                self._straight[day, which] = Straight(road.book(), load_learned(session, "main"))
        return self._straight[day, which]

    def close(self) -> None:
        for road in self._made:
            road.database.close()


def _payloads(messages: list[Message]) -> list[bytes]:
    return [encode(message) for message in messages]


def _again(messages: list[Message], again: list[tuple[float, float]]) -> list[Message]:
    """With second deliveries: shares of the way through the messages, of the one and of the place where it comes."""
    found = list(messages)
    for which, after in again:
        first = int(which * (len(found) - 1))
        found.insert(first + 1 + int(after * (len(found) - first - 1)), found[first])
    return found


def _play(road: Road, messages: list[Message], crashes: list[float], batch: int) -> None:
    """Lets workers handle the messages, each but the last of them up to a share of all."""
    payloads, done = _payloads(messages), 0
    for share in sorted(crashes):
        steps = int(share * len(payloads)) // batch - done
        if steps > 0:
            road.play(payloads, batch=batch, steps=steps)
            done += steps
    road.play(payloads, batch=batch)


#: A smaller failing example would cost minutes: the days are made of whole stories.
_UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
_SHARES = st.floats(0, 1, exclude_max=True)
_CRASHES = st.lists(_SHARES, max_size=6)


def test_these_days_hold_all_that_makes_a_replay_hard(roads: Roads) -> None:
    straights = [roads.straight(day, "usual") for day in DAYS]

    corrected = [said.reason for straight in straights for said, correction in straight.final if correction is not None]
    waited = [
        said
        for straight, day in zip(straights, DAYS, strict=True)
        for said, correction in straight.final
        if correction is None and said.decided_at.timestamp() > _window_end(_day(day), said.tracklet_id)
    ]
    learned = [json.loads(straight.learned["topology"])["topology"] for straight in straights]
    assert corrected
    assert waited
    assert all(one["passages"] for one in learned)
    assert all(one["maps"] for one in learned)
    assert {said.reason for straight in straights for said, _ in straight.final} >= {Reason.NEW, Reason.LINKED}


def _window_end(day: Traffic, tracklet_id: str) -> float:
    own = (one for one in day.messages if isinstance(one, Sighting) and one.tracklet_id == tracklet_id)
    return (max(sighting.occurred_at.timestamp() for sighting in own) // SETTLE_S + 1) * SETTLE_S


def test_most_vehicles_are_found_again(roads: Roads) -> None:
    for day in DAYS:
        final = {said.tracklet_id: said.vehicle_id for said, _ in roads.straight(day, "usual").final}
        truth = _day(day).vehicle_of
        together = [(a, b) for a in final for b in final if a < b and final[a] == final[b]]
        assert sum(truth[a] == truth[b] for a, b in together) > 0.8 * len(together) > 0


@settings(deadline=None, max_examples=6, phases=_UNSHRUNK)
@given(day=st.sampled_from(DAYS), which=st.sampled_from(sorted(SETTINGS)), crashes=_CRASHES, batch=st.integers(1, 9))
def test_a_crash_at_any_message_changes_no_word_of_any_decision(
    roads: Roads, day: int, which: str, crashes: list[float], batch: int
) -> None:
    road = roads.new(which)

    _play(road, _day(day).messages, crashes, batch)

    assert road.book() == roads.straight(day, which).book


@settings(deadline=None, max_examples=4, phases=_UNSHRUNK)
@given(
    day=st.sampled_from(DAYS),
    order=st.integers(0, 2**32 - 1),
    again=st.lists(st.tuples(_SHARES, _SHARES), max_size=12),
    crashes=_CRASHES,
)
def test_another_order_of_arrival_second_deliveries_and_crashes_change_no_final_decision(
    roads: Roads, day: int, order: int, again: list[tuple[float, float]], crashes: list[float]
) -> None:
    messages = _again(in_another_order(_day(day).messages, order, most_late_s=SETTLE_S), again)
    road = roads.new("usual")

    _play(road, messages, crashes, batch=4)

    assert road.final() == roads.straight(day, "usual").final


def test_one_that_goes_on_after_a_merge_decides_as_one_that_starts_again(roads: Roads) -> None:
    messages, half = _payloads(_day(1).messages), len(_day(1).messages) // 2
    words = []
    for starts_again in (False, True):
        road, told = roads.new("usual"), messages[:half]
        worker, _ = road.play(told)
        first, second = sorted({said.vehicle_id for said, _ in road.final()})[:2]
        with road.database.transaction() as session:
            merge(session, first, second, by="anna", at=at(3600))
        told += messages[half:]
        if starts_again:
            road.play(told)
        while not starts_again and worker.step(timeout_s=0.0):
            pass
        words.append(road.final())

    assert words[0] == words[1]
    pinned = {said.vehicle_id for said, _ in words[0] if said.decided_by == "anna"}
    assert len(pinned) == 1


@pytest.mark.parametrize("kind", [SightingKind.FIRST, SightingKind.END])
def test_what_a_person_says_of_a_tracklet_in_view_or_waiting_holds_whether_the_matcher_goes_on_or_starts_again(
    roads: Roads, kind: SightingKind
) -> None:
    messages = _day(1).messages
    half = next(n for n, one in enumerate(messages) if n > len(messages) // 2 and getattr(one, "kind", None) is kind)
    moved, payloads = getattr(messages[half], "tracklet_id", ""), _payloads(messages)
    words = []
    for starts_again in (False, True):
        road, told = roads.new("usual"), payloads[: half + 1]
        worker, _ = road.play(told)
        assert moved not in {said.tracklet_id for said, _ in road.final()}
        vehicle_id = min(said.vehicle_id for said, _ in road.final())
        with road.database.transaction() as session:
            move(session, [moved], vehicle_id, by="anna", at=at(3600))
        told += payloads[half + 1 :]
        if starts_again:
            road.play(told)
        while not starts_again and worker.step(timeout_s=0.0):
            pass
        words.append(road.final())
        # A later start finds nothing that is still to be decided.
        road.play([*told, encode(heartbeat("a", 3600, finished=True))])
        assert road.final() == words[-1]

    assert words[0] == words[1]
    (of_moved,) = [said for said, _ in words[0] if said.tracklet_id == moved]
    assert (of_moved.vehicle_id, of_moved.decided_by, of_moved.reason) == (vehicle_id, "anna", "move")


def test_what_a_person_confirms_in_view_stays_where_it_was(roads: Roads) -> None:
    messages = _day(1).messages
    first = SightingKind.FIRST
    half = next(n for n, one in enumerate(messages) if n > len(messages) // 2 and getattr(one, "kind", None) is first)
    seen, payloads = getattr(messages[half], "tracklet_id", ""), _payloads(messages)
    road, told = roads.new("usual"), payloads[: half + 1]
    worker, _ = road.play(told)
    with road.database.transaction() as session:
        (change,) = confirm(session, [seen], by="anna", at=at(3600)).changes
    told += payloads[half + 1 :]
    while worker.step(timeout_s=0.0):
        pass

    (said,) = [said for said, _ in road.final() if said.tracklet_id == seen]
    assert (said.vehicle_id, said.decided_by, said.reason) == (change.after, "anna", "confirm")
    assert not said.is_provisional


def test_a_matcher_that_starts_again_after_a_merge_and_its_undo_decides_as_if_nobody_had_touched_anything(
    roads: Roads,
) -> None:
    messages, half = _day(0).messages, len(_day(0).messages) // 2
    road = roads.new("usual")
    road.play(_payloads(messages[:half]))
    first, second = sorted({said.vehicle_id for said, _ in road.final()})[:2]
    with road.database.transaction() as session:
        made = merge(session, first, second, by="anna", at=at(3600))
    with road.database.transaction() as session:
        undo(session, made.correction_id, by="anna", at=at(3601))

    road.play(_payloads(messages))

    by_the_matcher = [said for said, _ in road.book() if said.decided_at < at(3600)]
    assert by_the_matcher == [said for said, _ in roads.straight(0, "usual").book]
