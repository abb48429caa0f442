"""The embedder that `streamer` and `web` call, and the export it loads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid.checkpoint import save_network
from reid.embedder import Embedder, EmbedderError, EmbedderInfo, prepare_crop
from reid.export import export
from reid.exported_folder import Runtime
from reid.modality import Modality
from tests.reid.reid_builders import network, picture, weights

BANDS = [Modality.VISIBLE, Modality.THERMAL, Modality.NEAR_INFRARED, Modality.VISIBLE, Modality.THERMAL]
MATCHER = {"layers": 3, "feed_forward": 8, "head": 8, "rows": 4, "columns": 2, "channels": 6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    folder = checkpoint.with_name("tiny_openvino_model")
    assert export(checkpoint, folder).stored.largest < 1e-3
    return folder


@pytest.fixture(scope="module")
def matching(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matching") / "tiny.pt"
    save_network(path, network(matcher=MATCHER), "random")
    return path


@pytest.fixture(scope="module")
def matching_openvino(matching: Path) -> Path:
    export(matching, matching.with_name("tiny_openvino_model"))
    return matching.with_name("tiny_openvino_model")


@pytest.fixture(scope="module")
def matching_onnx(matching: Path) -> Path:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    folder = matching.with_name("tiny_onnx_model")
    assert export(matching, folder, Runtime.ONNX).computed.largest < 1e-4
    return folder


@pytest.fixture(params=["checkpoint", "exported", "matching", "matching_openvino", "matching_onnx"])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return Embedder(request.getfixturevalue(request.param), device=None, max_batch=3)


@pytest.fixture(params=["matching", "matching_openvino", "matching_onnx"])
def matcher(request: pytest.FixtureRequest) -> Embedder:
    return Embedder(request.getfixturevalue(request.param), device=None, max_batch=3)


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


def test_describing_embeds_too(embedder: Embedder) -> None:
    described = embedder.describe(crops(), BANDS)
    np.testing.assert_allclose(described.vectors, embedder.embed(crops(), BANDS), atol=2e-2)
    if embedder.info.points is None:
        assert described.tokens is None
        return
    assert described.tokens is not None
    assert described.tokens.shape == (5, *embedder.info.points)
    assert described.tokens.dtype == np.float32


def test_neither_order_nor_company_changes_tokens(matcher: Embedder) -> None:
    tokens = matcher.describe(crops(), BANDS).tokens
    backwards = matcher.describe(crops()[::-1], BANDS[::-1]).tokens
    alone = [matcher.describe([c], [m]).tokens for c, m in zip(crops(), BANDS, strict=True)]
    assert tokens is not None
    assert backwards is not None
    largest = np.abs(tokens).max()
    np.testing.assert_allclose(backwards[::-1], tokens, atol=3e-2 * largest)
    np.testing.assert_allclose(np.concatenate([one for one in alone if one is not None]), tokens, atol=3e-2 * largest)


def test_no_crops_no_tokens(matcher: Embedder) -> None:
    tokens = matcher.describe([], []).tokens
    assert tokens is not None
    assert tokens.shape == (0, *(matcher.info.points or ()))
    assert matcher.score(tokens, tokens).shape == (0, 0)


def test_scores_do_not_depend_on_what_runs_them(matching: Path, matching_openvino: Path, matching_onnx: Path) -> None:
    tokens = Embedder(matching).describe(crops(), BANDS).tokens
    assert tokens is not None
    tokens.flags.writeable = False
    scores, *others = [Embedder(w).score(tokens[:2], tokens) for w in (matching, matching_openvino, matching_onnx)]
    assert scores.shape == (2, 5)
    assert scores.dtype == np.float32
    for other in others:
        np.testing.assert_allclose(other, scores, atol=1e-3)


def test_torch_scores_block_by_block_what_it_scores_at_once(matching: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(matching)
    tokens = embedder.describe(crops(), BANDS).tokens
    assert tokens is not None
    whole = embedder.score(tokens, tokens)
    monkeypatch.setattr("reid.torch_backend.BLOCK_NUMBERS", 3 * (2 * 8**2 + 4 * 8))
    np.testing.assert_allclose(embedder.score(tokens, tokens), whole, atol=1e-5)


def test_tokens_of_another_network_are_refused(matcher: Embedder) -> None:
    with pytest.raises(EmbedderError, match=r"queries must be tokens \(N, 3, 8, 6, \.\.\.\), got \(1, 2, 8, 6\)"):
        matcher.score(np.zeros((1, 2, 8, 6), np.float32), np.zeros((1, 3, 8, 6), np.float32))


def test_without_a_matcher_nothing_is_scored(checkpoint: Path, exported: Path) -> None:
    for weights_of_kind in (checkpoint, exported):
        with pytest.raises(EmbedderError, match="has no matcher"):
            Embedder(weights_of_kind).score(np.zeros((1, 3, 8, 6), np.float32), np.zeros((1, 3, 8, 6), np.float32))


@pytest.mark.parametrize("kind", ["matching_openvino", "matching_onnx"])
def test_an_export_computes_what_torch_does(matching: Path, kind: str, request: pytest.FixtureRequest) -> None:
    torch_made, other = (Embedder(w).embed(crops(), BANDS) for w in (matching, request.getfixturevalue(kind)))
    assert (torch_made * other).sum(axis=1).min() > 0.999


def test_an_info_survives_json(matcher: Embedder) -> None:
    info = matcher.info
    assert info.points == (3, 8, 6)
    assert EmbedderInfo(**json.loads(json.dumps(asdict(info)))) == info


def test_an_export_speaks_for_the_weights_it_came_from(
    checkpoint: Path, exported: Path, matching: Path, matching_openvino: Path
) -> None:
    assert Embedder(exported).info == Embedder(checkpoint).info
    assert Embedder(matching_openvino).info == Embedder(matching).info
    assert Embedder(checkpoint).info.model_id.startswith("tiny-")


def test_other_weights_have_another_id(tmp_path: Path, checkpoint: Path) -> None:
    save_network(tmp_path / "other.pt", network(stages=[{"layer": "layer1", "dimension": 8}]), "")
    assert Embedder(tmp_path / "other.pt").info.model_id != Embedder(checkpoint).info.model_id


@pytest.mark.parametrize("kind", ["exported", "matching_openvino", "matching_onnx"])
def test_an_exported_folder_needs_no_torch(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    code = (
        "import sys; from reid.embedder import Embedder; import numpy as np; from reid.modality import Modality;"
        f"Embedder({str(folder)!r}).describe([np.zeros((9, 9, 3), np.uint8)], [Modality.THERMAL]);"
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


def test_a_folder_without_its_matcher_is_named(tmp_path: Path, matching_openvino: Path) -> None:
    folder = shutil.copytree(matching_openvino, tmp_path / "broken")
    (folder / "matcher.npz").unlink()
    with pytest.raises(EmbedderError, match=r"broken/matcher\.npz: no such file"):
        Embedder(folder)


def test_a_broken_onnx_folder_is_named(tmp_path: Path, matching_onnx: Path) -> None:
    folder = shutil.copytree(matching_onnx, tmp_path / "broken")
    (folder / "trunk.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(EmbedderError, match=r"trunk\.onnx: ONNX Runtime can't load it"):
        Embedder(folder)


def test_a_library_that_is_not_there_is_named(matching_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EmbedderError, match="an ONNX export needs onnxruntime, which can't be imported"):
        Embedder(matching_onnx)


def test_a_device_that_is_not_there_is_named(checkpoint: Path, exported: Path, matching_onnx: Path) -> None:
    for weights_of_kind in (checkpoint, exported, matching_onnx):
        with pytest.raises(EmbedderError, match="nonsense"):
            Embedder(weights_of_kind, device="nonsense")


def test_stretching_fills_the_size_and_keeps_colour() -> None:
    crop = np.full((10, 70, 3), (10, 120, 250), dtype=np.uint8)
    ready = prepare_crop(crop, 128, 256)
    assert ready.shape == (128, 256, 3)
    assert ready.flags.c_contiguous
    assert (ready == (10, 120, 250)).all()


def test_mirrored_vectors_do_not_know_left_from_right(exported: Path, checkpoint: Path) -> None:
    crops = [picture(seed) for seed in range(5)]
    turned = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
    for path in (exported, checkpoint):
        plain, both = Embedder(path), Embedder(path, mirrored=True)
        np.testing.assert_allclose(both.embed(crops, BANDS), both.embed(turned, BANDS), atol=1e-2)
        assert np.abs(plain.embed(crops, BANDS) - plain.embed(turned, BANDS)).max() > 0.03
        np.testing.assert_allclose(np.linalg.norm(both.embed(crops, BANDS), axis=1), 1, atol=1e-5)


def test_a_mirrored_description_changes_the_vectors_alone(matching: Path) -> None:
    crops = [picture(seed) for seed in range(5)]
    plain, both = Embedder(matching), Embedder(matching, mirrored=True)
    described = both.describe(crops, BANDS)
    assert described.tokens is not None
    np.testing.assert_array_equal(described.tokens, plain.describe(crops, BANDS).tokens)
    np.testing.assert_allclose(described.vectors, both.embed(crops, BANDS), atol=1e-2)
