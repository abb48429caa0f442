"""Retrieval quality: `python -m reid.evaluate --weights W --data DIR --split test`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich import box
from rich.console import Console
from rich.progress import TaskID
from rich.table import Table

from reid.backend import Descriptions
from reid.command import run_command
from reid.datasets import Sample
from reid.embedder import Embedder
from reid.errors import ReidError
from reid.evaluation_data import (
    Pictures,
    as_tracklets,
    choose_directions,
    describe_samples,
    progress_bar,
    read_both,
)
from reid.modality import Modality
from reid.protocols import Protocol, protocols_for, refuse_unless_allowed
from reid.rankers import MIX, SHORT_LIST, EmbeddingRanker, PointRanker, Ranker, RankerName, Scorer, ShortListRanker
from reid.retrieval import RANKS, Direction, Record, Result, evaluate_ranker

WITHIN = ("within_class_mAP", "within_class_rank1")
PLAIN = ("mINP", *(f"rank{n}" for n in RANKS[1:]), *WITHIN)
TABLE_WIDTH = 150


def rankers_of(
    described: Descriptions,
    score: Scorer,
    names: Sequence[RankerName] = (),
    top: int = SHORT_LIST,
    mix: float = MIX,
) -> list[Ranker]:
    """Build rankers over described pictures.

    Args:
        described: N pictures.
        score: compares tokens: `Embedder.score`.
        names: which to build; embedding, and rerank where there are tokens, when empty.
        top: length of the short list.
        mix: weight of the cosine in POM's score.
    """
    embedding = EmbeddingRanker(described.vectors)
    rankers: dict[RankerName, Ranker] = {RankerName.EMBEDDING: embedding}
    if described.tokens is not None:
        points = PointRanker(embedding, described.tokens, score, mix)
        rankers |= {RankerName.RERANK: ShortListRanker(points, top), RankerName.POM: points}
    chosen = names or [name for name in rankers if name is not RankerName.POM]
    return [rankers[name] for name in chosen]


def choose_protocols(samples: Sequence[Sample], wanted: Sequence[Protocol], tracklets: bool) -> list[Protocol]:
    """The protocols to report: those wanted, or else all that the data allows.

    Raises:
        DatasetError: the data lacks what a wanted one looks at.
    """
    for protocol in wanted:
        refuse_unless_allowed(samples, protocol)
    default = [Protocol.TRACKLETS] if tracklets else protocols_for(samples)
    return list(dict.fromkeys(wanted)) or default


def evaluate_all(
    rankers: Sequence[Ranker], samples: Sequence[Sample], protocols: Sequence[Protocol], chosen: Sequence[Direction]
) -> list[Result]:
    """Rank every direction by every ranker and protocol, with a bar that counts queries."""
    results = []
    queries = sum(len(direction.rows) for direction in chosen)
    with progress_bar() as bar:
        for ranker in rankers:
            for protocol in protocols:
                task = bar.add_task(f"{ranker.name}, {protocol}", total=queries)

                def advance(ranked: int, task: TaskID = task) -> None:
                    bar.advance(task, ranked)

                results += evaluate_ranker(ranker, samples, protocol, chosen, advance)
    return results


def tables_of(records: Sequence[Record]) -> list[Table]:
    """Tables for the terminal, one a ranker and protocol; mAP and Rank-1 with their 95 % intervals."""
    tables: dict[str, Table] = {}
    for record in records:
        title = f"{record['ranker']}, protocol {record['protocol']}"
        if title not in tables:
            tables[title] = _empty_table(f"{title} ({record['model_id']}, {record['bytes_per_query']} bytes a picture)")
        named = [str(record[name]) for name in ("query", "gallery", "queries", "excluded")]
        figures = [_number(record[name]) for name in PLAIN]
        intervals = [_with_interval(record, name) for name in ("mAP", "rank1")]
        tables[title].add_row(*named, *intervals, *figures, f"{record['ms_per_query']:.3g}")
    return list(tables.values())


def _empty_table(title: str) -> Table:
    note = "(low high): 95 % of 1000 draws of the query vehicles"
    table = Table(
        title=title, caption=note, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0
    )
    for column in ("query", "gallery", "queries", "excluded", "mAP", "rank1", *PLAIN, "ms/query"):
        header = column.removeprefix("within_class_") + ("\nin class" if column in WITHIN else "")
        table.add_column(header, no_wrap=True)
    return table


def _number(value: str | float | None) -> str:
    return f"{value:.3f}" if isinstance(value, float) else "-"


def _with_interval(record: Record, name: str) -> str:
    """`0.812 (0.790 0.833)`, or `-` for a direction without a valid query."""
    figures = [_number(record[key]) for key in (name, f"{name}_low", f"{name}_high")]
    return "{} ({} {})".format(*figures) if record["queries"] else "-"


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write JSON.

    Raises:
        ReidError: can't be written.
    """
    try:
        path.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ReidError(f"{path}: can't be written: {error.strerror}") from error


def main(  # noqa: PLR0913 one parameter an option
    weights: Annotated[Path, typer.Option(help="A .pt file or an *_openvino_model folder.")],
    data: Annotated[Path, typer.Option(help="Folder with samples.csv, or of a published set as it comes.")],
    split: Annotated[str | None, typer.Option(help="Whose pictures ask and are asked about; default: all.")] = None,
    distractors: Annotated[str | None, typer.Option(help="Split that joins the galleries only.")] = None,
    ranker: Annotated[
        list[RankerName] | None,
        typer.Option(help="Repeatable. Default: embedding, and rerank where the weights have a point matcher."),
    ] = None,
    protocol: Annotated[
        list[Protocol] | None, typer.Option(help="Repeatable. Default: those that the data allows.")
    ] = None,
    query: Annotated[list[Modality] | None, typer.Option(help="Repeatable: these ask only.")] = None,
    gallery: Annotated[list[Modality] | None, typer.Option(help="Repeatable: these are asked about only.")] = None,
    query_camera: Annotated[str | None, typer.Option(help="Pictures of this camera ask only.")] = None,
    top: Annotated[int, typer.Option(help="Length of rerank's short list.", min=1)] = SHORT_LIST,
    mix: Annotated[float, typer.Option(help="POM's score: logit / 10 + MIX * cosine; 0 is PORSCHE's own.")] = MIX,
    mirrored: Annotated[bool, typer.Option(help="Average each vector with the mirrored picture's.")] = True,
    tracklets: Annotated[int, typer.Option(help="Average so many crops per vehicle and camera.", min=0)] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write records here.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; OpenVINO's name for a folder.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
) -> None:
    """Rank every modality against every other: CMC, mAP, mINP and their 95 % intervals.

    Rankers:
    - embedding: by cosine
    - rerank: its best --top re-ordered by point matching
    - pom: point matching of all pairs; slow, what the other two aim at

    Protocols, by what a query's gallery leaves out:
    - all: the query itself
    - same_scene: also its vehicle in the same scene (MSVR310's standard)
    - same_camera: also its vehicle from the same camera, or else view
    - tracklets: everything from the same camera, with or without --tracklets

    Figures:
    - a query without a match counts in nothing but `excluded`
    - intervals are of 1000 draws of the query vehicles, seeded
    - in class: the same lists without vehicles of other classes
    - ms/query: to compare and rank
    - --no-mirrored gives the vectors that a stream makes, which averages several crops instead
    - bytes a picture (bytes_per_query): of the gallery, its vector in float32, its points packed to int8

    Example:
    python -m reid.evaluate --weights weights/porsche-small.pt --data DIR
    --split test --distractors train --ranker rerank --ranker pom
    --query visible --gallery thermal --json figures.json
    """
    if json_file and not json_file.parent.is_dir():
        raise ReidError(f"{json_file}: no folder {json_file.parent}")
    cv2.setNumThreads(1)
    embedder = Embedder(weights, device=device, threads=threads, mirrored=mirrored)
    samples = read_both(data, split, distractors)
    protocols = choose_protocols(samples, protocol or (), tracklets=bool(tracklets))
    choose = partial(choose_directions, queries=query or (), galleries=gallery or (), camera=query_camera)
    chosen, names = choose(samples), list(dict.fromkeys(ranker or ()))
    described = describe_samples(embedder, samples, names != [RankerName.EMBEDDING] if names else None)
    pictures = Pictures(samples, described)
    if tracklets:
        pictures = as_tracklets(pictures, tracklets)
        chosen = choose(pictures.samples)
    rankers = rankers_of(pictures.described, embedder.score, names, top, mix)
    results = evaluate_all(rankers, pictures.samples, protocols, chosen)
    records: list[Record] = [{**result.record(), "model_id": embedder.info.model_id} for result in results]
    Console(width=TABLE_WIDTH).print(*tables_of(records))
    if json_file:
        write_records(json_file, records)


if __name__ == "__main__":
    run_command(main)
