"""A tiny run from folder to figures, and how runs stop and go on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.utilities.exceptions import MisconfigurationException

from reid import evaluate, export, site_crops, train
from reid.checkpoint import load_network, save_network
from reid.command import run_command
from reid.config import OptimiserConfig, TrainConfig, load_config
from reid.errors import CheckpointError, ConfigError
from reid.history import FILE_NAME, History
from reid.modality import Modality
from reid.objective import Batch, aligned_pairs
from reid.optimisation import learning_rate_factor
from reid.sampler import Indices
from reid.torch_files import read_checkpoint, write_atomically
from reid.trainer import Trainer
from tests.reid.reid_builders import SMALL, dataset, network, weights, write_table

CONFIGS = Path(__file__).parents[2] / "configs" / "reid"


def apart(folder: Path) -> Path:
    """Give the vehicles of `val` names of their own: nothing validation ranks may be trained on."""
    rows = list(csv.DictReader((folder / "samples.csv").read_text().splitlines()))
    write_table(folder, [{**row, "vehicle": row["vehicle"] + "v" * (row["split"] == "val")} for row in rows])
    return folder


def tiny(folder: Path, **changes: object) -> Path:
    """A configuration file for a tiny run."""
    values = {
        "sources": [{"path": str(folder / "data"), "split": "train"}],
        "validation": {"path": str(folder / "data"), "split": "val", "every_epochs": 2},
        "model": SMALL,
        "batch": {"vehicles": 2, "images_per_modality": 2},
        "optimiser": {"learning_rate": 0.003},
        "epochs": 2,
        **changes,
    }
    apart(dataset(folder / "data"))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(monkeypatch: pytest.MonkeyPatch, main: Callable[..., None], *arguments: object) -> object:
    """Run a command as its module does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["reid", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return ended.value.code


def made(config: TrainConfig) -> Trainer:
    return Trainer(config, train.load_sources(config), train.build_fabric(config, 1))


def train_until(config: TrainConfig, epochs: int, resume: Path | None = None) -> Trainer:
    trainer = made(config)
    if resume:
        trainer.resume(resume)
    while trainer.epoch < epochs:
        train.train_epoch(trainer)
    return trainer


def test_a_tiny_run_trains_evaluates_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out, figures = tiny(tmp_path), tmp_path / "run", tmp_path / "figures.json"
    run = partial(command, monkeypatch)
    assert run(train.main, "--config", config, "--out", out) == 0
    assert "wrote" in capsys.readouterr().err
    course = History.read(out / FILE_NAME)
    assert [record.epoch for record in course] == [1, 2]
    assert [bool(record.validation) for record in course] == [False, True]
    options = ("--data", tmp_path / "data", "--split", "val", "--distractors", "train", "--json", figures)
    assert run(evaluate.main, "--weights", out / "model.pt", *options) == 0
    records = json.loads(figures.read_text())
    assert {record["protocol"] for record in records} == {"all", "same_camera"}
    assert {(record["query"], record["gallery"]) for record in records} == {(a, b) for a in Modality for b in Modality}
    assert all(0 <= record["mAP"] <= record["rank20"] <= 1 for record in records)
    assert run(export.main, "--weights", out / "model.pt", "--time") == 0
    tracklets = ("--data", tmp_path / "data", "--tracklets", 3)
    assert run(evaluate.main, "--weights", out / "model_openvino_model", *tracklets) == 0


def test_a_run_looks_at_its_validation_split(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path))
    validation = train.load_validation(config)
    assert validation is not None
    trainer = made(config)
    scores = train.validate(trainer.average, validation, trainer.size)
    assert scores.keys() == {f"{query}->{gallery}" for query in Modality for gallery in Modality}
    assert all(0 < values["mAP"] <= 1 for values in scores.values())


def test_training_lowers_the_loss_and_repeats_with_its_seed(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path, precision="32-true"))
    trainer = made(config)
    batch = next(trainer.batches())
    losses = [trainer.train_batch(batch)["loss"].item() for _ in range(8)]
    again = made(config)
    same = next(again.batches())
    assert losses[-1] < losses[0]
    assert [again.train_batch(same)["loss"].item() for _ in range(8)] == losses


STAGES = [{"tiles": 2, "layer": "layer1", "dimension": 8}, {"tiles": 1, "layer": "layer1", "dimension": 8}]
MATCHER = {"layers": 2, "feed_forward": 8, "head": 8, "rows": 4, "columns": 4, "dropout": 0.3}
#: Everything that could be lost on the way: two stages, a matcher with drop-out, pairs, and a change of size.
WHOLE: dict[str, object] = {
    "model": {**SMALL, "stages": STAGES, "matcher": MATCHER},
    "batch": {"sampling": "pairs", "pairs": 8, "pairing": "same_view", "half_size_until": 0.4},
}


def test_a_resumed_run_equals_a_straight_one(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path, **WHOLE), epochs=3)
    straight = train_until(config, 3)
    write_atomically(tmp_path / "last.pt", train_until(config, 1).state())
    resumed = train_until(config, 3, tmp_path / "last.pt")
    for part in ("network", "average"):
        pairs = zip(straight.state()[part].items(), resumed.state()[part].values(), strict=True)
        assert [name for (name, value), other in pairs if not torch.equal(value, other)] == []
    before, after = straight.state()["optimiser"], resumed.state()["optimiser"]
    assert before["param_groups"] == after["param_groups"]
    assert before["state"].keys() == after["state"].keys()
    for number, moments in before["state"].items():
        assert all(torch.equal(after["state"][number][name], value) for name, value in moments.items())


def checkpoint(folder: Path, config: TrainConfig, **changes: object) -> Path:
    """A checkpoint of no epoch, with other contents here and there."""
    write_atomically(folder / "last.pt", {**made(config).state(), **changes})
    return folder / "last.pt"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"epochs": 5}, "epochs was 2 and is 5 now"),
        ({"seed": 1}, "seed was 0 and is 1 now"),
        (
            {"optimiser": {"learning_rate": 0.003, "weight_decay": 0.1}},
            r"optimiser\.weight_decay was 0\.0005 and is 0\.1",
        ),
        ({"augment": {"flip": 0.0}}, r"augment\.flip was 0\.5 and is 0\.0 now"),
        ({"precision": "32-true"}, "precision was bf16-mixed and is 32-true now"),
    ],
)
def test_another_configuration_is_not_the_same_run(tmp_path: Path, changes: dict[str, object], difference: str) -> None:
    last = checkpoint(tmp_path, load_config(tiny(tmp_path)))
    with pytest.raises(CheckpointError, match=rf"last\.pt: can't be resumed: {difference}"):
        made(load_config(tiny(tmp_path, **changes))).resume(last)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"identities": 5}, "identities was 5 and is 4 now"),
        ({"batches_per_epoch": 9}, "batches_per_epoch was 9 and is 2 now"),
        ({"format": "reid-training-2"}, "not a training checkpoint"),
        ({"step": "many"}, "invalid literal"),
    ],
)
def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, changes: dict[str, object], difference: str) -> None:
    config = load_config(tiny(tmp_path))
    with pytest.raises(CheckpointError, match=rf"last\.pt: can't be resumed: {difference}"):
        made(config).resume(checkpoint(tmp_path, config, **changes))


def test_a_resumed_run_may_look_at_other_pictures_and_need_not_find_its_first_weights(tmp_path: Path) -> None:
    last = checkpoint(tmp_path, load_config(tiny(tmp_path, initial_weights=str(weights(tmp_path)))))
    made(load_config(tiny(tmp_path, validation=None))).resume(last)


def test_the_optimisers_settings_are_the_configurations(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path))
    state = made(config).state()["optimiser"]
    groups = [{**group, "weight_decay": 7.0, "factor": 7.0} for group in state["param_groups"]]
    resumed = made(config)
    resumed.resume(checkpoint(tmp_path, config, optimiser={**state, "param_groups": groups}))
    assert [group["weight_decay"] for group in resumed.optimiser.param_groups] == [5e-4, 0.0, 5e-4, 0.0]
    assert [group["factor"] for group in resumed.optimiser.param_groups] == [1.0] * 4


def test_an_interrupted_look_loses_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, out = load_config(tiny(tmp_path), epochs=3), tmp_path / "run"
    validation = train.load_validation(config)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.run(made(config), out, validation)
    assert read_checkpoint(out / "last.pt")["epoch"] == 1
    trainer = made(config)
    trainer.resume(out / "last.pt")
    train.run(trainer, out, validation)
    course = History.read(out / FILE_NAME)
    assert [(record.epoch, bool(record.validation)) for record in course] == [(1, False), (2, True), (3, True)]


def test_a_run_that_came_somewhere_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path, epochs=1)
    monkeypatch.chdir(tmp_path)
    last = Path("runs/reid/tiny/last.pt")
    write_atomically(last, {"epoch": 3})
    run = partial(command, monkeypatch, train.main, "--config", config)
    assert run() == 2
    assert (
        capsys.readouterr().err == f"error: {last}: holds 3 epochs: --resume goes on with them, --restart drops them\n"
    )
    assert run("--resume", "--restart") == 2
    assert run("--restart") == 0
    assert read_checkpoint(last)["epoch"] == 1


def test_a_run_of_no_epoch_may_be_started_anew(tmp_path: Path) -> None:
    train.refuse_overwriting(tmp_path / "last.pt")
    write_atomically(tmp_path / "last.pt", {"epoch": 0})
    train.refuse_overwriting(tmp_path / "last.pt")


def test_a_loss_that_is_not_finite_is_shown_and_no_error(tmp_path: Path) -> None:
    trainer = made(load_config(tiny(tmp_path)))
    batch = next(trainer.batches())
    images = {modality: torch.full_like(pictures, torch.inf) for modality, pictures in batch.images.items()}
    assert trainer.train_batch(replace(batch, images=images))["loss"].isnan()


def test_a_step_whose_gradients_overflow_is_left_out(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    half = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[half])
    trainer = Trainer(config, train.load_sources(config), fabric)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    assert trainer.train_batch(next(trainer.batches()))["loss"].isfinite()
    assert scaler.get_scale() == 2.0**39
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.network.parameters(), strict=True))


def test_each_process_drops_out_others(tmp_path: Path) -> None:
    trainer = made(load_config(tiny(tmp_path)))
    drawn = []
    for rank in (0, 1, 0):
        trainer.fabric = cast("Fabric", SimpleNamespace(global_rank=rank))
        trainer.start_epoch()
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[2] != drawn[1]


class UnevenSampler:
    """Promises six batches and yields five."""

    def __len__(self) -> int:
        return 6

    def epoch(self, number: int) -> Iterator[Indices]:
        yield from ({Modality.VISIBLE: [number, batch]} for batch in range(5))


def test_processes_get_equally_many_batches_whatever_a_sampler_yields(tmp_path: Path) -> None:
    trainer = made(load_config(tiny(tmp_path)))
    trainer.sampler, trainer.batches_per_epoch = UnevenSampler(), 3
    shares = []
    for rank in range(2):
        trainer.fabric = cast("Fabric", SimpleNamespace(global_rank=rank, world_size=2))
        shares.append([indices[Modality.VISIBLE][1] for indices in trainer._shares()])
    assert shares == [[0, 2], [1, 3]]


class NoFabric:
    """Notes what is asked for and has no such devices."""

    asked: ClassVar[dict[str, object]] = {}

    def __init__(self, **asked: object) -> None:
        self.asked.update(asked)
        raise MisconfigurationException("You requested gpu: [0, 1]\n But your machine only has: [0]")


def test_too_many_devices_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "Fabric", NoFabric)
    with pytest.raises(ConfigError, match=r"^devices 2: You requested gpu: \[0, 1\] But your machine only has: \[0\]$"):
        train.build_fabric(load_config(tiny(tmp_path)), 2)


def test_torchrun_says_how_many_machines_share_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "Fabric", NoFabric)
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError):
        train.build_fabric(load_config(tiny(tmp_path)), 1)
    assert (NoFabric.asked["devices"], NoFabric.asked["num_nodes"]) == (2, 3)


def test_convolutions_of_a_gpu_are_the_same_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    train.settle(torch.device("cpu"))
    assert torch.backends.cudnn.benchmark
    train.settle(torch.device("cuda"))
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_what_validation_ranks_is_not_trained_on(tmp_path: Path) -> None:
    config = tiny(tmp_path)
    dataset(tmp_path / "data")  # now both splits show the same vehicles
    with pytest.raises(ConfigError, match=r"^validation: 4 vehicles of .*data are also trained on, such as 0$"):
        train.load_sources(load_config(config))
    elsewhere = apart(dataset(tmp_path / "other"))
    sources = [{"path": str(elsewhere), "split": "val"}]
    config = tiny(tmp_path, sources=sources, validation={"path": str(elsewhere / ".." / "other")})
    with pytest.raises(ConfigError, match=r"^validation: .*0-visible-2\.png is also trained on, by source .*other$"):
        train.load_sources(load_config(config))


def test_vehicles_of_two_folders_are_not_the_same_for_their_names(tmp_path: Path) -> None:
    sources = [{"path": str(dataset(tmp_path / "other")), "split": "train"}]
    validation = {"path": str(dataset(tmp_path / "another")), "split": "val"}
    assert len(train.load_sources(load_config(tiny(tmp_path, sources=sources, validation=validation))).repeats) == 4


def test_another_folder_is_looked_at_as_often_as_the_configuration_says(tmp_path: Path) -> None:
    config, data = load_config(tiny(tmp_path)), tmp_path / "data"
    assert train.on_data(data, config) == {
        "sources": [{"path": data, "split": "train"}],
        "validation": {"path": data, "every_epochs": 2},
    }


def test_every_stage_takes_a_step_and_consistency_needs_pairs(tmp_path: Path) -> None:
    stages = [{"tiles": 4, "layer": "layer1", "dimension": 8}, {"tiles": 2, "layer": "layer2", "dimension": 8}]
    model = {**SMALL, "stages": stages, "embedding_stages": [0, 1]}
    config = load_config(tiny(tmp_path, model=model, batch={"vehicles": 2, "pairing": "same_view"}))
    trainer = made(config)
    before = {name: value.clone() for name, value in trainer.network.branches.named_parameters()}
    parts = {name: value.item() for name, value in trainer.train_batch(next(trainer.batches())).items()}
    assert parts["consistency"] == pytest.approx(0.01 * (parts["identity"] + parts["triplet"]), rel=0.05)
    anything = made(config.model_copy(update={"batch": config.batch.model_copy(update={"pairing": "any"})}))
    assert "consistency" not in anything.train_batch(next(anything.batches()))
    after = dict(trainer.network.branches.named_parameters())
    assert not any(
        torch.equal(after[f"{stage}.project.0.weight"], before[f"{stage}.project.0.weight"]) for stage in (0, 1)
    )


def test_aligned_pairs_share_vehicle_and_a_known_view() -> None:
    pixels = {Modality.VISIBLE: torch.zeros(3, 1), Modality.THERMAL: torch.zeros(3, 1)}
    batch = Batch(pixels, torch.tensor([1, 2, 3, 2, 1, 3]), ["a", "b", "", "b", "b", ""])
    assert aligned_pairs(batch) == ([1], [3])


def test_half_size_halves_the_pictures_for_part_of_the_epochs(tmp_path: Path) -> None:
    model = {**SMALL, "height": 128, "width": 128}
    changes = {"model": model, "batch": {"vehicles": 2, "half_size_until": 0.5}}
    config = load_config(tiny(tmp_path, **changes), epochs=2)
    trainer = made(config)
    sizes = []
    for trainer.epoch in range(2):
        sizes.append(next(trainer.batches()).images[Modality.VISIBLE].shape[2])
    assert sizes == [64, 128]


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    settings = OptimiserConfig(warmup=0.1)
    assert [learning_rate_factor(p, settings) for p in (0.0, 0.1)] == pytest.approx([0.01, 1.0])
    assert learning_rate_factor(0.55, settings) == pytest.approx(0.5)
    assert learning_rate_factor(1.0, settings) == pytest.approx(0.0)


def test_the_papers_learning_rate_steps_down_at_epochs_30_and_60_of_100() -> None:
    settings = OptimiserConfig(schedule="steps", warmup=0.1, milestones=(0.3, 0.6), step_factor=0.1)
    factors = [learning_rate_factor(epoch / 100, settings) for epoch in (10, 29, 30, 59, 60, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"epoch": 3}, "epoch: Extra inputs are not permitted, got 3"),
        ({"batch": {"vehicels": 3}}, r"batch\.vehicels"),
        ({"model": {"height": 100}}, r"model: .*100 x 256: both must be multiples of 16 for 1 tiles"),
        ({"model": {"stages": [{"tiles": 4}], "height": 96}}, "multiples of 64 for 4 tiles a side at layer3"),
        ({"model": {"matching_stage": 1}}, "matching_stage 1 must index the 1 stages"),
        ({"model": {"embedding_stages": [1]}}, "must index the 1 stages"),
        ({"model": {"height": 80}, "batch": {"half_size_until": 0.5}}, "40 x 128: both must be multiples of 16"),
        ({"model": {"matcher": {"rows": 3}}}, r"matcher\.rows 3 must divide the 8 rows of the layer3 map of 128 x 256"),
        ({"model": {"matcher": {"columns": 32}}}, r"matcher\.columns 32 must divide the 16 columns"),
        (
            {"model": {"matcher": {"rows": 8, "columns": 8}}, "batch": {"half_size_until": 0.5}},
            r"batch\.half_size_until: at half size, model\.matcher\.rows 8 must divide the 4 rows",
        ),
        ({"validation": {"path": "data", "split": "test"}}, r"validation\.split: .*test is for the last figure alone"),
        ({"model": {"matcher": {}}, "batch": {"half_size_until": 0.5}}, "needs rows and columns"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_config(tiny(tmp_path, **changes))


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_that_ship_are_valid(path: Path) -> None:
    assert load_config(path).epochs > 0


def test_fine_tuning_goes_on_from_all_of_the_shipped_model() -> None:
    """Of another shape, a part of the shipped weights would be dropped for a random start."""
    shipped = CONFIGS.parents[1] / "weights" / "porsche-small.pt"
    model = load_config(CONFIGS / "site.yaml").model
    deployed, _ = load_network(shipped)
    assert model == deployed.config.model_copy(update={"name": model.name})


def test_too_few_vehicles_for_a_batch_are_refused(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path, batch={"vehicles": 9}))
    with pytest.raises(ConfigError, match=r"identities: 9 a batch"):
        made(config)


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train.main, ("--config", "none.yaml")),
        (evaluate.main, ("--weights", "none.pt", "--data", ".")),
        (export.main, ("--weights", "none.pt")),
        (site_crops.main, ("nowhere", "--out", "crops")),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    main: Callable[..., None],
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(monkeypatch, main, *arguments) == 2
    words = capsys.readouterr().err
    assert len(words.splitlines()) == 1
    assert words.startswith("error: no")


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    config, out = tiny(tmp_path, epochs=100000), tmp_path / "run"
    arguments = ["-m", "reid.train", "--config", str(config), "--out", str(out), "--threads", "1"]
    with subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # The first epoch's checkpoint is whole once the second one is over.
        assert any(line.startswith("epoch 2/") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in words
    resumed = load_config(config)
    trainer = made(resumed)
    trainer.resume(out / "last.pt")
    assert trainer.epoch >= 1


@pytest.mark.slow
def test_two_processes_share_an_epoch(tmp_path: Path) -> None:
    """Fabric starts the second one itself; gradients meet, one writes. 10 draws make 5 batches: 2 for each."""
    often = {"path": str(dataset(tmp_path / "often", vehicles=3)), "split": "train", "repeats": 2}
    sources = [{"path": str(tmp_path / "data"), "split": "train"}, often]
    model = {**SMALL, "matcher": MATCHER}
    config, out = tiny(tmp_path, sources=sources, model=model), tmp_path / "run"
    arguments = ["-m", "reid.train", "--config", str(config), "--out", str(out), "--threads", "1", "--devices", "2"]
    ended = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == 0, ended.stderr
    course = History.read(out / FILE_NAME)
    assert [record.epoch for record in course] == [1, 2]
    assert [record.step for record in course] == [2, 4]
    # Of 2 vehicles 2 pictures in 3 modalities, by both processes.
    assert [record.pictures_seen for record in course] == [4 * 12, 8 * 12]
    assert load_network(out / "model.pt")


@pytest.mark.slow
def test_the_tiny_configuration_trains_and_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out, figures = apart(dataset(tmp_path / "data", vehicles=9)), tmp_path / "run", tmp_path / "figures.json"
    run = partial(command, monkeypatch)
    assert run(train.main, "--config", CONFIGS / "tiny.yaml", "--data", data, "--out", out, "--threads", 1) == 0
    (record,) = History.read(out / FILE_NAME)
    assert record.validation
    assert record.parts.keys() == {"loss", "identity", "triplet", "matching", "consistency"}
    options = ("--data", data, "--split", "val", "--json", figures)
    assert run(evaluate.main, "--weights", out / "model.pt", *options) == 0
    assert {record["ranker"] for record in json.loads(figures.read_text())} == {"embedding", "rerank"}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_atomically(path, {"epoch": 1})
    code = (
        "import os, sys, torch; from pathlib import Path; from reid import checkpoint\n"
        "def dies(contents, stream):\n"
        "    stream.write(b'half'); stream.flush(); os.kill(os.getpid(), 9)\n"
        "checkpoint.torch.save = dies\n"
        f"checkpoint.write_atomically(Path({str(path)!r}), {{'epoch': 2}})"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert read_checkpoint(path) == {"epoch": 1}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    write_atomically(path, {"epoch": 1})
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        write_atomically(path, {"epoch": lambda: None})
    assert read_checkpoint(path) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["last.pt"]  # noqa: PTH208


def test_saved_weights_come_back_at_half_precision(tmp_path: Path) -> None:
    made = network()
    save_network(tmp_path / "tiny.pt", made, "")
    loaded, model_id = load_network(tmp_path / "tiny.pt")
    assert model_id.startswith("tiny-")
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, made.state_dict()[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("contents", [{"format": "another"}, [1, 2], {"format": "reid-porsche-1", "model": {}}])
def test_checkpoints_of_another_kind_are_named(tmp_path: Path, contents: object) -> None:
    torch.save(contents, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt"):
        load_network(tmp_path / "other.pt")


def test_weights_are_no_training_checkpoint(tmp_path: Path) -> None:
    config = load_config(tiny(tmp_path))
    with pytest.raises(CheckpointError, match=r"tiny\.pt: can't be resumed"):
        made(config).resume(weights(tmp_path))
