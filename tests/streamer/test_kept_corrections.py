from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from storage.corrections import confirm, undo
from storage.database import Database
from storage.labels import SaidPair, said_pairs
from storage.replay import Pin, load_pins, memberships
from storage.writer import Writer
from streamer.kept_corrections import keep_corrections, vehicles_of_pins
from tests.storage.storage_builders import START, store, tracklet


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


def test_pairs_that_were_confirmed_are_so_of_the_new_run_too() -> None:
    names, databases = [f"gate/s1/{number}" for number in range(4)], [Database.open("sqlite://") for _ in range(2)]
    by: dict[str, Any] = {"by": "anna", "at": START}
    for database, letters in zip(databases, ("xxyz", "uuuw"), strict=True):
        with database.transaction() as session:
            for number, vehicle in enumerate(letters):
                store(session, tracklet(number=number), vehicle)
    old, new = databases
    with old.transaction() as session:
        confirm(session, names[:3], **by, note="by their roofs")
        undo(session, confirm(session, names[2:], **by).correction_id, **by)
        pins, said = load_pins(session), said_pairs(session)
    with new.transaction() as session:
        now = {one.tracklet_id: one.vehicle_id for one in memberships(session)}
        assert keep_corrections(pins, said, now, Writer(session)) == 3
        assert _pairs(said_pairs(session)) == _pairs(said) == {(0, 1, True), (0, 2, False), (1, 2, False)}
    for database in databases:
        database.close()


def _pairs(said: list[SaidPair]) -> set[tuple[int, int, bool]]:
    return {(int(pair.first[-1]), int(pair.second[-1]), pair.is_same) for pair in said}


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
