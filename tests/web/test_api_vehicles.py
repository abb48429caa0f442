"""Vehicles over HTTP: whole pages, filters, ways, and nothing of cameras that somebody may not see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from storage.accounts import Role
from storage.records import CameraRecord
from storage.writer import Writer
from tests.web.api_site import VEHICLES, add_vehicle, filled_site, name_of, passes_yard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web.asking import Asker

ALL = [name_of(number) for number in range(VEHICLES)]
IN_YARD = [name_of(number) for number in range(VEHICLES) if passes_yard(number)]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """As an administrator; for tests that change nothing."""
    with filled_site(tmp_path_factory.mktemp("site")) as found:
        yield found.with_token("ada", Role.ADMIN)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Asker]:
    """As `ask`, of a site of one's own."""
    with filled_site(tmp_path) as found:
        yield found.with_token("ada", Role.ADMIN)


def pages(ask: Asker, address: str, **asked: Any) -> list[list[dict[str, Any]]]:  # noqa: ANN401 - any filter
    """All pages of a list."""
    found, cursor = [], None
    while True:
        given = {**asked, **({} if cursor is None else {"cursor": cursor})}
        answer = ask("GET", address, params=given)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        cursor = answer.json()["next"]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 5, 12, 13])
@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_have_every_vehicle_once_and_in_order(ask: Asker, limit: int, newest_first: bool) -> None:
    found = pages(ask, "/v1/vehicles", limit=limit, newest_first=newest_first)
    ids = [vehicle["vehicle_id"] for page in found for vehicle in page]
    assert ids == (ALL[::-1] if newest_first else ALL)
    assert all(len(page) == limit for page in found[:-1])
    assert 0 < len(found[-1]) <= limit


def test_what_is_added_between_two_pages_neither_doubles_nor_hides_another(fresh: Asker) -> None:
    first = fresh("GET", "/v1/vehicles", params={"limit": 4, "newest_first": True}).json()
    add_vehicle(fresh.services.database, 50)
    then = fresh("GET", "/v1/vehicles", params={"limit": 50, "newest_first": True, "cursor": first["next"]}).json()
    assert [one["vehicle_id"] for one in first["items"] + then["items"]] == ALL[::-1]


def test_a_filter_and_its_count_agree(ask: Asker) -> None:
    trucks = {"vehicle_class": "truck", "camera": "yard", "start": "2026-01-01T12:00:30Z", "modality": "visible"}
    found = [one["vehicle_id"] for page in pages(ask, "/v1/vehicles", **trucks) for one in page]
    assert found == [name_of(4), name_of(8)]
    assert ask("GET", "/v1/vehicles/count", params=trucks).json() == {"count": 2}
    assert ask("GET", "/v1/vehicles/count").json() == {"count": VEHICLES}
    assert ask("GET", "/v1/vehicles/count", params={"min_cameras": 2}).json() == {"count": len(IN_YARD)}


def test_times_may_be_given_in_any_zone_and_come_in_utc(ask: Asker) -> None:
    asked = {"start": "2026-01-01T13:01:40+01:00", "limit": 1}
    (vehicle,) = ask("GET", "/v1/vehicles", params=asked).json()["items"]
    assert (vehicle["vehicle_id"], vehicle["first_seen"]) == (name_of(10), "2026-01-01T12:01:40Z")


@pytest.mark.parametrize(("end", "count"), [("0001-01-01T00:00:00+14:00", 0), ("9999-12-31T23:59:59-14:00", VEHICLES)])
def test_a_time_beyond_all_others_is_taken_as_one(ask: Asker, end: str, count: int) -> None:
    assert ask("GET", "/v1/vehicles/count", params={"end": end}).json() == {"count": count}


def test_crops_come_as_addresses_that_are_signed(ask: Asker) -> None:
    vehicle = ask("GET", "/v1/vehicles", params={"limit": 1}).json()["items"][0]
    path, _, query = vehicle["crops"]["visible"].partition("?")
    asked = dict(part.split("=") for part in query.split("&"))
    assert ask.services.links.is_good(path, asked["expires"], asked["signature"])


def test_a_way_has_its_stops_and_where_asked_for_every_box(ask: Asker) -> None:
    plain = ask("GET", "/v1/vehicles/v01/trajectory").json()
    assert [stop["camera"] for stop in plain["stops"]] == ["gate", "yard"]
    assert [stop["path"] for stop in plain["stops"]] == [None, None]
    whole = ask("GET", "/v1/vehicles/v01/trajectory", params={"path": True}).json()
    path = whole["stops"][0]["path"]
    assert path["frame"] == [100, 101, 102]
    assert path["seconds"] == [0.0, 0.1, 0.2]
    assert path["box"][0] == [100.0, 100.0, 120.5, 110.25]


@pytest.mark.parametrize(
    ("address", "culprit"),
    [
        ("/v1/vehicles?limit=0", "limit"),
        ("/v1/vehicles?limit=501", "limit"),
        ("/v1/vehicles?camera=%00", "camera"),
        ("/v1/vehicles?start=2026-01-01", "start"),
        ("/v1/vehicles?end=2026-02-30T00:00:00Z", "end"),
        ("/v1/vehicles?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "end"),
        ("/v1/counts?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "end"),
        ("/v1/similar?tracklet=yard/s1/1&start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "end"),
        ("/v1/vehicles?colour=red", "colour"),
        ("/v1/vehicles?cursor=nonsense", "cursor"),
        ("/v1/vehicles?min_cameras=99999999999999999999", "min_cameras"),
        ("/v1/passages?first=gate&then=yard&within_s=nan", "within_s"),
        ("/v1/vehicles/%27/trajectory", "vehicle_id"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_in_one_line(ask: Asker, address: str, culprit: str) -> None:
    answer = ask("GET", address)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["detail"].startswith(f"{culprit}: ")
    assert "\n" not in said["detail"]


def test_a_cursor_of_another_question_is_refused(ask: Asker) -> None:
    cursor = ask("GET", "/v1/vehicles", params={"limit": 1}).json()["next"]
    answer = ask("GET", "/v1/vehicles", params={"cursor": cursor, "newest_first": True})
    assert answer.status_code == 422


def test_what_is_not_there_is_a_problem_too(ask: Asker) -> None:
    assert ask("GET", "/v1/vehicles/nobody/trajectory").json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "vehicle nobody: not known",
    }
    assert ask("GET", "/v1/nothing").headers["content-type"] == "application/problem+json"
    refused = ask("DELETE", "/v1/vehicles")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


def test_a_fault_of_the_request_is_told_without_what_was_given(ask: Asker) -> None:
    answer = ask("GET", "/v1/vehicles", params={"camera": "my secret!"})
    assert answer.status_code == 422
    assert "secret" not in answer.text


def test_a_viewer_of_one_camera_sees_nothing_of_another(ask: Asker) -> None:
    vera = ask.with_token("vera")
    found = [one for page in pages(vera, "/v1/vehicles", limit=3) for one in page]
    assert [one["vehicle_id"] for one in found] == IN_YARD
    assert {tuple(one["cameras"]) for one in found} == {("yard",)}
    assert vera("GET", "/v1/vehicles/count").json() == {"count": len(IN_YARD)}
    assert vera("GET", "/v1/vehicles", params={"camera": "gate"}).json()["items"] == []
    way = vera("GET", f"/v1/vehicles/{IN_YARD[0]}/trajectory")
    assert [stop["camera"] for stop in way.json()["stops"]] == ["yard"]
    assert "gate" not in way.text
    assert vera("GET", f"/v1/vehicles/{name_of(0)}/trajectory").status_code == 404
    assert [one["camera"] for one in vera("GET", "/v1/cameras").json()["items"]] == ["yard"]
    assert vera("GET", "/v1/site").json()["cameras"] == 1
    for address in (
        "/v1/counts",
        "/v1/dwell-times",
        "/v1/journey-times",
        "/v1/passages?first=gate&then=yard&within_s=9",
    ):
        answer = vera("GET", address)
        assert answer.status_code == 200
        assert "gate" not in answer.text


def test_journeys_are_told_page_by_page(ask: Asker) -> None:
    asked = {"first": "gate", "then": "yard", "within_s": 60, "limit": 3}
    passed = [one for page in pages(ask, "/v1/passages", **asked) for one in page]
    assert [one["vehicle_id"] for one in passed] == IN_YARD
    assert {one["travel_s"] for one in passed} == {3.0}
    assert ask("GET", "/v1/passages", params={**asked, "within_s": 2.9}).json()["items"] == []
    (journey,) = ask("GET", "/v1/journey-times").json()["items"]
    assert (journey["first"], journey["then"], journey["journeys"]) == ("gate", "yard", len(IN_YARD))
    dwells = [one for page in pages(ask, "/v1/dwell-times", limit=1) for one in page]
    assert [(one["camera"], one["visits"]) for one in dwells] == [("gate", VEHICLES), ("yard", len(IN_YARD))]
    counts = [one for page in pages(ask, "/v1/counts", every_s=60, limit=2) for one in page]
    assert sum(one["vehicles"] for one in counts if one["camera"] == "gate") == VEHICLES
    assert len({(one["start"], one["camera"], one["vehicle_class"]) for one in counts}) == len(counts)
    together = ask("GET", "/v1/vehicles/v01/companions", params={"within_s": 10}).json()["items"]
    assert [one["vehicle_id"] for one in together] == [name_of(2)]


def test_every_question_is_noted_before_it_is_answered(fresh: Asker) -> None:
    fresh("GET", "/v1/vehicles", params={"camera": "gate"})
    fresh("GET", "/v1/vehicles/v01/trajectory")
    notes = [one for page in pages(fresh, "/v1/audit", limit=2) for one in page]
    told = [(one["person"], one["action"], one["subject"]) for one in notes]
    assert told[-2:] == [("ada", "trajectory", "v01"), ("ada", "vehicles", "")]
    assert notes[-1]["details"] == {"camera": "gate"}
    assert [one["number"] for one in notes] == sorted((one["number"] for one in notes), reverse=True)
    assert fresh.with_token("otto", Role.OPERATOR)("GET", "/v1/audit").status_code == 403


def test_a_way_can_be_drawn_on_a_map_where_cameras_are_placed_on_the_earth(fresh: Asker) -> None:
    refused = fresh("GET", "/v1/vehicles/v01/trajectory.geojson")
    assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
    with fresh.services.database.transaction() as session:
        placed = [CameraRecord("gate", "main", "visible", lat=48.1, lon=11.5)]
        Writer(session).register_cameras([*placed, CameraRecord("yard", "main", "visible", lat=48.2, lon=11.6)])
    answer = fresh("GET", "/v1/vehicles/v01/trajectory.geojson")
    assert answer.headers["content-type"] == "application/geo+json"
    (feature,) = answer.json()["features"]
    assert feature["geometry"] == {"type": "LineString", "coordinates": [[11.5, 48.1], [11.6, 48.2]]}
    (seen,) = fresh.with_token("vera")("GET", "/v1/vehicles/v01/trajectory.geojson").json()["features"]
    assert seen["geometry"] == {"type": "Point", "coordinates": [11.6, 48.2]}
    assert "gate" not in str(seen)
