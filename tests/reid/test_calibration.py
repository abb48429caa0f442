from pathlib import Path

import numpy as np
import pytest

from reid.calibration import (
    MAX_EVIDENCE,
    UNKNOWN,
    Calibration,
    CalibrationError,
    Logistic,
    fit_logistic,
    load_calibration,
    modality_pair,
    save_calibration,
)
from reid.modality import Modality


def test_a_fit_finds_the_ratio_that_made_the_data() -> None:
    # Normal densities of one width: their log ratio is a line, slope (m1 - m0) / s^2, zero halfway between.
    rng = np.random.default_rng(0)
    same, different, width = 0.6, 0.2, 0.1
    similarity = np.concatenate([rng.normal(same, width, 4000), rng.normal(different, width, 12000)])
    is_same = np.arange(16000) < 4000

    fit = fit_logistic(similarity, is_same)

    assert fit.slope == pytest.approx((same - different) / width**2, rel=0.1)
    assert fit.llr((same + different) / 2) == pytest.approx(0.0, abs=0.3)


def test_one_kind_alone_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="3 same and 0 different"):
        fit_logistic(np.ones(3), np.ones(3, bool))


def test_evidence_is_bounded() -> None:
    assert Logistic(100.0, 0.0).llr(1.0) == MAX_EVIDENCE
    assert Logistic(100.0, 0.0).llr(-1.0) == -MAX_EVIDENCE


def test_a_pair_has_no_order_and_an_unknown_pair_a_default() -> None:
    fit = Logistic(1.0, 2.0, 3)
    calibration = Calibration("m", {modality_pair(Modality.VISIBLE, Modality.THERMAL): fit})

    assert (
        calibration.of(Modality.THERMAL, Modality.VISIBLE) == calibration.of(Modality.VISIBLE, Modality.THERMAL) == fit
    )
    assert calibration.of(Modality.THERMAL, Modality.THERMAL) == UNKNOWN


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pair = modality_pair(Modality.NEAR_INFRARED, Modality.VISIBLE)
    centre = np.array([0.25, -0.5], np.float32)
    calibration = Calibration("porsche-1", {pair: Logistic(9.5, -4.25, 120)}, {Modality.VISIBLE: centre})

    save_calibration(tmp_path / "c.json", calibration)
    back = load_calibration(tmp_path / "c.json")

    assert (back.model_id, back.fits) == (calibration.model_id, calibration.fits)
    assert np.array_equal(back.centres[Modality.VISIBLE], centre)


def test_centring_keeps_unit_norm_and_leaves_an_unknown_modality_alone() -> None:
    calibration = Calibration("m", {}, {Modality.VISIBLE: np.array([0.6, 0.0], np.float32)})
    vector = np.array([0.6, 0.8], np.float32)

    assert np.allclose(calibration.centred(Modality.VISIBLE, vector), [0.0, 1.0])
    assert calibration.centred(Modality.THERMAL, vector) is vector


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_id": "m", "fits": [{"pair": ["visible"]}]}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)

    with pytest.raises(CalibrationError, match=r"c\.json: no calibration"):
        load_calibration(path)
