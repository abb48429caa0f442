from hypothesis import given
from hypothesis import strategies as st

from storage.replay import Pin
from streamer.kept_corrections import vehicles_of_pins
from tests.storage.storage_builders import START


def _pins(old: str) -> list[Pin]:
    """A letter a tracklet: the vehicle that a person gave it to; a dot: nobody spoke of it."""
    return [Pin(str(number), vehicle, "anna", START) for number, vehicle in enumerate(old) if vehicle != "."]


def _now(vehicles: str) -> dict[str, str]:
    return {str(number): vehicle for number, vehicle in enumerate(vehicles)}


def test_what_was_put_together_takes_the_name_that_most_of_it_has() -> None:
    assert vehicles_of_pins(_pins("xxx."), _now("uvvv")) == {"0": "v", "1": "v", "2": "v"}


def test_what_was_kept_apart_is_apart_and_keeps_its_own_name_where_that_is_free() -> None:
    assert vehicles_of_pins(_pins("xxy"), _now("uuu")) == {"0": "u", "1": "u", "2": "y"}


def test_a_name_that_another_vehicle_has_by_now_is_not_given() -> None:
    # Vehicle y of today is tracklet 3, of which nobody has spoken.
    found = vehicles_of_pins(_pins("xxy."), _now("uuuy"))

    assert found["2"] not in {"u", "y"}


def test_a_tracklet_that_is_not_there_is_passed_over() -> None:
    assert vehicles_of_pins(_pins("xx"), _now("u")) == {"0": "u"}


_LETTERS = st.text("uvwxyz", min_size=8, max_size=8)


@given(old=st.text("uvwxyz.", min_size=8, max_size=8), now=_LETTERS)
def test_a_persons_word_holds_and_others_are_left_alone(old: str, now: str) -> None:
    found = vehicles_of_pins(_pins(old), _now(now))

    pinned = [number for number, vehicle in enumerate(old) if vehicle != "."]
    assert sorted(found) == [str(number) for number in pinned]
    for one in pinned:
        for other in pinned:
            assert (found[str(one)] == found[str(other)]) == (old[one] == old[other])
    # A name is given to a group only if a tracklet of it has it already, or nobody has it.
    for vehicle in set(found.values()):
        own = [now[int(name)] for name in found if found[name] == vehicle]
        assert vehicle in own or vehicle not in now
