"""`python -m detector.train`: fine-tune a YOLO detector on the vehicles of rendered and real road scenes."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detector.dataset import TRAINED_CLASSES, PictureWriter, add_real_clip, add_site, write_description
from detector.quiet import quiet_libraries
from detector.yolo import DetectorError, VehicleDetector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

app = typer.Typer(add_completion=False)

#: (height, width): the smallest rectangle that holds a 16:9 picture 640 wide; 4:3 pictures lie in it 512 wide.
IMAGE_SIZE = (384, 640)
#: Pseudo-labels weaker than this are as often wrong as right.
MIN_PSEUDO_LABEL_CONFIDENCE = 0.4
#: Pictures whose statistics restore a folded batch normalisation.
EXAMPLES = 40


@app.command()
def main(  # noqa: PLR0913  # each one is an option of the command line
    data: Annotated[list[Path], typer.Option(help="A rendered site: clips, truth.csv and gt.json. Repeatable.")],
    weights: Annotated[Path, typer.Option(help="The torch checkpoint to start from: COCO's classes.")],
    out: Annotated[Path, typer.Option(help="Folder that gets the .pt and the int8 OpenVINO model.")],
    pseudo_label: Annotated[
        Path | None, typer.Option(help="Folder of real clips; the start of each is labelled by the start weights.")
    ] = None,
    hours: Annotated[float, typer.Option(help="Train for about so long; the learning rate falls over it.")] = 0.7,
    every: Annotated[int, typer.Option(help="Train on each so-many-th frame of a site.")] = 4,
    pictures_per_clip: Annotated[int, typer.Option(help="Train on at most so many frames of a real clip.")] = 70,
    batch: Annotated[int, typer.Option(help="Pictures per step.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="AdamW's, at its highest.")] = 5e-4,
    frozen_layers: Annotated[int, typer.Option(help="Leave so many first layers as they are; saves time.")] = 3,
    threads: Annotated[int, typer.Option(help="CPU threads; 1 is fastest where others use the CPU too.")] = 2,
) -> None:
    """Fine-tune a YOLO detector on vehicles, and export it as int8 for CPUs.

    The last 20 s of each site are never trained on but validated on, and the last third of each real clip is not
    touched. Nothing is fetched from the internet. Runs on the CPU, in bfloat16.
    """
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="detector-train-") as work, _clear_errors():
        root = Path(work)
        description = build_data_set(data, pseudo_label, weights, root, every, pictures_per_clip)
        settings = training_settings(description, hours, batch, learning_rate, frozen_layers)
        best = train(weights, description, settings, threads)
        ship(best, description, out, name=f"{weights.stem}-vehicles")
    typer.echo(f"wrote {out}")


def build_data_set(
    sites: list[Path], clips: Path | None, weights: Path, root: Path, every: int, pictures_per_clip: int
) -> Path:
    """Write the training pictures under `root`; returns the path of their data.yaml."""
    writer = PictureWriter(root, IMAGE_SIZE)
    for site in sites:
        typer.echo(f"{site.name}: {add_site(site, writer, every=every)} pictures")
    if clips is not None:
        teacher = VehicleDetector(weights, image_size=IMAGE_SIZE, confidence=MIN_PSEUDO_LABEL_CONFIDENCE)
        for clip in sorted(clips.glob("*.mp4")):
            written = add_real_clip(clip, lambda image: teacher.detect([image])[0], writer, pictures=pictures_per_clip)
            typer.echo(f"{clip.name}: {written} pictures")
    return write_description(writer)


def training_settings(
    description: Path, hours: float, batch: int, learning_rate: float, frozen_layers: int
) -> dict[str, Any]:
    """Ultralytics' settings of the run; its logs and checkpoints go beside the data set."""
    return {
        "model": "yolo11n.yaml",  # only a name here: the network is built by `fine_tuning`
        "data": str(description),
        "project": str(description.parent / "runs"),
        "name": "train",
        "device": "cpu",
        "amp": False,  # the library's mixed precision needs a GPU and a download; see MixedPrecisionNetwork
        "workers": 1,
        "plots": False,
        "time": hours,
        "epochs": 100,
        "patience": 0,
        "batch": batch,
        "nbs": batch,
        "imgsz": max(IMAGE_SIZE),
        "rect": True,  # pictures are 640x384 already; this also turns the library's mosaic off
        "freeze": frozen_layers,
        "optimizer": "AdamW",
        "lr0": learning_rate,
        "lrf": 0.02,
        "cos_lr": True,
        "warmup_epochs": 0.3,
        "warmup_bias_lr": 0.0,
        "hsv_h": 0.01,
        "hsv_s": 0.5,
        "hsv_v": 0.4,
        "scale": 0.5,
        "translate": 0.1,
        "max_det": 100,
        "seed": 0,
    }


def train(weights: Path, description: Path, settings: dict[str, Any], threads: int) -> Path:
    """Train; returns the path of the checkpoint that did best on the validation pictures."""
    import torch

    from detector.fine_tuning import VehicleTrainer, vehicle_network

    torch.set_num_threads(threads)
    examples = _examples(description.parent / "images" / "train")
    trainer = VehicleTrainer(vehicle_network(weights, list(map(str, TRAINED_CLASSES)), examples), settings)
    torch.set_num_threads(threads)  # the library leaves one core free, which is every second one of two
    trainer.train()
    return Path(trainer.best)


def ship(checkpoint: Path, description: Path, out: Path, *, name: str) -> None:
    """Write the half-precision .pt and the int8 OpenVINO model of a checkpoint into `out`."""
    from detector.export import export_int8, load_trained, save_half

    save_half(load_trained(checkpoint), out / f"{name}.pt")
    folder = out / f"{name}_int8_openvino_model"
    export_int8(out / f"{name}.pt", description, folder, size=IMAGE_SIZE)


def _examples(folder: Path) -> Tensor:
    """Some pictures of a folder, evenly spread, as (N, 3, H, W) float32 RGB in 0-1."""
    import cv2
    import numpy as np
    import torch

    paths = sorted(folder.glob("*.jpg"))
    chosen = paths[:: max(1, len(paths) // EXAMPLES)]
    pictures = np.stack([np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1] for path in chosen])  # (N, H, W, 3)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255  # (N, 3, H, W)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what a user can mend into one line and exit code 2."""
    try:
        yield
    except (DetectorError, OSError, KeyError, StopIteration) as error:
        typer.echo(f"detector.train: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
