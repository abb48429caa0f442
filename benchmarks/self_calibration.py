r"""Whether a site that calibrates itself links better: from a shipped calibration that fits, and from wrong ones.

    python benchmarks/self_calibration.py --run runs/identity/site_train --truth ../shared/data/site_train/truth.csv \
        --run runs/identity/site_train_gaps --truth ../shared/data/site_train_gaps/truth.csv

Takes the vectors and paths of a run that `identity.py --keep` has kept, and decides anew what they are: seconds, where
the videos take an hour. The tracklets are those of the run, taken up as a matcher does that starts again, and IDF1 is
over their frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from road_traffic import TrueTracklet
from tracklet_scores import Scores, score, total

from detector.detections import VehicleClass
from reid.calibration import Calibration, Logistic, load_calibration, modality_pair
from reid.modality import Modality
from storage.database import Database
from storage.matcher_state import StoredTracklet, load_paths, load_regions, load_tracklets
from storage.paths import PathPoints
from streamer.box_matching import TruthBoxes
from streamer.config import MatcherConfig
from streamer.evaluate import read_truth
from streamer.labelled_tracklets import true_vehicles
from streamer.matcher.linker import Linker
from streamer.matcher.region import Region
from streamer.matcher.roads import RoadGraph
from streamer.matcher.watermarks import Watermarks
from streamer.sightings import EndReason

#: Calibrations that nobody would ship, for every pair: slope, and the similarity that says nothing either way.
WRONG = {
    "any embedder's": (12.0, 0.5),
    "far too strict": (15.0, 0.7),
    "far too steep and strict": (26.0, 0.69),
    "too lenient": (12.0, 0.3),
    "far too lenient": (10.0, 0.1),
    "too flat": (5.0, 0.4),
}


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A region's tracklets as its database has them, all ended and none decided, and what is true of them.

    Attributes:
        tracklets: Those with a path and a vector.
        paths: Where they were, by id.
        truth: By id; strays are vehicles of their own.
    """

    tracklets: list[StoredTracklet]
    paths: dict[str, PathPoints]
    truth: dict[str, TrueTracklet]


def read_run(url: str, truth: TruthBoxes) -> list[Known]:
    """The regions of a run."""
    database = Database.open(url, must_exist=True)
    try:
        with database.snapshot() as session:
            return [
                _known(load_tracklets(session, region), load_paths(session, region), truth)
                for region in load_regions(session)
            ]
    finally:
        database.close()


def _known(stored: Iterable[StoredTracklet], paths: dict[str, PathPoints], truth: TruthBoxes) -> Known:
    vehicles = true_vehicles(truth, paths)
    known = Known([], paths, {})
    for one in stored:
        record = one.tracklet
        if record.tracklet_id not in paths or not one.embeddings:
            continue
        ended = replace(record, end_reason=record.end_reason or EndReason.SESSION_LOST.value)
        known.tracklets.append(replace(one, tracklet=ended, assignment=None))
        vehicle = vehicles.get(record.tracklet_id)
        known.truth[record.tracklet_id] = TrueTracklet(
            -len(known.tracklets) if vehicle is None else int(vehicle),
            VehicleClass.CAR,
            record.camera,
            Modality(one.embeddings[0].modality),
            len(paths[record.tracklet_id]),
        )
    return known


def decide(known: Known, calibration: Calibration, *, is_own: bool) -> Scores:
    """Decides everything anew."""
    config = MatcherConfig(self_calibration=is_own)
    linker = Linker(config, roads=RoadGraph(None, dwell_s=config.dwell_s), calibration=calibration)
    watermarks = Watermarks([], silence_s=config.camera_silence_s)
    Region(linker, watermarks, calibration, config=config).restore(known.tracklets, known.paths, [])
    outcome = linker.settle(math.inf)
    said = {decision.tracklet_id: decision.vehicle_id for decision in outcome.decisions}
    for correction in outcome.corrections:
        said.update((decision.tracklet_id, decision.vehicle_id) for decision in correction.decisions)
    return score(known.truth, said)


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
        regions = read_run(f"sqlite:///{folder}/run.db", read_truth(path))
        table = Table("start", "IDF1 as it is", "its own", "links right / said / true", "its own", title=folder.name)
        for name, start in starts.items():
            fixed, own = (total([decide(known, start, is_own=is_own) for known in regions]) for is_own in (False, True))
            links = [f"{one.links.right} / {one.links.predicted} / {one.links.truth}" for one in (fixed, own)]
            table.add_row(name, f"{fixed.idf1:.3f}", f"{own.idf1:.3f}", *links)
        Console(width=120).print(table)


if __name__ == "__main__":
    typer.run(main)
