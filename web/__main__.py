"""The command line: `python -m web --config SITE.yaml --port 8080`."""

from __future__ import annotations

import ipaddress
import socket
import sys
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from storage.database import Database
from storage.errors import StorageError
from streamer.config import ConfigError, SiteConfig, load_site
from web.account_commands import accounts_app, tokens_app
from web.origins import is_loopback

if TYPE_CHECKING:
    import uvicorn

    from web.services import Services

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


app.add_typer(accounts_app, name="account")
app.add_typer(tokens_app, name="token")
#: Of what an open page says at once; views take far less. Of 16 MiB each, as uvicorn has it, 32 may wait.
_MAX_MESSAGE_BYTES = 1 << 20
_Certificate = Annotated[
    Path | None, typer.Option("--ssl-certfile", help="A certificate (PEM): the page is served over TLS.")
]
_Proxies = Annotated[
    str | None,
    typer.Option(
        "--forwarded-allow-ips",
        metavar="IPS",
        help="Addresses of proxies, with commas, that say truly who asks and whether TLS was spoken.",
    ),
]


@dataclass(frozen=True, slots=True)
class _Listening:
    """Where and how to listen.

    Attributes:
        host: An address of this machine.
        port: 0: any that is free.
        certificate: PEM; None: no TLS.
        key: PEM; None: it is in the certificate's file.
        proxies: Whom to believe who asks; None: nobody.
    """

    host: str
    port: int
    certificate: Path | None
    key: Path | None
    proxies: str | None

    @property
    def is_public(self) -> bool:
        """Whether other machines reach it."""
        return self.proxies is not None or not is_loopback(self.host)


@app.callback(invoke_without_command=True)
def main(  # noqa: PLR0913 - a command's options
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", help="The site file.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    certificate: _Certificate = None,
    key: Annotated[Path | None, typer.Option("--ssl-keyfile", help="Its key (PEM).")] = None,
    proxies: _Proxies = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Show where vehicles went: a page for people, an HTTP API for programs (/openapi.json).

    python -m web --config configs/demo.yaml --port 8080

    Beyond this machine it is only served to people with accounts: see `account --help`.
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        _fail("--config: name a site file, such as configs/demo.yaml")
    if key is not None and certificate is None:
        _fail("--ssl-keyfile: wants --ssl-certfile")
    if proxies is not None:
        _check_proxies(proxies)
    _serve(_load(config), _Listening(host, port, certificate, key, proxies), show=show)


def _serve(site: SiteConfig, where: _Listening, *, show: bool) -> None:
    import uvicorn

    try:
        services = _services(site, where)
    except StorageError as error:
        _fail(str(error))
    try:
        listener = _listener(where)
        from web.app import create_app
        from web.server import Server

        application = create_app(services)
        server = uvicorn.Config(
            application,
            log_level="warning",
            server_header=False,
            ws_max_size=_MAX_MESSAGE_BYTES,
            proxy_headers=where.proxies is not None,
            forwarded_allow_ips=where.proxies or "",
            ssl_certfile=where.certificate,
            ssl_keyfile=where.key,
        )
        _check_certificate(server)
        address = _address(where, listener)
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        if show:
            Timer(1.0, webbrowser.open, [address]).start()
        with suppress(KeyboardInterrupt):
            Server(server, application.state.feed.close).run(sockets=[listener])
    finally:
        services.close()


def _services(site: SiteConfig, where: _Listening) -> Services:
    from web.logins import is_open
    from web.services import ANSWER_TIMEOUT_S, Services

    database = Database.open(site.database, must_exist=True, statement_timeout_s=ANSWER_TIMEOUT_S)
    services = Services(site, database)
    services.is_public = where.is_public
    if where.is_public:
        if is_open(services.database):
            services.close()
            raise StorageError(
                f"{where.host}: other machines would be answered, and there are no accounts: "
                "make one by `python -m web account add NAME --role admin --config SITE.yaml`"
            )
        if where.certificate is None and where.proxies is None:
            sys.stderr.write(f"{where.host}: without TLS passwords can be read on their way: see --ssl-certfile\n")
    return services


def _listener(where: _Listening) -> socket.socket:
    try:
        family = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((where.host, where.port), family=family)
    except OSError as error:
        _fail(f"{where.host}:{where.port}: {error.strerror or error}")


def _check_proxies(proxies: str) -> None:
    """Refuses what the server would take for a name that nobody has, and what would let everybody say who they are."""
    for given in proxies.split(","):
        try:
            is_everybody = ipaddress.ip_network(given.strip()).prefixlen == 0
        except ValueError:
            is_everybody = True
        if is_everybody:
            _fail(f"--forwarded-allow-ips: wanted addresses or networks of proxies, got {given!r}")


def _check_certificate(server: uvicorn.Config) -> None:
    try:
        server.load()
    except OSError as error:  # ssl.SSLError is one
        _fail(f"--ssl-certfile {server.ssl_certfile}: {error.strerror or error}")


def _address(where: _Listening, listener: socket.socket) -> str:
    scheme = "http" if where.certificate is None else "https"
    host = f"[{where.host}]" if ":" in where.host else where.host
    return f"{scheme}://{host}:{listener.getsockname()[1]}/"


def _load(config: Path) -> SiteConfig:
    try:
        return load_site(config)
    except ConfigError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    raise typer.Exit(2)


if __name__ == "__main__":
    app(prog_name="python -m web")
