"""Scores against the truth: a case worked by hand, an independent IDF1, and the laws that any case obeys."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from typer.testing import CliRunner

from storage.database import Database
from storage.records import AssignmentRecord, CameraRecord, PathSegment, TrackletRecord
from storage.writer import Writer
from streamer.box_matching import intersection_over_union
from streamer.evaluate import AsOf, app, as_document, read_boxes, read_database, read_truth
from streamer.scoring import (
    Evaluation,
    EvaluationError,
    LinkScores,
    PredictedBoxes,
    TruthBoxes,
    evaluate,
)

#: camera, frame, vehicle, left edge; every box is 40 px square at y = 100.
Row = tuple[str, int, str, float]
MODALITIES = {"a": "visible", "b": "thermal"}
HEADER = "camera,frame,t,vehicle,x1,y1,x2,y2,visible_fraction,truncated"


def rows_of(camera: str, vehicle: str, left: float, frames: range) -> list[Row]:
    return [(camera, frame, vehicle, left) for frame in frames]


def truth_of(rows: list[Row]) -> TruthBoxes:
    said = predicted_of(rows)
    ones = np.ones(len(rows))
    return TruthBoxes(said.cameras, said.frames, said.frames / 10.0, said.vehicles, said.boxes, ones, 0 * ones)


def predicted_of(rows: list[Row]) -> PredictedBoxes:
    cameras, frames, vehicles, left = zip(*rows, strict=True) if rows else ((), (), (), ())
    corners = np.array([(x, 100, x + 40, 140) for x in left], dtype=np.float64).reshape(-1, 4)
    return PredictedBoxes(np.array(cameras, dtype=str), np.array(frames, dtype=np.int64), np.array(vehicles), corners)


# Vehicle 1 stands at 0, vehicle 2 at 200; 14 true boxes.
WORKED_TRUTH = [
    *rows_of("a", "1", 0, range(4)),
    *rows_of("a", "2", 200, range(4)),
    *rows_of("b", "1", 0, range(4)),
    *rows_of("b", "2", 200, range(2)),
]
# 15 boxes: all true ones are found, and `t` is nothing. Matched boxes: 1-p 6, 1-q 2, 2-q 2, 2-r 2, 2-s 2.
WORKED_PREDICTION = [
    *rows_of("a", "p", 0, range(4)),
    *rows_of("a", "q", 200, range(2)),
    *rows_of("a", "r", 200, range(2, 4)),
    *rows_of("b", "p", 0, range(2)),
    *rows_of("b", "q", 0, range(2, 4)),
    *rows_of("b", "s", 200, range(2)),
    *rows_of("b", "t", 400, range(3, 4)),
]


@pytest.fixture(scope="module")
def worked() -> Evaluation:
    return evaluate(truth_of(WORKED_TRUTH), predicted_of(WORKED_PREDICTION), modalities=MODALITIES)


def test_identities_of_the_worked_case(worked: Evaluation) -> None:
    # The best one-to-one naming is 1-p (6 boxes) and 2-q, 2-r or 2-s (2): 8 of 14 true and 15 predicted boxes.
    assert worked.overall.idf1 == pytest.approx(2 * 8 / (14 + 15))
    assert worked.overall.idp == pytest.approx(8 / 15)
    assert worked.overall.idr == pytest.approx(8 / 14)


def test_switches_of_the_worked_case(worked: Evaluation) -> None:
    # 1: p to q within b. 2: q to r within a, and r to s from a to b.
    assert worked.overall.id_switches == 3
    assert worked.overall.mota == pytest.approx((14 - 1 - 3) / 14)
    assert [camera.id_switches for camera in worked.cameras] == [1, 1]


def test_hota_of_the_worked_case(worked: Evaluation) -> None:
    # All overlaps are 1, so every threshold says the same. Per true positive: matched boxes of the pair of ids over
    # all boxes of either. Boxes: 1 has 8, 2 has 6; p 6, q 4, r 2, s 2.
    ass_a = (6 * 6 / 8 + 2 * 2 / 10 + 2 * 2 / 8 + 2 * 2 / 6 + 2 * 2 / 6) / 14
    assert worked.overall.det_a == pytest.approx(14 / 15)
    assert worked.overall.ass_a == pytest.approx(ass_a)
    assert worked.overall.hota == pytest.approx(math.sqrt(14 / 15 * ass_a))


def test_cameras_of_the_worked_case(worked: Evaluation) -> None:
    first, second = worked.cameras
    assert (first.camera, first.modality, first.recall, first.precision) == ("a", "visible", 1.0, 1.0)
    assert first.idf1 == pytest.approx(2 * (4 + 2) / (8 + 8))
    assert (second.camera, second.modality, second.recall) == ("b", "thermal", 1.0)
    assert second.precision == pytest.approx(6 / 7)
    assert second.idf1 == pytest.approx(2 * (2 + 2) / (6 + 7))


def test_links_of_the_worked_case(worked: Evaluation) -> None:
    # True: 1 and 2, each a~b. Predicted: p (1 and 1: right) and q (2 and 1: wrong).
    wanted = LinkScores("a~b", truth=2, found=1, predicted=2, right=1, unmatched=0)
    assert worked.camera_links == (wanted,)
    assert worked.modality_links == (replace(wanted, name="RGB~thermal"),)
    assert worked.links == replace(wanted, name="all")
    assert (wanted.recall, wanted.precision) == (0.5, 0.5)


def test_perfect_boxes_without_linking() -> None:
    unlinked = [(camera, frame, camera + vehicle, left) for camera, frame, vehicle, left in WORKED_TRUTH]
    evaluation = evaluate(truth_of(WORKED_TRUTH), predicted_of(unlinked), modalities=MODALITIES)
    assert [camera.idf1 for camera in evaluation.cameras] == [1.0, 1.0]
    # 1 is named by 4 of its 8 boxes, 2 by 4 of 6.
    assert evaluation.overall.idf1 == pytest.approx(2 * 8 / (14 + 14))
    assert (evaluation.links.predicted, evaluation.links.precision, evaluation.links.recall) == (0, None, 0.0)


def test_the_truth_scores_one() -> None:
    evaluation = evaluate(truth_of(WORKED_TRUTH), predicted_of(WORKED_TRUTH), modalities=MODALITIES)
    overall = evaluation.overall
    scores = (overall.idf1, overall.hota, overall.mota, evaluation.links.precision, evaluation.links.recall)
    assert scores == pytest.approx((1.0,) * 5)
    assert overall.id_switches == 0


def random_case(seed: int) -> tuple[list[Row], list[Row]]:
    """Three cameras, moving vehicles, and a tracker that jitters, misses, invents and swaps ids."""
    rng = np.random.default_rng(seed)
    truth: list[Row] = []
    predicted: list[Row] = []
    for camera in ("a", "b", "c"):
        for frame in range(12):
            names = rng.permutation(6) if frame % 5 == 0 else np.arange(6)
            for vehicle in range(5):
                left = 60.0 * vehicle + 4 * frame
                truth.append((camera, frame, str(vehicle), left))
                if rng.random() < 0.85:
                    predicted.append((camera, frame, f"p{names[vehicle]}", left + rng.normal(0, 8)))
            if rng.random() < 0.3:
                predicted.append((camera, frame, f"p{names[5]}", rng.uniform(0, 400)))
    return truth, predicted


def independent_idf1(truth: list[Row], predicted: list[Row]) -> float:
    """The definition itself: boxes that the best one-to-one naming explains, twice, over all boxes."""
    together: Counter[tuple[str, str]] = Counter()
    for camera, frame, vehicle, left in truth:
        for other in predicted:
            shared = 40 - abs(left - other[3])
            if other[:2] == (camera, frame) and shared / (80 - shared) >= 0.5:
                together[vehicle, other[2]] += 1
    names = sorted({row[2] for row in truth}), sorted({row[2] for row in predicted})
    counts = np.array([[together[vehicle, name] for name in names[1]] for vehicle in names[0]])
    return float(2 * counts[linear_sum_assignment(-counts)].sum() / (len(truth) + len(predicted)))


@pytest.mark.parametrize("seed", range(5))
def test_idf1_agrees_with_its_definition(seed: int) -> None:
    truth, predicted = random_case(seed)
    evaluation = evaluate(truth_of(truth), predicted_of(predicted), modalities={})
    assert 0.2 < evaluation.overall.idf1 < 0.9
    assert evaluation.overall.idf1 == pytest.approx(independent_idf1(truth, predicted))


@pytest.mark.parametrize("seed", range(5))
def test_what_a_vehicle_is_called_changes_nothing(seed: int) -> None:
    truth, predicted = random_case(seed)
    names = {f"p{number}": chr(ord("z") - number) for number in range(6)}
    renamed = [(camera, frame, names[vehicle], left) for camera, frame, vehicle, left in predicted]
    twice = [evaluate(truth_of(truth), predicted_of(rows), modalities={}) for rows in (predicted, renamed)]
    assert twice[0] == twice[1]


@pytest.mark.parametrize(
    ("height", "visible_fraction", "truncated"), [(23.9, 1.0, 0.0), (40, 0.49, 0.0), (40, 1.0, 0.51)]
)
@pytest.mark.parametrize("is_found", [True, False])
def test_ignored_truth_is_neither_missed_nor_found(
    height: float, visible_fraction: float, truncated: float, is_found: bool
) -> None:
    truth = truth_of([*WORKED_TRUTH, ("a", 0, "3", 800)])
    truth.boxes[-1, 3] = truth.boxes[-1, 1] + height
    truth.visible_fractions[-1] = visible_fraction
    truth.truncations[-1] = truncated
    extra: list[Row] = [("a", 0, "u", 800)] if is_found else []
    with_ignored = evaluate(truth, predicted_of([*WORKED_PREDICTION, *extra]), modalities=MODALITIES)
    without = evaluate(truth_of(WORKED_TRUTH), predicted_of(WORKED_PREDICTION), modalities=MODALITIES)
    counts = {"ignored_truth_boxes": 1, "dropped_predicted_boxes": int(is_found)}
    assert with_ignored == replace(without, overall=replace(without.overall, **counts))


def test_truth_at_the_limits_is_evaluated() -> None:
    truth = truth_of([("a", 0, "1", 0)])
    truth.boxes[0, 3] = truth.boxes[0, 1] + 24
    truth.visible_fractions[0] = truth.truncations[0] = 0.5
    assert truth.evaluated.tolist() == [True]


def test_a_second_box_on_evaluated_truth_is_false_though_ignored_truth_lies_there() -> None:
    truth = truth_of([("a", 0, "1", 0), ("a", 0, "2", 10)])
    truth.visible_fractions[1] = 0.1
    predicted = predicted_of([("a", 0, "p", 0), ("a", 0, "q", 10)])
    assert evaluate(truth, predicted, modalities={}).overall.precision == 0.5


@pytest.mark.parametrize(("shift", "recall"), [(40 / 3 - 0.01, 1.0), (40 / 3 + 0.01, 0.0)])
def test_boxes_match_from_half_overlap(shift: float, recall: float) -> None:
    evaluation = evaluate(truth_of([("a", 0, "1", 0)]), predicted_of([("a", 0, "p", shift)]), modalities={})
    assert evaluation.overall.recall == recall


def test_two_fragments_find_one_link_once() -> None:
    truth = [*rows_of("a", "1", 0, range(4)), *rows_of("b", "1", 0, range(4))]
    halves = [(camera, frame, "early" if frame < 2 else "late", left) for camera, frame, _, left in truth]
    evaluation = evaluate(truth_of(truth), predicted_of(halves), modalities={})
    assert evaluation.links == LinkScores("all", truth=1, found=1, predicted=2, right=2, unmatched=0)
    assert evaluation.modality_links[0].name == "unknown~unknown"


def test_the_majority_of_matched_boxes_says_who_a_vehicle_is() -> None:
    predicted = [*rows_of("a", "p", 0, range(3)), ("a", 3, "p", 200), ("b", 0, "p", 200), ("b", 1, "p", 200)]
    evaluation = evaluate(truth_of(WORKED_TRUTH), predicted_of(predicted), modalities=MODALITIES)
    assert (evaluation.links.predicted, evaluation.links.right, evaluation.links.unmatched) == (1, 0, 0)


def test_a_link_to_a_box_on_nothing_is_wrong() -> None:
    predicted: list[Row] = [("a", 0, "p", 0), ("b", 0, "p", 600)]
    evaluation = evaluate(truth_of(WORKED_TRUTH), predicted_of(predicted), modalities=MODALITIES)
    assert evaluation.links == LinkScores("all", truth=2, found=0, predicted=1, right=0, unmatched=1)


def test_modality_pairs_in_the_order_of_the_day() -> None:
    modalities = {"a": "visible", "b": "thermal", "c": "visible", "d": "near_infrared"}
    rows: list[Row] = [(camera, 0, "1", 0) for camera in modalities]
    links = evaluate(truth_of(rows), predicted_of(rows), modalities=modalities).modality_links
    wanted = [("RGB~RGB", 1), ("RGB~NIR", 2), ("RGB~thermal", 2), ("NIR~thermal", 1)]
    assert [(link.name, link.right) for link in links] == wanted


def test_no_prediction_scores_nothing() -> None:
    overall = evaluate(truth_of(WORKED_TRUTH), predicted_of([]), modalities=MODALITIES).overall
    assert (overall.idf1, overall.hota, overall.recall, overall.truth_boxes) == (0.0, 0.0, 0.0, 14)


def test_frames_after_the_truth_and_cameras_without_it_count_in_nothing() -> None:
    more = [*WORKED_PREDICTION, ("a", 4, "p", 0.0), ("z", 0, "p", 0.0)]
    evaluation = evaluate(truth_of(WORKED_TRUTH), predicted_of(more), modalities=MODALITIES)
    without = evaluate(truth_of(WORKED_TRUTH), predicted_of(WORKED_PREDICTION), modalities=MODALITIES)
    assert evaluation == replace(without, cameras_without_truth=("z",))


def test_a_frame_without_truth_makes_boxes_false() -> None:
    truth = truth_of([("a", 0, "1", 0), ("a", 9, "1", 0)])
    predicted = predicted_of([("a", 0, "p", 0), ("a", 5, "p", 0), ("a", 9, "p", 0)])
    assert evaluate(truth, predicted, modalities={}).overall.precision == pytest.approx(2 / 3)


@pytest.mark.parametrize(("from_t", "until_t", "frames"), [(0.3, 0.8, range(3, 8)), (0.8, math.inf, range(8, 12))])
def test_a_window_is_the_case_cut_to_it(from_t: float, until_t: float, frames: range) -> None:
    truth, predicted = random_case(0)
    window = evaluate(truth_of(truth), predicted_of(predicted), modalities={}, from_t=from_t, until_t=until_t)
    cut = [[row for row in rows if row[1] in frames] for rows in (truth, predicted)]
    assert window == evaluate(truth_of(cut[0]), predicted_of(cut[1]), modalities={})


def test_times_of_three_decimals_give_the_right_frames() -> None:
    # At 30 fps frame 100 is at 3.333 s, so that the rate reads 30.003 and 2 s would be frame 60.006.
    rows = rows_of("a", "1", 0, range(101))
    truth = replace(truth_of(rows), times=np.round(np.arange(101) / 30, 3))
    until, since = {"until_t": 2.0}, {"from_t": 2.0}
    boxes = [evaluate(truth, predicted_of(rows), modalities={}, **part).overall.truth_boxes for part in (until, since)]
    assert boxes == [60, 41]


def test_two_boxes_of_a_vehicle_in_a_frame_are_refused() -> None:
    twins = predicted_of([("a", 0, "p", 0), ("a", 0, "p", 90)])
    with pytest.raises(EvaluationError, match="prediction: camera a, frame 0: vehicle p has two boxes"):
        evaluate(truth_of(WORKED_TRUTH), twins, modalities={})


@pytest.mark.parametrize("rows", [[], [("a", 0, "1", 0.0)]])
def test_no_evaluated_truth_is_refused(rows: list[Row]) -> None:
    truth = truth_of(rows)
    truth.truncations[:] = 1.0
    with pytest.raises(EvaluationError, match="truth"):
        evaluate(truth, predicted_of(WORKED_PREDICTION), modalities={})


def test_wrong_shapes_are_refused() -> None:
    said = predicted_of(WORKED_PREDICTION)
    with pytest.raises(ValueError, match=r"boxes \(N, 4\)"):
        PredictedBoxes(said.cameras, said.frames, said.vehicles, said.boxes[:, :3])
    with pytest.raises(ValueError, match=r"columns \(N,\)"):
        PredictedBoxes(said.cameras, said.frames[:-1], said.vehicles, said.boxes)


def test_overlap() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 5, 9]])
    wanted = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    assert intersection_over_union(boxes, boxes) == pytest.approx(np.array(wanted))


# The command


START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def store(url: str, rows: Sequence[Row], first_said: dict[str, str]) -> None:
    """Stores a tracklet per camera and vehicle; `first_said` names another vehicle that it was given to at its end."""
    database = Database.open(url)
    with database.transaction() as session:
        writer = Writer(session)
        writer.register_cameras([CameraRecord("a", "main", "visible", started_at=START)])
        writer.register_cameras([CameraRecord("b", "main", "auto", started_at=START)])
        for number, (camera, vehicle) in enumerate(sorted({(row[0], row[2]) for row in rows})):
            own = [row for row in rows if (row[0], row[2]) == (camera, vehicle)]
            tracklet = store_tracklet(writer, number, camera, own)
            for name in filter(None, (first_said.get(vehicle), vehicle)):
                writer.assign(decision(tracklet, name))
    database.close()


def decision(tracklet: str, vehicle: str) -> AssignmentRecord:
    return AssignmentRecord(
        tracklet,
        vehicle,
        "new",
        is_provisional=False,
        score=None,
        margin=None,
        modality_pair=None,
        transit_s=None,
        model_id="model",
        decided_at=START,
    )


def store_tracklet(writer: Writer, number: int, camera: str, rows: list[Row]) -> str:
    tracklet = f"{camera}/{number}"
    boxes = predicted_of(rows)
    times = START.timestamp() + boxes.frames / 10
    end = START + timedelta(seconds=int(boxes.frames[-1]) / 10)
    path = PathSegment(f"{tracklet}/0", tracklet, 0, boxes.frames, times, boxes.boxes.astype(np.float32))
    record = TrackletRecord(tracklet, "main", camera, "s", number, "car", {"car": 1.0}, START, end, "lost")
    writer.store_sighting(record, path, [])
    return tracklet


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'run.db'}"
    store(url, WORKED_PREDICTION, first_said={"q": "unlinked"})
    return url


def write_truth(path: Path, rows: list[Row]) -> Path:
    lines = [f"{camera},{frame},{frame / 10},{v},{x},100,{x + 40},140,1.0,0.0" for camera, frame, v, x in rows]
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def write_boxes(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["camera", "t", "captured_at", "frame", "vehicle", "x1", "y1", "x2", "y2"])
        for camera, frame, vehicle, left in rows:
            when = f"2026-01-01T00:00:00.{frame}00000+00:00"
            writer.writerow([camera, frame / 10, when, frame, vehicle, left, 100, left + 40, 140])
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    truth = write_truth(tmp_path / "truth.csv", WORKED_TRUTH)
    boxes = write_boxes(tmp_path / "boxes.csv", WORKED_PREDICTION)
    return ["--truth", str(truth), "--boxes", str(boxes)]


def run(arguments: list[str]) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def test_files_read_back_as_written(files: list[str]) -> None:
    evaluation = evaluate(read_truth(Path(files[1])), read_boxes(Path(files[3])), modalities=MODALITIES)
    assert evaluation == evaluate(truth_of(WORKED_TRUTH), predicted_of(WORKED_PREDICTION), modalities=MODALITIES)


def test_the_command_prints_and_writes_the_figures(files: list[str], tmp_path: Path, worked: Evaluation) -> None:
    given = [f"--modality={camera}={modality}" for camera, modality in MODALITIES.items()]
    code, printed, _ = run([*files, *given, "--format", "json", "--json", str(tmp_path / "scores.json")])
    wanted = json.loads(json.dumps(as_document(worked)))
    assert code == 0
    assert json.loads(printed) == wanted
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == wanted


def test_the_command_prints_tables(files: list[str]) -> None:
    code, printed, _ = run(files)
    assert code == 0
    for text in ("0.552", "a~b", "unknown~unknown", "14 true boxes of 2 vehicles"):
        assert text in printed


def test_the_database_scores_as_its_export(files: list[str], database: str, worked: Evaluation) -> None:
    code, printed, _ = run([*files[:2], "--database", database, "--modality", "b=thermal", "--format", "json"])
    assert code == 0
    assert json.loads(printed) == json.loads(json.dumps(as_document(worked)))


def test_the_decision_at_the_end_and_what_is_known_now(files: list[str], database: str) -> None:
    linked = {}
    for as_of in ("decision", "final"):
        vehicles = read_database(database, AsOf(as_of))[0].vehicles
        linked[as_of] = set(vehicles.tolist())
    assert linked["decision"] - linked["final"] == {"unlinked"}
    assert linked["final"] - linked["decision"] == {"q"}
    assert run([*files[:2], "--database", database, "--as-of", "decision"])[0] == 0


def test_a_camera_of_day_and_night_has_no_modality_of_its_own(database: str) -> None:
    assert read_database(database, AsOf.FINAL)[1] == {"a": "visible"}


def test_modalities_come_from_gt_json_unless_given(files: list[str], tmp_path: Path) -> None:
    cameras = {"a": {"kind": "rgb"}, "b": {"kind": "nir"}}
    (tmp_path / "gt.json").write_text(json.dumps({"cameras": cameras}), encoding="utf-8")
    assert "RGB~NIR" in run(files)[1]
    assert "RGB~thermal" in run([*files, "--modality", "b=thermal"])[1]


def test_a_window_by_the_command(files: list[str]) -> None:
    code, printed, _ = run([*files, "--until-t", "0.2", "--format", "json"])
    assert code == 0
    assert json.loads(printed)["overall"]["truth_boxes"] == 8


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ("", "boxes.csv: no column camera"),
        ("camera,frame,vehicle,x1,y1,x2\n", "boxes.csv: no column y2"),
        ("camera,frame,vehicle,x1,y1,x2,y2\n", "boxes.csv: no boxes"),
        ("camera,frame,vehicle,x1,y1,x2,y2\na,0,p,1,2,3\n", "boxes.csv: line 2: wanted 7 values, got 6"),
        ("camera,frame,vehicle,x1,y1,x2,y2\na,0,p,1,2,3,four\n", "line 2: y2: wanted a number, got 'four'"),
        ("camera,frame,vehicle,x1,y1,x2,y2\na,0,p,1,2,3,nan\n", "line 2: y2: wanted a number, got 'nan'"),
        ("camera,frame,vehicle,x1,y1,x2,y2\na,-1,p,1,2,3,4\n", "line 2: frame: wanted a whole number from 0"),
        ("camera,frame,vehicle,x1,y1,x2,y2\nz,0,p,1,2,3,4\n", "no camera in common: truth has a, b; prediction has z"),
        (b"\xff\xfe\x00", "boxes.csv: not a CSV file"),
    ],
)
def test_bad_boxes_are_one_clear_line(files: list[str], content: str | bytes, culprit: str) -> None:
    Path(files[3]).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(files, culprit)


@pytest.mark.parametrize(
    ("more", "culprit"),
    [
        (["--modality", "a=infrared"], "--modality: wanted CAMERA=rgb|"),
        (["--modality", "z=rgb"], "--modality: z is not a camera of the truth (a, b)"),
        (["--database", "sqlite:///none.db"], "wanted either --database or --boxes"),
        (["--from-t", "100"], "no evaluated truth box between 100 and inf seconds"),
        (["--json", "/nowhere/scores.json"], "/nowhere/scores.json: No such file or directory"),
        (["--boxes", "/nowhere/boxes.csv"], "/nowhere/boxes.csv: No such file or directory"),
        (["--truth", "/nowhere/truth.csv"], "/nowhere/truth.csv: No such file or directory"),
    ],
)
def test_bad_options_are_one_clear_line(files: list[str], more: list[str], culprit: str) -> None:
    assert_refused([*files, *more], culprit)


def test_a_bad_database_is_one_clear_line(files: list[str], tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path / 'none.db'}"
    assert_refused([*files[:2], "--database", missing], "none.db")
    assert not (tmp_path / "none.db").exists()
    assert_refused([*files[:2], "--database", "http://user:secret@host"], "http://user:***@host")
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    Database.open(empty).close()
    assert_refused([*files[:2], "--database", empty], "empty.db: no boxes")


@pytest.mark.parametrize("content", ["{", "[]", '{"cameras": {"a": {"kind": "sonar"}}}'])
def test_a_bad_gt_json_is_one_clear_line(files: list[str], tmp_path: Path, content: str) -> None:
    (tmp_path / "gt.json").write_text(content, encoding="utf-8")
    assert_refused(files, "gt.json: wanted cameras.ID.kind, one of rgb, thermal, nir")


def assert_refused(arguments: list[str], culprit: str) -> None:
    code, printed, said = run(arguments)
    assert (code, printed) == (2, "")
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert culprit in said


def test_the_command_loads_no_torch() -> None:
    program = "import sys, streamer.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
