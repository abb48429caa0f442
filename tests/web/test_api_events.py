"""Live events from a real server: as decisions are made, resumed, by camera, and ended in order."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from storage.accounts import Role, revoke_secret
from storage.errors import StorageError
from storage.matcher_state import DecisionEvent, load_assignments_after
from storage.writer import Writer
from tests.servers.need import free_port, wait_until
from tests.storage.storage_builders import assignment
from tests.web.api_site import add_vehicle, filled_site
from tests.web.asking import token
from tests.web.logged import logged
from web.api import events, feed
from web.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storage.database import Session
    from tests.web.asking import Asker

PATIENCE_S = 20.0


class Running:
    """The application of a small site on a port of this machine.

    Attributes:
        ask: The same, asked without a network.
        server: The server.
    """

    def __init__(self, ask: Asker) -> None:
        self.ask = ask
        self._port = free_port()
        config = uvicorn.Config(ask.app, port=self._port, log_level="critical")
        self.server = Server(config, ask.app.state.feed.close)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        wait_until(lambda: self.server.started, what="the server")

    @property
    def feed(self) -> feed.Feed:
        """What feeds the streams."""
        found: feed.Feed = self.ask.app.state.feed
        return found

    def add(self, number: int) -> None:
        """Has one decision more made."""
        add_vehicle(self.ask.services.database, number)

    def tell_to_stop(self) -> None:
        """As a signal does."""
        self.server.should_exit = True

    def stop(self) -> None:
        """Waits for the server's end."""
        self.tell_to_stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not end"

    @contextmanager
    def listening(self, secret: str, **headers: str) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a stream, as dicts of their fields; `comment` for a sign of life."""
        address = f"http://127.0.0.1:{self._port}/v1/events"
        given = {"Authorization": f"Bearer {secret}", **headers}
        with httpx.stream("GET", address, headers=given, timeout=PATIENCE_S) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in lines:
        if not line:
            yield event
            event = {}
            continue
        name, _, value = line.partition(":")
        event[name or "comment"] = value.strip()


def _decisions(stream: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        event = next(stream)
        if event.get("event") == "decision":
            found.append(json.loads(event["data"]) | {"id": int(event["id"])})
    return found


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(feed, "PERIOD_S", 0.05)
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.2)
    with filled_site(tmp_path) as ask:
        running = Running(ask)
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture
def secret(running: Running) -> str:
    """An operator's token."""
    return token(running.ask.services.database, "otto", role=Role.OPERATOR)


def test_decisions_are_told_as_they_are_made(running: Running, secret: str) -> None:
    with running.listening(secret) as stream:
        next(stream)
        running.add(50)
        running.add(51)
        first, second = _decisions(stream, 2)
    assert (first["vehicle_id"], first["tracklet_id"], first["camera"]) == ("v50", "yard/s1/50", "yard")
    assert (first["previous_vehicle_id"], first["correction_id"], first["decided_by"]) == (None, None, "matcher")
    assert first["id"] == first["number"] < second["number"]


def test_a_correction_is_told_with_whose_a_tracklet_was(running: Running, secret: str) -> None:
    with running.listening(secret) as stream:
        next(stream)
        deed = {"kind": "merge", "keep": "v03", "other": "v06"}
        made = running.ask.with_headers(Authorization=f"Bearer {secret}")("POST", "/v1/corrections", json=deed).json()
        moved, kept = sorted(_decisions(stream, 2), key=lambda one: one["tracklet_id"], reverse=True)
    assert (moved["tracklet_id"], moved["vehicle_id"], moved["previous_vehicle_id"]) == ("gate/s1/6", "v03", "v06")
    assert (kept["tracklet_id"], kept["vehicle_id"], kept["decided_by"]) == ("gate/s1/3", "v03", "otto")
    assert {moved["correction_id"], kept["correction_id"]} == {made["correction_id"]}


def test_whoever_comes_back_misses_and_repeats_nothing(
    running: Running, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "BATCH", 3)
    with running.listening(secret) as stream:
        next(stream)
        running.add(50)
        (last,) = _decisions(stream, 1)
    for number in range(51, 58):
        running.add(number)
    with running.listening(secret, **{"Last-Event-ID": str(last["id"])}) as stream:
        earlier = _decisions(stream, 7)
        running.add(58)
        told = earlier + _decisions(stream, 1)
    assert [one["vehicle_id"] for one in told] == [f"v{number}" for number in range(51, 59)]


def test_whoever_heard_nothing_before_the_stream_broke_off_misses_nothing_either(running: Running, secret: str) -> None:
    with running.listening(secret) as stream:
        begun = next(stream)["id"]
    running.add(50)
    with running.listening(secret, **{"Last-Event-ID": begun}) as stream:
        assert next(stream)["id"] == begun
        assert [one["vehicle_id"] for one in _decisions(stream, 1)] == ["v50"]


def test_all_listeners_are_fed_by_one_look_and_none_is_made_for_nobody(
    running: Running, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look(session: Session, after: int, limit: int) -> list[DecisionEvent]:
        looks.append(after)
        return load_assignments_after(session, after, limit)

    monkeypatch.setattr(feed, "load_assignments_after", look)
    with running.listening(secret) as first, running.listening(secret) as second:
        next(first)
        next(second)
        assert running.feed.listeners == 2
        running.add(50)
        assert [one["vehicle_id"] for one in _decisions(first, 1) + _decisions(second, 1)] == ["v50", "v50"]
    wait_until(lambda: running.feed.listeners == 0, what="both to be gone")
    wait_until(lambda: running.feed.is_idle, what="the last look")
    before = len(looks)
    running.add(51)
    with running.listening(secret) as stream:
        next(stream)
        running.add(52)
        assert [one["vehicle_id"] for one in _decisions(stream, 1)] == ["v52"]
    assert len(looks) > before


def test_listeners_wait_while_the_database_is_away_and_that_is_logged_once(
    running: Running, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def absent(_session: Session, after: int, _limit: int) -> list[DecisionEvent]:
        failures.append(after)
        raise StorageError("the database is away")

    with logged("web.api.feed") as said, running.listening(secret) as stream:
        next(stream)
        with monkeypatch.context() as patch:
            patch.setattr(feed, "load_assignments_after", absent)
            wait_until(lambda: len(failures) > 2, what="looks in vain")
            running.add(50)
        assert [one["vehicle_id"] for one in _decisions(stream, 1)] == ["v50"]
    assert said == ["events: the database is away; listeners wait"]


def test_what_nobody_expected_ends_the_streams_and_the_next_goes_on(
    running: Running, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_session: Session, _after: int, _limit: int) -> list[DecisionEvent]:
        raise ValueError("evidence that is no JSON")

    with running.listening(secret) as stream:
        begun = next(stream)["id"]
        with monkeypatch.context() as patch:
            patch.setattr(feed, "load_assignments_after", broken)
            assert next(event for event in stream if event.get("event") == "closed")
    running.add(50)
    with running.listening(secret, **{"Last-Event-ID": begun}) as stream:
        assert [one["vehicle_id"] for one in _decisions(stream, 1)] == ["v50"]
        running.add(51)
        assert [one["vehicle_id"] for one in _decisions(stream, 1)] == ["v51"]


def test_a_viewer_hears_of_their_cameras_alone(running: Running) -> None:
    database = running.ask.services.database
    with running.listening(token(database, "vera"), **{"Last-Event-ID": "0"}) as stream:
        with database.transaction() as session:
            Writer(session).assign(assignment("gate/s1/1", "v77"))
        running.add(50)
        heard = _decisions(stream, 9)
    assert {one["camera"] for one in heard} == {"yard"}
    assert heard[-1]["vehicle_id"] == "v50"
    # How sure a link is to what another camera saw would tell of that one.
    assert {one["probability"] for one in heard} == {None}
    with running.listening(token(database, "otto"), **{"Last-Event-ID": "0"}) as stream:
        assert any(one["probability"] for one in _decisions(stream, 9) if one["camera"] == "yard")


def test_a_listener_that_reads_too_slowly_is_told_so_and_counted(
    running: Running, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_WAITING", 0)
    with running.listening(secret) as stream:
        next(stream)
        running.add(50)
        closed = next(event for event in stream if event.get("event") == "closed")
        assert "slowly" in closed["data"]
        assert list(stream) == []
    assert running.feed.let_go == 1


def test_a_stream_ends_with_the_token_that_it_was_asked_with(running: Running, secret: str) -> None:
    with running.listening(secret) as stream:
        next(stream)
        with running.ask.services.database.transaction() as session:
            revoke_secret(session, secret)
        assert next(event for event in stream if event.get("event") == "closed")
    wait_until(lambda: running.feed.listeners == 0, what="the stream's end")


def test_the_server_ends_though_somebody_listens(running: Running, secret: str) -> None:
    with running.listening(secret) as stream:
        next(stream)
        running.tell_to_stop()
        closed = next(event for event in stream if event.get("event") == "closed")
        assert "server ends" in closed["data"]
    running.stop()


def test_more_than_may_are_asked_to_come_back(running: Running, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_LISTENERS", 1)
    with running.listening(secret) as stream:
        next(stream)
        answer = running.ask.with_headers(Authorization=f"Bearer {secret}")("GET", "/v1/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


def test_one_account_leaves_room_for_others(running: Running, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MAX_OF_ONE", 1)
    other = token(running.ask.services.database, "otto", role=Role.OPERATOR)
    with running.listening(secret) as stream:
        next(stream)
        answer = running.ask.with_headers(Authorization=f"Bearer {other}")("GET", "/v1/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
        assert answer.json()["detail"] == "otto listens 1 times already; close one"
        with running.listening(token(running.ask.services.database, "ada")) as another:
            next(another)
    wait_until(lambda: running.feed.listeners == 0, what="both to be gone")
    with running.listening(other) as stream:
        next(stream)


def test_nobody_listens_unknown(running: Running) -> None:
    answer = running.ask("GET", "/v1/events")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert running.feed.listeners == 0
