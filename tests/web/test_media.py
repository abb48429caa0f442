"""Pictures by signed addresses: those that were given out, for as long as they are good, and nothing else."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from PIL import Image

from tests.web.asking import Asker, account, small_site
from web.signed_links import SignedLinks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _jpeg() -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(held, "JPEG")
    return held.getvalue()


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asker]:
    """A small site with accounts, a picture, and something beside the pictures that is nobody's."""
    with small_site(tmp_path) as asker:
        account(asker.services.database, "mira")
        asker.services.crops.save("gate/2026 01/a+b%é.jpg", _jpeg())
        asker.services.crops.save("gate/page.jpg", b"<script>alert(1)</script>")
        (tmp_path / "secret.jpg").write_bytes(_jpeg())
        (tmp_path / "crops" / "way.jpg").symlink_to(tmp_path / "secret.jpg")
        (tmp_path / "crops" / "out").symlink_to(tmp_path)
        yield asker


def test_an_address_that_was_given_out_shows_its_picture_without_a_login(ask: Asker) -> None:
    answer = ask("GET", ask.services.links.picture("gate/2026 01/a+b%é.jpg"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content == _jpeg()
    kept_s = re.fullmatch(r"private, max-age=(\d+)", answer.headers["cache-control"])
    assert kept_s is not None
    assert 290 <= int(kept_s.group(1)) <= 600
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_picture_is_asked_about_without_being_sent(ask: Asker) -> None:
    answer = ask("HEAD", ask.services.links.picture("gate/2026 01/a+b%é.jpg"))
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(_jpeg())))


def test_a_picture_is_kept_no_longer_than_its_address_is_good(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ask.services.links.picture("gate/2026 01/a+b%é.jpg")
    expires = int(address.partition("expires=")[2].partition("&")[0])
    monkeypatch.setattr(time, "time", lambda: expires - 4.5)
    assert ask("GET", address).headers["cache-control"] == "private, max-age=4"


def test_a_picture_keeps_its_address_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    links = SignedLinks(600)

    def address(now: float) -> str:
        monkeypatch.setattr(time, "time", lambda: now)
        return links.picture("gate/a.jpg")

    assert address(3000.0) == address(3299.0)
    assert address(3299.0) != address(3300.0)
    for now in (3000.0, 3299.0):
        path, _, query = address(now).partition("?expires=")
        expires, _, signature = query.partition("&signature=")
        assert 300 < int(expires) - now <= 600
        assert links.is_good(path, expires, signature)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?expires=9999999999",
        "?expires=9999999999&signature=00",
        "?expires=x&signature=x",
        "?expires=²&signature=é",
        "?expires=9999999999&signature=é",
    ],
)
def test_an_address_that_nobody_gave_shows_nothing(ask: Asker, query: str) -> None:
    assert ask("GET", f"/media/pictures/{quote('gate/2026 01/a+b%é.jpg')}{query}").status_code == 403
    assert ask.with_token("mira")("GET", f"/media/pictures/gate/page.jpg{query}").status_code == 403


def test_a_signature_is_for_one_picture_and_some_minutes(ask: Asker) -> None:
    given = ask.services.links.picture("gate/page.jpg")
    query = given.partition("?")[2]
    assert ask("GET", f"/media/pictures/gate/other.jpg?{query}").status_code == 403
    later = query.replace("expires=1", "expires=2", 1)
    assert later != query
    assert ask("GET", f"/media/pictures/gate/page.jpg?{later}").status_code == 403
    ask.services.links = SignedLinks(-1)
    assert ask("GET", ask.services.links.picture("gate/2026 01/a+b%é.jpg")).status_code == 403
    ask.services.links = SignedLinks(600)
    assert ask("GET", given).status_code == 403  # of another run of the program


@pytest.mark.parametrize(
    "relative",
    [
        "../secret.jpg",
        "gate/../../secret.jpg",
        "/etc/passwd",
        "way.jpg",
        "out/secret.jpg",
        "..\\secret.jpg",
        "a\0b",
        ".",
        "..",
        "gate",
        "%2e%2e/secret.jpg",
        "gone.jpg",
    ],
)
def test_even_a_signed_path_stays_below_the_pictures(ask: Asker, relative: str) -> None:
    path, _, query = ask.services.links.picture(relative).partition("?")
    # Dots are quoted lest the client straighten the path by itself.
    answer = ask("GET", f"{path.replace('.', '%2e')}?{query}")
    assert answer.status_code == 404
    assert _jpeg() not in answer.content


@pytest.mark.parametrize(
    "address",
    [
        "/media/pictures/../../secret.jpg",
        "/media/pictures/%2e%2e/%2e%2e/secret.jpg",
        "/media/pictures/%252e%252e/secret.jpg",
        "/media/pictures/..%2fsecret.jpg",
        "/media/pictures/..%5csecret.jpg",
        "/media/pictures//etc/passwd",
        "/media/pictures/%2fetc%2fpasswd",
        "/media/pictures/out/secret.jpg",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static/..%2f..%2fpyproject.toml",
        "/_nicegui/3/static/%2e%2e/%2e%2e/x",
    ],
)
def test_no_address_leads_out(ask: Asker, address: str) -> None:
    for asks in (ask, ask.with_token("mira")):
        assert asks("GET", address).status_code in (401, 403, 404)


@pytest.mark.parametrize("data", [b"<script>alert(1)</script>", b"RIFF\n\0\0\0AVI LIST", b"\xff\xd8", b""])
def test_what_is_no_picture_is_not_sent(ask: Asker, data: bytes) -> None:
    ask.services.crops.save("gate/page.jpg", data)
    answer = ask("GET", ask.services.links.picture("gate/page.jpg"))
    assert answer.status_code == 404
    assert "<script" not in answer.text


def test_the_plan_is_for_those_who_have_logged_in_and_runs_nothing(tmp_path: Path) -> None:
    plan = tmp_path / "plan.svg"
    plan.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', encoding="utf-8")
    with small_site(tmp_path, plan={"image": str(plan)}) as ask:
        assert ask("GET", "/media/plan").headers["content-type"] == "image/svg+xml"
        account(ask.services.database, "mira")
        assert ask("GET", "/media/plan").status_code == 401
        answer = ask.logged_in("mira")("GET", "/media/plan")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "sandbox" in policy
        assert "script-src" not in policy
        plan.unlink()
        assert ask.logged_in("mira")("GET", "/media/plan").status_code == 404


def test_a_site_without_a_plan_says_so(ask: Asker) -> None:
    assert ask.with_token("mira")("GET", "/media/plan").status_code == 404
