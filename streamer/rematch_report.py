"""`python -m streamer rematch`: what a person sees of a rebuild."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from reid.backend import EmbedderError
from reid.calibration import CalibrationError
from storage.crop_store import CropStore
from storage.errors import StorageError
from streamer.config import ConfigError, load_site, mask
from streamer.evaluate import AsOf, read_database, read_modalities, read_truth
from streamer.new_looks import NewLooks
from streamer.rematch import Comparison, RematchError, rematch, with_settings
from streamer.scoring import Evaluation, EvaluationError, evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from streamer.config import SiteConfig
    from streamer.partitions import Difference, Group, Regrouping

#: Where what was asked can't be done.
EXIT_FAILED = 2
#: Where the output is no terminal, tables are this wide, so that ids are not cut.
_WIDE = 140
#: Characters of a vehicle's id, which `python -m storage` takes too.
_SHORT = 8
#: Tracklets of a vehicle that are named.
_NAMED = 4


@dataclass(frozen=True, slots=True)
class RematchOrder:
    """What was asked for.

    Attributes:
        config: The site file.
        source: URL of the run's database.
        target: URL of the new one.
        weights: Another network's, or None.
        crops: Where the crops lie; None: where the site file says.
        settings: `KEY=VALUE`, in place of the site file's.
        keeps_corrections: Whether what people had said is said again.
        truth: A `truth.csv` to score both with, or None.
        shown: Changes that are listed at most.
    """

    config: Path
    source: str
    target: str
    weights: Path | None
    crops: Path | None
    settings: Sequence[str]
    keeps_corrections: bool
    truth: Path | None
    shown: int


def run_rematch(order: RematchOrder) -> int:
    """Rebuilds, compares and prints; the exit status."""
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    try:
        site = with_settings(load_site(order.config), order.settings)
        truth = None if order.truth is None else read_truth(order.truth)
        looks = _looks(order, site)
        with _progress() as progress:
            task = progress.add_task("tracklets", total=None)
            comparison = rematch(
                order.source,
                order.target,
                site,
                looks=looks,
                keeps_corrections=order.keeps_corrections,
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        _print_comparison(comparison, order.shown, console)
        if order.truth is not None and truth is not None:
            modalities = read_modalities(order.truth.with_name("gt.json"))
            scores = []
            for url in (order.source, order.target):
                predicted, stored = read_database(url, AsOf.FINAL)
                scores.append(evaluate(truth, predicted, modalities=modalities | stored))
            console.print(_scores_table(*scores))
    except (ConfigError, StorageError, CalibrationError, EmbedderError, EvaluationError, RematchError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"{mask(line)}\n")
        return EXIT_FAILED
    return 0


def _looks(order: RematchOrder, site: SiteConfig) -> NewLooks | None:
    if order.weights is None:
        if order.crops is not None:
            raise RematchError("--crops: of no use without --weights")
        return None
    from reid.embedder import Embedder

    config = site.embedder
    embedder = Embedder(order.weights, device=config.device, max_batch=config.batch_size, mirrored=config.mirrored)
    return NewLooks(embedder, CropStore(order.crops or site.crops_dir))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # On stderr, so that the tables can be piped; where that is no terminal, nothing is drawn.
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_comparison(comparison: Comparison, shown: int, console: Console) -> None:
    rebuilt, difference = comparison.rebuilt, comparison.difference
    console.print(
        f"{rebuilt.tracklets} tracklets by {rebuilt.model_id}: {difference.vehicles_after} vehicles, "
        f"{difference.vehicles_before} before; {difference.changed} tracklets are together with others than before",
        highlight=False,
        soft_wrap=True,
    )
    for count, words in (
        (rebuilt.corrected, "decisions were changed by a second look"),
        (rebuilt.kept, "tracklets are where a person had put them"),
        (rebuilt.closed, "tracklets that had not ended were taken as ended where they were last seen"),
        (rebuilt.uncompared, "vectors of another embedder were not compared"),
        (rebuilt.missing_crops, "crops were not kept or can't be read: without vectors"),
        (difference.left_out, "tracklets had no vehicle before, and are not compared"),
    ):
        if count:
            console.print(f"{count} {words}", highlight=False, soft_wrap=True)
    console.print(_links_table(difference))
    if difference.regroupings[:shown]:
        console.print(_regroupings_table(difference.regroupings, shown))
    hidden = len(difference.regroupings) - shown
    if hidden > 0:
        console.print(f"and {hidden} more: --show {len(difference.regroupings)}", highlight=False)


def _links_table(difference: Difference) -> Table:
    table = Table(
        title="links: two tracklets of one vehicle",
        caption="precision and recall of the new links, were the old ones the truth",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("between", no_wrap=True)
    for name in ("before", "now", "both", "precision", "recall", "F1"):
        table.add_column(name, justify="right", no_wrap=True)
    for links in difference.camera_links:
        table.add_row(
            escape(links.name),
            *map(str, (links.before, links.after, links.kept)),
            *map(_ratio, (links.precision, links.recall, links.f1)),
        )
    table.add_section()
    links = difference.links
    table.add_row(
        links.name,
        *map(str, (links.before, links.after, links.kept)),
        *map(_ratio, (links.precision, links.recall, links.f1)),
    )
    return table


def _regroupings_table(regroupings: Sequence[Regrouping], shown: int) -> Table:
    table = Table(title="vehicles that changed", title_justify="left", show_lines=True)
    for name in ("what", "before", "now"):
        table.add_column(name)
    for one in regroupings[:shown]:
        table.add_row(one.change.value, _groups(one.before), _groups(one.after))
    return table


def _groups(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        named = ", ".join(group.tracklets[:_NAMED])
        more = len(group.tracklets) - _NAMED
        lines.append(escape(f"{group.vehicle_id[:_SHORT]}  {named}" + (f" and {more} more" if more > 0 else "")))
    return "\n".join(lines)


def _scores_table(before: Evaluation, after: Evaluation) -> Table:
    table = Table(title="against the truth", title_justify="left")
    table.add_column("")
    for name in ("IDF1", "IDP", "IDR", "HOTA", "AssA", "links: precision", "recall", "vehicles"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, evaluation in (("before", before), ("now", after)):
        overall, links = evaluation.overall, evaluation.links
        ratios = (overall.idf1, overall.idp, overall.idr, overall.hota, overall.ass_a, links.precision, links.recall)
        table.add_row(name, *map(_ratio, ratios), str(overall.predicted_vehicles))
    return table


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
