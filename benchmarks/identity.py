"""Identity over all cameras: the main job on rendered sites whose truth is known, from the videos to the scores.

The site file gives no links: the matcher learns its roads by itself. The other rows of the table are rebuilt from the
sightings that this run stored, each with one thing changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from streamer.config import SiteConfig, load_site
from streamer.evaluate import AsOf, read_database, read_truth
from streamer.rematch import rematch, with_settings
from streamer.scoring import Evaluation, LinkScores, evaluate

SITES = Path(__file__).parent / "sites"
#: Which layout of the road a site has.
LAYOUTS = {"site": "overlap", "site_gaps": "gaps", "site_train": "overlap", "site_train_gaps": "gaps"}
#: What each row of the table changes. The first is the run itself; `links` of the second are those of the layout.
#: Without looks nothing is learned either, since roads are learned from what looks alike; without times and places
#: links are hard limits only.
ROWS: dict[str, list[str]] = {
    "links learned": [],
    "links given": ["links"],
    "links given, times and places off": ["links", "matcher.use_transit=false"],
    "times and places off": ["matcher.use_transit=false"],
    "appearance off": ["matcher.use_appearance=false"],
    "class off": ["matcher.use_class=false"],
    "no second look": ["matcher.second_look_s=0"],
    "nothing waits": ["matcher.hold_s=0"],
}

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Folder that holds the sites.")],
    site: Annotated[list[str], typer.Option(help="Which of them; site and site_gaps are for measuring only.")] = [  # noqa: B006
        "site",
        "site_gaps",
    ],
    keep: Annotated[Path | None, typer.Option(help="Keep the runs' databases and crops here.")] = None,
    rows: Annotated[bool, typer.Option(help="Also rebuild the run with one thing changed at a time.")] = True,
    embedder: Annotated[list[str], typer.Option(help="Keys of the site file's `embedder` to set, e.g. tokens.")] = [],  # noqa: B006
) -> None:
    """Run `python -m streamer` over each site's four videos, and score what was decided against the truth."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in site:
            run = ((keep or Path(scratch)) / name).resolve()
            run.mkdir(parents=True, exist_ok=True)
            database = f"sqlite:///{run}/run.db"
            environment = {**os.environ, "SITE": str((data / name).resolve()), "RUN": str(run)}
            links = _write_site(SITES / f"{LAYOUTS[name]}.yaml", run / "site.yaml", embedder)
            command = [sys.executable, "-m", "streamer", "--config", str(run / "site.yaml")]
            subprocess.run(command, check=True, env=environment)
            truth = str(data / name / "truth.csv")
            subprocess.run(
                [sys.executable, "-m", "streamer.evaluate", "--database", database, "--truth", truth], check=True
            )
            runs = {next(iter(ROWS)): database}
            if rows:
                with tempfile.TemporaryDirectory() as folder:
                    runs |= _rebuilt(database, load_site(run / "site.yaml", environment), links, Path(folder))
                    _print(name, Path(truth), runs)
            else:
                _print(name, Path(truth), runs)


def _write_site(layout: Path, target: Path, embedder: list[str]) -> str:
    """Writes the site file of a run, without links; answers with those of the layout, as YAML on one line."""
    document = yaml.safe_load(layout.read_text(encoding="utf-8"))
    links = document.pop("links")
    if embedder:
        document["embedder"] = dict.fromkeys(embedder, True)
    target.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return str(yaml.safe_dump(links, default_flow_style=True, width=10_000)).strip()


def _rebuilt(source: str, site: SiteConfig, links: str, folder: Path) -> dict[str, str]:
    """The databases of the other rows."""
    found = {}
    for number, (name, changes) in enumerate(ROWS.items()):
        if changes:
            target = f"sqlite:///{folder}/{number}.db"
            settings = [f"links={links}" if change == "links" else change for change in changes]
            rematch(source, target, with_settings(site, settings))
            found[name] = target
    return found


def _print(site: str, truth_file: Path, runs: dict[str, str]) -> None:
    truth = read_truth(truth_file)
    table: Table | None = None
    for name, database in runs.items():
        for as_of in AsOf:
            predicted, modalities = read_database(database, as_of)
            found = evaluate(truth, predicted, modalities=modalities)
            if table is None:
                pairs = [scores.name for scores in found.modality_links]
                table = Table(
                    "", "as of", "IDF1", "HOTA", "links", *pairs, title=f"{site}: precision / recall of links"
                )
            table.add_row(name, as_of.value, *_cells(found))
    Console(width=160).print(table)


def _cells(found: Evaluation) -> Iterator[str]:
    yield f"{found.overall.idf1:.3f}"
    yield f"{found.overall.hota:.3f}"
    yield from map(_ratios, (found.links, *found.modality_links))


def _ratios(scores: LinkScores) -> str:
    return " / ".join("-" if ratio is None else f"{ratio:.3f}" for ratio in (scores.precision, scores.recall))


if __name__ == "__main__":
    app()
