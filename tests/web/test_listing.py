"""The list of vehicles: what an address asks for, and its parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import pytest

from storage.accounts import Role
from storage.corrections import merge
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
    listed = listing.opened(services, ANNA, Filters())
    rows = [row for number in range(3) for row in listing.part(services, ANNA, listed, number)]
    assert len(listed.ids) == len(rows) == 60
    names = [row["href"].rsplit("/", 1)[-1] for row in rows]
    assert len(set(names)) == 60
    # Those that were in the yard were seen last.
    assert names[:6] == ["v50", "v40", "v30", "v20", "v10", "v00"]


def test_a_list_stays_as_it_was_opened_whatever_comes(services: Services) -> None:
    listed = listing.opened(services, ANNA, Filters())
    before = [row["name"] for row in listing.part(services, ANNA, listed, 1)]
    assert listing.newer(services, ANNA, listed) == 0
    with services.database.transaction() as session:
        # One that is new, one that comes back, and one that is given to another.
        store(session, tracklet("gate", 90, start=900, end=901), "v90")
        store(session, tracklet("yard", 91, start=900, end=901), "v05")
        merge(session, "v08", "v07", by="anna", at=START)
    rows = listing.part(services, ANNA, listed, 1)
    assert [row["id"] for row in rows] == listed.ids[50:]
    assert {"v05", "v07", "v08"} < set(listed.ids[50:])
    gone = rows[listed.ids.index("v07") - 50]
    assert (gone["href"], gone["pictures"]) == ("/vehicles/v07", [])
    assert "given to another" in gone["when"]
    assert [row["name"] for row in rows if row is not gone] == [name for name in before if name != "car v07"]
    assert listing.newer(services, ANNA, listed) == 2
    assert listing.opened(services, ANNA, Filters()).ids[:2] == ["v90", "v05"]


def test_newer_ones_are_those_that_the_filters_let_through(services: Services) -> None:
    empty = listing.opened(services, ANNA, Filters(camera="yard", start=START + timedelta(seconds=500)))
    assert (empty.ids, empty.seen_at) == ([], None)
    past = listing.opened(services, ANNA, Filters(end=START + timedelta(seconds=20)))
    with services.database.transaction() as session:
        store(session, tracklet("gate", 90, start=900, end=901), "v90")
        assert listing.newer(services, ANNA, empty) == 0
        store(session, tracklet("yard", 91, start=902, end=903), "v91")
    assert listing.newer(services, ANNA, empty) == 1
    assert listing.newer(services, ANNA, past) == 0


def test_a_filter_lists_what_it_lets_through(services: Services) -> None:
    for filters, wanted in (
        (Filters(camera="yard"), 6),
        (Filters(min_cameras=2), 6),
        (Filters(start=START + timedelta(seconds=10), end=START + timedelta(seconds=20)), 10),
        (Filters(vehicle_class="bus"), 0),
    ):
        listed = listing.opened(services, ANNA, filters)
        assert len(listing.part(services, ANNA, listed, 0)) == len(listed.ids) == wanted


def test_who_sees_one_camera_is_told_of_what_it_saw_alone(services: Services) -> None:
    mira = Caller("mira", Role.VIEWER, frozenset({"yard"}))
    listed = listing.opened(services, mira, Filters())
    rows = listing.part(services, mira, listed, 0)
    assert len(listed.ids) == len(rows) == 6
    assert {row["cameras"] for row in rows} == {"yard"}
    assert all("gate" not in picture["src"] for row in rows for picture in row["pictures"])
    assert listing.opened(services, mira, Filters(camera="gate")).ids == []
    with services.database.transaction() as session:
        store(session, tracklet("gate", 90, start=900, end=901), "v90")
    assert listing.newer(services, mira, listed) == 0
