import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from reid.modality import Modality
from streamer.calibrate import LabelledTracklet, app, mean_vectors, pair_similarities, ranking_quality, trained_vehicles
from streamer.matcher.calibration import Calibration


def _tracklet(camera: str, vehicle: str, modality: Modality, direction: int) -> LabelledTracklet:
    return LabelledTracklet(camera, vehicle, "m", {modality: np.eye(4, dtype=np.float32)[direction]})


def test_pairs_are_those_of_different_cameras_by_modality_pair() -> None:
    pairs = pair_similarities(
        [
            _tracklet("a", "1", Modality.VISIBLE, 0),
            _tracklet("a", "2", Modality.VISIBLE, 1),
            _tracklet("b", "1", Modality.THERMAL, 0),
        ],
        Calibration("m", {}),
    )

    assert list(pairs) == [(Modality.THERMAL, Modality.VISIBLE)]
    similarity, is_same = pairs[Modality.THERMAL, Modality.VISIBLE]
    assert similarity.tolist() == [1.0, 0.0]
    assert is_same.tolist() == [True, False]


def test_what_all_of_a_modality_share_is_taken_out() -> None:
    shared = np.array([3, 0, 0, 0], np.float32)
    own = np.eye(4, dtype=np.float32)
    tracklets = [
        LabelledTracklet(camera, vehicle, "m", {modality: (shared * sign + own[direction]) / np.sqrt(10)})
        for camera, modality, sign in (("a", Modality.VISIBLE, 1), ("b", Modality.THERMAL, -1))
        for vehicle, direction in (("1", 1), ("2", 2))
    ]

    centring = Calibration("m", {}, mean_vectors(tracklets))
    similarity, is_same = pair_similarities(tracklets, centring)[Modality.THERMAL, Modality.VISIBLE]

    assert np.allclose(similarity, np.where(is_same, 1.0, -1.0), atol=1e-5)


def test_ranking_quality_is_the_share_of_pairs_in_order() -> None:
    # Same: 0.9 and 0.4; different: 0.5 and 0.1. Three of the four comparisons are in order.
    quality = ranking_quality(np.array([0.9, 0.4, 0.5, 0.1]), np.array([True, True, False, False]))

    assert quality == pytest.approx(0.75)


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
