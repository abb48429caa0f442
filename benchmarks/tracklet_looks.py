"""What tells tracklets apart: cosine, cosine of vectors averaged with the mirrored picture's, points, and mixtures.

Reads two runs of the main job over sites whose truth is known: one with `embedder.tokens: true`, one that also has
`embedder.mirrored: true`. Compares every two tracklets of different cameras. Vehicles that the embedder was trained on
stand apart: only the others decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from reid.calibration import Calibration, ModalityPair, fit_logistic, modality_pair
from reid.modality import Modality
from reid.point_scorer import PointScorer
from reid.tokens import unpack
from streamer.calibrate import mean_vectors, ranking_quality
from streamer.evaluate import read_truth
from streamer.labelled_tracklets import LabelledTracklet, label_tracklets, trained_vehicles
from streamer.matcher.rerank import mixed_similarity, points_say

BASELINE = "cosine"
MEASURES = (BASELINE, "mirrored", "points", "cosine + points", "mirrored + points")
FALSE_POSITIVES = 0.01
_SEED = 0

Floats = NDArray[np.float64]
#: A tracklet of the plain run, and the same one of the mirrored run.
Twins = tuple[LabelledTracklet, LabelledTracklet]


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of tracklets of two modalities.

    Attributes:
        scores: (M, N) what each of `MEASURES` says.
        vehicles: (N, 2) which two, as numbers.
    """

    scores: Floats
    vehicles: NDArray[np.int64]

    @property
    def is_same(self) -> NDArray[np.bool_]:
        """(N,) whether both are one vehicle."""
        return np.asarray(self.vehicles[:, 0] == self.vehicles[:, 1])


def read_twins(plain: Path, mirrored: Path, truth: Path) -> list[Twins]:
    """A site's tracklets in both runs, which differ in nothing but their vectors."""
    runs = [label_tracklets(f"sqlite:///{run.resolve()}/run.db", read_truth(truth), truth.parent.name)
            for run in (plain, mirrored)]  # fmt: skip
    if [(one.camera, one.vehicle) for one in runs[0]] != [(one.camera, one.vehicle) for one in runs[1]]:
        raise typer.BadParameter(f"{plain} and {mirrored} hold other tracklets: they are not of one program")
    return list(zip(*runs, strict=True))


def compare(sites: Sequence[Sequence[Twins]], scorer: PointScorer) -> dict[ModalityPair, Pairs]:
    """Every two tracklets of different cameras of a site, by their modalities."""
    centrings = [Calibration("", {}, mean_vectors([twins[run] for site in sites for twins in site])) for run in (0, 1)]
    names = sorted({twins[0].vehicle for site in sites for twins in site})
    found: dict[ModalityPair, list[tuple[list[float], tuple[int, int]]]] = defaultdict(list)
    for first, second in (pair for site in sites for pair in combinations(site, 2)):
        if first[0].camera == second[0].camera:
            continue
        vehicles = (names.index(first[0].vehicle), names.index(second[0].vehicle))
        for a in first[0].tokens:
            for b in second[0].tokens:
                cosines = [_cosine(first[run], a, second[run], b, centrings[run]) for run in (0, 1)]
                scores = _scores(cosines, first[0].tokens[a], second[0].tokens[b], scorer)
                found[modality_pair(a, b)].append((scores, vehicles))
    return {
        pair: Pairs(np.array([scores for scores, _ in rows]).T, np.array([vehicles for _, vehicles in rows]))
        for pair, rows in sorted(found.items())
    }


def _cosine(
    first: LabelledTracklet, a: Modality, second: LabelledTracklet, b: Modality, centring: Calibration
) -> float:
    return float(centring.centred(a, first.vectors[a]) @ centring.centred(b, second.vectors[b]))


def _scores(cosines: Sequence[float], first: bytes, second: bytes, scorer: PointScorer) -> list[float]:
    """In the order of `MEASURES`."""
    logits = scorer.score(unpack(first)[np.newaxis], unpack(second)[np.newaxis])[0]
    return [*cosines, points_say(float(logits[0])), *(mixed_similarity(cosine, float(logits[0])) for cosine in cosines)]


def recall(scores: Floats, is_same: NDArray[np.bool_]) -> float:
    """Share of same pairs above all but `FALSE_POSITIVES` of the different ones."""
    others = np.sort(scores[~is_same])[::-1]
    return float((scores[is_same] > others[int(FALSE_POSITIVES * len(others))]).mean())


def gain_interval(pairs: Pairs, measure: int, rounds: int) -> tuple[float, float]:
    """95 % interval of what a measure's AUC gains over the baseline's, over vehicles drawn anew with replacement.

    A drawn vehicle brings all of its pairs: those of one vehicle fail together, and are no independent witnesses.
    """
    generator = np.random.default_rng(_SEED)
    present = np.unique(pairs.vehicles)
    drawn = np.zeros((rounds, pairs.vehicles.max() + 1))
    drawn[:, present] = generator.multinomial(len(present), np.full(len(present), 1 / len(present)), size=rounds)
    weights = drawn[:, pairs.vehicles[:, 0]] * np.where(pairs.is_same, 1, drawn[:, pairs.vehicles[:, 1]])  # (R, N)
    gains = _weighted_quality(pairs, measure, weights) - _weighted_quality(pairs, 0, weights)
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


def _weighted_quality(pairs: Pairs, measure: int, weights: Floats) -> Floats:
    """(R, N) weights of the pairs -> (R,) areas under the ROC curve."""
    order = np.argsort(pairs.scores[measure], kind="stable")
    same = weights[:, order] * pairs.is_same[order]
    different = weights[:, order] * ~pairs.is_same[order]
    below = np.cumsum(different, axis=1)
    return np.asarray((same * below).sum(axis=1) / np.maximum(same.sum(axis=1) * below[:, -1], 1e-9))


def show(title: str, compared: dict[ModalityPair, Pairs], rounds: int) -> None:
    """Prints a row for each pair of modalities and measure, and what points say beside the cosine."""
    columns = ("pair", "same", "different", "measure", "AUC", "gains over cosine", "recall at 1 %", "slope, intercept")
    table = Table(*columns, title=title, box=MARKDOWN)
    for pair, pairs in compared.items():
        counts = (str(int(pairs.is_same.sum())), str(int((~pairs.is_same).sum())))
        for number, measure in enumerate(MEASURES):
            scores = pairs.scores[number]
            gain = "" if measure == BASELINE else "{:+.3f} to {:+.3f}".format(*gain_interval(pairs, number, rounds))
            quality, found = ranking_quality(scores, pairs.is_same), recall(scores, pairs.is_same)
            logistic = fit_logistic(scores, pairs.is_same)
            fit = f"{logistic.slope:.2f}, {logistic.intercept:.2f}"
            start = ("~".join(pair), *counts) if measure == BASELINE else ("", "", "")
            table.add_row(*start, measure, f"{quality:.3f}", gain, f"{found:.2f}", fit)
    Console(width=130).print(table)
    for pair, pairs in compared.items():
        cosines, said = pairs.scores[0], pairs.scores[MEASURES.index("points")]
        slope, intercept = np.polyfit(cosines, said, 1)
        alike = np.corrcoef(cosines, said)[0, 1]
        print(f"{'~'.join(pair)}: points say {slope:.2f} cosine {intercept:+.2f}, correlation {alike:.2f}")


def main(
    plain: Annotated[Path, typer.Option(help="Folder with a run of each site, points stored.")],
    mirrored: Annotated[Path, typer.Option(help="The same runs with mirrored vectors.")],
    data: Annotated[Path, typer.Option(help="Folder that holds the sites.")],
    site: Annotated[list[str], typer.Option(help="Which of them.")] = ["site_train", "site_train_gaps"],  # noqa: B006
    trained_on: Annotated[Path, typer.Option(help="samples.csv of `reid.site_crops`.")] = Path(
        "runs/site_crops/samples.csv"
    ),
    matcher: Annotated[Path, typer.Option(help="matcher.npz of the embedder.")] = Path(
        "weights/porsche-small_openvino_model/matcher.npz"
    ),
    rounds: Annotated[int, typer.Option(help="Draws for the intervals.")] = 1000,
) -> None:
    """Print what each measure is worth, for vehicles that the embedder was trained on and for the others."""
    known, scorer = trained_vehicles(trained_on), PointScorer.load(matcher)
    sites = [read_twins(plain / name, mirrored / name, data / name / "truth.csv") for name in site]
    for title, is_known in (("held out", False), ("trained on", True)):
        chosen = [[twins for twins in found if (twins[0].vehicle in known) is is_known] for found in sites]
        vehicles = {twins[0].vehicle for found in chosen for twins in found}
        tracklets = sum(len(found) for found in chosen)
        show(f"{title}: {len(vehicles)} vehicles, {tracklets} tracklets", compare(chosen, scorer), rounds)


if __name__ == "__main__":
    typer.run(main)
