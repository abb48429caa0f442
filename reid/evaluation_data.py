"""What an evaluation ranks: pictures of a data set, described, and who of them asks for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reid.backend import Descriptions
from reid.datasets import Sample, read_sample
from reid.embedder import Embedder
from reid.errors import DatasetError, ReidError
from reid.layouts import read_dataset
from reid.modality import Modality
from reid.protocols import average_tracklets
from reid.retrieval import Direction, directions

BATCH = 64


@dataclass(frozen=True, slots=True)
class Pictures:
    """N pictures to rank, or T tracklets.

    Attributes:
        samples: what they show.
        described: their vectors, and tokens where those are wanted and the weights have a matcher.
    """

    samples: Sequence[Sample]
    described: Descriptions


def progress_bar() -> Progress:
    """A bar on standard error that leaves nothing behind; none where that is a file."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def read_both(data: Path, split: str | None, distractors: str | None) -> list[Sample]:
    """Read the pictures of a run; those of the distractors have the role `gallery`.

    Args:
        data: folder of a data set.
        split: whose pictures ask and are asked about; all when None.
        distractors: split that joins the galleries only.

    Raises:
        DatasetError: can't be read, or a picture is in both.
    """
    samples = read_dataset(data, split)
    others = read_dataset(data, distractors) if distractors else []
    twice = {(s.path, s.part) for s in samples} & {(s.path, s.part) for s in others}
    if twice:
        raise DatasetError(f"{min(twice)[0]}: both asked about and a distractor (name two splits that differ)")
    return [*samples, *(replace(sample, role="gallery") for sample in others)]


def describe_samples(embedder: Embedder, samples: Sequence[Sample], tokens: bool | None = None) -> Descriptions:
    """Decode and describe pictures.

    Args:
        embedder: what describes them.
        samples: N.
        tokens: whether they are wanted; where the weights have a matcher when None.

    Returns:
        (N, D) vectors; (N, L, P, C) tokens or None.

    Raises:
        DatasetError: a picture that can't be read.
        ReidError: tokens are wanted of weights without a matcher.
    """
    if tokens and embedder.info.points is None:
        raise ReidError(f"{embedder.info.model_id} has no point matcher: --ranker embedding is all it can do")
    parts: list[Descriptions] = []
    with progress_bar() as bar:
        for start in bar.track(range(0, len(samples), BATCH), description="describing batches"):
            chosen = samples[start : start + BATCH]
            crops, modalities = [read_sample(sample) for sample in chosen], [sample.modality for sample in chosen]
            if tokens is False:
                parts.append(Descriptions(embedder.embed(crops, modalities), None))
            else:
                parts.append(embedder.describe(crops, modalities))
    points = [part.tokens for part in parts if part.tokens is not None]
    return Descriptions(np.concatenate([part.vectors for part in parts]), np.concatenate(points) if points else None)


def as_tracklets(pictures: Pictures, crops: int) -> Pictures:
    """Average the vectors of each vehicle in each camera; its tokens are those of its middle crop.

    Raises:
        DatasetError: a sample without a camera.
    """
    made = average_tracklets(pictures.described.vectors, pictures.samples, crops)
    tokens = pictures.described.tokens
    described = Descriptions(made.vectors, None if tokens is None else tokens[made.rows])
    return Pictures([pictures.samples[row] for row in made.rows], described)


def choose_directions(
    samples: Sequence[Sample], queries: Sequence[Modality], galleries: Sequence[Modality], camera: str | None
) -> list[Direction]:
    """The directions to report: those wanted, or else all.

    Args:
        samples: what is there.
        queries: modalities that may ask; all when empty.
        galleries: modalities that may be asked about; all when empty.
        camera: whose pictures may ask; any when None.

    Raises:
        DatasetError: nothing is left.
    """
    seen = np.array([camera in (None, sample.camera) for sample in samples], dtype=np.bool_)
    found = [
        direction
        for direction in directions(samples, seen)
        if direction.query in (queries or Modality) and direction.gallery in (galleries or Modality)
    ]
    if not found:
        raise DatasetError("no picture asks or none can be asked about: see --query, --gallery and --query-camera")
    return found
