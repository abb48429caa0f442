"""The site from above: cameras where they stand, and a vehicle's way between them.

Cameras are placed by their pixels on the site's picture, by longitude and latitude on its map, or, where neither is
given, one after the other. What is drawn is made here, of numbers and of escaped text, and nothing is fetched but the
site's own picture, and map tiles where the site file names them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nicegui import ui

from storage.errors import StorageError
from web import addresses

if TYPE_CHECKING:
    from streamer.config import CameraConfig, SiteConfig
    from web.pages.frame import View

State = Literal["good", "idle", "bad"]

_COLOURS: Mapping[State, str] = {"good": "#1b7f4b", "idle": "#5b6b84", "bad": "#b3261e"}
#: Of a map without a picture, pixels; and what is left free at its edges.
_WIDTH, _MARGIN = 1000.0, 90.0
#: Cameras without a place stand so many beside each other.
_ABREAST = 5
#: As wide as a drawing is shown, more or less: text and marks are drawn for that, whatever the picture's own pixels.
_SHOWN_WIDTH = 700.0
_FLATTEST, _STEEPEST = 0.25, 0.7
#: How far a way swings out, as a share of its length: there and back would lie on each other.
_SWING = 0.12
_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_LENGTH = re.compile(rf"^\s*{_NUMBER}(?:px)?\s*$")
_BOX = re.compile(rf"viewBox=[\"']\s*[-0-9.]+[\s,]+[-0-9.]+[\s,]+{_NUMBER}[\s,]+{_NUMBER}\s*[\"']")


@dataclass(frozen=True, slots=True)
class Halt:
    """A stop on the way that is drawn.

    Attributes:
        camera: Where.
        label: Beside the arrow that leads there, such as the time between.
    """

    camera: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where things lie, in pixels of the drawing, x to the right and y down.

    Attributes:
        width: Of the drawing.
        height: Of the drawing.
        places: Of each camera that has one.
        lines: Streets and outlines of a local map.
        has_picture: The site's picture lies beneath.
    """

    width: float
    height: float
    places: Mapping[str, tuple[float, float]]
    lines: Sequence[Sequence[tuple[float, float]]] = field(default_factory=tuple)
    has_picture: bool = False


def site_plan(view: View, *, way: Sequence[Halt] = (), states: Mapping[str, State] | None = None) -> ui.element:
    """Draws the site's cameras, each a link to what it saw, and a way through them.

    Args:
        view: Where it is shown; cameras that its caller may not see are left out.
        way: The stops in order.
        states: How the cameras are; of those left out nothing is known.
    """
    site = view.services.site
    cameras = [camera for camera in site.cameras if view.caller.sees(camera.id)]
    with ui.column().classes("w-full gap-1") as shown:
        try:
            plan = plan_of(site, cameras)
        except StorageError as error:
            # Where the cameras are can be shown without.
            plan = plan_of(site, cameras, is_bare=True)
            ui.label(str(error)).classes("bad text-sm")
        ui.html(drawing(plan, way, states or {}), sanitize=False).classes("plan-scroll")
    return shown


def plan_of(site: SiteConfig, cameras: Sequence[CameraConfig], *, is_bare: bool = False) -> Plan:
    """Where the cameras of the site lie.

    Args:
        site: The site file.
        cameras: Those that are drawn.
        is_bare: Without the site's picture or map.

    Raises:
        StorageError: The site's picture or map can't be read.
    """
    on_plan = {one.id: one.position for one in cameras if one.position is not None and one.position.x is not None}
    if on_plan:
        places = {name: (float(place.x or 0), float(place.y or 0)) for name, place in on_plan.items()}
        image = None if is_bare else site.web.plan.image
        if image is not None:
            return Plan(*picture_size(image), places, has_picture=True)
        far_x, far_y = (max(place[axis] for place in places.values()) for axis in (0, 1))
        return Plan(far_x + _MARGIN, far_y + _MARGIN, places)
    on_earth = {one.id: one.position for one in cameras if one.position is not None and one.position.lat is not None}
    if on_earth:
        where = {name: (float(place.lon or 0), float(place.lat or 0)) for name, place in on_earth.items()}
        return _on_earth(where, None if is_bare else site.web.plan.geojson)
    columns = min(max(len(cameras), 1), _ABREAST)
    step = (_WIDTH - 2 * _MARGIN) / max(columns - 1, 1)
    rows = math.ceil(len(cameras) / columns)
    return Plan(
        _WIDTH,
        _MARGIN * (max(rows, 1) + 1),
        {
            one.id: (_MARGIN + step * (index % columns), _MARGIN * (1 + index // columns))
            for index, one in enumerate(cameras)
        },
    )


def drawing(plan: Plan, way: Sequence[Halt], states: Mapping[str, State]) -> str:
    """The SVG of a plan; every text in it is escaped."""
    unit = plan.width / _SHOWN_WIDTH
    parts = [
        f'<svg class="plan" viewBox="0 0 {plan.width:.0f} {plan.height:.0f}" style="--unit: {unit:.3f}" '
        'role="group" aria-label="Site plan">'
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="5" markerHeight="5" '
        'orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="#d1382c"/></marker></defs>'
    ]
    if plan.has_picture:
        parts.append(f'<image href="/media/plan" width="{plan.width:.0f}" height="{plan.height:.0f}"/>')
    else:
        parts.append(f'<rect width="{plan.width:.0f}" height="{plan.height:.0f}" fill="#eef1f5"/>')
    for line in plan.lines:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="#a9b4c4" stroke-width="{2 * unit:.1f}"/>')
    parts += _arrows(plan, way, unit)
    parts += _markers(plan, states, unit)
    parts.append("</svg>")
    return "".join(parts)


def _arrows(plan: Plan, way: Sequence[Halt], unit: float) -> Iterator[str]:
    placed = [halt for halt in way if halt.camera in plan.places]
    for left, reached in pairwise(placed):
        (x1, y1), (x2, y2) = plan.places[left.camera], plan.places[reached.camera]
        length = math.hypot(x2 - x1, y2 - y1)
        if length == 0:
            continue
        # To the left of the direction of travel, so that there and back are two arrows.
        along, across = ((x2 - x1) / length, (y2 - y1) / length), ((y2 - y1) / length, (x1 - x2) / length)
        bend = (
            (x1 + x2) / 2 + across[0] * length * _SWING * 2,
            (y1 + y2) / 2 + across[1] * length * _SWING * 2,
        )
        end = (x2 - along[0] * 12 * unit, y2 - along[1] * 12 * unit)
        yield (
            f'<path class="way" marker-end="url(#arrow)" '
            f'd="M{x1:.1f} {y1:.1f} Q{bend[0]:.1f} {bend[1]:.1f} {end[0]:.1f} {end[1]:.1f}"/>'
        )
        if reached.label:
            label_x, label_y = (x1 + x2) / 2 + across[0] * length * _SWING, (y1 + y2) / 2 + across[1] * length * _SWING
            yield f'<text x="{label_x:.1f}" y="{label_y:.1f}" text-anchor="middle">{escape(reached.label)}</text>'


def _markers(plan: Plan, states: Mapping[str, State], unit: float) -> Iterator[str]:
    for name, (x, y) in plan.places.items():
        state: State = states.get(name, "idle")
        # Above the upper half's cameras there is room, below the lower half's, unless they stand at the very edge.
        is_above = (y < plan.height / 2) == (20 * unit < y < plan.height - 24 * unit)
        text_y = y - 12 * unit if is_above else y + 20 * unit
        edge = 50 * unit
        anchor = "start" if x < edge else "end" if x > plan.width - edge else "middle"
        address = addresses.vehicles_at(name)
        yield (
            f'<a class="camera" href="{escape(address)}" aria-label="Vehicles at {escape(name)}">'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{7 * unit:.1f}" fill="{_COLOURS[state]}"/>'
            f'<text x="{x:.1f}" y="{text_y:.1f}" text-anchor="{anchor}">{escape(name)}</text></a>'
        )


@lru_cache(maxsize=4)
def picture_size(path: Path) -> tuple[float, float]:
    """Width and height of the site's picture, in pixels.

    Raises:
        StorageError: It can't be read.
    """
    if path.suffix.lower() == ".svg":
        return _svg_size(path)
    from PIL import Image

    try:
        with Image.open(path) as image:
            return float(image.width), float(image.height)
    except (OSError, Image.DecompressionBombError) as error:
        raise StorageError(f"web.plan.image: {path.name} can't be read as a picture") from error


def _svg_size(path: Path) -> tuple[float, float]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"web.plan.image: {path.name} can't be read") from error
    root = re.search(r"<svg\b[^>]*>", text)
    if root is not None:
        # Of a name that ends so, such as stroke-width, the root may tell as well.
        sides = dict(re.findall(r"\s(width|height)=[\"']([^\"']+)[\"']", root.group(0)))
        found = [_LENGTH.match(sides.get(name, "")) for name in ("width", "height")]
        box = _BOX.search(root.group(0))
        if found[0] is not None and found[1] is not None:
            size = float(found[0].group(1)), float(found[1].group(1))
        else:
            size = (float(box.group(1)), float(box.group(2))) if box is not None else (0.0, 0.0)
        if min(size) > 0:
            return size
    raise StorageError(f"web.plan.image: {path.name} names no width and height")


def _on_earth(places: Mapping[str, tuple[float, float]], geojson: Path | None) -> Plan:
    """Longitude and latitude as pixels: so small a piece of the earth is flat."""
    lines = [] if geojson is None else list(_lines(geojson))
    longitudes = [place[0] for place in places.values()]
    latitudes = [place[1] for place in places.values()]
    middle = (min(longitudes) + max(longitudes)) / 2, (min(latitudes) + max(latitudes)) / 2
    shrink = math.cos(math.radians(middle[1]))
    span_x = max((max(longitudes) - min(longitudes)) * shrink, 1e-5)
    span_y = max(max(latitudes) - min(latitudes), 1e-5)
    steepness = min(max(span_y / span_x, _FLATTEST), _STEEPEST)
    height = _WIDTH * steepness
    scale = min((_WIDTH - 2 * _MARGIN) / span_x, (height - 2 * _MARGIN) / span_y)

    def at(place: tuple[float, float]) -> tuple[float, float]:
        return _WIDTH / 2 + (place[0] - middle[0]) * shrink * scale, height / 2 - (place[1] - middle[1]) * scale

    return Plan(
        _WIDTH,
        height,
        {name: at(place) for name, place in places.items()},
        [[at(one) for one in line] for line in lines],
    )


@lru_cache(maxsize=4)
def _lines(path: Path) -> tuple[tuple[tuple[float, float], ...], ...]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_of_geometry(document))
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise StorageError(f"web.plan.geojson: {path.name} can't be read as GeoJSON") from error


def _of_geometry(item: Any) -> Iterator[tuple[tuple[float, float], ...]]:  # noqa: ANN401 - JSON
    kind = item["type"]
    if kind == "FeatureCollection":
        for feature in item["features"]:
            yield from _of_geometry(feature)
    elif kind == "Feature":
        if item["geometry"] is not None:
            yield from _of_geometry(item["geometry"])
    elif kind == "GeometryCollection":
        for geometry in item["geometries"]:
            yield from _of_geometry(geometry)
    elif kind == "LineString":
        yield _points(item["coordinates"])
    elif kind in ("MultiLineString", "Polygon"):
        yield from (_points(line) for line in item["coordinates"])
    elif kind == "MultiPolygon":
        yield from (_points(line) for polygon in item["coordinates"] for line in polygon)


def _points(coordinates: Any) -> tuple[tuple[float, float], ...]:  # noqa: ANN401 - JSON
    return tuple((float(point[0]), float(point[1])) for point in coordinates)
