"""A vehicle is held and released by an operator's word, and noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storage.accounts import Role
from storage.audit import entries
from storage.errors import StorageError, VehicleNotFoundError
from tests.web.api_site import fill, name_of
from tests.web.asking import small_site
from web import holding, reviewing
from web.callers import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from web.services import Services

OTTO, VERA = Caller("otto", Role.OPERATOR), Caller("vera", Role.VIEWER)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Twelve vehicles at two cameras."""
    with small_site(tmp_path) as ask:
        with ask.services.database.transaction() as session:
            fill(session)
        yield ask.services


def test_a_vehicle_is_held_released_and_told_of(services: Services) -> None:
    assert holding.held(services, OTTO, name_of(1)) == []
    new = holding.hold(services, OTTO, name_of(1), note="case 17/26")
    assert new == ["gate/s1/1", "yard/s1/1"]
    told = holding.held(services, OTTO, name_of(1))
    assert {(one.tracklet_id, one.held_by, one.note) for one in told} == {(name, "otto", "case 17/26") for name in new}
    assert holding.held(services, OTTO, name_of(2)) == []
    assert holding.release(services, OTTO, name_of(1)) == new
    assert holding.held(services, OTTO, name_of(1)) == []
    with services.database.snapshot() as session:
        noted = [(one.action, one.person, one.details) for one in entries(session, vehicle=name_of(1))]
    assert ("hold", "otto", {"note": "case 17/26"}) in noted
    assert ("release", "otto", {}) in noted


def test_a_vehicle_without_stops_is_not_said_to_be_held(services: Services) -> None:
    reviewing.merge(services, OTTO, name_of(1), name_of(2))
    with pytest.raises(VehicleNotFoundError, match=r"v02: its tracklets have been given to other vehicles: hold those"):
        holding.hold(services, OTTO, name_of(2))


def test_a_viewer_holds_nothing_and_is_not_told(services: Services) -> None:
    for deed in (holding.hold, holding.release, holding.held):
        with pytest.raises(StorageError, match="vera is a viewer: to hold is left to operators"):
            deed(services, VERA, name_of(1))
