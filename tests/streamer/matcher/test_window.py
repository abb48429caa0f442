"""What a linker decides, and says of it, where it is not plain at once."""

from __future__ import annotations

import math

import pytest

from streamer.config import MatcherConfig
from streamer.matcher.decision import Decision, Reason, Rule, vehicle_id_of
from streamer.matcher.gallery import Identity
from streamer.matcher.linker import Linker
from streamer.matcher.roads import RoadGraph
from streamer.matcher.tracklet import Tracklet
from streamer.matcher.window import Window
from tests.streamer.matcher.matcher_builders import CALIBRATION, between, looks, seen

HOUR_S = 3600.0


def _linker(**config: float | bool) -> Linker:
    """One that goes by looks: cosine 1 is +4.3 nats with the same class at other cameras, and 0.64 is 0."""
    values = {"settle_s": 3.0, "hold_s": 0.0, "second_look_s": 0.0, "use_transit": False, "time_to_live_s": 9 * HOUR_S}
    found = MatcherConfig.model_validate({**values, **config})
    return Linker(found, roads=RoadGraph(None, dwell_s=30.0), calibration=CALIBRATION)


def _decided(linker: Linker, *tracklets: Tracklet, until: float = math.inf) -> dict[str, Decision]:
    for one in tracklets:
        linker.end(one)
    return {decision.tracklet_id: decision for decision in linker.settle(until).decisions}


#: Two vehicles that look rather alike (cosine 0.8), and what looks like both of them.
RIVALS = (seen("a/s/1", 0, 4, looks(1)), seen("a/s/2", 1, 5, between(1, 2, 0.8)))
EITHER = between(1, 2, 0.95)


def test_two_rivals_that_fit_almost_equally_well_are_kept_apart() -> None:
    decision = _decided(_linker(), *RIVALS, seen("b/s/1", 10, 14, EITHER))["b/s/1"]

    assert decision.vehicle_id == vehicle_id_of("b/s/1")
    assert (decision.reason, decision.rule) == (Reason.NEW, Rule.TOO_CLOSE)
    assert min(candidate.log_odds for candidate in decision.candidates) > 1
    assert {candidate.vehicle_id for candidate in decision.candidates} == {
        vehicle_id_of(one.tracklet_id) for one in RIVALS
    }


def test_the_better_of_two_rivals_is_taken_where_the_margin_is_wide() -> None:
    decision = _decided(_linker(), *RIVALS, seen("b/s/1", 10, 14, looks(1)))["b/s/1"]

    assert decision.vehicle_id == vehicle_id_of("a/s/1")
    assert (decision.reason, decision.rule) == (Reason.LINKED, Rule.BEST)
    assert decision.margin is not None
    assert decision.margin >= 1


def test_what_is_unclear_waits_as_long_as_it_may_and_no_longer() -> None:
    linker = _linker(hold_s=6.0)
    _decided(linker, *RIVALS, until=9.0)

    # It ends at 14, its window at 15: it may wait until 21.
    assert _decided(linker, seen("b/s/1", 10, 14, EITHER), until=20.9) == {}
    decision = _decided(linker, until=21.0)["b/s/1"]
    assert decision.decided_at == 21.0


def test_what_is_clear_does_not_wait() -> None:
    linker = _linker(hold_s=6.0)
    _decided(linker, seen("a/s/1", 0, 4, looks(1)), until=12.0)

    clear, unclear = seen("b/s/1", 10, 14, looks(1)), seen("c/s/1", 10, 14, between(1, 2, 0.72))
    found = _decided(linker, clear, unclear, until=15.0)

    assert set(found) == {"b/s/1"}
    assert found["b/s/1"].decided_at == 15.0


def test_what_waits_is_decided_with_what_came_meanwhile() -> None:
    linker = _linker(hold_s=9.0, hold_margin=2.0)
    _decided(linker, *RIVALS, until=9.0)
    assert _decided(linker, seen("b/s/1", 10, 14, EITHER), until=15.0) == {}

    # Seen again, now more clearly: what was unclear goes with it.
    found = _decided(linker, seen("c/s/1", 15, 17, looks(1)), until=18.0)

    assert found["b/s/1"].vehicle_id == found["c/s/1"].vehicle_id == vehicle_id_of("a/s/1")


def test_a_vehicle_that_is_parked_for_an_hour_keeps_its_identity_and_takes_no_passing_one() -> None:
    linker = _linker()
    passing = _decided(linker, seen("a/s/2", 100, 104, looks(1)), until=120)["a/s/2"]
    parked = _decided(linker, seen("a/s/1", 0, HOUR_S, looks(1)), until=HOUR_S + 10)["a/s/1"]
    later = _decided(linker, seen("b/s/1", HOUR_S + 20, HOUR_S + 24, looks(1)))["b/s/1"]

    assert passing.vehicle_id == vehicle_id_of("a/s/2")
    assert parked.vehicle_id == vehicle_id_of("a/s/1")
    assert later.vehicle_id == parked.vehicle_id


def _again(cosine: float) -> Tracklet:
    return seen("b/s/1", 3 * HOUR_S, 3 * HOUR_S + 4, between(1, 2, cosine))


@pytest.mark.parametrize(("cosine", "is_back"), [(1.0, True), (0.95, True), (0.85, False), (0.7, False)])
def test_who_comes_back_after_hours_does_so_by_looks_alone_at_a_stricter_threshold(
    cosine: float, is_back: bool
) -> None:
    gone = Identity(0, "v1", [seen("a/s/1", 0, 4, looks(1))])

    (place,) = Window([_again(cosine)], [[gone]], _linker().scales, reach_s=600, return_log_odds=-5).place()

    assert (place.identity is gone) is is_back


def test_who_comes_back_after_hours_is_said_to_have_returned() -> None:
    decision = _decided(_linker(), seen("a/s/1", 0, 4, looks(1)), _again(1.0))["b/s/1"]

    assert decision.vehicle_id == vehicle_id_of("a/s/1")
    assert (decision.reason, decision.rule) == (Reason.RETURNED, Rule.CAME_BACK)


def test_who_comes_back_after_hours_and_looks_but_alike_is_somebody_new() -> None:
    decision = _decided(_linker(), seen("a/s/1", 0, 4, looks(1)), _again(0.85))["b/s/1"]

    assert decision.reason is Reason.NEW


def test_looks_that_are_too_poor_for_a_return_are_good_enough_for_a_neighbour() -> None:
    decision = _decided(_linker(), seen("a/s/1", 0, 4, looks(1)), seen("b/s/1", 10, 14, between(1, 2, 0.85)))["b/s/1"]

    assert decision.reason is Reason.LINKED


def test_a_tracklet_that_goes_on_where_another_broke_off_is_joined_to_it() -> None:
    first = seen("a/s/1", 0, 4, looks(1), enters=(100, 400), leaves=(500, 400))
    ahead = seen("a/s/2", 4.5, 8, between(1, 2, 0.75), enters=(550, 400), leaves=(900, 400))

    decision = _decided(_linker(), first, ahead)["a/s/2"]

    assert decision.vehicle_id == vehicle_id_of("a/s/1")
    assert (decision.reason, decision.rule) == (Reason.JOINED, Rule.BROKEN_OFF)


def test_one_that_turns_up_elsewhere_in_the_view_is_not_joined() -> None:
    first = seen("a/s/1", 0, 4, looks(1), enters=(100, 400), leaves=(500, 400))
    elsewhere = seen("a/s/2", 4.5, 8, between(1, 2, 0.75), enters=(1500, 400), leaves=(1800, 400))

    assert _decided(_linker(), first, elsewhere)["a/s/2"].reason is Reason.NEW


def test_the_first_of_all_has_nobody_to_be() -> None:
    decision = _decided(_linker(), seen("a/s/1", 0, 4, looks(1)))["a/s/1"]

    assert (decision.reason, decision.rule, decision.candidates) == (Reason.NEW, Rule.NOBODY, ())
    assert (decision.score, decision.margin, decision.considered) == (None, None, 0)


def test_one_that_looks_like_nobody_says_whom_it_was_compared_with() -> None:
    decision = _decided(_linker(), *RIVALS, seen("b/s/1", 10, 14, looks(7)))["b/s/1"]

    assert (decision.reason, decision.rule) == (Reason.NEW, Rule.NOBODY_ALIKE)
    assert len(decision.candidates) == decision.considered == 2
    assert decision.margin == pytest.approx(-decision.candidates[0].log_odds)


def test_every_decision_names_its_candidates_best_first_and_its_own_among_them() -> None:
    day = [
        seen(f"{camera}/s/{number}", 7 * number + late, 7 * number + late + 4, between(number, 15, 0.9))
        for number in range(12)
        for camera, late in (("a", 0), ("b", 9), ("c", 20))
    ]

    found = _decided(_linker(hold_s=6.0), *day)

    assert len(found) == len(day)
    for decision in found.values():
        odds = [candidate.log_odds for candidate in decision.candidates]
        assert odds == sorted(odds, reverse=True)
        assert len(decision.candidates) == min(decision.considered, 5)
        if decision.reason in (Reason.LINKED, Reason.JOINED, Reason.RETURNED):
            assert decision.vehicle_id in {candidate.vehicle_id for candidate in decision.candidates}
            assert decision.evidence is not None
            assert decision.score == pytest.approx(
                next(one.log_odds for one in decision.candidates if one.vehicle_id == decision.vehicle_id)
            )
