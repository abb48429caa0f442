"""`python -m streamer probe --config SITE`: can its cameras be read, and how long will its disks last?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from storage.crop_store import CropStore
from storage.database import Database
from storage.disk_forecast import recent_growth
from storage.errors import StorageError
from streamer.disk_outlook import disk_outlooks
from streamer.probe import EXIT_FAILED, probe
from streamer.sources import SourceError

if TYPE_CHECKING:
    from streamer.config import CameraConfig, SiteConfig
    from streamer.disk_outlook import DiskOutlook

_GIB = 2**30


def run_site_probe(site: SiteConfig, *, seconds: float, console: Console | None = None) -> int:
    """The command: a line per camera, and a line per folder that grows.

    Blocks, for each camera in turn, as `streamer.probe.probe` does.

    Returns:
        The exit status: 0, or 2 where a camera can't be used.
    """
    console = console or Console()
    table = Table(title=f"cameras of {escape(site.site)}", title_justify="left")
    for column in ("camera", "codec", "size", "frames/s", "modality", "clock"):
        table.add_column(column)
    problems = [problem for camera in site.cameras if (problem := _add(camera, site, seconds, table))]
    console.print(table)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(_disks(site))
    return EXIT_FAILED if problems else 0


def _add(camera: CameraConfig, site: SiteConfig, seconds: float, table: Table) -> str:
    """Adds the camera's line; answers with what is wrong with it, or nothing."""
    try:
        report = probe(camera, site.source, seconds=seconds)
    except SourceError as error:
        table.add_row(camera.id, "can't be read, see below")
        return f"{camera.id}: {error}"
    rate = "too few frames" if report.fps is None else f"{report.fps:.1f}"
    size = f"{report.width}x{report.height}"
    table.add_row(camera.id, report.info.codec, size, rate, report.modality.value, escape(report.clock))
    return ""


def _disks(site: SiteConfig) -> Table:
    per_day, told = _bytes_per_day(site)
    table = Table(title=f"disks: {escape(told)}", title_justify="left")
    for column in ("what", "folder", "GiB free", "days left"):
        table.add_column(column)
    for outlook in disk_outlooks(site, per_day):
        table.add_row(outlook.name, escape(str(outlook.folder)), f"{outlook.bytes_free / _GIB:.1f}", _days(outlook))
    return table


def _days(outlook: DiskOutlook) -> str:
    return "not known" if outlook.days_left is None else f"{outlook.days_left:.0f}"


def _bytes_per_day(site: SiteConfig) -> tuple[dict[str, float], str]:
    """What the folders grow by, and in words by what that is known."""
    try:
        database = Database.open(site.database, must_exist=True)
    except StorageError:
        return {}, "the site has not run yet, so what it adds is not known"
    try:
        with database.snapshot() as session:
            found = recent_growth(session, CropStore(site.crops_dir), datetime.now(UTC))
    except StorageError as error:
        return {}, str(error)
    finally:
        database.close()
    per_day = {"crops": found.picture_bytes_per_day, "database": found.database_bytes_per_day}
    return per_day, f"{found.tracklets_per_day:.0f} tracklets a day, over {found.days:.1f} days"
