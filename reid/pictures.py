"""The charts of a report, each drawn for a light page and for a dark one. Arrays in, PNG out."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from reid.history import EpochRecord
from reid.modality import Modality

DOTS_PER_INCH = 150
MAX_POINTS = 3000
MARKERS: Mapping[str, str] = {Modality.VISIBLE: "o", Modality.NEAR_INFRARED: "s", Modality.THERMAL: "^"}
#: Joins one vehicle's modalities; between the two papers' brightness.
JOIN = "#8b929b"
#: (N_m, 2) points by modality.
Cloud = Mapping[Modality, NDArray[np.float64]]
#: Lines of (x, y) points, by query and gallery.
Lines = Mapping[tuple[str, str], tuple[Sequence[float], Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing as two PNG files, for the page's two backgrounds."""

    light: bytes
    dark: bytes


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours: `paper` behind, `ink` of words, `faint` of rules, one for each modality and for a loss's parts."""

    paper: str
    ink: str
    faint: str
    modalities: Mapping[str, str]
    parts: tuple[str, ...]


# Okabe and Ito's colours, which colour-blind readers tell apart; lightened for the dark page.
LIGHT = Theme(
    paper="#ffffff",
    ink="#24292f",
    faint="#d5dae0",
    modalities={Modality.VISIBLE: "#0072b2", Modality.NEAR_INFRARED: "#009e73", Modality.THERMAL: "#d55e00"},
    parts=("#cc79a7", "#0072b2", "#e69f00", "#009e73", "#56b4e9"),
)
DARK = Theme(
    paper="#1b1f24",
    ink="#dfe4ea",
    faint="#3b424b",
    modalities={Modality.VISIBLE: "#56b4e9", Modality.NEAR_INFRARED: "#2ecc9b", Modality.THERMAL: "#ff8f3f"},
    parts=("#e39cc4", "#56b4e9", "#f0b93a", "#2ecc9b", "#8fa8ff"),
)


def spoken(name: str) -> str:
    """A modality's name as people write it."""
    return name.replace("near_infrared", "near-infrared").replace("_", " ")


def cmc_chart(curves: Mapping[tuple[str, str], NDArray[np.float64]]) -> Chart:
    """Share of queries with a match among the first ranks.

    Args:
        curves: by query and gallery, the (K,) shares at rank 1 to K, 0-1.
    """
    lines = {direction: (range(1, len(cmc) + 1), cmc.tolist()) for direction, cmc in curves.items()}
    return _directions_chart(lines, "rank", "share of queries with a match", ticks=(1, 5, 10, 15, 20))


def validation_chart(history: Sequence[EpochRecord]) -> Chart | None:
    """Validation mAP by epoch; None where no epoch measured it."""
    lines: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for record in history:
        for name, scores in record.validation.items():
            query, _, gallery = name.partition("->")
            epochs, values = lines.setdefault((query, gallery), ([], []))
            epochs.append(record.epoch)
            values.append(scores["mAP"])
    return _directions_chart(lines, "epoch", "validation mAP") if lines else None


def loss_chart(history: Sequence[EpochRecord]) -> Chart | None:
    """Loss and its parts by epoch; None without an epoch."""
    if not history:
        return None
    names = list(dict.fromkeys(name for record in history for name in record.parts))
    return _render((11.4, 3.9), lambda figure, theme: _draw_losses(figure, theme, history, names))


def project(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The plane of largest variance (principal components).

    Args:
        vectors: (N, D), N and D at least 2.

    Returns:
        (N, 2) coordinates, and the (2,) shares of all variance that the two axes hold.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    # An axis may point either way; one rule lets two reports of the same vectors agree.
    signs = np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])
    variances = strengths**2
    return centred @ (axes[:2].T * signs), variances[:2] / max(float(variances.sum()), 1e-12)


def scatter_chart(
    vectors: NDArray[np.float32], modalities: Sequence[Modality], vehicles: Sequence[str], joined: int = 6
) -> Chart:
    """Embeddings in two dimensions, a colour and a mark for each modality.

    Args:
        vectors: (N, D).
        modalities: N bands.
        vehicles: N identities.
        joined: of so many vehicles, spread over all, the modalities' means are joined by grey lines.
    """
    points, shares = project(vectors)
    bands, names = np.array(modalities), np.array(vehicles)
    several = [name for name in dict.fromkeys(vehicles) if len(set(bands[names == name])) > 1]
    chosen = several[:: max(1, len(several) // joined)][:joined]
    stars = [_by_band(points[names == name], bands[names == name]) for name in chosen]
    thin = slice(None, None, -(-len(points) // MAX_POINTS))
    cloud = _by_band(points[thin], bands[thin])
    labels = [f"component {n} ({share:.0%} of the variance)" for n, share in enumerate(shares, start=1)]
    return _render((11.4, 6.2), lambda figure, theme: _draw_scatter(figure, theme, cloud, stars, labels))


def _by_band(points: NDArray[np.float64], bands: NDArray[np.str_]) -> Cloud:
    return {band: points[bands == band] for band in Modality if (bands == band).any()}


def _render(inches: tuple[float, float], draw: Callable[[Figure, Theme], None]) -> Chart:
    drawn = []
    for theme in (LIGHT, DARK):
        figure = Figure(figsize=inches, dpi=DOTS_PER_INCH, layout="constrained", facecolor=theme.paper)
        draw(figure, theme)
        stream = io.BytesIO()
        # The default writes matplotlib's version and address into the file.
        figure.savefig(stream, format="png", metadata={"Software": None})
        drawn.append(stream.getvalue())
    return Chart(*drawn)


def _style(axes: Axes, theme: Theme, x_label: str, y_label: str) -> None:
    axes.set_facecolor(theme.paper)
    axes.set_xlabel(x_label, color=theme.ink)
    axes.set_ylabel(y_label, color=theme.ink)
    axes.tick_params(colors=theme.ink, which="both", length=0)
    axes.grid(color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _directions_chart(lines: Lines, x_label: str, y_label: str, ticks: Sequence[int] = ()) -> Chart:
    """A panel for each query modality, in it a line for each gallery."""
    width = max(5.0, 3.8 * len({query for query, _ in lines}))
    labels = (x_label, y_label)
    return _render((width, 3.9), lambda figure, theme: _draw_directions(figure, theme, lines, labels, ticks))


def _draw_directions(figure: Figure, theme: Theme, lines: Lines, labels: tuple[str, str], ticks: Sequence[int]) -> None:
    queries = list(dict.fromkeys(query for query, _ in lines))
    panels: NDArray[np.object_] = figure.subplots(1, len(queries), sharey=True, squeeze=False)
    named = {}
    for query, axes in zip(queries, panels[0], strict=True):
        for (other, gallery), (xs, ys) in lines.items():
            if other == query:
                colour, marker = theme.modalities.get(gallery, theme.ink), MARKERS.get(gallery, ".")
                (named[gallery],) = axes.plot(xs, ys, color=colour, marker=marker, markersize=3.5, linewidth=1.5)
        _style(axes, theme, labels[0], labels[1] if axes is panels[0, 0] else "")
        axes.set_title(f"query: {spoken(query)}", color=theme.ink, fontsize=10, loc="left")
        axes.set_ylim(0, 1.03)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if ticks:
            axes.set_xticks(ticks)
    words = [f"gallery: {spoken(gallery)}" for gallery in named]
    figure.legend(list(named.values()), words, loc="outside lower center", ncols=3, frameon=False, labelcolor=theme.ink)


def _draw_losses(figure: Figure, theme: Theme, history: Sequence[EpochRecord], names: Sequence[str]) -> None:
    axes = figure.subplots()
    epochs = [record.epoch for record in history]
    colours = dict(zip((name for name in names if name != "loss"), cycle(theme.parts), strict=False))
    marker = "o" if len(history) <= 40 else ""
    for name in names:
        values = [record.parts.get(name, np.nan) for record in history]
        # The whole is drawn as such, not as one more part.
        colour, width, label = (theme.ink, 2.2, "whole loss") if name == "loss" else (colours[name], 1.5, name)
        axes.plot(epochs, values, color=colour, linewidth=width, marker=marker, markersize=3, label=label)
    if all(value > 0 for record in history for value in record.parts.values()):
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    _style(axes, theme, "epoch", "loss")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor=theme.ink)


def _draw_scatter(figure: Figure, theme: Theme, cloud: Cloud, stars: Sequence[Cloud], labels: Sequence[str]) -> None:
    axes = figure.subplots()
    for band, (xs, ys) in ((band, points.T) for band, points in cloud.items()):
        colour, marker = theme.modalities[band], MARKERS[band]
        axes.scatter(xs, ys, s=14, marker=marker, color=colour, alpha=0.55, linewidths=0, label=spoken(band))
    for star in stars:
        means = {band: points.mean(axis=0) for band, points in star.items()}
        axes.plot(*np.array(list(means.values())).T, color=JOIN, linewidth=1.6, zorder=3)
        for band, (x, y) in means.items():
            colour, marker = theme.modalities[band], MARKERS[band]
            axes.scatter(x, y, s=60, marker=marker, color=colour, edgecolors=theme.ink, zorder=4)
    _style(axes, theme, labels[0], labels[1])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, labelcolor=theme.ink, markerscale=2)
