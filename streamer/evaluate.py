"""`python -m streamer.evaluate`: what a run knows of the vehicles, against the truth.

Either the program's database or the CSV of `python -m storage export --boxes` is scored, so that any other tracker's
boxes can be compared in the same way.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from reid.modality import Modality
from storage import trajectories
from storage.database import Database
from storage.errors import StorageError
from storage.status import load_cameras
from streamer.config import mask
from streamer.scoring import Evaluation, EvaluationError, LinkScores, PredictedBoxes, TruthBoxes, evaluate

_CORNERS = ("x1", "y1", "x2", "y2")
_TRUTH_COLUMNS = ("camera", "frame", "t", "vehicle", *_CORNERS, "visible_fraction", "truncated")
_BOX_COLUMNS = ("camera", "frame", "vehicle", *_CORNERS)
#: What `gt.json` and people call a modality, beside our own names.
_MODALITY_NAMES = {
    "rgb": Modality.VISIBLE,
    "nir": Modality.NEAR_INFRARED,
    **{modality.value: modality for modality in Modality},
}


class AsOf(StrEnum):
    """Which of the database's opinions is scored."""

    DECISION = "decision"
    FINAL = "final"


class Format(StrEnum):
    """What standard output gets."""

    TABLE = "table"
    JSON = "json"


def read_truth(path: Path) -> TruthBoxes:
    """Read a `truth.csv`.

    Args:
        path: the file; columns `camera,frame,t,vehicle,x1,y1,x2,y2,visible_fraction,truncated`, in any order.

    Raises:
        EvaluationError: the file is missing, lacks a column, has no rows, or a value is no number.
    """
    columns = _read_columns(path, _TRUTH_COLUMNS)
    return TruthBoxes(
        cameras=np.array(columns["camera"]),
        frames=_integers(path, columns, "frame"),
        times=_numbers(path, columns, "t"),
        vehicles=np.array(columns["vehicle"]),
        boxes=_corners(path, columns),
        visible_fractions=_numbers(path, columns, "visible_fraction"),
        truncations=_numbers(path, columns, "truncated"),
    )


def read_boxes(path: Path) -> PredictedBoxes:
    """Read predicted boxes.

    Args:
        path: the file; columns `camera,frame,vehicle,x1,y1,x2,y2` in any order, others are passed over.

    Raises:
        EvaluationError: the file is missing, lacks a column, has no rows, or a value is no number.
    """
    columns = _read_columns(path, _BOX_COLUMNS)
    return PredictedBoxes(
        cameras=np.array(columns["camera"]),
        frames=_integers(path, columns, "frame"),
        vehicles=np.array(columns["vehicle"]),
        boxes=_corners(path, columns),
    )


def _read_columns(path: Path, wanted: Iterable[str]) -> dict[str, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = [*csv.reader(file)] or [[]]
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path}: not a CSV file: {error}") from error
    missing = [name for name in wanted if name not in header]
    if missing:
        raise EvaluationError(f"{path}: no column {', '.join(missing)} (it has {', '.join(header) or 'none'})")
    if not rows:
        raise EvaluationError(f"{path}: no boxes")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise EvaluationError(f"{path}: line {number}: wanted {len(header)} values, got {len(row)}")
    return dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))


def _numbers(path: Path, columns: Mapping[str, list[str]], name: str) -> NDArray[np.float64]:
    numbers = np.array([_number(text) for text in columns[name]], dtype=np.float64)
    _refuse(path, columns, name, ~np.isfinite(numbers), "a number")
    return numbers


def _integers(path: Path, columns: Mapping[str, list[str]], name: str) -> NDArray[np.int64]:
    numbers = _numbers(path, columns, name)
    _refuse(path, columns, name, (numbers < 0) | (numbers != np.floor(numbers)), "a whole number from 0")
    return numbers.astype(np.int64)


def _corners(path: Path, columns: Mapping[str, list[str]]) -> NDArray[np.float64]:
    return np.stack([_numbers(path, columns, name) for name in _CORNERS], axis=1)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _refuse(path: Path, columns: Mapping[str, list[str]], name: str, bad: NDArray[np.bool_], wanted: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise EvaluationError(f"{path}: line {rows[0] + 2}: {name}: wanted {wanted}, got {columns[name][rows[0]]!r}")


def read_database(url: str, as_of: AsOf) -> tuple[PredictedBoxes, dict[str, str]]:
    """Read what a run stored.

    Args:
        url: the database.
        as_of: what was said of each tracklet when it ended, or what is known now.

    Returns:
        The boxes, and the modality of each camera whose modality is known.

    Raises:
        EvaluationError: the database can't be read, or has no boxes.
    """
    try:
        database = Database.open(url, must_exist=True)
        try:
            with database.snapshot() as session:
                rows = list(trajectories.boxes(session, as_of=as_of.value))
                cameras = {row.camera: row.modality for row in load_cameras(session)}
        finally:
            database.close()
    except StorageError as error:
        raise EvaluationError(str(error)) from error
    if not rows:
        raise EvaluationError(f"{mask(url)}: no boxes")
    predicted = PredictedBoxes(
        cameras=np.array([row.camera for row in rows]),
        frames=np.array([row.frame for row in rows], dtype=np.int64),
        vehicles=np.array([str(row.vehicle) for row in rows]),
        boxes=np.array([(row.x1, row.y1, row.x2, row.y2) for row in rows], dtype=np.float64),
    )
    # A camera that changes between day and night is `auto`, which is no modality of its links.
    return predicted, {camera: name for camera, name in cameras.items() if name in _MODALITY_NAMES}


def read_modalities(path: Path) -> dict[str, str]:
    """Read the cameras' modalities from a `gt.json` (`cameras.{id}.kind`: `rgb`, `thermal` or `nir`).

    Raises:
        EvaluationError: the file is there, but has no such thing.
    """
    if not path.exists():
        return {}
    try:
        cameras = json.loads(path.read_text(encoding="utf-8"))["cameras"]
        return {camera: _MODALITY_NAMES[entry["kind"]] for camera, entry in cameras.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path}: wanted cameras.ID.kind, one of rgb, thermal, nir ({error})") from error


def _given_modalities(options: Iterable[str]) -> dict[str, str]:
    given = {}
    for option in options:
        camera, _, name = option.partition("=")
        if not camera or name not in _MODALITY_NAMES:
            raise EvaluationError(f"--modality: wanted CAMERA={'|'.join(_MODALITY_NAMES)}, got {option!r}")
        given[camera] = _MODALITY_NAMES[name].value
    return given


def _read_predicted(database: str | None, boxes: Path | None, as_of: AsOf) -> tuple[PredictedBoxes, dict[str, str]]:
    if database is not None and boxes is None:
        return read_database(database, as_of)
    if boxes is not None and database is None:
        return read_boxes(boxes), {}
    raise EvaluationError("wanted either --database or --boxes")


def _check_cameras(truth: TruthBoxes, predicted: PredictedBoxes, given: Iterable[str]) -> None:
    true = sorted({str(camera) for camera in truth.cameras})
    said = sorted({str(camera) for camera in predicted.cameras})
    if not set(true) & set(said):
        raise EvaluationError(f"no camera in common: truth has {', '.join(true)}; prediction has {', '.join(said)}")
    for camera in given:
        if camera not in true:
            raise EvaluationError(f"--modality: {camera} is not a camera of the truth ({', '.join(true)})")


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """Make an evaluation ready for JSON; links get precision and recall, None where there is nothing to divide."""
    return {
        "overall": asdict(evaluation.overall),
        "cameras": [asdict(camera) for camera in evaluation.cameras],
        "links": _link_document(evaluation.links),
        "camera_links": [_link_document(links) for links in evaluation.camera_links],
        "modality_links": [_link_document(links) for links in evaluation.modality_links],
        "cameras_without_truth": list(evaluation.cameras_without_truth),
    }


def _link_document(links: LinkScores) -> dict[str, Any]:
    return {**asdict(links), "precision": links.precision, "recall": links.recall}


def _overall_table(evaluation: Evaluation) -> Table:
    scores = evaluation.overall
    ratios = {
        "IDF1": scores.idf1,
        "IDP": scores.idp,
        "IDR": scores.idr,
        "HOTA": scores.hota,
        "DetA": scores.det_a,
        "AssA": scores.ass_a,
        "MOTA": scores.mota,
        "recall": scores.recall,
        "precision": scores.precision,
    }
    table = _table("All cameras as one sequence", [*ratios, "switches"])
    table.add_row(*map(_ratio, ratios.values()), str(scores.id_switches))
    table.caption = (
        f"{scores.truth_boxes} true boxes of {scores.truth_vehicles} vehicles ({scores.ignored_truth_boxes} ignored), "
        f"{scores.predicted_boxes} predicted of {scores.predicted_vehicles} ({scores.dropped_predicted_boxes} dropped)"
    )
    return table


def _camera_table(evaluation: Evaluation) -> Table:
    table = _table("Each camera by itself", ["recall", "precision", "IDF1", "switches", "vehicles", "ids"], "camera")
    for camera in evaluation.cameras:
        ratios = map(_ratio, (camera.recall, camera.precision, camera.idf1))
        counts = (camera.id_switches, camera.truth_vehicles, camera.predicted_vehicles)
        table.add_row(f"{camera.camera} ({camera.modality})", *ratios, *map(str, counts))
    return table


def _link_table(evaluation: Evaluation) -> Table:
    columns = ["recall", "precision", "true", "found", "predicted", "right", "unmatched"]
    table = _table("Links: one vehicle, two cameras", columns, "between")
    for group in (evaluation.camera_links, evaluation.modality_links, [evaluation.links]):
        for links in group:
            counts = (links.truth, links.found, links.predicted, links.right, links.unmatched)
            table.add_row(links.name, _ratio(links.recall), _ratio(links.precision), *map(str, counts))
        table.add_section()
    return table


def _table(title: str, numbers: Iterable[str], name: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    if name is not None:
        table.add_column(name, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show(evaluation: Evaluation, form: Format) -> None:
    if form is Format.JSON:
        typer.echo(json.dumps(as_document(evaluation), indent=2))
        return
    # Piped output has no width of its own, and rich's 80 columns would cut names off.
    console = Console() if Console().is_terminal else Console(width=120)
    for table in (_overall_table(evaluation), _camera_table(evaluation), _link_table(evaluation)):
        console.print(table)
    if evaluation.cameras_without_truth:
        console.print(f"not scored, no truth: {', '.join(evaluation.cameras_without_truth)}", markup=False)


def _write(path: Path, evaluation: Evaluation) -> None:
    try:
        path.write_text(json.dumps(as_document(evaluation), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror or error}") from error


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - one parameter per option
    truth: Annotated[Path, typer.Option(help="truth.csv; a gt.json beside it names the cameras' modalities.")],
    database: Annotated[str | None, typer.Option(help="URL of the run's database.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="Boxes as CSV, instead of a database.")] = None,
    as_of: Annotated[AsOf, typer.Option(help="What was said at a tracklet's end, or what is known now.")] = AsOf.FINAL,
    modality: Annotated[list[str] | None, typer.Option(help="CAMERA=visible|near_infrared|thermal.")] = None,
    from_t: Annotated[float, typer.Option(help="Seconds of the truth from which to evaluate.")] = 0.0,
    until_t: Annotated[float, typer.Option(help="Seconds of the truth before which to evaluate.")] = math.inf,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")] = None,
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TABLE,
) -> None:
    """Score a run's vehicles against the truth: identities over all cameras, each camera, and links between cameras."""
    try:
        true = read_truth(truth)
        predicted, stored = _read_predicted(database, boxes, as_of)
        given = _given_modalities(modality or ())
        _check_cameras(true, predicted, given)
        modalities = {**read_modalities(truth.with_name("gt.json")), **stored, **given}
        evaluation = evaluate(true, predicted, modalities=modalities, from_t=from_t, until_t=until_t)
        if json_file is not None:
            _write(json_file, evaluation)
    except EvaluationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    _show(evaluation, form)


if __name__ == "__main__":
    app()
