"""Logging in and out: by whom, how often, to where; and what a browser is told to keep."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

from storage import accounts
from storage.accounts import Role
from storage.errors import StorageError
from tests.web.asking import HERE, PASSWORD, Asker, account, small_site
from web import logins
from web.attempts import MAX_KEYS, Attempts
from web.login import PER_ACCOUNT, PER_ADDRESS, local_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asker]:
    """A small site with an account."""
    with small_site(tmp_path) as asker:
        account(asker.services.database, "mira", Role.OPERATOR)
        yield asker


@pytest.fixture
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost little, for tests of how often."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    kept = quick.hash("nobody's password")
    monkeypatch.setattr(logins, "_hasher", lambda: quick)
    monkeypatch.setattr(logins, "_nobodys_hash", lambda: kept)


def _log_in(ask: Asker, name: str = "mira", password: str = PASSWORD, **fields: str) -> httpx.Response:
    form = {"name": name, "password": password, **fields}
    return ask("POST", "/login", data=form, headers={"Origin": HERE})


def _cookie(answer: httpx.Response, name: str = "vehicle-tracker") -> SimpleCookie:
    kept = SimpleCookie(answer.headers["set-cookie"])
    assert list(kept) == [name]
    return kept


def test_a_form_without_scripts_that_nobody_else_can_frame(ask: Asker) -> None:
    answer = ask("GET", "/login", params={"next": "/vehicles"})
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert 'value="/vehicles"' in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"


def test_whoever_knows_the_password_is_let_in_where_they_wanted_to_go(ask: Asker) -> None:
    answer = _log_in(ask, next="/vehicles?camera=gate")
    assert (answer.status_code, answer.headers["location"]) == (303, "/vehicles?camera=gate")
    cookie = _cookie(answer)["vehicle-tracker"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "lax"
    assert cookie["path"] == "/"
    assert not cookie["domain"]
    assert cookie["max-age"] == str(12 * 3600)
    assert ask("GET", "/media/plan", headers={"Cookie": f"vehicle-tracker={cookie.value}"}).status_code == 404


def test_over_tls_the_cookie_is_for_tls_and_this_host_alone(ask: Asker) -> None:
    over_tls = Asker(ask.app, ask.services, base="https://127.0.0.1:8080")
    answer = over_tls(
        "POST", "/login", data={"name": "mira", "password": PASSWORD}, headers={"Origin": "https://127.0.0.1:8080"}
    )
    cookie = _cookie(answer, "__Host-vehicle-tracker")["__Host-vehicle-tracker"]
    assert cookie["secure"]
    assert over_tls("GET", "/media/plan", headers={"Cookie": f"vehicle-tracker={cookie.value}"}).status_code == 401


@pytest.mark.parametrize(
    ("name", "password"), [("mira", "wrong"), ("mira", ""), ("nobody", PASSWORD), ("", ""), ("mira", "x" * 2000)]
)
def test_nobody_else_is_and_the_answer_says_not_why(ask: Asker, name: str, password: str) -> None:
    answer = _log_in(ask, name, password)
    assert answer.status_code == 401
    assert "No such name and password." in answer.text
    assert "set-cookie" not in answer.headers


def test_an_unknown_name_is_judged_by_a_hash_as_well(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    real = logins._hasher()

    class Watched:
        def verify(self, kept: str, password: str) -> bool:
            verified.append(kept)
            return real.verify(kept, password)

    monkeypatch.setattr(logins, "_hasher", Watched)
    assert logins.log_in(ask.services.database, "nobody", PASSWORD, hours=1) is None
    assert [kept.startswith("$argon2id$") for kept in verified] == [True]


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "",
        "vehicles",
        "/\t/evil.example",
        "/a\r\nSet-Cookie: x=1",
    ],
)
def test_a_login_leads_to_pages_of_ours_alone(ask: Asker, wanted: str) -> None:
    assert local_path(wanted) == "/"
    assert _log_in(ask, next=wanted).headers["location"] == "/"


def test_what_is_wanted_is_shown_as_text(ask: Asker) -> None:
    wanted = '/"><script>alert(1)</script>'
    assert "<script" not in ask("GET", "/login", params={"next": wanted}).text
    assert "<script" not in _log_in(ask, name='"><script>', next=wanted).text


def test_a_name_that_is_too_long_to_be_anybodys_is_not_kept(ask: Asker) -> None:
    refused = _log_in(ask, name="mira" + "x" * 10_000)
    assert refused.status_code == 401
    assert "x" * 60 in refused.text
    assert "x" * 62 not in refused.text


def test_another_sites_page_logs_nobody_in(ask: Asker) -> None:
    form = {"name": "mira", "password": PASSWORD}
    assert ask("POST", "/login", data=form, headers={"Origin": "http://evil.example"}).status_code == 403


def test_a_login_is_a_new_one_and_ends_the_one_before(ask: Asker) -> None:
    first = _cookie(_log_in(ask))["vehicle-tracker"].value
    fixed = ask.with_headers(Cookie=f"vehicle-tracker={first}")
    second = _cookie(_log_in(fixed))["vehicle-tracker"].value
    assert second != first
    assert fixed("GET", "/media/plan").status_code == 401
    planted = _log_in(ask.with_headers(Cookie="vehicle-tracker=chosen-by-somebody"))
    assert _cookie(planted)["vehicle-tracker"].value != "chosen-by-somebody"
    assert ask("GET", "/media/plan", headers={"Cookie": "vehicle-tracker=chosen-by-somebody"}).status_code == 401


def test_logging_out_ends_the_login_for_everybody_who_holds_it(ask: Asker) -> None:
    secret = _cookie(_log_in(ask))["vehicle-tracker"].value
    asks = ask.with_headers(Cookie=f"vehicle-tracker={secret}")
    assert asks("POST", "/logout").status_code == 403  # from nowhere
    answer = asks("POST", "/logout", headers={"Origin": HERE})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert _cookie(answer)["vehicle-tracker"]["max-age"] == "0"
    assert asks("GET", "/media/plan").status_code == 401
    assert asks("GET", "/logout").status_code == 405


def test_a_changed_password_ends_every_login(ask: Asker) -> None:
    asks = ask.logged_in("mira")
    assert asks("GET", "/media/plan").status_code == 404
    with ask.services.database.transaction() as session:
        accounts.change_password(session, "mira", logins.hashed("another password"))
    assert asks("GET", "/media/plan").status_code == 401
    assert _log_in(ask).status_code == 401
    assert _log_in(ask, password="another password").status_code == 303


@pytest.mark.usefixtures("quick_hashes")
def test_an_account_is_tried_so_often_from_wherever(ask: Asker) -> None:
    account(ask.services.database, "vic")
    for _ in range(PER_ACCOUNT):
        assert _log_in(ask, password="wrong").status_code == 401
    late = _log_in(ask)
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= 300
    assert "set-cookie" not in late.headers
    assert _log_in(ask, "vic").status_code == 303


@pytest.mark.usefixtures("quick_hashes")
def test_an_address_tries_so_many_accounts(ask: Asker) -> None:
    for number in range(PER_ADDRESS):
        assert _log_in(ask, f"n{number}", "wrong").status_code == 401
    assert _log_in(ask).status_code == 429


@pytest.mark.usefixtures("quick_hashes")
def test_who_logs_in_is_not_counted(ask: Asker) -> None:
    account(ask.services.database, "vic")
    for _ in range(PER_ADDRESS + 1):
        assert _log_in(ask, "vic").status_code == 303


@pytest.mark.usefixtures("quick_hashes")
def test_the_longest_password_of_whatever_letters_is_taken(ask: Asker) -> None:
    longest = "\N{AUTOMOBILE}" * logins.MAX_PASSWORD_LENGTH
    with ask.services.database.transaction() as session:
        accounts.change_password(session, "mira", logins.hashed(longest))
    assert _log_in(ask, password=longest, next="/vehicles?camera=gate").status_code == 303


def test_a_form_that_is_no_form_is_refused(ask: Asker) -> None:
    assert ask("POST", "/login", content=b"x" * 20_000, headers={"Origin": HERE}).status_code == 400
    assert ask("POST", "/login", content=b"\xff&&=;%zz", headers={"Origin": HERE}).status_code == 401
    assert ask("POST", "/login", content=b"a=1&" * 50, headers={"Origin": HERE}).status_code == 400


def test_a_login_is_noted_and_an_old_hash_made_anew(ask: Asker) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with ask.services.database.transaction() as session:
        accounts.change_password(session, "mira", weak)
    assert _log_in(ask).status_code == 303
    with ask.services.database.snapshot() as session:
        kept = accounts.password_hash(session, "mira")
    assert kept is not None
    assert kept != weak
    assert _log_in(ask).status_code == 303


@pytest.mark.parametrize("password", ["", "too short", "x" * 1025])
def test_a_password_is_neither_short_nor_endless(password: str) -> None:
    with pytest.raises(StorageError, match="10 to 1024"):
        logins.hashed(password)


def test_attempts_are_counted_within_a_window_and_only_so_many_names() -> None:
    now = [0.0]
    attempts = Attempts(2, 10.0, clock=lambda: now[0])
    attempts.note("a")
    now[0] = 4.0
    attempts.note("a")
    assert attempts.wait_s("a") == 6.0
    assert attempts.wait_s("b") == 0.0
    now[0] = 10.0
    assert attempts.wait_s("a") == 0.0
    attempts.note("a")
    assert attempts.wait_s("a") == 4.0
    attempts.take_back("a")
    assert attempts.wait_s("a") == 0.0
    attempts.take_back("never")
    for number in range(MAX_KEYS):
        attempts.note(str(number))
    attempts.note("0")
    attempts.note("a")
    assert attempts.wait_s("0") == 10.0
