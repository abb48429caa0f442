import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from reid.calibration import Calibration, Logistic, save_calibration
from reid.modality import Modality
from storage.database import Database
from storage.records import TrackletRecord
from storage.writer import Writer
from streamer.calibrate import (
    LabelledPairs,
    app,
    judged_apart,
    link_reliability,
    mean_vectors,
    pair_similarities,
    ranking_quality,
)
from streamer.labelled_tracklets import LabelledTracklet, trained_vehicles
from streamer.matcher.centring import Centring
from streamer.matcher.site_calibration import Counts, SiteCalibration

RGB_THERMAL = (Modality.THERMAL, Modality.VISIBLE)


def _tracklet(camera: str, vehicle: str, modality: Modality, direction: int) -> LabelledTracklet:
    return LabelledTracklet(camera, vehicle, "m", {modality: np.eye(4, dtype=np.float32)[direction]})


def test_pairs_are_those_of_different_cameras_by_modality_pair() -> None:
    pairs = pair_similarities(
        [
            _tracklet("a", "1", Modality.VISIBLE, 0),
            _tracklet("a", "2", Modality.VISIBLE, 1),
            _tracklet("b", "1", Modality.THERMAL, 0),
        ],
        Centring({}),
    )

    assert list(pairs) == [RGB_THERMAL]
    assert pairs[RGB_THERMAL].similarity.tolist() == [1.0, 0.0]
    assert pairs[RGB_THERMAL].is_same.tolist() == [True, False]


def test_what_all_of_a_camera_share_is_taken_out() -> None:
    own = np.eye(4, dtype=np.float32)

    def site(tint: NDArray[np.float32]) -> list[LabelledTracklet]:
        shared = {"a": own[0] * 3, "b": own[0] * 3 + tint, "c": own[3] * -3}
        bands = {"a": Modality.VISIBLE, "b": Modality.VISIBLE, "c": Modality.THERMAL}
        return [
            LabelledTracklet(camera, vehicle, "m", {bands[camera]: (shared[camera] + own[direction]) / np.sqrt(10)})
            for camera in "abc"
            for vehicle, direction in (("1", 1), ("2", 2))
            for _ in range(20)
        ]

    tracklets = site(tint=own[3] * 2)
    centring = Centring(mean_vectors(tracklets))
    centring.learn([tracklet.seen() for tracklet in tracklets])
    pairs = pair_similarities(tracklets, centring)

    for found in pairs.values():
        assert found.similarity[found.is_same].min() > 0.5
        assert found.similarity[~found.is_same].max() < 0.0


def test_ranking_quality_is_the_share_of_pairs_in_order() -> None:
    # Same: 0.9 and 0.4; different: 0.5 and 0.1. Three of the four comparisons are in order.
    quality = ranking_quality(np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False]))

    assert quality == pytest.approx(0.75)


def test_a_pair_is_judged_without_having_been_fitted_to() -> None:
    # Every vehicle is as like to itself as to the others, but for one: only by itself could that one be foreseen.
    names = [f"v{index}" for index in range(10)]
    vehicles = np.array([(first, second) for first in names for second in names])
    odd = (vehicles == "v0").all(axis=1)
    rng = np.random.default_rng(0)
    pairs = LabelledPairs(np.where(odd, 1.0, rng.normal(0.0, 0.1, len(vehicles))), vehicles)

    assert abs(pairs.judged_apart()[~odd]).max() < 3.0
    assert np.isfinite(pairs.judged_apart()).all()


def test_too_few_to_fit_are_not_judged() -> None:
    pairs = LabelledPairs(np.array([0.9, 0.1]), np.array([["1", "1"], ["1", "2"]]))

    assert np.isnan(pairs.judged_apart()).any()


def test_a_link_is_right_when_the_others_are_the_same_vehicle() -> None:
    def linked(vehicle: str, score: float | None, decided: str = "d") -> LabelledTracklet:
        return LabelledTracklet("a", vehicle, "m", {}, decided=decided, score=score)

    found = link_reliability([[linked("1", None), linked("1", 8.0), linked("1", 8.0), linked("2", 8.0)]])

    assert found is not None
    assert found.same.tolist() == [2]
    assert found.different.tolist() == [1]
    assert link_reliability([[linked("1", None, "d"), linked("2", 3.0, "e")]]) is None


def test_the_sites_own_fit_is_judged_on_other_counts() -> None:
    rng = np.random.default_rng(0)
    counts = Counts()
    for is_same, mean in ((True, 0.8), (False, 0.2)):
        for similarity in rng.normal(mean, 0.2, 400):
            counts.add(float(similarity), is_same=is_same)

    judged = judged_apart(counts, Logistic(5.0, -4.0))

    assert judged is not None
    assert (judged.same.sum(), judged.different.sum()) == (400, 400)
    assert judged.error < 0.06
    assert judged_apart(Counts(), Logistic(5.0, -4.0)) is None


def test_vehicles_trained_on_are_those_of_split_train(tmp_path: Path) -> None:
    samples = tmp_path / "samples.csv"
    samples.write_text("path,vehicle,split\na.jpg,site-1,train\nb.jpg,site-2,val\n")

    assert trained_vehicles(samples) == {"site-1"}


def test_bad_input_is_one_line_and_exit_2(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("camera,frame\n")

    result = CliRunner().invoke(app, ["--database", f"sqlite:///{tmp_path}/no.db", "--truth", str(truth)])

    assert result.exit_code == 2
    assert re.fullmatch(r"error: .*truth\.csv.*\n", result.stderr)


def _site_that_has_labelled(folder: Path) -> list[str]:
    """A database with what a region has counted; as options of the command."""
    prior = Calibration("m", {RGB_THERMAL: Logistic(5.0, -4.0, 100)})
    site, rng = SiteCalibration(prior), np.random.default_rng(0)
    counts = site.counts[RGB_THERMAL] = Counts()
    for is_same, mean in ((True, 0.8), (False, 0.2)):
        for similarity in rng.normal(mean, 0.2, 60):
            counts.add(float(similarity), is_same=is_same)
    save_calibration(folder / "shipped.json", prior)
    url, now = f"sqlite:///{folder}/site.db", datetime(2026, 1, 1, tzinfo=UTC)
    database = Database.open(url)
    with database.transaction() as session:
        writer = Writer(session)
        record = TrackletRecord("a/s/1", "main", "a", "s", 1, "car", {"car": 1.0}, now, now, "left")
        writer.store_sighting(record, None, ())
        writer.store_learned("main", {"calibration": json.dumps(site.to_json()).encode()}, now)
    database.close()
    return ["--database", url, "--calibration", str(folder / "shipped.json")]


def test_without_truth_it_shows_what_the_site_has_labelled(tmp_path: Path) -> None:
    plot = tmp_path / "reliability.png"

    result = CliRunner().invoke(app, [*_site_that_has_labelled(tmp_path), "--plot", str(plot)], env={"COLUMNS": "200"})

    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if "thermal~visible, main" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells[1:4] == ["60", "60", "5.00, -4.00"]
    assert float(cells[6]) < float(cells[5])
    assert "thermal~visible, main, own: error" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_site_that_has_labelled_nothing_says_so(tmp_path: Path) -> None:
    Database.open(f"sqlite:///{tmp_path}/site.db").close()

    result = CliRunner().invoke(app, ["--database", f"sqlite:///{tmp_path}/site.db"])

    assert result.exit_code == 0, result.output
    assert "labelled nothing yet" in result.stdout


def test_a_site_writes_no_calibration_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*_site_that_has_labelled(tmp_path), "--out", str(tmp_path / "c.json")])

    assert result.exit_code == 2
    assert (
        result.stderr
        == "error: --out and --trained-on want --truth: what a site labels by itself stays in its database\n"
    )
