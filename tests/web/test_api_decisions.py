"""Decisions over HTTP: why, corrections and their undoing, watches; by role and camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from storage.accounts import Role
from tests.web.api_site import filled_site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web.asking import Asker


@pytest.fixture
def otto(tmp_path: Path) -> Iterator[Asker]:
    """As an operator."""
    with filled_site(tmp_path) as found:
        yield found.with_token("otto", Role.OPERATOR)


def test_why_tells_what_was_weighed_with_pictures(otto: Asker) -> None:
    why = otto("GET", "/v1/tracklets/yard/s1/1/why").json()
    (decision,) = why["decisions"]
    assert (decision["vehicle_id"], decision["reason"], decision["rule"]) == ("v01", "linked", "the best fit")
    (candidate,) = decision["candidates"]
    assert (candidate["tracklet_id"], candidate["is_chosen"], candidate["transit_s"]) == ("gate/s1/1", True, 3.0)
    assert candidate["crops"][0].startswith("/media/pictures/gate/s1/1.jpg?")
    assert why["words"][0].startswith("yard/s1/1: car at yard")
    assert not any(".jpg" in line for line in why["words"])


def test_why_tells_a_viewer_nothing_of_other_cameras(otto: Asker) -> None:
    vera = otto.with_token("vera")
    answer = vera("GET", "/v1/tracklets/yard/s1/1/why")
    assert answer.status_code == 200
    assert "gate" not in answer.text
    (decision,) = answer.json()["decisions"]
    assert decision["candidates"] == []
    assert (decision["transit_s"], decision["modality_pair"]) == (None, None)
    assert vera("GET", "/v1/tracklets/gate/s1/1/why").status_code == 404


def test_a_merge_and_its_undoing_are_seen_at_once(otto: Asker) -> None:
    merged = otto("POST", "/v1/corrections", json={"kind": "merge", "keep": "v01", "other": "v02", "note": "a dent"})
    assert merged.status_code == 201, merged.text
    made = merged.json()
    assert (made["kind"], made["made_by"], made["note"]) == ("merge", "otto", "a dent")
    stops = otto("GET", "/v1/vehicles/v01/trajectory").json()["stops"]
    assert [stop["tracklet_id"] for stop in stops] == ["gate/s1/1", "yard/s1/1", "gate/s1/2", "yard/s1/2"]
    assert otto("GET", "/v1/vehicles/v02/trajectory").status_code == 404
    undone = otto("POST", "/v1/corrections", json={"kind": "undo", "correction": made["correction_id"]})
    assert undone.status_code == 201
    assert len(otto("GET", "/v1/vehicles/v02/trajectory").json()["stops"]) == 2
    again = otto("POST", "/v1/corrections", json={"kind": "undo", "correction": made["correction_id"]})
    assert again.status_code == 409
    assert again.json()["detail"].startswith(f"correction {made['correction_id']}: taken back")


def test_the_other_kinds_of_correction(otto: Asker) -> None:
    confirmed = otto("POST", "/v1/corrections", json={"kind": "confirm", "tracklets": ["gate/s1/4", "yard/s1/4"]})
    assert confirmed.json()["kind"] == "confirm"
    split = otto("POST", "/v1/corrections", json={"kind": "split", "tracklets": ["yard/s1/5"]}).json()
    (change,) = [one for one in split["changes"] if one["tracklet_id"] == "yard/s1/5"]
    assert change["before"] == "v05"
    assert change["after"] != "v05"
    moved = otto("POST", "/v1/corrections", json={"kind": "move", "tracklets": ["yard/s1/5"], "to": "v07"}).json()
    assert [one["after"] for one in moved["changes"] if one["tracklet_id"] == "yard/s1/5"] == ["v07"]


def test_corrections_are_listed_latest_first_page_by_page(otto: Asker) -> None:
    for number in (1, 2, 4):
        otto("POST", "/v1/corrections", json={"kind": "split", "tracklets": [f"yard/s1/{number}"]})
    first = otto("GET", "/v1/corrections", params={"limit": 2}).json()
    then = otto("GET", "/v1/corrections", params={"limit": 2, "cursor": first["next"]}).json()
    numbers = [one["correction_id"] for one in first["items"] + then["items"]]
    assert numbers == sorted(numbers, reverse=True)
    assert (len(numbers), then["next"]) == (3, None)
    seen = otto.with_token("vera")("GET", "/v1/corrections")
    assert len(seen.json()["items"]) == 3
    assert "gate" not in seen.text


@pytest.mark.parametrize(
    "deed",
    [
        {"kind": "destroy"},
        {"kind": "merge", "keep": "v01"},
        {"kind": "split", "tracklets": []},
        {"kind": "split", "tracklets": ["yard/s1/1"] * 501},
        {"kind": "undo", "correction": 2**63},
        {"kind": "merge", "keep": "v01", "other": "v02", "note": "a\x00b"},
        {"kind": "merge", "keep": "v01", "other": "v02", "by": "somebody else"},
    ],
)
def test_a_deed_that_makes_no_sense_is_refused(otto: Asker, deed: dict[str, object]) -> None:
    answer = otto("POST", "/v1/corrections", json=deed)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_a_deed_that_names_nobody_is_not_found(otto: Asker) -> None:
    assert otto("POST", "/v1/corrections", json={"kind": "split", "tracklets": ["none/s1/1"]}).status_code == 404
    assert otto("POST", "/v1/watches", json={"vehicle_id": "nobody"}).status_code == 404
    assert otto("DELETE", "/v1/watches/77").status_code == 404
    assert otto("POST", "/v1/corrections", json={"kind": "undo", "correction": 77}).status_code == 404


def test_a_body_that_is_too_large_is_not_read(otto: Asker) -> None:
    answer = otto("POST", "/v1/corrections", json={"kind": "merge", "note": "x" * 300_000})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "address"), [("POST", "/v1/corrections"), ("POST", "/v1/watches"), ("DELETE", "/v1/watches/1")]
)
def test_a_viewer_decides_nothing(otto: Asker, method: str, address: str) -> None:
    answer = otto.with_token("vera")(method, address, json={"kind": "merge", "keep": "v01", "other": "v02"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert otto("GET", "/v1/corrections").json()["items"] == []


def test_a_vehicle_is_watched_until_nobody_wants_it(otto: Asker) -> None:
    made = otto("POST", "/v1/watches", json={"vehicle_id": "v01", "note": "left without paying"})
    assert made.status_code == 201
    number = made.json()["watch_id"]
    (listed,) = otto("GET", "/v1/watches").json()["items"]
    assert (listed["vehicle_id"], listed["made_by"], listed["last_camera"]) == ("v01", "otto", "yard")
    assert otto("POST", "/v1/watches", json={"vehicle_id": "v01"}).status_code == 409
    assert otto("DELETE", f"/v1/watches/{number}").status_code == 204
    assert otto("GET", "/v1/watches").json()["items"] == []
    assert [one["watch_id"] for one in otto("GET", "/v1/watches?ended=true").json()["items"]] == [number]
    assert otto("GET", "/v1/notices").json() == {"items": [], "next": None}


def test_doubts_are_told_only_of_what_may_be_seen(otto: Asker) -> None:
    doubts = otto("GET", "/v1/review").json()["items"]
    assert doubts
    assert {(one["camera"], one["other_camera"]) for one in doubts} == {("yard", "gate")}
    sure = [one["probability"] for one in doubts]
    assert sure == sorted(sure)
    assert otto.with_token("vera")("GET", "/v1/review").json()["items"] == []
