"""The site from above: where its cameras are drawn, and that what they are called stays text."""

from __future__ import annotations

import json
import math
import warnings
from itertools import combinations
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from storage.errors import StorageError
from streamer.config import CameraConfig, SiteConfig

with warnings.catch_warnings():
    # The page's library imports a client for Kafka, if it is there, which reads its files by an old way.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"(read|open)_text is deprecated")
    from web.pages.site_plan import Halt, Plan, drawing, picture_size, plan_of

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ("tests.web.pillow",)

_NASTY = "<img src=x onerror=alert(1)>\"'&"


def _site(*positions: dict[str, float] | None, **plan: Any) -> SiteConfig:  # noqa: ANN401 - as the section takes them
    cameras = [
        {"id": f"cam{index}", "url": "rtsp://127.0.0.1:1/a", "modality": "visible"}
        | ({} if position is None else {"position": position})
        for index, position in enumerate(positions)
    ]
    return SiteConfig.model_validate(
        {
            "site": "small",
            "database": "sqlite:///small.db",
            "crops_dir": "crops",
            "cameras": cameras,
            "web": {"plan": plan},
        }
    )


def _plan(site: SiteConfig, cameras: list[CameraConfig] | None = None) -> Plan:
    return plan_of(site, site.cameras if cameras is None else cameras)


def test_pixels_are_the_drawing_s_own_and_hidden_cameras_are_not_on_it() -> None:
    site = _site({"x": 30, "y": 40}, {"x": 500, "y": 200})
    assert _plan(site).places == {"cam0": (30.0, 40.0), "cam1": (500.0, 200.0)}

    seen = _plan(site, [site.cameras[0]])
    drawn = drawing(seen, [Halt("cam0"), Halt("cam1", "9 s"), Halt("cam0")], {})
    assert "cam0" in drawn
    assert "cam1" not in drawn
    assert "9 s" not in drawn


@pytest.mark.parametrize("count", [0, 1, 5, 64])
def test_cameras_without_a_place_stand_side_by_side_within_the_drawing(count: int) -> None:
    site = _site(*[None] * max(count, 1))
    plan = _plan(site, list(site.cameras[:count]))
    assert len(set(plan.places.values())) == count
    assert all(0 <= x <= plan.width and 0 <= y <= plan.height for x, y in plan.places.values())
    assert all(math.dist(one, other) > 80 for one, other in combinations(plan.places.values(), 2)), "names have room"


def test_marks_and_names_are_as_large_on_a_large_picture() -> None:
    def shares(width: float) -> tuple[float, ...]:
        root = ElementTree.fromstring(drawing(Plan(width, width / 2, {"cam0": (width / 2, width / 8)}), [], {}))
        circle, text = root.find(".//circle"), root.find(".//text")
        assert circle is not None
        assert text is not None
        unit = float((root.get("style") or "").removeprefix("--unit: "))
        return unit / width, float(circle.get("r") or 0) / width, float(text.get("y") or 0) / width

    assert shares(4000.0) == pytest.approx(shares(1000.0), rel=0.01)


@pytest.mark.parametrize("y", [1.0, 15.0, 150.0, 250.0, 399.0])
def test_names_stand_within_the_drawing(y: float) -> None:
    text = ElementTree.fromstring(drawing(Plan(700.0, 400.0, {"cam0": (350.0, y)}), [], {})).find(".//text")
    assert text is not None
    # Twelve pixels high, above the line that they stand on.
    assert 12 <= float(text.get("y") or 0) <= 396


def test_cameras_are_drawn_without_a_picture_that_is_broken(tmp_path: Path) -> None:
    site = _site({"x": 30, "y": 40}, image=str(tmp_path / "gone.png"))
    with pytest.raises(StorageError):
        _plan(site)
    assert plan_of(site, site.cameras, is_bare=True).places == {"cam0": (30.0, 40.0)}


def test_north_is_up_and_east_is_right() -> None:
    plan = _plan(_site({"lat": 48.001, "lon": 11.0}, {"lat": 48.0, "lon": 11.002}))
    (x_north, y_north), (x_east, y_east) = plan.places["cam0"], plan.places["cam1"]
    assert y_north < y_east
    assert x_north < x_east
    assert all(0 <= x <= plan.width and 0 <= y <= plan.height for x, y in plan.places.values())


def test_a_single_camera_on_earth_lies_in_the_middle() -> None:
    plan = _plan(_site({"lat": 48.0, "lon": 11.0}))
    assert plan.places["cam0"] == pytest.approx((plan.width / 2, plan.height / 2))


def test_the_lines_of_a_local_map_lie_as_its_cameras_do(tmp_path: Path) -> None:
    street = [[11.0, 48.0], [11.002, 48.001]]
    collection = [{"type": "MultiLineString", "coordinates": [street]}, {"type": "Polygon", "coordinates": [street]}]
    features = [
        {"type": "Feature", "geometry": {"type": "LineString", "coordinates": street}},
        {"type": "Feature", "geometry": None},
        {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": collection}},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[street]]}},
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [11.0, 48.0]}},
    ]
    path = tmp_path / "map.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    plan = _plan(_site({"lat": 48.0, "lon": 11.0}, {"lat": 48.001, "lon": 11.002}, geojson=str(path)))
    assert len(plan.lines) == 4
    for line in plan.lines:
        assert list(line) == [pytest.approx(plan.places["cam0"]), pytest.approx(plan.places["cam1"])]


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", '{"type": "Feature"}', '{"type": "LineString", "coordinates": [[1]]}']
)
def test_a_broken_map_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "map.geojson"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=r"^web\.plan\.geojson: map\.geojson can't be read as GeoJSON$"):
        _plan(_site({"lat": 48.0, "lon": 11.0}, geojson=str(path)))


def test_names_and_labels_stay_text() -> None:
    plan = Plan(100.0, 100.0, {_NASTY: (20.0, 20.0), "b": (80.0, 80.0)})
    root = ElementTree.fromstring(drawing(plan, [Halt("b"), Halt(_NASTY, _NASTY)], {_NASTY: "bad"}))
    tags = {element.tag for element in root.iter()}
    assert tags == {"svg", "defs", "marker", "path", "rect", "a", "circle", "text"}
    assert [element.text for element in root.iter("text")].count(_NASTY) == 2
    assert all(element.get("href", "").startswith("/vehicles?camera=") for element in root.iter("a"))


@pytest.mark.parametrize(
    "head",
    [
        '<svg width="640" height="480px" stroke-width="2">',
        '<svg width="6.4.0" height="480" viewBox="0 0 640 480">',
        '<svg viewBox="0\n0\n640\n480">',
        '<svg viewBox="0 0 640 480">',
        "<svg viewBox='0 0 640 480' width='100%'>",
    ],
)
def test_a_drawn_picture_says_how_large_it_is(tmp_path: Path, head: str) -> None:
    path = tmp_path / "plan.svg"
    path.write_text(f"{head}</svg>", encoding="utf-8")
    assert picture_size(path) == (640.0, 480.0)


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.svg", b"<svg/>"), ("a.svg", b'<svg viewBox="0 0 0 1.2.3"/>'), ("b.svg", b"\xff"), ("c.png", b"no picture")],
)
def test_a_broken_picture_is_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(StorageError, match=rf"^web\.plan\.image: {name} [^\n]+$"):
        picture_size(path)
