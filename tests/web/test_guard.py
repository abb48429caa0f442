"""The guard: who is let in, from where, by what proof; and what every answer tells the browser."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse

from storage import accounts
from storage.accounts import Kind, Role
from storage.errors import StorageError
from tests.web.asking import HERE, Asker, account, small_site, token
from web.callers import Caller, EndedError, local_caller
from web.guard import Guard, caller_of, require
from web.headers import page_policy
from web.logins import still

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE = "<!doctype html><script>one()</script><script type='module'>two()</script><body>&lt;script</body>"


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asker]:
    """A small site with three routes of the tests' own."""
    with small_site(tmp_path, hosts=["cars.example.org"]) as asker:
        _add_routes(asker.app)
        yield asker


def _add_routes(app: FastAPI) -> None:
    def who(request: Request) -> dict[str, Any]:
        caller = caller_of(request)
        assert caller is not None
        cameras = None if caller.cameras is None else sorted(caller.cameras)
        return {"person": caller.person, "role": caller.role, "cameras": cameras}

    def operators(caller: Annotated[Caller, Depends(require(Role.OPERATOR))]) -> str:
        return caller.person

    def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    async def measured(request: Request) -> int:
        return len(await request.body())

    app.add_api_route("/who", who, methods=["GET", "POST"])
    app.add_api_route("/operators", operators, methods=["GET"])
    app.add_api_route("/page", page, methods=["GET", "HEAD"])
    app.add_api_route("/measured", measured, methods=["POST"])


def test_without_accounts_this_machines_user_may_do_anything(ask: Asker) -> None:
    assert ask("GET", "/who").json()["role"] == "admin"
    assert ask("GET", "/operators").status_code == 200


def test_with_an_account_nobody_is_answered_unproved(ask: Asker) -> None:
    account(ask.services.database, "mira")
    answer = ask("GET", "/who")
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_where_other_machines_reach_it_no_account_means_nobody(ask: Asker) -> None:
    ask.services.is_public = True
    assert ask("GET", "/who").status_code == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_who_comes_through_a_proxy_is_not_this_machines_user(ask: Asker, header: str) -> None:
    assert ask("GET", "/who", headers={header: "127.0.0.1"}).status_code == 401


def test_a_site_name_is_not_this_machines_user_either(ask: Asker) -> None:
    assert ask("GET", "/who", headers={"Host": "cars.example.org"}).status_code == 401


def test_a_person_who_has_not_logged_in_is_led_to_the_form_and_back(ask: Asker) -> None:
    account(ask.services.database, "mira")
    answer = ask("GET", "/vehicles?camera=gate&x=%2F", headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fvehicles%3Fcamera%3Dgate%26x%3D%252F"


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:1", "[::1]:8080", "CARS.example.org", "192.0.2.7"])
def test_a_known_name_is_answered(ask: Asker, host: str) -> None:
    account(ask.services.database, "mira")
    assert ask.with_token("mira")("GET", "/who", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "evil.example/localhost", "a:b", "::1"],
)
def test_a_name_that_somebody_made_lead_here_is_not(ask: Asker, host: str) -> None:
    assert ask("GET", "/login", headers={"Host": host}).status_code == 400


def test_a_token_says_who_asks_and_what_they_see(ask: Asker) -> None:
    account(ask.services.database, "vic", cameras=("yard",))
    assert ask.with_token("vic")("GET", "/who").json() == {"person": "vic", "role": "viewer", "cameras": ["yard"]}


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer nonsense", "Basic bWlyYTp4", "bearer \u00e9"])
def test_a_proof_that_is_none_lets_nobody_in(ask: Asker, value: str) -> None:
    account(ask.services.database, "mira")
    assert ask("GET", "/who", headers={"Authorization": value.encode()}).status_code == 401


def test_an_expired_a_revoked_and_a_foreign_token_let_nobody_in(ask: Asker, tmp_path: Path) -> None:
    database = ask.services.database
    account(database, "mira")
    expired = token(database, "mira", days=-1)
    revoked = token(database, "mira")
    with database.transaction() as session:
        accounts.revoke_secret(session, revoked)
    (tmp_path / "other").mkdir()
    with small_site(tmp_path / "other") as other:
        account(other.services.database, "mira")
        foreign = token(other.services.database, "mira")
    for secret in (expired, revoked, foreign):
        assert ask("GET", "/who", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    assert ask.with_token("mira")("GET", "/who").status_code == 200


def test_a_token_is_no_cookie_and_a_cookie_no_token(ask: Asker) -> None:
    database = ask.services.database
    account(database, "mira")
    api, login = token(database, "mira"), token(database, "mira", kind=Kind.SESSION)
    assert ask("GET", "/who", headers={"Cookie": f"vehicle-tracker={login}"}).status_code == 200
    assert ask("GET", "/who", headers={"Cookie": f"vehicle-tracker={api}"}).status_code == 401
    assert ask("GET", "/who", headers={"Authorization": f"Bearer {login}"}).status_code == 401


def test_a_viewer_may_not_do_what_operators_may_whatever_their_token_says(ask: Asker) -> None:
    database = ask.services.database
    account(database, "mira", Role.OPERATOR)
    asks = ask.with_token("mira", Role.OPERATOR)
    assert asks("GET", "/operators").status_code == 200
    assert ask.with_token("mira", Role.VIEWER)("GET", "/operators").status_code == 403
    with database.transaction() as session:
        accounts.change_account(session, "mira", role=Role.VIEWER)
    assert asks("GET", "/operators").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9090"},
        {"Origin": "http://127.0.0.1:8080.evil.example"},
        {"Origin": "file://127.0.0.1:8080"},
        {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
        {"Origin": HERE, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_changes_nothing_with_a_login(ask: Asker, headers: dict[str, str]) -> None:
    account(ask.services.database, "mira")
    assert ask.logged_in("mira")("POST", "/who", headers=headers).status_code == 403


def test_a_page_of_ours_may(ask: Asker) -> None:
    account(ask.services.database, "mira")
    asks = ask.logged_in("mira")
    assert asks("POST", "/who", headers={"Origin": HERE, "Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_another_sites_page_is_refused_where_nobody_has_to_log_in_too(ask: Asker) -> None:
    assert ask("POST", "/who", headers={"Origin": "http://evil.example"}).status_code == 403
    assert ask("POST", "/who", headers={"Origin": HERE}).status_code == 200
    assert ask("POST", "/who").status_code == 200  # no browser


def test_nothing_of_ours_is_put_into_another_page_but_a_link_is_followed(ask: Asker) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask("GET", "/who", headers=elsewhere).status_code == 403
    assert ask("GET", "/who", headers=link).status_code == 200


def test_another_sites_page_asks_nothing_either(ask: Asker) -> None:
    # Without TLS browsers send no `Sec-Fetch-Site`.
    for origin in ("http://evil.example", "null", HERE.replace("8080", "9090")):
        assert ask("GET", "/who", headers={"Origin": origin}).status_code == 403
    assert ask("GET", "/who", headers={"Origin": HERE}).status_code == 200


def test_a_program_with_a_token_needs_no_origin(ask: Asker) -> None:
    account(ask.services.database, "mira")
    assert ask.with_token("mira")("POST", "/who").status_code == 200


def test_a_proxy_that_ends_tls_is_asked_for_the_same_name_only(ask: Asker) -> None:
    account(ask.services.database, "mira")
    asks = ask.logged_in("mira").with_headers(Host="cars.example.org")
    assert asks("POST", "/who", headers={"Origin": "https://cars.example.org"}).status_code == 200
    assert asks("POST", "/who", headers={"Origin": "https://example.org"}).status_code == 403


def _shake_hands(asker: Asker, **headers: str) -> str:
    """Opens a socket; what the server says to that."""
    told: list[str] = []
    pairs = {"Host": "127.0.0.1:8080", **asker.headers, **headers}
    scope = {
        "type": "websocket",
        "path": "/_nicegui_ws/socket.io/",
        "raw_path": b"/_nicegui_ws/socket.io/",
        "query_string": b"",
        "scheme": "ws",
        "headers": [(name.lower().encode(), value.encode()) for name, value in pairs.items()],
        "client": ("127.0.0.1", 1),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:  # noqa: ANN401 - as ASGI has it
        told.append(message["type"])

    async def accepts(_scope: object, _receive: object, reply: Callable[[Any], Any]) -> None:
        await reply({"type": "websocket.accept"})

    asyncio.run(Guard(accepts, asker.services)(scope, receive, send))
    (answer,) = told
    return answer.removeprefix("websocket.")


def test_a_socket_is_opened_by_our_own_pages_alone(ask: Asker) -> None:
    assert _shake_hands(ask, Origin=HERE) == "accept"
    assert _shake_hands(ask) == "close"
    assert _shake_hands(ask, Origin="http://evil.example") == "close"
    assert _shake_hands(ask, Origin=HERE, Host="evil.example") == "close"
    account(ask.services.database, "mira")
    assert _shake_hands(ask, Origin=HERE) == "close"
    assert _shake_hands(ask.logged_in("mira"), Origin=HERE) == "accept"
    assert _shake_hands(ask.logged_in("mira"), Origin="http://evil.example") == "close"


def test_an_open_page_asks_again_whether_its_login_is_good(ask: Asker) -> None:
    database = ask.services.database
    account(database, "vic", cameras=("yard",))
    secret = token(database, "vic", kind=Kind.SESSION)
    with database.transaction() as session:
        (held,) = accounts.tokens(session, at=accounts.accounts(session)[0].made_at)
    vic = Caller("vic", Role.VIEWER, frozenset({"yard"}), held.token_id)
    assert still(database, vic) == vic
    with ask.services.asking(vic, "vehicles"):
        pass
    with database.transaction() as session:
        accounts.change_account(session, "vic", role=Role.VIEWER, cameras=["gate"])
    with pytest.raises(EndedError, match="rights have changed"):
        still(database, vic)
    with database.transaction() as session:
        accounts.revoke_secret(session, secret)
    with pytest.raises(EndedError, match="login has ended"), ask.services.asking(vic, "vehicles"):
        pass
    with pytest.raises(EndedError, match="login has ended"), ask.services.deciding(vic, "merge"):
        pass


def test_a_page_that_was_open_before_there_were_accounts_ends(ask: Asker) -> None:
    here = local_caller()
    with ask.services.asking(here, "vehicles"):
        pass
    account(ask.services.database, "mira")
    with pytest.raises(EndedError, match="accounts by now"), ask.services.asking(here, "vehicles"):
        pass


@pytest.mark.parametrize("address", ["/who", "/nowhere", "/login", "/media/plan", "/media/pictures/x.jpg", "/page"])
def test_every_answer_is_closed_to_other_sites(ask: Asker, address: str) -> None:
    headers = ask("GET", address, headers={"Origin": "http://evil.example"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "camera=()" in headers["permissions-policy"]
    assert not [name for name in headers if name.startswith("access-control-")]
    assert "strict-transport-security" not in headers


def test_refusals_are_closed_too_and_tls_stays_tls(ask: Asker) -> None:
    refused = ask("GET", "/who", headers={"Host": "evil.example"})
    assert refused.status_code == 400
    assert refused.headers["x-frame-options"] == "DENY"
    over_tls = Asker(ask.app, ask.services, base="https://127.0.0.1:8080")
    assert over_tls("GET", "/who").headers["strict-transport-security"] == "max-age=31536000"


def test_a_pages_own_scripts_carry_a_nonce_that_is_never_the_same(ask: Asker) -> None:
    nonces = set()
    for _ in range(2):
        answer = ask("GET", "/page")
        policy = answer.headers["content-security-policy"]
        nonce = policy.split("'nonce-")[1].split("'")[0]
        assert policy == page_policy(nonce, "127.0.0.1:8080", None)
        assert answer.text == PAGE.replace("<script", f'<script nonce="{nonce}"')
        assert int(answer.headers["content-length"]) == len(answer.content)
        nonces.add(nonce)
    assert len(nonces) == 2


def test_scripts_written_into_a_page_do_not_run_and_tiles_come_from_one_place_only() -> None:
    policy = dict(
        part.split(" ", 1) for part in page_policy("n", "h", "https://tile.example.org/{z}/{x}/{y}.png").split("; ")
    )
    assert policy["script-src"] == "'self' 'nonce-n' 'unsafe-eval'"
    assert policy["img-src"] == "'self' data: blob: https://tile.example.org"
    assert policy["connect-src"] == "'self' ws://h wss://h"


def test_too_long_a_body_is_refused_before_and_while_it_is_read(tmp_path: Path) -> None:
    with small_site(tmp_path, max_upload_bytes=1000) as ask:
        _add_routes(ask.app)
        size = 1000 + (64 << 10)
        assert ask("POST", "/measured", content=b"x" * size).json() == size
        assert ask("POST", "/measured", content=b"x" * (size + 1)).status_code == 413

        async def pieces() -> Any:  # noqa: ANN401 - of httpx
            for _ in range(10):
                yield b"x" * 10_000

        answer = ask("POST", "/measured", content=pieces())
        assert (answer.status_code, answer.json()["status"]) == (413, 413)


def test_where_the_database_is_away_one_is_asked_to_come_back(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_database: object) -> bool:
        raise StorageError("the database is away")

    monkeypatch.setattr("web.logins.is_open", absent)
    answer = ask("GET", "/v1/vehicles")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "away" not in answer.text
