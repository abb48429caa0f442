"""Train a re-ID network: `python -m reid.train --config configs/reid/synthetic.yaml`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import cv2
import numpy as np
import torch
import typer
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from reid.checkpoint import save_network
from reid.command import run_command
from reid.config import TrainConfig, ValidationConfig, load_config
from reid.datasets import Sample, TrainingSet, load_pictures, training_set
from reid.embedder import prepare_crop
from reid.errors import CheckpointError, ConfigError
from reid.history import EpochRecord, History
from reid.image_batches import image_batches
from reid.layouts import read_dataset, training_split
from reid.model import Porsche
from reid.protocols import Protocol
from reid.report import report_run
from reid.retrieval import evaluate
from reid.torch_files import read_checkpoint, write_atomically
from reid.trainer import Trainer

INITIAL_WEIGHTS = "model.pt of an earlier run of ours, or torchvision's ImageNet state dict of the backbone."
SHOWN_EVERY = 10  # batches: reading a loss makes a GPU wait
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Validation:
    """Samples to rank now and then, and their (N, H, W, 3) uint8 pictures."""

    samples: Sequence[Sample]
    pictures: NDArray[np.uint8]


def run(trainer: Trainer, out: Path, validation: Validation | None = None) -> None:
    """Train to the last epoch.

    Leaves in `out`, after each epoch: a line of `history.jsonl` and of TensorBoard's curves, `model.pt`, the
    averaged weights, for inference, and `last.pt`, with which to resume (both also before the first). They are
    written in this order, each whole: an epoch counts once `last.pt` has it, and until then resuming trains it
    again and writes the other two anew. Where several processes share the work, the first one writes.
    """
    if not trainer.fabric.is_global_zero:
        while trainer.epoch < trainer.config.epochs:
            train_epoch(trainer)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[parts]}"))
    save(trainer, out)
    with (
        History(out, keep_epochs=trainer.epoch) as history,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("training", total=trainer.total_steps, completed=trainer.step, parts="")
        while trainer.epoch < trainer.config.epochs:
            size = trainer.size
            course = train_epoch(trainer, partial(progress.update, task))
            scores = validate(trainer.average, validation, size) if validation and _validates(trainer) else {}
            history.append(replace(course, validation=scores))
            save(trainer, out)
            progress.print(_words(course, trainer.config.epochs), soft_wrap=True)
            for direction, values in scores.items():
                progress.print(f"  validation {direction}: mAP {values['mAP']:.3f}, Rank-1 {values['rank1']:.3f}")
    console.print(f"wrote {out / 'model.pt'}")


def save(trainer: Trainer, out: Path) -> None:
    """Write `model.pt`, then `last.pt`."""
    save_network(out / "model.pt", trainer.average, f"{trainer.epoch} epochs at revision {trainer.revision}")
    write_atomically(out / "last.pt", trainer.state())


def _validates(trainer: Trainer) -> bool:
    settings = trainer.config.validation
    last = trainer.epoch == trainer.config.epochs
    return settings is not None and (last or trainer.epoch % settings.every_epochs == 0)


def train_epoch(trainer: Trainer, show: Callable[..., None] | None = None) -> EpochRecord:
    """Train one epoch.

    Args:
        trainer: is one epoch further afterwards.
        show: called after each batch with `completed` steps and `parts`, the mean loss parts and the speed.

    Returns:
        How it went, pictures counted over all processes; nothing of validation.
    """
    processes = trainer.fabric.world_size
    sums: dict[str, Tensor] = {}
    pictures, started, parts = 0, time.monotonic(), {}
    trainer.start_epoch()
    for number, batch in enumerate(trainer.batches(), start=1):
        for name, value in trainer.train_batch(batch).items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
        pictures += len(batch.identities)
        if number % SHOWN_EVERY == 0 or number == trainer.batches_per_epoch:
            parts = {name: value.item() / number for name, value in sums.items()}
        if show:
            show(completed=trainer.step, parts=_speed(parts, processes * pictures / (time.monotonic() - started)))
    own = torch.tensor(pictures, device=trainer.fabric.device)
    pictures = int(cast("Tensor", trainer.fabric.all_reduce(own, reduce_op="sum")))
    seconds = time.monotonic() - started
    trainer.epoch += 1
    trainer.pictures_seen += pictures
    rate, seen = trainer.learning_rate, trainer.pictures_seen
    return EpochRecord(trainer.epoch, trainer.step, seen, seconds, pictures / seconds, rate, parts, {})


def _words(record: EpochRecord, epochs: int) -> str:
    return f"epoch {record.epoch}/{epochs} {_speed(record.parts, record.pictures_per_s)}"


def _speed(parts: Mapping[str, float], pictures_per_s: float) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in parts.items()) + f" {pictures_per_s:.0f} pictures/s"


@torch.no_grad()
def validate(network: Porsche, validation: Validation, size: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Rank every modality against every other by embedding (protocol `all`).

    Args:
        network: in evaluation mode.
        validation: what to rank.
        size: height and width the network was last trained at: at twice that, its mAP is a third.

    Returns:
        `mAP` and `rank1`, 0-1, of each direction, such as `visible->thermal`.
    """

    def read(chosen: list[int]) -> NDArray[np.uint8]:
        return np.stack([prepare_crop(picture, *size) for picture in validation.pictures[chosen]])

    modalities = [sample.modality for sample in validation.samples]
    vectors = np.empty((len(modalities), network.config.dimension), dtype=np.float32)
    for chosen, images in image_batches(modalities, read, next(network.parameters()).device):
        vectors[chosen] = network.embed(images).float().cpu().numpy()
    results = evaluate(vectors, validation.samples, Protocol.ALL)
    return {f"{r.query}->{r.gallery}": {"mAP": r.scores.mean_ap, "rank1": float(r.scores.cmc[0])} for r in results}


def load_validation(config: TrainConfig) -> Validation | None:
    """Read the validation split a configuration names, if it does."""
    if config.validation is None:
        return None
    samples = read_dataset(config.validation.path, config.validation.split)
    return Validation(samples, load_pictures(samples, config.model.height, config.model.width))


def load_sources(config: TrainConfig) -> TrainingSet:
    """Read all source folders of a configuration.

    Raises:
        ConfigError: pictures or vehicles to train on are also those that validation ranks.
        DatasetError: a folder or picture that can't be read.
    """
    sources = [(source, read_dataset(source.path, source.split)) for source in config.sources]
    if config.validation is not None:
        seen = read_dataset(config.validation.path, config.validation.split)
        for source, samples in sources:
            refuse_leak(samples, source.path, seen, config.validation.path)
    rows = [(samples, source.repeats) for source, samples in sources]
    return training_set(rows, config.model.height, config.model.width)


def refuse_leak(trained: Sequence[Sample], source: Path, ranked: Sequence[Sample], validation: Path) -> None:
    """Check that validation ranks what training has not seen.

    Args:
        trained: pictures of one source.
        source: its folder.
        ranked: pictures of validation.
        validation: its folder; names of vehicles mean the same in one folder only.

    Raises:
        ConfigError: a picture, or a vehicle of one folder, is in both.
    """
    pictures = {(sample.path.resolve(), sample.part) for sample in trained}
    for sample in ranked:
        if (sample.path.resolve(), sample.part) in pictures:
            raise ConfigError(f"validation: {sample.path} is also trained on, by source {source}")
    if source.resolve() == validation.resolve():
        shared = {sample.identity for sample in trained} & {sample.identity for sample in ranked}
        if shared:
            _, vehicle = min(shared)
            raise ConfigError(
                f"validation: {len(shared)} vehicles of {validation} are also trained on, such as {vehicle}"
            )


def build_fabric(config: TrainConfig, devices: int) -> Fabric:
    """Start the devices: a GPU where there is one, else the CPU; several, and torchrun's, with DDP.

    Raises:
        ConfigError: more devices than there are.
    """
    nodes = 1
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun's, on every node alike
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ.get("WORLD_SIZE", devices)) // devices
    # Stages take turns, so that each step leaves other stages' weights without a gradient.
    strategy = DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto"
    try:
        fabric = Fabric(devices=devices, num_nodes=nodes, strategy=strategy, precision=config.precision)
    except MisconfigurationException as error:
        raise ConfigError(f"devices {devices}: {' '.join(str(error).split())}") from error
    fabric.launch()
    settle(fabric.device)
    return fabric


def settle(device: torch.device) -> None:
    """Let a GPU's convolutions choose the same algorithms in every run.

    That a run repeats exactly is claimed for the CPU alone: other kernels of a GPU still add in any order.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def refuse_overwriting(last: Path) -> None:
    """Check that starting anew would not drop a run that has come somewhere.

    Raises:
        CheckpointError: `last` holds finished epochs, or can't be read.
    """
    epochs = read_checkpoint(last).get("epoch", 0) if last.exists() else 0
    if epochs:
        raise CheckpointError(f"{last}: holds {epochs} epochs: --resume goes on with them, --restart drops them")


def described(random_start: Mapping[str, int]) -> str:
    """Words for the parts of a network that initial weights did not cover."""
    return "kept a random start: " + ", ".join(f"{part} ({count} tensors)" for part, count in random_start.items())


def on_data(data: Path, config: TrainConfig) -> dict[str, object]:
    """Sources and validation in place of a configuration's: one folder, looked at as often as it says."""
    validation = config.validation or ValidationConfig(path=data)
    return {
        "sources": [{"path": data, "split": training_split(data)}],
        "validation": {"path": data, "every_epochs": validation.every_epochs},
    }


def main(  # noqa: PLR0913 one parameter an option
    config: Annotated[Path, typer.Option(help="YAML file, such as configs/reid/synthetic.yaml.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for last.pt and model.pt; runs/reid/NAME of the model if empty.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Use this folder alone; look at its split `val`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the file's.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the file's.", min=0)] = None,
    initial_weights: Annotated[Path | None, typer.Option(help=INITIAL_WEIGHTS)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last.pt.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Start anew over the folder's last.pt.")] = False,
    devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU; torchrun sets it too.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; 1 is fastest where others use the cores too.", min=1)
    ] = None,
) -> None:
    """Train a network and leave `model.pt`, the weights that `reid.embedder` loads."""
    overrides: dict[str, object] = {"epochs": epochs, "seed": seed, "initial_weights": initial_weights}
    if data:
        overrides |= on_data(data, load_config(config))
    settings = load_config(config, **overrides)
    out = out or Path("runs/reid") / settings.model.name
    if resume and restart:
        raise ConfigError("--resume goes on with a run and --restart drops it: choose one")
    if not resume and not restart:
        refuse_overwriting(out / "last.pt")
    if settings.initial_weights and not settings.initial_weights.is_file():
        # Said before minutes of decoding pictures.
        raise CheckpointError(f"{settings.initial_weights}: no such file (key initial_weights)")
    if threads:
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    trainer = Trainer(settings, load_sources(settings), build_fabric(settings, devices))
    if resume:
        trainer.resume(out / "last.pt")
    elif trainer.random_start and trainer.fabric.is_global_zero:
        console.print(described(trainer.random_start), soft_wrap=True)
    try:
        run(trainer, out, load_validation(settings))
        if settings.validation and trainer.fabric.is_global_zero:
            page = out / "report.html"
            report_run(out, settings.validation.path, settings.validation.split, page)
            console.print(f"wrote {page}")
    except KeyboardInterrupt:
        console.print(f"stopped; {out / 'last.pt'} goes on with --resume")
        raise


if __name__ == "__main__":
    run_command(main)
