"""Identity over all cameras: the main job on rendered sites whose truth is known, from the videos to the scores."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

SITES = Path(__file__).parent / "sites"
#: Which layout of the road a site has.
LAYOUTS = {"site": "overlap", "site_gaps": "gaps", "site_train": "overlap", "site_train_gaps": "gaps"}

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Folder that holds the sites.")],
    site: Annotated[list[str], typer.Option(help="Which of them; site and site_gaps are for measuring only.")] = [  # noqa: B006
        "site",
        "site_gaps",
    ],
    keep: Annotated[Path | None, typer.Option(help="Keep the runs' databases and crops here.")] = None,
    as_of: Annotated[str, typer.Option(help="decision or final.")] = "final",
    embedder: Annotated[list[str], typer.Option(help="Keys of the site file's `embedder` to set, e.g. tokens.")] = [],  # noqa: B006
) -> None:
    """Run `python -m streamer` over each site's four videos, then `python -m streamer.evaluate`."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in site:
            run = (keep or Path(scratch)) / name
            run.mkdir(parents=True, exist_ok=True)
            _track(data / name, LAYOUTS[name], run.resolve(), embedder)
            print(f"\n{name}", flush=True)
            _call("streamer.evaluate", "--database", f"sqlite:///{run.resolve()}/run.db", "--as-of", as_of,
                  "--truth", str(data / name / "truth.csv"))  # fmt: skip


def _track(folder: Path, layout: str, run: Path, embedder: Sequence[str]) -> None:
    environment = {"SITE": str(folder.resolve()), "RUN": str(run)}
    site = SITES / f"{layout}.yaml"
    if embedder:
        switches = ", ".join(f"{key}: true" for key in embedder)
        site = Path(shutil.copy(site, run / "site.yaml"))
        with site.open("a", encoding="utf-8") as file:
            file.write(f"embedder: {{{switches}}}\n")
    _call("streamer", "--config", str(site), environment=environment)


def _call(module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", module, *arguments]
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})})


if __name__ == "__main__":
    app()
