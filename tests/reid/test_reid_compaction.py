"""Fewer numbers a point: a rotation changes no score, and what is cut off is what matters least."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from reid.checkpoint import load_network, save_network
from reid.compaction import (
    CompactionError,
    bases,
    compact,
    describe_samples,
    learn_bases,
    main,
    second_moments,
    spread,
)
from reid.datasets import read_samples
from reid.errors import ReidError
from reid.image_batches import image_batches
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.tokens import MAX_BYTES
from reid.torch_files import read_checkpoint
from tests.reid.layout_builders import msvr310
from tests.reid.reid_builders import dataset, network

MATCHER = {"layers": 3, "feed_forward": 32, "head": 32, "rows": 4, "columns": 4}


def matching(**changes: object) -> Porsche:
    return network(matcher={**MATCHER, **changes})


def pictures(count: int = 6) -> dict[Modality, Tensor]:
    return {Modality.VISIBLE: torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))}


@torch.inference_mode()
def points(made: Porsche) -> Tensor:
    tokens = made.describe(pictures()).tokens
    assert tokens is not None
    return tokens


@torch.inference_mode()
def scores(made: Porsche) -> Tensor:
    tokens = points(made)
    assert made.matcher is not None
    return made.matcher.score(tokens, tokens)


def test_a_full_basis_changes_no_score() -> None:
    full = matching()
    compacted = compact(full, points(full), 16)
    torch.testing.assert_close(scores(compacted), scores(full), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(points(compacted), points(full), atol=1e-3)


def test_fewer_channels_are_the_first_of_the_full_basis() -> None:
    full = matching()
    wide, narrow = (compact(full, points(full), channels) for channels in (16, 5))
    torch.testing.assert_close(points(narrow), points(wide)[..., :5], rtol=1e-4, atol=1e-5)
    assert narrow.config.matcher is not None
    assert narrow.config.matcher.channels == 5


def test_errors_shrink_as_channels_grow() -> None:
    full = matching()
    products = [gram(points(compact(full, points(full), channels))) for channels in (2, 6, 12, 16)]
    errors = [float((gram(points(full)) - product).norm()) for product in products]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def gram(tokens: Tensor) -> Tensor:
    """Every dot product within a layer."""
    flat = tokens.transpose(0, 1).flatten(1, 2)
    return flat @ flat.mT


def test_points_of_few_directions_lose_nothing() -> None:
    # Points of rank 4: four numbers hold every product of them.
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 2, 8, 4, generator=generator) @ torch.randn(4, 16, generator=generator)
    directions = bases(second_moments(tokens))[:, :, :4]
    torch.testing.assert_close(gram(tokens @ directions[None]), gram(tokens), rtol=1e-4, atol=1e-3)


def test_a_basis_is_orthonormal_and_sums_over_batches() -> None:
    tokens = torch.randn(6, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    directions = bases(second_moments(tokens))
    torch.testing.assert_close(directions.mT @ directions, torch.eye(16).expand(2, 16, 16), rtol=0, atol=1e-5)
    parts = bases(second_moments(tokens[:2]) + second_moments(tokens[2:]))
    torch.testing.assert_close(parts, directions, rtol=0, atol=1e-5)


def test_a_training_network_becomes_one_for_inference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stages = [{"layer": "layer1", "dimension": 16}, {"layer": "layer2", "dimension": 16}]
    config = network(stages=stages, matching_stage=1, matcher=MATCHER).config
    full = Porsche(config, identities=3).eval()
    compacted = compact(full, points(full), 8)
    assert list(compacted.matchers) == ["1"]
    save_network(tmp_path / "small.pt", compacted, "test")
    loaded, _ = load_network(tmp_path / "small.pt")
    assert points(loaded).shape == (6, 3, 16, 8)


def test_fewer_layers_are_the_first_ones_with_the_others_mean() -> None:
    full = matching()
    assert full.matcher is not None
    with torch.no_grad():
        for layer in full.matcher.decoder:
            assert isinstance(layer.scale, torch.nn.BatchNorm1d)
            layer.scale.bias.fill_(0.3)
        for layer in full.matcher.decoder[2:]:
            assert isinstance(layer.scale, torch.nn.BatchNorm1d)
            layer.scale.weight.zero_()  # its score is its mean, whatever the pair
    fewer = compact(full, points(full), 16, layers=2)
    assert points(fewer).shape[1] == 2
    torch.testing.assert_close(scores(fewer), scores(full), rtol=1e-4, atol=1e-4)


def test_what_a_network_does_not_have_is_refused() -> None:
    full = matching()
    for channels, layers in [(0, 3), (17, 3), (8, 4)]:
        with pytest.raises(CompactionError, match="16 channels and 3 layers"):
            compact(full, points(full), channels, layers)
    with pytest.raises(CompactionError, match="no point matcher"):
        compact(network(), points(full), 8)


def test_described_samples_are_those_that_were_asked(tmp_path: Path) -> None:
    samples = read_samples(dataset(tmp_path))[::-1]
    made = matching()
    described = list(describe_samples(made, samples, batch=5))
    assert sorted(index for chosen, _ in described for index in chosen) == list(range(len(samples)))
    alone, said = next(describe_samples(made, samples[7:8]))
    chosen, together = next((chosen, said) for chosen, said in described if 7 in chosen)
    assert alone == [0]
    torch.testing.assert_close(said.embedding[0], together.embedding[chosen.index(7)], rtol=1e-4, atol=1e-5)


def test_images_come_by_modality_each_once() -> None:
    bands = [Modality.THERMAL, Modality.VISIBLE, Modality.THERMAL, Modality.THERMAL]
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((4, 6, 3), np.uint8)
    found = list(image_batches(bands, lambda chosen: pixels[chosen], batch=2))
    assert [(chosen, list(images)) for chosen, images in found] == [
        ([1], [Modality.VISIBLE]),
        ([0, 2], [Modality.THERMAL]),
        ([3], [Modality.THERMAL]),
    ]
    for chosen, images in found:
        (batch,) = images.values()
        assert torch.equal(batch, normalise(torch.from_numpy(pixels[chosen])))


def test_a_published_layout_is_compacted_by_what_training_sees(tmp_path: Path) -> None:
    folder, weights, out = msvr310(tmp_path / "MSVR310"), tmp_path / "full.pt", tmp_path / "small.pt"
    save_network(weights, matching(), "random")
    app = typer.Typer()
    app.command()(main)
    arguments = ["--weights", weights, "--data", folder, "--channels", 6, "--out", out, "--pictures", 4]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "4 pictures of MSVR310 fit" in read_checkpoint(out)["description"]


@pytest.fixture
def benchmark() -> dict[str, Any]:
    """What `benchmarks/tokens.py` defines; it is a script, in no package."""
    return runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "tokens.py"))


def test_the_chosen_form_travels_and_fits(benchmark: dict[str, Any]) -> None:
    def row(size: int, loss: float, numbers: str = "int8") -> object:
        form = benchmark["Form"](8, (1, 1), 3, numbers)
        return benchmark["Row"](form, size, 0.5, loss, loss, "visible -> thermal")

    rows = [row(MAX_BYTES + 1, 0.0), row(100, 0.004, "float16"), row(50, 0.006), row(MAX_BYTES, 0.004)]
    assert benchmark["choose"](rows) == rows[3]
    assert benchmark["choose"](rows[:3]) is None


def test_only_the_blocks_that_are_wanted_are_tried(benchmark: dict[str, Any]) -> None:
    full, parse = benchmark["Form"](8, (1, 1), 3, "float32"), benchmark["parse_block"]
    for text, blocks in (("1x1", {(1, 1)}), ("2x4", {(2, 4)}), ("3x1", set())):
        tried = benchmark["forms"](full, (8, 16), [4], [parse(text)])
        assert {form.block for form in tried if form.numbers == "int8"} == blocks
    for text in ("2", "0x1", "1x", "axb"):
        with pytest.raises(ReidError, match=f"--block {text}: wanted ROWSxCOLUMNS"):
            parse(text)


def test_the_command_writes_a_smaller_network(tmp_path: Path) -> None:
    folder, weights, out = dataset(tmp_path / "data"), tmp_path / "full.pt", tmp_path / "small.pt"
    save_network(weights, matching(), "random")
    app = typer.Typer()
    app.command()(main)
    arguments = ["--weights", weights, "--data", folder, "--channels", 6, "--out", out, "--pictures", 10]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert "3 x 4 x 4 x 6 numbers a picture" in result.output
    made, model_id = load_network(out)
    full, full_id = load_network(weights)
    directions = learn_bases(full, spread(read_samples(folder, "train"), 10))
    torch.testing.assert_close(points(made), points(full) @ directions[None, :, :, :6], rtol=0, atol=5e-3)
    assert model_id != full_id
