"""Logging in with a real browser: what it keeps, what it lets run, and that an ended login ends open pages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from storage import accounts
from storage.accounts import Role
from storage.database import Database
from tests.web.asking import PASSWORD, account, site_file
from tests.web.browser import Witness, chromium, page_server

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: Puts markup into the page as somebody else's text would be, were it not escaped; whether its handler has run.
_INJECTED = """async () => {
    window.ran = false;
    document.body.insertAdjacentHTML("beforeend", '<img src="data:," onerror="window.ran = true">');
    const script = document.createElement("script");
    script.textContent = "window.ran = true";
    document.body.append(script);
    await new Promise(done => setTimeout(done, 500));
    return window.ran;
}"""


def _log_in(page: Page, address: str) -> None:
    page.get_by_label("Name").fill("mira")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/health")


def test_a_person_logs_in_and_nobody_elses_script_runs(tmp_path: Path) -> None:
    database = Database.open(site_file(tmp_path).database)
    account(database, "mira", Role.OPERATOR)
    with chromium() as browser, page_server(tmp_path / "site.yaml") as address:
        for width in (1280, 390):
            page = browser.new_context(viewport={"width": width, "height": 800}).new_page()
            witness = Witness(page)
            page.goto(f"{address}/health")
            assert page.url == f"{address}/login?next=%2Fhealth"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            _log_in(page, address)
            page.wait_for_load_state("networkidle")
            (cookie,) = page.context.cookies()
            assert (cookie.get("name"), cookie.get("httpOnly"), cookie.get("sameSite")) == (
                "vehicle-tracker",
                True,
                "Lax",
            )
            assert page.evaluate("document.cookie") == ""
            assert witness.faults == []
            assert page.evaluate(_INJECTED) is False
            assert any("Content Security Policy" in fault for fault in witness.faults)
        page.get_by_label("Log out").click()
        page.wait_for_url(f"{address}/login")
        assert page.context.cookies() == []
        page.goto(f"{address}/health")
        _log_in(page, address)
        page.goto(address)
        page.get_by_text("Latest sightings").wait_for()
        with database.transaction() as session:
            accounts.remove_account(session, "mira", although_last=True)
            accounts.add_account(session, "vic", "no hash", role=Role.VIEWER, at=datetime.now(UTC))
        # The page that is still open asks for news by itself.
        page.get_by_text("your login has ended").first.wait_for()
        page.goto(f"{address}/health")
        assert page.url.startswith(f"{address}/login")
    database.close()
