"""The command line: `python -m streamer --config SITE.yaml`, and `python -m streamer probe URL`."""

from __future__ import annotations

import logging
import signal
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.config import ConfigError, SiteConfig, load_site, mask

if TYPE_CHECKING:
    from rich.console import Console

    from streamer.supervisor import Outcome, Supervisor

#: The exit status when the program can't start, and when it ran but gave something up.
CANNOT_START, INCOMPLETE = 2, 1
#: Where the output is no terminal, a table is this wide, so that a vehicle's way stays on few lines.
NARROWEST = 140

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", help="The site file.")] = None,
    role: Annotated[str, typer.Option(help="all; edge (cameras and embedder); or matcher.")] = "all",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress; warnings and the totals only.")] = False,
) -> None:
    """Follow vehicles through the cameras of a site; ends by itself once all its files are read.

    Ctrl-C or SIGTERM ends it in order: what is in view is told, sent and matched. SIGHUP reads the site file again.

    Beside this: python -m streamer.calibrate fits what a similarity says to labelled data, python -m
    streamer.evaluate scores a run, python -m storage asks the database.
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        _fail("--config: name a site file, such as configs/demo.yaml")
    sys.exit(_run(config, role, quiet=quiet))


@app.command()
def probe(
    url: Annotated[str, typer.Argument(help="An address, a file or an image sequence.")] = "",
    config: Annotated[Path | None, typer.Option("--config", help="Instead of one: all cameras of a site file.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to watch each.")] = 5.0,
) -> None:
    """Say what a source is: codec, size, frame rates, clock, modality; or why it can't be read.

    Of a site file: all its cameras, and how long its disks will last by what the last days have added.

    python -m streamer probe rtsp://10.0.0.11/stream1

    python -m streamer probe --config site.yaml
    """
    if config is not None:
        from streamer.site_probe import run_site_probe

        sys.exit(run_site_probe(_load(config), seconds=seconds))
    from streamer.probe import run_probe

    sys.exit(run_probe(url, seconds=seconds))


@app.command()
def reload(
    config: Annotated[Path, typer.Option("--config", help="The site file, as it was given to the run.")],
) -> None:
    """Have a running site take up its changed site file: cameras are added, removed and edited, the others go on.

    python -m streamer reload --config site.yaml

    An edited camera is ended and begun anew. Taken up are cameras, links and regions; the run's log names changed keys
    that want a restart instead. A file with a fault changes nothing, neither here nor in the run.
    """
    from streamer.pid_file import ask_to_reload, running

    site = _load(config)
    pids = running(site.outbox_path)
    if not pids:
        _fail(f"{config}: no such site runs on this host")
    problems = [problem for pid in pids if (problem := ask_to_reload(pid))]
    if problems:
        _fail("\n".join(problems))
    print(f"told process {', '.join(map(str, pids))}; its log says what it has taken up")


@app.command("rematch")
def rematch_command(  # noqa: PLR0913 - one parameter per option
    config: Annotated[Path, typer.Option("--config", help="The site file.")],
    source: Annotated[str, typer.Option("--from", metavar="DATABASE", help="The run's database; it stays as it is.")],
    target: Annotated[str, typer.Option("--into", metavar="DATABASE", help="A new database.")],
    weights: Annotated[Path | None, typer.Option(help="Embed the stored crops anew, with these.")] = None,
    crops: Annotated[Path | None, typer.Option(help="Where the crops lie; default: the site's crops_dir.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="In place of the site file's; repeatable.")
    ] = None,
    keep_corrections: Annotated[
        bool, typer.Option("--keep-corrections", help="In the end, what people had said holds again.")
    ] = False,
    truth: Annotated[Path | None, typer.Option(help="truth.csv: score both with it.")] = None,
    show: Annotated[int, typer.Option(min=0, help="List so many changed vehicles at most.")] = 20,
) -> None:
    """Rebuild all identities from stored sightings, with another model or setting, and compare.

    The run's database stays as it is; the new one gets its sightings, and decides who is who from scratch. Would
    stricter links have split vehicles?

    python -m streamer rematch --config site.yaml --from sqlite:///run.db --into sqlite:///strict.db --set
    matcher.min_margin=3

    --set takes matcher.KEY and links (links=null: none). A person's corrections are left out unless asked for; crops
    stay where they are.
    """
    from streamer.rematch_report import RematchOrder, run_rematch

    order = RematchOrder(config, source, target, weights, crops, settings or (), keep_corrections, truth, show)
    sys.exit(run_rematch(order))


@app.command()
def topology(
    database: Annotated[str, typer.Option(metavar="URL", help="The site's database.")],
    region: Annotated[str | None, typer.Option(help="One region; default: all that have learned anything.")] = None,
    out: Annotated[Path | None, typer.Option(help="Draw it: a .png, .svg or .html file.")] = None,
) -> None:
    """Show what the matcher has learned of its cameras: ways and travel times between them, views that overlap.

    python -m streamer topology --database sqlite:///run.db --out ways.html
    """
    from streamer.topology_report import run_topology

    sys.exit(run_topology(database, region, out))


@app.command()
def reference(
    config: Annotated[Path, typer.Option("--config", help="The site file.")],
    seconds: Annotated[float, typer.Option(min=0, help="How long to watch each camera.")] = 20.0,
) -> None:
    """Take a picture of how each camera should see, into camera_health.references; what drives by is left out.

    Do it when the cameras are aimed: one that is moved afterwards is told, even if that happens while nothing runs.
    """
    from streamer.reference import run_reference

    sys.exit(run_reference(_load(config), seconds=seconds))


def _load(path: Path) -> SiteConfig:
    try:
        return load_site(path)
    except ConfigError as error:
        _fail(str(error))


def _fail(problem: str) -> typing.NoReturn:
    for line in problem.splitlines():
        print(mask(line), file=sys.stderr)
    sys.exit(CANNOT_START)


def _run(config: Path, role: str, *, quiet: bool) -> int:
    from rich.console import Console

    from streamer.children import StartError, set_up_logging
    from streamer.site_plan import Role
    from streamer.supervisor import Supervisor

    site = _load(config)
    if role not in tuple(Role):
        _fail(f"--role: wanted {', '.join(Role)}, got {role}")
    console = Console() if sys.stdout.isatty() else Console(width=NARROWEST)
    level = logging.WARNING if quiet or console.is_terminal else logging.INFO
    set_up_logging(level)
    supervisor = Supervisor(site, Role(role), reread=lambda: load_site(config), log_level=level)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.stop())
    signal.signal(signal.SIGHUP, lambda *_: supervisor.reload())
    try:
        supervisor.start()
        outcome = _follow(supervisor, console, quiet=quiet)
    except StartError as error:
        _fail(str(error))
    finally:
        supervisor.close()
    return _conclude(supervisor, outcome, console)


def _follow(supervisor: Supervisor, console: Console, *, quiet: bool) -> Outcome:
    from streamer.progress import Progress

    for name in supervisor.outcome.already_done:
        console.print(f"{name}: read to its end by an earlier run, nothing to do", highlight=False)
    if quiet:
        return supervisor.run()
    with Progress(supervisor.site, supervisor.board, console).shown() as progress:

        def tick() -> None:
            progress.site = supervisor.site
            progress.tick()

        return supervisor.run(tick)


def _conclude(supervisor: Supervisor, outcome: Outcome, console: Console) -> int:
    """Prints the table and the totals; the exit status."""
    from storage.errors import StorageError
    from streamer.counters import RowState
    from streamer.progress import losses_line, totals_line
    from streamer.site_plan import Role

    if supervisor.role is not Role.EDGE:
        try:
            _print_vehicles(supervisor.site, console)
        except StorageError as error:
            print(error, file=sys.stderr)
            return INCOMPLETE
    if supervisor.role is not Role.MATCHER:
        console.print(totals_line(supervisor.board), highlight=False, soft_wrap=True)
        if losses := losses_line(supervisor.board):
            console.print(losses, style="yellow", highlight=False, soft_wrap=True)
    rows = {name: supervisor.board.camera(name) for name in supervisor.board.cameras}
    failed = {name: row.note for name, row in rows.items() if row.state is RowState.FAILED}
    for name, reason in failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    for stage in outcome.given_up:
        print(
            f"{stage}: given up, it died too often: {supervisor.board.stage(stage).note or 'see the log'}",
            file=sys.stderr,
        )
    if failed and len(failed) == len(rows):
        return CANNOT_START
    return INCOMPLETE if outcome.given_up else 0


def _print_vehicles(site: SiteConfig, console: Console) -> None:
    from storage.database import Database
    from storage.trajectories import trajectory, vehicles
    from streamer.progress import vehicles_table

    database = Database.open(site.database)
    try:
        with database.snapshot() as session:
            found = vehicles(session, min_cameras=2)
            visits = {
                vehicle.vehicle_id: [
                    (stop.camera, stop.arrival) for stop in trajectory(session, vehicle.vehicle_id).stops
                ]
                for vehicle in found
            }
            total = len(vehicles(session))
    finally:
        database.close()
    console.print(vehicles_table(found, visits))
    console.print(f"{total} vehicles, {len(found)} of them passed several cameras", highlight=False)


if __name__ == "__main__":
    app()
