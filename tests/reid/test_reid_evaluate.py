"""The command `python -m reid.evaluate`, from a folder to its figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reid import evaluate
from reid.backend import Descriptions, EmbedderInfo
from reid.checkpoint import save_network
from reid.command import run_command
from reid.datasets import Sample
from reid.evaluation_data import choose_directions, read_both
from reid.modality import Modality
from reid.retrieval import Record
from reid.tokens import pack
from tests.reid.layout_builders import msvr310
from tests.reid.reid_builders import dataset, network, weights

MATCHER = {"layers": 2, "feed_forward": 8, "head": 8, "rows": 2, "columns": 2, "channels": 4}


class ColourEmbedder:
    """Describes a crop by its colours; its matcher takes dot products of them."""

    def __init__(
        self, path: Path, *, device: str | None = None, threads: int | None = None, mirrored: bool = False
    ) -> None:
        del path, device, threads, mirrored
        self.info = EmbedderInfo("colours-0", 3, 8, 8, points=(1, 1, 3))

    def embed(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> NDArray[np.float32]:
        assert len(crops) == len(modalities)
        colours = np.stack([crop.reshape(-1, 3).mean(axis=0) - 128.0 for crop in crops])
        return np.asarray(colours / np.linalg.norm(colours, axis=1, keepdims=True), dtype=np.float32)

    def describe(self, crops: Sequence[NDArray[np.uint8]], modalities: Sequence[Modality]) -> Descriptions:
        vectors = self.embed(crops, modalities)
        return Descriptions(vectors, vectors[:, None, None, :])

    def score(self, queries: NDArray[np.float32], gallery: NDArray[np.float32]) -> NDArray[np.float32]:
        return queries[:, 0, 0] @ gallery[:, 0, 0].T


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "Embedder", ColourEmbedder)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """Run the command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["reid.evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(evaluate.main)
    return ended.value.code


def records(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object) -> list[Record]:
    figures = folder / "figures.json"
    code = command(monkeypatch, "--weights", folder / "tiny.pt", "--data", folder, "--json", figures, *arguments)
    assert code == 0
    found: list[Record] = json.loads(figures.read_text())
    return found


def test_weights_without_a_matcher_rank_by_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(dataset(tmp_path))
    found = records(monkeypatch, tmp_path, "--split", "val", "--distractors", "train")
    assert {(r["ranker"], r["protocol"]) for r in found} == {("embedding", "all"), ("embedding", "same_camera")}
    assert {(r["query"], r["gallery"]) for r in found} == {(a, b) for a in Modality for b in Modality}
    for record in found:
        low, figure, high, rank20 = (record[key] for key in ("mAP_low", "mAP", "mAP_high", "rank20"))
        if not record["queries"]:
            assert (low, high, record["excluded"]) == (None, None, 8)
            continue
        assert isinstance(low, float)
        assert isinstance(figure, float)
        assert isinstance(high, float)
        assert isinstance(rank20, float)
        assert 0 <= low <= figure <= high <= 1
        assert figure <= rank20 <= 1
        assert str(record["model_id"]).startswith("tiny-")
    shown = capsys.readouterr().out
    assert "embedding, protocol same_camera" in shown
    assert "near_infrared" in shown


def test_weights_with_a_matcher_rank_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path)
    save_network(tmp_path / "tiny.pt", network(matcher=MATCHER), "random")
    found = records(monkeypatch, tmp_path, "--split", "val", "--threads", 1)
    assert {r["ranker"] for r in found} == {"embedding", "rerank"}
    asked = ("--mix", 0, "--query", "visible", "--gallery", "thermal")
    options = ("--ranker", "rerank", "--ranker", "pom", "--top", 99, *asked)
    rerank, pom = records(monkeypatch, tmp_path, "--split", "val", "--protocol", "all", *options)
    figures = ("mAP", "mINP", "rank1", "rank5", "queries", "mAP_low", "mAP_high")
    assert [rerank[key] for key in figures] == [pom[key] for key in figures]
    # 2 layers of 2 x 2 points of 4 numbers, packed as they travel; the embedding is 16 float32.
    packed = len(pack(np.ones((2, 4, 4), np.float32)))
    assert (pom["bytes_per_query"], rerank["bytes_per_query"]) == (packed, packed + 64)


@pytest.mark.usefixtures("colours")
def test_a_known_embedding_scores_as_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path)
    found = records(monkeypatch, tmp_path, "--protocol", "all", "--top", 3)
    assert {r["ranker"] for r in found} == {"embedding", "rerank"}
    # Noise of at most 30 levels does not hide the vehicles' own colours.
    assert all((r["mAP"], r["rank1"], r["excluded"]) == (1.0, 1.0, 0) for r in found)
    assert {r["queries"] for r in found} == {16}
    assert {r["model_id"] for r in found} == {"colours-0"}


@pytest.mark.usefixtures("colours")
def test_distractors_join_the_galleries_alone(tmp_path: Path) -> None:
    samples = read_both(dataset(tmp_path), "val", "train")
    chosen = choose_directions(samples, (), (), None)
    assert {(len(direction.rows), len(direction.columns)) for direction in chosen} == {(8, 16)}


@pytest.mark.usefixtures("colours")
def test_tracklets_take_the_tokens_of_their_middle_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = records(monkeypatch, dataset(tmp_path), "--tracklets", 3)
    assert {(r["ranker"], r["protocol"]) for r in found} == {("embedding", "tracklets"), ("rerank", "tracklets")}
    # One camera a band in this folder: within a band there is nobody to find.
    assert {(r["queries"], r["excluded"]) for r in found} == {(4, 0), (0, 4)}


@pytest.mark.usefixtures("colours")
def test_queries_of_one_camera_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = records(monkeypatch, dataset(tmp_path), "--query-camera", "cam-thermal", "--ranker", "embedding")
    assert {r["query"] for r in found} == {"thermal"}
    assert {r["gallery"] for r in found} == set(Modality)


@pytest.mark.usefixtures("colours")
def test_a_published_set_asks_with_its_query_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    msvr310(tmp_path)
    found = records(monkeypatch, tmp_path, "--split", "test")
    assert {r["protocol"] for r in found} == {"all", "same_scene", "same_camera"}
    # Two vehicles ask; each has one picture of another scene, and none from another view.
    counts = {(r["protocol"], r["queries"], r["excluded"]) for r in found}
    assert counts == {("all", 2, 0), ("same_scene", 2, 0), ("same_camera", 0, 2)}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--ranker", "pom"), "has no point matcher"),
        (("--protocol", "same_scene"), "protocol same_scene needs a scene"),
        (("--distractors", "val"), "both asked about and a distractor"),
        (("--split", "test"), "test"),
        (("--query-camera", "cam9"), "no picture asks"),
        (("--json", "nowhere/figures.json"), "no folder nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    weights(dataset(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "--weights", "tiny.pt", "--data", ".", *arguments) == 2
    words = capsys.readouterr().err
    assert len(words.splitlines()) == 1
    assert words.startswith("error: ")
    assert complaint in words


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "--help") == 0
    words = capsys.readouterr().out
    assert all(word in words for word in ("rerank", "same_scene", "excluded", "Example:", "--mix"))


def test_a_sample_is_never_its_own_distractor(tmp_path: Path) -> None:
    both = read_both(dataset(tmp_path), "val", "train")
    assert [s.role for s in both if s.split == "train"] == ["gallery"] * 24
    assert all(isinstance(s, Sample) and s.role == "" for s in both if s.split == "val")
