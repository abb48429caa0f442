"""The command line: `python -m web --config SITE.yaml --port 8080`."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from threading import Timer
from typing import Annotated, NoReturn

import typer

from storage.database import Database
from storage.errors import StorageError
from streamer.config import ConfigError, SiteConfig, load_site

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", help="The site file.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
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
    _serve(_load(config), host, port, show=show)


def _serve(site: SiteConfig, host: str, port: int, *, show: bool) -> None:
    import uvicorn

    from web.app import create_app
    from web.services import Services

    try:
        services = Services(site, Database.open(site.database, must_exist=True))
    except StorageError as error:
        _fail(str(error))
    if show:
        Timer(1.0, webbrowser.open, [f"http://{host}:{port}/"]).start()
    try:
        uvicorn.run(create_app(services), host=host, port=port, log_level="warning", server_header=False)
    finally:
        services.close()


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
