"""What is decided anew, and what is left as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from streamer.config import MatcherConfig
from streamer.matcher.decision import Correction, Reason, Rule, vehicle_id_of
from streamer.matcher.linker import Linker
from streamer.matcher.roads import RoadGraph
from streamer.matcher.second_look import changes
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import CALIBRATION, between, looks, seen

#: Two tracklets of different cameras speak for each other by 12 * cosine - 7.7 nats.
SLOPE, AT_ZERO = 12.0, -7.715


def _cosine(log_odds: float) -> float:
    return (log_odds - AT_ZERO) / SLOPE


def _linker(decided: Mapping[str, list[Tracklet]], *, pinned: tuple[str, ...] = (), look_back_s: float = 600) -> Linker:
    config = MatcherConfig(
        settle_s=3.0, second_look_s=30.0, look_back_s=look_back_s, hold_s=0.0, use_transit=False, prior_log_odds=0.0
    )
    linker = Linker(config, roads=RoadGraph(None, dwell_s=30.0), calibration=CALIBRATION)
    for vehicle_id, tracklets in decided.items():
        for one in tracklets:
            linker.remember(one, vehicle_id)
            if one.tracklet_id in pinned:
                linker.correct(one.tracklet_id, vehicle_id, is_pinned=True)
    return linker


def _corrections(linker: Linker, *, now: float = 100.0) -> list[Correction]:
    """Of the second look that follows on somebody else's tracklet."""
    linker.end(seen("z/s/1", now - 5, now - 1, looks(15)))
    return linker.settle(now + 6).corrections


def _told(corrections: list[Correction]) -> list[tuple[Reason, dict[str, str]]]:
    return [(one.kind, {said.tracklet_id: said.vehicle_id for said in one.decisions}) for one in corrections]


def test_two_vehicles_that_are_one_are_merged() -> None:
    linker = _linker({"v1": [seen("a/s/1", 0, 6, looks(1))], "v2": [seen("b/s/1", 20, 24, looks(1))]})

    assert _told(_corrections(linker)) == [(Reason.MERGE, {"b/s/1": "v1"})]


def test_a_vehicle_that_is_two_is_split_and_the_new_one_has_a_name_of_its_own() -> None:
    linker = _linker({"v1": [seen("a/s/1", 0, 6, looks(1)), seen("b/s/1", 20, 24, looks(2))]})

    assert _told(_corrections(linker)) == [(Reason.SPLIT, {"b/s/1": vehicle_id_of("b/s/1")})]


def test_a_tracklet_of_another_vehicle_is_moved_there() -> None:
    linker = _linker(
        {
            "v1": [seen("a/s/1", 0, 4, looks(1)), seen("b/s/1", 20, 24, looks(1)), seen("c/s/1", 40, 44, looks(2))],
            "v2": [seen("a/s/2", 1, 5, looks(2)), seen("b/s/2", 20, 24, looks(2))],
        }
    )

    assert _told(_corrections(linker)) == [(Reason.MOVE, {"c/s/1": "v2"})]


def test_a_correction_says_why() -> None:
    linker = _linker({"v1": [seen("a/s/1", 0, 6, looks(1))], "v2": [seen("b/s/1", 20, 24, looks(1))]})

    ((decision,),) = (one.decisions for one in _corrections(linker))

    assert (decision.reason, decision.rule, decision.is_provisional) == (Reason.MERGE, Rule.SECOND_LOOK, False)
    assert decision.evidence is not None
    assert decision.evidence.similarity == pytest.approx(1)
    assert [candidate.tracklet_id for candidate in decision.candidates][:1] == ["a/s/1"]


@pytest.mark.parametrize(("seconds", "kept"), [((9.0, 4.0), "v1"), ((4.0, 9.0), "v2")])
def test_a_vehicle_keeps_the_name_that_most_of_its_seconds_had(seconds: tuple[float, float], kept: str) -> None:
    first, second = seen("a/s/1", 0, seconds[0], looks(1)), seen("b/s/1", 20, 20 + seconds[1], looks(1))
    linker = _linker({"v1": [first], "v2": [second]})

    (correction,) = _corrections(linker)

    assert {said.vehicle_id for said in correction.decisions} == {kept}


def test_what_was_decided_long_ago_is_not_looked_at_again_and_keeps_its_name() -> None:
    old, new = seen("a/s/1", 0, 44, looks(1)), seen("b/s/1", 60, 64, looks(2))
    linker = _linker({"v1": [old, new]}, look_back_s=50)

    assert _told(_corrections(linker)) == [(Reason.SPLIT, {"b/s/1": vehicle_id_of("b/s/1")})]


def test_a_change_that_is_hardly_better_is_not_made() -> None:
    def corrections(log_odds: float) -> list[Correction]:
        second = seen("b/s/1", 20, 24, between(1, 2, _cosine(log_odds)))
        return _corrections(_linker({"v1": [seen("a/s/1", 0, 6, looks(1))], "v2": [second]}))

    assert corrections(1.5) == []
    assert [one.kind for one in corrections(2.5)] == [Reason.MERGE]


def test_what_is_right_is_left_alone() -> None:
    linker = _linker(
        {
            "v1": [seen("a/s/1", 0, 4, looks(1)), seen("b/s/1", 20, 24, looks(1))],
            "v2": [seen("a/s/2", 1, 5, looks(2)), seen("b/s/2", 20, 24, looks(2))],
        }
    )

    assert _corrections(linker) == []


def test_what_a_person_has_said_stands() -> None:
    same, other = seen("a/s/1", 0, 6, looks(1)), seen("b/s/1", 20, 24, looks(2))
    together = _linker({"v1": [same, other]}, pinned=("a/s/1", "b/s/1"))
    apart = _linker({"v1": [same], "v2": [seen("b/s/2", 20, 24, looks(1))]}, pinned=("a/s/1", "b/s/2"))

    assert _corrections(together) == _corrections(apart) == []


def test_what_nobody_has_said_may_join_what_a_person_has() -> None:
    """By way of a third that is there already."""
    pinned, there, other = (seen(f"{c}/s/1", at, at + 4, looks(1)) for c, at in (("a", 0), ("b", 20), ("c", 40)))
    linker = _linker({"v1": [pinned, there], "v2": [other]}, pinned=("a/s/1",))

    assert _told(_corrections(linker)) == [(Reason.MERGE, {"c/s/1": "v1"})]


def test_what_a_person_gives_back_may_be_corrected_again() -> None:
    linker = _linker(
        {"v1": [seen("a/s/1", 0, 6, looks(1)), seen("b/s/1", 20, 24, looks(2))]}, pinned=("a/s/1", "b/s/1")
    )
    linker.correct("b/s/1", "v1", is_pinned=False)

    assert _told(_corrections(linker)) == [(Reason.SPLIT, {"b/s/1": vehicle_id_of("b/s/1")})]


def test_what_was_corrected_is_not_corrected_again() -> None:
    linker = _linker({"v1": [seen("a/s/1", 0, 6, looks(1))], "v2": [seen("b/s/1", 20, 24, looks(1))]})
    assert _corrections(linker)

    linker.end(seen("z/s/2", 140, 149, looks(14)))
    assert linker.settle(math.inf).corrections == []


def test_a_look_is_taken_only_every_so_often_and_once_at_the_end() -> None:
    linker = _linker({})
    _corrections(linker)
    linker.remember(seen("a/s/1", 90, 96, looks(1)), "v1")
    linker.remember(seen("b/s/1", 97, 99, looks(1)), "v2")

    linker.end(seen("z/s/2", 100, 110, looks(14)))
    assert linker.settle(115.0).corrections == []
    assert [one.kind for one in linker.settle(math.inf).corrections] == [Reason.MERGE]
    assert not linker.is_due(math.inf)


def test_changes_are_told_by_kind() -> None:
    before = ["v1", "v1", "v2", "v3", "v3", "v4"]
    after = ["v1", "v1", "v1", "v3", "v9", "v5"]

    found = changes(before, after, anchors=["v4", "v5"])

    assert sorted(found) == [(Reason.MERGE, [2]), (Reason.MOVE, [5]), (Reason.SPLIT, [4])]
