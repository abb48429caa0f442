"""The embedder that `streamer` and `web` call, and the export it loads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.checkpoint import load_network
from reid.embedder import Embedder, EmbedderError, prepare_crop
from reid.export import export_openvino, parity
from reid.modality import Modality
from tests.reid.reid_builders import network, picture, weights

BANDS = [Modality.VISIBLE, Modality.THERMAL, Modality.NEAR_INFRARED, Modality.VISIBLE, Modality.THERMAL]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    folder = checkpoint.with_name("tiny_openvino_model")
    assert export_openvino(checkpoint, folder) < 1e-3
    return folder


@pytest.fixture(params=["torch", "openvino"])
def embedder(request: pytest.FixtureRequest, checkpoint: Path, exported: Path) -> Embedder:
    return Embedder(checkpoint if request.param == "torch" else exported, device=None, max_batch=3)


def crops() -> list[NDArray[np.uint8]]:
    return [picture(seed, 20 + 9 * seed, 90 - 7 * seed) for seed in range(5)]


def test_vectors_are_of_unit_norm_and_of_the_length_promised(embedder: Embedder) -> None:
    vectors = embedder.embed(crops(), BANDS)
    assert vectors.shape == (5, embedder.info.dimension)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-2)


def test_neither_order_nor_company_changes_a_vector(embedder: Embedder) -> None:
    vectors = embedder.embed(crops(), BANDS)
    backwards = embedder.embed(crops()[::-1], BANDS[::-1])[::-1]
    alone = np.concatenate([embedder.embed([c], [m]) for c, m in zip(crops(), BANDS, strict=True)])
    # bfloat16 rounds to 3 digits, and batches of other sizes may sum in another order.
    np.testing.assert_allclose(backwards, vectors, atol=2e-2)
    np.testing.assert_allclose(alone, vectors, atol=2e-2)


def test_the_modality_chooses_the_stem(embedder: Embedder) -> None:
    crop = crops()[0]
    one, other = embedder.embed([crop, crop], [Modality.VISIBLE, Modality.THERMAL])
    assert float(one @ other) < 0.999


def test_preparing_crops_beforehand_changes_nothing(embedder: Embedder) -> None:
    ready = [prepare_crop(c, embedder.info.crop_height, embedder.info.crop_width) for c in crops()]
    np.testing.assert_array_equal(embedder.embed(ready, BANDS), embedder.embed(crops(), BANDS))


def test_no_crops_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed([], []).shape == (0, embedder.info.dimension)


def test_wrong_input_is_refused(embedder: Embedder) -> None:
    with pytest.raises(EmbedderError, match="2 crops but 1 modalities"):
        embedder.embed(crops()[:2], BANDS[:1])
    with pytest.raises(EmbedderError, match=r"\(20, 90\)"):
        embedder.embed([crops()[0][:, :, 0]], BANDS[:1])
    with pytest.raises(EmbedderError, match="with pixels"):
        embedder.embed([crops()[0][:0]], BANDS[:1])


def test_openvino_computes_what_torch_does(checkpoint: Path, exported: Path) -> None:
    assert parity(load_network(checkpoint)[0], exported) < 1e-3
    torch_made, openvino_made = (Embedder(w).embed(crops(), BANDS) for w in (checkpoint, exported))
    assert (torch_made * openvino_made).sum(axis=1).min() > 0.999


def test_an_export_speaks_for_the_weights_it_came_from(checkpoint: Path, exported: Path) -> None:
    assert Embedder(exported).info == Embedder(checkpoint).info
    assert Embedder(checkpoint).info.model_id.startswith("tiny-")


def test_other_weights_have_another_id(tmp_path: Path, checkpoint: Path) -> None:
    from reid.checkpoint import save_network

    save_network(tmp_path / "other.pt", network(stages=[{"layer": "layer1", "dimension": 8}]), "")
    assert Embedder(tmp_path / "other.pt").info.model_id != Embedder(checkpoint).info.model_id


def test_an_exported_folder_needs_no_torch(exported: Path) -> None:
    code = (
        "import sys; from reid.embedder import Embedder; import numpy as np; from reid.modality import Modality;"
        f"Embedder({str(exported)!r}).embed([np.zeros((9, 9, 3), np.uint8)], [Modality.THERMAL]);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"none\.pt: no such weights"):
        Embedder(tmp_path / "none.pt")


@pytest.mark.parametrize("name", ["broken.pt", "weights.onnx"])
def test_files_of_the_wrong_kind_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(EmbedderError, match=name):
        Embedder(tmp_path / name)


def test_a_folder_of_the_wrong_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"not a folder that reid\.export wrote"):
        Embedder(tmp_path)


def test_a_broken_folder_is_named(tmp_path: Path, exported: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "broken")
    (folder / "trunk.xml").write_text("<net")
    with pytest.raises(EmbedderError, match="broken: OpenVINO can't load it"):
        Embedder(folder)


def test_a_device_that_is_not_there_is_named(checkpoint: Path, exported: Path) -> None:
    for weights_of_kind in (checkpoint, exported):
        with pytest.raises(EmbedderError, match="nonsense"):
            Embedder(weights_of_kind, device="nonsense")


def test_stretching_fills_the_size_and_keeps_colour() -> None:
    crop = np.full((10, 70, 3), (10, 120, 250), dtype=np.uint8)
    ready = prepare_crop(crop, 128, 256)
    assert ready.shape == (128, 256, 3)
    assert ready.flags.c_contiguous
    assert (ready == (10, 120, 250)).all()
