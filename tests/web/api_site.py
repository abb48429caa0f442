"""A small site with vehicles that have passed its two cameras, for tests of the HTTP API."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from storage.accounts import Role
from storage.records import AssignmentRecord, CameraRecord
from storage.writer import Writer
from tests.storage.storage_builders import assignment, store, tracklet
from tests.web.asking import account, small_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.database import Database, Session
    from tests.web.asking import Asker

#: Vehicles of `fill`; each passes the gate, and all but every third one the yard five seconds later.
VEHICLES = 12


def name_of(number: int) -> str:
    """A vehicle's id."""
    return f"v{number:02}"


def passes_yard(number: int) -> bool:
    """Whether that vehicle went on to the yard."""
    return number % 3 != 0


def fill(session: Session) -> None:
    """Has the vehicles pass, ten seconds apart."""
    writer = Writer(session)
    writer.register_cameras([CameraRecord("gate", "main", "visible"), CameraRecord("yard", "main", "visible")])
    for number in range(VEHICLES):
        begin = 10.0 * number
        kind = "truck" if number % 4 == 0 else "car"
        first = tracklet("gate", number, start=begin, end=begin + 2, vehicle_class=kind)
        store(session, first, name_of(number), frames=range(number * 100, number * 100 + 3))
        if passes_yard(number):
            then = tracklet("yard", number, start=begin + 5, end=begin + 7, vehicle_class=kind)
            store(session, then)
            writer.assign(_linked(then.tracklet_id, first.tracklet_id, number))


def _linked(tracklet_id: str, earlier: str, number: int) -> AssignmentRecord:
    said = assignment(tracklet_id, name_of(number), reason="linked", score=0.2 + number / 10)
    candidates = [
        {"vehicle_id": name_of(number), "tracklet_id": earlier, "camera": "gate", "probability": 0.6, "transit_s": 3.0}
    ]
    evidence = {"rule": "the best fit", "considered": 3, "candidates": candidates, "halved": True}
    return replace(said, evidence=evidence, modality_pair="visible~visible", transit_s=3.0, margin=1.0)


def add_vehicle(database: Database, number: int) -> None:
    """One vehicle more passes the yard alone."""
    with database.transaction() as session:
        store(session, tracklet("yard", number, start=10.0 * number, end=10.0 * number + 1), name_of(number))


@contextmanager
def filled_site(folder: Path) -> Iterator[Asker]:
    """The application of a small site with vehicles, and an account for each role: `vera` sees the yard alone."""
    with small_site(folder) as ask:
        with ask.services.database.transaction() as session:
            fill(session)
        account(ask.services.database, "ada", Role.ADMIN)
        account(ask.services.database, "otto", Role.OPERATOR)
        account(ask.services.database, "vera", Role.VIEWER, cameras=("yard",))
        yield ask
