"""What a site's calibration says of similarities, as the index of looks asks it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reid.calibration import MAX_EVIDENCE, Calibration, Logistic, load_calibration
from reid.modality import Modality
from streamer.config import MatcherConfig
from web.likeness import CalibratedScale

CENTRE = np.array([0.6, 0, 0, 0], np.float32)
CALIBRATION = Calibration(
    "embedder",
    {(Modality.THERMAL, Modality.VISIBLE): Logistic(8.0, -2.0), (Modality.VISIBLE, Modality.VISIBLE): Logistic(20, -5)},
    {Modality.VISIBLE: CENTRE},
)


def test_a_band_is_centred_as_the_matcher_does() -> None:
    shipped = load_calibration(Path(MatcherConfig().calibration))
    vectors = np.random.default_rng(0).standard_normal((5, 256)).astype(np.float32)
    for modality in Modality:
        centred = CalibratedScale(shipped).centred(modality.value, vectors)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        expected = np.stack([shipped.centred(modality, vector) for vector in vectors])
        np.testing.assert_allclose(centred, expected, atol=1e-6)


def test_a_band_without_a_centre_or_of_another_length_stays_as_it_is() -> None:
    scale = CalibratedScale(CALIBRATION)
    vectors = np.eye(4, dtype=np.float32)
    assert np.array_equal(scale.centred("thermal", vectors), vectors)
    assert np.array_equal(scale.centred("radar", vectors), vectors)
    assert np.array_equal(scale.centred("visible", vectors[:, :3]), vectors[:, :3])
    assert np.array_equal(scale.centred("visible", vectors), vectors - CENTRE)


def test_a_pair_of_bands_says_the_same_both_ways_and_nothing_if_nobody_has_measured_it() -> None:
    scale, similarities = CalibratedScale(CALIBRATION), np.array([0.0, 0.5, 1.0], np.float32)
    for pair in (("thermal", "visible"), ("visible", "thermal")):
        said = scale.log_odds(*pair, similarities)
        assert said is not None
        assert said.tolist() == [-2.0, 2.0, 6.0]
    within = scale.log_odds("visible", "visible", similarities)
    assert within is not None
    assert within.tolist() == [-5.0, 5.0, MAX_EVIDENCE]
    assert scale.log_odds("thermal", "thermal", similarities) is None
    assert scale.log_odds("visible", "radar", similarities) is None
