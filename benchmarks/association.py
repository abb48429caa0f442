"""How a window is decided: the matcher's clustering against one assignment problem per camera, and against hindsight.

The tracklets are the training sites' true ones, their looks simulated: a random direction per vehicle and noise per
tracklet, stronger in infrared. Nothing is detected or embedded, so that what is compared is the deciding alone.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment

from reid.modality import Modality
from streamer.box_matching import PredictedBoxes, TruthBoxes
from streamer.calibrate import LabelledTracklet, pair_similarities
from streamer.config import MatcherConfig, SiteConfig, load_site
from streamer.evaluate import read_truth
from streamer.matcher.calibration import Calibration, fit_logistic
from streamer.matcher.evidence import forbids, weigh
from streamer.matcher.linker import Linker
from streamer.matcher.tracklet import Tracklet
from streamer.matcher.transit import RoadGraph, TravelTimes
from streamer.scoring import evaluate

SITES = {"site_train": "overlap", "site_train_gaps": "gaps"}
#: Standard deviation of a look's noise, the vehicle's own direction having 1 in each of `DIMENSION` dimensions.
NOISE = {Modality.VISIBLE: 1.0, Modality.NEAR_INFRARED: 1.4, Modality.THERMAL: 1.9}
DIMENSION = 16


@dataclass(frozen=True, slots=True)
class Scene:
    """A site's true tracklets with simulated looks.

    Attributes:
        site: Its configuration.
        truth: All boxes.
        tracklets: By the rows of the truth that each is made of.
        vehicles: The true vehicle of each tracklet, by its id.
        calibration: Fitted to the simulated looks.
    """

    site: SiteConfig
    truth: TruthBoxes
    tracklets: dict[str, Tracklet]
    vehicles: dict[str, str]
    calibration: Calibration

    @property
    def roads(self) -> RoadGraph:
        """The site's links."""
        return RoadGraph(self.site.links, dwell_s=self.site.matcher.dwell_s)


def make_scene(folder: Path, layout: str, seed: int) -> Scene:
    """Reads a site's truth and simulates what its vehicles look like."""
    environment = {**os.environ, "SITE": str(folder), "RUN": "."}
    site = load_site(Path(__file__).parent / "sites" / f"{layout}.yaml", environment)
    truth = read_truth(folder / "truth.csv")
    rng = np.random.default_rng(seed)
    looks: dict[str, np.ndarray] = defaultdict(lambda: rng.normal(size=DIMENSION))
    tracklets, vehicles = {}, {}
    keys = sorted({(str(truth.cameras[r]), str(truth.vehicles[r])) for r in np.flatnonzero(truth.evaluated)})
    for camera, vehicle in keys:
        rows = np.flatnonzero(truth.evaluated & (truth.cameras == camera) & (truth.vehicles.astype(str) == vehicle))
        modality = Modality(site.camera(camera).modality)
        vector = looks[vehicle] + NOISE[modality] * rng.normal(size=DIMENSION)
        name = f"{camera}/truth/{vehicle}"
        tracklets[name] = Tracklet(
            name, camera, "truth", float(truth.times[rows[0]]), float(truth.times[rows[-1]]), {},
            {modality: (vector / np.linalg.norm(vector)).astype(np.float32)}, is_ended=True,
        )  # fmt: skip
        vehicles[name] = vehicle
    return Scene(site, truth, tracklets, vehicles, _calibrate(tracklets, vehicles))


def _calibrate(tracklets: dict[str, Tracklet], vehicles: dict[str, str]) -> Calibration:
    labelled = [LabelledTracklet(t.camera, vehicles[name], "", t.vectors) for name, t in tracklets.items()]
    similarities = pair_similarities(labelled, Calibration("", {}))
    return Calibration("", {pair: fit_logistic(*found) for pair, found in similarities.items()})


def clustered(scene: Scene, settle_s: float) -> dict[str, str]:
    """The matcher's own way."""
    linker = Linker(MatcherConfig(settle_s=settle_s), roads=scene.roads, calibration=scene.calibration)
    for tracklet in scene.tracklets.values():
        linker.end(tracklet)
    return {decision.tracklet_id: decision.vehicle_id for decision in linker.settle(float("inf"))}


def assigned(scene: Scene, settle_s: float) -> dict[str, str]:
    """One assignment problem per camera and window, in the order in which the cameras saw something."""
    vehicles: list[list[Tracklet]] = []
    by_window = sorted(scene.tracklets.values(), key=lambda t: (t.ended_at // settle_s, t.started_at))
    for _, window in groupby(by_window, key=lambda t: t.ended_at // settle_s):
        found = list(window)
        for camera in dict.fromkeys(tracklet.camera for tracklet in found):
            _assign([t for t in found if t.camera == camera], vehicles, scene)
    return {tracklet.tracklet_id: str(number) for number, own in enumerate(vehicles) for tracklet in own}


def _assign(tracklets: Sequence[Tracklet], vehicles: list[list[Tracklet]], scene: Scene) -> None:
    roads, learned = scene.roads, TravelTimes(vehicles)

    def score(tracklet: Tracklet, vehicle: list[Tracklet]) -> float:
        if any(forbids(tracklet, member, roads) for member in vehicle):
            return -1e6
        return float(
            np.mean(
                [
                    weigh(tracklet, member, calibration=scene.calibration, travel_times=learned).total
                    for member in vehicle
                ]
            )
        )

    known = len(vehicles)
    scores = np.full((len(tracklets), known + len(tracklets)), -1e6)
    for row, tracklet in enumerate(tracklets):
        scores[row, :known] = [score(tracklet, vehicle) for vehicle in vehicles[:known]]
        scores[row, known + row] = 0.0
    for row, column in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
        if column < known:
            vehicles[column].append(tracklets[row])
        else:
            vehicles.append([tracklets[row]])


def idf1(scene: Scene, vehicles: dict[str, str]) -> float:
    """IDF1 of the true boxes under the names that were given."""
    rows = np.flatnonzero(scene.truth.evaluated)
    names = [f"{scene.truth.cameras[row]}/truth/{scene.truth.vehicles[row]}" for row in rows]
    said = np.array([vehicles[name] for name in names])
    predicted = PredictedBoxes(
        scene.truth.cameras[rows], scene.truth.frames[rows], said, scene.truth.boxes[rows]
    )  # fmt: skip
    return evaluate(scene.truth, predicted, modalities={}).overall.idf1


app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Folder that holds site_train and site_train_gaps.")],
    seeds: Annotated[int, typer.Option(help="How many simulations are averaged.")] = 3,
) -> None:
    """Mean IDF1 of each way to decide, on both training sites."""
    ways: list[tuple[str, Callable[[Scene], dict[str, str]]]] = [
        *((f"assignment per camera, {s} s", lambda scene, s=s: assigned(scene, s)) for s in (3, 6, 10)),
        *((f"clustering, {s} s", lambda scene, s=s: clustered(scene, s)) for s in (1, 3, 6, 10)),
        ("clustering of everything at the end", lambda scene: clustered(scene, 1e6)),
    ]
    table = Table("decided by", *SITES, title=f"IDF1, mean of {seeds} simulations")
    scenes = {name: [make_scene(data / name, SITES[name], seed) for seed in range(seeds)] for name in SITES}
    for name, decide in ways:
        figures = [np.mean([idf1(scene, decide(scene)) for scene in scenes[site]]) for site in SITES]
        table.add_row(name, *(f"{figure:.3f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    app()
