"""`python -m web account` and `token`, and where the program refuses to listen."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from storage import accounts
from storage.database import Database
from tests.web.asking import PASSWORD, account, site_file
from web.__main__ import app
from web.logins import log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """That of the site file in the test's folder."""
    opened = Database.open(site_file(tmp_path).database)
    yield opened
    opened.close()


def _run(folder: Path, *command: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, [*command, "--config", str(folder / "site.yaml")], input=typed)


def test_an_account_is_made_listed_changed_and_removed(tmp_path: Path, database: Database) -> None:
    made = _run(tmp_path, "account", "add", "mira", "--role", "operator", "--password-stdin", typed=f"{PASSWORD}\n")
    assert (made.exit_code, made.stdout) == (0, "account mira: operator\n")
    assert log_in(database, "mira", PASSWORD, hours=1) is not None
    assert "mira  operator  all cameras  since " in _run(tmp_path, "account", "list").stdout
    assert _run(tmp_path, "account", "change", "mira", "--role", "viewer", "--camera", "yard").exit_code == 0
    assert "mira  viewer  yard  since " in _run(tmp_path, "account", "list").stdout
    limited = _run(tmp_path, "account", "change", "mira", "--role", "viewer")
    assert (limited.exit_code, limited.stderr.count("\n")) == (2, 1)
    assert "account mira sees yard alone" in limited.stderr
    assert "mira  viewer  yard  since " in _run(tmp_path, "account", "list").stdout
    assert _run(tmp_path, "account", "change", "mira", "--role", "viewer", "--all-cameras").exit_code == 0
    assert "mira  viewer  all cameras  since " in _run(tmp_path, "account", "list").stdout
    assert _run(tmp_path, "account", "password", "mira", "--password-stdin", typed="another one\n").exit_code == 0
    assert log_in(database, "mira", PASSWORD, hours=1) is None
    assert log_in(database, "mira", "another one", hours=1) is not None
    kept = _run(tmp_path, "account", "remove", "mira")
    assert (kept.exit_code, kept.stderr.count("\n")) == (2, 1)
    assert "account mira: the last one" in kept.stderr
    assert _run(tmp_path, "account", "remove", "mira", "--although-last").exit_code == 0
    assert _run(tmp_path, "account", "list").stdout == ""
    with database.snapshot() as session:
        noted = session.scalars(text("SELECT action FROM audit ORDER BY audit_id")).all()
    assert [action for action in noted if action.startswith("account") and "list" not in action] == [
        "account add",
        "account change",
        "account change?",
        "account change",
        "account password",
        "account remove?",
        "account remove",
    ]


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        (["account", "add", "vic", "--password-stdin"], "short\n", "wanted a password of 10 to 1024 letters"),
        (["account", "add", "vic"], PASSWORD, "no terminal to ask for the password on"),
        (["account", "add", "v v", "--password-stdin"], PASSWORD, "wanted 1 to 64 letters"),
        (["account", "add", "mira", "--password-stdin"], PASSWORD, "there is one of that name"),
        (["account", "add", "vic", "--camera", "roof", "--password-stdin"], PASSWORD, "the site has no roof"),
        (["account", "remove", "vic"], "", "there is none of that name"),
        (["token", "make", "mira", "--days", "1", "--role", "admin"], "", "can have the role admin"),
        (["token", "make", "vic", "--days", "1"], "", "there is none of that name"),
        (["token", "revoke", "7"], "", "there is none of that number"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, database: Database, command: list[str], typed: str, said: str
) -> None:
    account(database, "mira")
    failed = _run(tmp_path, *command, typed=typed)
    assert failed.exit_code == 2
    assert said in failed.stderr
    assert failed.stderr.count("\n") == 1
    with database.snapshot() as session:
        assert [one.name for one in accounts.accounts(session)] == ["mira"]


def test_a_token_has_to_end_and_is_shown_once(tmp_path: Path, database: Database) -> None:
    account(database, "mira")
    assert _run(tmp_path, "token", "make", "mira").exit_code == 2  # without --days
    made = _run(tmp_path, "token", "make", "mira", "--days", "2", "--label", "reports")
    secret = made.stdout.strip()
    listed = _run(tmp_path, "token", "list").stdout
    assert "mira  api  viewer  until " in listed
    assert "reports" in listed
    assert secret not in listed
    assert _run(tmp_path, "token", "revoke", listed.split()[0]).exit_code == 0
    assert _run(tmp_path, "token", "list").stdout == ""


@pytest.mark.parametrize("where", [["--host", "0.0.0.0"], ["--host", "::"], ["--forwarded-allow-ips", "127.0.0.1"]])
def test_other_machines_are_not_answered_without_accounts(tmp_path: Path, database: Database, where: list[str]) -> None:
    assert database.name
    refused = CliRunner().invoke(app, ["--config", str(tmp_path / "site.yaml"), "--port", "0", *where])
    assert refused.exit_code == 2
    assert "there are no accounts: make one by" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("proxies", ["*", "127.0.0.1,*", "10.0.0.0/33", "proxy.example.org", "0.0.0.0/0", ""])
def test_who_says_who_asks_is_named(tmp_path: Path, database: Database, proxies: str) -> None:
    account(database, "mira")
    refused = CliRunner().invoke(
        app, ["--config", str(tmp_path / "site.yaml"), "--port", "0", "--forwarded-allow-ips", proxies]
    )
    assert refused.exit_code == 2
    assert refused.stderr.startswith("--forwarded-allow-ips: wanted addresses or networks of proxies, got ")
    assert refused.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path, database: Database) -> None:
    assert database.name
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = CliRunner().invoke(app, ["--config", str(tmp_path / "site.yaml"), "--port", port])
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"127.0.0.1:{port}: ")
    assert refused.stderr.count("\n") == 1
