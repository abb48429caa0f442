import math

from hypothesis import given, settings
from hypothesis import strategies as st

from reid.modality import Modality
from streamer.config import LinkConfig, MatcherConfig
from streamer.matcher.decision import vehicle_id_of
from streamer.matcher.linker import Linker
from streamer.matcher.roads import RoadGraph
from streamer.matcher.tracklet import Tracklet
from tests.streamer.matcher.matcher_builders import CALIBRATION, links, tracklet


def _linker(road: tuple[LinkConfig, ...] | None = None) -> Linker:
    config = MatcherConfig(settle_s=3.0, time_to_live_s=100.0)
    return Linker(config, roads=RoadGraph(road, dwell_s=30.0), calibration=CALIBRATION)


def _vehicles(linker: Linker, tracklets: list[Tracklet]) -> dict[str, str]:
    for one in tracklets:
        linker.end(one)
    return {decision.tracklet_id: decision.vehicle_id for decision in linker.settle(math.inf).decisions}


def test_alike_is_linked_across_modalities_and_unlike_is_new() -> None:
    vehicles = _vehicles(
        _linker(),
        [
            tracklet("a/s/1", 0, 4, vehicle=1),
            tracklet("a/s/2", 1, 4.5, vehicle=2),
            tracklet("b/s/1", 10, 14, vehicle=2, modality=Modality.THERMAL),
            tracklet("b/s/2", 10, 14, vehicle=3, modality=Modality.THERMAL),
        ],
    )

    assert vehicles["b/s/1"] == vehicles["a/s/2"] == vehicle_id_of("a/s/2")
    assert len(set(vehicles.values())) == 3


def test_one_vehicle_is_not_twice_in_one_view_at_one_time() -> None:
    vehicles = _vehicles(_linker(), [tracklet("a/s/1", 0, 4, vehicle=1), tracklet("a/s/2", 2, 6, vehicle=1)])

    assert len(set(vehicles.values())) == 2


def test_nobody_is_faster_than_the_road_allows() -> None:
    road = links(("a", "b", 5, 30))

    too_fast = _vehicles(_linker(road), [tracklet("a/s/1", 0, 4, vehicle=1), tracklet("b/s/1", 6, 8, vehicle=1)])
    in_time = _vehicles(_linker(road), [tracklet("a/s/1", 0, 4, vehicle=1), tracklet("b/s/1", 10, 12, vehicle=1)])
    too_slow = _vehicles(_linker(road), [tracklet("a/s/1", 0, 4, vehicle=1), tracklet("b/s/1", 40, 42, vehicle=1)])

    assert [len(set(found.values())) for found in (too_fast, in_time, too_slow)] == [2, 1, 2]


def test_overlapping_views_may_show_one_vehicle_at_one_time() -> None:
    tracklets = [tracklet("a/s/1", 0, 4, vehicle=1), tracklet("b/s/1", 1, 5, vehicle=1)]

    apart = _vehicles(_linker(links(("a", "b", 1, 30))), tracklets)
    overlapping = _vehicles(_linker(links(("a", "b", 0, 30))), tracklets)

    assert (len(set(apart.values())), len(set(overlapping.values()))) == (2, 1)


def test_what_was_long_ago_is_forgotten() -> None:
    linker = _linker()
    first = _vehicles(linker, [tracklet("a/s/1", 0, 4, vehicle=1)])
    second = _vehicles(linker, [tracklet("b/s/1", 200, 204, vehicle=1)])

    assert set(first.values()) & set(second.values()) == set()
    assert len(linker) == 1


def test_a_window_is_not_decided_before_it_has_passed() -> None:
    linker = _linker()
    linker.end(tracklet("a/s/1", 0, 4, vehicle=1))

    assert linker.settle(5.9).decisions == []
    assert [decision.tracklet_id for decision in linker.settle(6.0).decisions] == ["a/s/1"]


def test_a_proposal_changes_nothing() -> None:
    linker = _linker()
    linker.propose(tracklet("a/s/1", 0, 4, vehicle=1))

    assert len(linker) == 0


_TRACKLETS = st.lists(
    st.builds(
        lambda camera, start, length, vehicle: (camera, start, start + length, vehicle),
        st.sampled_from("abc"),
        st.integers(0, 40),
        st.integers(1, 6),
        st.integers(0, 5),
    ),
    max_size=14,
)


@settings(deadline=None)
@given(_TRACKLETS, st.randoms(use_true_random=False), st.lists(st.floats(0, 60), max_size=4))
def test_neither_arrival_order_nor_batches_change_a_decision(
    rows: list[tuple[str, int, int, int]], random: object, watermarks: list[float]
) -> None:
    def build() -> list[Tracklet]:
        return [tracklet(f"{c}/s/{index}", start, end, vehicle) for index, (c, start, end, vehicle) in enumerate(rows)]

    straight = _vehicles(_linker(), build())
    shuffled = build()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    linker = _linker()
    for one in shuffled:
        linker.end(one)
    in_parts = [decision for mark in [*sorted(watermarks), math.inf] for decision in linker.settle(mark).decisions]

    assert {decision.tracklet_id: decision.vehicle_id for decision in in_parts} == straight
