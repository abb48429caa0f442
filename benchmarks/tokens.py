"""How few bytes a picture's points may have: bytes against mAP of the re-ranked short list, on a validation split.

Points lose channels (`reid.compaction`), decoder layers, resolution (blocks that share a token) and bits. Every form
re-ranks the same short lists, the first 20 by embedding, as the full float32 points do. Chosen is the smallest form
that loses under half a point, travels (`reid.tokens` writes int8) and has room in a sighting; float16 is there to
compare. Deployed weights carry fewer channels but share no tokens: `--block 1x1` keeps to what they can do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, product
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from reid.checkpoint import load_network
from reid.command import run_command
from reid.compaction import describe_samples, fold, learn_bases, spread
from reid.datasets import Sample
from reid.errors import ReidError
from reid.export_parts import fold_matcher
from reid.layouts import read_dataset, training_split
from reid.model import Porsche
from reid.point_matcher import DecoderLayer, PointMatcher
from reid.protocols import Labels, Protocol, removed_pairs
from reid.rankers import SHORT_LIST, EmbeddingRanker, match_scores, reorder
from reid.ranking import score_order
from reid.retrieval import Direction, directions
from reid.tokens import MAX_BYTES, Pooling, pack, packed_size, unpack

# 42, 63 and 127 are the most that the paper's 128 points have room for with three layers, two and one; 84 with blocks.
CHANNELS = (4, 8, 16, 24, 32, 42, 63, 84, 127)
BLOCKS = ((1, 1), (1, 2), (2, 2))
NUMBERS = {"int8": 1, "float16": 2, "float32": 4}
ALLOWED_LOSS = 0.005
# What the directions are learned from: 1,000 pictures are 128,000 points.
BASIS_PICTURES = 1000


@dataclass(frozen=True, slots=True)
class Form:
    """What is left of the points.

    Attributes:
        channels: numbers of a token.
        block: rows and columns of the points that share one.
        layers: decoder layers, the first ones.
        numbers: how a number is written.
    """

    channels: int
    block: tuple[int, int]
    layers: int
    numbers: str

    def bytes(self, points: tuple[int, int]) -> int:
        """Of a picture with so many rows and columns of points."""
        tokens = Pooling(points, self.block).tokens
        if self.numbers == "int8":
            return packed_size(self.layers, tokens, self.channels)
        return self.layers * tokens * self.channels * NUMBERS[self.numbers]


@dataclass(frozen=True, slots=True)
class Row:
    """How a form does.

    Attributes:
        form: the form.
        bytes: of a picture.
        mean_ap: mAP, 0-1, the mean over directions.
        loss: of mAP against full points, the mean over directions.
        worst_loss: of the direction that loses most.
        worst: which that is.
    """

    form: Form
    bytes: int
    mean_ap: float
    loss: float
    worst_loss: float
    worst: str


@dataclass(frozen=True, slots=True)
class ShortList:
    """One direction's galleries as the embedding ranks them.

    Attributes:
        direction: rows and columns.
        order: (Q, G) by embedding.
        removed: (Q, G) pairs that don't count.
        cosines: (Q, K) of the short list.
    """

    direction: Direction
    order: NDArray[np.int64]
    removed: NDArray[np.bool_]
    cosines: NDArray[np.float32]

    @property
    def members(self) -> NDArray[np.int64]:
        """(Q, K) indices of the pictures to re-rank."""
        members: NDArray[np.int64] = self.direction.columns[self.order[:, : self.cosines.shape[1]]]
        return members

    @property
    def name(self) -> str:
        """For a table."""
        return f"{self.direction.query} -> {self.direction.gallery}"


def short_lists(vectors: NDArray[np.float32], samples: Sequence[Sample]) -> list[ShortList]:
    """(N, D) embeddings -> the short lists of every direction; only the query itself is left out."""
    ranker, labels, made = EmbeddingRanker(vectors), Labels.of(samples), []
    for direction in directions(samples):
        removed = removed_pairs(labels, Protocol.ALL, direction.rows, direction.columns)
        order = ranker.order(direction.rows, direction.columns, removed)
        cosines = np.take_along_axis(ranker.cosines(direction.rows, direction.columns), order[:, :SHORT_LIST], axis=1)
        made.append(ShortList(direction, order, removed, cosines))
    return made


def describe(
    network: Porsche, samples: Sequence[Sample], basis: Tensor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, D) embeddings, and (N, L, P, C) points the most important channels first."""
    vectors = np.empty((len(samples), network.config.dimension), np.float32)
    parts: dict[int, Tensor] = {}
    for chosen, said in describe_samples(network, samples):
        vectors[chosen] = said.embedding.numpy()
        if said.tokens is not None:
            parts |= zip(chosen, said.tokens @ basis[None], strict=True)
    return vectors, torch.stack([parts[index] for index in range(len(samples))]).numpy()


def read_back(tokens: NDArray[np.float32], points: tuple[int, int], form: Form) -> Tensor:
    """(N, L, P, D) points -> (N, L, P, C) as whoever receives the form reads them."""
    pooling, cut = Pooling(points, form.block), tokens[..., : form.channels]
    if form.numbers == "int8":
        return torch.from_numpy(np.stack([unpack(pack(own, pooling)) for own in cut]))
    kind = np.dtype(form.numbers)
    return torch.from_numpy(np.stack([pooling.repeat(pooling.average(own).astype(kind).astype("f4")) for own in cut]))


@torch.inference_mode()
def logits_by_layers(matcher: PointMatcher, tokens: Tensor, chosen: ShortList) -> list[NDArray[np.float32]]:
    """Score a direction's short lists by the first layer, the first two, ...: each (Q, K) logits."""
    layers = [layer for layer in matcher.decoder if isinstance(layer, DecoderLayer)]
    parts: list[list[Tensor]] = [[] for _ in layers]
    for row, members in zip(chosen.direction.rows, torch.from_numpy(chosen.members), strict=True):
        for index, layer in enumerate(layers):
            matches = layer.matches(tokens[row : row + 1, index], tokens[members, index])  # (2, K, P)
            parts[index].append(layer.judge(matches))  # (K, 1)
    sums = list(accumulate(torch.stack(part) for part in parts))  # (Q, K, 1)
    # As `reid.compaction.fold` does: a dropped layer leaves its mean.
    means = [sum(float(layer.scale.bias) for layer in layers[kept:]) for kept in range(1, len(layers) + 1)]
    return [
        matcher.total((own + mean).flatten(0, 1)).reshape(own.shape[:2]).numpy()
        for own, mean in zip(sums, means, strict=True)
    ]


class Measure:
    """Scores forms of one network's points.

    Args:
        network: with a matcher.
        tokens: (N, L, P, D) points, most important channels first.
        lists: short lists of the N pictures.
        samples: N.
        mix: weight of the cosine in the score.
    """

    def __init__(
        self,
        network: Porsche,
        tokens: NDArray[np.float32],
        lists: Sequence[ShortList],
        samples: Sequence[Sample],
        mix: float,
    ) -> None:
        self._matcher, self._tokens, self._lists, self._mix = matcher_of(network), tokens, lists, mix
        self._points = network.config.points(network.config.matching_stage)
        self._vehicles = Labels.of(samples).vehicle
        self.full = Form(tokens.shape[3], (1, 1), tokens.shape[1], "float32")
        self._reference = self._mean_aps(self.full)[-1]

    def rows(self, form: Form) -> list[Row]:
        """Measure a form with one layer, two layers, ... up to its own."""
        found = []
        for layers, mean_aps in enumerate(self._mean_aps(form), start=1):
            own = Form(form.channels, form.block, layers, form.numbers)
            losses = self._reference - mean_aps
            worst = int(losses.argmax())
            mean_ap, loss, most = float(mean_aps.mean()), float(losses.mean()), float(losses[worst])
            found.append(Row(own, own.bytes(self._points), mean_ap, loss, most, self._lists[worst].name))
        return found

    def by_embedding(self) -> float:
        """MAP of the lists before they are re-ranked, the mean over directions."""
        return float(np.mean([self._mean_ap(own, own.order) for own in self._lists]))

    def _mean_aps(self, form: Form) -> list[NDArray[np.float64]]:
        """Per count of layers the mAP of each direction."""
        tokens = read_back(self._tokens, self._points, form)
        by_direction = [
            [
                self._mean_ap(own, reorder(own.order, match_scores(logits, own.cosines, self._mix)))
                for logits in logits_by_layers(self._matcher, tokens, own)
            ]
            for own in self._lists
        ]
        return list(np.array(by_direction).T)

    def _mean_ap(self, own: ShortList, order: NDArray[np.int64]) -> float:
        vehicles = (self._vehicles[own.direction.rows], self._vehicles[own.direction.columns])
        return score_order(order, *vehicles, own.removed).mean_ap


def matcher_of(network: Porsche) -> PointMatcher:
    """The matcher of a network that must have one."""
    if network.matcher is None:
        raise ReidError(f"{network.config.name}: has no point matcher")
    return network.matcher


def parse_block(text: str) -> tuple[int, int]:
    """`2x1` -> (2, 1), rows and columns.

    Raises:
        ReidError: no two numbers above zero.
    """
    rows, _, columns = text.partition("x")
    if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise ReidError(f"--block {text}: wanted ROWSxCOLUMNS, such as 1x1 or 2x2")
    return int(rows), int(columns)


def forms(
    full: Form, points: tuple[int, int], channels: Sequence[int], blocks: Sequence[tuple[int, int]] = BLOCKS
) -> Iterator[Form]:
    """Every combination that the points allow, with all layers; of float16 those that share no tokens."""
    dividing = [block for block in blocks if not any(n % b for n, b in zip(points, block, strict=True))]
    fitting = sorted({*(own for own in channels if own < full.channels), full.channels})
    for width, block in product(fitting, dividing):
        yield Form(width, block, full.layers, "int8")
    for width in fitting:
        yield Form(width, (1, 1), full.layers, "float16")


def frontier(rows: Sequence[Row]) -> list[Row]:
    """The rows that no row of fewer bytes equals, fewest bytes first."""
    best, kept = -1.0, []
    for row in sorted(rows, key=lambda row: (row.bytes, -row.mean_ap)):
        if row.mean_ap > best:
            best = row.mean_ap
            kept.append(row)
    return kept


def choose(rows: Sequence[Row]) -> Row | None:
    """The fewest bytes that lose under half a point, of the forms that a sighting has room for."""
    fitting = [r for r in rows if r.form.numbers == "int8" and r.bytes <= MAX_BYTES and r.loss < ALLOWED_LOSS]
    return min(fitting, key=lambda row: (row.bytes, row.loss), default=None)


def milliseconds(network: Porsche, basis: Tensor, packed: Sequence[bytes], form: Form) -> float:
    """Median processor time to read and score one picture against `SHORT_LIST` others, as the stream does."""
    scorer = fold_matcher(matcher_of(fold(network, basis, form.channels, form.layers)))
    taken = []
    for _ in range(30):
        # Time of all threads together, so that it is one core's however many the library of matrices takes.
        started = time.process_time()
        tokens = np.stack([unpack(own) for own in packed])
        scorer.score(tokens[:1], tokens[1:])
        taken.append((time.process_time() - started) * 1000)
    return float(np.median(taken))


def table_of(rows: Sequence[Row], chosen: Row | None, title: str) -> Table:
    """Bytes against mAP for the terminal."""
    table = Table(title=title)
    for name in ("bytes", "channels", "block", "layers", "numbers", "mAP", "loss", "worst loss", "worst direction", ""):
        table.add_column(name)
    for row in rows:
        form, marks = row.form, ("fits" if row.bytes <= MAX_BYTES else "", "chosen" if row == chosen else "")
        table.add_row(
            str(row.bytes), str(form.channels), f"{form.block[0]}x{form.block[1]}", str(form.layers), form.numbers,
            f"{row.mean_ap:.4f}", f"{row.loss:.4f}", f"{row.worst_loss:.4f}", row.worst, " ".join(marks).strip(),
        )  # fmt: skip
    return table


def main(  # noqa: PLR0913 one parameter an option
    weights: Annotated[Path, typer.Option(help="A .pt file with a point matcher.")],
    data: Annotated[Path, typer.Option(help="Folder with samples.csv, or of a published set as it comes.")],
    split: Annotated[str, typer.Option(help="Rows to choose on; never the test split.")] = "val",
    channels: Annotated[list[int] | None, typer.Option(help="Repeat to choose; default: 4 to 127, and all.")] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Points that share a token, ROWSxCOLUMNS; repeat to choose; default: all.")
    ] = None,
    mix: Annotated[float, typer.Option(help="Weight of the cosine in the score, as in `rerank`.")] = 0.0,
    device: Annotated[str, typer.Option(help="Describes the pictures; they are scored on the CPU.")] = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all rows here.")] = None,
) -> None:
    """Print the curve of bytes against mAP, and the smallest form that loses under half a point and fits."""
    cv2.setNumThreads(1)
    blocks = [parse_block(text) for text in block or ()] or BLOCKS
    network, model_id = load_network(weights)
    network.to(device)
    basis = learn_bases(network, spread(read_dataset(data, training_split(data)), BASIS_PICTURES))
    samples = read_dataset(data, split)
    vectors, tokens = describe(network, samples, basis)
    network.cpu()
    measure = Measure(network, tokens, short_lists(vectors, samples), samples, mix)
    points = network.config.points(network.config.matching_stage)
    tried = list(forms(measure.full, points, channels or CHANNELS, blocks))
    if all(form.numbers != "int8" for form in tried):
        raise ReidError(f"--block: none divides points of {points[0]}x{points[1]}")
    rows = [r for f in track(tried, "scoring", console=Console(stderr=True), transient=True) for r in measure.rows(f)]
    full = measure.rows(measure.full)[-1]
    chosen = choose(rows)
    console = Console(width=130)
    console.print(table_of([*frontier(rows), full], chosen, f"{model_id} on {data.name} {split}, top {SHORT_LIST}"))
    console.print(f"by embedding alone {measure.by_embedding():.4f}, full points {full.mean_ap:.4f}")
    verdict = None if chosen is None else _verdict(chosen, network, basis, tokens)
    console.print("no form that fits loses under half a point" if verdict is None else verdict)
    if json_file:
        record = {"model": model_id, "embedding": measure.by_embedding(), "full": asdict(full), "verdict": verdict}
        record |= {"chosen": chosen and asdict(chosen), "rows": [asdict(row) for row in rows]}
        json_file.write_text(json.dumps(record, indent=2) + "\n")


def _verdict(chosen: Row, network: Porsche, basis: Tensor, tokens: NDArray[np.float32]) -> str:
    """One line on the chosen form, which `pack` can write."""
    form, pooling = chosen.form, Pooling(network.config.points(network.config.matching_stage), chosen.form.block)
    packed = [pack(own[: form.layers, :, : form.channels], pooling) for own in tokens[: SHORT_LIST + 1]]
    return (
        f"smallest under half a point: {chosen.bytes} bytes ({form.channels} channels, "
        f"blocks of {form.block[0]}x{form.block[1]}, {form.layers} layers, {form.numbers}), "
        f"loses {chosen.loss * 100:.2f} points, "
        f"{chosen.worst_loss * 100:.2f} at worst ({chosen.worst}); one against {SHORT_LIST} takes "
        f"{milliseconds(network, basis, packed, form):.1f} ms on one core"
    )


if __name__ == "__main__":
    run_command(main)
