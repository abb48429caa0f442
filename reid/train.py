"""Train a re-ID network: `python -m reid.train --config configs/reid/synthetic.yaml`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from reid.checkpoint import save_network
from reid.command import run_command
from reid.config import TrainConfig, load_config
from reid.datasets import Sample, TrainingSet, load_pictures, read_samples, training_set
from reid.embedder import prepare_crop
from reid.evaluate import Protocol, evaluate
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.torch_files import write_atomically
from reid.trainer import Trainer

VALIDATION_BATCH = 64
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Validation:
    """Samples to rank now and then, and their (N, H, W, 3) uint8 pictures."""

    samples: Sequence[Sample]
    pictures: NDArray[np.uint8]


def run(trainer: Trainer, out: Path, validation: Validation | None = None) -> None:
    """Train to the last epoch.

    Leaves in `out`, after each epoch: `last.pt`, with which to resume (also before the first), and `model.pt`,
    the averaged weights, for inference. Both are whole whenever the run is interrupted.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[parts]}"))
    write_atomically(out / "last.pt", trainer.state())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=trainer.total_steps, completed=trainer.step, parts="")
        while trainer.epoch < trainer.config.epochs:
            size = trainer.size
            parts = _train_epoch(trainer, progress, task)
            console.print(f"epoch {trainer.epoch}/{trainer.config.epochs} {parts}", soft_wrap=True)
            write_atomically(out / "last.pt", trainer.state())
            save_network(out / "model.pt", trainer.average, f"{trainer.epoch} epochs at revision {trainer.revision}")
            if validation and _validates(trainer):
                console.print(validate(trainer.average, validation, size), soft_wrap=True)
    console.print(f"wrote {out / 'model.pt'}")


def _validates(trainer: Trainer) -> bool:
    settings = trainer.config.validation
    last = trainer.epoch == trainer.config.epochs
    return settings is not None and (last or trainer.epoch % settings.every_epochs == 0)


def _train_epoch(trainer: Trainer, progress: Progress, task: TaskID) -> str:
    """Train one epoch; returns its mean loss parts and speed, as text."""
    sums: dict[str, float] = {}
    pictures, started, text = 0, time.monotonic(), ""
    trainer.network.train()
    for number, batch in enumerate(trainer.batches(), start=1):
        for name, value in trainer.train_batch(batch).items():
            sums[name] = sums.get(name, 0.0) + value
        pictures += len(batch.identities)
        speed = pictures / (time.monotonic() - started)
        text = " ".join(f"{name} {value / number:.3f}" for name, value in sums.items()) + f" {speed:.0f} images/s"
        progress.update(task, completed=trainer.step, parts=text)
    trainer.epoch += 1
    return text


@torch.no_grad()
def validate(network: Porsche, validation: Validation, size: tuple[int, int]) -> str:
    """Rank every modality against every other (protocol `all`).

    Args:
        network: in evaluation mode.
        validation: what to rank.
        size: height and width the network was last trained at: at twice that, its mAP is a third.

    Returns:
        mAP and Rank-1 of each direction, as text.
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
    lines = [f"{r.query} -> {r.gallery} {r.scores.mean_ap:.3f}/{r.scores.cmc[0]:.3f}" for r in results]
    return "  validation mAP/rank1: " + ", ".join(lines)


def load_validation(config: TrainConfig) -> Validation | None:
    """Read the validation split a configuration names, if it does."""
    if config.validation is None:
        return None
    samples = read_samples(config.validation.path, config.validation.split)
    return Validation(samples, load_pictures(samples, config.model.height, config.model.width))


def load_sources(config: TrainConfig) -> TrainingSet:
    """Read all source folders of a configuration."""
    sources = [(read_samples(source.path, source.split), source.repeats) for source in config.sources]
    return training_set(sources, config.model.height, config.model.width)


def main(  # noqa: PLR0913 one parameter an option
    config: Annotated[Path, typer.Option(help="YAML file, such as configs/reid/synthetic.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for last.pt and model.pt.")] = Path("runs/reid"),
    data: Annotated[Path | None, typer.Option(help="Use this folder alone: its splits `train` and `val`.")] = None,
    epochs: Annotated[int | None, typer.Option(help="In place of the file's.", min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the file's.", min=0)] = None,
    initial_weights: Annotated[Path | None, typer.Option(help="ImageNet state dict.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the folder's last.pt.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; 1 is fastest where others use the cores too.", min=1)
    ] = None,
) -> None:
    """Train a network and leave `model.pt`, the weights that `reid.embedder` loads."""
    overrides: dict[str, object] = {"epochs": epochs, "seed": seed, "initial_weights": initial_weights}
    if data:
        overrides |= {"sources": [{"path": data}], "validation": {"path": data}}
    settings = load_config(config, **overrides)
    if threads:
        torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(settings, load_sources(settings), device)
    if resume:
        trainer.resume(out / "last.pt")
    try:
        run(trainer, out, load_validation(settings))
    except KeyboardInterrupt:
        console.print(f"stopped after epoch {trainer.epoch}; {out / 'last.pt'} goes on with --resume")
        raise


if __name__ == "__main__":
    run_command(main)
