"""Who may ask over the network, and how much: accounts, and the tokens that prove who asks.

Of a password only its hash lies here, made by whoever calls; of a token only its SHA-256 digest, which is enough for
32 random bytes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, null, select, update

from storage.errors import StorageError
from storage.models import AccessTokenRow, AccountRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.orm import Session

#: Of a name: as long as the audit takes it, and nothing that could be read as something else in a table or an address.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_MAX_LABEL_LENGTH = 64
_SECRET_BYTES = 32


class Role(StrEnum):
    """What somebody may do; each may do what those before it may."""

    #: Asks; of some cameras only, where the account says so.
    VIEWER = "viewer"
    #: Sees all cameras, corrects, and watches vehicles.
    OPERATOR = "operator"
    #: Reads the audit too, and gives accounts and tokens.
    ADMIN = "admin"

    def may(self, wanted: Role) -> bool:
        """Whether this role may do what is left to `wanted`."""
        order = list(Role)
        return order.index(self) >= order.index(wanted)


class Kind(StrEnum):
    """What a token is for."""

    #: The cookie of a login.
    SESSION = "session"
    #: A program's.
    API = "api"


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may ask.

    Attributes:
        name: By which they log in, and by which questions are noted.
        role: What they may do.
        cameras: The only ones that they may see, sorted; None: all.
        made_at: Since when.
    """

    name: str
    role: Role
    cameras: tuple[str, ...] | None
    made_at: datetime


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, without its secret.

    Attributes:
        token_id: Its number.
        account: Whose.
        kind: What for.
        label: What its owner calls it.
        role: What may be done with it at most, whatever the account may.
        made_at: Since when.
        expires_at: From this moment on it is good for nothing.
    """

    token_id: int
    account: str
    kind: Kind
    label: str
    role: Role
    made_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who came with a token, as their account stands now.

    Attributes:
        token_id: Of the token.
        account: The account's name.
        kind: What the token is for.
        role: The lesser of the account's and the token's.
        cameras: The only ones that they may see; None: all.
    """

    token_id: int
    account: str
    kind: Kind
    role: Role
    cameras: tuple[str, ...] | None


def is_any(session: Session) -> bool:
    """Whether there is an account."""
    return session.scalar(select(AccountRow.name).limit(1)) is not None


def accounts(session: Session) -> list[Account]:
    """All accounts, by name."""
    row = AccountRow
    found = session.execute(select(row.name, row.role, row.cameras, row.made_at).order_by(row.name))
    return [Account(name, Role(role), _sorted(cameras), made_at) for name, role, cameras, made_at in found]


def password_hash(session: Session, name: str) -> str | None:
    """The hash of an account's password; None: no such account."""
    return session.scalar(select(AccountRow.password).where(AccountRow.name == name))


def add_account(
    session: Session, name: str, password: str, *, role: Role, at: datetime, cameras: Collection[str] | None = None
) -> Account:
    """Makes an account.

    Args:
        session: Of `Database.transaction`.
        name: 1 to 64 letters, digits and `.`, `_`, `@`, `-`.
        password: Its hash.
        role: What they may do.
        at: The clock.
        cameras: The only ones that a viewer may see; None: all.

    Raises:
        StorageError: No such name can be given, it is given already, or an operator is to see some cameras only.
    """
    if not _NAME.fullmatch(name):
        raise StorageError(f"account {name!r}: wanted 1 to 64 letters, digits and . _ @ -")
    # Small or large letters: people who read the audit would take both for one.
    taken = session.scalar(select(AccountRow.name).where(func.lower(AccountRow.name) == name.lower()))
    if taken is not None:
        raise StorageError(f"account {name}: there is one of that name" + (f", {taken}" if taken != name else ""))
    chosen = _cameras_for(name, role, cameras)
    # A None of ours would be stored as JSON's null, which is not NULL.
    stored = null() if chosen is None else chosen
    values = {"name": name, "password": password, "role": role.value, "cameras": stored, "made_at": at}
    session.execute(insert(AccountRow), [values])
    return Account(name, role, _sorted(chosen), at)


def change_account(
    session: Session, name: str, *, role: Role, cameras: Collection[str] | None = None, although_last: bool = False
) -> None:
    """Gives an account another role, and other cameras; what is open by it and asks again is judged by these.

    Raises:
        StorageError: No such account, an operator is to see some cameras only, or, unless `although_last`, nobody would
            be left who is an administrator.
    """
    _check_known(session, name)
    if not although_last:
        _check_administered(session, name, role)
    chosen = _cameras_for(name, role, cameras)
    stored = null() if chosen is None else chosen
    session.execute(update(AccountRow).where(AccountRow.name == name).values(role=role.value, cameras=stored))


def change_password(session: Session, name: str, password: str) -> None:
    """Gives an account another password, and ends whatever was proved by the old one: its logins and its tokens.

    Args:
        session: Of `Database.transaction`.
        name: The account.
        password: Its hash.

    Raises:
        StorageError: No such account.
    """
    _check_known(session, name)
    session.execute(delete(AccessTokenRow).where(AccessTokenRow.account == name))
    session.execute(update(AccountRow).where(AccountRow.name == name).values(password=password))


def renew_hash(session: Session, name: str, old: str, new: str) -> None:
    """Replaces the hash of a password by a better one of the same; unless the password was changed meanwhile."""
    session.execute(update(AccountRow).where(AccountRow.name == name, AccountRow.password == old).values(password=new))


def remove_account(session: Session, name: str, *, although_last: bool = False) -> None:
    """Removes an account, its logins and its tokens. What it asked stays noted.

    Raises:
        StorageError: No such account, or, unless `although_last`, it is the last one, or the last administrator's.
    """
    _check_known(session, name)
    if not although_last:
        _check_administered(session, name, None)
    session.execute(delete(AccessTokenRow).where(AccessTokenRow.account == name))
    session.execute(delete(AccountRow).where(AccountRow.name == name))


def make_token(
    session: Session, account: str, *, kind: Kind, role: Role, at: datetime, expires_at: datetime, label: str = ""
) -> tuple[AccessToken, str]:
    """Makes a token.

    Args:
        session: Of `Database.transaction`.
        account: Whose.
        kind: What for.
        role: What may be done with it at most.
        at: The clock; tokens that have expired by now are removed.
        expires_at: Until when it is good.
        label: What its owner calls it, at most 64 letters.

    Returns:
        The token, and its secret, which can't be asked for again.

    Raises:
        StorageError: No such account, it may less than `role`, or it would have expired already.
    """
    held = session.scalar(select(AccountRow.role).where(AccountRow.name == account))
    if held is None:
        raise StorageError(f"account {account!r}: there is none of that name")
    if not Role(held).may(role):
        raise StorageError(f"account {account} has the role {held}: no token of it can have the role {role}")
    if expires_at <= at:
        raise StorageError("a token has to expire later than now")
    if len(label) > _MAX_LABEL_LENGTH:
        raise StorageError(f"wanted a label of at most {_MAX_LABEL_LENGTH} letters")
    session.execute(delete(AccessTokenRow).where(AccessTokenRow.expires_at <= at))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    row = AccessTokenRow(
        digest=_digest(secret),
        account=account,
        kind=kind.value,
        label=label,
        role=role.value,
        made_at=at,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return AccessToken(row.token_id, account, kind, label, role, at, expires_at), secret


def tokens(
    session: Session, *, at: datetime, account: str | None = None, kind: Kind | None = None
) -> list[AccessToken]:
    """The tokens that are good at a moment, by number.

    Args:
        session: To read from.
        at: The clock.
        account: Only this account's.
        kind: Only such.
    """
    row = AccessTokenRow
    wanted = select(row.token_id, row.account, row.kind, row.label, row.role, row.made_at, row.expires_at)
    wanted = wanted.where(row.expires_at > at)
    if account is not None:
        wanted = wanted.where(row.account == account)
    if kind is not None:
        wanted = wanted.where(row.kind == kind.value)
    return [
        AccessToken(token_id, whose, Kind(what), label, Role(role), made_at, expires_at)
        for token_id, whose, what, label, role, made_at, expires_at in session.execute(wanted.order_by(row.token_id))
    ]


def revoke_token(session: Session, token_id: int, *, account: str | None = None) -> None:
    """Ends a token or a login.

    Args:
        session: Of `Database.transaction`.
        token_id: Its number.
        account: Whose it must be; None: anybody's.

    Raises:
        StorageError: There is none of that number, or it is somebody else's.
    """
    gone = delete(AccessTokenRow).where(AccessTokenRow.token_id == token_id)
    if account is not None:
        gone = gone.where(AccessTokenRow.account == account)
    if session.scalar(gone.returning(AccessTokenRow.token_id)) is None:
        raise StorageError(f"token {token_id}: there is none of that number")


def revoke_secret(session: Session, secret: str) -> None:
    """Ends the login or token with that secret, if there is one."""
    session.execute(delete(AccessTokenRow).where(AccessTokenRow.digest == _digest(secret)))


def bearer(session: Session, secret: str, *, at: datetime) -> Bearer | None:
    """Who came with a secret; None: it never was one, has expired or was revoked."""
    return _bearer(session, _of_bearers(at).where(AccessTokenRow.digest == _digest(secret)))


def bearer_of(session: Session, token_id: int, *, at: datetime) -> Bearer | None:
    """Whose a token is that was good some time ago; None: it is no longer."""
    return _bearer(session, _of_bearers(at).where(AccessTokenRow.token_id == token_id))


def _of_bearers(at: datetime) -> Select[int, str, str, str, str, list[str] | None]:
    token, account = AccessTokenRow, AccountRow
    wanted = select(token.token_id, account.name, token.kind, token.role, account.role, account.cameras)
    return wanted.join(account, account.name == token.account).where(token.expires_at > at)


def _bearer(session: Session, wanted: Select[int, str, str, str, str, list[str] | None]) -> Bearer | None:
    found = session.execute(wanted).first()
    if found is None:
        return None
    token_id, name, kind, of_token, of_account, cameras = found
    role = min(Role(of_token), Role(of_account), key=list(Role).index)
    return Bearer(token_id, name, Kind(kind), role, _sorted(cameras))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _cameras_for(name: str, role: Role, cameras: Collection[str] | None) -> list[str] | None:
    if cameras is None:
        return None
    if role is not Role.VIEWER:
        raise StorageError(f"account {name}: only a viewer may be given some cameras, an {role} sees all")
    return sorted(set(cameras))


def _sorted(cameras: list[str] | None) -> tuple[str, ...] | None:
    return None if cameras is None else tuple(sorted(cameras))


def _check_known(session: Session, name: str) -> None:
    if password_hash(session, name) is None:
        raise StorageError(f"account {name!r}: there is none of that name")


def _check_administered(session: Session, name: str, role: Role | None) -> None:
    """That an administrator is left, where there was one, once an account has that role or, without one, is gone."""
    before = {one.name: one.role for one in accounts(session)}
    left = {other: held for other, held in before.items() if other != name} | ({} if role is None else {name: role})
    if not left:
        raise StorageError(f"account {name}: the last one; without it, whoever sits at this machine may do anything")
    if Role.ADMIN in before.values() and Role.ADMIN not in left.values():
        raise StorageError(f"account {name}: the last administrator's; give another one that role first")
