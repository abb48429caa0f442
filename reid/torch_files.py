"""Files of tensors: written whole or not at all, read without running what they contain."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from reid.errors import CheckpointError


def write_atomically(path: Path, contents: object) -> None:
    """Save with torch to a temporary file beside `path`, then rename it into place.

    Whoever reads `path` finds the old file or the new one, whole, whenever this process dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as stream:
            torch.save(contents, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read any checkpoint of ours; only tensors and plain values are accepted.

    Raises:
        CheckpointError: no such file, or not a torch file with a dictionary.
    """
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a torch checkpoint, or broken") from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{path}: not a checkpoint: holds {type(contents).__name__}")
    return contents
