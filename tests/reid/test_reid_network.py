"""Laws of tiles, trunk and branches."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from reid.backbone import Trunk, load_imagenet, unfold_batch_norms
from reid.checkpoint import save_network
from reid.config import ModelConfig
from reid.errors import CheckpointError
from reid.layers import join_tiles, run_on_tiles, split_tiles
from reid.modality import Modality
from reid.model import Porsche, normalise
from tests.reid.reid_builders import SMALL, network


@pytest.mark.parametrize("tiles", [1, 2, 4])
def test_tiles_come_back_to_their_places(tiles: int) -> None:
    maps = torch.arange(2 * 3 * 8 * 16.0).reshape(2, 3, 8, 16)
    assert torch.equal(join_tiles(split_tiles(maps, tiles), tiles), maps)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layer_on_tiles_equals_each_tile_alone(stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, stride=stride, padding=1)
    maps = torch.randn(2, 3, 8, 16)
    together = run_on_tiles(layer, maps, 2)
    for row in range(2):
        for column in range(2):
            alone = layer(maps[:, :, row * 4 : row * 4 + 4, column * 8 : column * 8 + 8])
            high, wide = alone.shape[-2:]
            part = together[:, :, row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            torch.testing.assert_close(part, alone)


def test_a_tile_does_not_see_its_neighbour() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    maps = torch.randn(1, 1, 8, 8)
    changed = maps.clone()
    changed[..., :4] += 1.0
    right = run_on_tiles(layer, maps, 2)[..., 4:]
    assert torch.equal(run_on_tiles(layer, changed, 2)[..., 4:], right)
    assert not torch.equal(layer(changed)[..., 4:], layer(maps)[..., 4:])


def test_maps_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="6x8 don't divide into 4x4"):
        split_tiles(torch.zeros(1, 1, 6, 8), 4)


def test_each_modality_uses_its_own_stem_and_all_share_the_rest() -> None:
    trunk = Trunk("resnet18", "layer1").eval()
    images = torch.randn(1, 3, 64, 64)
    before = trunk.stem(dict.fromkeys(Modality, images))
    with torch.no_grad():
        next(trunk.stems["thermal"].parameters()).zero_()
    after = trunk.stem(dict.fromkeys(Modality, images))
    unchanged = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert unchanged == [True, True, False]


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 256), ("resnet50", 1024)])
def test_shapes_of_the_paper(backbone: str, channels: int) -> None:
    stages = [{"tiles": 4, "layer": "layer3", "dimension": 8}, {"tiles": 2, "layer": "layer3", "dimension": 4}]
    values = {"backbone": backbone, "stages": stages, "embedding_stages": [0, 1]}
    model = Porsche(ModelConfig.model_validate(values), identities=7)
    assert model.trunk.channels("layer3") == channels
    assert "layer4" not in model.trunk.shared
    images = {Modality.VISIBLE: torch.randn(2, 3, 128, 256), Modality.THERMAL: torch.randn(1, 3, 128, 256)}
    output = model(images, 0)
    assert output.maps.shape == (3, 8, 8, 16)
    assert output.logits.shape == (3, 7)
    vectors = model.eval().embed(images)
    assert vectors.shape == (3, 12)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_unfolded_norms_compute_the_same_and_train_from_there() -> None:
    torch.manual_seed(0)
    trunk = Trunk("resnet18", "layer2").eval()
    with torch.no_grad():
        for module in trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.uniform_(-0.5, 0.5)
    images = {modality: torch.randn(4, 3, 64, 64) for modality in Modality}
    before = trunk.layers(trunk.stem(images))["layer2"]
    unfold_batch_norms(trunk, images)
    torch.testing.assert_close(trunk.layers(trunk.stem(images))["layer2"], before, rtol=1e-3, atol=1e-3)
    training = trunk.train().layers(trunk.stem(images))["layer2"]
    torch.testing.assert_close(training, before, rtol=1e-2, atol=1e-2)


def test_imagenet_weights_reach_every_stem(tmp_path: Path) -> None:
    source = Trunk("resnet18", "layer1")
    state = {**source.stems["visible"].state_dict(), **source.shared.state_dict(), "fc.bias": torch.zeros(1)}
    torch.save(state, tmp_path / "imagenet.pth")
    trunk = Trunk("resnet18", "layer1")
    load_imagenet(trunk, tmp_path / "imagenet.pth")
    thermal, visible = (t.stems[m].state_dict() for t, m in ((trunk, "thermal"), (source, "visible")))
    assert torch.equal(thermal["conv1.weight"], visible["conv1.weight"])


@pytest.mark.parametrize("contents", [None, b"", b"no weights", {"conv1.weight": 3}])
def test_wrong_imagenet_files_are_named(tmp_path: Path, contents: object) -> None:
    path = tmp_path / "imagenet.pth"
    if isinstance(contents, bytes):
        path.write_bytes(contents)
    elif contents is not None:
        torch.save(contents, path)
    with pytest.raises(CheckpointError, match=r"imagenet\.pth"):
        load_imagenet(Trunk("resnet18", "layer1"), path)


def test_normalised_gray_of_imagenets_mean_is_near_zero() -> None:
    pixels = torch.tensor([124, 116, 104], dtype=torch.uint8).expand(1, 2, 3, 3)
    assert normalise(pixels).shape == (1, 3, 2, 3)
    assert normalise(pixels).abs().max() < 0.01


STAGES = [{"layer": "layer1", "dimension": 16}, {"layer": "layer2", "dimension": 8}, {"layer": "layer3"}]
MATCHER = {"layers": 1, "feed_forward": 8, "head": 8, "rows": 2, "columns": 2}


@pytest.mark.parametrize(
    ("changes", "branches", "layers"),
    [
        ({}, ["0"], ["layer1"]),
        ({"embedding_stages": [1]}, ["1"], ["layer1", "layer2"]),
        ({"matching_stage": 1}, ["0"], ["layer1"]),
        ({"matching_stage": 1, "matcher": MATCHER}, ["0", "1"], ["layer1", "layer2"]),
    ],
)
def test_inference_builds_the_stages_that_it_uses(
    changes: dict[str, object], branches: list[str], layers: list[str]
) -> None:
    made = network(stages=STAGES, **changes)
    assert list(made.branches) == branches
    assert list(made.trunk.shared) == layers
    assert made.describe({Modality.VISIBLE: torch.randn(2, 3, 64, 64)}).embedding.shape == (2, made.config.dimension)


def test_weights_of_all_stages_load_where_fewer_are_built() -> None:
    config = network(stages=STAGES, embedding_stages=[1]).config
    full = Porsche(config, identities=3).eval()
    state = {name: value for name, value in full.state_dict().items() if "classifier" not in name}
    assert any(name.startswith("branches.2.") for name in state)
    made = Porsche(config).eval()
    made.load_state_dict(state)
    images = {Modality.THERMAL: torch.randn(2, 3, 64, 64)}
    torch.testing.assert_close(made.embed(images), full.embed(images))
    with pytest.raises(RuntimeError, match=r"Missing key.*branches\.1\."):
        made.load_state_dict({name: value for name, value in state.items() if not name.startswith("branches.1.")})


def test_the_benchmark_of_embeddings_sees_all_stages_of_a_training_checkpoint(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "embedding_size.py"
    load_stages = runpy.run_path(str(script))["load_stages"]
    config = network(stages=STAGES).config
    save_network(tmp_path / "model.pt", full := Porsche(config, identities=3), "random")
    contents = {"average": full.state_dict(), "config": {"model": config.model_dump(mode="json")}}
    torch.save(contents, tmp_path / "last.pt")
    assert [list(load_stages(tmp_path / name)[0].branches) for name in ("model.pt", "last.pt")] == [["0"], [*"012"]]
    torch.save({"average": {}, "config": contents["config"]}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt: not a training checkpoint"):
        load_stages(tmp_path / "last.pt")


def test_the_embedding_alone_is_that_of_the_description() -> None:
    made = network(stages=STAGES, embedding_stages=[0, 1], matching_stage=2, matcher=MATCHER)
    images = {Modality.VISIBLE: torch.randn(2, 3, 64, 64)}
    torch.testing.assert_close(made.embed(images), made.describe(images).embedding)


def test_the_network_without_identities_has_no_classifier() -> None:
    assert not any("classifier" in name for name in network().state_dict())
    frozen = [n for n, p in Porsche(ModelConfig.model_validate(SMALL), 3).named_parameters() if not p.requires_grad]
    assert frozen == ["branches.0.neck.bias"]
