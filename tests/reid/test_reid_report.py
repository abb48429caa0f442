"""The report: what it calls hard, what it frames as right, and a page that needs nothing but itself."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reid.datasets import Sample
from reid.errors import ReidError
from reid.history import EpochRecord, History
from reid.modality import Modality
from reid.pictures import cmc_chart, loss_chart, project, validation_chart
from reid.protocols import Protocol
from reid.report import Run, hard_queries, hardest_rows, read_run, report_run, write_report
from reid.retrieval import Result, evaluate
from tests.reid.reid_builders import dataset, picture, weights

VOID = {"meta", "img", "source", "br", "link", "input", "hr"}
PNG, JPEG = b"\x89PNG", b"\xff\xd8\xff"


class Page(HTMLParser):
    """A page's elements; fails at a tag that closes another than the innermost open one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.ids += [named["id"]] if "id" in named else []
        self.links += [named[key] for key in ("href", "src", "srcset") if key in named]
        if tag == "img":
            self.images.append({**named, "frame": named.get("class", "")})
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"line {self.getpos()[0]}"


def on_circle(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors whose cosines follow from their angles."""
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees], dtype=np.float32)


@pytest.fixture
def shot(tmp_path: Path) -> Callable[..., Sample]:
    def write(vehicle: str, modality: Modality = Modality.VISIBLE, site: str = "") -> Sample:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        cv2.imwrite(str(path), picture(int(vehicle)))
        return Sample(path, vehicle, modality, site=site)

    return write


def only(results: list[Result], query: Modality, gallery: Modality) -> Result:
    (found,) = (result for result in results if (result.query, result.gallery) == (query, gallery))
    return found


def hand_made(shot: Callable[..., Sample]) -> tuple[NDArray[np.float32], list[Sample]]:
    """Three visible queries and three thermal pictures of vehicles 1, 2 and 3.

    By angle the gallery is 1 at 10, 2 at 20 and 3 at 90 degrees. Vehicle 1 asks from 0: its match is first.
    Vehicle 2 asks from 11: its match is second. Vehicle 3 asks from 5: its match is last.
    """
    samples = [shot(v) for v in "123"] + [shot(v, Modality.THERMAL) for v in "123"]
    return on_circle(0, 11, 5, 10, 20, 90), samples


def test_the_hardest_query_comes_first(shot: Callable[..., Sample]) -> None:
    vectors, samples = hand_made(shot)
    result = only(evaluate(vectors, samples, Protocol.ALL), Modality.VISIBLE, Modality.THERMAL)
    assert hardest_rows(result, 5) == [2, 1, 0]
    assert hardest_rows(result, 2) == [2, 1]
    shown = hard_queries(vectors, samples, result, 3)
    assert [query.average_precision for query in shown] == pytest.approx([1 / 3, 1 / 2, 1])
    assert [query.first_rank for query in shown] == [3, 2, 1]


def test_a_vehicle_is_shown_once_by_its_worst_query(shot: Callable[..., Sample]) -> None:
    samples = [shot("1"), shot("1"), shot("2"), shot("1", Modality.THERMAL), shot("2", Modality.THERMAL)]
    # Vehicle 1 asks once from beside its match and once from beside the other's; vehicle 2 is found at once.
    vectors = on_circle(0, 80, 90, 0, 90)
    result = only(evaluate(vectors, samples, Protocol.ALL), Modality.VISIBLE, Modality.THERMAL)
    assert hardest_rows(result, 3) == [1, 2]


def test_frames_tell_right_from_wrong_and_cosines_fall(shot: Callable[..., Sample]) -> None:
    vectors, samples = hand_made(shot)
    result = only(evaluate(vectors, samples, Protocol.ALL), Modality.VISIBLE, Modality.THERMAL)
    third, second, first = hard_queries(vectors, samples, result, 3)
    assert [answer.is_right for answer in third.answers] == [False, False, True]
    assert [answer.is_right for answer in second.answers] == [False, True, False]
    assert [answer.is_right for answer in first.answers] == [True, False, False]
    angles = [math.degrees(math.acos(answer.similarity)) for answer in third.answers]
    assert angles == pytest.approx([5, 15, 85], abs=0.01)


def test_vehicles_of_two_sites_are_not_one(shot: Callable[..., Sample]) -> None:
    samples = [shot("1", site="a"), shot("1", Modality.THERMAL, site="b"), shot("1", Modality.THERMAL, site="a")]
    vectors = on_circle(0, 1, 2)
    result = only(evaluate(vectors, samples, Protocol.ALL), Modality.VISIBLE, Modality.THERMAL)
    (query,) = hard_queries(vectors, samples, result, 3)
    assert [answer.is_right for answer in query.answers] == [False, True]


def test_a_query_is_not_among_its_own_answers(shot: Callable[..., Sample]) -> None:
    samples = [shot("1"), shot("1"), shot("2")]
    vectors = on_circle(0, 50, 20)
    result = only(evaluate(vectors, samples, Protocol.ALL), Modality.VISIBLE, Modality.VISIBLE)
    (query,) = hard_queries(vectors, samples, result, 1)
    assert [answer.is_right for answer in query.answers] == [False, True]


def epochs(count: int) -> list[EpochRecord]:
    scores = {"visible->thermal": {"mAP": 0.4, "rank1": 0.5}}
    return [
        EpochRecord(n, n, 8 * n, 1.0, 8.0, 1e-3, {"loss": 2.0 / n, "triplet": 1.0 / n}, scores) for n in range(1, count)
    ]


def write_hand_made(folder: Path, shot: Callable[..., Sample], run: Run, hard: int = 3) -> tuple[str, Page]:
    vectors, samples = hand_made(shot)
    results = evaluate(vectors, samples, Protocol.ALL)
    out = folder / "pages" / "report.html"
    write_report(out, run, vectors, samples, results, source="a made-up split", hard_per_direction=hard)
    text = out.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_is_well_formed_and_holds_every_picture(tmp_path: Path, shot: Callable[..., Sample]) -> None:
    text, page = write_hand_made(tmp_path, shot, Run("night <b>&", {"epochs": 3}, "abc1234", epochs(4)))
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    assert "night &lt;b&gt;&amp;" in text
    assert "Figures from a made-up split: 6 pictures of 3 vehicles (visible, thermal)" in text
    # Visible asks thermal and back: three queries with three answers each; no vehicle has two visible pictures.
    crops = 2 * 3 * (1 + 3)
    charts = ("cmc", "scatter", "losses", "validation")
    assert len(page.images) == crops + len(charts)
    assert all(image["alt"] for image in page.images)
    for image in page.images:
        kind, _, content = image["src"].partition(";base64,")
        assert base64.b64decode(content, validate=True).startswith(PNG if kind == "data:image/png" else JPEG)


def test_the_page_refers_to_nothing_but_itself(tmp_path: Path, shot: Callable[..., Sample]) -> None:
    text, page = write_hand_made(tmp_path, shot, Run("x", {"epochs": 3}, "abc1234", epochs(4)))
    assert "://" not in text
    assert re.findall(r"@import|url\(|<script|<link|<iframe", text) == []
    inner = [link for link in page.links if not link.startswith("data:image/")]
    assert {link.removeprefix("#") for link in inner} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_frames_of_the_page_follow_the_ranking(tmp_path: Path, shot: Callable[..., Sample]) -> None:
    text, _ = write_hand_made(tmp_path, shot, Run("x"), hard=1)
    part = text[text.index('id="visible-thermal"') : text.index('id="thermal-visible"')]
    assert re.findall(r'<figure class="(\w+)"', part) == ["query", "wrong", "wrong", "right"]
    assert [mark for mark in part if mark in "✓✗"] == ["✗", "✗", "✓"]
    assert "AP 0.333" in part
    assert [f"{math.cos(math.radians(angle)):.3f}" in part for angle in (5, 15, 85)] == [True] * 3


def test_a_run_without_history_or_checkpoint_has_a_page_that_says_so(
    tmp_path: Path, shot: Callable[..., Sample]
) -> None:
    text, page = write_hand_made(tmp_path, shot, read_run(tmp_path / "nowhere"), hard=0)
    assert "left no history" in text
    assert "Configuration" not in text
    assert len(page.images) == len(("cmc", "scatter"))


def test_the_json_says_what_the_page_says(tmp_path: Path, shot: Callable[..., Sample]) -> None:
    write_hand_made(tmp_path, shot, Run("x", {"epochs": 3}, "abc1234", epochs(4)))
    summary = json.loads((tmp_path / "pages" / "report.json").read_text())
    assert summary["config"] == {"epochs": 3}
    assert summary["revision"] == "abc1234"
    assert summary["last_epoch"]["epoch"] == 3
    (record,) = (r for r in summary["scores"] if (r["query"], r["gallery"]) == ("visible", "thermal"))
    assert record["mAP"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-5)


def test_a_run_is_reported_from_its_folder(tmp_path: Path) -> None:
    data, run = dataset(tmp_path / "data"), tmp_path / "run"
    run.mkdir()
    weights(run).rename(run / "model.pt")
    with History(run, tensorboard=False) as history:
        history.append(epochs(2)[0])
    report_run(run, data, "val", run / "report.html", hard_per_direction=1)
    text = (run / "report.html").read_text(encoding="utf-8")
    # 3 x 3 directions; 7 pictures of the query's modality besides itself, 8 of another; 4 charts.
    assert len(Page(text).images) == 3 * (1 + 7) + 6 * (1 + 8) + 4
    assert f"Figures from {data}, split val; weights tiny-" in text
    assert len(json.loads((run / "report.json").read_text())["scores"]) == 9


def test_weights_that_are_missing_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ReidError, match=r"model\.pt"):
        report_run(tmp_path, dataset(tmp_path / "data"), "val", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_projection_keeps_what_already_lies_in_a_plane() -> None:
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(50, 2)) * [3.0, 1.0]
    basis, _ = np.linalg.qr(generator.normal(size=(8, 2)))
    points, shares = project((plane @ basis.T + 5).astype(np.float32))
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=2), distances, atol=1e-4)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] > shares[1]
    assert points[:, 0].var() > points[:, 1].var()


def test_charts_are_the_same_each_time_and_have_the_background_of_their_page() -> None:
    curves = {("visible", "thermal"): np.linspace(0.5, 1, 20)}
    chart = cmc_chart(curves)
    assert cmc_chart(curves) == chart
    corners = []
    for png in (chart.light, chart.dark):
        pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        corners.append(int(pixels[0, 0].max()))
    assert corners[0] > 240
    assert corners[1] < 50


def test_nothing_measured_is_no_chart() -> None:
    assert loss_chart([]) is None
    assert validation_chart([EpochRecord(1, 1, 8, 1.0, 8.0, 1e-3, {"loss": 0.0}, {})]) is None
    # A loss of zero has no place on a logarithmic axis and must not fail.
    assert loss_chart([EpochRecord(1, 1, 8, 1.0, 8.0, 1e-3, {"loss": 0.0}, {})]) is not None
