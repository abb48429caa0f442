"""Every key of a training configuration changes what a run does: none is read by nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torchvision import models

from reid import train
from reid.checkpoint import load_initial
from reid.config import ModelConfig, TrainConfig
from reid.modality import Modality
from reid.model import Porsche
from reid.trainer import Trainer, build_sampler
from tests.reid.reid_builders import SMALL, dataset, weights

STAGES = [{"tiles": 2, "layer": "layer1", "dimension": 8}, {"tiles": 1, "layer": "layer1", "dimension": 8}]
BASE: dict[str, Any] = {
    "model": {
        "height": 64,
        "width": 64,
        "stages": STAGES,
        "matcher": {"layers": 2, "feed_forward": 8, "head": 8, "rows": 4, "columns": 4},
    },
    "batch": {"vehicles": 2, "images_per_modality": 1, "pairing": "same_view"},
    "optimiser": {"learning_rate": 0.01},
    "precision": "32-true",
    "epochs": 2,
}
#: What a key needs beside itself to matter, and a value that isn't the base's.
SGD = {"optimiser": {"name": "sgd"}}
STEPS = {"optimiser": {"schedule": "steps", "warmup": 0.0, "milestones": [0.2]}}
PAIRS = {"batch": {"sampling": "pairs", "pairs": 2}}
CHANGES: list[tuple[str, object, dict[str, Any]]] = [
    ("seed", 1, {}),
    ("progressive", False, {}),
    ("precision", "bf16-mixed", {}),
    ("epochs", 3, {}),
    ("model.name", "another", {}),
    ("model.backbone", "resnet50", {}),
    ("model.height", 128, {}),
    ("model.width", 128, {}),
    ("model.stages", [{"tiles": 4, "layer": "layer1", "dimension": 8}, STAGES[1]], {}),
    ("model.stages", [{"tiles": 2, "layer": "layer2", "dimension": 8}, STAGES[1]], {}),
    ("model.stages", [{"tiles": 2, "layer": "layer1", "dimension": 9}, STAGES[1]], {}),
    ("model.embedding_stages", [0, 1], {}),
    ("model.embedding_feature", "before_neck", {}),
    ("model.classifier", "per_modality", {}),
    ("model.matcher", None, {}),
    ("model.matching_stage", 1, {}),
    ("model.matcher.layers", 1, {}),
    ("model.matcher.feed_forward", 9, {}),
    ("model.matcher.head", 9, {}),
    ("model.matcher.dropout", 0.0, {}),
    ("model.matcher.rows", 2, {}),
    ("model.matcher.columns", 2, {}),
    ("model.matcher.channels", 4, {}),
    ("model.matcher.pairs", "all", {}),
    ("batch.sampling", "pairs", {"batch": {"pairs": 2}}),
    ("batch.vehicles", 3, {}),
    ("batch.images_per_modality", 2, {}),
    ("batch.pairs", 3, PAIRS),
    ("batch.pairing", "any", {}),
    ("batch.half_size_until", 0.5, {}),
    ("augment.flip", 0.0, {}),
    ("augment.box_jitter", 0.3, {}),
    ("augment.crop_padding", 10, {}),
    ("augment.low_resolution", 0.0, {}),
    ("augment.low_resolution_height", 4, {"augment": {"low_resolution": 1.0}}),
    ("augment.erasing", 0.0, {}),
    ("augment.channel", 1.0, {}),
    ("augment.photometric", 0.0, {}),
    ("augment.blur", 1.0, {"augment": {"low_resolution": 0.0}}),
    ("loss.identity", 0.5, {}),
    ("loss.triplet", 0.5, {}),
    ("loss.matching", 0.5, {}),
    ("loss.label_smoothing", 0.1, {}),
    ("loss.consistency", 0.0, {}),
    ("loss.consistency_form", "pooled", {}),
    ("optimiser.name", "sgd", {}),
    ("optimiser.learning_rate", 0.02, {}),
    ("optimiser.backbone_factor", 0.5, {}),
    ("optimiser.momentum", 0.5, SGD),
    ("optimiser.nesterov", False, SGD),
    ("optimiser.weight_decay", 0.5, {}),
    ("optimiser.schedule", "steps", {}),
    ("optimiser.warmup", 0.5, {}),
    ("optimiser.milestones", [0.5], STEPS),
    ("optimiser.step_factor", 0.5, STEPS),
    ("optimiser.clip_norm", 0.0, {"optimiser": {"name": "sgd"}}),
    ("optimiser.ema_decay", 0.0, {}),
]
#: Where pictures and weights come from, not what is done with them: tried one by one below. How often validation looks,
#: `test_a_tiny_run_trains_evaluates_and_exports` shows.
ELSEWHERE = {"sources.path", "sources.split", "sources.repeats", "initial_weights"}
ELSEWHERE |= {"validation.path", "validation.split", "validation.every_epochs"}


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    deep = {k: merged(values.get(k) or {}, v) for k, v in changes.items() if isinstance(v, dict)}
    return {**values, **changes, **deep}


def nested(key: str, value: object) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def outcome(folder: Path, values: dict[str, Any]) -> str:
    """A digest of the averaged weights, by name, of a run of two steps, and of what it would deploy."""
    config = TrainConfig.model_validate({"sources": [{"path": folder}], **values})
    trainer = Trainer(config, train.load_sources(config), train.build_fabric(config, 1))
    for trainer.epoch in range(2):
        trainer.start_epoch()
        trainer.train_batch(next(trainer.batches()))
    digest = hashlib.sha256(config.model.name.encode())
    with torch.no_grad():
        images = next(trainer.batches()).images
        described = trainer.average.describe(images)
    for tensor in (described.embedding, described.tokens, *trainer.average.state_dict().values()):
        if tensor is not None:
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(("key", "value", "beside"), CHANGES, ids=[f"{key}={value}" for key, value, _ in CHANGES])
def test_every_key_changes_the_run(
    key: str, value: object, beside: dict[str, Any], folder: Path, outcomes: dict[str, str]
) -> None:
    base = merged(BASE, beside)
    name = repr(base)
    if name not in outcomes:
        outcomes[name] = outcome(folder, base)
    assert outcome(folder, merged(base, nested(key, value))) != outcomes[name]


def test_a_run_repeats(folder: Path) -> None:
    assert outcome(folder, BASE) == outcome(folder, BASE)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all leaves of a configuration."""
    for name, field in model.model_fields.items():
        inner = [t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if inner:
            yield from keys(inner[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def _types(annotation: object) -> list[object]:
    arguments = getattr(annotation, "__args__", ())
    return [annotation, *(t for argument in arguments for t in _types(argument))]


def test_no_key_is_left_out() -> None:
    tried = {key for key, _, _ in CHANGES} | ELSEWHERE
    tried |= {"model.stages.tiles", "model.stages.layer", "model.stages.dimension"}
    assert set(keys(TrainConfig)) <= tried


def test_training_starts_from_earlier_weights_of_ours(tmp_path: Path, folder: Path) -> None:
    earlier = weights(tmp_path)
    model = {
        "height": 64,
        "width": 64,
        "stages": [{"layer": "layer1", "dimension": 16}],
        "matcher": BASE["model"]["matcher"],
    }
    config = TrainConfig.model_validate(
        {**BASE, "sources": [{"path": folder}], "model": model, "initial_weights": earlier}
    )
    trainer = Trainer(config, train.load_sources(config), train.build_fabric(config, 1))
    saved = torch.load(earlier, weights_only=True)["state"]
    state = trainer.network.state_dict()
    assert all(torch.equal(state[name].half(), value) for name, value in saved.items() if value.is_floating_point())
    matcher = sum(name.startswith("matchers.0.") for name in state)
    assert trainer.random_start == {"branches.0.classifiers": 1, "matchers.0": matcher}
    words = f"kept a random start: branches.0.classifiers (1 tensors), matchers.0 ({matcher} tensors)"
    assert train.described(trainer.random_start) == words


def from_imagenet(folder: Path, path: Path, variance: float) -> tuple[Trainer, dict[str, torch.Tensor]]:
    """A trainer that starts from a ResNet whose norms have this variance, and the ResNet."""
    torch.manual_seed(0)
    network = models.resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.fill_(variance)
            module.bias.data.uniform_(-0.1, 0.1)
    torch.save(network.state_dict(), path)
    config = TrainConfig.model_validate({**BASE, "sources": [{"path": folder}], "initial_weights": path})
    return Trainer(config, train.load_sources(config), train.build_fabric(config, 1)), network.state_dict()


def test_training_starts_from_imagenet_as_it_is(tmp_path: Path, folder: Path) -> None:
    trainer, weights = from_imagenet(folder, tmp_path / "resnet.pth", variance=2.0)
    trunk = trainer.network.trunk.state_dict()
    for name in ("conv1.weight", "bn1.bias", "bn1.running_var"):
        assert all(torch.equal(trunk[f"stems.{modality}.{name}"], weights[name]) for modality in Modality)
    for name in (
        "layer1.0.conv1.weight",
        "layer1.1.bn2.running_mean",
        "layer1.1.bn2.running_var",
        "layer1.1.bn2.weight",
    ):
        assert torch.equal(trunk[f"shared.{name}"], weights[name])


def test_folded_norms_get_statistics_to_train_with(tmp_path: Path, folder: Path) -> None:
    trainer, weights = from_imagenet(folder, tmp_path / "resnet.pth", variance=1.0)
    trunk = trainer.network.trunk.state_dict()
    assert torch.equal(trunk["shared.layer1.0.conv1.weight"], weights["layer1.0.conv1.weight"])
    assert not torch.equal(trunk["shared.layer1.0.bn1.running_var"], weights["layer1.0.bn1.running_var"])


def loaded(folder: Path, **changes: object) -> Trainer:
    values = {**BASE, "sources": [{"path": folder, **changes}]}
    config = TrainConfig.model_validate(values)
    return Trainer(config, train.load_sources(config), train.build_fabric(config, 1))


def test_sources_say_which_pictures_are_trained_on(tmp_path: Path, folder: Path) -> None:
    first, second = loaded(folder), loaded(folder, split="val")
    assert not np.array_equal(first.data.pictures, second.data.pictures)
    assert len(loaded(dataset(tmp_path, vehicles=2)).data.repeats) == 2


@pytest.mark.parametrize("sampling", ["identities", "pairs"])
def test_repeats_lengthen_an_epoch(folder: Path, sampling: str) -> None:
    batches = []
    for repeats in (1, 3):
        source = {"path": folder, "repeats": repeats}
        values = merged(BASE, {"batch": {"sampling": sampling, "pairs": 2}})
        config = TrainConfig.model_validate({**values, "sources": [source]})
        batches.append(len(build_sampler(config, train.load_sources(config))))
    assert batches[1] == 3 * batches[0]


def test_validation_says_which_pictures_are_ranked(tmp_path: Path, folder: Path) -> None:
    other = dataset(tmp_path, vehicles=2)
    for path, split in ((other, "val"), (other, "train"), (folder, "val")):
        values = {"sources": [{"path": folder}], "validation": {"path": path, "split": split}}
        validation = train.load_validation(TrainConfig.model_validate(values))
        assert validation is not None
        assert {(sample.path.parent, sample.split) for sample in validation.samples} == {(path, split)}


def test_deeper_layers_that_inference_left_out_keep_a_random_start(tmp_path: Path) -> None:
    model = {**SMALL, "stages": [*SMALL["stages"], {"layer": "layer2", "dimension": 8}]}  # type: ignore[misc]
    network = Porsche(ModelConfig.model_validate(model), identities=3)
    kept = load_initial(network, weights(tmp_path))
    assert kept is not None
    assert any("layer2" in part for part in kept)
