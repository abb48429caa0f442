"""`python -m streamer.calibrate`: what similarity says per pair of modalities, and how far it can be believed.

With the truth of a site it fits and judges; without, it shows what a site has labelled and fitted by itself.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reid.calibration import (
    Calibration,
    CalibrationError,
    Logistic,
    ModalityPair,
    fit_logistic,
    load_calibration,
    modality_pair,
    save_calibration,
)
from reid.modality import Modality
from storage.database import Database
from storage.errors import StorageError
from storage.matcher_state import load_learned, load_regions
from streamer.box_matching import EvaluationError
from streamer.config import MatcherConfig
from streamer.evaluate import read_truth
from streamer.labelled_tracklets import LabelledTracklet, label_tracklets, trained_vehicles
from streamer.matcher.centring import Centring
from streamer.matcher.site_calibration import Counts, SiteCalibration, fit_site
from streamer.reliability import Reliability, draw, reliability, table

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(add_completion=False)

#: What is judged was not fitted to: vehicles, or counts, are dealt to so many parts.
_PARTS = 5
_SEED = 0
_SHIPPED = Path(MatcherConfig().calibration)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPairs:
    """Pairs of tracklets of different cameras, in one pair of modalities.

    Attributes:
        similarity: (N,) cosine of their centred vectors.
        vehicles: (N, 2) the true vehicles.
    """

    similarity: NDArray[np.float64]
    vehicles: NDArray[np.str_]

    @property
    def is_same(self) -> NDArray[np.bool_]:
        """(N,) whether both are one vehicle."""
        return np.asarray(self.vehicles[:, 0] == self.vehicles[:, 1])

    def judged_apart(self) -> NDArray[np.float64]:
        """(N,) log-likelihood ratios, each by a fit to pairs of other vehicles; NaN where too few are left to fit.

        The vehicles are dealt to `_PARTS` parts. A pair is judged by the fit to all pairs that have no vehicle of the
        part that its first vehicle is in.
        """
        part = {str(vehicle): number % _PARTS for number, vehicle in enumerate(np.unique(self.vehicles))}
        parts = np.array([[part[str(vehicle)] for vehicle in pair] for pair in self.vehicles])
        judged = np.full(len(self.similarity), np.nan)
        for number in range(_PARTS):
            known = (parts != number).all(axis=1)
            if self.is_same[known].any() and not self.is_same[known].all():
                fit = fit_logistic(self.similarity[known], self.is_same[known])
                asked = parts[:, 0] == number
                judged[asked] = fit.llrs(self.similarity[asked])
        return judged


def mean_vectors(tracklets: Sequence[LabelledTracklet]) -> dict[Modality, NDArray[np.float32]]:
    """Mean vector (D,) float32 of each modality: what all its vehicles share."""
    vectors: dict[Modality, list[NDArray[np.float32]]] = defaultdict(list)
    for tracklet in tracklets:
        for modality, vector in tracklet.vectors.items():
            vectors[modality].append(vector)
    return {modality: np.mean(found, axis=0).astype(np.float32) for modality, found in sorted(vectors.items())}


def pair_similarities(tracklets: Sequence[LabelledTracklet], centring: Centring) -> dict[ModalityPair, LabelledPairs]:
    """Similarities of every two tracklets of different cameras, by modality pair.

    Args:
        tracklets: Of one site.
        centring: What is taken out of their looks, as the matcher of that site does.
    """
    found: dict[ModalityPair, list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    seen = [one.seen() for one in tracklets]
    centred = [{modality: centring.centred(one, modality) for modality in one.vectors} for one in seen]
    for first, second in combinations(range(len(tracklets)), 2):
        one, other = tracklets[first], tracklets[second]
        if one.camera == other.camera:
            continue
        for modality, vector in centred[first].items():
            for band, candidate in centred[second].items():
                found[modality_pair(modality, band)].append((float(vector @ candidate), (one.vehicle, other.vehicle)))
    return {
        pair: LabelledPairs(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))
        for pair, rows in sorted(found.items())
    }


def link_reliability(sites: Sequence[Sequence[LabelledTracklet]]) -> Reliability | None:
    """Whether the matcher's own confidence holds: of the tracklets that it linked, those that are what they were said.

    A tracklet is right when it is the vehicle that most of the others are which were decided to be the same.

    Args:
        sites: Labelled tracklets with their decisions, by site.

    Returns:
        The diagram, or None where nothing was linked.
    """
    log_odds, is_right = [], []
    for site in sites:
        members: dict[str, list[LabelledTracklet]] = defaultdict(list)
        for tracklet in site:
            if tracklet.decided is not None:
                members[tracklet.decided].append(tracklet)
        for found in members.values():
            for tracklet in found:
                others = Counter(other.vehicle for other in found if other is not tracklet)
                if tracklet.score is not None and others:
                    log_odds.append(tracklet.score)
                    is_right.append(others[tracklet.vehicle] == max(others.values()))
    return reliability(np.array(log_odds), np.array(is_right), evenly=False) if log_odds else None


def ranking_quality(similarity: NDArray[np.float64], is_same: NDArray[np.bool_]) -> float:
    """Chance that a pair of one vehicle is more alike than a pair of two (the area under the ROC curve)."""
    ranks = np.empty(len(similarity))
    ranks[np.argsort(similarity, kind="stable")] = np.arange(1, len(similarity) + 1)
    same, different = int(is_same.sum()), int((~is_same).sum())
    return float((ranks[is_same].sum() - same * (same + 1) / 2) / (same * different))


def load_site_calibrations(url: str, prior: Calibration) -> dict[str, SiteCalibration]:
    """What the regions of a site have labelled by themselves, by region.

    Raises:
        StorageError: The database can't be read.
    """
    database = Database.open(url, must_exist=True)
    try:
        with database.snapshot() as session:
            learned = {region: load_learned(session, region) for region in load_regions(session)}
    finally:
        database.close()
    found = {}
    for region, state in learned.items():
        found[region] = SiteCalibration(prior)
        if "calibration" in state:
            found[region].load(json.loads(state["calibration"]))
    return found


@app.command()
def main(
    database: Annotated[list[str], typer.Option(help="URL of a run's database; may be given several times.")],
    truth: Annotated[
        list[Path] | None,
        typer.Option(help="truth.csv of that run's site; as many as databases. Without: what the site has labelled."),
    ] = None,
    trained_on: Annotated[
        Path | None, typer.Option(help="samples.csv of `reid.site_crops`: vehicles of its split `train` are left out.")
    ] = None,
    calibration: Annotated[
        Path, typer.Option(help="The shipped one, which a site's own starts from; as `matcher.calibration`.")
    ] = _SHIPPED,
    out: Annotated[Path | None, typer.Option(help="Write the fits here; `matcher.calibration` reads them.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the reliability diagrams into this PNG file.")] = None,
) -> None:
    """What a similarity says for two tracklets being one vehicle, and whether that holds (reliability diagrams).

    With --truth, fits it to runs whose truth is known. Vehicles that the embedder was trained on look more alike to it
    than any that it will meet: leave them out. A vehicle's name is its site's folder and its number in the truth,
    `site_train-44`. Without --truth, shows what a site has labelled by itself, and its fits beside the shipped ones.
    """
    console = Console()
    try:
        if truth:
            found = _from_truth(console, database, truth, trained_on, out)
        elif out is not None or trained_on is not None:
            _fail("--out and --trained-on want --truth: what a site labels by itself stays in its database")
        else:
            found = _from_site(console, database, load_calibration(calibration))
        for title, diagram in found.items():
            console.print(table(title, diagram))
        if plot is not None and found:
            draw(plot, found)
    except (StorageError, EvaluationError, CalibrationError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


def _from_truth(
    console: Console, urls: Sequence[str], truth: Sequence[Path], trained_on: Path | None, out: Path | None
) -> dict[str, Reliability]:
    if len(urls) != len(truth):
        _fail(f"wanted one --truth for each --database, got {len(truth)} and {len(urls)}")
    pairs = zip(urls, truth, strict=True)
    labelled = [label_tracklets(url, read_truth(path), path.resolve().parent.name) for url, path in pairs]
    calibration, diagrams = _fit(console, labelled, trained_vehicles(trained_on) if trained_on else set())
    if out is not None:
        save_calibration(out, calibration)
    links = link_reliability(labelled)
    return diagrams if links is None else {**diagrams, "links, as decided": links}


def _fit(
    console: Console, sites: Sequence[Sequence[LabelledTracklet]], known: set[str]
) -> tuple[Calibration, dict[str, Reliability]]:
    """Fits pairs of vehicles that are not known to the embedder; each site's cameras are centred by all that passed."""
    models = {tracklet.model_id for site in sites for tracklet in site}
    if len(models) != 1:
        _fail(f"wanted vectors of one embedder, got {', '.join(sorted(models)) or 'none'}")
    strangers = [[tracklet for tracklet in site if tracklet.vehicle not in known] for site in sites]
    centres = mean_vectors([tracklet for site in strangers for tracklet in site])
    found: dict[ModalityPair, list[LabelledPairs]] = defaultdict(list)
    for site, unknown in zip(sites, strangers, strict=True):
        centring = Centring(centres)
        centring.learn([tracklet.seen() for tracklet in site])
        for pair, pairs in pair_similarities(unknown, centring).items():
            found[pair].append(pairs)
    shown = Table("pair", "same", "different", "AUC", "slope", "intercept", title="Similarity as evidence")
    fits, diagrams = {}, {}
    for pair, parts in sorted(found.items()):
        joined = LabelledPairs(
            np.concatenate([part.similarity for part in parts]), np.concatenate([part.vehicles for part in parts])
        )
        is_same = joined.is_same
        if is_same.all() or not is_same.any():
            typer.echo(f"{'~'.join(pair)}: all {len(is_same)} pairs are of one kind: nothing to fit", err=True)
            continue
        fit = fits[pair] = fit_logistic(joined.similarity, is_same)
        counts = (
            str(int(is_same.sum())),
            str(int((~is_same).sum())),
            f"{ranking_quality(joined.similarity, is_same):.3f}",
        )
        shown.add_row("~".join(pair), *counts, f"{fit.slope:.2f}", f"{fit.intercept:.2f}")
        judged = joined.judged_apart()
        is_judged = np.isfinite(judged)
        diagrams["~".join(pair)] = reliability(judged[is_judged], is_same[is_judged], evenly=True)
    console.print(shown)
    return Calibration(models.pop(), fits, centres), diagrams


def _from_site(console: Console, urls: Sequence[str], prior: Calibration) -> dict[str, Reliability]:
    columns = (
        "pair",
        "same",
        "different",
        "shipped: slope, intercept",
        "own",
        "error as shipped",
        "own, on other counts",
    )
    shown = Table(*columns, title="What the site has labelled by itself")
    diagrams = {}
    for url in urls:
        for region, site in load_site_calibrations(url, prior).items():
            for pair, counts in sorted(site.counts.items()):
                name, shipped = "~".join(pair), prior.of(*pair)
                own = site.current.fits.get(pair) if pair in site.fitted else None
                same, different = counts.total
                figures = (f"{name}, {region}", str(same), str(different), _line(shipped), _line(own) if own else "")
                if not same or not different:
                    shown.add_row(*figures, "", "")
                    continue
                similarity, is_same = counts.labelled()
                as_shipped = reliability(shipped.llrs(similarity), is_same, evenly=True)
                diagrams[f"{name}, {region}, as shipped"] = as_shipped
                judged = judged_apart(counts, shipped) if own else None
                if judged is not None:
                    diagrams[f"{name}, {region}, own"] = judged
                shown.add_row(*figures, f"{as_shipped.error:.3f}", f"{judged.error:.3f}" if judged else "")
    console.print(shown if shown.row_count else "The site has labelled nothing yet: its tracklets had no second look.")
    return diagrams


def _line(fit: Logistic) -> str:
    return f"{fit.slope:.2f}, {fit.intercept:.2f}"


def judged_apart(counts: Counts, prior: Logistic) -> Reliability | None:
    """The reliability of a site's own fit, each count judged by the fit to the counts of other parts.

    The counts are dealt to `_PARTS` parts by chance, always the same. Those of one vehicle may come into several: what
    comes out flatters a little.

    Returns:
        The diagram, or None where the rest of some part is too little to fit.
    """
    rng = np.random.default_rng(_SEED)
    deals = [rng.multinomial(row, [1 / _PARTS] * _PARTS) for row in (counts.same, counts.different)]
    log_odds, is_same = [], []
    for number in range(_PARTS):
        own, different = (np.asarray(deal[:, number]) for deal in deals)
        fit = fit_site(Counts(counts.same - own, counts.different - different), prior)
        if fit is None:
            return None
        similarity, label = Counts(own, different).labelled()
        log_odds.append(fit.llrs(similarity))
        is_same.append(label)
    return reliability(np.concatenate(log_odds), np.concatenate(is_same), evenly=True)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    app()
