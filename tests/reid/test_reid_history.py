"""The laws of a run's history: an epoch once, whole lines only, and the same curves in TensorBoard."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from reid.history import EpochRecord, History, HistoryError


def record(epoch: int, loss: float = 1.0) -> EpochRecord:
    scores = {"visible->thermal": {"mAP": 0.1 * epoch, "rank1": 0.2 * epoch}} if epoch % 2 == 0 else {}
    return EpochRecord(epoch, 10 * epoch, 160 * epoch, 2.5, 64.0, 1e-3, {"loss": loss, "triplet": 0.25}, scores)


def write(folder: Path, epochs: range, **options: bool) -> None:
    with History(folder, keep_epochs=epochs.start - 1, **options) as history:
        for epoch in epochs:
            history.append(record(epoch))


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    shown = EventAccumulator(str(folder))
    shown.Reload()
    return [(event.step, event.value) for event in shown.Scalars(name)]


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "run", range(1, 4), tensorboard=False)
    assert History.read(tmp_path / "run" / "history.jsonl") == [record(1), record(2), record(3)]


def test_a_folder_without_a_history_has_no_epochs(tmp_path: Path) -> None:
    assert History.read(tmp_path / "history.jsonl") == []


def test_a_resumed_run_has_no_epoch_twice(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6), tensorboard=False)
    write(tmp_path, range(4, 7), tensorboard=False)
    assert [kept.epoch for kept in History.read(tmp_path / "history.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_a_new_run_in_an_old_folder_starts_from_nothing(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6), tensorboard=False)
    write(tmp_path, range(1, 2), tensorboard=False)
    assert History.read(tmp_path / "history.jsonl") == [record(1)]


def test_every_cut_of_the_last_line_loses_that_line_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write(tmp_path, range(1, 3), tensorboard=False)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert History.read(path) == [record(1)]
    write(tmp_path, range(2, 4), tensorboard=False)
    assert History.read(path) == [record(1), record(2), record(3)]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write(tmp_path, range(1, 2), tensorboard=False)
    path.write_bytes(path.read_bytes() + b'{"epoch": "two"}\n')
    with pytest.raises(HistoryError, match=r"history\.jsonl:2: .*epoch"):
        History.read(path)


def test_a_diverged_loss_is_written_all_the_same(tmp_path: Path) -> None:
    with History(tmp_path, tensorboard=False) as history:
        history.append(record(1, math.nan))
    assert math.isnan(History.read(history.path)[0].parts["loss"])


def test_tensorboard_shows_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    write(tmp_path, range(4, 7))
    assert [step for step, _ in curve(tmp_path, "loss/triplet")] == [1, 2, 3, 4, 5, 6]
    measured = curve(tmp_path, "validation/visible_to_thermal/mAP")
    assert [step for step, _ in measured] == [2, 4, 6]
    assert [value for _, value in measured] == pytest.approx([0.2, 0.4, 0.6])
    assert curve(tmp_path, "speed/pictures_per_s")[0] == (1, 64.0)
    assert curve(tmp_path, "learning_rate")[0][1] == pytest.approx(1e-3)


def test_without_tensorboard_asking_for_it_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, range(1, 3), tensorboard=False)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(HistoryError, match="need the package tensorboard"), History(tmp_path):
        pass
    # What was there is not lost to a missing package.
    assert len(History.read(tmp_path / "history.jsonl")) == 2
