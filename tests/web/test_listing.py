"""The list of vehicles: what an address asks for, and its parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import pytest

from storage.accounts import Role
from storage.database import Database
from tests.storage.storage_builders import START, store, tracklet
from tests.web.asking import site_file
from web import listing
from web.callers import Caller
from web.listing import FilterError, Filters, filters_of
from web.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BERLIN = ZoneInfo("Europe/Berlin")
ANNA = Caller("anna", Role.ADMIN)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Sixty vehicles, a second apart, at the gate; every tenth in the yard, too."""
    site = site_file(tmp_path)
    made = Services(site, Database.open(site.database))
    with made.database.transaction() as session:
        for number in range(60):
            at = float(number)
            store(session, tracklet("gate", number, start=at, end=at + 0.5), f"v{number:02}", frames=[number])
            if number % 10 == 0:
                store(session, tracklet("yard", number, start=at + 100, end=at + 101), f"v{number:02}")
    yield made
    made.close()


def test_times_without_a_zone_are_the_sites() -> None:
    found = filters_of({"start": "2026-01-01T13:00", "end": "2026-01-01T12:30:00+00:00"}, BERLIN)
    assert found.start == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert found.end == datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def test_an_address_names_the_filters_that_it_was_made_of() -> None:
    filters = Filters(start=datetime(2026, 1, 1, 12, tzinfo=BERLIN), camera="a & b", vehicle_class="car", min_cameras=2)
    address = urlsplit(filters.address())
    assert address.path == "/vehicles"
    assert filters_of(dict(parse_qsl(address.query)), BERLIN) == filters
    assert Filters().address() == "/vehicles"


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ({"start": "yesterday"}, "no date"),
        ({"start": "2026-01-02", "end": "2026-01-01"}, "ends before"),
        ({"modality": "x-ray"}, "band"),
        ({"min_cameras": "0"}, "no number"),
        ({"min_cameras": "9" * 5000}, "no number"),
        ({"min_cameras": "٣"}, "no number"),
    ],
)
def test_what_can_not_be_read_is_said(query: dict[str, str], fault: str) -> None:
    with pytest.raises(FilterError, match=fault):
        filters_of(query, BERLIN)


def test_parts_have_every_vehicle_once_latest_first(services: Services) -> None:
    filters = Filters()
    count = listing.how_many(services, ANNA, filters)
    rows = [row for number in range(3) for row in listing.part(services, ANNA, filters, number)]
    assert count == len(rows) == 60
    names = [row["href"].rsplit("/", 1)[-1] for row in rows]
    assert len(set(names)) == 60
    # Those that were in the yard were seen last.
    assert names[:6] == ["v50", "v40", "v30", "v20", "v10", "v00"]


def test_a_filter_counts_what_it_lists(services: Services) -> None:
    for filters in (
        Filters(camera="yard"),
        Filters(min_cameras=2),
        Filters(start=START + timedelta(seconds=10), end=START + timedelta(seconds=20)),
        Filters(vehicle_class="bus"),
    ):
        rows = listing.part(services, ANNA, filters, 0)
        assert listing.how_many(services, ANNA, filters) == len(rows)
    assert listing.how_many(services, ANNA, Filters(camera="yard")) == 6


def test_who_sees_one_camera_is_told_of_what_it_saw_alone(services: Services) -> None:
    mira = Caller("mira", Role.VIEWER, frozenset({"yard"}))
    rows = listing.part(services, mira, Filters(), 0)
    assert listing.how_many(services, mira, Filters()) == len(rows) == 6
    assert {row["cameras"] for row in rows} == {"yard"}
    assert all("gate" not in picture["src"] for row in rows for picture in row["pictures"])
    assert listing.how_many(services, mira, Filters(camera="gate")) == 0
