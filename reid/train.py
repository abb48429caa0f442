"""Train a re-ID network: `python -m reid.train --config configs/reid/synthetic.yaml`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from reid.checkpoint import save_network
from reid.command import run_command
from reid.config import TrainConfig, load_config
from reid.datasets import Sample, TrainingSet, load_pictures, training_set
from reid.embedder import prepare_crop
from reid.evaluate import Protocol, evaluate
from reid.history import EpochRecord, History
from reid.layouts import read_dataset, training_split
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.report import report_run
from reid.torch_files import write_atomically
from reid.trainer import Trainer

VALIDATION_BATCH = 64
SHOWN_EVERY = 10  # batches: reading a loss makes a GPU wait
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Validation:
    """Samples to rank now and then, and their (N, H, W, 3) uint8 pictures."""

    samples: Sequence[Sample]
    pictures: NDArray[np.uint8]


def run(trainer: Trainer, out: Path, validation: Validation | None = None) -> None:
    """Train to the last epoch.

    Leaves in `out`, after each epoch: `last.pt`, with which to resume (also before the first), `model.pt`, the
    averaged weights, for inference, and a line of `history.jsonl` and of TensorBoard's curves. The first two
    are whole whenever the run is interrupted. Where several processes share the work, the first one writes.
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
            save(trainer, out)
            scores = validate(trainer.average, validation, size) if validation and _validates(trainer) else {}
            history.append(replace(course, validation=scores))
            progress.print(_words(course, trainer.config.epochs), soft_wrap=True)
            for direction, values in scores.items():
                progress.print(f"  validation {direction}: mAP {values['mAP']:.3f}, Rank-1 {values['rank1']:.3f}")
    console.print(f"wrote {out / 'model.pt'}")


def save(trainer: Trainer, out: Path) -> None:
    """Write `last.pt` and `model.pt`."""
    write_atomically(out / "last.pt", trainer.state())
    save_network(out / "model.pt", trainer.average, f"{trainer.epoch} epochs at revision {trainer.revision}")


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
        How it went; nothing of validation.
    """
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
            show(completed=trainer.step, parts=_speed(parts, pictures / (time.monotonic() - started)))
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
    modalities = [sample.modality for sample in validation.samples]
    vectors = np.empty((len(modalities), network.config.dimension), dtype=np.float32)
    device = next(network.parameters()).device
    for modality in Modality:
        own = [index for index, other in enumerate(modalities) if other is modality]
        for start in range(0, len(own), VALIDATION_BATCH):
            chosen = own[start : start + VALIDATION_BATCH]
            pixels = np.stack([prepare_crop(picture, *size) for picture in validation.pictures[chosen]])
            images = normalise(torch.from_numpy(pixels).to(device))
            vectors[chosen] = network.embed({modality: images}).float().cpu().numpy()
    results = evaluate(vectors, validation.samples, Protocol.ALL)
    return {f"{r.query}->{r.gallery}": {"mAP": r.scores.mean_ap, "rank1": float(r.scores.cmc[0])} for r in results}


def load_validation(config: TrainConfig) -> Validation | None:
    """Read the validation split a configuration names, if it does."""
    if config.validation is None:
        return None
    samples = read_dataset(config.validation.path, config.validation.split)
    return Validation(samples, load_pictures(samples, config.model.height, config.model.width))


def load_sources(config: TrainConfig) -> TrainingSet:
    """Read all source folders of a configuration."""
    sources = [(read_dataset(source.path, source.split), source.repeats) for source in config.sources]
    return training_set(sources, config.model.height, config.model.width)


def build_fabric(config: TrainConfig, devices: int) -> Fabric:
    """Start the devices: a GPU where there is one, else the CPU; several, and torchrun's, with DDP."""
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    # Stages take turns, so that each step leaves other stages' weights without a gradient.
    strategy = DDPStrategy(find_unused_parameters=True) if devices > 1 else "auto"
    fabric = Fabric(devices=devices, strategy=strategy, precision=config.precision)
    fabric.launch()
    return fabric


def main(  # noqa: PLR0913 one parameter an option
    config: Annotated[Path, typer.Option(help="YAML file, such as configs/reid/synthetic.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for last.pt and model.pt.")] = Path("runs/reid"),
    data: Annotated[Path | None, typer.Option(help="Use this folder alone; look at its split `val`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the file's.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the file's.", min=0)] = None,
    initial_weights: Annotated[Path | None, typer.Option(help="ImageNet state dict.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the folder's last.pt.")] = False,
    devices: Annotated[int, typer.Option(help="GPUs, or processes on a CPU; torchrun sets it too.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; 1 is fastest where others use the cores too.", min=1)
    ] = None,
) -> None:
    """Train a network and leave `model.pt`, the weights that `reid.embedder` loads."""
    overrides: dict[str, object] = {"epochs": epochs, "seed": seed, "initial_weights": initial_weights}
    if data:
        overrides |= {"sources": [{"path": data, "split": training_split(data)}], "validation": {"path": data}}
    settings = load_config(config, **overrides)
    if threads:
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    trainer = Trainer(settings, load_sources(settings), build_fabric(settings, devices))
    if resume:
        trainer.resume(out / "last.pt")
    try:
        run(trainer, out, load_validation(settings))
        if settings.validation and trainer.fabric.is_global_zero:
            page = out / "report.html"
            report_run(out, settings.validation.path, settings.validation.split, page)
            console.print(f"wrote {page}")
    except KeyboardInterrupt:
        console.print(f"stopped after epoch {trainer.epoch}; {out / 'last.pt'} goes on with --resume")
        raise


if __name__ == "__main__":
    run_command(main)
