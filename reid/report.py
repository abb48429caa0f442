"""What a run came to, for people: `python -m reid.report --run runs/reid/X --data DIR --split val`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated

import cv2
import jinja2
import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from reid.command import run_command
from reid.datasets import Sample, read_sample
from reid.embedder import Embedder
from reid.evaluation_data import describe_samples
from reid.history import FILE_NAME, EpochRecord, History
from reid.layouts import read_dataset
from reid.modality import Modality
from reid.pictures import Chart, cmc_chart, loss_chart, scatter_chart, spoken, validation_chart
from reid.protocols import Protocol
from reid.rankers import EmbeddingRanker, RankerName
from reid.retrieval import Result, best_matches, directions, evaluate
from reid.torch_files import read_checkpoint

NEAREST = 10
#: Width of a crop on the page, pixels; twice what it takes there, for fine screens.
CROP_WIDTH = 200
COLUMNS = ("mAP", "mINP", "rank1", "rank5", "rank10")


@dataclass(frozen=True, slots=True)
class Run:
    """How the weights of a report came about; empty where that is not known.

    Attributes:
        name: of the run.
        config: all settings, as they stand in the checkpoint.
        revision: commit of the code that trained.
        history: its epochs.
    """

    name: str
    config: Mapping[str, object] = field(default_factory=dict)
    revision: str = ""
    history: Sequence[EpochRecord] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture of the page: data URIs for its light and dark form, and the words for who can't see it."""

    light: str
    dark: str
    words: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a query's nearest: its picture, whether it shows the query's vehicle, and the cosine."""

    picture: str
    name: str
    is_right: bool
    similarity: float


@dataclass(frozen=True, slots=True)
class HardQuery:
    """A query, what it scores, and what its list starts with."""

    picture: str
    name: str
    average_precision: float
    first_rank: int
    answers: Sequence[Answer]


def read_run(folder: Path) -> Run:
    """Read what a training run left in its folder.

    Raises:
        ReidError: the checkpoint or the history is broken. Either may be absent.
    """
    checkpoint = folder / "last.pt"
    contents = read_checkpoint(checkpoint) if checkpoint.exists() else {}
    revision, history = str(contents.get("revision", "")), History.read(folder / FILE_NAME)
    return Run(folder.resolve().name, contents.get("config", {}), revision, history)


def hardest_rows(result: Result, count: int) -> list[int]:
    """Queries of lowest average precision, the lowest first, at most one of a vehicle.

    Pictures of one vehicle tend to fail together; three of them would say no more than one.

    Args:
        result: of one direction.
        count: so many at most.

    Returns:
        Indices of the samples.
    """
    order = np.argsort(result.scores.average_precisions, kind="stable")
    _, firsts = np.unique(result.vehicles[order], return_index=True)
    return [int(row) for row in result.scores.rows[order[np.sort(firsts)[:count]]]]


def hard_queries(
    vectors: NDArray[np.float32], samples: Sequence[Sample], result: Result, count: int
) -> list[HardQuery]:
    """The hardest queries of a direction and their ten nearest, with pictures.

    Args:
        vectors: (N, D) unit norm.
        samples: what they show.
        result: of the ranking by these vectors.
        count: so many queries at most.

    Raises:
        DatasetError: a picture can't be read.
    """
    ranker = EmbeddingRanker(vectors)
    (direction,) = (d for d in directions(samples) if (d.query, d.gallery) == (result.query, result.gallery))
    found = []
    for row in hardest_rows(result, count):
        nearest = best_matches(ranker, samples, result.protocol, direction, row, NEAREST)
        answers = [_answer(samples[row], samples[n], float(vectors[row] @ vectors[n])) for n in nearest]
        place = int(np.flatnonzero(result.scores.rows == row)[0])
        precision, first = result.scores.average_precisions[place], result.scores.first_ranks[place]
        picture = _crop(samples[row])
        found.append(HardQuery(picture, _name(samples[row]), float(precision), int(first), answers))
    return found


def _answer(query: Sample, sample: Sample, similarity: float) -> Answer:
    is_right = (sample.site, sample.vehicle) == (query.site, query.vehicle)
    return Answer(_crop(sample), _name(sample), is_right, similarity)


def _name(sample: Sample) -> str:
    known = {"camera": sample.camera, "view": sample.view, "class": sample.vehicle_class}
    more = [f"{key} {value}" for key, value in known.items() if value]
    return ", ".join([f"vehicle {sample.vehicle}", *more, spoken(sample.modality)])


def _crop(sample: Sample) -> str:
    """A small JPEG of a sample, as a data URI."""
    picture = cv2.cvtColor(read_sample(sample), cv2.COLOR_RGB2BGR)
    height, width = picture.shape[:2]
    if width > CROP_WIDTH:
        size = (CROP_WIDTH, max(1, round(height * CROP_WIDTH / width)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _data_uri(encoded.tobytes(), "image/jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _figure(chart: Chart, words: str) -> Figure:
    return Figure(_data_uri(chart.light, "image/png"), _data_uri(chart.dark, "image/png"), words)


def write_report(
    out: Path,
    run: Run,
    vectors: NDArray[np.float32],
    samples: Sequence[Sample],
    results: Sequence[Result],
    *,
    source: str,
    hard_per_direction: int = 3,
) -> None:
    """Write a page that needs no other file and no network, and the same figures as JSON beside it.

    Args:
        out: the page, `report.html`; the JSON has its name with the suffix `.json`.
        run: how the weights came about.
        vectors: (N, D) unit norm, N at least 2.
        samples: what they show.
        results: of ranking the samples, by any ranker and protocol, at least one by embedding: lists and curves
            show a direction's first of these.
        source: what the figures come from: data, split, weights.
        hard_per_direction: how many of a direction's hardest queries to show.

    Raises:
        DatasetError: a picture can't be read.
    """
    records = [result.record() for result in results]
    shown: dict[tuple[Modality, Modality], Result] = {}
    for result in results:
        if result.ranker is RankerName.EMBEDDING:
            shown.setdefault((result.query, result.gallery), result)
    ordered = list(shown.values())
    page = {
        "run": run,
        "source": source,
        "counts": _counts(samples),
        "columns": COLUMNS,
        "records": records,
        "hard": [(r, hard_queries(vectors, samples, r, hard_per_direction)) for r in ordered],
        "config": yaml.safe_dump(dict(run.config), sort_keys=False) if run.config else "",
        **_figures(run, vectors, samples, ordered),
    }
    last = asdict(run.history[-1]) if run.history else None
    summary = {"run": run.name, "revision": run.revision, "source": source, "config": run.config}
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = {**summary, "last_epoch": last, "scores": records}
    out.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    out.write_text(_template().render(page), encoding="utf-8")


def _figures(
    run: Run, vectors: NDArray[np.float32], samples: Sequence[Sample], results: Sequence[Result]
) -> dict[str, Figure | None]:
    losses, validation = loss_chart(run.history), validation_chart(run.history)
    scatter = scatter_chart(vectors, [s.modality for s in samples], [f"{s.site}/{s.vehicle}" for s in samples])
    cmc = cmc_chart({(r.query, r.gallery): r.scores.cmc for r in results})
    return {
        "cmc": _figure(cmc, "Share of queries with a match among the first 1 to 20, by query and gallery modality"),
        "scatter": _figure(scatter, "Embeddings in the plane of largest variance, coloured by modality"),
        "losses": _figure(losses, "Loss parts by epoch") if losses else None,
        "validation": _figure(validation, "Validation mAP by epoch and direction") if validation else None,
    }


def _counts(samples: Sequence[Sample]) -> str:
    vehicles = len({(sample.site, sample.vehicle) for sample in samples})
    present = {sample.modality for sample in samples}
    bands = ", ".join(spoken(modality) for modality in Modality if modality in present)
    return f"{len(samples)} pictures of {vehicles} vehicles ({bands})"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["spoken"] = spoken
    source = resources.files("reid").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)


def report_run(
    run: Path, data: Path, split: str | None, out: Path, weights: Path | None = None, hard_per_direction: int = 3
) -> None:
    """Embed a split with a run's weights, rank it (protocol `all`) and write the report. Blocks while it computes.

    Args:
        run: folder of the run.
        data: folder of a data set.
        split: of the data; all of it when None.
        out: the page.
        weights: a `.pt` file or an exported folder; the run's `model.pt` when None.
        hard_per_direction: how many of a direction's hardest queries to show.

    Raises:
        ReidError: weights, data or the run's files can't be used.
    """
    course = read_run(run)
    embedder = Embedder(weights or run / "model.pt")
    samples = read_dataset(data, split)
    vectors = describe_samples(embedder, samples, tokens=False).vectors
    results = evaluate(vectors, samples, Protocol.ALL)
    source = f"{data}, {f'split {split}' if split else 'all splits'}; weights {embedder.info.model_id}"
    write_report(out, course, vectors, samples, results, source=source, hard_per_direction=hard_per_direction)


def main(
    run: Annotated[Path, typer.Option(help="Folder of the run: last.pt, model.pt, history.jsonl.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set.")],
    split: Annotated[str | None, typer.Option(help="Of the data; default: all of it.")] = None,
    weights: Annotated[Path | None, typer.Option(help="In place of the run's model.pt.")] = None,
    out: Annotated[Path | None, typer.Option(help="The page; default: report.html in the run's folder.")] = None,
    hard: Annotated[int, typer.Option(help="Hard queries to show per direction.", min=0)] = 3,
) -> None:
    """Write a page of pictures about a run, and its figures as JSON."""
    cv2.setNumThreads(1)
    page = out or run / "report.html"
    report_run(run, data, split, page, weights, hard)
    typer.echo(f"wrote {page} and {page.with_suffix('.json')}", err=True)


if __name__ == "__main__":
    run_command(main)
