"""The commands of `python -m web` on who may ask over the network: accounts and tokens."""

from __future__ import annotations

import getpass
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storage.accounts import Role
from storage.errors import StorageError
from streamer.config import ConfigError, SiteConfig, load_site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.orm import Session

    from storage.accounts import Account

accounts_app = typer.Typer(
    no_args_is_help=True, help="Who may ask over the network. Beyond this machine nobody else is answered."
)
tokens_app = typer.Typer(no_args_is_help=True, help="What programs ask with: `Authorization: Bearer TOKEN`.")

Config = Annotated[Path, typer.Option("--config", help="The site file.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The account.")]
Cameras = Annotated[
    list[str] | None,
    typer.Option("--camera", metavar="ID", help="The only cameras that a viewer may see; give it several times."),
]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, its first line.")
]

AlthoughLast = Annotated[
    bool, typer.Option("--although-last", help="Although no administrator, or no account, is left then.")
]


@accounts_app.command("add")
def add(
    name: Name,
    config: Config,
    role: Annotated[Role, typer.Option(help="What they may do.")] = Role.VIEWER,
    cameras: Cameras = None,
    password_stdin: FromStdin = False,
) -> None:
    """Make an account. The password is asked for twice.

    Example: account add mira --role operator --config configs/demo.yaml
    """
    kept = _hashed_password(password_stdin)
    with _changing(config, "account add", name, role=role.value, cameras=cameras) as (site, session):
        from storage import accounts

        _check_cameras(site, cameras)
        accounts.add_account(session, name, kept, role=role, at=datetime.now(UTC), cameras=cameras)
    sys.stdout.write(f"account {name}: {role}\n")


@accounts_app.command("change")
def change(
    name: Name,
    config: Config,
    role: Annotated[Role, typer.Option(help="What they may do from now on.")],
    cameras: Cameras = None,
    all_cameras: Annotated[bool, typer.Option("--all-cameras", help="Of a viewer who saw some only.")] = False,
    although_last: AlthoughLast = False,
) -> None:
    """Give an account another role, or other cameras. It holds from its next question on.

    Example: account change mira --role viewer --camera cam1_rgb --config configs/demo.yaml
    """
    with _changing(config, "account change", name, role=role.value, cameras=cameras) as (site, session):
        from storage import accounts

        _check_cameras(site, cameras)
        if role is Role.VIEWER and not cameras and not all_cameras:
            _check_unlimited(name, accounts.accounts(session))
        accounts.change_account(session, name, role=role, cameras=cameras, although_last=although_last)
    sys.stdout.write(f"account {name}: {role}\n")


@accounts_app.command("password")
def password(name: Name, config: Config, password_stdin: FromStdin = False) -> None:
    """Give an account another password. Its logins and tokens end.

    Example: account password mira --config configs/demo.yaml
    """
    kept = _hashed_password(password_stdin)
    with _changing(config, "account password", name) as (_, session):
        from storage import accounts

        accounts.change_password(session, name, kept)
    sys.stdout.write(f"account {name}: a new password; its logins and tokens have ended\n")


@accounts_app.command("remove")
def remove(name: Name, config: Config, although_last: AlthoughLast = False) -> None:
    """Remove an account, its logins and tokens. What it asked stays noted.

    With the last one, whoever sits at this machine is answered again, as an administrator.

    Example: account remove mira --config configs/demo.yaml
    """
    with _changing(config, "account remove", name) as (_, session):
        from storage import accounts

        accounts.remove_account(session, name, although_last=although_last)
    sys.stdout.write(f"account {name}: removed\n")


@accounts_app.command("list")
def accounts_list(config: Config) -> None:
    """List the accounts.

    Example: account list --config configs/demo.yaml
    """
    with _changing(config, "account list", "") as (_, session):
        from storage import accounts

        for one in accounts.accounts(session):
            cameras = "all cameras" if one.cameras is None else " ".join(one.cameras)
            sys.stdout.write(f"{one.name}  {one.role}  {cameras}  since {one.made_at:%Y-%m-%d}\n")


@tokens_app.command("make")
def make(
    name: Name,
    config: Config,
    days: Annotated[float, typer.Option(min=0.01, max=3660, help="It is good for so long.")],
    role: Annotated[Role, typer.Option(help="What may be done with it at most.")] = Role.VIEWER,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make a token of an account, and show it: this once.

    Example: token make mira --days 30 --role viewer --config configs/demo.yaml
    """
    with _changing(config, "token make", name, role=role.value, days=days, label=label) as (_, session):
        from storage import accounts

        now = datetime.now(UTC)
        expires_at = now + timedelta(days=days)
        made, secret = accounts.make_token(
            session, name, kind=accounts.Kind.API, role=role, at=now, expires_at=expires_at, label=label
        )
    sys.stderr.write(f"token {made.token_id}: {name}, {role}, until {expires_at:%Y-%m-%d %H:%M} UTC\n")
    sys.stdout.write(f"{secret}\n")


@tokens_app.command("revoke")
def revoke(
    token_id: Annotated[int, typer.Argument(metavar="NUMBER", help="See `token list`.")], config: Config
) -> None:
    """End a token, or a login.

    Example: token revoke 3 --config configs/demo.yaml
    """
    with _changing(config, "token revoke", str(token_id)) as (_, session):
        from storage import accounts

        accounts.revoke_token(session, token_id)
    sys.stdout.write(f"token {token_id}: revoked\n")


@tokens_app.command("list")
def tokens_list(config: Config) -> None:
    """List tokens and logins that are good now.

    Example: token list --config configs/demo.yaml
    """
    with _changing(config, "token list", "") as (_, session):
        from storage import accounts

        for one in accounts.tokens(session, at=datetime.now(UTC)):
            until = f"until {one.expires_at:%Y-%m-%d %H:%M} UTC"
            sys.stdout.write(f"{one.token_id}  {one.account}  {one.kind}  {one.role}  {until}  {one.label}\n")


@contextmanager
def _changing(config: Path, action: str, name: str, **details: object) -> Iterator[tuple[SiteConfig, Session]]:
    """The site and a transaction on its database, noted; what can't be done ends the program with one line."""
    from storage.asking import Inquiry, decided
    from storage.database import Database
    from storage.terminal import person

    try:
        site = load_site(config)
        database = Database.open(site.database, must_exist=True)
        try:
            inquiry = Inquiry(action, person(None), "", {"account": name, **details})
            with decided(database, inquiry) as session:
                yield site, session
        finally:
            database.close()
    except (ConfigError, StorageError) as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error


def _hashed_password(from_stdin: bool) -> str:
    """Asked for before the database is: nobody else could decide anything while somebody types."""
    from web.logins import hashed

    try:
        return hashed(_password(from_stdin))
    except StorageError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(2) from error


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise StorageError("no terminal to ask for the password on: give --password-stdin")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != first:
        raise StorageError("the two are not the same")
    return first


def _check_cameras(site: SiteConfig, cameras: list[str] | None) -> None:
    known = {camera.id for camera in site.cameras}
    unknown = sorted(set(cameras or ()) - known)
    if unknown:
        raise StorageError(f"--camera: the site has no {', '.join(unknown)}")


def _check_unlimited(name: str, known: Iterable[Account]) -> None:
    """That a viewer who sees some cameras only doesn't come to see all because nobody thought of it."""
    for cameras in (one.cameras for one in known if one.name == name and one.cameras is not None):
        raise StorageError(f"account {name} sees {', '.join(cameras)} alone: give --camera again, or --all-cameras")
