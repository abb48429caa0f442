"""Accounts and tokens: who is known by a secret, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from storage import accounts
from storage.accounts import Kind, Role
from storage.errors import StorageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from storage.database import Database

pytest_plugins = ("tests.storage.storage_fixtures",)

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def _add(
    session: Session, name: str = "mira", role: Role = Role.OPERATOR, cameras: tuple[str, ...] | None = None
) -> None:
    accounts.add_account(session, name, "hash", role=role, at=NOW, cameras=cameras)


def _token(session: Session, name: str = "mira", role: Role = Role.VIEWER, kind: Kind = Kind.API) -> str:
    return accounts.make_token(session, name, kind=kind, role=role, at=NOW, expires_at=LATER)[1]


def test_an_account_is_known_as_it_was_made(database: Database) -> None:
    with database.transaction() as session:
        assert not accounts.is_any(session)
        _add(session)
        _add(session, "vic", Role.VIEWER, ("yard", "gate", "yard"))
    with database.snapshot() as session:
        assert accounts.is_any(session)
        mira, vic = accounts.accounts(session)
        assert (mira.name, mira.role, mira.cameras, mira.made_at) == ("mira", Role.OPERATOR, None, NOW)
        assert (vic.name, vic.role, vic.cameras) == ("vic", Role.VIEWER, ("gate", "yard"))
        assert accounts.password_hash(session, "vic") == "hash"
        assert accounts.password_hash(session, "nobody") is None
        assert session.scalar(text("SELECT count(*) FROM accounts WHERE cameras IS NULL")) == 1


@pytest.mark.parametrize("name", ["", "a" * 65, "-x", "a b", "a\nb", "<b>", "a'--", "é"])
def test_a_name_that_could_be_read_as_something_else_is_refused(database: Database, name: str) -> None:
    with pytest.raises(StorageError, match="wanted 1 to 64 letters"), database.transaction() as session:
        _add(session, name)


def test_a_name_is_given_once(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
    with pytest.raises(StorageError, match="there is one"), database.transaction() as session:
        _add(session)
    with pytest.raises(StorageError, match="one of that name, mira"), database.transaction() as session:
        _add(session, "MIRA")


def test_only_a_viewer_sees_some_cameras_only(database: Database) -> None:
    with pytest.raises(StorageError, match="only a viewer"), database.transaction() as session:
        _add(session, role=Role.OPERATOR, cameras=("gate",))


def test_a_token_is_known_until_it_expires_and_its_secret_is_stored_nowhere(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
        secret = _token(session)
        stored = session.execute(text("SELECT digest, label FROM access_tokens")).one()
    assert secret not in stored
    with database.snapshot() as session:
        found = accounts.bearer(session, secret, at=LATER - timedelta(seconds=1))
    assert found is not None
    assert (found.account, found.role, found.kind, found.cameras) == ("mira", Role.VIEWER, Kind.API, None)
    with database.snapshot() as session:
        assert accounts.bearer(session, secret, at=LATER) is None
        assert accounts.bearer_of(session, found.token_id, at=LATER) is None
        assert accounts.bearer(session, secret + "x", at=NOW) is None
        assert accounts.bearer(session, "\udce4", at=NOW) is None


def test_a_token_never_exceeds_its_account_neither_when_made_nor_later(database: Database) -> None:
    with database.transaction() as session:
        _add(session, role=Role.OPERATOR)
        secret = _token(session, role=Role.OPERATOR)
        with pytest.raises(StorageError, match="can have the role admin"):
            _token(session, role=Role.ADMIN)
        accounts.change_account(session, "mira", role=Role.VIEWER, cameras=["yard"])
        found = accounts.bearer(session, secret, at=NOW)
        assert found is not None
        assert (found.role, found.cameras) == (Role.VIEWER, ("yard",))
        accounts.change_account(session, "mira", role=Role.ADMIN)
        found = accounts.bearer(session, secret, at=NOW)
        assert found is not None
        assert (found.role, found.cameras) == (Role.OPERATOR, None)


def test_a_new_password_and_a_removed_account_end_whatever_was_open(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
        _add(session, "vic", Role.VIEWER)
        secrets = [_token(session), _token(session, kind=Kind.SESSION)]
        others = _token(session, "vic")
        accounts.change_password(session, "mira", "another")
        assert [accounts.bearer(session, secret, at=NOW) for secret in secrets] == [None, None]
        assert accounts.password_hash(session, "mira") == "another"
        assert accounts.bearer(session, others, at=NOW) is not None
        accounts.remove_account(session, "vic")
        assert accounts.bearer(session, others, at=NOW) is None
        assert [account.name for account in accounts.accounts(session)] == ["mira"]


def test_the_last_administrator_is_neither_removed_nor_demoted_by_mistake(database: Database) -> None:
    with database.transaction() as session:
        _add(session, role=Role.ADMIN)
        _add(session, "vic", Role.VIEWER)
        with pytest.raises(StorageError, match="account mira: the last administrator's"):
            accounts.remove_account(session, "mira")
        with pytest.raises(StorageError, match="account mira: the last administrator's"):
            accounts.change_account(session, "mira", role=Role.OPERATOR)
        accounts.change_account(session, "mira", role=Role.ADMIN)
        accounts.change_account(session, "vic", role=Role.ADMIN)
        accounts.remove_account(session, "mira")
        with pytest.raises(StorageError, match="account vic: the last one; without it, whoever sits"):
            accounts.remove_account(session, "vic")
        accounts.change_account(session, "vic", role=Role.VIEWER, although_last=True)
        # Nobody was one before: then nobody's right is lost.
        accounts.change_account(session, "vic", role=Role.OPERATOR)
        accounts.remove_account(session, "vic", although_last=True)
        assert not accounts.is_any(session)


def test_a_hash_is_renewed_unless_the_password_was_changed_meanwhile(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
        accounts.renew_hash(session, "mira", "hash", "better")
        accounts.renew_hash(session, "mira", "hash", "stale")
        assert accounts.password_hash(session, "mira") == "better"


def test_tokens_are_listed_and_revoked_by_their_owner_alone(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
        _add(session, "vic", Role.VIEWER)
        secret = _token(session)
        _token(session, "vic", kind=Kind.SESSION)
        (mine,) = accounts.tokens(session, at=NOW, account="mira")
        assert [token.account for token in accounts.tokens(session, at=NOW, kind=Kind.SESSION)] == ["vic"]
        assert accounts.tokens(session, at=LATER) == []
        with pytest.raises(StorageError, match="none of that number"):
            accounts.revoke_token(session, mine.token_id, account="vic")
        assert accounts.bearer(session, secret, at=NOW) is not None
        accounts.revoke_token(session, mine.token_id, account="mira")
        assert accounts.bearer(session, secret, at=NOW) is None


def test_expired_tokens_go_when_another_is_made(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
        _token(session)
        accounts.make_token(
            session, "mira", kind=Kind.API, role=Role.VIEWER, at=LATER, expires_at=LATER + timedelta(hours=1)
        )
        assert session.scalar(text("SELECT count(*) FROM access_tokens")) == 1


@pytest.mark.parametrize("deed", [accounts.remove_account, lambda s, n: accounts.change_password(s, n, "x")])
def test_what_nobody_is_called_is_said(database: Database, deed: object) -> None:
    assert callable(deed)
    with pytest.raises(StorageError, match="none of that name"), database.transaction() as session:
        deed(session, "nobody")


def test_a_token_that_would_never_be_good_is_not_made(database: Database) -> None:
    with database.transaction() as session:
        _add(session)
        with pytest.raises(StorageError, match="expire"):
            accounts.make_token(session, "mira", kind=Kind.API, role=Role.VIEWER, at=NOW, expires_at=NOW)
        with pytest.raises(StorageError, match="none of that name"):
            _token(session, "nobody")
