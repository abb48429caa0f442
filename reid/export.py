"""Export for inference: `python -m reid.export --weights weights/porsche-small.pt --to openvino --to onnx`.

A folder per runtime, which `Embedder` loads: a stem per modality and a shared trunk (see `reid.exported_folder`). Files
for ONNX Runtime take (batch, height, width, 3) uint8 pixels to maps, and maps to the embedding (`trunk.onnx`) or to
embedding and tokens (`describe.onnx`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from reid.backend import EmbedderError, EmbedderInfo
from reid.checkpoint import load_network
from reid.command import run_command
from reid.embedder import Embedder
from reid.export_parity import Parity, parity
from reid.export_parts import fold_matcher, parts_of
from reid.export_writers import WRITERS, ExportError, Writer, write_openvino
from reid.exported_folder import MATCHER, Runtime, read_metadata, write_metadata
from reid.modality import Modality
from reid.model import Porsche
from reid.rankers import SHORT_LIST
from reid.torch_backend import describe_network

__all__ = ["ExportError", "Exported", "export"]

#: Of an embedding's element, and as a part of the largest token and score.
MAX_DIFFERENCE = 1e-3
#: Of tokens made with rounded weights: half a step of the int8 numbers that a message has room for.
MAX_ROUNDED = 4e-3


@dataclass(frozen=True, slots=True)
class Exported:
    """How an export compares with torch.

    Attributes:
        computed: with weights in float32: what the conversion costs.
        stored: with weights as they lie in the folder; OpenVINO's are rounded to half precision.
    """

    computed: Parity
    stored: Parity

    @property
    def close(self) -> bool:
        """Whether it may be used."""
        rounded = self.stored.vectors <= MAX_DIFFERENCE and self.stored.tokens <= MAX_ROUNDED
        return self.computed.largest <= MAX_DIFFERENCE and rounded

    def __str__(self) -> str:
        rounded = "" if self.stored is self.computed else f"; with weights rounded to half, {self.stored}"
        return f"{self.computed}{rounded}"


def export(weights: Path, folder: Path, runtime: Runtime = Runtime.OPENVINO) -> Exported:
    """Write a folder that `Embedder` loads: any batch size, no more than inference needs.

    The folder appears whole, after the parity check. While it is made, an older one stays as it is.

    Args:
        weights: a `.pt` file of `reid.train`.
        folder: replaced if it is an export.
        runtime: the library that will run it.

    Returns:
        How far it is from torch.

    Raises:
        ExportError: too far: above 1e-3, or 4e-3 for tokens of rounded weights; or a part can't be written, or
            the folder holds something else.
        CheckpointError: `weights` can't be loaded.
        EmbedderError: a library that the runtime needs is not installed.
    """
    _refuse_other(folder)
    network, model_id = load_network(weights)
    info = describe_network(network, model_id)
    with _scratch(folder) as scratch:
        made, exact = scratch / "made", scratch / "exact"
        _write(network, info, made, runtime, WRITERS[runtime])
        stored = computed = parity(network, made, runtime)
        if runtime is Runtime.OPENVINO:
            _write(network, info, exact, runtime, partial(write_openvino, half=False))
            computed = parity(network, exact, runtime)
        compared = Exported(computed, stored)
        if not compared.close:
            raise ExportError(f"{folder}: differs too much from torch: {compared}")
        if folder.exists():
            folder.rename(scratch / "replaced")
        made.rename(folder)
    return compared


def _refuse_other(folder: Path) -> None:
    """Refuse to replace what is no export: it would be deleted."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_metadata(folder)
    except EmbedderError as error:
        raise ExportError(f"{folder}: exists and is no export, so it is not replaced: {error}") from error


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A hidden folder beside another, removed in the end; what a killed export left there is removed first."""
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(network: Porsche, info: EmbedderInfo, folder: Path, runtime: Runtime, writer: Writer) -> None:
    folder.mkdir()
    for part in parts_of(network, runtime):
        writer(part, folder)
    if network.matcher is not None:
        fold_matcher(network.matcher).save(folder / MATCHER)
    write_metadata(folder, runtime, info)


def fastest_ms(call: Callable[[], object], repeats: int = 20) -> float:
    """Milliseconds of the fastest call, since other programs only ever slow one down."""
    fastest = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest * 1000


def timings(weights: Path, batch: int, threads: int) -> str:
    """Time an embedder on crops that mix the modalities, resizing included.

    Args:
        weights: what `Embedder` loads.
        batch: crops per call.
        threads: CPU threads.

    Returns:
        One line.
    """
    embedder = Embedder(weights, threads=threads, max_batch=batch)
    crops = [np.full((60 + index, 90, 3), index, dtype=np.uint8) for index in range(batch)]
    modalities = [list(Modality)[index % len(Modality)] for index in range(batch)]
    embedding = fastest_ms(lambda: embedder.embed(crops, modalities)) / batch
    line = f"batch {batch}: {embedding:.1f} ms per crop, {threads} threads"
    if embedder.info.points is None:
        return line
    describing = fastest_ms(lambda: embedder.describe(crops, modalities)) / batch
    tokens = np.random.default_rng(0).standard_normal((SHORT_LIST, *embedder.info.points), dtype=np.float32)
    scoring = fastest_ms(lambda: embedder.score(tokens[:1], tokens))
    return f"{line}; {describing:.1f} ms with tokens; {scoring:.1f} ms to score {SHORT_LIST} candidates"


def main(
    weights: Annotated[Path, typer.Option(help="A .pt file of reid.train.")],
    to: Annotated[list[Runtime] | None, typer.Option(help="May be repeated; default: openvino.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default: beside the weights.")] = None,
    measure: Annotated[bool, typer.Option("--time", help="Also print milliseconds per crop.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads to measure with.", min=1)] = 2,
) -> None:
    """Export weights for inference and check them against torch."""
    runtimes = to or [Runtime.OPENVINO]
    if out is not None and len(runtimes) > 1:
        raise ExportError("--out is one folder: give one --to with it")
    for runtime in runtimes:
        folder = out or weights.with_name(f"{weights.stem}_{runtime.value}_model")
        compared = export(weights, folder, runtime)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        typer.echo(f"{folder}: {size:.1f} MB; differs from torch at most: {compared}")
        for batch in (1, 8, 16) if measure else ():
            typer.echo(timings(folder, batch, threads))


if __name__ == "__main__":
    run_command(main)
