from collections.abc import Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from storage.replay import Membership
from streamer.partitions import Agreement, Change, Difference, Group, compare


def _partition(vehicles: str, cameras: str = "") -> list[Membership]:
    """A letter a tracklet: its vehicle; the tracklets are 0, 1, 2, all of camera `a` unless told."""
    seen = zip(vehicles, cameras or "a" * len(vehicles), strict=True)
    return [Membership(str(number), camera, vehicle) for number, (vehicle, camera) in enumerate(seen)]


def test_a_split_and_a_merge_worked_by_hand() -> None:
    # xxx of cameras a b b is split into two and one; y and z become one.
    found = compare(_partition("xxxyz", "abbab"), _partition("xxuyy", "abbab"))

    assert (found.tracklets, found.vehicles_before, found.vehicles_after, found.changed) == (5, 3, 3, 5)
    assert found.links == Agreement("all", before=3, after=2, kept=1)
    assert (found.links.precision, found.links.recall, found.links.f1) == (1 / 2, 1 / 3, 2 / 5)
    assert found.camera_links == (Agreement("a~b", 2, 2, 1), Agreement("b~b", 1, 0, 0))
    split, merged = found.regroupings
    assert (split.change, split.before) == (Change.SPLIT, (Group("x", ("0", "1", "2")),))
    assert split.after == (Group("x", ("0", "1")), Group("u", ("2",)))
    assert (merged.change, merged.after) == (Change.MERGED, (Group("y", ("3", "4")),))


def test_a_tracklet_that_goes_over_to_another_vehicle_is_moved() -> None:
    (only,) = compare(_partition("xxyy"), _partition("xyyy")).regroupings

    assert only.change is Change.MOVED
    assert only.tracklets == 4


def test_names_alone_are_no_change() -> None:
    found = compare(_partition("xxyz"), _partition("zzxy"))

    assert (found.changed, found.regroupings, found.links.f1) == (0, (), 1.0)


def test_without_links_there_is_nothing_to_divide() -> None:
    found = compare(_partition("xy"), _partition("xy"))

    assert (found.links.precision, found.links.recall, found.links.f1) == (None, None, None)


def test_what_one_side_does_not_know_is_left_out() -> None:
    found = compare(_partition("xxy"), _partition("xx"))

    assert (found.tracklets, found.left_out, found.vehicles_before) == (2, 1, 1)


_SIDE = st.text("uvwxyz", min_size=9, max_size=9)


@given(old=_SIDE, new=_SIDE, cameras=st.text("abc", min_size=9, max_size=9))
def test_figures_are_those_of_all_pairs_one_by_one(old: str, new: str, cameras: str) -> None:
    found = compare(_partition(old, cameras), _partition(new, cameras))

    def links(vehicles: str) -> set[tuple[int, int]]:
        return {pair for pair in combinations(range(9), 2) if vehicles[pair[0]] == vehicles[pair[1]]}

    def companions(vehicles: str, of: int) -> set[int]:
        return {other for other in range(9) if vehicles[other] == vehicles[of]}

    before, after = links(old), links(new)
    assert (found.links.before, found.links.after, found.links.kept) == (len(before), len(after), len(before & after))
    assert found.changed == sum(companions(old, one) != companions(new, one) for one in range(9))
    by_camera = {one.name: one.kept for one in found.camera_links if one.kept}
    kept = ["~".join(sorted(cameras[end] for end in pair)) for pair in before & after]
    assert by_camera == {name: kept.count(name) for name in kept}
    _check_regroupings(found, old, new)


def _check_regroupings(found: Difference, old: str, new: str) -> None:
    """Every changed tracklet stands in one regrouping, on both of its sides, with its vehicle."""
    for side, vehicles in (("before", old), ("after", new)):
        groups: Sequence[Group] = [group for one in found.regroupings for group in getattr(one, side)]
        assert sum(len(group.tracklets) for group in groups) == found.changed
        assert len({group.vehicle_id for group in groups}) == len(groups)
        assert all(vehicles[int(name)] == group.vehicle_id for group in groups for name in group.tracklets)
