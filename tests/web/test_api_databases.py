"""The HTTP API's own ways of asking, on both databases: keys of pages, and text that a database may refuse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from storage.accounts import Role
from tests.storage.storage_builders import counted
from tests.web.api_site import VEHICLES, add_vehicle, fill, name_of, passes_yard
from tests.web.asking import Asker, account, site_file
from web.api.feed import Feed
from web.app import create_api
from web.callers import Caller
from web.services import Services

if TYPE_CHECKING:
    from pathlib import Path

    from storage.database import Database


pytest_plugins = ("tests.storage.storage_fixtures",)


@pytest.fixture
def ask(database: Database, tmp_path: Path) -> Asker:
    """As an administrator, of a small site in each kind of database."""
    with database.transaction() as session:
        fill(session)
    services = Services(site_file(tmp_path), database)
    account(database, "ada", Role.ADMIN)
    return Asker(create_api(services), services).with_token("ada", Role.ADMIN)


def _all(ask: Asker, address: str, **asked: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any filter
    found, cursor = [], ""
    while cursor is not None:
        answer = ask("GET", address, params={**asked, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        cursor = answer.json()["next"]
    return found


def test_pages_fit_together(ask: Asker) -> None:
    assert [one["vehicle_id"] for one in _all(ask, "/v1/vehicles", limit=5)] == [name_of(n) for n in range(VEHICLES)]
    for number in (1, 2, 4):
        made = ask("POST", "/v1/corrections", json={"kind": "split", "tracklets": [f"yard/s1/{number}"]})
        assert made.status_code == 201, made.text
    assert [one["kind"] for one in _all(ask, "/v1/corrections", limit=1)] == ["split"] * 3
    before = _all(ask, "/v1/audit", limit=500)
    # Each of these asks is noted itself, in front of what was there.
    after = _all(ask, "/v1/audit", limit=2)
    assert after[-len(before) :] == before
    assert [one["number"] for one in after] == sorted({one["number"] for one in after}, reverse=True)


def test_no_text_is_a_fault_of_the_servers(ask: Asker) -> None:
    addresses = (
        "/v1/vehicles?camera={}",
        "/v1/vehicles?vehicle_class={}",
        "/v1/vehicles?cursor={}",
        "/v1/vehicles/{}/trajectory",
        "/v1/tracklets/{}/why",
        "/v1/similar?tracklet={}",
        "/v1/audit?person={}",
        "/v1/audit?vehicle={}",
    )
    texts = ("a'b", "a;b", "a\\b", "a%b", "a_b", "\0", "\u00fc", "a\nb", "\u2028", "\U0001f697")
    asked = [address.format(quote(text, safe="")) for address in addresses for text in texts]
    assert {address for address in asked if ask("GET", address).status_code not in (200, 404, 422)} == set()


def test_a_question_is_answered_by_as_few_statements_for_many_as_for_one(ask: Asker) -> None:
    with ask.services.database.snapshot() as session, counted(session) as one:
        ask("GET", "/v1/vehicles?limit=1")
    with ask.services.database.snapshot() as session, counted(session) as many:
        ask("GET", "/v1/vehicles?limit=500")
    assert many.count == one.count


def test_what_is_decided_reaches_a_listener_and_what_was_before_can_be_had(ask: Asker) -> None:
    async def heard() -> list[str]:
        feed = Feed(ask.services.database)
        listener = await feed.join(Caller("anna", Role.VIEWER, frozenset({"yard"})))
        add_vehicle(ask.services.database, 50)
        told = await listener.next(20.0)
        earlier = [one async for found in feed.since(listener.caller, 0, listener.position) for one in found]
        feed.leave(listener)
        feed.close()
        return [one.said.vehicle_id for one in earlier + told]

    assert asyncio.run(heard()) == [*(name_of(n) for n in range(VEHICLES) if passes_yard(n)), "v50"]
