"""From a name and a password to a login, and from a login's or a program's token to who asks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from storage import accounts
from storage.asking import Inquiry, noted
from storage.errors import StorageError
from web.callers import Caller, EndedError

if TYPE_CHECKING:
    from argon2 import PasswordHasher

    from storage.database import Database

#: Shorter ones are refused; longer ones would only cost time.
MIN_PASSWORD_LENGTH, MAX_PASSWORD_LENGTH = 10, 1024


def hashed(password: str) -> str:
    """The argon2 hash of a password. Takes tens of milliseconds and 64 MiB.

    Raises:
        StorageError: It is too short or too long to be anybody's.
    """
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise StorageError(f"wanted a password of {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} letters")
    return _hasher().hash(password)


def log_in(database: Database, name: str, password: str, *, hours: float) -> str | None:
    """Proves who somebody is. Takes as long for a name that there isn't.

    Args:
        database: Open.
        name: The account.
        password: As typed.
        hours: How long the login lasts.

    Returns:
        The secret of a new login; None: no such account, or not its password.
    """
    from argon2.exceptions import InvalidHashError, VerificationError

    if len(password) > MAX_PASSWORD_LENGTH:
        return None
    with database.snapshot() as session:
        kept = accounts.password_hash(session, name)
    try:
        _hasher().verify(_nobodys_hash() if kept is None else kept, password)
    except (InvalidHashError, VerificationError):
        return None
    if kept is None:
        return None
    now = datetime.now(UTC)
    better = _hasher().hash(password) if _hasher().check_needs_rehash(kept) else None
    with database.transaction() as session:
        if accounts.password_hash(session, name) != kept:
            return None  # changed in this moment
        if better is not None:
            accounts.renew_hash(session, name, kept, better)
        held = next(account for account in accounts.accounts(session) if account.name == name)
        _, secret = accounts.make_token(
            session,
            name,
            kind=accounts.Kind.SESSION,
            role=held.role,
            at=now,
            expires_at=now + timedelta(hours=hours),
        )
    noted(database, Inquiry("login", name))
    return secret


def log_out(database: Database, secret: str) -> None:
    """Ends a login; pages that it has opened answer no longer."""
    with database.transaction() as session:
        accounts.revoke_secret(session, secret)


def is_open(database: Database) -> bool:
    """Whether there is no account."""
    with database.snapshot() as session:
        return not accounts.is_any(session)


def caller_with(database: Database, secret: str, kind: accounts.Kind) -> Caller | None:
    """Who came with that secret; None: it is none of that kind, or good no longer."""
    with database.snapshot() as session:
        found = accounts.bearer(session, secret, at=datetime.now(UTC))
    return None if found is None or found.kind is not kind else _caller(found)


def still(database: Database, caller: Caller) -> Caller:
    """Who asked some time ago, if they may still do all that they could, and see no less.

    Raises:
        EndedError: They have logged out, their token has expired or was revoked, or their rights have changed.
    """
    if caller.token_id is None:
        if is_open(database):
            return caller
        raise EndedError("there are accounts by now: log in")
    with database.snapshot() as session:
        found = accounts.bearer_of(session, caller.token_id, at=datetime.now(UTC))
    if found is None:
        raise EndedError("your login has ended: log in again")
    if _caller(found) != caller:
        raise EndedError("your rights have changed: load the page again")
    return caller


def _caller(found: accounts.Bearer) -> Caller:
    cameras = None if found.cameras is None else frozenset(found.cameras)
    return Caller(found.account, found.role, cameras, found.token_id)


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher().hash("nobody's password")
