"""What a training run leaves of its course: `history.jsonl`, a line an epoch, and the same as TensorBoard curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

from pydantic import TypeAdapter, ValidationError

from reid.errors import ReidError

FILE_NAME = "history.jsonl"


class HistoryError(ReidError):
    """A history that can't be read, or curves that were asked for and can't be written."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One finished epoch.

    Attributes:
        epoch: how many are finished, from 1.
        step: batches trained on since the run began.
        pictures_seen: since the run began.
        seconds: that this epoch took, validation left out.
        pictures_per_s: of this epoch.
        learning_rate: at its end, of the heads.
        parts: mean loss parts.
        validation: per direction, such as `visible->thermal`, the scores `mAP` and `rank1`, 0-1; empty in an
            epoch that did not measure.
    """

    epoch: int
    step: int
    pictures_seen: int
    seconds: float
    pictures_per_s: float
    learning_rate: float
    parts: Mapping[str, float]
    validation: Mapping[str, Mapping[str, float]]

    def scalars(self) -> dict[str, float]:
        """The record as named curves; the names hold no character that TensorBoard would replace."""
        curves = {f"loss/{name}": value for name, value in self.parts.items()}
        for direction, scores in self.validation.items():
            name = direction.replace("->", "_to_")
            curves |= {f"validation/{name}/{score}": value for score, value in scores.items()}
        return {**curves, "speed/pictures_per_s": self.pictures_per_s, "learning_rate": self.learning_rate}


_RECORD = TypeAdapter(EpochRecord)


class _Curves(Protocol):
    """What we use of TensorBoard's writer, which has no types."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class History:
    """Writes the course of one run; a context manager, in one process and one thread.

    Entering forgets every epoch after `keep_epochs`, so a resumed run has none twice, and a run that starts
    anew in an old folder does not go on from another's curves. Each record is on the disk when `append`
    returns; a crash within it leaves half a line, which reading and entering drop.

    Args:
        folder: where `history.jsonl` and TensorBoard's event files lie.
        keep_epochs: epochs finished before; 0 for a new run, the checkpoint's epoch for a resumed one.
        tensorboard: also write event files. Their axis is the epoch.
    """

    def __init__(self, folder: Path, *, keep_epochs: int = 0, tensorboard: bool = True) -> None:
        self.path = folder / FILE_NAME
        self._keep_epochs = keep_epochs
        self._tensorboard = tensorboard
        self._curves: _Curves | None = None

    def __enter__(self) -> Self:
        """Open.

        Raises:
            HistoryError: TensorBoard is asked for and not installed, or the old file is broken.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [record for record in self.read(self.path) if record.epoch <= self._keep_epochs]
        if self._tensorboard:
            self._curves = _open_curves(self.path.parent, self._keep_epochs + 1)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        partial.write_bytes(b"".join(map(_line, kept)))
        partial.replace(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Write out and close the event file; a second call does nothing."""
        if self._curves is not None:
            self._curves.close()
        self._curves = None

    def append(self, record: EpochRecord) -> None:
        """Add a finished epoch; blocks until it is on the disk."""
        with self.path.open("ab") as stream:
            stream.write(_line(record))
            stream.flush()
            os.fsync(stream.fileno())
        if self._curves is not None:
            for name, value in record.scalars().items():
                self._curves.add_scalar(name, value, record.epoch)
            self._curves.flush()

    @staticmethod
    def read(path: Path) -> list[EpochRecord]:
        """Read a `history.jsonl`.

        Args:
            path: the file.

        Returns:
            Its whole lines, in order; none where there is no file.

        Raises:
            HistoryError: the file can't be read, or a whole line is no record.
        """
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HistoryError(f"{path}: {error.strerror}") from error
        return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _line(record: EpochRecord) -> bytes:
    """JSON with Python's NaN: a diverged loss must not keep the epoch from being written."""
    return json.dumps(_RECORD.dump_python(record)).encode() + b"\n"


def _parse(line: bytes, place: str) -> EpochRecord:
    try:
        return _RECORD.validate_json(line)
    except ValidationError as error:
        reason = error.errors()[0]
        key = ".".join(str(part) for part in reason["loc"]) or "line"
        raise HistoryError(f"{place}: not an epoch's record: {key}: {reason['msg']}") from error


def _open_curves(folder: Path, first_epoch: int) -> _Curves:
    """TensorBoard's writer; it shows nothing that older event files hold from `first_epoch` on."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise HistoryError("TensorBoard curves need the package tensorboard: pip install tensorboard") from error
    return cast("_Curves", SummaryWriter(str(folder), purge_step=first_epoch))
