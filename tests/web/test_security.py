"""Attacks on the whole API: SQL and markup in whatever can be said, roles that aren't one's own."""

from __future__ import annotations

import json
import re
import struct
import zlib
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import inspect, text
from websockets import Origin
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from storage.accounts import Kind, Role
from storage.database import Database
from storage.records import CameraRecord, CameraStatus
from storage.watches import watch
from storage.writer import Writer
from tests.storage.storage_builders import store, tracklet
from tests.web.api_site import VEHICLES, filled_site, name_of, passes_yard
from tests.web.asking import HERE, account, site_file, token
from tests.web.browser import Witness, chromium, page_server
from web.callers import EndedError
from web.logins import caller_with, log_out
from web.services import WatchHealth
from web.watch_desk import followed, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.web.asking import Asker

pytest_plugins = ("tests.web.pillow",)

SQL = (
    "' OR '1'='1",
    "'; DROP TABLE tracklets; --",
    "gate' UNION SELECT name || password FROM accounts --",
    '") OR 1=1 --',
    "%",
    "v%_",
    "\\",
    "\x00",
    "1; SELECT pg_sleep(9)",
    "٣",
    "9" * 400,
)
#: What every question is asked with besides.
OTHERWISE = {
    "vehicle_id": "v01",
    "tracklet_id": "yard/s1/1",
    "tracklet": "yard/s1/1",
    "watch_id": "1",
    "first": "gate",
    "then": "yard",
    "within_s": "60",
}
#: What changes something, by method.
DEEDS = ("post", "put", "patch", "delete")


def _png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, all black, of some kilobytes however large it is."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes((width // 8 + 1) * min(height, 1000)), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asker]:
    """Twelve vehicles at two cameras; `vera` may see the yard alone."""
    with filled_site(tmp_path) as asker:
        yield asker


def _operations(ask: Asker) -> list[tuple[str, str, dict[str, Any]]]:
    paths = ask.app.openapi()["paths"]
    found = [(method, path, about) for path, methods in paths.items() for method, about in methods.items()]
    assert len(found) > 10
    return found


def _address(path: str, parts: dict[str, str]) -> str:
    for name, value in parts.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def _contents(database: Database) -> dict[str, int]:
    """Rows of each table, but of notes on who asked and of what proves it."""
    with database.snapshot() as session:
        names = set(inspect(session.connection()).get_table_names()) - {"audit"}
        return {name: session.scalar(text(f'SELECT count(*) FROM "{name}"')) or 0 for name in sorted(names)}


@pytest.mark.parametrize("who", ["vera", "ada"])
def test_sql_in_a_parameter_is_a_value_that_nothing_has(ask: Asker, who: str) -> None:
    asks = ask.with_token(who, Role.ADMIN if who == "ada" else Role.VIEWER)
    before = _contents(ask.services.database)
    tried = 0
    for method, path, about in _operations(ask):
        if method != "get":
            continue
        for parameter in about.get("parameters", ()):
            given = {one["name"]: OTHERWISE[one["name"]] for one in about["parameters"] if one["name"] in OTHERWISE}
            for attack in SQL:
                answer = _asked(asks, path, parameter, given, attack)
                tried += 1
                assert answer.status_code < 500, (path, parameter["name"], attack, answer.text)
                assert "$argon2" not in answer.text
                if who == "vera" and answer.status_code == 200:
                    assert "gate/" not in answer.text, (path, parameter["name"], attack)
    assert tried > 300
    assert _contents(ask.services.database) == before


def _asked(asks: Asker, path: str, parameter: dict[str, Any], given: dict[str, str], attack: str) -> Any:  # noqa: ANN401
    name, place = parameter["name"], parameter["in"]
    parts = {**given, name: attack}
    in_path = {key: value for key, value in parts.items() if f"{{{key}}}" in path}
    query = {key: value for key, value in parts.items() if key not in in_path and (key != name or place == "query")}
    headers = {name: attack.encode("utf-8").replace(b"\0", b"?")} if place == "header" else {}
    return asks("GET", _address(path, in_path), params=query, headers=headers)


@pytest.mark.parametrize("attack", SQL)
def test_sql_in_a_body_changes_nothing(ask: Asker, attack: str) -> None:
    asks = ask.with_token("otto", Role.OPERATOR)
    before = _contents(ask.services.database)
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/watches", {"vehicle_id": attack}),
        ("/v1/corrections", {"kind": attack}),
        *(
            ("/v1/corrections", {"kind": kind, "vehicle_id": attack, "other": attack, "tracklet_ids": [attack]})
            for kind in ("merge", "split", "move", "confirm", "undo")
        ),
    ]
    for path, body in bodies:
        answer = asks("POST", path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, (path, body, answer.text)
    assert _contents(ask.services.database) == before


def test_nobody_asks_anything_unproved(ask: Asker) -> None:
    for method, path, _ in _operations(ask):
        answer = ask(method.upper(), _address(path, OTHERWISE), headers={"Origin": HERE})
        assert answer.status_code == 401, (method, path)


def test_a_viewer_does_nothing_and_reads_no_audit(ask: Asker) -> None:
    viewer = ask.with_token("vera")
    before = _contents(ask.services.database)
    tried = []
    for method, path, _ in _operations(ask):
        if method in DEEDS and path != "/v1/similar":
            tried.append(path)
            assert viewer(method.upper(), _address(path, OTHERWISE), json={}).status_code == 403, (method, path)
    assert len(tried) >= 3
    assert viewer("GET", "/v1/audit").status_code == 403
    assert ask.with_token("otto", Role.OPERATOR)("GET", "/v1/audit").status_code == 403
    assert ask.with_token("ada", Role.OPERATOR)("GET", "/v1/audit").status_code == 403  # a token of less than she may
    assert ask.with_token("ada", Role.ADMIN)("GET", "/v1/audit").status_code == 200
    assert _contents(ask.services.database) == {**before, "access_tokens": before["access_tokens"] + 3}


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (_png(50_000, 50_000), 422, "pixels: at most"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, "this is no picture"),
        (b"GIF89a" + bytes(64), 422, "this is no picture"),
        (_png(8, 8)[:40], 422, "picture"),
        (b"", 422, "this is no picture"),
        (bytes(9 << 20), 413, "bytes are taken"),
    ],
)
def test_a_picture_that_is_made_to_hurt_is_refused(ask: Asker, data: bytes, status: int, said: str) -> None:
    answer = ask.with_token("vera")(
        "POST",
        "/v1/similar",
        files={"picture": ("../../x.png", data, "image/png")},
        data={"picture_modality": "visible"},
    )
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert re.search(said, answer.text)


def test_every_question_is_noted_with_who_asked(ask: Asker) -> None:
    ask.with_token("vera")("GET", "/v1/vehicles", params={"camera": "yard"})
    with ask.services.database.snapshot() as session:
        noted = session.execute(text("SELECT person, action FROM audit")).all()
    assert [tuple(row) for row in noted] == [("vera", "vehicles")]


def test_what_somebody_has_open_is_noted_once_and_ends_with_their_login(ask: Asker) -> None:
    services, secret = ask.services, token(ask.services.database, "vera", kind=Kind.SESSION)
    vera = caller_with(services.database, secret, Kind.SESSION)
    assert vera is not None
    services.watch = WatchHealth(3, "postgresql://db.example is away")
    first = opened(services, vera)
    assert "db.example" not in first.trouble
    assert first.trouble
    for _ in range(3):
        assert followed(services, vera) == first
    with services.database.snapshot() as session:
        assert session.scalars(text("SELECT action FROM audit")).all() == ["watches"]
    log_out(services.database, secret)
    with pytest.raises(EndedError):
        followed(services, vera)


@pytest.mark.integration
@pytest.mark.slow
def test_markup_in_names_is_shown_as_text_in_every_view(tmp_path: Path) -> None:
    camera = "<img src=x onerror=\"document.title='owned'\">"
    kind = "<script>document.title='owned'</script>"
    site = site_file(tmp_path)
    database = Database.open(site.database)
    with database.transaction() as session:
        Writer(session).register_cameras([CameraRecord(camera, "main", "visible")])
        for name in (camera, "c" * 200):
            status = CameraStatus(name, datetime.now(UTC), "running", "visible", 10.0, 0, 0, 0, 0, 0, 0, 0, 0)
            Writer(session).store_camera_status([status])
        for number in range(3):
            seen = tracklet(camera, number, start=number, end=number + 1, vehicle_class=kind, session=camera)
            store(session, seen, f"v{number}", frames=range(number * 10, number * 10 + 3))
    database.close()
    with chromium() as browser, page_server(tmp_path / "site.yaml") as address:
        page = browser.new_page()
        witness = Witness(page)
        for view in ("/", "/vehicles", "/vehicles/v1", "/search", "/review", "/watch", "/health"):
            page.goto(address + view)
            page.wait_for_load_state("networkidle")
            assert "owned" not in page.title()
            assert page.locator("img[src=x]").count() == 0
            # A name that is long leaves nothing beside the page.
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert [fault for fault in witness.faults if "security" in fault.lower()] == []
        page.goto(f"{address}/vehicles")
        page.get_by_text("<script>").first.wait_for()
        assert camera in page.locator("body").inner_text()
        assert "owned" not in page.title()


@pytest.mark.slow
def test_the_pages_library_adds_nothing_for_those_who_are_not_logged_in(tmp_path: Path) -> None:
    database = Database.open(site_file(tmp_path).database)
    with closing(database), page_server(tmp_path / "site.yaml") as address:
        sockets = f"{address}/_nicegui_ws/socket.io/?EIO=4&transport=polling"
        own = httpx.get(sockets, headers={"Origin": address})
        assert (own.status_code, "sid" in own.text) == (200, True)
        assert not [name for name in own.headers if name.startswith("access-control-")]
        assert httpx.get(sockets, headers={"Origin": "http://evil.example"}).status_code == 403
        talk = f"{address.replace('http', 'ws', 1)}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        with connect(talk, origin=Origin(address)) as socket:
            socket.send("4" + "x" * (2 << 20))
            with pytest.raises(ConnectionClosedError) as closed:
                list(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009  # too big
        account(database, "mira")
        assert httpx.get(sockets, headers={"Origin": address}).status_code == 401
        # What isn't there below the library's open paths is no page of the library's, which it would keep.
        nothing = httpx.get(f"{address}/_nicegui/0/static/nothing.js")
        assert (nothing.status_code, "<script" in nothing.text) == (404, False)
        assert "There is no such page" in nothing.text


@pytest.mark.slow
def test_a_viewer_of_one_camera_reads_of_no_other_in_any_view(tmp_path: Path) -> None:
    own = next(number for number in range(VEHICLES) if passes_yard(number))
    other = next(number for number in range(VEHICLES) if not passes_yard(number))
    with filled_site(tmp_path) as ask, chromium() as browser, page_server(tmp_path / "site.yaml") as address:
        with ask.services.database.transaction() as session:
            for number in (own, other):
                watch(session, name_of(number), by="otto", at=datetime.now(UTC))
        secret = token(ask.services.database, "vera", kind=Kind.SESSION)
        context = browser.new_context()
        context.add_cookies([{"name": "vehicle-tracker", "value": secret, "url": address}])
        page = context.new_page()
        views = ("/", "/vehicles", f"/vehicles/{name_of(own)}", "/search", f"/search?tracklet=yard/s1/{own}")
        for view in (*views, "/review", "/watch", "/health"):
            page.goto(address + view)
            page.wait_for_load_state("networkidle")
            page.locator("main#main").wait_for()
            page.get_by_label("searching").wait_for(state="detached")
            shown = page.locator("body").inner_html()
            assert "/login" not in page.url
            assert not re.search(rf"\bgate\b|\b{name_of(other)}\b", shown), view
        # What serves all cameras is shown to operators.
        assert page.get_by_text("messages waiting").count() == 0
        page.goto(f"{address}/vehicles/{name_of(other)}")
        page.get_by_role("alert").get_by_text("not known").wait_for()


@pytest.mark.slow
def test_a_socket_speaks_for_pages_of_its_own_login_alone(tmp_path: Path) -> None:
    with filled_site(tmp_path) as ask, page_server(tmp_path / "site.yaml") as address:
        cookies = {
            name: f"vehicle-tracker={token(ask.services.database, name, role=role, kind=Kind.SESSION)}"
            for name, role in (("otto", Role.OPERATOR), ("vera", Role.VIEWER))
        }
        page = httpx.get(f"{address}/review", headers={"Cookie": cookies["otto"], "Accept": "text/html"}).text
        found = re.search(r"client_id\W{1,12}([0-9a-f-]{36})", page)
        assert found is not None
        for name, lets in (("vera", False), ("otto", True)):
            headers = {"Cookie": cookies[name], "Origin": address}
            assert _takes_over(address, found[1], headers) == (lets, lets)


def _takes_over(address: str, page: str, headers: dict[str, str]) -> tuple[bool, bool]:
    """Whether a socket may say that it is that page's: in its address, and in a message."""
    sockets = f"{address.replace('http', 'ws', 1)}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    cookie = {"Cookie": headers["Cookie"]}
    said = json.dumps(["handshake", {"client_id": page, "tab_id": "one", "document_id": "one", "next_message_id": 0}])
    answers = []
    for query, message in (f"&client_id={page}", "40"), ("", f"420{said}"):
        with connect(sockets + query, additional_headers=cookie, origin=Origin(headers["Origin"])) as socket:
            assert str(socket.recv(10)).startswith("0{")  # Engine.IO has opened
            socket.send("40")
            answer = str(socket.recv(10))
            if message != "40":
                assert answer.startswith("40")
                socket.send(message)
                answer = next(text for text in iter(lambda: str(socket.recv(10)), "") if text.startswith("430"))
            answers.append(answer.startswith("40{") or answer == "430[true]")
    return answers[0], answers[1]
