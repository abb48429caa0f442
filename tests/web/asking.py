"""A small site, and requests to its application as browsers and programs send them; without a server."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from storage import accounts
from storage.accounts import Kind, Role
from storage.database import Database
from streamer.config import SiteConfig, load_site
from web.app import create_api
from web.logins import hashed
from web.services import Services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

HERE = "http://127.0.0.1:8080"
PASSWORD = "correct horse battery"
CAMERAS = ("gate", "yard")


def site_file(folder: Path, **web: Any) -> SiteConfig:  # noqa: ANN401 - whatever the section takes
    """A site of two cameras whose database and pictures lie in that folder."""
    document = {
        "site": "small",
        "database": f"sqlite:///{folder / 'small.db'}",
        "crops_dir": str(folder / "crops"),
        "cameras": [{"id": name, "url": f"rtsp://127.0.0.1:1/{name}", "modality": "visible"} for name in CAMERAS],
        "web": web,
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_site(path)


@dataclass(frozen=True)
class Asker:
    """Sends requests straight into the application.

    Attributes:
        app: The application.
        services: What it answers from.
        headers: That every request carries.
        base: Scheme, name and port that requests are made to.
    """

    app: FastAPI
    services: Services
    headers: dict[str, str] = field(default_factory=dict)
    base: str = HERE

    def __call__(self, method: str, address: str, **parts: Any) -> httpx.Response:  # noqa: ANN401 - as httpx takes it
        """Sends one request; redirects are not followed."""
        return asyncio.run(self._ask(method, address, parts))

    async def _ask(self, method: str, address: str, parts: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {**self.headers, **parts.pop("headers", {})}
        async with httpx.AsyncClient(transport=transport, base_url=self.base) as client:
            return await client.request(method, address, headers=headers, **parts)

    def with_headers(self, **headers: str) -> Asker:
        """The same, with these too."""
        return Asker(self.app, self.services, {**self.headers, **headers}, self.base)

    def with_token(self, name: str, role: Role = Role.VIEWER) -> Asker:
        """As a program with a token of that account."""
        return self.with_headers(Authorization=f"Bearer {token(self.services.database, name, role=role)}")

    def logged_in(self, name: str) -> Asker:
        """As a browser whose person has logged in."""
        return self.with_headers(Cookie=f"vehicle-tracker={token(self.services.database, name, kind=Kind.SESSION)}")


@contextmanager
def small_site(folder: Path, **web: Any) -> Iterator[Asker]:  # noqa: ANN401 - whatever the section takes
    """The application of a small site, empty and without accounts."""
    site = site_file(folder, **web)
    (folder / "small.db").write_bytes(_empty_database())
    services = Services(site, Database.open(site.database))
    try:
        yield Asker(create_api(services), services)
    finally:
        services.close()


@cache
def _empty_database() -> bytes:
    """A SQLite file that the migrations have made, once for all tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        Database.open(f"sqlite:///{path}").close()
        return path.read_bytes()


def account(database: Database, name: str, role: Role = Role.VIEWER, *, cameras: tuple[str, ...] | None = None) -> None:
    """Makes an account with `PASSWORD`."""
    with database.transaction() as session:
        accounts.add_account(session, name, hashed(PASSWORD), role=role, at=datetime.now(UTC), cameras=cameras)


def token(database: Database, name: str, *, role: Role = Role.VIEWER, kind: Kind = Kind.API, days: float = 1.0) -> str:
    """Makes a token, and returns its secret; one that is to have expired is made in the past."""
    now = datetime.now(UTC)
    made_at = now if days > 0 else now + timedelta(days=2 * days)
    with database.transaction() as session:
        _, secret = accounts.make_token(
            session, name, kind=kind, role=role, at=made_at, expires_at=now + timedelta(days=days)
        )
    return secret
