"""What vehicles look like to the embedder, as a distribution that costs no pixels.

    python benchmarks/looks.py fit --data ../shared/data/reid_synthetic
    python benchmarks/looks.py check --data ../shared/data/reid_synthetic
    python benchmarks/looks.py calibrate --data ../shared/data/reid_synthetic --out FILE.json

A vehicle is drawn as three vectors at once, one a modality: the mean look of its kind (van, sedan, ...) and what is its
own, of low rank and joint over the modalities, so that how much two bands agree comes out as measured. A picture adds
noise that belongs to its modality alone. Fitted to the validation pictures, never to the test split.

What is drawn is easier to tell apart than what a site's cameras see: noise is independent from picture to picture, so
that a stay's mean takes most of it out, while a real stay has one light, one side and one distance in all of its
pictures. Logistic fits to drawn tracklets are 1.2 to 2.1 times as steep as the shipped ones, which are of rendered
sites.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detector.detections import VehicleClass
from reid.calibration import (
    Logistic,
    ModalityPair,
    fit_logistic,
    load_calibration,
    modality_pair,
    save_calibration,
)
from reid.modality import Modality
from streamer.calibrate import ranking_quality

LOOKS = Path(__file__).with_name("looks.npz")
WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "porsche-small_openvino_model"
MODALITIES = tuple(Modality)
#: What COCO, and so the detector, calls the kinds of the rendered set.
COCO_CLASS = defaultdict(
    lambda: VehicleClass.CAR,
    bus=VehicleClass.BUS,
    boxtruck=VehicleClass.TRUCK,
    flatbed=VehicleClass.TRUCK,
    pickup=VehicleClass.TRUCK,
)
#: Directions that are kept of what is a vehicle's own, and of what is a picture's. More of the former is noise of the
#: 40 vehicles that they are fitted to: modalities would agree less than they do.
OWN_RANK, PICTURE_RANK = 8, 64
#: Vehicles differ in how unusual they are: the variance of what is their own is gamma-distributed with this shape.
#: A plain normal distribution has far too few near-twins, and with them too easy a task.
UNUSUALNESS = 2.0
#: Pictures averaged per tracklet, as a stream does with several crops of one stay.
PICTURES = 3
#: Pairs of bands that no site with a truth has two cameras of.
NO_SITE: tuple[ModalityPair, ...] = (
    (Modality.NEAR_INFRARED, Modality.NEAR_INFRARED),
    (Modality.THERMAL, Modality.THERMAL),
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """The fitted distribution, of K kinds and M modalities in the order of `MODALITIES`.

    Attributes:
        model_id: The embedder.
        kinds: K names.
        shares: (K,) how common each kind is, summing to 1.
        centres: (M, D) mean vector of each modality.
        kind_looks: (K, M, D) what a kind adds to that.
        own: (R, M, D) factor of the joint covariance between vehicles of one kind.
        picture: (M, S, D) factor of the covariance between pictures of one vehicle in one modality.
    """

    model_id: str
    kinds: tuple[str, ...]
    shares: Floats
    centres: Floats
    kind_looks: Floats
    own: Floats
    picture: Floats

    def vehicle(self, rng: np.random.Generator) -> tuple[str, Floats]:
        """Draws a vehicle: its kind, and its looks (M, D) before any picture is taken."""
        kind = int(rng.choice(len(self.kinds), p=self.shares))
        scale = np.sqrt(rng.gamma(UNUSUALNESS, 1 / UNUSUALNESS))
        latent = (scale * rng.standard_normal(len(self.own))).astype(np.float32)
        return self.kinds[kind], self.centres + self.kind_looks[kind] + np.tensordot(latent, self.own, axes=1)

    def pictures(self, looks: Floats, modality: Modality, count: int, rng: np.random.Generator) -> Floats:
        """The vectors (count, D), unit norm, of pictures of a vehicle with these looks (M, D)."""
        row = MODALITIES.index(modality)
        noise = rng.standard_normal((count, self.picture.shape[1])).astype(np.float32) @ self.picture[row]
        return unit(looks[row] + noise)

    def save(self, path: Path) -> None:
        """Writes the distribution; half precision is finer than a fit to 40 vehicles deserves."""
        values = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        halves = {name: value.astype(np.float16) for name, value in values.items() if value.ndim > 1}
        np.savez_compressed(path, allow_pickle=False, **(values | halves))


def load_looks(path: Path = LOOKS) -> Looks:
    """Reads what `Looks.save` wrote."""
    with np.load(path) as stored:
        arrays = {name: stored[name].astype(np.float32) for name in ("centres", "kind_looks", "own", "picture")}
        shares = stored["shares"] / stored["shares"].sum()
        return Looks(str(stored["model_id"]), tuple(stored["kinds"].tolist()), shares, **arrays)


def unit(vectors: Floats) -> Floats:
    """Vectors (..., D) at unit norm."""
    norms: Floats = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / norms


def mean_picture(vectors: Floats) -> Floats:
    """(D,) the mean direction of pictures (N, D), as the end of a tracklet carries it."""
    return unit(vectors.mean(axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """The validation pictures: V vehicles, as many pictures P of each in each modality.

    Attributes:
        model_id: The embedder.
        kinds: (V,) names.
        vectors: (V, M, P, D) unit norm.
    """

    model_id: str
    kinds: NDArray[np.str_]
    vectors: Floats


def describe(data: Path, weights: Path) -> Described:
    """Embeds the validation pictures of a data set with a `samples.csv` that knows each vehicle's class."""
    from reid.embedder import Embedder
    from reid.evaluation_data import describe_samples
    from reid.layouts import read_dataset

    samples = read_dataset(data, "val")
    embedder = Embedder(weights, threads=1)
    found = describe_samples(embedder, samples, tokens=False).vectors
    with (data / "samples.csv").open(newline="", encoding="utf-8") as file:
        kinds = {row["vehicle"]: row["class"] for row in csv.DictReader(file)}
    rows: dict[tuple[str, Modality], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        rows[sample.vehicle, sample.modality].append(index)
    names = sorted({vehicle for vehicle, _ in rows})
    vectors = np.stack([[found[rows[name, modality]] for modality in MODALITIES] for name in names])
    return Described(embedder.info.model_id, np.array([kinds[name] for name in names]), vectors)


def fit_looks(described: Described) -> Looks:
    """Fits the distribution, taking off what is spread by chance alone.

    A vehicle's mean over P pictures still has 1/P of the pictures' covariance, and a kind's mean over few vehicles some
    of the vehicles' own: both are subtracted, or vehicles would come out more different than they are.
    """
    vectors = described.vectors.astype(np.float64)  # (V, M, P, D)
    count, modalities, pictures, dimension = vectors.shape
    centres = vectors.mean(axis=(0, 2))
    means = (vectors.mean(axis=2) - centres).reshape(count, -1)  # (V, M * D)
    kinds, kind_of, sizes = np.unique(described.kinds, return_inverse=True, return_counts=True)
    kind_looks = np.stack([means[kind_of == kind].mean(axis=0) for kind in range(len(kinds))])
    residual = means - kind_looks[kind_of]
    own = residual.T @ residual / (count - len(kinds))

    of_kinds = float((sizes @ kind_looks**2).sum() / count)
    by_chance = float(np.trace(own)) * len(kinds) / count
    kind_looks *= np.sqrt(max(of_kinds - by_chance, 0.0) / of_kinds)

    factors = []
    for row in range(modalities):
        deviation = (vectors[:, row] - vectors[:, row].mean(axis=1, keepdims=True)).reshape(-1, dimension)
        covariance = deviation.T @ deviation / (count * (pictures - 1))
        block = slice(row * dimension, (row + 1) * dimension)
        own[block, block] -= covariance / pictures
        factors.append(_factor(covariance, PICTURE_RANK))
    shape = (-1, modalities, dimension)
    return Looks(
        described.model_id,
        tuple(kinds.tolist()),
        (sizes / count).astype(np.float32),
        centres.astype(np.float32),
        kind_looks.reshape(shape).astype(np.float32),
        _factor(own, OWN_RANK).reshape(shape),
        np.stack(factors),
    )


def _factor(covariance: NDArray[np.float64], rank: int) -> Floats:
    """(rank, D): rows that, weighted by normal numbers and summed, have the covariance's strongest directions."""
    values, directions = np.linalg.eigh(covariance)
    factor: Floats = (directions[:, -rank:] * np.sqrt(np.maximum(values[-rank:], 0.0))).T.astype(np.float32)
    return factor


def real_tracklets(described: Described, rng: np.random.Generator) -> Floats:
    """(V, 2, M, D): of every vehicle two tracklets, of `PICTURES` pictures that they don't share."""
    vectors = described.vectors
    order = rng.permuted(np.broadcast_to(np.arange(vectors.shape[2]), vectors.shape[:3]), axis=2)
    shuffled = np.take_along_axis(vectors, order[..., np.newaxis], axis=2)
    parts = [shuffled[:, :, :PICTURES], shuffled[:, :, PICTURES : 2 * PICTURES]]
    return np.stack([unit(part.mean(axis=2)) for part in parts], axis=1)


def simulated_tracklets(looks: Looks, count: int, rng: np.random.Generator) -> Floats:
    """(count, 2, M, D): the same of drawn vehicles."""
    tracklets = []
    for _ in range(count):
        _, own = looks.vehicle(rng)
        tracklets.append([[mean_picture(looks.pictures(own, m, PICTURES, rng)) for m in MODALITIES] for _ in range(2)])
    return np.array(tracklets, np.float32)


def similarities(
    batches: Sequence[Floats], centres: Floats
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.bool_]]]:
    """Per pair of modalities: its name, centred cosines of each two tracklets (N,), whether they are one vehicle."""
    centred = [unit(batch - centres) for batch in batches]
    for first, second in combinations_with_replacement(range(len(MODALITIES)), 2):
        cosines, is_same = [], []
        for batch in centred:
            cosines.append((batch[:, 0, first] @ batch[:, 1, second].T).ravel().astype(np.float64))
            is_same.append(np.eye(len(batch), dtype=np.bool_).ravel())
        yield f"{MODALITIES[first]}~{MODALITIES[second]}", np.concatenate(cosines), np.concatenate(is_same)


app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)
Data = Annotated[Path, typer.Option(help="Data set with samples.csv; its split `val` is read.")]
Weights = Annotated[Path, typer.Option(help="The embedder, as `embedder.weights` of a site file.")]


@app.command()
def fit(
    data: Data, weights: Weights = WEIGHTS, out: Annotated[Path, typer.Option(help="Where it is kept.")] = LOOKS
) -> None:
    """Embed the validation pictures and fit the distribution to them."""
    looks = fit_looks(describe(data, weights))
    looks.save(out)
    print(f"{out}: {len(looks.kinds)} kinds, {out.stat().st_size / 1024:.0f} KiB, model {looks.model_id}")


@app.command()
def check(
    data: Data,
    weights: Weights = WEIGHTS,
    fitted: Annotated[Path, typer.Option(help="The distribution.")] = LOOKS,
    vehicles: Annotated[int, typer.Option(help="How many are drawn.")] = 1000,
    shuffles: Annotated[int, typer.Option(help="How often the real pictures are dealt to tracklets anew.")] = 20,
) -> None:
    """Compare real with drawn tracklets, by pair of modalities: AUC, and similarities of the same and of different."""
    described, looks, rng = describe(data, weights), load_looks(fitted), np.random.default_rng(0)
    real = similarities([real_tracklets(described, rng) for _ in range(shuffles)], looks.centres)
    drawn = similarities([simulated_tracklets(looks, vehicles, rng)], looks.centres)
    columns = ("pair", "", "AUC", "same: mean, sd", "different: mean, sd", "99th percentile")
    table = Table(*columns, title=f"Centred cosine of two tracklets of {PICTURES} pictures")
    for measured, simulated in zip(real, drawn, strict=True):
        for name, (pair, cosine, is_same) in (("real", measured), ("drawn", simulated)):
            same, different = cosine[is_same], cosine[~is_same]
            figures = (f"{ranking_quality(cosine, is_same):.4f}", _spread(same), _spread(different))
            table.add_row(pair if name == "real" else "", name, *figures, f"{np.percentile(different, 99):.2f}")
    Console(width=120).print(table)


@app.command()
def calibrate(
    data: Data,
    out: Annotated[Path, typer.Option(help="The calibration that they are added to, of the same embedder.")],
    weights: Weights = WEIGHTS,
    shuffles: Annotated[int, typer.Option(help="How often the pictures are dealt to tracklets anew.")] = 20,
) -> None:
    """Fit pairs of bands of which no site with a truth has two cameras, and add them to a calibration.

    Tracklets are means of pictures of the validation vehicles; one band's are centred by their own mean, as a camera's
    are. Such pictures are more alike than what two cameras of a site see, and fits to them steeper: by how much is seen
    where there are both, and the median of that is taken off.
    """
    described, calibration, rng = describe(data, weights), load_calibration(out), np.random.default_rng(0)
    if described.model_id != calibration.model_id:
        raise typer.BadParameter(f"{out} is of {calibration.model_id}, the weights are {described.model_id}")
    batches = [real_tracklets(described, rng) for _ in range(shuffles)]
    table = Table(
        "pair", "AUC", "slope", "even at", "in the calibration", "even at", title="Means of pictures as tracklets"
    )
    pictures, quality = {}, {}
    found = similarities(batches, described.vectors.mean(axis=(0, 2)))
    for pair, (_, cosine, is_same) in zip(combinations_with_replacement(MODALITIES, 2), found, strict=True):
        # The same vehicles are dealt anew each time: they count once.
        pictures[modality_pair(*pair)] = replace(fit_logistic(cosine, is_same), pairs=len(cosine) // shuffles)
        quality[modality_pair(*pair)] = ranking_quality(cosine, is_same)
    both = [(fit, pictures[pair]) for pair, fit in calibration.fits.items() if pair not in NO_SITE]
    flatter = float(np.median([fit.slope / picture.slope for fit, picture in both]))
    lower = float(np.median([_even_at(fit) - _even_at(picture) for fit, picture in both]))
    fits = dict(calibration.fits)
    for pair in NO_SITE:
        slope = flatter * pictures[pair].slope
        fits[pair] = Logistic(slope, -slope * (_even_at(pictures[pair]) + lower), pictures[pair].pairs)
    for pair, picture in sorted(pictures.items()):
        kept = (f"{fits[pair].slope:.2f}", f"{_even_at(fits[pair]):.2f}") if pair in fits else ("", "")
        table.add_row("~".join(pair), f"{quality[pair]:.3f}", f"{picture.slope:.2f}", f"{_even_at(picture):.2f}", *kept)
    Console(width=120).print(table)
    print(f"slopes x {flatter:.2f}, even at {lower:+.2f}")
    save_calibration(out, replace(calibration, fits=fits))


def _even_at(fit: Logistic) -> float:
    """The similarity that says nothing either way."""
    return -fit.intercept / fit.slope


def _spread(values: NDArray[np.float64]) -> str:
    return f"{values.mean():+.3f}, {values.std():.3f}"


if __name__ == "__main__":
    app()
