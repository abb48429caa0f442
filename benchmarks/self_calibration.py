"""Whether a site that calibrates itself links better: from a shipped calibration that fits, and from wrong ones.

    python benchmarks/self_calibration.py --run runs/identity/site_train --truth ../shared/data/site_train/truth.csv

Takes the vectors and paths of a run that `identity.py --keep` has kept, and decides anew what they are: seconds, where
the videos take an hour. The tracklets are those of the run, and IDF1 is over their frames.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from road_traffic import TrueTracklet
from tracklet_scores import Scores, score

from detector.detections import VehicleClass
from reid.modality import Modality
from storage.database import Database
from storage.matcher_state import load_paths, load_regions, load_tracklets
from streamer.box_matching import TruthBoxes
from streamer.config import MatcherConfig
from streamer.evaluate import read_truth
from streamer.labelled_tracklets import true_vehicles
from streamer.matcher.calibration import Calibration, Logistic, load_calibration, modality_pair
from streamer.matcher.ground_path import ground_path
from streamer.matcher.linker import Linker
from streamer.matcher.roads import RoadGraph
from streamer.matcher.tracklet import Tracklet

#: Calibrations that nobody would ship, for every pair: slope, and the similarity that says nothing either way.
WRONG = {
    "any embedder's": (12.0, 0.5),
    "far too strict": (15.0, 0.7),
    "far too steep and strict": (26.0, 0.69),
    "too lenient": (12.0, 0.3),
    "far too lenient": (10.0, 0.1),
    "too flat": (5.0, 0.4),
}

Known = list[tuple[Tracklet, TrueTracklet]]


def read_run(url: str, truth: TruthBoxes) -> Known:
    """The tracklets of a run as the matcher had them, and what is true of each; strays are vehicles of their own."""
    database = Database.open(url, must_exist=True)
    found: Known = []
    try:
        with database.snapshot() as session:
            for region in load_regions(session):
                paths = load_paths(session, region)
                vehicles = true_vehicles(truth, paths)
                for stored in load_tracklets(session, region):
                    record, path = stored.tracklet, paths.get(stored.tracklet.tracklet_id)
                    if path is None or not stored.embeddings:
                        continue
                    tracklet = Tracklet(
                        record.tracklet_id,
                        record.camera,
                        record.session,
                        record.started_at.timestamp(),
                        record.ended_at.timestamp(),
                        dict(record.class_votes),
                        {Modality(e.modality): e.vector for e in stored.embeddings},
                        is_ended=True,
                    )
                    tracklet.follow(ground_path(path.times, path.boxes))
                    found.append((tracklet, _truth(tracklet, vehicles, len(path), stray=-1 - len(found))))
    finally:
        database.close()
    return found


def _truth(tracklet: Tracklet, vehicles: dict[str, str], frames: int, *, stray: int) -> TrueTracklet:
    vehicle = vehicles.get(tracklet.tracklet_id)
    number = stray if vehicle is None else int(vehicle)
    return TrueTracklet(number, VehicleClass.CAR, tracklet.camera, next(iter(tracklet.vectors)), frames)


def decide(known: Known, calibration: Calibration, *, is_own: bool) -> Scores:
    """Decides everything anew."""
    config = MatcherConfig(self_calibration=is_own)
    linker = Linker(config, roads=RoadGraph(None, dwell_s=config.dwell_s), calibration=calibration)
    for tracklet, _ in known:
        linker.end(replace(tracklet, centred={}))
    outcome = linker.settle(math.inf)
    said = {decision.tracklet_id: decision.vehicle_id for decision in outcome.decisions}
    for correction in outcome.corrections:
        said.update((decision.tracklet_id, decision.vehicle_id) for decision in correction.decisions)
    return score({tracklet.tracklet_id: true for tracklet, true in known}, said)


def main(
    run: Annotated[list[Path], typer.Option(help="Folder of a kept run; may be given several times.")],
    truth: Annotated[list[Path], typer.Option(help="truth.csv of that run's site; as many as runs.")],
    calibration: Annotated[Path, typer.Option(help="As `matcher.calibration`.")] = Path(MatcherConfig().calibration),  # noqa: B008
) -> None:
    """Link with each calibration as it is, and as a start that the site makes its own."""
    shipped = load_calibration(calibration)
    starts = {"as shipped": shipped}
    pairs = [modality_pair(*pair) for pair in combinations_with_replacement(Modality, 2)]
    for name, (slope, even_at) in WRONG.items():
        starts[name] = replace(shipped, fits={pair: Logistic(slope, -slope * even_at) for pair in pairs})
    for folder, path in zip(run, truth, strict=True):
        known = read_run(f"sqlite:///{folder}/run.db", read_truth(path))
        table = Table("start", "IDF1 as it is", "its own", "links right / said / true", "its own", title=folder.name)
        for name, start in starts.items():
            fixed, own = (decide(known, start, is_own=is_own) for is_own in (False, True))
            links = [f"{one.links.right} / {one.links.predicted} / {one.links.truth}" for one in (fixed, own)]
            table.add_row(name, f"{fixed.idf1:.3f}", f"{own.idf1:.3f}", *links)
        Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
