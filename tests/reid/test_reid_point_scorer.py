"""Scoring with numpy what torch's matcher scores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid import point_scorer
from reid.config import MatcherConfig
from reid.embedder import EmbedderError
from reid.export_parts import fold_matcher
from reid.point_matcher import PointMatcher
from reid.point_scorer import PointScorer

Array = NDArray[np.float32]
POINTS, CHANNELS = (2, 3), 5


def matcher(layers: int = 3, seed: int = 0) -> PointMatcher:
    """A matcher none of whose norms is the identity."""
    torch.manual_seed(seed)
    made = PointMatcher(MatcherConfig(layers=layers, feed_forward=7, head=11, channels=CHANNELS), POINTS, 8)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, -1, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return made.eval()


def tokens(count: int, seed: int = 0, layers: int = 3) -> Array:
    shape = (count, layers, POINTS[0] * POINTS[1], CHANNELS)
    return 3 * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def torch_scores(made: PointMatcher, queries: Array, gallery: Array) -> Array:
    with torch.no_grad():
        return np.asarray(made.score(torch.from_numpy(queries), torch.from_numpy(gallery)).numpy())


@pytest.mark.parametrize("layers", [1, 3])
def test_it_scores_as_torch_does(layers: int) -> None:
    made = matcher(layers)
    queries, gallery = tokens(4, 1, layers), tokens(7, 2, layers)
    expected = torch_scores(made, queries, gallery)
    assert expected.std() > 0.1
    np.testing.assert_allclose(fold_matcher(made).score(queries, gallery), expected, atol=1e-4)


def test_it_still_does_after_a_way_through_a_file(tmp_path: Path) -> None:
    made = matcher()
    fold_matcher(made).save(tmp_path / "matcher.npz")
    scores = PointScorer.load(tmp_path / "matcher.npz").score(tokens(2), tokens(3))
    np.testing.assert_allclose(scores, torch_scores(made, tokens(2), tokens(3)), atol=1e-4)


def test_weights_that_are_half_numbers_lie_as_such_and_lose_nothing(tmp_path: Path) -> None:
    made = matcher().half().float()
    fold_matcher(made).save(tmp_path / "matcher.npz")
    with np.load(tmp_path / "matcher.npz") as arrays:
        assert arrays["first"].dtype == np.float16
    scores = PointScorer.load(tmp_path / "matcher.npz").score(tokens(2), tokens(3))
    np.testing.assert_array_equal(scores, fold_matcher(made).score(tokens(2), tokens(3)))


def test_it_does_not_matter_which_picture_asks() -> None:
    scorer = fold_matcher(matcher())
    one, other = tokens(3, 1), tokens(4, 2)
    np.testing.assert_allclose(scorer.score(one, other), scorer.score(other, one).T, atol=1e-4)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = fold_matcher(matcher())
    whole = scorer.score(tokens(3, 1), tokens(8, 2))
    monkeypatch.setattr(point_scorer, "BLOCK_NUMBERS", 3 * (36 + 22))
    np.testing.assert_allclose(scorer.score(tokens(3, 1), tokens(8, 2)), whole, atol=1e-5)


def test_tokens_off_the_wire_are_taken_as_they_are() -> None:
    scorer, given = fold_matcher(matcher()), tokens(3)
    frozen = np.frombuffer(given.tobytes(), np.float32).reshape(given.shape)
    np.testing.assert_array_equal(scorer.score(frozen, frozen), scorer.score(given, given))


@pytest.mark.parametrize(("queries", "gallery"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_compare_no_scores(queries: int, gallery: int) -> None:
    assert fold_matcher(matcher()).score(tokens(queries), tokens(gallery)).shape == (queries, gallery)


def test_tokens_of_another_shape_are_refused() -> None:
    scorer = fold_matcher(matcher())
    with pytest.raises(EmbedderError, match=r"gallery must be tokens \(N, 3, 6, \.\.\.\), got \(2, 1, 6, 5\)"):
        scorer.score(tokens(2), tokens(2, layers=1))
    with pytest.raises(EmbedderError, match="queries have 4 channels, gallery 5"):
        scorer.score(tokens(2)[..., :4], tokens(2))


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "matcher.npz"
    with pytest.raises(EmbedderError, match=r"matcher\.npz: no such file"):
        PointScorer.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(EmbedderError, match=r"matcher\.npz: not a matcher"):
        PointScorer.load(path)
    np.savez(path, priors=np.zeros((1, 2, 2)))
    with pytest.raises(EmbedderError, match=r"matcher\.npz: not a matcher"):
        PointScorer.load(path)
    fold_matcher(matcher()).save(path)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "second": np.zeros((3, 10))})
    with pytest.raises(EmbedderError, match=r"first must be \(3, 10, 6\)"):
        PointScorer.load(path)


def test_it_needs_numpy_alone(tmp_path: Path) -> None:
    fold_matcher(matcher()).save(tmp_path / "matcher.npz")
    code = (
        "import sys; from reid.point_scorer import PointScorer;"
        f"PointScorer.load({str(tmp_path / 'matcher.npz')!r});"
        "assert not {'torch', 'openvino', 'onnxruntime', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
