"""The graph of a region's cameras, drawn: values in, a picture's bytes out."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from reid.modality import Modality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

    from streamer.topology_report import Learned, SeenCamera, Way

_WIDTH, _HEIGHT, _DOTS_PER_INCH = 14.0, 8.5, 150
#: The graph's part of the picture, and where the list's columns begin, as shares of it.
_GRAPH = (0.015, 0.06, 0.615, 0.87)
_COLUMNS = (0.64, 0.845, 0.94, 0.985)
#: Lines of the list at most, and the room that each takes.
_LISTED, _LINE_SHARE = 38, 0.0225
#: How far ways bend from the straight line, as a share of it: so that the two directions stay apart.
_BEND = 0.12
#: Where along its way a time may stand, best first.
_STEPS = (0.42, 0.5, 0.34, 0.58, 0.27, 0.66, 0.2, 0.74)
#: Cameras stand within so much of the middle, to the right and up, and so far apart at least.
_REACH = np.array([0.92, 0.8])
_APART = 0.42
#: A spot of another line that a time hides weighs as much as so many square dots of other words.
_CROSSED = 100.0
_PAPER, _INK, _FAINT, _LINE, _BAND = "#ffffff", "#24292f", "#6b7480", "#8b929b", "#f3dfa6"
#: Okabe and Ito's, as in the pages of `reid.report`.
_COLOURS: Mapping[str, str] = {
    Modality.VISIBLE: "#0072b2",
    Modality.NEAR_INFRARED: "#009e73",
    Modality.THERMAL: "#d55e00",
}
_OTHER_COLOUR = "#57606a"
_MINUS = "\N{MINUS SIGN}"


def draw(learned: Learned, kind: str) -> bytes:
    """Draws a region: the cameras, the ways between them with their median times, and a list with the rest.

    Args:
        learned: What is known.
        kind: `png` or `svg`.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DOTS_PER_INCH, facecolor=_PAPER)
    axes = figure.add_axes(_GRAPH)
    axes.set_axis_off()
    # One unit is as long to the right as it is up, so that what stands where it does looks so.
    high = 1.0
    wide = high * (_GRAPH[2] * _WIDTH) / (_GRAPH[3] * _HEIGHT)
    axes.set_xlim(-wide, wide)
    axes.set_ylim(-high, high)
    places, is_placed = layout(learned.cameras)
    for overlap in learned.overlaps:
        ends = np.stack([places[overlap.first], places[overlap.second]])
        axes.plot(*ends.T, color=_BAND, linewidth=14, solid_capstyle="round", zorder=1)
    for way in learned.ways:
        _arrow(axes, way, places)
    taken = [text for seen in learned.cameras for text in _stand(axes, seen, places[seen.camera])]
    _write_times(figure, axes, learned.ways, places, taken)
    _write_list(figure, learned)
    figure.text(0.02, 0.955, f"{learned.region}: what the matcher has learned", size=15, color=_INK, weight="bold")
    figure.text(0.02, 0.02, _caption(is_placed=is_placed), size=9, color=_FAINT)
    buffer = io.BytesIO()
    # Without the date, and with names that are not drawn by lot, one state gives one file.
    metadata = {"Date": None} if kind == "svg" else {}
    with rc_context({"svg.hashsalt": learned.region}):
        figure.savefig(buffer, format=kind, facecolor=_PAPER, metadata=metadata)
    return buffer.getvalue()


def page(learned: Learned) -> bytes:
    """The picture and all its numbers, as one HTML file without anything outside of it."""
    picture = draw(learned, "svg").decode()
    loader = jinja2.Environment(loader=jinja2.PackageLoader("streamer", "."), autoescape=True)
    template = loader.get_template("topology.html.jinja")
    # From <svg> on: what comes before it is for a file of its own.
    return template.render(learned=learned, picture=picture[picture.index("<svg") :], number=_number).encode()


def layout(cameras: Sequence[SeenCamera]) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """Where the cameras are drawn, by id, each (2,) within `_REACH`; and whether that is about where they stand."""
    names = [seen.camera for seen in cameras]
    known = [seen.place for seen in cameras if seen.place is not None]
    if len(known) < len(names) or len(names) < 2:
        angles = np.pi * (0.75 - 2 * np.arange(len(names)) / max(len(names), 1))
        round_about = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        round_about /= np.maximum(np.abs(round_about).max(axis=0), 1e-12)
        return dict(zip(names, round_about * _REACH, strict=True)), False
    points = _pushed_apart(_fitted(np.array(known)))
    return dict(zip(names, points, strict=True)), True


def _fitted(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2) as large in the middle of the picture as they can be, by one scale for both directions."""
    centred = points - (points.min(axis=0) + points.max(axis=0)) / 2
    scale = float((np.abs(centred).max(axis=0) / _REACH).max())
    return np.asarray(centred / max(scale, 1e-12))


def _pushed_apart(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 2), those that are too near to each other moved until they are not, or nearly."""
    points = points.copy()
    for _ in range(50):
        moved = np.zeros_like(points)
        for row in range(len(points)):
            for other in range(row):
                between = points[row] - points[other]
                distance = float(np.linalg.norm(between))
                if distance < _APART:
                    # Two on one spot part by their numbers: any direction is as good.
                    angle = 2.4 * (row + other)
                    way = between / distance if distance > 1e-9 else np.array([np.cos(angle), np.sin(angle)])
                    moved[row] += way * (_APART - distance) / 2
                    moved[other] -= way * (_APART - distance) / 2
        if not moved.any():
            break
        points += moved / 2
    return _fitted(points)


def _arrow(axes: Axes, way: Way, places: Mapping[str, NDArray[np.float64]]) -> None:
    arrow = FancyArrowPatch(
        tuple(places[way.left]),
        tuple(places[way.entered]),
        connectionstyle=f"arc3,rad={_BEND}",
        arrowstyle="-|>",
        mutation_scale=13,
        shrinkA=15,
        shrinkB=15,
        linewidth=0.6 + 0.4 * np.log1p(way.sure),
        color=_LINE,
        zorder=2,
    )
    axes.add_patch(arrow)


def _stand(axes: Axes, seen: SeenCamera, place: NDArray[np.float64]) -> list[Text]:
    """A camera's spot and its words."""
    axes.plot(*place, "o", markersize=22, color=_COLOURS.get(seen.modality, _OTHER_COLOUR), zorder=3)
    up = 1 if place[1] >= 0 else -1
    x, y = float(place[0]), float(place[1])
    spoken = seen.modality.replace("near_infrared", "near-infrared")
    side: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "zorder": 5,
        "bbox": {"boxstyle": "round,pad=0.1", "facecolor": _PAPER, "edgecolor": "none", "alpha": 0.8},
    }
    name = axes.text(x, y + 0.115 * up, seen.camera, size=11, weight="bold", color=_INK, **side)
    words = axes.text(x, y + 0.115 * up - 0.048, spoken, size=8, color=_FAINT, **side)
    spot = axes.text(x, y, "     \n     ", size=11, ha="center", va="center")
    return [name, words, spot]


def _write_times(
    figure: Figure,
    axes: Axes,
    ways: Sequence[Way],
    places: Mapping[str, NDArray[np.float64]],
    taken: Sequence[Text],
) -> None:
    """Writes each way's median on its line, where it covers least of what is written already."""
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in taken]
    lines = [axes.transData.transform(_along(way, places, np.linspace(0.1, 0.9, 33))) for way in ways]
    for number, way in enumerate(ways):
        words = axes.text(
            0, 0, f"{_number(way.median_s)} s", size=8, color=_INK, ha="center", va="center", zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": _PAPER, "edgecolor": "none", "alpha": 0.9},
        )  # fmt: skip
        found: list[tuple[float, int, Bbox]] = []
        spots = _along(way, places, np.array(_STEPS))
        for at, spot in enumerate(spots):
            words.set_position((float(spot[0]), float(spot[1])))
            box = words.get_window_extent().padded(4)
            covered = sum(_shared(box, other) for other in boxes)
            crossed = sum(_count_inside(box, line) for other, line in enumerate(lines) if other != number)
            found.append((covered + _CROSSED * crossed, at, box))
        _, best, box = min(found, key=lambda one: one[:2])
        words.set_position((float(spots[best][0]), float(spots[best][1])))
        boxes.append(box)


def _write_list(figure: Figure, learned: Learned) -> None:
    """Writes all that is known of the ways, and of the views that overlap, beside the graph."""
    rows = [
        (f"{way.left} → {way.entered}", f"{_number(way.median_s)} s",
         f"{_number(way.shortest_s)} to {_number(way.longest_s)}", str(way.passages))
        for way in learned.ways
    ]  # fmt: skip
    rows = [("from, to", "median", "5 to 95 %", "seen"), *rows]
    if learned.overlaps:
        rows += [("", "", "", ""), ("views that overlap", "", "spread", "pairs")]
        rows += [(f"{one.first} ~ {one.second}", "", f"{one.spread:.2f} heights", str(one.pairs))
                 for one in learned.overlaps]  # fmt: skip
    rows += [("", "", "", ""), ("cameras", "", "in view", "a minute")]
    rows += [(seen.camera, "", f"{seen.stay_s:.1f} s", f"{seen.per_minute:.1f}") for seen in learned.cameras]
    hidden = len(rows) - _LISTED
    if hidden > 0:
        rows = [*rows[:_LISTED], (f"and {hidden} lines more: without --out, or in HTML", "", "", "")]
    top = 0.92
    for line, row in enumerate(rows):
        is_head = row[-1] in ("seen", "pairs", "a minute")
        for column, (at, words) in enumerate(zip(_COLUMNS, row, strict=True)):
            figure.text(
                at, top - line * _LINE_SHARE, words, size=8.5, color=_FAINT if is_head else _INK,
                ha="left" if column == 0 else "right", va="top",
            )  # fmt: skip


def _along(way: Way, places: Mapping[str, NDArray[np.float64]], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) places on a way's line, by how much (N,) of it lies behind them: the curve that `arc3` draws."""
    first, second = places[way.left], places[way.entered]
    across = second - first
    middle = (first + second) / 2 + _BEND * np.array([across[1], -across[0]])
    share = shares[:, np.newaxis]
    return np.asarray((1 - share) ** 2 * first + 2 * share * (1 - share) * middle + share**2 * second)


def _number(seconds: float) -> str:
    return f"{seconds:.1f}".replace("-", _MINUS)


def _count_inside(box: Bbox, points: NDArray[np.float64]) -> int:
    x, y = points.T
    return int(np.count_nonzero((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)))


def _shared(first: Bbox, second: Bbox) -> float:
    """Area, in square dots, that two boxes have in common."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def _caption(*, is_placed: bool) -> str:
    return "\n".join(
        [
            "Seconds from leaving one view to entering the other; below 0 both showed the vehicle. "
            "Yellow: the two views show one piece of road.",
            "Cameras stand about where they do on the site." if is_placed else "Where the cameras stand is not known.",
        ]
    )
