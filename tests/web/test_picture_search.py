"""Pictures are described as the site's own crops are, and what can't be loaded is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.embedder import Embedder
from reid.modality import Modality
from streamer.config import SiteConfig
from tests.web.asking import site_file
from web.picture_search import PictureSearch, PictureSearchError


def _picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8)


def _with_weights(site: SiteConfig, weights: str) -> SiteConfig:
    return site.model_copy(update={"embedder": site.embedder.model_copy(update={"weights": weights})})


def test_picture_is_described_as_the_sites_embedder_does(tmp_path: Path) -> None:
    site = site_file(tmp_path)
    vector, model_id = PictureSearch(site).describe(_picture(1), Modality.THERMAL)
    embedder = Embedder(site.embedder.weights, max_batch=1, threads=1)
    assert model_id == embedder.info.model_id
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, embedder.embed([_picture(1)], [Modality.THERMAL])[0], atol=1e-5)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)


def test_band_and_picture_change_the_vector(tmp_path: Path) -> None:
    search = PictureSearch(site_file(tmp_path))
    visible, _ = search.describe(_picture(1), Modality.VISIBLE)
    thermal, _ = search.describe(_picture(1), Modality.THERMAL)
    other, _ = search.describe(_picture(2), Modality.VISIBLE)
    assert not np.allclose(visible, thermal, atol=1e-3)
    assert not np.allclose(visible, other, atol=1e-3)


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    search = PictureSearch(_with_weights(site_file(tmp_path), str(tmp_path / "none.pt")))
    with pytest.raises(PictureSearchError, match=r"^pictures can't be described: .*none\.pt: no such weights$"):
        search.describe(_picture(1), Modality.VISIBLE)


def test_missing_library_is_one_line_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = PictureSearch(site_file(tmp_path))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "reid.embedder", None)
        with pytest.raises(PictureSearchError, match=r"^pictures can't be described: [^\n]+$"):
            search.describe(_picture(1), Modality.VISIBLE)
    assert search.describe(_picture(1), Modality.VISIBLE)[1]
